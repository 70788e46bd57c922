"""From a buffer to tensors that can be learned from.

Legend: N transitions, E episodes, F observation features, A action dimensions, T raw reward terms, W weighted terms.
Actions are kept in the unit interval, where the policy's Beta distributions live.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orl_ldm.buffer import Header, Transitions, local_folder, mapped_arrays, read
from orl_ldm.errors import UserError
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.map_batched import BLOCK
from orl_ldm.policy import PolicySpec
from orl_ldm.policy.beta import to_unit
from orl_ldm.policy.spec import DECISION
from orl_ldm.reward import TERMS, Weights, compose, normalise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Transitions as tensors on one device.

    The reward that is learned is an episode's reward minus the mean of the image's other rollouts (its baseline),
    divided by `scale`; it lies on the episode's last transition.
    Observations larger than the memory limit are mapped from disk, where the device is the CPU.
    """

    spec: PolicySpec
    observations: Tensor  # (N, F)
    actions: Tensor  # (N, A) in [0, 1]
    log_probs: Tensor  # (N,) of the behaviour, density of unit actions
    rewards: Tensor  # (N,) minus the baseline, in units of `scale`
    ends: Tensor  # (N,) bool
    next_observations: Tensor  # (N, F); an episode's last state is followed by itself
    episode: Tensor  # (N,) 0 .. E - 1
    starts: Tensor  # (E,) first transition of each episode
    image: Tensor  # (E,) id of each episode's image
    episode_rewards: Tensor  # (E,) as composed from the raw terms
    baselines: Tensor  # (E,) episode reward = baseline + scale * (sum of `rewards`)
    scale: float  # standard deviation of the episodes' rewards minus their baselines
    weights: Weights  # of the reward
    term_gains: Tensor  # (N, W) the weighted terms minus their baselines, on the last transition of an episode, else 0
    term_covariance: Tensor  # (W, W) of the gains between episodes
    folder: Path | None  # below which observations are mapped from files; None where they are in memory

    def __len__(self) -> int:
        return len(self.rewards)


def load(run: RunConfig, device: torch.device) -> tuple[Dataset, Transitions]:
    """Read the buffers of a run. Raises UserError when one is missing, or too small to learn from."""
    for url in run.buffers:
        if (place := local_folder(url)) and not place.is_dir():
            raise UserError(f"there is no buffer {url!r}: run collect first (make collect, or orl-ldm collect)")
    transitions = read(run.buffers, memory_limit=run.memory_limit)
    if transitions.header.term_names != tuple(TERMS):
        found = ", ".join(transitions.header.term_names)
        raise UserError(f"the buffer logs the reward terms {found}; needed are {', '.join(TERMS)}: collect it again")
    if len(transitions.episode_bounds) < 2:
        raise UserError(f"{run.buffers[0]!r} holds a single episode, and nothing to compare it with: collect more")
    return prepare(transitions, run, device), transitions


def prepare(transitions: Transitions, run: RunConfig, device: torch.device) -> Dataset:
    """Compose the reward and lay out everything that the learners need."""
    header, spec, weights = transitions.header, spec_of(transitions.header, run), run.reward_weights()
    starts, stops = transitions.episode_bounds.T  # (E,), (E,)
    terms = transitions.terms[stops - 1].astype(np.float64)  # (E, T)
    images = transitions.image_id[starts]  # (E,)
    reward = compose(terms, weights, header.nfe_max)  # (E,)
    baseline = leave_one_out(reward, images)  # (E,)
    scale = float((reward - baseline).std()) or 1.0  # (all rewards the same: nothing to learn, but no NaN either)
    weighted_terms = normalise(terms, header.nfe_max)  # (E, W)
    gains = np.stack([term - leave_one_out(term, images) for term in weighted_terms.T], axis=1)  # (E, W)
    observations = torch.from_numpy(transitions.observations)
    ends = torch.zeros(len(observations), dtype=torch.bool)
    ends[stops - 1] = True
    rows = torch.arange(len(observations))
    folder = mapped_arrays.folder_for(sum(column.nbytes for column in transitions.columns.values()), run.memory_limit)
    widths = torch.tensor(spec.action_high) - torch.tensor(spec.action_low)
    data = Dataset(
        spec=spec,
        observations=observations,
        actions=to_unit(spec, torch.from_numpy(transitions.actions)),
        log_probs=torch.from_numpy(transitions.log_probs) + widths.log().sum(),
        rewards=at_ends((reward - baseline) / scale, ends),
        ends=ends,
        next_observations=gathered(observations, torch.where(ends, rows, rows + 1), folder),
        episode=torch.from_numpy(np.repeat(np.arange(len(starts)), stops - starts)),
        starts=torch.from_numpy(starts),
        image=torch.from_numpy(images),
        episode_rewards=torch.from_numpy(reward).float(),
        baselines=torch.from_numpy(baseline).float(),
        scale=scale,
        weights=weights,
        term_gains=at_ends(gains, ends),
        term_covariance=torch.from_numpy(np.cov(gains.T, bias=True)).float(),
        folder=folder,
    )
    on_device: dict[str, Any] = {k: v.to(device) for k, v in vars(data).items() if isinstance(v, Tensor)}
    return replace(data, **on_device)


def spec_of(header: Header, run: RunConfig) -> PolicySpec:
    """What a policy learned from this buffer observes and decides. Raises UserError for names that do not exist."""
    for name in run.mask_features:
        if not any(feature.startswith(name) for feature in header.feature_names):
            raise UserError(f"train.mask_features names {name!r}; the features are {', '.join(header.feature_names)}")
    if run.fixed_first_actions and DECISION not in header.feature_names:
        raise UserError(f"train.fixed_first_actions needs the feature {DECISION!r}, which the buffer does not have")
    return PolicySpec(
        header.feature_names,
        header.action_names,
        header.action_low,
        header.action_high,
        fixed_first_actions=fixed(header, run.fixed_actions | run.fixed_first_actions),
        fixed_actions=fixed(header, run.fixed_actions),
    )


def fixed(header: Header, values: Mapping[str, float]) -> tuple[float | None, ...]:
    """`values` in the order of the actions, None where free. Raises UserError for a wrong name or value."""
    bounds = dict(zip(header.action_names, zip(header.action_low, header.action_high, strict=True), strict=True))
    for name, value in values.items():
        if name not in bounds:
            raise UserError(f"train.fixed_actions names the action {name!r}; the actions are {', '.join(bounds)}")
        if not bounds[name][0] <= value <= bounds[name][1]:
            raise UserError(f"train.fixed_actions: {name} = {value} lies outside its bounds, {bounds[name]}")
    return tuple(values.get(name) for name in bounds) if values else ()


def at_ends(values: Floats, ends: Tensor) -> Tensor:
    """Values (E, ...) on the last transition of each episode, 0 elsewhere: float32 (N, ...)."""
    rows = torch.zeros(len(ends), *values.shape[1:])
    rows[ends] = torch.from_numpy(values).float()
    return rows


def gathered(source: Tensor, rows: Tensor, folder: Path | None) -> Tensor:
    """(B, F) rows (B,) of `source` (N, F), in memory or in a file below `folder`."""
    result = torch.from_numpy(mapped_arrays.empty((len(rows), *source.shape[1:]), np.float32, folder)).to(source.device)
    for part, index in zip(torch.split(result, BLOCK), torch.split(rows, BLOCK), strict=True):
        torch.index_select(source, 0, index, out=part)
    return result


def leave_one_out(values: Floats, images: Ints) -> Floats:
    """(E,) mean value of the *other* rollouts of each episode's image; of all episodes where there is no other.

    Leaving the episode itself out keeps the baseline independent of its actions (Kool et al. 2019).
    """
    _, image, counts = np.unique(images, return_inverse=True, return_counts=True)
    others = counts[image] - 1  # (E,)
    total = np.bincount(image, weights=values)[image] - values
    return np.where(others > 0, total / np.maximum(others, 1), values.mean())


def content_digest(transitions: Transitions) -> str:
    """SHA-256 (hex) of everything in a buffer that decides what is learned from it."""
    hasher = hashlib.sha256(repr((transitions.header.pipeline_digest, transitions.header.ldm_digest)).encode())
    for name in sorted(transitions.columns):
        hasher.update(name.encode())
        hasher.update(np.ascontiguousarray(transitions.columns[name]).data)
    return hasher.hexdigest()
