"""What looking at the image could be worth: many fixed plans on the same images, with several seeds. Prints Markdown.

    python benchmarks/headroom.py resisc45-local

Random plans near the best ones are replayed on training images. The reward of plan p on image i with seed s is taken
apart as image + plan + (image x plan) + noise. Only the third part is there for a policy that looks; how much of it the
observation tells is what a ridge regression predicts of it on images that it has not seen.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer

from orl_ldm.diffusion.ldm import LDM, open_ldm
from orl_ldm.diffusion.sampler import begin
from orl_ldm.env.observe import observe
from orl_ldm.evaluate import methods
from orl_ldm.evaluate.fixed import FixedSchedule
from orl_ldm.evaluate.run import Runner, per_image
from orl_ldm.images.pairs import load_pairs
from orl_ldm.images.sources import ImageRef, open_images
from orl_ldm.metrics import Metrics
from orl_ldm.pipeline import Pipeline, load_pipeline
from orl_ldm.reward import SETTINGS

Floats = npt.NDArray[np.float64]

#: Of the ridge regression, for standardised features.
RIDGE = 3.0


#: Where plans of 1, 2 and 3 denoiser calls step to: bounds of each `step`.
STEPS = {1: [(0.35, 0.65)], 2: [(0.5, 0.75), (0.1, 0.6)], 3: [(0.55, 0.8), (0.4, 0.7), (0.2, 0.6)]}


def random_plan(rng: np.random.Generator, calls: int) -> FixedSchedule:
    """A plan of 1 to 3 denoiser calls; actions are (step, eta, detail, fidelity, grain), the last of which stops."""
    first, other = rng.uniform(0.8, 1.9, 2).tolist()
    eta, fidelity, grain = (float(rng.uniform(*bounds)) for bounds in ((0, 0.5), (0.7, 1), (0, 1.5)))
    steps = [float(rng.uniform(*bounds)) for bounds in STEPS[calls]]
    grains = [0.0] * (calls - 1) + [grain]  # at the end, where it tells
    later = zip([*steps[1:], -0.25], [first, other, other], grains, strict=False)
    return FixedSchedule(((steps[0], 0.0, 1.0, 1.0, 0.0), *((s, eta, detail, fidelity, g) for s, detail, g in later)))


def searched(read: Pipeline) -> list[ImageRef]:
    """The training images that fixed schedules are searched on."""
    data = read.data
    return open_images(data.source, data.train_split, data.classes, read.evaluate.search_images, data.seed)


def rewards(read: Pipeline, ldm: LDM, refs: list[ImageRef], plans: int, seeds: int, out: Path) -> dict[str, Floats]:
    """Setting -> (I, P, S) rewards."""
    runner = Runner(out, refs, read.data, ldm, Metrics(ldm.device), 18, lambda *_: None)
    rng, rows = np.random.default_rng(1), []
    for plan in range(plans):
        one = random_plan(rng, 1 + plan % 3)
        for seed in range(read.evaluate.seed, read.evaluate.seed + seeds):
            identity = f"fixed/{asdict(one)}/{asdict(read.sampler)}/{seed}"
            score = runner.score(methods.steered_by(ldm, "x", identity, one.driver(), read.sampler, seed))
            found = per_image({"x": score}, refs, SETTINGS["balanced"], read.sampler.nfe_max)
            rows.append(found.assign(plan=plan, seed=seed))
    table = pd.concat(rows)
    order = [ref.name for ref in refs]
    return {
        setting: table.pivot_table(index="image", columns=["plan", "seed"], values=f"reward_{setting}")
        .loc[order]
        .to_numpy()
        .reshape(len(refs), plans, seeds)
        for setting in SETTINGS
    }


def first_observations(read: Pipeline, ldm: LDM, refs: list[ImageRef]) -> Floats:
    """(I, F) what a policy sees before the first call."""
    batch = load_pairs(refs, read.data)
    state = begin(ldm, batch.lr, [ref.image_id for ref in batch.refs], [0] * len(batch.refs))
    return observe(state, ldm.schedule, read.sampler).double().cpu().numpy()


def told(effect: Floats, observations: Floats) -> float:
    """Share of an (I, P) image x plan effect that a ridge regression predicts, each image by the others."""
    z = (observations - observations.mean(0)) / np.maximum(observations.std(0), 1e-9)
    hat = z @ np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T) + 1 / len(z)
    missed = (effect - hat @ effect) / (1 - np.diag(hat))[:, None]
    constant = effect * len(z) / (len(z) - 1)  # (each image's effect by the mean of the others)
    return float(1 - np.square(missed).sum() / np.square(constant).sum())


def main(
    pipeline: str,
    images: Annotated[int, typer.Option(min=2, help="At most: of those that schedules are searched on.")] = 36,
    plans: Annotated[int, typer.Option(min=2)] = 24,
    seeds: Annotated[int, typer.Option(min=2, help="The last scores what the others choose.")] = 3,
    out: Path = Path("runs/benchmarks/headroom"),
) -> None:
    """A row for each reward setting."""
    read = load_pipeline(pipeline, [])
    refs = searched(read)[:images]
    if len(refs) < 2:
        raise typer.BadParameter(f"{pipeline} searches on one image: set evaluate.search_images to two or more")
    ldm = open_ldm(read.ldm)
    found = rewards(read, ldm, refs, plans, seeds, out)
    observations = first_observations(read, ldm, refs)
    print(f"{len(refs)} training images, {plans} plans, {seeds} seeds; variances in 1e-6\n")
    print(
        "| setting | plan | image x plan | noise | of image x plan in one direction | told by the observation |", end=""
    )
    print(" best plan for all | best for each image |\n|" + " --- |" + " ---: |" * 7)
    for setting, r in found.items():
        cell = r.mean(2)  # (I, P)
        effect = cell - cell.mean(0) - cell.mean(1, keepdims=True) + cell.mean()
        # What a seed's noise has in common for all plans is no part of `effect`.
        own = r - r.mean(1, keepdims=True)
        noise = own.var(2, ddof=1).mean() * plans / (plans - 1)
        spurious = noise / seeds * (1 - 1 / plans) * (1 - 1 / len(refs))  # what centring twice leaves of it
        singular = np.square(np.linalg.svd(effect, compute_uv=False))
        chosen = r[:, :, :-1].mean(2)  # the last seed scores what the others chose
        common, best = chosen.mean(0).argmax(), chosen.argmax(1)
        print(
            f"| `{setting}` | {1e6 * cell.mean(0).var():.0f} | {1e6 * (effect.var() - spurious):.0f} "
            f"| {1e6 * noise:.0f} | {singular[0] / singular.sum():.0%} | {told(effect, observations):.0%} "
            f"| {r[:, common, -1].mean():.4f} | {r[np.arange(len(refs)), best, -1].mean():.4f} |"
        )


if __name__ == "__main__":
    typer.run(main)
