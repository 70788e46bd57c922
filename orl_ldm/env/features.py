"""The table of observation features: a name and the function that computes it, on one line.

Every feature is of the order of one (a ratio, a logarithm, a mean of what a network holds), independent of the image
size, and computed for each image alone. Adding a feature is one function and one entry in FEATURES.

Legend: B images, F features, C latent channels, D width of the denoiser's features.
"""

from collections.abc import Callable
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.edits import low_pass
from orl_ldm.diffusion.sampler import State
from orl_ldm.diffusion.schedule import NoiseSchedule
from orl_ldm.images.resample import downscale, upscale
from orl_ldm.streams import normal

TINY = 1e-6

#: Random projections of the denoiser's features, whatever their width.
PROJECTIONS = 16


class View:
    """What features are computed from: the state after a denoiser call, and parts of it that several features use."""

    def __init__(self, state: State, schedule: NoiseSchedule, config: SamplerConfig) -> None:
        self.state, self.schedule, self.config = state, schedule, config

    @cached_property
    def luma(self) -> Tensor:
        """(B, h, w)"""
        return self.state.lr.mean(dim=1)

    @cached_property
    def added(self) -> Tensor:
        """(B, C, h, w), what the estimate adds to the encoded bicubic upscale."""
        return self.state.x0 - self.state.lr_latent

    @cached_property
    def added_detail(self) -> Tensor:
        """(B, C, h, w), the high frequencies of that."""
        return high_pass(self.added)

    @cached_property
    def detail(self) -> Tensor:
        """(B, C, h, w), the high frequencies of the estimate."""
        return high_pass(self.state.x0)

    @cached_property
    def projections(self) -> Tensor:
        """(B, PROJECTIONS) random projections of the denoiser's features.

        Distances survive (Johnson and Lindenstrauss 1984), nothing is fitted, and F is the same for every denoiser.
        """
        features = self.state.unet_features
        projected: Tensor = features @ directions(features.shape[1]).to(features)
        return projected


Feature = Callable[[View], Tensor]  # (B,)


@cache
def directions(width: int) -> Tensor:
    """(D, PROJECTIONS), the same ones for every denoiser of a width."""
    scaled: Tensor = torch.from_numpy(normal((width, PROJECTIONS), 0, "project", width)) / width**0.5
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


def _projection(number: int, view: View) -> Tensor:
    return view.projections[:, number]


#: Every feature by name, in the order of observations.
FEATURES: dict[str, Feature] = {
    "position/t": lambda v: v.state.t / v.schedule.num_train_timesteps,
    "position/log_snr": lambda v: v.schedule.log_snr(v.state.t) / 10,
    "position/decision": lambda v: v.state.decisions / v.config.nfe_max,
    "position/nfe_left": lambda v: 1 - v.state.nfe / v.config.nfe_max,
    "estimate/high_frequency": lambda v: rms(v.detail),
    "estimate/std": lambda v: v.state.x0.std(dim=(1, 2, 3)),
    "estimate/change": lambda v: rms(v.state.x0 - v.state.x0_before),
    "estimate/noise_std": lambda v: rms(v.state.eps),
    "mismatch/low_frequency": lambda v: rms(low_pass(v.added)),
    "mismatch/detail": lambda v: rms(v.added),
    "estimate/sharpening": lambda v: correlation(v.added_detail, high_pass(v.state.lr_latent)),
    "estimate/channels_added": lambda v: between_channels(v.added_detail).square().mean(dim=1).sqrt(),
    "estimate/channels": lambda v: between_channels(v.detail).mean(dim=1),
    "lr/gradient": lambda v: gradient_energy(v.luma),
    "lr/std": lambda v: v.luma.std(dim=(1, 2)),
    "lr/mean": lambda v: v.luma.mean(dim=(1, 2)),
    "lr/spectrum_slope": lambda v: spectrum_slope(v.luma),
    "lr/upscale_residual": lambda v: upscale_residual(v.state.lr),
    "lr/unevenness": lambda v: unevenness(v.luma),
    **{f"denoiser/{number:02d}": partial(_projection, number) for number in range(PROJECTIONS)},
}


def observe(state: State, schedule: NoiseSchedule, config: SamplerConfig) -> Tensor:
    """Observations (B, F) float32, in the order of FEATURES."""
    view = View(state, schedule, config)
    return torch.stack([feature(view).to(torch.float32) for feature in FEATURES.values()], dim=-1)
