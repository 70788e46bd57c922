"""The steered sampler: DDIM in which every image goes its own way.

A State holds a batch of images in flight. Before the first denoiser call its estimate x0 is the encoded bicubic upscale
at t = T - 1. A controller, any function State -> Decision, then says where to go next and how. `sample` is the loop:

    state = start(...)
    while any image is in flight:
        decision = controller(state)
        images that `ends` -> finish(...)      # edit x0, decode, project
        the others         -> advance(...)     # edit and project x0, step to t_next, one denoiser call

Legend: B images in flight, C latent channels, h x w latent = LR size, H x W output. float32 unless said otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from orl_ldm.actions import ACTIONS
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.edits import EDITS, low_pass
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.projection import back_project
from orl_ldm.diffusion.schedule import NoiseSchedule, add_noise, per_image, to_x0_and_eps
from orl_ldm.errors import UserError
from orl_ldm.images.check import as_images
from orl_ldm.images.resample import to_8bit, upscale
from orl_ldm.streams import block_noise


@dataclass(frozen=True)
class Decision:
    """One decision per image: where to go, and the other actions as they are executed; those not named are neutral."""

    t_next: Tensor  # (B,) float64; below the floor: stop
    actions: Mapping[str, Tensor]  # name -> (B,)

    def get(self, name: str) -> Tensor:
        """(B,) values of an action."""
        return self.actions.get(name, torch.full_like(self.t_next, ACTIONS[name].neutral, dtype=torch.float32))

    def select(self, index: Tensor) -> "Decision":
        """The rows of a boolean mask or of indices."""
        return Decision(self.t_next[index], {name: value[index] for name, value in self.actions.items()})


@dataclass(frozen=True)
class State:
    """B images in flight; x0 and eps are the denoiser's estimates at t."""

    slot: Tensor  # (B,) int64, where the image belongs in the caller's batch
    image_id: Tensor  # (B,) int64
    rollout: Tensor  # (B,) int64
    origin: Tensor  # (B, 2) int64, row and column of the latent's corner in its scene: where its noise is drawn
    lr: Tensor  # (B, 3, h, w) in [0, 1]
    lr_latent: Tensor  # (B, C, h, w), the encoded bicubic upscale
    t: Tensor  # (B,) float64
    x: Tensor  # (B, C, h, w), the noisy latent at t (zeros before the first call)
    x0: Tensor  # (B, C, h, w)
    eps: Tensor  # (B, C, h, w) (zeros before the first call)
    x0_before: Tensor  # (B, C, h, w), the estimate before this one
    unet_features: (
        Tensor  # (B, D), of the denoiser's middle layer at t; zeros before the first call, and if not asked for
    )
    nfe: Tensor  # (B,) int64, denoiser calls so far
    decisions: Tensor  # (B,) int64, decisions so far

    def select(self, index: Tensor) -> "State":
        """The rows of a boolean mask or of indices."""
        return State(*(getattr(self, f.name)[index] for f in fields(self)))

    def put(self, mask: Tensor, rows: "State") -> "State":
        """A copy with the rows of a boolean mask replaced."""
        columns = {f.name: getattr(self, f.name).clone() for f in fields(self)}
        for name, column in columns.items():
            column[mask] = getattr(rows, name)
        return State(**columns)

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True)
class Sampled:
    """B finished images (B, 3, H, W) in [0, 1], and their denoiser calls (B,)."""

    images: Tensor
    nfe: Tensor


Controller = Callable[[State], Decision]


#: (row, column) of a latent's corner in its scene, for all images of a batch or for each.
Origin = tuple[int, int] | Sequence[tuple[int, int]]


def start(ldm: LDM, lr: Tensor, image_ids: Sequence[int], rollouts: Sequence[int], origin: Origin = (0, 0)) -> State:
    """Images before their first denoiser call.

    Raises UserError for LR images that are no (B, 3, h, w) floats in [0, 1], or whose size the denoiser cannot take.
    """
    lr = as_images(lr)
    height, width = lr.shape[-2:]
    if height % ldm.size_multiple or width % ldm.size_multiple:
        raise UserError(
            f"LR images of {width}x{height} pixels do not suit {ldm.ldm_id!r}: both must be multiples of "
            f"{ldm.size_multiple} (HR: of {ldm.size_multiple * ldm.scale})"
        )
    lr = lr.to(ldm.device)
    lr_latent = ldm.encode(to_8bit(upscale(lr, ldm.scale)))
    blank = torch.zeros_like(lr_latent)
    count = torch.zeros(len(lr), dtype=torch.long, device=ldm.device)
    return State(
        slot=torch.arange(len(lr), device=ldm.device),
        image_id=torch.tensor(image_ids, device=ldm.device),
        rollout=torch.tensor(rollouts, device=ldm.device),
        origin=torch.tensor(origin, device=ldm.device).expand(len(lr), 2),
        lr=lr,
        lr_latent=lr_latent,
        t=torch.full((len(lr),), ldm.schedule.num_train_timesteps - 1.0, dtype=torch.float64, device=ldm.device),
        x=blank,
        x0=lr_latent,
        eps=blank,
        x0_before=lr_latent,
        unet_features=blank.new_zeros(len(lr), ldm.feature_width),
        nfe=count,
        decisions=count,
    )


def ends(state: State, decision: Decision, config: SamplerConfig) -> Tensor:
    """Which images stop now, (B,) bool: t_next under the floor, or no denoiser call left."""
    return (decision.t_next < config.t_floor) | (state.nfe >= config.nfe_max)


def advance(
    ldm: LDM,
    state: State,
    decision: Decision,
    config: SamplerConfig,
    seed: int,
    from_noise: bool = False,
    with_features: bool = False,
) -> State:
    """Go to t_next and call the denoiser there (1 NFE).

    Images without a call so far start: at their noised estimate or, `from_noise`, at pure noise as plain DDIM does.
    `with_features` fills `unet_features`.
    """
    x0 = _project(ldm, state, edited(state, decision, seed), decision, config)
    first, eta = state.nfe == 0, decision.get("eta")
    noise = noise_of(state, seed, "noise") if (first | (eta > 0)).any() else torch.zeros_like(x0)
    started = noise if from_noise else add_noise(x0, noise, ldm.schedule.alpha_bar(decision.t_next))
    continued = ddim_step(ldm.schedule, x0, state.eps, state.t, decision.t_next, eta, noise)
    x = torch.where(first[:, None, None, None], started, continued)
    if with_features:
        prediction, unet_features = ldm.denoise_with_features(x, decision.t_next, state.lr)
    else:
        prediction, unet_features = ldm.denoise(x, decision.t_next, state.lr), state.unet_features
    x0_hat, eps = to_x0_and_eps(x, prediction, ldm.schedule.alpha_bar(decision.t_next), ldm.schedule)
    return replace(
        state,
        t=decision.t_next,
        x=x,
        x0=x0_hat,
        eps=eps,
        x0_before=state.x0,
        unet_features=unet_features,
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
    """The output images (B, 3, H, W) in [0, 1]: x0 decoded, and projected onto the LR image in pixel space.

    Where t_next is negative, DDIM's own last step is decoded, which differs from x0 for schedulers with
    `set_alpha_to_one` false.
    """
    latent = edited(state, decision, seed)
    plain = (decision.t_next < 0) & (state.nfe > 0)
    if plain.any() and ldm.schedule.final_alpha_cumprod < 1:
        noise = noise_of(state, seed, "noise")
        last = ddim_step(ldm.schedule, latent, state.eps, state.t, decision.t_next, decision.get("eta"), noise)
        latent = torch.where(plain[:, None, None, None], last, latent)
    return back_project(ldm.decode(latent), state.lr, decision.get("fidelity")).clamp(0, 1)


@torch.no_grad()
def sample(
    ldm: LDM,
    lr: Tensor,
    image_ids: Sequence[int],
    rollouts: Sequence[int],
    controller: Controller,
    config: SamplerConfig,
    seed: int,
    from_noise: bool = False,
    with_features: bool = False,
    origin: Origin = (0, 0),
) -> Sampled:
    """Super-resolve LR images (B, 3, h, w) under `controller`; finished images leave the batch.

    Noise is a function of (seed, image id, rollout, decision) and the absolute place in the scene, so an image's result
    does not depend on its batch, and tiles of a scene agree.
    """
    state = start(ldm, lr, image_ids, rollouts, origin)
    shape = (len(lr), 3, lr.shape[-2] * ldm.scale, lr.shape[-1] * ldm.scale)
    images = state.lr.new_zeros(shape)
    nfe = torch.zeros(len(lr), dtype=torch.long, device=ldm.device)
    while len(state):
        decision = controller(state)
        done = ends(state, decision, config)
        if done.any():
            finished = state.select(done)
            images[finished.slot] = finish(ldm, finished, decision.select(done), seed)
            nfe[finished.slot] = finished.nfe
            state, decision = state.select(~done), decision.select(~done)
        if len(state):
            state = advance(ldm, state, decision, config, seed, from_noise, with_features)
    return Sampled(images, nfe)


def ddim_controller(grid: Sequence[int], eta: float) -> Controller:
    """Plain DDIM on a descending grid of timesteps: the LDM without steering, when it starts from noise."""
    stops = [float(t) for t in grid] + [-1.0]

    def control(state: State) -> Decision:
        ones = torch.ones_like(state.t)  # all images are at the same step
        return Decision(stops[int(state.decisions[0])] * ones, {"eta": eta * ones.float()})

    return control


def edited(state: State, decision: Decision, seed: int) -> Tensor:
    """x0 (B, C, h, w) after every edit action; images without a call, or with a neutral action, keep theirs."""
    x0 = state.x0
    for name, edit in EDITS.items():
        value = decision.get(name)
        active = (value != ACTIONS[name].neutral) & (state.nfe > 0)
        if active.any():
            some = state.select(active)
            noise = partial(noise_of, some, seed, name)
            x0 = x0.clone()
            x0[active] = edit(x0[active], some.lr_latent, per_image(value[active], x0), noise)
    return x0


def _project(ldm: LDM, state: State, x0: Tensor, decision: Decision, config: SamplerConfig) -> Tensor:
    """x0 after the in-between projection; images with fidelity 0 are not touched (and cost nothing)."""
    fidelity = decision.get("fidelity")
    wanted = fidelity > 0
    if not wanted.any():
        return x0
    strength = fidelity[wanted]
    if config.projection == "every_step":
        projected = ldm.encode(back_project(ldm.decode(x0[wanted]), state.lr[wanted], strength))
    else:
        projected = x0[wanted] + per_image(strength, x0) * low_pass(state.lr_latent[wanted] - x0[wanted])
    result = x0.clone()
    result[wanted] = projected
    return result


def noise_of(state: State, seed: int, purpose: str) -> Tensor:
    """Standard normal noise (B, C, h, w) of the decision that is made now, of an own stream for each purpose."""
    shape = tuple(state.x0.shape[1:])
    keys = zip(state.image_id.tolist(), state.rollout.tolist(), state.decisions.tolist(), strict=True)
    drawn = [
        torch.from_numpy(block_noise(shape, corner, seed, purpose, *key))
        for key, corner in zip(keys, state.origin.tolist(), strict=True)
    ]
    return torch.stack(drawn).to(state.x0)
