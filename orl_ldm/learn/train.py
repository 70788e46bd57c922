"""A training run: buffers in; a policy, metrics and a checkpoint out."""

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import nn
from torch.optim import Optimizer

from orl_ldm.alone import alone
from orl_ldm.errors import UserError
from orl_ldm.interrupt import Interrupt
from orl_ldm.learn import acceptance, checkpoint
from orl_ldm.learn.acceptance import Acceptance, is_due
from orl_ldm.learn.bppo import BPPO
from orl_ldm.learn.bridge import D3rlpy
from orl_ldm.learn.checkpoint import Progress
from orl_ldm.learn.config import TrainConfig
from orl_ldm.learn.critics import Critics
from orl_ldm.learn.data import load
from orl_ldm.learn.facts import describe, identity
from orl_ldm.learn.holdout import share, split
from orl_ldm.learn.log import Log
from orl_ldm.learn.metrics import Metrics, alarms, not_finite
from orl_ldm.learn.ppo import PPO
from orl_ldm.learn.randomness import seed_start
from orl_ldm.policy import TrainedPolicy, load_policy, save_policy

#: At most this much work is lost to a kill that cannot be caught.
CHECKPOINT_SECONDS = 10.0


class Learner(Protocol):
    """An algorithm between two epochs. `parts` is all of its state, `samples` what it learns from in one epoch."""

    parts: dict[str, nn.Module | Optimizer]
    epochs: int
    samples: int

    @property
    def policy(self) -> TrainedPolicy: ...

    def epoch(self, index: int) -> Metrics: ...


ALGORITHMS: dict[str, type[Critics] | type[PPO] | type[BPPO] | type[D3rlpy]] = {
    "critics": Critics,
    "ppo": PPO,
    "bppo": BPPO,
    "d3rlpy": D3rlpy,
}


def train(config: TrainConfig, progress: bool = True) -> Path:
    """Train, going on from the checkpoint of the same configuration and data in `config.out`; returns the policy.

    The policy is the folder `<out>/policy`; beside it are `metrics.csv`, `tensorboard/` and `checkpoint.safetensors`.
    The same buffers and seed give a bit-equal policy on one CPU with one number of threads, interrupted or not. Raises
    UserError for buffers that are missing or do not fit together, and when the losses are no longer finite.
    """
    out, console = (
        Path(config.out),
        Console(stderr=True, quiet=not progress, markup=False, highlight=False, soft_wrap=True),
    )
    require_a_dial_that_turns(config)
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
        alone(out / ".lock", f"trains in {str(out)!r}"),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        seed_start(config.seed)
        learned, held = split(data, config.judge.held_out)
        learned = share(learned, config.share)
        learner: Learner = ALGORITHMS[config.section](learned, config)
        judge = Acceptance(learner.policy, learned, held, config.judge, config.seed)
        parts = {**learner.parts, **judge.parts}
        state = resume(out / "checkpoint.safetensors", parts, learner.epochs, run_digest, console)
        if not state.epochs:
            for made in ("checkpoints", "ope"):  # by a run with other settings
                shutil.rmtree(out / made, ignore_errors=True)
        learn(learner, judge, parts, state, config, console)
    facts = describe(config, data, transitions, state)
    facts |= acceptance.facts(state, judge, facts["behavior_reward"])
    save_policy(judge.accepted.cpu(), out / "policy", facts)
    console.print(f"{out / 'policy'}: {acceptance.sentence(facts)}, after {state.seconds:.0f} s")
    return out / "policy"


def learn(
    learner: Learner, judge: Acceptance, parts: checkpoint.Parts, state: Progress, config: TrainConfig, console: Console
) -> None:
    """Run the epochs that remain. `state` and the checkpoint advance together; a signal stops between two epochs."""
    out = Path(config.out)
    path, saved = out / "checkpoint.safetensors", time.monotonic()
    with Interrupt() as interrupt, Log(out, state.epochs) as log, _bar(console) as bar:
        task = bar.add_task("training", total=learner.epochs, completed=state.epochs, reward=float("nan"))
        while state.epochs < learner.epochs:
            begin = time.monotonic()
            metrics = learner.epoch(state.epochs) | judge.habits(learner.policy)
            if broken := not_finite(metrics):
                raise UserError(_diverged(broken[0], metrics, state, path))
            metrics["charts/SPS"] = learner.samples / (time.monotonic() - begin)
            state.epochs, state.metrics = state.epochs + 1, metrics
            if is_due(state.epochs, learner.epochs, config.judge.candidates):
                bar.update(task, description="judging")
                judge.offer(learner.policy, state)
                bar.update(task, description="training")
            state.seconds += time.monotonic() - begin
            if is_due(state.epochs, learner.epochs, config.keep_checkpoints):
                kept = {"epoch": state.epochs, "weights": asdict(config.reward_weights()), "digest": state.digest}
                save_policy(learner.policy, out / "checkpoints" / f"epoch-{state.epochs:05d}", kept)
            log.write(state.epochs, metrics)
            bar.update(task, advance=1, reward=metrics["offline/estimated_reward"])
            for name, sentence in alarms(metrics).items():
                state.alarms[name] = state.alarms.get(name, 0) + 1
                if state.alarms[name] == 1:
                    console.print(f"alarm in epoch {state.epochs}: {sentence}", style="yellow")
            last = state.epochs == learner.epochs
            if last or interrupt.received or time.monotonic() - saved > CHECKPOINT_SECONDS:
                checkpoint.save(path, parts, state)
                saved = time.monotonic()
            if interrupt.received:
                console.print(f"stopped after epoch {state.epochs} of {learner.epochs}; the same command goes on there")
                interrupt.act()


def resume(path: Path, parts: checkpoint.Parts, epochs: int, run_digest: str, console: Console) -> Progress:
    """The progress of the run's checkpoint, restored into `parts`; that of a new run where there is none."""
    if not path.exists():
        return Progress(run_digest)
    state = checkpoint.load(path, parts, run_digest)
    if state is None:
        console.print(f"{path} is of another configuration or other data: training starts anew")
        path.unlink()
        return Progress(run_digest)
    console.print(f"going on after epoch {state.epochs} of {epochs}")
    return state


def finished(folder: Path, run_digest: str) -> bool:
    """Whether the folder holds the policy of this run."""
    if not (folder / "policy.json").exists():
        return False
    try:
        return load_policy(folder)[1].get("digest") == run_digest
    except UserError:  # damaged, or of an older format: it is trained again
        return False


def require_a_dial_that_turns(config: TrainConfig) -> None:
    """Raises UserError for settings that do not go with `dial`, which relabels rewards by their terms."""
    others = {
        f"train.algo={config.algo} (critics alone learn it)": config.algo != "critics",
        f"train.term_scale={config.term_scale} (the dial is in natural units)": config.term_scale != "natural",
    }
    for other, given in others.items():
        if config.dial and given:
            raise UserError(f"train.dial does not go with {other}: set train.dial=false, or leave that out")


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
