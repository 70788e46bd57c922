"""Normalisation statistics of a whole scene, for networks that see only a tile of it.

A GroupNorm divides by the spread of what it is given, so each tile would be normalised by itself and neighbors would
not agree where they overlap. Here statistics are recorded while some tiles run, and then held constant: the networks
become purely local. Statistics are kept in the order in which the layers are called, so all tiles must run under the
same schedule.

Legend: B images, C channels, G groups.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from orl_ldm.diffusion.ldm import LDM

#: For each call of a GroupNorm, in order: (2, G) float64, means and means of squares.
Statistics = Sequence[Tensor]


@contextmanager
def recorded(ldm: LDM) -> Iterator[Statistics]:
    """Within the block, every GroupNorm call appends its statistics, averaged over the batch."""
    calls: list[Tensor] = []

    def forward(layer: nn.GroupNorm, x: Tensor) -> Tensor:
        groups = x.reshape(len(x), layer.num_groups, -1).double()  # (B, G, rest)
        calls.append(torch.stack([groups.mean((0, 2)), groups.square().mean((0, 2))]).cpu())
        return nn.functional.group_norm(x, layer.num_groups, layer.weight, layer.bias, layer.eps)

    with _replaced(ldm, forward):
        yield calls


@contextmanager
def fixed(ldm: LDM, statistics: Statistics) -> Iterator[None]:
    """Within the block, GroupNorm calls use these statistics, one after the other, instead of their input's own."""
    remaining = iter(statistics)

    def forward(layer: nn.GroupNorm, x: Tensor) -> Tensor:
        mean, square = next(remaining)
        deviation = (square - mean.square()).clamp(min=0).add(layer.eps).sqrt()
        each = x.shape[1] // layer.num_groups  # channels of a group
        scale = layer.weight.double().cpu() / deviation.repeat_interleave(each)
        offset = layer.bias.double().cpu() - mean.repeat_interleave(each) * scale
        shape = (1, -1, *[1] * (x.ndim - 2))
        return torch.addcmul(offset.to(x).view(shape), x, scale.to(x).view(shape))

    with _replaced(ldm, forward):
        yield


def averaged(runs: Sequence[tuple[int, Statistics]]) -> Statistics:
    """The statistics of several batches as one, weighted by the images in each."""
    total = sum(images for images, _ in runs)
    return [
        torch.stack([part * images for (images, _), part in zip(runs, parts, strict=True)]).sum(0) / total
        for parts in zip(*(statistics for _, statistics in runs), strict=True)
    ]


@contextmanager
def _replaced(ldm: LDM, forward: Callable[[nn.GroupNorm, Tensor], Tensor]) -> Iterator[None]:
    layers = [m for net in (ldm.unet, ldm.first_stage) for m in net.modules() if isinstance(m, nn.GroupNorm)]
    for layer in layers:
        setattr(layer, "forward", partial(forward, layer))  # noqa: B010  (mypy would not have a method replaced)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own again
