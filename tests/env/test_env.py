"""The decision process as Gymnasium sees it, and as the sampler rolls it out: the same thing."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.sampler import ends, start
from orl_ldm.env.features import FEATURES, PROJECTIONS, between_channels, correlation, directions, unevenness
from orl_ldm.env.rollout import roll_out
from orl_ldm.env.spaces import decide, executed, spec
from orl_ldm.env.vector import SteeringEnv, SteeringVectorEnv
from orl_ldm.errors import UserError
from orl_ldm.images.pairs import Batch
from orl_ldm.metrics import Metrics
from orl_ldm.policy import BetaPolicy, BroadPolicy
from orl_ldm.policy.beta import from_unit, log_prob, mean_action, to_unit
from orl_ldm.policy.effects import Effects
from orl_ldm.reward import SETTINGS, compose

SPEC, NAMES = spec(), list(FEATURES)
BROAD = BroadPolicy(SPEC, (1.0, 1.0, 2.0, 1.5, 1.0), (1.0, 1.0, 2.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


def test_gymnasium_s_checker_passes(ldm: LDM, batch: Batch, metrics: Metrics) -> None:
    check_env(SteeringEnv(ldm, batch, metrics), skip_render_check=True)


def test_the_vector_environment_is_the_sampler(ldm: LDM, batch: Batch, metrics: Metrics) -> None:
    """Stepping by hand under a policy ends in the reward of the same policy's rollout."""
    torch.manual_seed(0)
    policy = BetaPolicy(SPEC, (8,))
    torch.nn.init.normal_(policy.head.weight, std=1.0)
    config = SamplerConfig(nfe_max=6)
    ids = [ref.image_id for ref in batch.refs]
    rollout = roll_out(ldm, policy, batch.lr, ids, [0, 0, 0], config, 9, explore=False)
    terms = np.column_stack([metrics(rollout.images, batch.hr).numpy(), rollout.nfe, np.zeros(3)])
    expected = compose(terms, SETTINGS["paper"], config.nfe_max)

    env = SteeringVectorEnv(ldm, batch, metrics, num_envs=3, config=config)
    assert isinstance(env, gym.vector.VectorEnv)
    observations, _ = env.reset(seed=9)
    rewards, open_ = np.zeros(3), np.ones(3, dtype=bool)
    for _ in range(config.nfe_max + 1):
        assert observations in env.observation_space
        actions = mean_action(policy, torch.from_numpy(observations)).detach().numpy()
        observations, reward, terminated, truncated, _ = env.step(actions)
        rewards += np.where(open_, reward, 0)
        open_ &= ~terminated
        assert not truncated.any()
        if not open_.any():
            break
    assert not open_.any()
    np.testing.assert_allclose(rewards, expected, atol=2e-3)


def test_an_environment_that_ended_starts_its_next_image(ldm: LDM, batch: Batch, metrics: Metrics) -> None:
    env = SteeringVectorEnv(ldm, batch, metrics, num_envs=2)
    env.reset(seed=1)
    stop = np.array([[0.0, 0, 1, 0, 0], [0.9, 0, 1, 0, 0]], dtype=np.float32)
    _, reward, terminated, _, infos = env.step(stop)
    assert terminated.tolist() == [True, False]
    assert reward[0] > 0
    assert infos["terms"][0, 3] == 0  # stopped before the first denoiser call
    observations, reward, terminated, _, _ = env.step(stop)
    assert reward[0] == 0
    assert not terminated[0]
    assert observations[0, NAMES.index("position/decision")] == 0


def test_a_stock_agent_library_drives_it(ldm: LDM, batch: Batch, metrics: Metrics) -> None:
    from stable_baselines3 import PPO

    env = SteeringEnv(ldm, batch, metrics, config=SamplerConfig(nfe_max=3))
    PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu").learn(16)


def test_every_observation_is_finite_and_named(ldm: LDM, batch: Batch) -> None:
    ids = [ref.image_id for ref in batch.refs]
    rollout = roll_out(ldm, BROAD, batch.lr, ids, [0, 1, 2], SamplerConfig(), 4)
    assert rollout.observations.shape == (len(rollout.slot), len(FEATURES))
    assert np.isfinite(rollout.observations).all()
    low, high = (np.array(bound) for bound in (SPEC.action_low, SPEC.action_high))
    assert ((rollout.actions >= low) & (rollout.actions <= high)).all()


def test_logged_log_probs_are_the_behaviour_s(ldm: LDM, batch: Batch) -> None:
    ids = [ref.image_id for ref in batch.refs]
    rollout = roll_out(ldm, BROAD, batch.lr, ids, [0, 1, 2], SamplerConfig(), 4)
    again = log_prob(BROAD, torch.from_numpy(rollout.observations), torch.from_numpy(rollout.actions))
    np.testing.assert_allclose(rollout.log_probs, again.numpy(), rtol=1e-5)


def test_rollouts_do_not_depend_on_the_batch(ldm: LDM, batch: Batch) -> None:
    ids = [ref.image_id for ref in batch.refs]
    whole = roll_out(ldm, BROAD, batch.lr, ids, [0, 0, 0], SamplerConfig(), 4)
    one = roll_out(ldm, BROAD, batch.lr[1:2], ids[1:2], [0], SamplerConfig(), 4)
    np.testing.assert_allclose(one.observations, whole.observations[whole.slot == 1], atol=1e-3)
    np.testing.assert_allclose(one.actions, whole.actions[whole.slot == 1], atol=1e-3)


def test_actions_beyond_the_sampler_s_range_mean_its_bounds(ldm: LDM, batch: Batch) -> None:
    state = start(ldm, batch.lr, [1, 2, 3], [0, 0, 0])
    beyond = torch.tensor([[-0.2, -0.1, 1.9, 1.2, -0.1], [0.5, 1.0, 0.5, 0.5, 1.5], [1.0, 0.0, 1.0, 0.0, 0.0]])
    decision = decide(state, beyond)
    assert decision.t_next.tolist() == [0.0, 0.5 * 999, 999.0]
    assert decision.get("eta").tolist() == [0.0, 1.0, 0.0]
    assert decision.get("fidelity").tolist() == [1.0, 0.5, 0.0]
    assert torch.equal(decision.get("detail"), beyond[:, 2])
    assert decision.get("grain").tolist() == [0.0, 1.5, 0.0]
    assert ends(state, decision, SamplerConfig()).tolist() == [True, False, False]


def test_what_is_added_is_compared_as_numpy_would() -> None:
    one, other = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = [float((a * b).sum() / ((a**2).sum() * (b**2).sum()).sqrt()) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(correlation(one, other), expected, atol=1e-6)
    assert correlation(one, one).allclose(torch.ones(3)) and correlation(one, -one).allclose(-torch.ones(3))
    assert correlation(one, 0 * other).eq(0).all()
    pairs = [np.corrcoef(image.flatten(1).numpy())[np.tril_indices(4, -1)] for image in one]
    np.testing.assert_allclose(between_channels(one), pairs, atol=1e-5)
    assert between_channels(one[:, :1]).shape == (3, 1)


def test_the_inner_layer_is_seen_after_a_call_and_keeps_distances(ldm: LDM, batch: Batch) -> None:
    rollout = roll_out(ldm, BROAD, batch.lr, [1, 2, 3], [0, 1, 2], SamplerConfig(), 4)
    seen = rollout.observations[:, [name.startswith("denoiser/") for name in FEATURES]]
    first = rollout.observations[:, NAMES.index("position/decision")] == 0
    assert (seen[first] == 0).all() and (np.abs(seen[~first]).max(1) > 0).all() and (~first).any()
    wide = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    ratio = (wide @ directions(4096)).diff(dim=0).norm() / wide.diff(dim=0).norm()
    assert 0.5 < float(ratio) * (4096 / PROJECTIONS) ** 0.5 < 1.5  # directions of length 1, PROJECTIONS of them


def test_unevenness_tells_one_texture_from_two() -> None:
    busy = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    half = torch.where(torch.arange(32) < 16, busy, 0.01 * busy)
    assert 0.05 < unevenness(busy) < 0.2 and unevenness(half) > 1
    assert unevenness(0.5 * busy).allclose(unevenness(busy), atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=len(SPEC.action_names), max_size=len(SPEC.action_names)))
def test_judges_see_of_an_action_what_the_sampler_follows(unit: list[float]) -> None:
    """Two actions that the sampler cannot tell apart are one to networks; they see no other limits than its own."""
    said = from_unit(SPEC, torch.tensor([unit]))
    effects, followed = Effects(SPEC, "cpu"), executed(said)
    seen = effects(to_unit(SPEC, said))
    assert seen.shape == (1, effects.width)
    torch.testing.assert_close(seen, effects(to_unit(SPEC, followed)), atol=1e-5, rtol=0)
    within = from_unit(SPEC, (seen[:, : len(unit)] + 1) / 2)
    torch.testing.assert_close(within, followed, atol=1e-3, rtol=0)
    assert abs(said[0, 0]) < 1e-4 or seen[0, len(unit)] == (said[0, 0] < 0)


@pytest.mark.parametrize("seed", [3, np.int64(3), [3, 4], np.array([3, 4]), (None, 4)])
def test_a_seed_begins_the_same_episodes_again(ldm: LDM, batch: Batch, metrics: Metrics, seed: object) -> None:
    env = SteeringVectorEnv(ldm, batch, metrics, num_envs=2)
    go = np.array([[0.5, 0, 1, 0, 0]] * 2, dtype=np.float32)
    found = []
    for _ in range(2):
        first, _ = env.reset(seed=seed)
        found.append((first, env.step(go)[0]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    env.reset()  # goes on with other images
    assert not np.array_equal(env.step(go)[0], found[0][1])


@pytest.mark.parametrize("seed", [-1, 0.5, "3", [1, 2, 3]])
def test_a_seed_that_is_none_is_refused(ldm: LDM, batch: Batch, metrics: Metrics, seed: object) -> None:
    with pytest.raises(UserError, match="seed is"):
        SteeringVectorEnv(ldm, batch, metrics, num_envs=2).reset(seed=seed)


def test_actions_that_cannot_be_are_refused(ldm: LDM, batch: Batch, metrics: Metrics) -> None:
    env = SteeringVectorEnv(ldm, batch, metrics, num_envs=2)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros((2, 5), np.float32))
    env.reset(seed=0)
    for wrong in (np.full((2, 5), np.nan), np.full((2, 5), np.inf), np.zeros((2, 4)), np.zeros(5)):
        with pytest.raises(UserError, match=r"finite and of shape \(2, 5\)"):
            env.step(wrong)


def test_a_caller_s_autocast_and_default_dtype_change_nothing(ldm: LDM, batch: Batch) -> None:
    expected = roll_out(ldm, BROAD, batch.lr, [1, 2, 3], [0, 0, 0], SamplerConfig(nfe_max=3), 4)
    with torch.autocast("cpu", torch.bfloat16):
        cast = roll_out(ldm, BROAD, batch.lr, [1, 2, 3], [0, 0, 0], SamplerConfig(nfe_max=3), 4)
    torch.set_default_dtype(torch.float64)
    try:
        double = roll_out(ldm, BROAD, batch.lr, [1, 2, 3], [0, 0, 0], SamplerConfig(nfe_max=3), 4)
    finally:
        torch.set_default_dtype(torch.float32)
    for other in (cast, double):
        np.testing.assert_allclose(other.observations, expected.observations, atol=1e-4)
        assert (other.images - expected.images).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda lr: lr * 255, "divide by 255"),
        (lambda lr: (lr * 255).byte(), "divide 8-bit images by 255"),
        (lambda lr: lr * torch.nan, "not finite"),
        (lambda lr: lr[:, :1], r"\(3, 1, 8, 8\)"),
    ],
)
def test_an_lr_image_that_cannot_be_is_refused(ldm: LDM, batch: Batch, wrong: object, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        roll_out(ldm, BROAD, wrong(batch.lr), [1, 2, 3], [0, 0, 0], SamplerConfig(), 4)  # type: ignore[operator]
