"""The noise schedule at real-valued timesteps, one per image.

| here            | DDIM paper (Song et al. 2021) | diffusers                 |
|-----------------|-------------------------------|---------------------------|
| alpha_bar       | alpha_t                       | alphas_cumprod            |
| t, t_next       | tau_i, tau_{i-1}              | timestep, prev_timestep   |
| x, x0, eps      | x_t, predicted x_0, eps_theta | sample, pred_original_sample, pred_epsilon |

Legend: B batch. Timesteps are float tensors (B,) in [0, T - 1]; a negative timestep means "no noise left".
Schedules are computed in float64 where the timesteps are. Keep these on the CPU: some devices (MPS) have no float64.
`per_image` brings the results to the latents' device and dtype.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from orl_ldm.diffusion.model_settings import SCHEDULERS, check_settings
from orl_ldm.errors import UserError

PredictionType = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]
LEAST_ALPHA = 2.0**-24  # keeps log-SNR finite where a schedule leaves no signal, as diffusers' Euler does


@dataclass(frozen=True)
class NoiseSchedule:
    """What the sampler needs of a diffusers scheduler configuration."""

    alphas_cumprod: Tensor  # (T,) float64
    final_alpha_cumprod: float  # alpha_bar once the last step is done
    prediction_type: PredictionType
    clip_sample_range: float | None  # x0 is clamped to [-range, range], or not at all
    steps_offset: int
    timestep_spacing: Spacing

    @property
    def num_train_timesteps(self) -> int:
        """T."""
        return len(self.alphas_cumprod)

    def alpha_bar(self, t: Tensor) -> Tensor:
        """alpha_bar (B,) float64 at real timesteps, linear between the integers; final_alpha_cumprod where t < 0."""
        table = self.alphas_cumprod.to(t.device)
        position = t.double().clamp(0, len(table) - 1)
        below = position.floor().long()
        above = (below + 1).clamp(max=len(table) - 1)
        value = table[below] + (position - below) * (table[above] - table[below])
        return torch.where(t < 0, torch.full_like(value, self.final_alpha_cumprod), value)

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha_bar / (1 - alpha_bar)), (B,) float64, finite: between -16.6 and 16.6."""
        alpha = self.alpha_bar(t).clamp(LEAST_ALPHA, 1 - LEAST_ALPHA)
        return torch.log(alpha) - torch.log1p(-alpha)

    def grid(self, steps: int, spacing: Spacing | None = None) -> list[int]:
        """A uniform grid of `steps` timesteps, descending, as diffusers makes it.

        "leading" is DDIM's own; "trailing" and "linspace" always begin at T - 1, which few steps need (Lin et al.
        2024). Without `spacing` it is the model's own.
        """
        total = self.num_train_timesteps
        if not 1 <= steps <= total:
            raise UserError(f"{steps} DDIM steps do not fit into {total} training timesteps")
        match spacing or self.timestep_spacing:
            case "trailing":
                return [round(total - i * total / steps) - 1 for i in range(steps)]
            case "linspace":
                return [int(t) for t in np.linspace(0, total - 1, steps).round()[::-1]]
            case "leading":
                return [i * (total // steps) + self.steps_offset for i in reversed(range(steps))]


def schedule_of(config: Mapping[str, Any], where: str = "the scheduler") -> NoiseSchedule:
    """The schedule of a diffusers scheduler configuration: of any scheduler that DDIM can stand in for.

    What the configuration leaves out has the default of its own scheduler, not of DDIM. Raises UserError naming the
    field that is not supported.
    """
    name = config.get("_class_name") or "DDIMScheduler"
    if name not in SCHEDULERS:
        raise UserError(f"{where} is a {name}, which is not supported: it must be one of {', '.join(SCHEDULERS)}")
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    own = {key: p.default for key, p in signature(getattr(diffusers, name)).parameters.items()}
    full: dict[str, Any] = (
        {"clip_sample": False, "timestep_spacing": "leading"} | own | given
    )  # (only some schedulers clip)
    check_settings("scheduler", full, where)
    fields = [key for key in signature(DDIMScheduler).parameters if key in full]
    try:
        scheduler = DDIMScheduler(**{key: full[key] for key in fields})
        table = scheduler.alphas_cumprod.double()
        final, offset = float(scheduler.final_alpha_cumprod), int(scheduler.config.steps_offset)
        clip = float(scheduler.config.clip_sample_range) if scheduler.config.clip_sample else None
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{where} has no noise schedule: {str(error).splitlines()[0]}") from error
    if not (len(table) and table.isfinite().all() and table.min() >= 0 and table.max() < 1):
        raise UserError(f"{where} has no noise schedule: its betas must be above 0 and at most 1")
    if full["prediction_type"] == "epsilon" and table.min() == 0:
        cause = "rescale_betas_zero_snr = True" if full.get("rescale_betas_zero_snr") else "a beta of 1"
        raise UserError(
            f"{cause} of {where} leaves no signal at the last timestep, where prediction_type 'epsilon' says nothing "
            "about the image: it must be v_prediction or sample"
        )
    return NoiseSchedule(table, final, full["prediction_type"], clip, offset, full["timestep_spacing"])


def per_image(value: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1) in like's dtype and on its device, to scale a batch of latents."""
    return value.to(like.dtype).to(like.device)[:, None, None, None]


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """q(x_t | x_0): sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise, with alpha_bar (B,)."""
    return per_image(alpha_bar.sqrt(), x0) * x0 + per_image((1 - alpha_bar).sqrt(), x0) * noise


def training_target(x0: Tensor, noise: Tensor, alpha_bar: Tensor, kind: PredictionType) -> Tensor:
    """What the denoiser is trained to predict."""
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return x0
    return per_image(alpha_bar.sqrt(), x0) * noise - per_image((1 - alpha_bar).sqrt(), x0) * x0


def to_x0_and_eps(x: Tensor, prediction: Tensor, alpha_bar: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """(x0-hat, eps-hat) of one denoiser output, each (B, C, h, w)."""
    a, s = per_image(alpha_bar.sqrt(), x), per_image((1 - alpha_bar).sqrt(), x)
    if schedule.prediction_type == "epsilon":
        x0, eps = (x - s * prediction) / a, prediction
    elif schedule.prediction_type == "sample":
        x0, eps = prediction, (x - a * prediction) / s
    else:
        x0, eps = a * x - s * prediction, a * prediction + s * x
    if schedule.clip_sample_range is not None:
        x0 = x0.clamp(-schedule.clip_sample_range, schedule.clip_sample_range)
    return x0, eps
