"""Rounds: collect with the last policy, learn from everything collected so far, until the estimate stops rising.

A round is nothing but `collect` and `train` with a few settings, which are printed: each can be run by hand, on
another machine. Stages that have been done are not done again, so an interrupted loop goes on where it stopped. A
preference-conditioned policy collects once with each of the named reward settings in a round. A round's
buffer holds nothing but what that round collects: where a loop with other settings was before, `collect` says so.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orl_ldm.cli import stages
from orl_ldm.pipeline import Pipeline, load_pipeline
from orl_ldm.reward import SETTINGS
from orl_ldm.terminal import say

Stage = Callable[[str, Sequence[str], Console], None]


def loop(name: str, rounds: int, rollouts: int, gain: float, settings: Sequence[str], console: Console) -> str:
    """The first collection and at most `rounds` more of `rollouts` rollouts of every image; returns the best training.

    Ends early when a round raises the estimated reward by less than `gain`. The policies of all rounds are estimated
    together after each, by a judge that has seen everything collected so far.
    """
    pipeline = load_pipeline(name, settings)
    estimates, best = [0.0], 0
    for number in range(rounds + 1):
        for command, stage, own in steps(pipeline, number, rollouts):
            shown = stages.typed(command, name, [*settings, *own])
            say(console, f"round {number}: {shown}")
            stage(name, [*settings, *own], console)
        if number:
            estimates, best = judged(pipeline, number)
            if estimates[-1] < max(estimates[:-1]) + gain:
                break
    if rounds:
        table = Table("round", "estimated reward", "policy")
        for number, estimate in enumerate(estimates):
            row = (str(number) + (" *" if number == best else ""), f"{estimate:.4f}", trained(pipeline, number))
            table.add_row(*map(Text, row))
        console.print(table)
    return trained(pipeline, best)


def judged(pipeline: Pipeline, number: int) -> tuple[list[float], int]:
    """(estimated reward of every round's policy so far, the round whose policy is accepted)."""
    from orl_ldm.learn.ope import judged_together

    everything = replace(pipeline.train, buffers=tuple(buffers_after(pipeline, number)))
    return judged_together(everything, [f"{trained(pipeline, n)}/policy" for n in range(number + 1)])


def steps(pipeline: Pipeline, number: int, rollouts: int) -> list[tuple[str, Stage, list[str]]]:
    """(command, stage, what it sets beside the pipeline's own settings) of a round; round 0 is the pipeline itself."""
    if not number:
        return [("collect", stages.collect, []), ("train", stages.train, [])]
    turns = preferences(pipeline)
    first = pipeline.collect.first_rollout + pipeline.collect.rollouts + (number - 1) * rollouts * len(turns)
    images = max(1, pipeline.collect.unit_images * pipeline.collect.rollouts // rollouts)  # as many episodes a shard
    collections: list[tuple[str, Stage, list[str]]] = [
        (
            "collect",
            stages.collect,
            [
                f"collect.policy={trained(pipeline, number - 1)}/policy",
                f"collect.out={collected(pipeline, number, prefer)}",
                f"collect.rollouts={rollouts}",
                "collect.alone=true",
                f"collect.unit_images={images}",
                f"collect.first_rollout={first + turn * rollouts}",
                *([f"collect.prefer={prefer}"] if prefer else []),
            ],
        )
        for turn, prefer in enumerate(turns)
    ]
    learning = [f"train.out={trained(pipeline, number)}", f"train.buffers={quoted(buffers_after(pipeline, number))}"]
    return [*collections, ("train", stages.train, learning)]


def buffers_after(pipeline: Pipeline, number: int) -> list[str]:
    """What is learned from after that many rounds."""
    rounds = range(1, number + 1)
    turns = preferences(pipeline)
    return [*pipeline.train.buffers, *(collected(pipeline, n, prefer) for n in rounds for prefer in turns)]


def quoted(names: Sequence[str]) -> str:
    """Names as a TOML list."""
    return json.dumps(list(names), ensure_ascii=False)


def preferences(pipeline: Pipeline) -> tuple[str, ...]:
    """The preferences that the policy collects with: each named setting if it is preference-conditioned, else none."""
    return tuple(SETTINGS) if pipeline.train.preference_conditioned else ("",)


def collected(pipeline: Pipeline, number: int, prefer: str) -> str:
    """Where a round's buffer lies."""
    return f"{pipeline.collect.out}-round{number}" + (f"-{prefer}" if prefer else "")


def trained(pipeline: Pipeline, number: int) -> str:
    """Where a round's training lies."""
    return f"{pipeline.train.out}-round{number}" if number else pipeline.train.out
