"""What a policy observes and what it decides, by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from orl_ldm.errors import UserError

#: Prefix of the features that say how far an episode has come. They are the same for all images.
POSITION = "position/"

#: The feature that is 0 in the first decision of an episode.
DECISION = f"{POSITION}decision"


@dataclass(frozen=True)
class PolicySpec:
    """Names of the observation vector (F), names and bounds of the action vector (A), in order.

    A preference-conditioned policy takes P weights, `preference_names`, behind the observation. `fixed_first_actions`
    and `fixed_actions` are constant actions (A), in natural units, in the first and in later decisions; None marks the
    actions that the policy chooses. An empty tuple: it chooses all of them.
    """

    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    preference_names: tuple[str, ...] = ()
    fixed_first_actions: tuple[float | None, ...] = ()
    fixed_actions: tuple[float | None, ...] = ()

    def require(self, other: "PolicySpec", who: str) -> None:
        """Raise UserError unless `other` has the same features and the same action space; nothing is reordered."""
        if self.feature_names != other.feature_names:
            raise UserError(f"{who} has other observation features: {_difference(other, self, 'feature_names')}")
        if self.action_names != other.action_names:
            raise UserError(f"{who} is for another action space: {_difference(other, self, 'action_names')}")
        if (self.action_low, self.action_high) != (other.action_low, other.action_high):
            raise UserError(
                f"{who} is for another action space: its bounds are {other.action_low} to "
                f"{other.action_high}, needed are {self.action_low} to {self.action_high}"
            )


def _difference(theirs: PolicySpec, ours: PolicySpec, field: str) -> str:
    a: Sequence[str] = getattr(theirs, field)
    b: Sequence[str] = getattr(ours, field)
    extra, missing = [n for n in a if n not in b], [n for n in b if n not in a]
    if extra or missing:
        return f"unknown here: {', '.join(extra) or 'none'}; missing: {', '.join(missing) or 'none'}"
    return f"the same names in another order ({', '.join(a)})"
