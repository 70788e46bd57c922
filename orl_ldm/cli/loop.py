"""Rounds: collect with the last policy, learn from everything collected so far, until the estimate stops rising.

A round is nothing but a `collect` and a `train` with a few settings, which are printed: each can be run by hand, on
another machine. Stages that have been done are not done again, so an interrupted loop goes on where it stopped.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orl_ldm.cli import stages
from orl_ldm.pipeline import Pipeline, load_pipeline
from orl_ldm.policy import load_policy


def loop(name: str, rounds: int, rollouts: int, gain: float, settings: Sequence[str], console: Console) -> None:
    """The first collection and at most `rounds` more of `rollouts` rollouts of every image.

    Ends early when a round raises the estimated reward by less than `gain`.
    """
    pipeline = load_pipeline(name, settings)
    estimates: list[float] = []
    for number in range(rounds + 1):
        own = [*settings, *round_settings(pipeline, number, rollouts)]
        for command, stage in (("collect", stages.collect), ("train", stages.train)):
            shown = " ".join(f"--set {shell(setting)}" for setting in own)
            console.print(f"round {number}: orl-ldm {command} {name} {shown}", highlight=False, soft_wrap=True)
            stage(name, own, console)
        estimates.append(float(load_policy(Path(trained(pipeline, number)) / "policy")[1]["estimated_reward"]))
        if number and estimates[-1] < max(estimates[:-1]) + gain:
            break
    best = max(range(len(estimates)), key=estimates.__getitem__)
    table = Table("round", "estimated reward", "policy")
    for number, estimate in enumerate(estimates):
        table.add_row(str(number) + (" *" if number == best else ""), f"{estimate:.4f}", trained(pipeline, number))
    console.print(table)
    command = f"orl-ldm evaluate {name} --set train.out={trained(pipeline, best)}"
    console.print(f"next: {command}", highlight=False, soft_wrap=True)


def round_settings(pipeline: Pipeline, number: int, rollouts: int) -> list[str]:
    """What a round sets beside the pipeline's own settings; round 0 is the pipeline itself."""
    if not number:
        return []
    buffers = [*pipeline.train.buffers, *(collected(pipeline, n) for n in range(1, number + 1))]
    return [
        f"collect.policy={trained(pipeline, number - 1)}/policy",
        f"collect.out={collected(pipeline, number)}",
        f"collect.rollouts={rollouts}",
        f"collect.first_rollout={pipeline.collect.first_rollout + pipeline.collect.rollouts + (number - 1) * rollouts}",
        f"train.out={trained(pipeline, number)}",
        "train.buffers=[" + ",".join(f'"{buffer}"' for buffer in buffers) + "]",
    ]


def collected(pipeline: Pipeline, number: int) -> str:
    """Where a round's buffer lies."""
    return f"{pipeline.collect.out}-round{number}" if number else pipeline.collect.out


def trained(pipeline: Pipeline, number: int) -> str:
    """Where a round's training lies."""
    return f"{pipeline.train.out}-round{number}" if number else pipeline.train.out


def shell(setting: str) -> str:
    """A setting as it has to be typed."""
    return f"'{setting}'" if any(c in setting for c in '[]" ') else setting
