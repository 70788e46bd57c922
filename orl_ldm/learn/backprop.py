"""Small MLPs differentiated by hand, their parameters in one vector, and Adam for it.

With two layers of 128 units and batches of 64, modules, autograd and a library's optimiser cost several times the
arithmetic. Here the modules stay what they are (their parameters and gradients become views of the vector), and only
forward, backward and the step are written out.

Legend: B batch, I inputs, O outputs, P parameters.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector


class Layer(NamedTuple):
    """A linear layer and where its gradients go."""

    weight: Tensor  # (O, I)
    bias: Tensor  # (O,)
    weight_grad: Tensor
    bias_grad: Tensor


def flatten(*modules: nn.Module) -> nn.Parameter:
    """A vector (P,) with a gradient, of which the parameters of all modules, and their gradients, become views."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    vector = nn.Parameter(parameters_to_vector(parameters).detach())
    vector.grad = torch.zeros_like(vector)
    sizes = [parameter.numel() for parameter in parameters]
    datas, grads = torch.split(vector.data, sizes), torch.split(vector.grad, sizes)
    for parameter, data, grad in zip(parameters, datas, grads, strict=True):
        parameter.data, parameter.grad = data.view_as(parameter), grad.view_as(parameter)
    return vector


class MLP:
    """The linear layers of a flattened module, in their order, with SiLU between them. Use it without autograd."""

    def __init__(self, module: nn.Module) -> None:
        linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        self.layers = [Layer(m.weight.data, m.bias.data, _grad(m.weight), _grad(m.bias)) for m in linears]
        self._inputs: list[Tensor] = []  # (B, I) of each layer
        self._sums: list[Tensor] = []  # (B, O) of each layer but the last, before SiLU

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, O) of inputs (B, I), which are kept for `backward`."""
        self._inputs, self._sums = [x], []
        *hidden, last = self.layers
        for layer in hidden:
            self._sums.append(torch.addmm(layer.bias, self._inputs[-1], layer.weight.T))
            self._inputs.append(F.silu(self._sums[-1]))
        return torch.addmm(last.bias, self._inputs[-1], last.weight.T)

    def backward(self, grad: Tensor) -> None:
        """Set the parameters' gradients from that of the outputs (B, O) of the last `forward`."""
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            torch.mm(grad.T, self._inputs[i], out=layer.weight_grad)
            torch.sum(grad, 0, out=layer.bias_grad)
            if i:
                grad = torch.ops.aten.silu_backward(torch.mm(grad, layer.weight), self._sums[i - 1])


class Adam(nn.Module):
    """Adam (Kingma and Ba 2015, algorithm 1) for one vector; half the time of torch.optim's for vectors this small."""

    mean: Tensor
    square: Tensor
    steps: Tensor

    def __init__(self, vector: nn.Parameter, learning_rate: float, eps: float) -> None:
        super().__init__()
        self._data, self._grad, self.learning_rate, self.eps = vector.data, _grad(vector), learning_rate, eps
        self.register_buffer("mean", torch.zeros_like(vector.data))  # (P,) of gradients
        self.register_buffer("square", torch.zeros_like(vector.data))  # (P,) mean of their squares
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def step(self, beta1: float = 0.9, beta2: float = 0.999) -> None:
        """Move the vector against its gradient."""
        self.steps += 1
        t = int(self.steps)
        self.mean.lerp_(self._grad, 1 - beta1)
        self.square.mul_(beta2).addcmul_(self._grad, self._grad, value=1 - beta2)
        scale = self.square.sqrt().div_((1 - beta2**t) ** 0.5).add_(self.eps)
        self._data.addcdiv_(self.mean, scale, value=-self.learning_rate / (1 - beta1**t))


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "flatten comes first"
    return parameter.grad
