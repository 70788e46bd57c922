"""The offline learner: a policy from logged transitions. Needs no LDM and no images; a laptop is enough."""

from orl_ldm.learn.config import BPPOConfig, CriticConfig, PPOConfig, TrainConfig
from orl_ldm.learn.train import train

__all__ = ["BPPOConfig", "CriticConfig", "PPOConfig", "TrainConfig", "train"]
