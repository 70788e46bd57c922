"""Policies: what they observe and decide, their networks, and their files."""

from orl_ldm.policy.behaviors import BroadPolicy, Explorer
from orl_ldm.policy.beta import Policy
from orl_ldm.policy.files import OpenedPolicy, TrainedPolicy, load_policy, open_policy, save_policy
from orl_ldm.policy.networks import BetaPolicy, PlannedPolicy, SquashedPolicy
from orl_ldm.policy.preference import with_preference
from orl_ldm.policy.spec import PolicySpec

__all__ = [
    "BetaPolicy",
    "BroadPolicy",
    "Explorer",
    "OpenedPolicy",
    "PlannedPolicy",
    "Policy",
    "PolicySpec",
    "SquashedPolicy",
    "TrainedPolicy",
    "load_policy",
    "open_policy",
    "save_policy",
    "with_preference",
]
