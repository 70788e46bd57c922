"""Policies: what an action is, the Beta policy network, and its files."""

from orl_ldm.policy.beta import BetaPolicy, BroadPolicy, Explorer, Policy
from orl_ldm.policy.files import load_policy, save_policy
from orl_ldm.policy.preferring import Preferring, under
from orl_ldm.policy.spec import PolicySpec

__all__ = [
    "BetaPolicy",
    "BroadPolicy",
    "Explorer",
    "Policy",
    "PolicySpec",
    "Preferring",
    "load_policy",
    "save_policy",
    "under",
]
