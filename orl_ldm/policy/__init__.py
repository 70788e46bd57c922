"""Policies: what an action is, the Beta policy network, and its files."""

from orl_ldm.policy.behaviors import BroadPolicy, Explorer
from orl_ldm.policy.beta import BetaPolicy, Policy
from orl_ldm.policy.files import OpenedPolicy, TrainedPolicy, load_policy, open_policy, save_policy
from orl_ldm.policy.planned import PlannedPolicy
from orl_ldm.policy.preferring import Preferring, under
from orl_ldm.policy.spec import PolicySpec
from orl_ldm.policy.squashed import SquashedPolicy

__all__ = [
    "BetaPolicy",
    "BroadPolicy",
    "Explorer",
    "OpenedPolicy",
    "PlannedPolicy",
    "Policy",
    "PolicySpec",
    "Preferring",
    "SquashedPolicy",
    "TrainedPolicy",
    "load_policy",
    "open_policy",
    "save_policy",
    "under",
]
