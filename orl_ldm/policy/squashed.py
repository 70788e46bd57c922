"""A deterministic policy through tanh, as the actors of d3rlpy and other libraries are, with a spread to explore by.

Legend: B batch, F features, A action dimensions.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from orl_ldm.policy.normaliser import Normaliser
from orl_ldm.policy.spec import PolicySpec

#: The mean stays this far inside [0, 1]: a Beta needs both concentrations above zero.
INSIDE = 1e-6

#: alpha + beta of the Beta that samples are drawn from: as wide as what the Beta policies learn.
CONCENTRATION = 10.0


class SquashedPolicy(nn.Module):
    """An MLP with ReLU; the mean is (1 + tanh(.)) / 2 of the way from the lowest to the highest action."""

    def __init__(self, spec: PolicySpec, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.spec, self.hidden = spec, tuple(hidden)
        self.normalise = Normaliser(spec.feature_names)
        layers: list[nn.Module] = []
        for i, o in pairwise([len(spec.feature_names), *hidden]):
            layers += [nn.Linear(i, o), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], len(spec.action_names))

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A), of observations (B, F)."""
        mean = ((1 + self.head(self.body(self.normalise(observations))).tanh()) / 2).clamp(INSIDE, 1 - INSIDE)
        return CONCENTRATION * mean, CONCENTRATION * (1 - mean)

    forward = concentrations
