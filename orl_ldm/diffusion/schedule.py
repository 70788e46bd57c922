"""The noise schedule at real-valued timesteps, one per image.

| here            | DDIM paper (Song et al. 2021) | diffusers                 |
|-----------------|-------------------------------|---------------------------|
| alpha_bar       | alpha_t                       | alphas_cumprod            |
| t, t_next       | tau_i, tau_{i-1}              | timestep, prev_timestep   |
| x, x0, eps      | x_t, predicted x_0, eps_theta | sample, pred_original_sample, pred_epsilon |

Legend: B batch. Timesteps are float tensors (B,) in [0, T - 1]; a negative timestep means "no noise left".
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from orl_ldm.errors import UserError

PredictionType = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True)
class NoiseSchedule:
    """What the sampler needs of a diffusers scheduler configuration."""

    alphas_cumprod: Tensor  # (T,) float64
    final_alpha_cumprod: float  # alpha_bar once the last step is done
    prediction_type: PredictionType
    clip_sample_range: float | None  # x0 is clamped to [-range, range], or not at all
    steps_offset: int

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
        """log(alpha_bar / (1 - alpha_bar)), (B,) float64."""
        alpha = self.alpha_bar(t)
        return torch.log(alpha) - torch.log1p(-alpha)

    def grid(self, steps: int, spacing: Literal["leading", "trailing"] = "leading") -> list[int]:
        """DDIM's uniform grid of `steps` timesteps, descending, as diffusers makes it.

        "leading" is DDIM's own; "trailing" always begins at T - 1, which few steps need (Lin et al. 2024).
        """
        total = self.num_train_timesteps
        if not 1 <= steps <= total:
            raise UserError(f"{steps} DDIM steps do not fit into {total} training timesteps")
        if spacing == "trailing":
            return [round(total - i * total / steps) - 1 for i in range(steps)]
        return [i * (total // steps) + self.steps_offset for i in reversed(range(steps))]


def schedule_of(config: dict[str, Any]) -> NoiseSchedule:
    """The schedule of a diffusers scheduler configuration (any scheduler that DDIM can stand in for)."""
    scheduler = DDIMScheduler.from_config(config)
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction", "sample"):
        raise UserError(f"prediction type {kind!r} is not supported: it must be epsilon, v_prediction or sample")
    if scheduler.config.thresholding:
        raise UserError("schedulers with dynamic thresholding are not supported: set thresholding to false")
    return NoiseSchedule(
        alphas_cumprod=scheduler.alphas_cumprod.double(),
        final_alpha_cumprod=float(scheduler.final_alpha_cumprod),
        prediction_type=kind,
        clip_sample_range=float(scheduler.config.clip_sample_range) if scheduler.config.clip_sample else None,
        steps_offset=int(scheduler.config.steps_offset),
    )


def per_image(value: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1) in like's dtype, to scale a batch of latents."""
    return value.to(like.dtype)[:, None, None, None]


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
