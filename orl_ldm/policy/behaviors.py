"""Policies that collect: broad ones to begin with, and what explores around a policy that was learned.

Legend: B batch, F features, A action dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from orl_ldm.policy.beta import Policy, to_unit
from orl_ldm.policy.spec import DECISION, PolicySpec


class BroadPolicy:
    """The exploring behaviour: the same broad Beta whatever is observed."""

    def __init__(self, spec: PolicySpec, alpha: Sequence[float], beta: Sequence[float]) -> None:
        self.spec = spec
        self._alpha, self._beta = torch.tensor(alpha, dtype=torch.float32), torch.tensor(beta, dtype=torch.float32)

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The constant alpha and beta, each (B, A)."""
        shape = (len(observations), len(self._alpha))
        return self._alpha.to(observations).expand(shape), self._beta.to(observations).expand(shape)


class PacedPolicy:
    """An exploring behaviour that keeps its pace: where the first step led to decides how far the others go.

    So the denoiser's calls lie evenly in t, as plain DDIM's do, be they two or twenty. The more there are, the less
    each strays: `alpha` and `beta` are multiplied by the number of calls that the pace makes, but that of `step`, which
    after the first decision lies around the pace with `concentration`. Raises ValueError without the features of time.
    """

    def __init__(
        self,
        spec: PolicySpec,
        alpha: Sequence[float],
        beta: Sequence[float],
        nfe_max: int,
        concentration: float = 40.0,
    ) -> None:
        self.spec, self.nfe_max, self.concentration = spec, nfe_max, concentration
        self._broad = BroadPolicy(spec, alpha, beta)
        self._t, self._nfe_left = (spec.feature_names.index(name) for name in ("position/t", "position/nfe_left"))
        self._step = spec.action_names.index("step")

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A)."""
        t, calls = observations[:, self._t], (1 - observations[:, self._nfe_left]) * self.nfe_max
        first = calls < 0.5
        pace = torch.where(first, 1.0, (1 - t) / calls.clamp(min=1)).clamp(1 / self.nfe_max, 1)  # (B,) of T, a call
        alpha, beta = (one / pace[:, None] for one in self._broad.concentrations(observations))
        step = torch.zeros_like(alpha)
        step[:, self._step] = 1 - pace / t.clamp(min=1e-3)
        mean = to_unit(self.spec, step)[:, self._step].clamp(0.02, 0.98)
        for one, share in ((alpha, mean), (beta, 1 - mean)):
            one[:, self._step] = torch.where(first, one[:, self._step], self.concentration * share)
        return alpha, beta


class Explorer:
    """A policy with its concentrations times a factor for each action: the same mean, wider below 1, narrower above.

    An episode's first decision, where to begin, keeps the policy's own, if one of the policy's features tells it.
    """

    def __init__(self, policy: Policy, factors: Sequence[float]) -> None:
        self.spec, self.policy = policy.spec, policy
        self._factors, names = torch.tensor(factors, dtype=torch.float32), policy.spec.feature_names
        self._decision = names.index(DECISION) if DECISION in names else None

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled alpha and beta, each (B, A)."""
        alpha, beta = self.policy.concentrations(observations)
        factors = self._factors.to(alpha).expand_as(alpha)
        if self._decision is not None:
            factors = torch.where(observations[:, self._decision, None] <= 0, 1.0, factors)
        return alpha * factors, beta * factors
