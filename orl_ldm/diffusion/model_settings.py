"""What an LDM's own configurations may say: the fields that are supported with some values only, and why.

Every other field of a configuration is honoured by diffusers' network itself, or read by `schedule_of`; of schedulers
the rest says how that scheduler would sample (Karras sigmas, solver orders), which is this project's own business.
"""

from collections.abc import Mapping
from typing import Any

from orl_ldm.errors import UserError

NULL_OR_FALSE = (None, False)
_NO_CLASSES = ((None,), "no class label is given to the denoiser")
_RGB = ((3,), "images are RGB")
_NO_FLOW = (NULL_OR_FALSE, "flow matching is another process than diffusion")

#: For each class of network, and for schedulers: field -> (allowed values, why others are refused).
SUPPORTED: Mapping[str, Mapping[str, tuple[tuple[Any, ...], str]]] = {
    "UNet2DModel": {
        "time_embedding_type": (("positional",), "timesteps are real numbers from 0 to T - 1"),
        "class_embed_type": _NO_CLASSES,
        "num_class_embeds": _NO_CLASSES,
    },
    "VQModel": {"in_channels": _RGB, "out_channels": _RGB},  # scaling_factor: not used by LDMs with a VQModel
    "AutoencoderKL": {
        "in_channels": _RGB,
        "out_channels": _RGB,
        "shift_factor": ((None, 0), "latents are scaled, not shifted"),
        "latents_mean": ((None,), "latents are scaled by one number"),
        "latents_std": ((None,), "latents are scaled by one number"),
    },
    "AutoencoderDC": {"in_channels": _RGB},
    "scheduler": {
        "prediction_type": (("epsilon", "v_prediction", "sample"), "the sampler supports no other"),
        "thresholding": (NULL_OR_FALSE, "dynamic thresholding is for pixels, not latents"),
        "timestep_spacing": (("leading", "trailing", "linspace"), "the sampler supports no other"),
        "timestep_type": (("discrete",), "the denoiser is given timesteps, not noise levels"),
        "variance_type": (
            (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
            "a denoiser that predicts variances has twice the channels",
        ),
        "use_flow_sigmas": _NO_FLOW,
        "use_dynamic_shifting": _NO_FLOW,
    },
}
#: Schedulers with DDPM's forward process, which DDIM can sample.
SCHEDULERS = (
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)


def check_settings(kind: str, config: Mapping[str, Any], where: str) -> None:
    """Raise UserError, naming the field and its value, when a configuration asks for what is not supported."""
    for field, (allowed, reason) in SUPPORTED[kind].items():
        if field in config and not any(config[field] == value for value in allowed):
            values = " or ".join("null" if value is None else repr(value) for value in allowed)
            raise UserError(f"{field} = {config[field]!r} of {where} is not supported ({reason}): it must be {values}")
