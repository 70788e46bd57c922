"""The offline learner: a policy from logged transitions. Needs no LDM and no images."""

from orl_ldm.learn.algorithms import ALGORITHMS, TrainConfig
from orl_ldm.learn.bppo import BPPOConfig
from orl_ldm.learn.config import JudgeConfig
from orl_ldm.learn.critics import CriticConfig
from orl_ldm.learn.d3rlpy_learner import D3rlpyConfig
from orl_ldm.learn.ppo import PPOConfig
from orl_ldm.learn.train import train

__all__ = [
    "ALGORITHMS",
    "BPPOConfig",
    "CriticConfig",
    "D3rlpyConfig",
    "JudgeConfig",
    "PPOConfig",
    "TrainConfig",
    "train",
]
