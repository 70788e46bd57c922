"""The stages as commands: open what a stage needs, and run it under a progress bar."""

import glob
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from orl_ldm.buffer import local_folder
from orl_ldm.cli.environment import InterruptedByUser
from orl_ldm.cli.progress import episodes_bar, methods_bar
from orl_ldm.config import build, digest, override, read_toml
from orl_ldm.errors import UserError
from orl_ldm.files import require_writable
from orl_ldm.pipeline import Pipeline, find_pipeline, load_pipeline
from orl_ldm.terminal import say


def collect(name: str, settings: Sequence[str], console: Console) -> None:
    """Publish every shard of the pipeline's collection that is not there yet."""
    pipeline = load_pipeline(name, settings)
    if "://" not in pipeline.collect.out:
        require_writable(pipeline.collect.out, "collect.out")
    quiet()
    from orl_ldm.collect.collector import collect as run
    from orl_ldm.diffusion.ldm import open_ldm

    ldm = open_ldm(pipeline.ldm)
    with episodes_bar("collect", console) as advance:
        result = run(pipeline.collect, pipeline.data, pipeline.sampler, ldm, advance)
    resumed = f" ({result.resumed} of {result.units} shards were there already)" if result.resumed else ""
    say(console, f"{result.episodes} episodes of {result.behavior} in {result.url}{resumed}")


def train(name: str, settings: Sequence[str], console: Console) -> None:
    """Train the pipeline's policy."""
    pipeline = load_pipeline(name, settings)
    pipeline.train.reward_weights()  # an unknown setting is an error before any work
    for buffer in pipeline.train.buffers:
        if (place := local_folder(buffer)) and not place.is_dir():
            raise UserError(
                f"there is no buffer {buffer!r} yet: collect it first (make collect PIPELINE={pipeline.name}, or "
                f"orl-ldm collect {name}), or name others with --set train.buffers"
            )
    require_writable(pipeline.train.out, "train.out")
    from orl_ldm.learn import train as run

    try:
        folder = run(pipeline.train)
    except KeyboardInterrupt:  # raised by the learner after it saved a checkpoint
        raise InterruptedByUser from None
    say(console, f"policy in {folder}")


def evaluate(name: str, settings: Sequence[str], console: Console) -> None:
    """Score every method and report."""
    pipeline = load_pipeline(name, settings)
    policy = Path(pipeline.evaluate.policy or Path(pipeline.train.out) / "policy")
    if not pipeline.evaluate.policy and not (policy / "policy.json").exists():
        raise UserError(
            f"there is no policy in {str(policy)!r} yet: train one first (make train PIPELINE={pipeline.name}, or "
            f"orl-ldm train {name})"
        )
    if not pipeline.evaluate.policy and (later := later_rounds(Path(pipeline.train.out))):
        say(console, f"evaluating round 0, {policy}; later rounds exist: {', '.join(later)} (--set train.out=...)")
    require_writable(pipeline.evaluate.out, "evaluate.out")
    quiet()
    from orl_ldm.evaluate.run import Task
    from orl_ldm.evaluate.run import evaluate as run

    command = typed("evaluate", name, settings)
    task = Task(pipeline.name, pipeline.evaluate, pipeline.data, pipeline.ldm, pipeline.sampler, policy, command)
    with methods_bar(console) as advance:
        out = run(task, advance)
    if not json.loads((out / "facts.json").read_text(encoding="utf-8"))["same_ldm_as_learned"]:
        say(console, "note: the policy was trained with another LDM than the one that it steers here", "yellow")
    _report(pipeline, console)


def later_rounds(train: Path) -> list[str]:
    """Training folders of a loop's later rounds, beside that of the first."""
    found = train.parent.glob(f"{glob.escape(train.name)}-round*/policy/policy.json")
    return sorted(str(policy.parents[1]) for policy in found)


def report(name: str, settings: Sequence[str], console: Console) -> None:
    """Tables, figures and page of an evaluation."""
    _report(load_pipeline(name, settings), console)


def _report(pipeline: Pipeline, console: Console) -> None:
    from orl_ldm.report import build_report, print_table, write_tables

    folder = Path(pipeline.evaluate.out)
    training = trained_in(folder)
    require_writable(folder, "evaluate.out")
    write_tables(folder)
    page = build_report(folder, training)
    print_table(folder, console)
    say(console, f"report: {page}")


def trained_in(evaluation: Path) -> Path | None:
    """The folder of the training whose policy was evaluated; None where it is not there, as for a copied policy."""
    from orl_ldm.report.inputs import read_evaluation

    folder = (evaluation.resolve() / str(read_evaluation(evaluation).facts.get("policy_folder", ""))).parent
    return folder if (folder / "metrics.csv").is_file() else None


def pretrain(name: str, settings: Sequence[str]) -> None:
    """Train and export an LDM."""
    path = find_pipeline(name, pretraining=True)
    quiet()
    from orl_ldm.pretrain.config import PretrainConfig
    from orl_ldm.pretrain.run import pretrain as run

    config = build(PretrainConfig, override(read_toml(path), settings), str(path))
    require_writable(config.out, "out")
    try:
        run(config)
    except KeyboardInterrupt:  # raised after a checkpoint was saved
        raise InterruptedByUser from None


def prepare(console: Console) -> None:
    """Fetch the metric's weights."""
    from orl_ldm.metrics import lpips_weights

    say(console, f"LPIPS weights: {lpips_weights(lambda sentence: say(console, sentence))}")


def images(name: str, settings: Sequence[str], split: str, sheet: str, console: Console) -> None:
    """Print image names; save a contact sheet on request."""
    pipeline = load_pipeline(name, settings)
    quiet()
    from orl_ldm.images.sheet import save_sheet
    from orl_ldm.images.sources import open_images

    data = pipeline.data
    count = pipeline.evaluate.images if split == data.test_split else pipeline.collect.images
    refs = open_images(data.source, split, data.classes, count, data.seed, data.image_column)
    for ref in refs:
        say(console, ref.name)
    if sheet:
        try:
            save_sheet(refs, Path(sheet).expanduser())
        except (OSError, ValueError) as error:  # no such place, or no such kind of picture
            raise UserError(f"cannot save the sheet {sheet!r}: {error}") from None
    say(console, f"{len(refs)} images, list {digest([ref.name for ref in refs])[:12]}")


def typed(command: str, name: str, settings: Sequence[str]) -> str:
    """A command as it has to be typed into a shell."""
    return shlex.join(["orl-ldm", command, name, *(word for setting in settings for word in ("--set", setting))])


def quiet() -> None:
    """Keep the libraries' own progress bars and notices off the screen."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import datasets
    import diffusers

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
