"""Returns and advantages over episodes that are laid end to end.

Legend: N transitions, of episodes in time order; `ends` (N,) is true on the last transition of each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def backward_sum(x: Tensor, decay: Tensor) -> Tensor:
    """y (N,) with y[t] = x[t] + decay[t] * y[t + 1]; `decay` is zero where an episode ends.

    By doubling (Hillis and Steele 1986): after k sweeps y[t] holds its next 2**k terms, so that the number of sweeps
    is the logarithm of the longest episode, not N.
    """
    reach = 1
    while reach < len(x) and bool(decay.any()):
        x = x + decay * F.pad(x[reach:], (0, reach))
        decay = decay * F.pad(decay[reach:], (0, reach))
        reach *= 2
    return x


def discounted_returns(rewards: Tensor, ends: Tensor, gamma: float) -> Tensor:
    """(N,) rewards from each transition to the end of its episode, discounted."""
    return backward_sum(rewards, gamma * (~ends).to(rewards))


def next_values(values: Tensor, ends: Tensor) -> Tensor:
    """(N,) value of the state that follows; zero after an end."""
    return torch.where(ends, 0.0, F.pad(values[1:], (0, 1)))


def gae(rewards: Tensor, values: Tensor, ends: Tensor, gamma: float, lam: float) -> Tensor:
    """(N,) generalised advantage estimates (Schulman et al. 2016, equation 16)."""
    residuals = rewards + gamma * next_values(values, ends) - values
    return backward_sum(residuals, gamma * lam * (~ends).to(rewards))


def vtrace(
    rewards: Tensor,
    values: Tensor,
    log_ratio: Tensor,
    ends: Tensor,
    gamma: float,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Advantages (N,) and targets (N,) of V-trace (Espeholt et al. 2018, equation 1) for behaviour of another policy.

    `log_ratio` (N,) is log policy - log behaviour. The advantages are r + gamma * v(s') - V(s) of section 4.2, without
    the weight rho in front: in PPO that is the ratio's part.
    """
    ratio = log_ratio.exp()
    residuals = ratio.clamp(max=rho_bar) * (rewards + gamma * next_values(values, ends) - values)
    targets = values + backward_sum(residuals, gamma * ratio.clamp(max=c_bar) * (~ends))
    return rewards + gamma * next_values(targets, ends) - values, targets
