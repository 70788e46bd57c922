"""Load a latent diffusion super-resolution model in diffusers' format, from a folder or the hub.

Legend: B batch, C latent channels, H x W image, h x w latent = LR image (f4 first stage, x4 super-resolution).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from torch import Tensor

from orl_ldm.diffusion.config import LDMConfig
from orl_ldm.diffusion.model_files import Weights, model_files
from orl_ldm.diffusion.model_settings import check_settings
from orl_ldm.diffusion.schedule import NoiseSchedule, schedule_of
from orl_ldm.errors import UserError

SMALLEST_TRIAL = 8  # LR pixels


@dataclass(frozen=True)
class LDM:
    """A frozen LDM. Images are in [0, 1]; latents are in the denoiser's own scale; nothing needs gradients.

    Its methods run in the networks' dtypes, whatever autocast or default dtype the caller has set.
    """

    ldm_id: str
    digest: str  # SHA-256 over the files that were loaded
    unet: Any  # UNet2DModel
    first_stage: Any  # VQModel, AutoencoderKL or AutoencoderDC
    schedule: NoiseSchedule
    latent_channels: int
    scale: int  # image size / latent size
    latent_scale: float  # latent = encoder output * latent_scale
    size_multiple: int  # LR height and width must be multiples of this

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        device: torch.device = next(self.unet.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the denoiser runs in; everything outside the networks is float32."""
        dtype: torch.dtype = next(self.unet.parameters()).dtype
        return dtype

    def require(self, size: int, scale: int) -> None:
        """Raise UserError unless HR images of `size` pixels, down-scaled by `scale`, suit this model."""
        if scale != self.scale:
            raise UserError(
                f"data.scale is {scale}, but {self.ldm_id!r} is a x{self.scale} model: set it to {self.scale}"
            )
        if size % (self.scale * self.size_multiple):
            raise UserError(
                f"data.size is {size}, but {self.ldm_id!r} takes multiples of {self.scale * self.size_multiple} pixels"
            )

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of images of this size."""
        return self.latent_channels, height // self.scale, width // self.scale

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> latents (B, C, h, w) float32; the mean of a Gaussian posterior, no quantisation."""
        with self._own_precision():
            return encode(self.first_stage, image.to(self.first_stage.dtype)).float() * self.latent_scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> (B, 3, H, W) float32, around [0, 1] and not clamped."""
        with self._own_precision():
            image = self.first_stage.decode((latents / self.latent_scale).to(self.first_stage.dtype)).sample
        return (image.float() + 1) / 2  # type: ignore[no-any-return]

    @torch.no_grad()
    def denoise(self, x: Tensor, t: Tensor, lr: Tensor) -> Tensor:
        """One denoiser call (1 NFE): noisy latents (B, C, h, w), timesteps (B,), LR images (B, 3, h, w) in [0, 1]."""
        joined = torch.cat([x, lr * 2 - 1], dim=1).to(self.dtype)
        with self._own_precision():
            return self.unet(joined, t.float().to(joined.device)).sample.float()  # type: ignore[no-any-return]

    @property
    def feature_width(self) -> int:
        """How many features `denoise_with_features` gives of an image."""
        widths = self.unet.config.block_out_channels[::-1]
        return 2 * int(widths[len(widths) // 2])

    def denoise_with_features(self, x: Tensor, t: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """`denoise`, and features (B, feature_width): mean and log10 of the std of each channel of the middle up block.

        Inner layers of a diffusion model tell what is in an image (Baranchuk et al. 2022).
        """
        outputs: list[Tensor] = []
        blocks = self.unet.up_blocks

        def keep(block: torch.nn.Module, inputs: Any, output: Any) -> None:
            outputs.append(output if isinstance(output, Tensor) else output[0])  # (features, skip connections)

        hook = blocks[len(blocks) // 2].register_forward_hook(keep)
        try:
            prediction = self.denoise(x, t, lr)
        finally:
            hook.remove()
        std, mean = torch.std_mean(outputs[0].float(), dim=(2, 3))
        return prediction, torch.cat([mean, torch.log10(std + 1e-3)], dim=1)

    def _own_precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, enabled=False)


def encode(first_stage: Any, image: Tensor) -> Tensor:
    """The unscaled latents (B, C, h, w) of images (B, 3, H, W) in [0, 1]."""
    encoded = first_stage.encode(image * 2 - 1)
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mean  # type: ignore[no-any-return]
    return encoded.latent if hasattr(encoded, "latent") else encoded.latents  # type: ignore[no-any-return]


def load_ldm(ldm_id: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LDM:
    """Load `embedded`, a local folder, or a hub id such as CompVis/ldm-super-resolution-4x-openimages.

    Weights are safetensors, or else PyTorch's `.bin`, of which only tensors are unpickled. A first stage with
    `force_upcast` runs in float32 where `dtype` is float16. Raises UserError when the folder is missing, is not such a
    model, or has settings that are not supported.
    """
    files = model_files(ldm_id)
    for part, kind in (("unet", "UNet2DModel"), (files.stage, files.stage_class)):
        check_settings(kind, files.configs[part], f"{part}/ of {ldm_id!r}")
    upcast = files.configs[files.stage].get("force_upcast", files.stage_class == "AutoencoderKL")
    stage_dtype = torch.float32 if upcast and dtype == torch.float16 else dtype
    unet = _network("UNet2DModel", files.folder / "unet", files.weights["unet"], dtype, ldm_id)
    first_stage = _network(
        files.stage_class, files.folder / files.stage, files.weights[files.stage], stage_dtype, ldm_id
    )
    ldm = make_ldm(unet, first_stage, files.scheduler, ldm_id, files.digest, device)
    _try_out(ldm)
    return ldm


def _network(kind: str, folder: Path, weights: Weights, dtype: torch.dtype, ldm_id: str) -> Any:
    """A network with all of its weights: diffusers would draw those at random that the file lacks."""
    options = {
        "torch_dtype": dtype,
        "variant": weights.variant,
        "use_safetensors": weights.format == "safetensors",  # (diffusers loads others with torch's weights_only)
        "local_files_only": True,
        "low_cpu_mem_usage": False,
    }
    try:
        network, found = getattr(diffusers, kind).from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder.name}/ of {ldm_id!r} cannot be loaded: {reason}") from error
    if lacking := [str(key) for key in (*found["missing_keys"], *found["mismatched_keys"])]:
        raise UserError(f"{folder.name}/ of {ldm_id!r} lacks {len(lacking)} of its weights, {lacking[0]} among them")
    return network


def _try_out(ldm: LDM) -> None:
    """Call every network once, on a small image. Raises UserError when one fails or gives another size."""
    side = max(SMALLEST_TRIAL, ldm.size_multiple)
    lr = torch.zeros(1, 3, side, side, dtype=torch.float32, device=ldm.device)
    t = torch.full((1,), ldm.schedule.num_train_timesteps - 1.0, dtype=torch.float32)
    try:
        latents = ldm.encode(lr.repeat(1, 1, ldm.scale, ldm.scale))
        prediction, _ = ldm.denoise_with_features(latents, t, lr)
        image = ldm.decode(latents)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the networks of {ldm.ldm_id!r} load, but fail when they are called: {reason}") from error
    expected = (1, *ldm.latent_shape(side * ldm.scale, side * ldm.scale)), (1, 3, side * ldm.scale, side * ldm.scale)
    if (latents.shape, image.shape) != expected or prediction.shape != latents.shape:
        raise UserError(
            f"the networks of {ldm.ldm_id!r} do not fit: of {expected[1]} pixels they make latents "
            f"{tuple(latents.shape)}, predictions {tuple(prediction.shape)} and images {tuple(image.shape)}"
        )


def open_ldm(config: LDMConfig) -> LDM:
    """`load_ldm` as a pipeline says. Raises UserError for a device that is not there."""
    name = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"ldm.device {name!r} is not usable here: {str(error).splitlines()[0]}") from None
    return load_ldm(config.id, device, getattr(torch, config.dtype))


def make_ldm(
    unet: Any,
    first_stage: Any,
    scheduler_config: dict[str, Any],
    ldm_id: str,
    digest: str,
    device: torch.device | str = "cpu",
) -> LDM:
    """Freeze networks into an LDM. Raises UserError when they do not fit, or the schedule is not supported."""
    config: Any = first_stage.config
    channels = int(unet.config.out_channels)  # not in_channels // 2: the LR image is 3 channels, the latent may not be
    latent_channels = int(config.get("vq_embed_dim") or config.latent_channels)
    if int(unet.config.in_channels) != channels + 3 or latent_channels != channels:
        raise UserError(
            f"the networks of {ldm_id!r} do not fit: the denoiser takes {unet.config.in_channels} channels and gives "
            f"{channels} (it must take 3 more, the LR image), the first stage has {latent_channels}"
        )
    # A VQModel's LDM and the stock pipeline do not rescale latents, whatever its configuration says.
    latent_scale = 1.0 if type(first_stage).__name__ == "VQModel" else config.scaling_factor
    if not (isinstance(latent_scale, int | float) and isfinite(latent_scale) and latent_scale > 0):
        raise UserError(f"scaling_factor = {latent_scale!r} of the first stage of {ldm_id!r} must be a positive number")
    levels = len(config.get("decoder_block_out_channels") or config.block_out_channels)
    for network in (unet, first_stage):
        network.requires_grad_(False).eval().to(device)
    return LDM(
        ldm_id=ldm_id,
        digest=digest,
        unet=unet,
        first_stage=first_stage,
        schedule=schedule_of(scheduler_config, f"the scheduler of {ldm_id!r}"),
        latent_channels=channels,
        scale=2 ** (levels - 1),
        latent_scale=float(latent_scale),
        size_multiple=2 ** (len(unet.config.block_out_channels) - 1),
    )
