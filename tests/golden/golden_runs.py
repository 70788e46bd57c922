"""What must not change while the code around it does: a roll-out of a tiny LDM, and small trainings on a toy buffer.

`python tests/golden/golden_runs.py` writes golden.npz anew; do that on purpose only, and say so in the commit.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent
FILE = FOLDER / "golden.npz"
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


def rollout() -> Arrays:
    """Every logged number of six episodes of a tiny LDM under a broad behaviour."""
    from tiny_ldm import tiny_ldm_folder

    from orl_ldm.diffusion.config import SamplerConfig
    from orl_ldm.diffusion.ldm import load_ldm
    from orl_ldm.env.rollout import roll_out
    from orl_ldm.env.spaces import spec
    from orl_ldm.images.config import DataConfig
    from orl_ldm.images.pairs import load_pairs
    from orl_ldm.images.sources import open_images
    from orl_ldm.policy import BroadPolicy

    with tempfile.TemporaryDirectory() as folder:
        ldm = load_ldm(str(tiny_ldm_folder(Path(folder))))
    batch = load_pairs(open_images("synthetic", "train", count=3), DataConfig(size=32))
    ids = [ref.image_id for ref in batch.refs for _ in range(2)]
    policy = BroadPolicy(spec(), (1.0, 1.0, 2.0, 3.0, 1.0), (1.0, 1.5, 2.0, 1.5, 1.2))
    lr = batch.lr.repeat_interleave(2, 0)
    found = roll_out(ldm, policy, lr, ids, [0, 1] * 3, SamplerConfig(nfe_max=6), seed=3)
    return {
        "observations": found.observations,
        "actions": found.actions,
        "log_probs": found.log_probs,
        "slot": found.slot,
        "nfe": found.nfe,
        "images": (found.images * 255).round().byte().numpy(),
    }


def training(algo: str) -> Arrays:
    """Mean actions of a policy that was trained for a few epochs, and the last losses."""
    import toy_processes as toys

    from orl_ldm.learn import BPPOConfig, CriticConfig, JudgeConfig, PPOConfig, TrainConfig, train
    from orl_ldm.policy import load_policy
    from orl_ldm.policy.beta import mean_action

    toy = toys.Stops()
    with tempfile.TemporaryDirectory() as folder:
        toys.collect(toy, Path(folder) / "buffer", images=24, rollouts=4)
        config = TrainConfig(
            (str(Path(folder) / "buffer"),),
            str(Path(folder) / "run"),
            algo,
            weights=toys.WEIGHTS,
            hidden=(16, 16),
            device="cpu",
            judge=JudgeConfig(steps=40, n_candidates=2),
            critics=CriticConfig(critic_hidden=(16, 16), batch_size=32, epochs=4, steps=20),
            ppo=PPOConfig(epochs=4, steps_per_epoch=100, batch_size=32, update_epochs=2),
            bppo=BPPOConfig(fit_epochs=2, epochs=4, batch_size=32, steps=20),
        )
        policy, facts = load_policy(train(config, progress=False))
    character = np.linspace(-1, 1, 9, dtype=np.float32)
    seen = torch.from_numpy(np.concatenate([toy.observe(character, step) for step in range(2)]))
    with torch.no_grad():
        actions = mean_action(policy, seen).numpy()
    losses = {name: value for name, value in facts["metrics"].items() if name.startswith("losses/")}
    return {"actions": actions, "losses": np.array([losses[name] for name in sorted(losses)])}


def all_runs() -> Arrays:
    """Every golden array by `run/name`."""
    torch.set_num_threads(1)
    runs = {"rollout": rollout(), **{algo: training(algo) for algo in ("critics", "ppo", "bppo")}}
    return {f"{run}/{name}": array for run, arrays in runs.items() for name, array in arrays.items()}


if __name__ == "__main__":
    import sys

    sys.path.append(str(FOLDER.parent))
    np.savez_compressed(FILE, **all_runs())
