"""Ablations: the same training without something, or by another algorithm, over several seeds, replayed on the same
held-out images.

Every variant is nothing but a `train` with a few settings and needs no collection of its own. Trainings and replays
that have been done are read back: an interrupted call goes on where it stopped, and several calls may share the work.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from orl_ldm.cli import stages
from orl_ldm.cli.loop import buffers_after, quoted
from orl_ldm.cli.progress import methods_bar
from orl_ldm.errors import UserError
from orl_ldm.files import require_writable, write_text
from orl_ldm.learn import ALGORITHMS
from orl_ldm.pipeline import Pipeline, load_pipeline
from orl_ldm.report.ablation import LEGEND, WHOLE, ablation
from orl_ldm.reward import Weights, preference
from orl_ldm.terminal import say

#: Names of variants -> what they set.
LESS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    "without the LR image's character": ('train.mask_features=["lr/"]',),
    "without the estimate's state": ('train.mask_features=["estimate/", "mismatch/", "denoiser/"]',),
    "without the denoiser's inner layer": ('train.mask_features=["denoiser/"]',),
    "time only": ('train.mask_features=["lr/", "estimate/", "mismatch/", "denoiser/"]',),
    "no warm start: from noise": ("train.fixed_first_actions={t_ratio = 1.0}",),
    "t_ratio fixed: t = 0.7 T, 0.07 T": (
        "train.fixed_actions={t_ratio = 0.1}",
        "train.fixed_first_actions={t_ratio = 0.7}",
    ),
    "eta fixed at 0": ("train.fixed_actions={eta = 0.0}",),
    "detail fixed at 1": ("train.fixed_actions={detail = 1.0}",),
    "fidelity fixed at 0": ("train.fixed_actions={fidelity = 0.0}",),
    "grain fixed at 0": ("train.fixed_actions={grain = 0.0}",),
    **{f"1/{part} of the images": (f"train.image_fraction={1 / part}",) for part in (2, 4, 8, 16)},
}

#: The same for algorithms, which run only when they are named: some take long, and most need d3rlpy. Each learns for
#: the pipeline's reward setting alone, since only the default algorithm takes preferences.
BY_ALGORITHM: dict[str, tuple[str, ...]] = {
    f"by {algo}, one preference": (f'train.algo="{algo}"', "train.preference_conditioned=false") for algo in ALGORITHMS
}


def variants(pipeline: Pipeline, rounds: int) -> dict[str, tuple[str, ...]]:
    """LESS, fewer rounds than there are, and BY_ALGORITHM."""
    fewer = {
        f"{number} of {rounds} rounds": (f"train.buffers={quoted(buffers_after(pipeline, number))}",)
        for number in range(rounds)
    }
    return {**LESS, **fewer, **BY_ALGORITHM}


def ablate(
    name: str,
    rounds: int,
    seeds: Sequence[int],
    prefer: str,
    only: Sequence[str],
    out: str,
    settings: Sequence[str],
    console: Console,
) -> None:
    """Train and replay every variant with every seed; write and print the table.

    They are compared under what is preferred, else under the pipeline's own reward. Raises UserError, before any work,
    for a variant that learns for another reward alone.
    """
    pipeline = load_pipeline(name, settings)
    weights = preference(prefer) if prefer else pipeline.train.reward_weights()
    named = prefer or ("custom" if pipeline.train.weights is not None else pipeline.train.setting)
    known = variants(pipeline, rounds)
    if wrong := set(only) - set(known):
        raise UserError(f"there is no variant {min(wrong)!r}; there are: {', '.join(known)}")
    folder = Path(out or f"runs/{pipeline.name}/ablation").expanduser()
    require_writable(folder, "--out")
    base = [*settings, f"train.buffers={quoted(buffers_after(pipeline, rounds))}"]
    chosen = only or [variant for variant in known if variant not in BY_ALGORITHM]
    for variant in chosen:
        learned = load_pipeline(name, [*base, *known[variant]]).train
        if not learned.preference_conditioned and learned.reward_weights() != weights:
            raise UserError(
                f"{variant!r} learns for one reward alone, {learned.setting}, and cannot be compared under {named}: "
                "name that reward with --set train.setting=..., train for all with "
                "--set train.preference_conditioned=true, or leave --prefer out"
            )
    runs = {}
    for variant in chosen:
        for seed in seeds:
            run = folder / "".join(c if c.isalnum() else "-" for c in variant) / f"seed-{seed}"
            say(console, f"{variant}, seed {seed}")
            stages.train(name, [*base, *known[variant], f"train.seed={seed}", f"train.out={run}"], console)
            runs[variant, seed] = run / "policy"
    scores = replayed(pipeline, runs, folder / "parts", weights, console)
    write_text(folder / f"per_image-{named}.csv", scores.to_csv(index=False, float_format="%.6g"))
    table = ablation(scores)
    write_text(folder / f"ablation-{named}.md", f"{table.markdown()}\n{LEGEND}\n")
    title = f"{pipeline.name}: {scores['image'].nunique()} test images, preferring {named}"
    console.print(table.rich(title, len(table.header)))
    say(console, f"table: {folder / f'ablation-{named}.md'}")


def replayed(
    pipeline: Pipeline, runs: dict[tuple[str, int], Path], parts: Path, weights: Weights, console: Console
) -> pd.DataFrame:
    """Scores of each (variant, seed)'s policy on the pipeline's test images; a row for each and each image."""
    stages.quiet()
    from orl_ldm.diffusion.ldm import open_ldm
    from orl_ldm.evaluate.replay import replay
    from orl_ldm.images.sources import open_images

    data, config = pipeline.data, pipeline.evaluate
    refs = open_images(data.source, data.test_split, data.classes, config.images, data.seed, data.image_column)
    folders = {f"{variant}, seed {seed}": folder for (variant, seed), folder in runs.items()}
    keys = dict(zip(folders, runs, strict=True))
    with methods_bar(console) as advance:
        scores = replay(
            folders, refs, data, pipeline.sampler, open_ldm(pipeline.ldm), weights, parts, config.seed, advance
        )
    return scores.assign(
        variant=[keys[method][0] for method in scores["method"]], seed=[keys[method][1] for method in scores["method"]]
    )
