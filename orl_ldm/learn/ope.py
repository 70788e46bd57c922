"""Off-policy evaluation of many checkpoints on the same held-out images, by every estimator that there is."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from orl_ldm.errors import UserError
from orl_ldm.learn.acceptance import judged_as
from orl_ldm.learn.config import TrainConfig
from orl_ldm.learn.data import Dataset, load
from orl_ldm.learn.estimates import difference, of_members
from orl_ldm.learn.fqe import FittedQ
from orl_ldm.learn.holdout import FEWEST, share, split
from orl_ldm.learn.importance import weighted_importance
from orl_ldm.policy import Policy, load_policy


def checkpoints(runs: Sequence[str]) -> dict[str, Path]:
    """Name -> folder of every checkpoint that training runs kept. Raises UserError when a run has kept none.

    A run is named by its folder alone, or by all of its path where two runs' folders are of the same name.
    """
    found: dict[str, Path] = {}
    alone = len({Path(run).name for run in runs}) == len(runs)
    for run in runs:
        folders = sorted(path.parent for path in Path(run).glob("checkpoints/*/policy.json"))
        if not folders:
            raise UserError(f"there are no checkpoints in {run!r}: train it with --set train.keep_checkpoints=20")
        found |= {f"{Path(run).name if alone else Path(run)}/{folder.name}": folder for folder in folders}
    return found


def estimates(
    config: TrainConfig, folders: Mapping[str, Path], advance: Callable[[int, int], None] = lambda done, total: None
) -> tuple[pd.DataFrame, frozenset[int]]:
    """(a row for each checkpoint, ids of the held-out images that the estimates are of).

    The columns of an estimator `name` (fqe, wis) are name, name_low and name_high. FQE is of the policy's mean action,
    WIS of the stochastic policy.

    Raises UserError when no images are held out, and for policies that do not fit the buffer.
    """
    learned, held = split(load(config, torch.device("cpu"))[0], config.judge.held_out)
    if held is None:
        raise UserError(
            f"train.judge.held_out = {config.judge.held_out} leaves fewer than {FEWEST} images on one side: "
            "collect more images, or hold out another share"
        )
    learned = share(learned, config.share)
    rows = []
    for number, (name, folder) in enumerate(folders.items()):
        policy = opened(folder, held)
        weighted = weighted_importance(policy, held, config.seed)
        gains = FittedQ(policy, learned, config.judge, config.seed).gains(held)
        found = {"fqe": of_members(gains, held, config.seed), "wis": weighted.estimate}
        row: dict[str, str | float] = {"checkpoint": name}
        for key, one in found.items():
            row |= {key: one.reward, f"{key}_low": one.low, f"{key}_high": one.high}
        rows.append(row | {"wis_effective_episodes": weighted.effective_sample_size})
        advance(number + 1, len(folders))
    return pd.DataFrame(rows), frozenset(held.image.tolist())


def judged_together(config: TrainConfig, folders: Sequence[str]) -> tuple[list[float], int]:
    """(estimated reward of each policy, number of the accepted one), all judged from the buffers of `config`.

    What the policies' own trainings say cannot be compared: their judges had seen less, and the less a judge was fitted
    to, the more it promises. Accepted is the latest that is level with the best, as in a training. With too few
    images to hold any out, the estimates are the learners' own, and the last is accepted.
    """
    learned, held = split(load(config, torch.device("cpu"))[0], config.judge.held_out)
    if held is None:
        return [float(load_policy(folder)[1]["estimated_reward"]) for folder in folders], len(folders) - 1
    learned = share(learned, config.share)
    gains = [FittedQ(opened(one, held), learned, config.judge, config.seed).gains(held) for one in folders]
    estimated = [of_members(gain, held, config.seed).reward for gain in gains]
    best = gains[max(range(len(gains)), key=estimated.__getitem__)]
    behind = [difference(best, gain, held, config.seed) for gain in gains]
    level = [number for number, (mean, error) in enumerate(behind) if mean <= config.judge.margin * error]
    return estimated, level[-1]


def opened(folder: str | Path, data: Dataset) -> Policy:
    """A policy from its folder, under the weights of the data where it has a dial. Raises UserError if it misfits."""
    network, _ = load_policy(folder)
    data.spec.require(network.spec, f"the policy in {str(folder)!r}")
    return judged_as(network, data)
