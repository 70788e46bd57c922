"""Where a policy comes from: a run's identity, and the facts that are stored with its policy."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from orl_ldm.buffer import Transitions
from orl_ldm.config import digest
from orl_ldm.learn.algorithms import ALGORITHMS, TrainConfig
from orl_ldm.learn.checkpoint import Progress
from orl_ldm.learn.data import Dataset, content_digest


def identity(config: TrainConfig, transitions: Transitions) -> str:
    """Digest of everything that decides a run's result: not its files, its device or its memory."""
    others = set(ALGORITHMS.values()) - {ALGORITHMS[config.algo]}
    ignored = {"buffers", "out", "device", "memory_limit", *others}
    settings = {name: value for name, value in asdict(config).items() if name not in ignored}
    return digest(settings, content_digest(transitions))


def describe(config: TrainConfig, data: Dataset, transitions: Transitions, state: Progress) -> dict[str, Any]:
    """All that is known about a policy, as JSON."""
    header = transitions.header
    return {
        "algo": config.algo,
        "setting": "custom" if config.weights is not None else config.setting,
        "weights": config.reward_weights(),
        "seed": config.seed,
        "digest": state.digest,
        "config": asdict(config),
        "buffers": list(config.buffers),
        "shards": list(transitions.shards),
        "quarantined": dict(transitions.quarantined),
        "ldm_id": header.ldm_id,
        "ldm_digest": header.ldm_digest,
        "pipeline_digest": header.pipeline_digest,
        "behavior_id": header.behavior_id,
        "nfe_max": header.nfe_max,
        "sampler": dict(header.sampler),
        "degradation": header.degradation,
        "transitions": len(data),
        "episodes": len(data.starts),
        "images": len(np.unique(transitions.image_id)),
        "behavior_reward": float(data.episode_rewards.mean()),
        "reward_std": data.scale,
        "estimated_reward": state.metrics["offline/estimated_reward"],
        "epochs": state.epochs,
        "steps": state.epochs * config.algorithm.steps,
        "wall_seconds": round(state.seconds, 3),
        "alarms": state.alarms,
        "metrics": state.metrics,
        "device": str(data.rewards.device),
        "torch": torch.__version__,
    }
