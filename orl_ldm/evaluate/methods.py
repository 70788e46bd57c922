"""The methods of a comparison, each from a batch of pairs to images and their cost."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.projection import back_project
from orl_ldm.diffusion.sampler import Controller, ddim_controller, sample
from orl_ldm.env.rollout import roll_out
from orl_ldm.env.spaces import executed
from orl_ldm.errors import UserError
from orl_ldm.images.pairs import Batch
from orl_ldm.images.resample import lanczos_upscale, to_8bit, upscale
from orl_ldm.policy import Policy
from orl_ldm.streams import block_noise


@dataclass(frozen=True)
class Outcome:
    """B images (B, 3, H, W) at 8-bit levels in [0, 1], denoiser calls (B,), and the decisions (N, 8) if there are any.

    Decision rows: slot, decision number, t before it (share of T), step, eta, detail, fidelity, grain.
    """

    images: Tensor
    nfe: npt.NDArray[np.int64]
    decisions: npt.NDArray[np.float32] | None = None


Run = Callable[[Batch], Outcome]


@dataclass(frozen=True)
class Method:
    """A named method; `key` says everything that its results depend on, beside the images.

    A method with a `base` is that method's output projected onto the LR image: it is not sampled again.
    """

    name: str
    key: str
    run: Run
    base: "Method | None" = None


def free(name: str, function: Callable[[Batch], Tensor]) -> Method:
    """A method without denoiser calls."""

    def run(batch: Batch) -> Outcome:
        return Outcome(to_8bit(function(batch)), np.zeros(len(batch.refs), dtype=np.int64))

    return Method(name, name, run)


def interpolations(ldm: LDM) -> list[Method]:
    """Bicubic, Lanczos, bicubic with back-projection, and the autoencoder's ceiling."""

    return [
        free("bicubic", lambda batch: upscale(batch.lr, ldm.scale)),
        free("Lanczos", lambda batch: lanczos_upscale(batch.lr, ldm.scale)),
        free("bicubic + projection", lambda batch: projected(upscale(batch.lr, ldm.scale), batch)),
        free("autoencoder ceiling", lambda batch: ldm.decode(ldm.encode(batch.hr.to(ldm.device))).cpu()),
    ]


def steered_by(
    ldm: LDM, name: str, key: str, controller: Controller, config: SamplerConfig, seed: int, from_noise: bool = False
) -> Method:
    """The sampler under a fixed controller."""

    def run(batch: Batch) -> Outcome:
        ids = [ref.image_id for ref in batch.refs]
        result = sample(ldm, batch.lr, ids, [0] * len(ids), controller, config, seed, from_noise)
        return Outcome(result.images, result.nfe.cpu().numpy())

    return Method(name, key, run)


def ldm_alone(ldm: LDM, grid: Sequence[int], eta: float, name: str, seed: int) -> Method:
    """Plain DDIM from pure noise on a grid of timesteps."""
    config = SamplerConfig(nfe_max=len(grid), t_floor=0.0)
    return steered_by(ldm, name, f"ddim/{list(grid)}/{eta}/{seed}", ddim_controller(grid, eta), config, seed, True)


def with_projection(method: Method) -> Method:
    """The same output, projected onto the LR image at the end: what the projection gives by itself."""

    def run(batch: Batch) -> Outcome:
        outcome = method.run(batch)
        return Outcome(projected(outcome.images, batch), outcome.nfe)

    return Method(f"{method.name} + projection", f"{method.key}/projected", run, method)


def projected(images: Tensor, batch: Batch) -> Tensor:
    """Images (B, 3, H, W) at 8-bit levels, back-projected at full strength, at 8-bit levels."""
    lr = batch.lr.to(images.device)
    return to_8bit(back_project(images, lr, torch.ones(len(lr), device=lr.device)))


def dpm_solver(ldm: LDM, scheduler_config: dict[str, object], steps: int, seed: int) -> Method:
    """diffusers' DPM-Solver++ (Lu et al. 2022), second order, on the same denoiser."""

    @torch.no_grad()
    def run(batch: Batch) -> Outcome:
        scheduler = DPMSolverMultistepScheduler.from_config(scheduler_config, algorithm_type="dpmsolver++")
        scheduler.set_timesteps(steps)
        lr = batch.lr.to(ldm.device)
        shape = (ldm.latent_channels, *lr.shape[-2:])
        noise = [torch.from_numpy(block_noise(shape, (0, 0), seed, "noise", ref.image_id, 0, 0)) for ref in batch.refs]
        x = torch.stack(noise).to(ldm.device)
        for t in scheduler.timesteps:
            times = t.to(ldm.device).expand(len(x))
            x = scheduler.step(ldm.denoise(x, times, lr), t, x).prev_sample
        return Outcome(to_8bit(ldm.decode(x)), np.full(len(x), steps, dtype=np.int64))

    return Method(f"LDM, DPM-Solver++ {steps}", f"dpm/{steps}/{seed}", run)


def steered(ldm: LDM, policy: Policy, key: str, config: SamplerConfig, seed: int) -> Method:
    """The learned policy's mean action."""

    def run(batch: Batch) -> Outcome:
        ids = [ref.image_id for ref in batch.refs]
        rollout = roll_out(ldm, policy, batch.lr, ids, [0] * len(ids), config, seed, explore=False)
        number = np.concatenate([np.arange(n) for n in np.bincount(rollout.slot, minlength=len(ids))])
        actions = executed(torch.from_numpy(rollout.actions)).numpy()
        columns = [rollout.slot, number, rollout.observations[:, 0], *actions.T]
        return Outcome(rollout.images, rollout.nfe, np.column_stack(columns).astype(np.float32))

    return Method("steered", f"steered/{key}/{seed}", run)


def network(path: str, scale: int, device: torch.device) -> Method:
    """Any single-image super-resolution network that spandrel loads."""
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError:
        raise UserError("evaluate.spandrel needs the extra: pip install -e '.[spandrel]'") from None
    try:
        model = ModelLoader(device=device).load_from_file(path)
    except FileNotFoundError:
        raise UserError(f"there is no network at {path!r} (evaluate.spandrel)") from None
    except Exception as error:  # whatever a foreign file provokes
        raise UserError(f"spandrel could not load {path!r}: {str(error).splitlines()[0]}") from error
    if not isinstance(model, ImageModelDescriptor) or model.scale != scale:
        raise UserError(f"{path!r} is not a x{scale} single-image network")
    model.to(device).float().eval()

    def apply(model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(lr[None].to(device)).cpu() for lr in batch.lr])

    weights = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return replace(free(Path(path).stem, partial(apply, model)), key=f"network/{weights}")


def timed(method: Method, batch: Batch) -> tuple[Outcome, float]:
    """(outcome, seconds per image)."""
    started = time.perf_counter()
    outcome = method.run(batch)
    return outcome, (time.perf_counter() - started) / len(batch.refs)
