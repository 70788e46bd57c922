"""Value networks, an ensemble of Q-networks that costs about as much as one, and steps of networks.

Legend: M critics, B batch, F observation features, A action dimensions, H hidden units, O outputs.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from orl_ldm.policy.networks import body


def value_network(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """A plain MLP from (B, F) to values (B, 1), of the shape of a policy's."""
    return nn.Sequential(*body(inputs, hidden, nn.SiLU), nn.Linear(hidden[-1], 1))


class Ensemble(nn.Module):
    """M MLPs of one shape with stacked weights: one batched product per layer in place of M small ones.

    Hidden layers are normalised (LayerNorm, Ba et al. 2016). This bounds the values of states and actions that the
    buffer does not hold, without which bootstrapping diverges (Ball et al. 2023, RLPD).
    """

    def __init__(self, members: int, inputs: int, hidden: Sequence[int], outputs: int = 1) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, o in pairwise([inputs, *hidden, outputs]):
            bound = i**-0.5  # as nn.Linear starts
            self.weights.append(nn.Parameter(torch.empty(members, i, o).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, o).uniform_(-bound, bound)))

    def forward(self, x: Tensor) -> Tensor:
        """Values (M, B) of inputs (B, F + A), or (B, F)."""
        h = self.hidden(x)  # (M, B, H)
        q: Tensor = (h * self.weights[-1].mT).sum(-1) + self.biases[-1].squeeze(-1)  # slow as a product with one column
        return q

    def outputs(self, x: Tensor) -> Tensor:
        """All outputs (M, B, O) of inputs (B, F + A)."""
        return torch.baddbmm(self.biases[-1], self.hidden(x), self.weights[-1])

    def hidden(self, x: Tensor) -> Tensor:
        """The last hidden layer (M, B, H)."""
        h = x.expand(len(self.weights[0]), *x.shape[-2:])  # (M, B, F + A)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = F.silu(F.layer_norm(torch.baddbmm(bias, h, weight), weight.shape[-1:]))
        return h


class Forked(nn.Module):
    """Two ensembles of one shape: one for actions that stop, the other for actions that go on.

    The outcome of stopping was seen, that of going on is bootstrapped. One network for both would blend them.
    """

    def __init__(self, members: int, inputs: int, hidden: Sequence[int], outputs: int = 1) -> None:
        super().__init__()
        self.stop, self.on = (Ensemble(members, inputs, hidden, outputs) for _ in range(2))

    def outputs(self, x: Tensor, stops: Tensor) -> Tensor:
        """All outputs (M, B, O) of inputs (B, F + A); `stops` (B,) bool marks those that stop."""
        stop, on = stops.nonzero()[:, 0], (~stops).nonzero()[:, 0]
        said = torch.cat([self.stop.outputs(x[stop]), self.on.outputs(x[on])], dim=1)
        return said[:, torch.cat([stop, on]).argsort()]

    def forward(self, x: Tensor, stops: Tensor) -> Tensor:
        """Values (M, B), where there is one output."""
        return self.outputs(x, stops)[..., 0]


def lower_confidence_bound(q: Tensor, deviations: float) -> Tensor:
    """(B,) mean of the M critics minus `deviations` of their standard deviation, of q (M, B)."""
    std, mean = torch.std_mean(q, dim=0)
    return mean - deviations * std


def gradient_step(loss: Tensor, optimizer: Optimizer, max_grad_norm: float) -> None:
    """One step of the optimizer, the norm of its gradient clipped."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_grad_norm)
    optimizer.step()


@torch.no_grad()
def follow(target: nn.Module, network: nn.Module, polyak: float) -> None:
    """Move a target network a small step towards its network."""
    for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, polyak)
