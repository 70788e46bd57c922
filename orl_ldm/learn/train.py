"""A training run: buffers in; a policy, metrics and a checkpoint out."""

import shutil
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from orl_ldm.errors import UserError
from orl_ldm.interrupt import Interrupt
from orl_ldm.learn import checkpoint
from orl_ldm.learn.algorithms import TrainConfig
from orl_ldm.learn.checkpoint import Progress
from orl_ldm.learn.data import Dataset, load
from orl_ldm.learn.holdout import share, split
from orl_ldm.learn.learner import Learner, Metrics
from orl_ldm.learn.metrics import alarms, common_row, not_finite
from orl_ldm.learn.metrics_writer import MetricsWriter
from orl_ldm.learn.ope.checkpoint_selection import CheckpointSelection, is_due, sentence
from orl_ldm.learn.provenance import describe, identity
from orl_ldm.learn.randomness import seed_start
from orl_ldm.locks import locked
from orl_ldm.policy import load_policy, save_policy

#: Time between checkpoints: a kill that cannot be caught loses at most this much work.
CHECKPOINT_SECONDS = 10.0


def train(config: TrainConfig, progress: bool = True) -> Path:
    """Train, or resume from the checkpoint of the same configuration and data in `config.out`; returns the policy.

    The policy is the folder `<out>/policy`; beside it are `metrics.csv`, `tensorboard/` and `checkpoint.safetensors`.
    The same buffers and seed give a bit-equal policy on one CPU with one number of threads, interrupted or not. Raises
    UserError for buffers that are missing or do not fit together, and when the losses are no longer finite.
    """
    out = Path(config.out)
    console = Console(stderr=True, quiet=not progress, markup=False, highlight=False, soft_wrap=True)
    device = choose_device(config.device)
    data, transitions = load(config, device)
    run_digest = identity(config, transitions)
    for shard, reason in transitions.quarantined.items():
        console.print(f"left out shard {shard}: {reason}", style="yellow")
    if finished(out / "policy", run_digest):
        console.print(f"{out / 'policy'} is already trained on these data with this configuration")
        return out / "policy"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"train.out = {str(out)!r} is, or lies below, a file: name a folder") from None
    with (
        locked(out / ".lock", f"trains in {str(out)!r}"),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        seed_start(config.seed)
        learned, held_out = split(data, config.judge.held_out)
        learned = share(learned, config.image_fraction)
        learner = config.algorithm.create(learned, config)
        selection = CheckpointSelection(learner.policy, learned, held_out, config.judge, config.seed)
        state = resume(out, {**learner.parts, **selection.parts}, run_digest, console)
        learn(learner, selection, state, learned, config, console)
    facts = describe(config, data, transitions, state)
    facts |= selection.facts(state, facts["behavior_reward"])
    save_policy(selection.selected.cpu(), out / "policy", facts)
    console.print(f"{out / 'policy'}: {sentence(facts)}, after {state.seconds:.0f} s")
    return out / "policy"


def learn(
    learner: Learner,
    selection: CheckpointSelection,
    state: Progress,
    learned: Dataset,
    config: TrainConfig,
    console: Console,
) -> None:
    """Run the epochs that remain. `state` and the checkpoint advance together; a signal stops between two epochs."""
    out, algorithm, epochs = Path(config.out), config.algorithm, config.algorithm.epochs
    path, saved = out / "checkpoint.safetensors", time.monotonic()
    with Interrupt() as interrupt, MetricsWriter(out, state.epochs) as writer, _bar(console) as bar:
        task = bar.add_task("training", total=epochs, completed=state.epochs, reward=float("nan"))
        while state.epochs < epochs:
            # 1. Learn, and say what came of it.
            begin = time.monotonic()
            metrics = learner.epoch(state.epochs)
            metrics |= common_row(learner, learned)
            metrics["charts/SPS"] = algorithm.steps * algorithm.batch_size / (time.monotonic() - begin)
            if broken := not_finite(metrics):
                raise UserError(_diverged(broken[0], metrics, state, path))
            state.epochs, state.metrics = state.epochs + 1, metrics

            # 2. Judge the policy, if it is its turn.
            if is_due(state.epochs, epochs, config.judge.n_candidates):
                bar.update(task, description="judging")
                selection.offer(learner.policy, state)
                bar.update(task, description="training")
            state.seconds += time.monotonic() - begin

            # 3. Write down metrics, alarms and checkpoints.
            if is_due(state.epochs, epochs, config.keep_checkpoints):
                kept = {"epoch": state.epochs, "weights": config.reward_weights(), "digest": state.digest}
                save_policy(learner.policy, out / "checkpoints" / f"epoch-{state.epochs:05d}", kept)
            writer.write(state.epochs, metrics)
            bar.update(task, advance=1, reward=metrics["offline/estimated_reward"])
            for name, alarm in alarms(metrics).items():
                state.alarms[name] = state.alarms.get(name, 0) + 1
                if state.alarms[name] == 1:
                    console.print(f"alarm in epoch {state.epochs}: {alarm}", style="yellow")
            late = time.monotonic() - saved > CHECKPOINT_SECONDS
            if late or interrupt.received or state.epochs == epochs:
                checkpoint.save(path, {**learner.parts, **selection.parts}, state)
                saved = time.monotonic()
            if interrupt.received:
                console.print(f"stopped after epoch {state.epochs} of {epochs}; the same command resumes there")
                interrupt.act()


def resume(out: Path, parts: checkpoint.Parts, run_digest: str, console: Console) -> Progress:
    """The progress of the run's checkpoint, restored into `parts`; where there is none, that of a new run."""
    path = out / "checkpoint.safetensors"
    if path.exists():
        state = checkpoint.load(path, parts, run_digest)
        if state is not None:
            console.print(f"resuming after epoch {state.epochs}")
            return state
        console.print(f"{path} is of another configuration or other data: training starts anew")
        path.unlink()
    for made in ("checkpoints", "ope"):  # by a run with other settings
        shutil.rmtree(out / made, ignore_errors=True)
    return Progress(run_digest)


def finished(folder: Path, run_digest: str) -> bool:
    """Whether the folder holds the policy of this run."""
    if not (folder / "policy.json").exists():
        return False
    try:
        return load_policy(folder)[1].get("digest") == run_digest
    except UserError:  # damaged, or of an older format: it is trained again
        return False


def choose_device(name: str) -> torch.device:
    """`auto` is a CUDA device where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot train on device {name!r}: {reason}; set device to auto or cpu") from error


def _diverged(name: str, metrics: Metrics, state: Progress, path: Path) -> str:
    kept = f"the last good checkpoint is kept in {path}" if path.exists() else "there is no checkpoint yet"
    return (
        f"{name} is {metrics[name]} in epoch {state.epochs + 1}; {kept}: lower the learning rate, "
        "or look at the buffer with verify"
    )


def _bar(console: Console) -> Bar:
    return Bar(
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("estimated reward {task.fields[reward]:.4f}"),
        TimeRemainingColumn(),
        console=console,
    )
