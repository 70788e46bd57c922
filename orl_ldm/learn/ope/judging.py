"""Off-policy evaluation of many policies on the same held-out images: of checkpoints, and of rounds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from orl_ldm.errors import UserError
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.data import Dataset, load
from orl_ldm.learn.holdout import FEWEST, share, split
from orl_ldm.learn.ope.estimates import difference, of_members
from orl_ldm.learn.ope.fqe import FittedQ
from orl_ldm.learn.ope.importance import weighted_importance
from orl_ldm.policy import load_policy, open_policy


def checkpoints(runs: Sequence[str]) -> dict[str, Path]:
    """Name -> folder of every checkpoint that training runs kept. Raises UserError when a run has kept none.

    A run is named by its folder, or by its whole path where two folders have the same name.
    """
    found: dict[str, Path] = {}
    unique = len({Path(run).name for run in runs}) == len(runs)
    for run in runs:
        folders = sorted(path.parent for path in Path(run).glob("checkpoints/*/policy.json"))
        if not folders:
            raise UserError(f"there are no checkpoints in {run!r}: train it with --set train.keep_checkpoints=20")
        found |= {f"{Path(run).name if unique else Path(run)}/{folder.name}": folder for folder in folders}
    return found


def estimates(
    run: RunConfig, folders: Mapping[str, Path], advance: Callable[[int, int], None] = lambda done, total: None
) -> tuple[pd.DataFrame, frozenset[int]]:
    """(a row for each checkpoint, ids of the held-out images that the estimates are of).

    The columns of an estimator `name` (fqe, wis) are name, name_low and name_high. FQE is of the policy's mean action,
    WIS of the stochastic policy.

    Raises UserError when no images are held out, and for policies that do not fit the buffer.
    """
    learned, held_out = sides(run)
    if held_out is None:
        raise UserError(
            f"train.judge.held_out = {run.judge.held_out} leaves fewer than {FEWEST} images on one side: "
            "collect more images, or hold out another fraction"
        )
    rows = []
    for number, (name, folder) in enumerate(folders.items()):
        policy = open_policy(folder, held_out.weights, held_out.spec).policy
        weighted = weighted_importance(policy, held_out, run.seed)
        gains = FittedQ(policy, learned, run.judge, run.seed).gains(held_out)
        found = {"fqe": of_members(gains, held_out, run.seed), "wis": weighted.estimate}
        row: dict[str, str | float] = {"checkpoint": name}
        for key, one in found.items():
            row |= {key: one.reward, f"{key}_low": one.low, f"{key}_high": one.high}
        rows.append(row | {"wis_effective_episodes": weighted.effective_sample_size})
        advance(number + 1, len(folders))
    return pd.DataFrame(rows), frozenset(held_out.image.tolist())


def judged_together(run: RunConfig, folders: Sequence[str]) -> tuple[list[float], int]:
    """(estimated reward of each policy, number of the selected one), all judged from the buffers of `run`.

    Estimates of different trainings are not comparable: a judge that is fitted to less data is more optimistic. The
    latest policy that is level with the best is selected, as in a training. With too few images to hold any out, the
    estimates are the learners' own, and the last policy is selected.
    """
    learned, held_out = sides(run)
    if held_out is None:
        return [float(load_policy(folder)[1]["estimated_reward"]) for folder in folders], len(folders) - 1
    policies = [open_policy(folder, held_out.weights, held_out.spec).policy for folder in folders]
    gains = [FittedQ(policy, learned, run.judge, run.seed).gains(held_out) for policy in policies]
    estimated = [of_members(gain, held_out, run.seed).reward for gain in gains]
    best = gains[max(range(len(gains)), key=estimated.__getitem__)]
    behind = [difference(best, gain, held_out, run.seed) for gain in gains]
    level = [number for number, (mean, error) in enumerate(behind) if mean <= run.judge.margin * error]
    return estimated, level[-1]


def sides(run: RunConfig) -> tuple[Dataset, Dataset | None]:
    """(data that judges are fitted to, held-out images or None)."""
    learned, held_out = split(load(run, torch.device("cpu"))[0], run.judge.held_out)
    return share(learned, run.image_fraction), held_out
