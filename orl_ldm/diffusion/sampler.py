"""The steered sampler: DDIM in which every image goes its own way.

A batch of in-flight images is a State. Before the first denoiser call the estimate x0 is the encoded bicubic upscale at
t = T - 1; a Decision then says where to go next and how. `sample` is the whole loop:

    state = begin(...)
    while any image is in flight:
        decision = driver(state)                      # the hand on the wheel
        images that `ends` -> finish(...)             # edit x0, decode, project
        the others         -> advance(...)            # edit x0, DDIM step to t_next, one denoiser call

Legend: B images in flight, C latent channels, h x w latent = LR size, H x W output. float32 unless said otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.projection import back_project
from orl_ldm.diffusion.schedule import NoiseSchedule, add_noise, per_image, to_x0_and_eps
from orl_ldm.errors import UserError
from orl_ldm.images.resample import to_8bit, upscale
from orl_ldm.streams import normal


@dataclass(frozen=True)
class _Rows:
    """A dataclass of tensors with B rows each."""

    def select(self, index: Tensor) -> Self:
        """The rows of a boolean mask or of indices."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))


@dataclass(frozen=True)
class Decision(_Rows):
    """One decision per image, (B,) each. Neutral is eta 0 (or DDIM's), detail 1, fidelity 0, grain 0: plain DDIM."""

    t_next: Tensor  # float64, where to go; below the floor: stop
    eta: Tensor  # [0, 1], DDIM's share of fresh noise
    detail: Tensor  # gain on what x0 adds to the encoded bicubic upscale; 1 leaves it
    fidelity: Tensor  # [0, 1], strength of the projection onto the LR image
    grain: Tensor  # [0, ...), fresh high frequencies in x0, as a multiple of what it adds to the upscale there


@dataclass(frozen=True)
class State(_Rows):
    """B images in flight; x0 and eps are what the denoiser said at t."""

    slot: Tensor  # (B,) int64, where the image belongs in the caller's batch
    image_id: Tensor  # (B,) int64
    rollout: Tensor  # (B,) int64
    lr: Tensor  # (B, 3, h, w) in [0, 1]
    base: Tensor  # (B, C, h, w), the encoded bicubic upscale
    t: Tensor  # (B,) float64
    x: Tensor  # (B, C, h, w), the noisy latent at t (zeros before the first call)
    x0: Tensor  # (B, C, h, w)
    eps: Tensor  # (B, C, h, w) (zeros before the first call)
    x0_before: Tensor  # (B, C, h, w), the estimate before this one
    inner: Tensor  # (B, D), what the denoiser's middle layer said at t (zeros before the first call)
    nfe: Tensor  # (B,) int64, denoiser calls so far
    decisions: Tensor  # (B,) int64, decisions so far


@dataclass(frozen=True)
class Sampled:
    """B finished images, 8-bit levels (B, 3, H, W) in [0, 1], and their denoiser calls (B,)."""

    images: Tensor
    nfe: Tensor


Driver = Callable[[State], Decision]


def begin(ldm: LDM, lr: Tensor, image_ids: Sequence[int], rollouts: Sequence[int]) -> State:
    """Images before their first denoiser call. Raises UserError when the LR size does not suit the denoiser."""
    height, width = lr.shape[-2:]
    if height % ldm.size_multiple or width % ldm.size_multiple:
        raise UserError(
            f"LR images of {width}x{height} pixels do not suit {ldm.ldm_id!r}: both must be multiples of "
            f"{ldm.size_multiple} (HR: of {ldm.size_multiple * ldm.scale})"
        )
    lr = lr.to(ldm.device, torch.float32)
    base = ldm.encode(to_8bit(upscale(lr, ldm.scale)))
    blank = torch.zeros_like(base)
    count = torch.zeros(len(lr), dtype=torch.long, device=ldm.device)
    return State(
        slot=torch.arange(len(lr), device=ldm.device),
        image_id=torch.tensor(image_ids, device=ldm.device),
        rollout=torch.tensor(rollouts, device=ldm.device),
        lr=lr,
        base=base,
        t=torch.full((len(lr),), ldm.schedule.num_train_timesteps - 1.0, dtype=torch.float64, device=ldm.device),
        x=blank,
        x0=base,
        eps=blank,
        x0_before=base,
        inner=blank.new_zeros(len(lr), ldm.feature_width),
        nfe=count,
        decisions=count,
    )


def ends(state: State, decision: Decision, config: SamplerConfig) -> Tensor:
    """Which images stop now, (B,) bool: t_next under the floor, or no denoiser call left."""
    return (decision.t_next < config.t_floor) | (state.nfe >= config.nfe_max)


def advance(
    ldm: LDM, state: State, decision: Decision, config: SamplerConfig, seed: int, pure_noise_start: bool = False
) -> State:
    """Go to t_next and call the denoiser there (1 NFE). `pure_noise_start` begins plain sampling, without x0."""
    x0 = _edit(state, decision, seed)
    x0 = _project(ldm, state, x0, decision, config)
    needs = (state.nfe == 0) | (decision.eta > 0)
    noise = _noise(state, seed) if needs.any() else torch.zeros_like(x0)
    warm = add_noise(x0, noise, ldm.schedule.alpha_bar(decision.t_next))
    if pure_noise_start:
        warm = noise
    onward = ddim_step(ldm.schedule, x0, state.eps, state.t, decision.t_next, decision.eta, noise)
    x = torch.where((state.nfe == 0)[:, None, None, None], warm, onward)
    prediction, inner = ldm.denoise_with_features(x, decision.t_next, state.lr)
    x0_hat, eps = to_x0_and_eps(x, prediction, ldm.schedule.alpha_bar(decision.t_next), ldm.schedule)
    return State(
        slot=state.slot,
        image_id=state.image_id,
        rollout=state.rollout,
        lr=state.lr,
        base=state.base,
        t=decision.t_next,
        x=x,
        x0=x0_hat,
        eps=eps,
        x0_before=state.x0,
        inner=inner,
        nfe=state.nfe + 1,
        decisions=state.decisions + 1,
    )


def ddim_step(
    schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: Tensor, t_next: Tensor, eta: Tensor, noise: Tensor
) -> Tensor:
    """x at t_next from the estimates at t: equations 12 and 16 of Song et al. 2021, with per-image t, t_next, eta."""
    a, a_next = schedule.alpha_bar(t), schedule.alpha_bar(t_next)
    sigma = eta.double() * ((1 - a_next) / (1 - a)).sqrt() * (1 - a / a_next).clamp(min=0).sqrt()
    direction = (1 - a_next - sigma**2).clamp(min=0).sqrt()
    return per_image(a_next.sqrt(), x0) * x0 + per_image(direction, x0) * eps + per_image(sigma, x0) * noise


def finish(ldm: LDM, state: State, decision: Decision, seed: int) -> Tensor:
    """The output images (B, 3, H, W), 8-bit levels in [0, 1]: decoded, and projected in pixel space at no NFE.

    What is decoded is x0; where t_next is negative it is DDIM's own last step, which differs from x0 for schedulers
    with `set_alpha_to_one` false.
    """
    latent = _edit(state, decision, seed)
    plain = (decision.t_next < 0) & (state.nfe > 0)
    if plain.any() and ldm.schedule.final_alpha_cumprod < 1:
        noise = _noise(state, seed)
        last = ddim_step(ldm.schedule, latent, state.eps, state.t, decision.t_next, decision.eta, noise)
        latent = torch.where(plain[:, None, None, None], last, latent)
    return to_8bit(back_project(ldm.decode(latent), state.lr, decision.fidelity))


@torch.no_grad()
def sample(
    ldm: LDM,
    lr: Tensor,
    image_ids: Sequence[int],
    rollouts: Sequence[int],
    driver: Driver,
    config: SamplerConfig,
    seed: int,
    pure_noise_start: bool = False,
) -> Sampled:
    """Super-resolve LR images (B, 3, h, w) under `driver`; finished images leave the batch.

    Noise is drawn per (seed, image id, rollout, decision), so an image's result does not depend on its batch.
    """
    state = begin(ldm, lr, image_ids, rollouts)
    shape = (len(lr), 3, lr.shape[-2] * ldm.scale, lr.shape[-1] * ldm.scale)
    images = torch.zeros(shape, device=ldm.device)
    nfe = torch.zeros(len(lr), dtype=torch.long, device=ldm.device)
    while len(state):
        decision = driver(state)
        done = ends(state, decision, config)
        if done.any():
            finished = state.select(done)
            images[finished.slot] = finish(ldm, finished, decision.select(done), seed)
            nfe[finished.slot] = finished.nfe
            state, decision = state.select(~done), decision.select(~done)
        if len(state):
            state = advance(ldm, state, decision, config, seed, pure_noise_start)
    return Sampled(images, nfe)


def grid_driver(grid: Sequence[int], eta: float) -> Driver:
    """Plain DDIM on a descending grid of timesteps: "the LDM alone" (with `pure_noise_start`)."""
    stops = [float(t) for t in grid] + [-1.0]

    def drive(state: State) -> Decision:
        ones = torch.ones_like(state.t)  # all images are at the same step
        return Decision(stops[int(state.decisions[0])] * ones, eta * ones, ones, 0 * ones, 0 * ones)

    return drive


def _edit(state: State, decision: Decision, seed: int) -> Tensor:
    """x0 with `detail` and `grain`.

    Grain is film grain synthesis (Norkin and Birkbeck 2018) on a latent: an estimate from few calls is a mean, which
    lacks texture; noise as strong as what it adds there looks more like the real thing. Before the first call: none.
    """
    added = state.x0 - state.base
    x0 = state.base + per_image(decision.detail, added) * added
    grained = (decision.grain > 0) & (state.nfe > 0)
    if grained.any():
        noise, added = _noise(state.select(grained), seed, "grain"), added[grained]
        strength = low_pass(added.square().mean(dim=1, keepdim=True)).sqrt()  # (n, 1, h, w)
        x0[grained] += per_image(decision.grain[grained], added) * strength * (noise - low_pass(noise))
    return x0


def _project(ldm: LDM, state: State, x0: Tensor, decision: Decision, config: SamplerConfig) -> Tensor:
    """x0 after the in-between projection; images with fidelity 0 are not touched (and cost nothing)."""
    wanted = decision.fidelity > 0
    if not wanted.any():
        return x0
    strength = decision.fidelity[wanted]
    if config.projection == "every_step":
        projected = ldm.encode(back_project(ldm.decode(x0[wanted]), state.lr[wanted], strength))
    else:
        low = low_pass(state.base[wanted] - x0[wanted])
        projected = x0[wanted] + per_image(strength, x0) * low
    result = x0.clone()
    result[wanted] = projected
    return result


def low_pass(x: Tensor) -> Tensor:
    """5 x 5 binomial blur of (B, C, h, w), edges repeated."""
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device, dtype=x.dtype) / 16
    channels = x.shape[1]
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    rows = torch.nn.functional.conv2d(padded, kernel.view(1, 1, 1, 5).repeat(channels, 1, 1, 1), groups=channels)
    return torch.nn.functional.conv2d(rows, kernel.view(1, 1, 5, 1).repeat(channels, 1, 1, 1), groups=channels)


def _noise(state: State, seed: int, purpose: str = "noise") -> Tensor:
    shape = tuple(state.x0.shape[1:])
    keys = zip(state.image_id.tolist(), state.rollout.tolist(), state.decisions.tolist(), strict=True)
    drawn = [torch.from_numpy(normal(shape, seed, purpose, *key)) for key in keys]
    return torch.stack(drawn).to(state.x0)
