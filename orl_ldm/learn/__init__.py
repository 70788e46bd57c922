"""The offline learner: a policy from logged transitions. Needs no LDM and no images; a laptop is enough."""

from orl_ldm.learn.config import BPPOConfig, CriticConfig, D3rlpyConfig, JudgeConfig, PPOConfig, TrainConfig
from orl_ldm.learn.train import train

__all__ = ["BPPOConfig", "CriticConfig", "D3rlpyConfig", "JudgeConfig", "PPOConfig", "TrainConfig", "train"]
