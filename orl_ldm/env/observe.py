"""What the policy sees: a short float32 vector per image, computed after the denoiser ran at t.

Every feature is of the order of one (ratios, logarithms and means of what a network holds), independent of the image
size, and computed per image: nothing in it depends on the batch.
"""

from functools import cache

import torch
from torch import Tensor

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.sampler import State, low_pass
from orl_ldm.diffusion.schedule import NoiseSchedule
from orl_ldm.env.spaces import INNER
from orl_ldm.images.resample import downscale, upscale
from orl_ldm.streams import normal

TINY = 1e-6


def observe(state: State, schedule: NoiseSchedule, config: SamplerConfig) -> Tensor:
    """Observations (B, F) float32, in the order of FEATURES."""
    fine, base = high_pass(state.x0), high_pass(state.base)
    added = high_pass(state.x0 - state.base)
    luma = state.lr.mean(dim=1)
    columns = [
        state.t / schedule.num_train_timesteps,
        schedule.log_snr(state.t) / 10,
        state.decisions / config.nfe_max,
        1 - state.nfe / config.nfe_max,
        rms(fine),
        state.x0.std(dim=(1, 2, 3)),
        rms(state.x0 - state.x0_before),
        rms(state.eps),
        rms(low_pass(state.x0 - state.base)),
        rms(state.x0 - state.base),
        correlation(added, base),
        between_channels(added).square().mean(dim=1).sqrt(),
        between_channels(fine).mean(dim=1),
        gradient_energy(luma),
        luma.std(dim=(1, 2)),
        luma.mean(dim=(1, 2)),
        spectrum_slope(luma),
        upscale_residual(state.lr),
        unevenness(luma),
        *projected(state.inner).unbind(-1),
    ]
    return torch.stack([column.to(torch.float32) for column in columns], dim=-1)


def projected(inner: Tensor) -> Tensor:
    """(B, INNER) random combinations of (B, D): about as far apart as what they are of (Johnson, Lindenstrauss 1984).

    So an observation is as long for every denoiser, and nothing has to be fitted before the first image is collected.
    """
    combined: Tensor = inner @ directions(inner.shape[1]).to(inner)
    return combined


@cache
def directions(width: int) -> Tensor:
    """(D, INNER), the same ones for every denoiser of a width."""
    scaled: Tensor = torch.from_numpy(normal((width, INNER), 0, "project", width)) / width**0.5
    return scaled


def rms(x: Tensor) -> Tensor:
    """Root mean square of each image, (B,)."""
    return x.square().mean(dim=tuple(range(1, x.ndim))).sqrt()


def high_pass(x: Tensor) -> Tensor:
    """What the sampler's `low_pass` takes away."""
    return x - low_pass(x)


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of two tensors (B, C, h, w), over all of an image, (B,) in [-1, 1]: 0 where one of them is zero.

    Of what the denoiser adds with what was there: above zero it sharpens, near zero it makes texture of its own.
    """
    scale = (one.square().sum(dim=(1, 2, 3)) * other.square().sum(dim=(1, 2, 3))).sqrt()
    return (one * other).sum(dim=(1, 2, 3)) / (scale + TINY)


def between_channels(x: Tensor) -> Tensor:
    """Correlations over the pixels of each two channels of (B, C, h, w), (B, C * (C - 1) / 2); one 0 for C = 1."""
    flat = x.flatten(2)
    flat = flat - flat.mean(dim=2, keepdim=True)
    flat = flat / (flat.norm(dim=2, keepdim=True) + TINY)
    rows, columns = torch.tril_indices(x.shape[1], x.shape[1], offset=-1, device=x.device)
    pairs = (flat @ flat.transpose(1, 2))[:, rows, columns]
    return pairs if len(rows) else x.new_zeros(len(x), 1)


def gradient_energy(luma: Tensor) -> Tensor:
    """log10 of the mean squared forward difference of (B, h, w), (B,): about -2 where busy, -4 where smooth."""
    vertical = luma.diff(dim=1).square().mean(dim=(1, 2))
    horizontal = luma.diff(dim=2).square().mean(dim=(1, 2))
    return torch.log10(vertical + horizontal + TINY)


def spectrum_slope(luma: Tensor) -> Tensor:
    """Least-squares slope of log power over log frequency of (B, h, w), (B,); about -1 (busy) to -3 (smooth)."""
    height, width = luma.shape[-2:]
    window = torch.hann_window(height, device=luma.device)[:, None] * torch.hann_window(width, device=luma.device)
    centred = luma - luma.mean(dim=(1, 2), keepdim=True)
    power = torch.fft.rfft2(centred * window).abs().square()
    fy = torch.fft.fftfreq(height, device=luma.device)[:, None]
    fx = torch.fft.rfftfreq(width, device=luma.device)
    radius = (fy.square() + fx.square()).sqrt()
    used = (radius > 1.5 / min(height, width)) & (radius <= 0.5)
    x = radius[used].log()
    x = x - x.mean()
    y = (power[:, used] + TINY).log()
    slope: Tensor = (y * x).sum(-1) / x.square().sum()
    return slope


def unevenness(luma: Tensor) -> Tensor:
    """Standard deviation of log10 of the local squared gradient over (B, h, w), (B,).

    0.13 for white noise, one where flat and busy areas meet.
    """
    vertical, horizontal = luma.diff(dim=1)[:, :, :-1].square(), luma.diff(dim=2)[:, :-1].square()
    local = low_pass((vertical + horizontal)[:, None])
    return torch.log10(local + TINY).std(dim=(1, 2, 3))


def upscale_residual(lr: Tensor) -> Tensor:
    """log10 of the rms of lr - up(down(lr)) at scale 2, (B,): how much a further bicubic step would lose."""
    small = downscale(lr, 2)
    return torch.log10(rms(lr - upscale(small, 2)) + TINY)
