"""Fitted Q evaluation (Le et al. 2019) of a policy's mean action: what is evaluated is what will be replayed.

    y = r + Q'(s', E[pi(s')]);  Q <- argmin Huber(Q(s, a) - y), again and again with Q' following Q slowly

with an ensemble whose members see their own resamples of the images, without pessimism and without discount: an
estimate, not a goal.

Legend: M members, B batch, N transitions, F observation features, A action dimensions.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch.optim import AdamW

from orl_ldm.learn.config import JudgeConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.estimates import Estimate, member_weights, of_members
from orl_ldm.learn.networks import Forked
from orl_ldm.policy import Policy
from orl_ldm.policy.beta import mean_action, to_unit
from orl_ldm.policy.effects import Effects
from orl_ldm.policy.normaliser import Normaliser
from orl_ldm.streams import stream

#: Share of the way that the target networks go in each step.
POLYAK = 0.01


def fitted_q(policy: Policy, fitted: Dataset, judged: Dataset, config: JudgeConfig, seed: int) -> Estimate:
    """The policy's reward on the images of `judged`, from Q-functions fitted to `fitted`."""
    data, device = fitted, fitted.rewards.device
    normalise = Normaliser(policy.spec.feature_names).to(device)
    normalise.fit(data.observations)
    effects = Effects(policy.spec, device)
    with torch.no_grad():
        following = to_unit(policy.spec, mean_action(policy, data.next_observations))  # (N, A): the policy is fixed
        first = to_unit(policy.spec, mean_action(policy, judged.observations[judged.starts]))  # (E, A)

    def inputs(observations: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([normalise(observations), effects(actions)], dim=-1), effects.stops(actions)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream(seed, "judge", 1).integers(2**62)))
        q = Forked(config.members, data.observations.shape[1] + effects.width, config.hidden).to(device)
    target = copy.deepcopy(q)
    (now, stops), (later, later_stops) = (
        inputs(data.observations, data.actions),
        inputs(data.next_observations, following),
    )
    weights = member_weights(data, config.members, seed)  # (M, N)
    optimizer = AdamW(q.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    for step in range(config.fqe_steps):
        optimizer.param_groups[0]["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.fqe_steps))
        rows = torch.from_numpy(stream(seed, "judge", 1, step).integers(len(data), size=config.batch_size)).to(device)
        with torch.no_grad():
            y = data.rewards[rows] + torch.where(data.ends[rows], 0.0, target(later[rows], later_stops[rows]))  # (M, B)
        loss = F.huber_loss(q(now[rows], stops[rows]), y, reduction="none") * weights[:, rows]
        optimizer.zero_grad()
        loss.mean(1).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), q.parameters(), strict=True):
                slow.lerp_(fast, POLYAK)
    with torch.no_grad():
        return of_members(q(*inputs(judged.observations[judged.starts], first)), judged, seed)
