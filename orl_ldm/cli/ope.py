"""Off-policy estimates of checkpoints beside their true replay, and how well the first rank what the second says."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from scipy.stats import spearmanr

from orl_ldm.cli.progress import episodes_bar, methods_bar
from orl_ldm.cli.stages import quiet
from orl_ldm.files import require_writable, write_text
from orl_ldm.learn.ope import checkpoints, estimates
from orl_ldm.pipeline import Pipeline, load_pipeline
from orl_ldm.report.checkpoints import LABELS, draw, table
from orl_ldm.terminal import say


def ope(
    name: str, runs: Sequence[str], images: int, with_replay: bool, settings: Sequence[str], console: Console
) -> None:
    """Estimate every kept checkpoint; replay them where the LDM is; write `<train.out>/ope/` and print the table."""
    pipeline = load_pipeline(name, settings)
    folders = checkpoints(runs or [pipeline.train.out])
    out = Path(pipeline.train.out) / "ope"
    require_writable(out, "train.out")
    with episodes_bar("estimate", console) as advance:
        frame, held_out = estimates(pipeline.train, folders, advance)
    facts: dict[str, object] = {"checkpoints": len(folders), "held_out_images": len(held_out)}
    if with_replay:
        rewards = _replay(pipeline, folders, held_out, images, out, console)
        error = rewards.std() / np.sqrt(len(rewards))
        frame["replay"] = rewards.mean().to_numpy()
        frame["replay_low"], frame["replay_high"] = ((rewards.mean() + z * error).to_numpy() for z in (-1.96, 1.96))
        facts |= {"replayed_images": len(rewards), "spearman": rank_correlations(frame)}
        write_text(out / "replay.csv", rewards.to_csv(index_label="image", float_format="%.6g"))
    write_text(out / "ope.csv", frame.to_csv(index=False, float_format="%.6g"))
    write_text(out / "ope.json", json.dumps(facts, indent=2) + "\n")
    shown = table(frame)
    console.print(shown.rich("off-policy evaluation", len(shown.header)))
    if with_replay:
        draw(out)
        for key, rho in rank_correlations(frame).items():
            say(console, f"Spearman's rho of {LABELS[key]}: {rho:.2f} over {len(frame)} checkpoints")
    say(console, f"written to {out}")


def rank_correlations(frame: pd.DataFrame) -> dict[str, float]:
    """Estimator -> Spearman's rho between its estimates and the replay."""
    return {key: float(spearmanr(frame[key], frame["replay"]).statistic) for key in LABELS}


def _replay(
    pipeline: Pipeline, folders: dict[str, Path], held_out: frozenset[int], images: int, out: Path, console: Console
) -> pd.DataFrame:
    """Rewards (images, checkpoints) of a true replay."""
    quiet()
    from orl_ldm.diffusion.ldm import open_ldm
    from orl_ldm.evaluate.replay import replay, training_images

    refs = training_images(pipeline.data, pipeline.collect.images, held_out, images)
    weights = pipeline.train.reward_weights()
    with methods_bar(console) as advance:
        scores = replay(
            folders,
            refs,
            pipeline.data,
            pipeline.sampler,
            open_ldm(pipeline.ldm),
            weights,
            out / "parts",
            pipeline.evaluate.seed,
            advance,
        )
    return scores.pivot(index="image", columns="method", values="reward")[list(folders)]
