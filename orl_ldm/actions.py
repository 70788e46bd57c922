"""The table of actions: what a policy chooses before every step.

Adding an action is one entry here and, where it edits the estimate, one function in orl_ldm.diffusion.edits under the
same name. Spaces, behaviours, searches, exports, reports and ablations loop over the table.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal


@dataclass(frozen=True)
class Action:
    """One action. Values outside `limits` are clamped to them when they are executed.

    The range [low, high] of logged and learned actions may reach beyond the limits, so that the mean of a distribution
    with bounded support can express the limit itself ("stop", "no noise").
    """

    name: str
    low: float
    high: float
    neutral: float  # plain DDIM's value
    prior: tuple[float, float]  # alpha and beta of the exploring behaviour's Beta over [low, high]
    start: float  # where the search for the best fixed schedule begins
    label: str  # what it means, for reports
    limits: tuple[float, float] = (-inf, inf)
    place: Literal["image", "cell"] = "image"  # one value an image, or a map with one value a cell


def _table(*actions: Action) -> dict[str, Action]:
    return {action.name: action for action in actions}


#: Every action by name, in the order of action vectors.
ACTIONS: dict[str, Action] = _table(
    Action("t_ratio", -0.25, 1.0, 1.0, (1.0, 1.0), 0.1, "next timestep / this one; 0 stops", (0.0, 1.0)),
    Action("eta", -0.25, 1.0, 0.0, (1.0, 1.5), 0.0, "DDIM's share of fresh noise", (0.0, 1.0)),
    Action("detail", 0.5, 2.5, 1.0, (2.0, 2.0), 1.0, "gain on what the estimate adds to the bicubic upscale"),
    Action("fidelity", 0.0, 1.25, 0.0, (3.0, 1.5), 0.9, "strength of the projection onto the LR image", (0.0, 1.0)),
    Action("grain", -0.25, 3.0, 0.0, (1.0, 1.2), 0.5, "fresh texture, relative to the detail added there", (0.0, inf)),
)

#: The action that chooses the next timestep; at its lower limit the episode ends.
STOPS = "t_ratio"


def limits(name: str) -> tuple[float, float]:
    """(low, high) to which an action is clamped; infinite where there is no limit, or no such action."""
    return ACTIONS[name].limits if name in ACTIONS else (-inf, inf)
