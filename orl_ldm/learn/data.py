"""From a buffer to tensors that can be learned from.

Legend: N transitions, E episodes, F observation features, A action dimensions, T raw reward terms. Actions are kept
in the unit interval, where the policy's Beta distributions live.
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
from orl_ldm.learn.config import TrainConfig
from orl_ldm.learn.passes import BLOCK
from orl_ldm.policy import PolicySpec
from orl_ldm.policy.beta import to_unit
from orl_ldm.policy.spec import DECISION
from orl_ldm.reward import PSNR_SCALE, TERMS, RewardWeights, compose, normalise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Transitions as tensors on one device. `rewards` are baselined and scaled.

    Observations larger than the memory limit are mapped from disk, where the device is the CPU.
    """

    spec: PolicySpec
    observations: Tensor  # (N, F)
    actions: Tensor  # (N, A) in [0, 1]
    log_probs: Tensor  # (N,) of the behaviour, in the same units
    rewards: Tensor  # (N,) in standard deviations
    ends: Tensor  # (N,) bool
    next_observations: Tensor  # (N, F), a state's own where it is the last
    episode: Tensor  # (N,) 0 .. E - 1
    starts: Tensor  # (E,) first transition of each episode
    image: Tensor  # (E,) id of each episode's image
    episode_rewards: Tensor  # (E,) as composed from the raw terms
    offsets: Tensor  # (E,) what the learned reward leaves out: reward = offset + scale * (sum of `rewards`)
    scale: float
    weights: RewardWeights  # in force: those of the setting, in the units of `term_scale`
    term_std: dict[str, float]  # within images
    gains: Tensor  # (N, 4) what the weights weigh, baselined; zero but on the last transition of an episode
    gain_covariance: Tensor  # (4, 4) between episodes
    folder: Path | None  # below which observations are mapped from files; None where they are in memory

    def __len__(self) -> int:
        return len(self.rewards)


def load(config: TrainConfig, device: torch.device) -> tuple[Dataset, Transitions]:
    """Read the buffers of a run. Raises UserError when one is missing, or too small to learn from."""
    for url in config.buffers:
        if (place := local_folder(url)) and not place.is_dir():
            raise UserError(f"there is no buffer {url!r}: run collect first (make collect, or orl-ldm collect)")
    transitions = read(config.buffers, memory_limit=config.memory_limit)
    if transitions.header.term_names != TERMS:
        found = ", ".join(transitions.header.term_names)
        raise UserError(f"the buffer logs the reward terms {found}; needed are {', '.join(TERMS)}: collect it again")
    if len(transitions.episode_bounds) < 2:
        raise UserError(f"{config.buffers[0]!r} holds a single episode, and nothing to compare it with: collect more")
    return prepare(transitions, config, device), transitions


def prepare(transitions: Transitions, config: TrainConfig, device: torch.device) -> Dataset:
    """Compose the reward and lay out everything that the learners need."""
    header = transitions.header
    spec = PolicySpec(
        header.feature_names,
        header.action_names,
        header.action_low,
        header.action_high,
        held_first=held(header, config.hold | config.hold_first),
        held=held(header, config.hold),
    )
    if config.hold_first and DECISION not in header.feature_names:
        raise UserError(f"train.hold_first needs the feature {DECISION!r}, which the buffer does not have")
    for name in config.hide:
        if not any(feature.startswith(name) for feature in header.feature_names):
            raise UserError(f"train.hide names {name!r}; the features are {', '.join(header.feature_names)}")
    starts, stops = transitions.episode_bounds.T  # (E,), (E,)
    terms = transitions.terms[stops - 1].astype(np.float64)  # (E, T)
    images = transitions.image_id[starts]  # (E,)
    term_std = within_image_std(terms, images)  # (T,)
    weights = config.reward_weights()
    if config.term_scale == "within_image":
        weights = in_standard_deviations(weights, term_std, header.nfe_max)
    reward = compose(terms, weights, header.nfe_max)  # (E,)
    weighed = normalise(terms, header.nfe_max)  # (E, 4)
    gains = np.stack([column - baseline_of(column, images, config) for column in weighed.T], axis=1)  # (E, 4)
    baseline = baseline_of(reward, images, config)
    scale = float((reward - baseline).std()) or 1.0  # (all rewards the same: nothing to learn, but no NaN either)
    ends = torch.from_numpy(transitions.terminals)  # (N,)
    rewards = torch.zeros(len(ends), dtype=torch.float64)
    rewards[stops - 1] = torch.from_numpy(reward - baseline)
    observations = torch.from_numpy(transitions.observations)
    last = len(observations) - 1
    following = torch.where(ends, torch.arange(last + 1), torch.arange(1, last + 2).clamp(max=last))
    folder = mapped_arrays.folder_for(
        sum(column.nbytes for column in transitions.columns.values()), config.memory_limit
    )
    gain_rows = torch.zeros(len(observations), gains.shape[1])
    gain_rows[stops - 1] = torch.from_numpy(gains).float()
    widths = torch.tensor(spec.action_high) - torch.tensor(spec.action_low)
    data = Dataset(
        spec=spec,
        observations=observations,
        actions=to_unit(spec, torch.from_numpy(transitions.actions)),
        log_probs=torch.from_numpy(transitions.log_probs) + widths.log().sum(),
        rewards=(rewards / scale).float(),
        ends=ends,
        next_observations=gathered(observations, following, folder),
        episode=torch.from_numpy(np.repeat(np.arange(len(starts)), stops - starts)),
        starts=torch.from_numpy(starts),
        image=torch.from_numpy(images),
        episode_rewards=torch.from_numpy(reward).float(),
        offsets=torch.from_numpy(baseline).float(),
        scale=scale,
        weights=weights,
        term_std=dict(zip(TERMS, term_std.tolist(), strict=True)),
        gains=gain_rows,
        gain_covariance=torch.from_numpy(np.cov(gains.T, bias=True)).float(),
        folder=folder,
    )
    on_device: dict[str, Any] = {k: v.to(device) for k, v in vars(data).items() if isinstance(v, Tensor)}
    return replace(data, **on_device)


def gathered(source: Tensor, rows: Tensor, folder: Path | None) -> Tensor:
    """(B, F) rows (B,) of `source` (N, F), in memory or in a file below `folder`."""
    result = torch.from_numpy(mapped_arrays.empty((len(rows), *source.shape[1:]), np.float32, folder)).to(source.device)
    for part, index in zip(torch.split(result, BLOCK), torch.split(rows, BLOCK), strict=True):
        torch.index_select(source, 0, index, out=part)
    return result


def held(header: Header, values: Mapping[str, float]) -> tuple[float | None, ...]:
    """`values` in the order of the actions, None where free. Raises UserError for a wrong name or value."""
    bounds = dict(zip(header.action_names, zip(header.action_low, header.action_high, strict=True), strict=True))
    for name, value in values.items():
        if name not in bounds:
            raise UserError(f"train.hold names the action {name!r}; the actions are {', '.join(bounds)}")
        if not bounds[name][0] <= value <= bounds[name][1]:
            raise UserError(f"train.hold: {name} = {value} lies outside its bounds, {bounds[name]}")
    return tuple(values.get(name) for name in bounds) if values else ()


def baseline_of(reward: Floats, images: Ints, config: TrainConfig) -> Floats:
    """(E,) what each episode's reward is compared with."""
    return leave_one_out(reward, images) if config.image_baseline else np.full_like(reward, reward.mean())


def leave_one_out(reward: Floats, images: Ints) -> Floats:
    """(E,) mean reward of the *other* rollouts of each episode's image; of all episodes where there is no other.

    Leaving the episode itself out keeps the baseline independent of its actions (Kool et al. 2019).
    """
    _, image, counts = np.unique(images, return_inverse=True, return_counts=True)
    others = counts[image] - 1  # (E,)
    total = np.bincount(image, weights=reward)[image] - reward
    return np.where(others > 0, total / np.maximum(others, 1), reward.mean())


def within_image_std(terms: Floats, images: Ints) -> Floats:
    """(T,) standard deviation of each raw term between the rollouts of one image, pooled over images."""
    _, image, counts = np.unique(images, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(image, weights=term) / counts for term in terms.T], axis=1)  # (images, T)
    freedom = max(len(image) - len(counts), 1)
    return np.asarray(np.sqrt(np.square(terms - means[image]).sum(0) / freedom))


def in_standard_deviations(weights: RewardWeights, term_std: Floats, nfe_max: int) -> RewardWeights:
    """Weights under which one standard deviation of a term counts as its weight says; constant terms keep theirs."""
    psnr, ssim, lpips, nfe = np.where(term_std[:4] > 0, term_std[:4], [PSNR_SCALE, 1.0, 1.0, nfe_max])
    return RewardWeights(
        psnr=weights.psnr * PSNR_SCALE / float(psnr),
        ssim=weights.ssim / float(ssim),
        lpips=weights.lpips / float(lpips),
        nfe=weights.nfe * nfe_max / float(nfe),
    )


def content_digest(transitions: Transitions) -> str:
    """SHA-256 (hex) of everything in a buffer that decides what is learned from it."""
    hasher = hashlib.sha256(repr((transitions.header.pipeline_digest, transitions.header.ldm_digest)).encode())
    for name in sorted(transitions.columns):
        hasher.update(name.encode())
        hasher.update(np.ascontiguousarray(transitions.columns[name]).data)
    return hasher.hexdigest()
