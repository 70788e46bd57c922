"""What a policy looks at and what it decides, by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from orl_ldm.errors import UserError

#: How the names of features begin that say where an episode is, whatever the image.
POSITION = "position/"

#: The feature that is 0 in the first decision of an episode.
DECISION = f"{POSITION}decision"


@dataclass(frozen=True)
class PolicySpec:
    """Names of the observation vector (F) and names and bounds of the action vector (A), in order.

    A policy with `preference_names` (P) takes that many weights behind the observation: one policy for many rewards.
    `held_first` and `held` are actions (A), in natural units, that are not the policy's to choose in the first and in
    later decisions, with None for those that are; empty where all are free.
    """

    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    preference_names: tuple[str, ...] = ()
    held_first: tuple[float | None, ...] = ()
    held: tuple[float | None, ...] = ()

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
