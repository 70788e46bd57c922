"""A plan for all images, and what seeing an image changes of it.

Legend: B batch, F features, P preferences, A action dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orl_ldm.policy.beta import MARGIN, BetaPolicy
from orl_ldm.policy.spec import DECISION, POSITION, PolicySpec


class PlannedPolicy(nn.Module):
    """Goes `sight` of the way from the plan's action to that of a Beta policy which sees the image.

    The plan is a small MLP of where in the episode it is, and of preferences. `sight` (2,) is for the first decision
    and for later ones; 0 is the plan alone, 1 the other policy alone. Concentrations add up to what that policy's do.
    """

    sight: Tensor
    visible: Tensor

    def __init__(
        self, spec: PolicySpec, hidden: Sequence[int] = (128, 128), sight: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__()
        self.spec, self.hidden = spec, tuple(hidden)
        self.own = BetaPolicy(spec, hidden)
        seen = [name.startswith(POSITION) for name in spec.feature_names] + [True] * len(spec.preference_names)
        self.register_buffer("visible", torch.tensor(seen), persistent=False)  # (F + P,)
        self.register_buffer("sight", torch.tensor(sight))
        self.planner = nn.Sequential(
            nn.Linear(sum(seen), 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, len(spec.action_names))
        )
        nn.init.zeros_(self.planner[-1].bias)  # type: ignore[arg-type]
        nn.init.normal_(self.planner[-1].weight, std=0.01)  # type: ignore[arg-type]

    def plan(self, observations: Tensor) -> Tensor:
        """Unit actions (B, A) of the plan, never at an end of the range, where a Beta would have no density."""
        seen = self.own.normalise(observations)[:, self.visible]
        planned: Tensor = MARGIN + (1 - 2 * MARGIN) * self.planner(seen).sigmoid()
        return planned

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A)."""
        alpha, beta = self.own.concentrations(observations)
        plan, total = self.plan(observations), alpha + beta
        first = observations[:, self.spec.feature_names.index(DECISION), None] <= 0
        mean = torch.lerp(plan, alpha / total, torch.where(first, self.sight[0], self.sight[1]))
        return self.own.hold(observations, mean * total, (1 - mean) * total)

    forward = concentrations
