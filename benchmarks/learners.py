"""How fast the learner's PPO is beside stable-baselines3's and TorchRL's.

    python benchmarks/learners.py speed            # minibatch updates per second
    python benchmarks/learners.py table1           # the whole of Lyu 2025, Table 1, on a buffer of the demo's size

Prints Markdown. `speed` takes turns between the implementations and reports the fastest turn of each, so that other
work on the machine disturbs all alike.
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
import torch
import typer
from torch import nn
from torch.distributions import Beta, Independent

from orl_ldm.buffer import BufferWriter, Header, ImageRef
from orl_ldm.learn import PPOConfig, TrainConfig, train
from orl_ldm.learn.networks import gradient_step, value_network
from orl_ldm.learn.ppo import Batch, ppo_loss
from orl_ldm.policy import BetaPolicy, PolicySpec
from orl_ldm.reward import TERMS

FEATURES, ACTIONS, ROWS, PASSES = 14, 4, 1024, 4
HIDDEN = (128, 128)
SPEC = PolicySpec(
    tuple(f"feature_{i}" for i in range(FEATURES)),
    tuple(f"action_{i}" for i in range(ACTIONS)),
    (0.0,) * ACTIONS,
    (1.0,) * ACTIONS,
)

app = typer.Typer(add_completion=False)


def data() -> Batch:
    """Random transitions."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(ROWS, ACTIONS, generator=generator).clamp(1e-4, 1 - 1e-4)
    log_probs, advantages, values, returns = 0.1 * torch.randn(4, ROWS, generator=generator)
    return Batch(torch.randn(ROWS, FEATURES, generator=generator), actions, log_probs, advantages, values, returns)


def ours(batch_size: int) -> Callable[[], object]:
    """Four passes of our update, metrics included."""
    policy, critic, batch, config = BetaPolicy(SPEC, HIDDEN), value_network(FEATURES, HIDDEN), data(), PPOConfig()
    optimizer = torch.optim.Adam([*policy.parameters(), *critic.parameters()], lr=3e-4, eps=1e-5, fused=True)

    def learn() -> None:
        for _ in range(PASSES):
            for rows in torch.randperm(ROWS).split(batch_size):
                loss, _ = ppo_loss(policy, critic, Batch(*(column[rows] for column in batch)), config)
                gradient_step(loss, optimizer, config.max_grad_norm)

    return learn


def stable_baselines3(batch_size: int) -> Callable[[], object]:
    """`PPO.train` with its own Gaussian: less arithmetic than a Beta, no gammas."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.logger import configure

    class Noise(gym.Env[np.ndarray, np.ndarray]):
        observation_space = gym.spaces.Box(-1, 1, (FEATURES,))
        action_space = gym.spaces.Box(0, 1, (ACTIONS,))

        def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):  # type: ignore[no-untyped-def]
            return self.observation_space.sample(), {}

        def step(self, action: np.ndarray):  # type: ignore[no-untyped-def]
            return self.observation_space.sample(), 0.0, False, False, {}

    shape = {"net_arch": {"pi": list(HIDDEN), "vf": list(HIDDEN)}, "activation_fn": nn.SiLU}
    model = PPO(
        "MlpPolicy", Noise(), n_steps=ROWS, batch_size=batch_size, n_epochs=PASSES, clip_range_vf=0.2, device="cpu",
        policy_kwargs=shape,
    )  # fmt: skip
    model.set_logger(configure(None, []))
    model.learn(ROWS)  # fills the rollout buffer
    return model.train


def torchrl(batch_size: int) -> Callable[[], object]:
    """ClipPPOLoss around the same Beta policy and value network, with torch's fused Adam."""
    from tensordict import TensorDict
    from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
    from torchrl.objectives import ClipPPOLoss

    names = ["concentration1", "concentration0"]
    head = ProbabilisticTensorDictModule(
        in_keys=names,
        out_keys=["action"],
        distribution_class=lambda concentration1, concentration0: Independent(Beta(concentration1, concentration0), 1),
        return_log_prob=True,
    )
    body = TensorDictModule(BetaPolicy(SPEC, HIDDEN), in_keys=["observation"], out_keys=names)
    loss = ClipPPOLoss(
        ProbabilisticTensorDictSequential(body, head),
        TensorDictModule(value_network(FEATURES, HIDDEN), in_keys=["observation"], out_keys=["state_value"]),
        clip_epsilon=0.2,
        entropy_coeff=0.0,
        critic_coeff=0.25,
        loss_critic_type="l2",
        normalize_advantage=True,
        clip_value=0.2,
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-4, eps=1e-5, fused=True)
    batch = data()
    columns = {"observation": batch.observations, "action": batch.actions, "action_log_prob": batch.log_probs}
    columns |= {"advantage": batch.advantages[:, None], "state_value": batch.values[:, None]}
    rows = TensorDict(columns | {"value_target": batch.returns[:, None]}, batch_size=[ROWS])

    def learn() -> None:
        for _ in range(PASSES):
            for minibatch in rows[torch.randperm(ROWS)].split(batch_size):
                losses = loss(minibatch)
                optimizer.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                optimizer.step()

    return learn


@app.command()
def speed(
    turns: Annotated[int, typer.Option(help="Turns of 4 passes over 1024 rows.")] = 20,
    threads: Annotated[list[int], typer.Option(help="Repeatable.")] = [1, 2],  # noqa: B006
) -> None:
    """Minibatch updates per second: the update alone, minibatches drawn and metrics included."""
    names = ("batch", "threads", "ours (Beta)", "SB3 (Gaussian)", "TorchRL (Beta)", "ours / SB3", "ours / TorchRL")
    print(f"| {' | '.join(names)} |\n|{' ---: |' * len(names)}")
    for batch_size in (64, 256):
        learners = [make(batch_size) for make in (ours, stable_baselines3, torchrl)]
        for count in threads:
            torch.set_num_threads(count)
            fastest = [float("inf")] * len(learners)
            for _ in range(turns):
                for i, learn in enumerate(learners):
                    started = time.perf_counter()
                    learn()
                    fastest[i] = min(fastest[i], time.perf_counter() - started)
            mine, *others = (PASSES * ROWS / batch_size / seconds for seconds in fastest)
            rates = " | ".join(f"{rate:.0f}" for rate in (mine, *others))
            ratios = " | ".join(f"{mine / rate:.1f}x" for rate in others)
            print(f"| {batch_size} | {count} | {rates} | {ratios} |", flush=True)


@app.command()
def table1(epochs: int = 1000, threads: int = 2) -> None:
    """Seconds for all of Table 1 (64,000 updates of 64 at 1000 epochs) on 1,152 episodes of 2 to 6 transitions."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        write_buffer(Path(folder) / "buffer")
        config = TrainConfig(
            (f"{folder}/buffer",), f"{folder}/run", "ppo", "paper", device="cpu", ppo=PPOConfig(epochs=epochs)
        )
        started = time.perf_counter()
        train(config, progress=False)
        print(
            f"{epochs} epochs, {threads} threads: {time.perf_counter() - started:.1f} s, log and checkpoints included"
        )


def write_buffer(folder: Path) -> None:
    """96 images, 12 rollouts each, of random numbers."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 7, 1152)
    rows = int(lengths.sum())
    ends = np.zeros(rows, dtype=np.bool_)
    ends[np.cumsum(lengths) - 1] = True
    episode = np.repeat(np.arange(1152), lengths)
    header = Header(
        feature_names=SPEC.feature_names, action_names=SPEC.action_names, action_low=SPEC.action_low,
        action_high=SPEC.action_high, term_names=tuple(TERMS), nfe_max=20, pipeline_digest="a" * 64, ldm_id="none",
        ldm_digest="b" * 64, behavior_id="uniform", seed=0, packages={},
    )  # fmt: skip
    columns = {
        "observations": rng.normal(size=(rows, FEATURES)).astype(np.float32),
        "actions": rng.random((rows, ACTIONS)).astype(np.float32),
        "log_probs": np.zeros(rows, dtype=np.float32),
        "terminals": ends,
        "terms": (ends[:, None] * rng.random((rows, len(TERMS)))).astype(np.float32),
        "episode_id": episode,
        "image_id": episode // 12,
    }
    BufferWriter(folder, header).write("all", columns, [ImageRef(i, f"image_{i}.png", "none") for i in range(96)])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    app()
