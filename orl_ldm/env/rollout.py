"""Roll images out under a policy and log every decision: what the collector publishes and the evaluator replays.

Legend: B episodes, N transitions (rows), F features, A actions.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orl_ldm.actions import ACTIONS
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.sampler import Decision, State, sample
from orl_ldm.env.features import observe
from orl_ldm.env.spaces import decide
from orl_ldm.policy import Policy
from orl_ldm.policy.beta import log_prob, mean_action, sample_action
from orl_ldm.streams import stream

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Rollout:
    """B finished episodes. Rows are in the order of (episode, time)."""

    images: Tensor  # (B, 3, H, W) in [0, 1], not rounded
    nfe: npt.NDArray[np.int64]  # (B,)
    seconds: npt.NDArray[np.float64]  # (B,), each episode's share of the batch's wall time, by its calls
    slot: npt.NDArray[np.int64]  # (N,), which episode a row belongs to
    observations: npt.NDArray[np.float32]  # (N, F)
    actions: npt.NDArray[np.float32]  # (N, A)
    log_probs: npt.NDArray[np.float32]  # (N,), of the behaviour


@torch.no_grad()
def roll_out(
    ldm: LDM,
    policy: Policy,
    lr: Tensor,
    image_ids: Sequence[int],
    rollouts: Sequence[int],
    config: SamplerConfig,
    seed: int,
    explore: bool = True,
) -> Rollout:
    """Steer LR images (B, 3, h, w) by `policy`: its samples when exploring, else its mean.

    Noise and samples are functions of (seed, image id, rollout, decision) alone.
    """
    rows: list[tuple[Array, ...]] = []

    def control(state: State) -> Decision:
        observations = observe(state, ldm.schedule, config).cpu()
        if explore:
            actions = sample_action(policy, observations, _uniforms(state, seed))
        else:
            actions = mean_action(policy, observations)
        logged = log_prob(policy, observations, actions)
        parts = (state.slot, state.decisions, observations, actions, logged)
        rows.append(tuple(part.cpu().numpy() for part in parts))
        return decide(state, actions.to(ldm.device))

    started = time.perf_counter()
    with torch.autocast(ldm.device.type, enabled=False):  # a caller's autocast would change what is logged
        sampled = sample(ldm, lr, image_ids, rollouts, control, config, seed, with_features=True)
    elapsed = time.perf_counter() - started
    slot, step, *columns = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = np.lexsort((step, slot))
    observations, actions, log_probs = (column[order].astype(np.float32) for column in columns)
    nfe = sampled.nfe.cpu().numpy()
    return Rollout(
        images=sampled.images,
        nfe=nfe,
        seconds=elapsed * (nfe + 1) / (nfe + 1).sum(),
        slot=slot[order],
        observations=observations,
        actions=actions,
        log_probs=log_probs,
    )


def _uniforms(state: State, seed: int) -> Tensor:
    """(B, A) uniforms, one stream per (image id, rollout, decision)."""
    keys = zip(state.image_id.tolist(), state.rollout.tolist(), state.decisions.tolist(), strict=True)
    drawn = [stream(seed, "action", *key).random(len(ACTIONS)) for key in keys]
    return torch.from_numpy(np.stack(drawn))
