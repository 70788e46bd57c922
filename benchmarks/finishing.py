"""What seeing the first estimate could be worth: one call, and then many ways to finish. Prints Markdown.

    python benchmarks/finishing.py resisc45-local

Training images are denoised once from each of two t, and finished with every `detail` and `grain` of a grid (full
projection). The reward of finish p on image i is taken apart as image + finish + (image x finish); only the third part
is there for a policy that looks. A ridge regression predicts each image's rewards from what is observed of it, fitted
to other images (ten folds); the finish that it holds for best is compared with the best for all of those other images.
"""

import numpy as np
import numpy.typing as npt
import torch
import typer

from orl_ldm.diffusion.ldm import LDM, open_ldm
from orl_ldm.diffusion.sampler import Decision, State, advance, begin, finish
from orl_ldm.env.observe import observe
from orl_ldm.env.spaces import FEATURES
from orl_ldm.images.pairs import load_pairs
from orl_ldm.images.sources import open_images
from orl_ldm.metrics import Metrics
from orl_ldm.pipeline import Pipeline, load_pipeline
from orl_ldm.reward import SETTINGS, compose

Floats = npt.NDArray[np.float64]

STARTS = (0.63, 0.75)  # of T
DETAILS = (1.0, 1.3, 1.6, 1.9, 2.3)
GRAINS = (0.0, 0.6, 1.0, 1.4, 1.8, 2.3, 3.0)
#: The group of features that was added last.
INNER = "denoiser/"
RIDGE, FOLDS, BATCH = 10.0, 10, 12
NEAR = 0.012  # finishes that lose no more than this to the best are those whose rewards are explained


def decision(state: State, t: float, detail: float, fidelity: float, grain: float) -> Decision:
    """The same for every image, without fresh noise."""
    one = torch.ones_like(state.t, dtype=torch.float32)
    return Decision(t * torch.ones_like(state.t), 0 * one, detail * one, fidelity * one, grain * one)


@torch.no_grad()
def measured(read: Pipeline, ldm: LDM, images: int, skip: int) -> tuple[Floats, Floats, Floats]:
    """(I, T, P, 5) raw terms of finishes P from STARTS T; (I, F) and (I, T, F) seen before and after the call."""
    metrics, seed = Metrics(ldm.device), read.evaluate.seed
    taken, known = (
        open_images(read.data.source, read.data.train_split, read.data.classes, count, read.data.seed) if count else []
        for count in (skip + images, skip)
    )
    names = {ref.name for ref in known}
    refs = [ref for ref in taken if ref.name not in names][:images]  # (of synthetic scenes there may be more)
    terms, before, after = [], [], []
    for first in range(0, len(refs), BATCH):
        batch = load_pairs(refs[first : first + BATCH], read.data)
        state = begin(ldm, batch.lr, [ref.image_id for ref in batch.refs], [0] * len(batch.refs))
        before.append(observe(state, ldm.schedule, read.sampler).double().cpu().numpy())
        ways = [
            advance(ldm, state, decision(state, start * float(state.t[0]), 1, 0, 0), read.sampler, seed)
            for start in STARTS
        ]
        after.append(np.stack([observe(way, ldm.schedule, read.sampler).double().cpu().numpy() for way in ways], 1))
        rows = []
        for way in ways:
            done = [
                finish(ldm, way, decision(way, -1, detail, 1, grain), seed) for detail in DETAILS for grain in GRAINS
            ]
            quality = np.stack([metrics(image, batch.hr).cpu().numpy() for image in done], 1)  # (B, P, 3)
            cost = np.broadcast_to([1.0, 0.0], (*quality.shape[:2], 2))
            rows.append(np.concatenate([quality, cost], -1))
        terms.append(np.stack(rows, 1))
    return np.concatenate(terms), np.concatenate(before), np.concatenate(after)


def chosen(rewards: Floats, seen: Floats) -> tuple[float, Floats]:
    """Of (I, P) and (I, F): the share of the image x finish part that is told, and what choosing by it gains (I,)."""
    own = rewards - rewards.mean(1, keepdims=True)
    told, fixed = np.zeros_like(own), np.zeros(len(own))
    folds = np.random.default_rng(0).permutation(len(own)) % FOLDS
    for fold in range(FOLDS):
        here, others = folds == fold, folds != fold
        scale = np.maximum(seen[others].std(0), 1e-9)
        z, mean = (seen - seen[others].mean(0)) / scale, own[others].mean(0)
        fit = np.linalg.solve(z[others].T @ z[others] + RIDGE * np.eye(z.shape[1]), z[others].T @ (own[others] - mean))
        told[here] = z[here] @ fit + mean
        fixed[here] = rewards[here, rewards[others].mean(0).argmax()]
    near = rewards.mean(0) > rewards.mean(0).max() - NEAR
    effect, guess = (x[:, near] - x[:, near].mean(0) for x in (own, told))
    gain = rewards[np.arange(len(rewards)), told.argmax(1)] - fixed
    return float(1 - np.square(effect - guess).sum() / np.square(effect).sum()), gain


def main(pipeline: str, images: int = 120, skip: int = 0) -> None:
    """A row for each reward setting and start, on training images behind the first `skip`."""
    read = load_pipeline(pipeline, [])
    terms, before, after = measured(read, open_ldm(read.ldm), images, skip)
    print(f"{len(terms)} training images, {len(DETAILS) * len(GRAINS)} finishes\n")
    print("| setting | from | best for all | best for each image | " + " | ".join(views(before, after[:, 0])) + " |")
    print("| --- | ---: | ---: | ---: |" + " ---: |" * 3)
    for setting, weights in SETTINGS.items():
        for start, t in enumerate(STARTS):
            rewards = compose(terms[:, start], weights, read.sampler.nfe_max)
            cells = [cell(*chosen(rewards, seen)) for seen in views(before, after[:, start]).values()]
            best = f"{rewards.mean(0).max():.4f} | {rewards.max(1).mean():.4f}"
            print(f"| `{setting}` | {t} T | {best} | " + " | ".join(cells) + " |")


def views(before: Floats, after: Floats) -> dict[str, Floats]:
    """What is looked at -> (I, F) of it."""
    return {
        "seen before the call": before,
        "after it, without the denoiser's inner layer": after[:, [not name.startswith(INNER) for name in FEATURES]],
        "after it, everything": after,
    }


def cell(told: float, gain: Floats) -> str:
    """Share told; mean gain over the best for all, its standard error, and how often another choice wins."""
    moved = gain[gain != 0]
    won = float((moved > 0).mean()) if len(moved) else 0.0
    return f"{told:.0%}: {gain.mean():+.4f} ± {gain.std() / len(gain) ** 0.5:.4f}, {won:.0%} of {len(moved)}"


if __name__ == "__main__":
    typer.run(main)
