"""The update by hand is the update that autograd would make, and its losses are those of the known libraries."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from tensordict import TensorDict
from tensordict.nn import InteractionType, ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
from tensordict.nn import TensorDictModule as Module
from torch import Tensor, nn
from torch.distributions import Beta, Independent, kl_divergence
from torchrl.objectives import ClipPPOLoss

from orl_ldm.learn import PPOConfig, densities
from orl_ldm.learn.actor_critic import ActorCritic, Batch, policy_gradient, policy_loss, value_gradient, value_loss
from orl_ldm.learn.backprop import MLP, Adam, flatten
from orl_ldm.policy import BetaPolicy, PolicySpec

SPEC = PolicySpec(("a", "b", "c"), ("go", "aim"), (0.0, 0.0), (1.0, 2.0))
ROWS = 64


def networks(config: PPOConfig, hidden: tuple[int, ...] = (16, 12)) -> ActorCritic:
    torch.manual_seed(0)
    policy = BetaPolicy(SPEC, hidden)
    nn.init.normal_(policy.head.weight, std=0.5)  # away from the start, where every gradient looks alike
    return ActorCritic(policy, config)


def sample() -> tuple[Batch, Tensor]:
    """(a batch in which ratios and values are clipped here and there, its unit actions)."""
    generator = torch.Generator().manual_seed(1)
    unit = torch.rand(ROWS, 2, generator=generator).clamp(1e-4, 1 - 1e-4)
    x = torch.randn(ROWS, 3, generator=generator)
    log_probs, advantages, values, returns = torch.randn(4, ROWS, generator=generator)
    return Batch(x, densities.logs(unit), 0.5 * log_probs, advantages, 0.3 * values, returns), unit


def loss_by_definition(ac: ActorCritic, batch: Batch, unit: Tensor) -> Tensor:
    c = ac.config
    alpha, beta = ac.policy.concentrations(batch.x)
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    log_ratio = densities.log_prob(alpha, beta, unit) - batch.log_probs
    values = ac.values(batch.x)[:, 0]
    return (
        policy_loss(log_ratio, advantages, c.clip)
        + c.value_coefficient * value_loss(values, batch.values, batch.returns, c.clip)
        - c.entropy_coefficient * densities.entropy(alpha, beta).mean()
    )


def test_densities_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (1 + 3 * torch.rand(64, 3, generator=generator) for _ in range(4))
    unit = torch.rand(64, 3, generator=generator).clamp(1e-4, 1 - 1e-4)
    one, other = Beta(a, b), Beta(c, d)
    torch.testing.assert_close(densities.log_prob(a, b, unit), one.log_prob(unit).sum(-1))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(densities.entropy(a, b), one.entropy().sum(-1))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(densities.kl(a, b, c, d), kl_divergence(one, other).sum(-1), atol=1e-5, rtol=1e-4)


def test_betas_are_an_exponential_family() -> None:
    generator = torch.Generator().manual_seed(0)
    excess = (3 * torch.rand(64, 6, generator=generator)).double().requires_grad_()
    unit = torch.rand(64, 3, generator=generator).double().clamp(1e-4, 1 - 1e-4)
    log_norm, expected = densities.family(excess.detach())
    alpha, beta = (excess + 1).chunk(2, dim=-1)
    log_prob, entropy = densities.log_prob(alpha, beta, unit), densities.entropy(alpha, beta)
    torch.testing.assert_close((excess * densities.logs(unit)).sum(-1) - log_norm, log_prob)
    torch.testing.assert_close(log_norm - (excess * expected).sum(-1), entropy)
    (by_log_prob,) = torch.autograd.grad(log_prob.sum(), excess, retain_graph=True)
    torch.testing.assert_close(densities.logs(unit) - expected, by_log_prob)
    (by_entropy,) = torch.autograd.grad(entropy.sum(), excess)
    torch.testing.assert_close(densities.entropy_gradient(excess.detach()), by_entropy)


@pytest.mark.parametrize("hidden", [(), (8,), (16, 12, 10)])
def test_gradients_of_a_network_are_autograd_s(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    sizes = [3, *hidden]
    layers = [part for i, o in pairwise(sizes) for part in (nn.Linear(i, o), nn.SiLU())]
    module = nn.Sequential(*layers, nn.Linear(sizes[-1], 2))
    twin, x, by_output = copy.deepcopy(module), torch.randn(20, 3), torch.randn(20, 2)
    flatten(module)
    with torch.no_grad():
        mlp = MLP(module)
        torch.testing.assert_close(mlp.forward(x), twin(x))
        mlp.backward(by_output)
    twin(x).backward(by_output)
    for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_gradients_of_the_losses_are_autograd_s() -> None:
    batch, _ = sample()
    log_ratio, values = batch.log_probs.clone().requires_grad_(), batch.advantages.clone().requires_grad_()
    policy_loss(log_ratio, batch.advantages, 0.2).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(policy_gradient(log_ratio.detach(), batch.advantages, 0.2), log_ratio.grad)
    value_loss(values, batch.values, batch.returns, 0.2).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(value_gradient(values.detach(), batch.values, batch.returns, 0.2), values.grad)
    assert 0 < int((log_ratio.grad == 0).sum()) < ROWS and 0 < int((values.grad == 0).sum()) < ROWS


def test_values_that_are_not_clipped_keep_their_gradient_whatever_is_rounded() -> None:
    generator = torch.Generator().manual_seed(2)
    old, returns = torch.randn(2, 1000, generator=generator)
    values = old + 0.2 * (2 * torch.rand(1000, generator=generator) - 1)
    torch.testing.assert_close(value_gradient(values, old, returns, 0.25), (values - returns) / 1000)


@pytest.mark.parametrize("entropy_coefficient", [0.0, 0.1])
def test_an_update_is_that_of_autograd_and_torch_s_adam(entropy_coefficient: float) -> None:
    config = PPOConfig(entropy_coefficient=entropy_coefficient, max_grad_norm=0.1, learning_rate=0.01)
    ours, theirs = networks(config), networks(config)
    parameters = [*theirs.policy.parameters(), *theirs.values.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, eps=1e-5)
    batch, unit = sample()
    for _ in range(3):
        with torch.no_grad():
            ours.update(batch)
        optimizer.zero_grad(set_to_none=False)
        loss_by_definition(theirs, batch, unit).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        torch.testing.assert_close(ours.parameters.grad, theirs.parameters.grad, atol=1e-5, rtol=1e-4)
        optimizer.step()
    torch.testing.assert_close(ours.parameters, theirs.parameters, atol=1e-5, rtol=1e-4)


def test_adam_moves_what_its_gradient_says() -> None:
    module = nn.Linear(2, 1)
    vector = flatten(module)
    before = module.weight.detach().clone()
    assert vector.grad is not None
    vector.grad.copy_(torch.tensor([1.0, -1.0, 0.0]))
    Adam(vector, 0.1, eps=1e-8).step()
    torch.testing.assert_close(module.weight, before + torch.tensor([[-0.1, 0.1]]))


def test_losses_are_those_of_stable_baselines3() -> None:
    """The formulas of stable_baselines3.ppo.PPO.train (2.4), on the same tensors."""
    generator = torch.Generator().manual_seed(1)
    log_prob, old_log_prob, advantages, values, old_values, returns = torch.randn(6, 64, generator=generator)
    clip_range = clip_range_vf = 0.2

    ratio = torch.exp(log_prob - old_log_prob)
    policy_loss_1 = advantages * ratio
    policy_loss_2 = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
    expected = -torch.min(policy_loss_1, policy_loss_2).mean()
    torch.testing.assert_close(policy_loss(log_prob - old_log_prob, advantages, 0.2), expected)

    # where no value was clipped, SB3's loss is the plain squared error; ours is half of it, as in CleanRL
    near = old_values + torch.clamp(values - old_values, -clip_range_vf, clip_range_vf)
    torch.testing.assert_close(2 * value_loss(near, old_values, returns, 0.2), F.mse_loss(returns, near))
    assert value_loss(values, old_values, returns, 0.2) >= value_loss(values, old_values, returns, 1e9)


def test_losses_and_their_gradient_are_those_of_torchrl() -> None:
    """ClipPPOLoss around the same networks: its loss and its gradient in all parameters."""
    config = PPOConfig(entropy_coefficient=0.01, value_coefficient=0.5, max_grad_norm=1e9)
    ac, (batch, unit) = networks(config), sample()
    actor = ProbabilisticTensorDictSequential(
        Module(copy.deepcopy(ac.policy), in_keys=["observation"], out_keys=["concentration1", "concentration0"]),
        ProbabilisticTensorDictModule(
            in_keys=["concentration1", "concentration0"],
            out_keys=["action"],
            distribution_class=lambda concentration1, concentration0: Independent(  # type: ignore[no-untyped-call]
                Beta(concentration1, concentration0), 1
            ),
            return_log_prob=True,
            default_interaction_type=InteractionType.MEAN,
        ),
    )
    critic = Module(copy.deepcopy(ac.values), in_keys=["observation"], out_keys=["state_value"])
    loss = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=0.2,
        entropy_coeff=config.entropy_coefficient,
        critic_coeff=config.value_coefficient / 2,  # theirs is the squared error, ours half of it
        loss_critic_type="l2",
        normalize_advantage=False,
        clip_value=0.2,
    )
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    columns = {"action_log_prob": batch.log_probs, "advantage": advantages[:, None], "action": unit}
    columns |= {"observation": batch.x, "state_value": batch.values[:, None], "value_target": batch.returns[:, None]}
    losses = loss(TensorDict(columns, batch_size=[ROWS]))
    theirs = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
    torch.testing.assert_close(loss_by_definition(ac, batch, unit), theirs, atol=1e-6, rtol=1e-6)

    theirs.backward()
    with torch.no_grad():
        ac.update(batch)
    assert ac.parameters.grad is not None
    gradient = torch.cat([p.grad.flatten() for p in loss.parameters() if p.grad is not None])
    torch.testing.assert_close(ac.parameters.grad.norm(), gradient.norm(), atol=1e-5, rtol=1e-5)
