"""The offline learner: a policy from logged transitions. Needs no LDM and no images; a laptop is enough."""

from orl_ldm.learn.config import CriticConfig, D3rlpyConfig, JudgeConfig, PPOConfig, TrainConfig
from orl_ldm.learn.train import train

__all__ = ["CriticConfig", "D3rlpyConfig", "JudgeConfig", "PPOConfig", "TrainConfig", "train"]
