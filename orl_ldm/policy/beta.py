"""Independent Beta distributions over a bounded action vector (Chou et al. 2017).

Legend: B batch, F features, A action dimensions. Observations are float32 (B, F). Actions are float32 (B, A): in
natural units, between spec.action_low and spec.action_high, or as unit actions in [0, 1].
"""

from typing import Protocol

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.distributions import Beta, Distribution, Independent

from orl_ldm.errors import UserError
from orl_ldm.policy.spec import PolicySpec

#: Unit actions are kept this far inside [0, 1], where every Beta density is finite.
MARGIN = 1e-4


class Policy(Protocol):
    """Anything that maps observations to the concentrations of a Beta for every action."""

    spec: PolicySpec

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A), positive."""
        ...


def distribution(alpha: Tensor, beta: Tensor) -> Distribution:
    """The distribution of unit actions (B, A) with these concentrations (B, A); log_prob and entropy are (B,)."""
    return Independent(Beta(alpha, beta, validate_args=False), 1, validate_args=False)


def float32_concentrations(policy: Policy, observations: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and beta, each float32 (B, A), whatever the caller's autocast.

    Raises UserError when they are not finite.
    """
    with torch.autocast(observations.device.type, enabled=False):
        alpha, beta = policy.concentrations(observations.float())
    if not bool((alpha.isfinite() & beta.isfinite()).all()):
        raise UserError("the policy's actions are not finite: its weights or the observations are damaged")
    return alpha, beta


def bounds(spec: PolicySpec, like: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high), each (A,), with the dtype and device of `like`."""
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (spec.action_low, spec.action_high))
    return low.to(like), high.to(like)


def to_unit(spec: PolicySpec, actions: Tensor) -> Tensor:
    """Natural units -> [MARGIN, 1 - MARGIN]."""
    low, high = bounds(spec, actions)
    return ((actions - low) / (high - low)).clamp(MARGIN, 1 - MARGIN)


def from_unit(spec: PolicySpec, unit: Tensor) -> Tensor:
    """[0, 1] -> natural units."""
    low, high = bounds(spec, unit)
    return low + unit * (high - low)


def log_prob(policy: Policy, observations: Tensor, actions: Tensor) -> Tensor:
    """Log-density (B,) of actions in natural units. Raises UserError when it is not finite."""
    unit = distribution(*float32_concentrations(policy, observations))
    low, high = bounds(policy.spec, actions)
    return unit.log_prob(to_unit(policy.spec, actions)) - (high - low).log().sum()


def mean_action(policy: Policy, observations: Tensor) -> Tensor:
    """The mean (B, A) in natural units. Not the mode: near concentrations of 1 the mode lies on the border.

    Raises UserError when it is not finite.
    """
    alpha, beta = float32_concentrations(policy, observations)
    return from_unit(policy.spec, alpha / (alpha + beta))


def sample_action(policy: Policy, observations: Tensor, uniforms: Tensor) -> Tensor:
    """Actions (B, A) in natural units: the inverse distribution function at uniforms (B, A).

    Raises UserError when they are not finite.
    """
    alpha, beta = (c.detach().cpu().double().numpy() for c in float32_concentrations(policy, observations))
    unit = betaincinv(alpha, beta, uniforms.cpu().double().numpy()).clip(MARGIN, 1 - MARGIN)
    return from_unit(policy.spec, torch.from_numpy(np.asarray(unit, dtype=np.float32)).to(observations.device))
