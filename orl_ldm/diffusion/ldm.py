"""Load a latent diffusion super-resolution model in diffusers' format, from a folder or the hub.

Legend: B batch, C latent channels, H x W image, h x w latent = LR image (f4 first stage, x4 super-resolution).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, UNet2DModel, VQModel
from safetensors import SafetensorError
from torch import Tensor

from orl_ldm.diffusion.config import LDMConfig
from orl_ldm.diffusion.schedule import NoiseSchedule, schedule_of
from orl_ldm.errors import UserError
from orl_ldm.shipped import shipped

FIRST_STAGES: dict[str, type[Any]] = {
    "VQModel": VQModel,
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderDC": AutoencoderDC,
}
#: Files of a network's weights, the preferred first.
WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class LDM:
    """A frozen LDM. Images are in [0, 1]; latents are in the denoiser's own scale; nothing needs gradients."""

    ldm_id: str
    digest: str  # SHA-256 over the weights and configurations
    unet: Any  # UNet2DModel
    first_stage: Any  # one of FIRST_STAGES
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
        """The dtype the networks run in; everything outside them is float32."""
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
        return encode(self.first_stage, image.to(self.dtype)).float() * self.latent_scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> (B, 3, H, W) float32, around [0, 1] and not clamped."""
        image = self.first_stage.decode((latents / self.latent_scale).to(self.dtype)).sample
        return (image.float() + 1) / 2  # type: ignore[no-any-return]

    @torch.no_grad()
    def denoise(self, x: Tensor, t: Tensor, lr: Tensor) -> Tensor:
        """One denoiser call (1 NFE): noisy latents (B, C, h, w), timesteps (B,), LR images (B, 3, h, w) in [0, 1]."""
        joined = torch.cat([x, lr * 2 - 1], dim=1).to(self.dtype)
        return self.unet(joined, t.float()).sample.float()  # type: ignore[no-any-return]

    @property
    def inner_width(self) -> int:
        """How many numbers `denoise_and_look` gives of an image."""
        widths = self.unet.config.block_out_channels[::-1]
        return 2 * int(widths[len(widths) // 2])

    def denoise_and_look(self, x: Tensor, t: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """`denoise`, and what its middle up block said: (B, inner_width), each channel's mean and log10 of its std.

        Inner layers of a diffusion model tell what is in an image (Baranchuk et al. 2022).
        """
        said: list[Tensor] = []
        blocks = self.unet.up_blocks

        def listen(block: torch.nn.Module, inputs: Any, output: Any) -> None:
            said.append(output if isinstance(output, Tensor) else output[0])  # blocks with skips give those as well

        hook = blocks[len(blocks) // 2].register_forward_hook(listen)
        try:
            prediction = self.denoise(x, t, lr)
        finally:
            hook.remove()
        std, mean = torch.std_mean(said[0].float(), dim=(2, 3))
        return prediction, torch.cat([mean, torch.log10(std + 1e-3)], dim=1)


def encode(first_stage: Any, image: Tensor) -> Tensor:
    """What a first stage makes of (B, 3, H, W) in [0, 1], unscaled; each of FIRST_STAGES calls it by another name."""
    encoded = first_stage.encode(image * 2 - 1)
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mean  # type: ignore[no-any-return]
    return encoded.latent if hasattr(encoded, "latent") else encoded.latents  # type: ignore[no-any-return]


def load_ldm(ldm_id: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LDM:
    """Load `embedded`, a local folder, or a hub id such as CompVis/ldm-super-resolution-4x-openimages.

    Weights are safetensors, or else PyTorch's `.bin`, of which nothing but tensors is unpickled. Raises UserError when
    the folder is missing or is not such a model.
    """
    folder = resolve(ldm_id)
    index = _json(folder / "model_index.json", ldm_id)
    names = {name: spec[1] for name, spec in index.items() if isinstance(spec, list) and len(spec) == 2 and spec[1]}
    stage_name = next((name for name, cls in names.items() if cls in FIRST_STAGES), None)
    if stage_name is None or names.get("unet") != "UNet2DModel" or "scheduler" not in names:
        raise UserError(
            f"{ldm_id!r} is not an LDM super-resolution model: model_index.json must name a UNet2DModel `unet`, "
            f"a `scheduler` and a first stage of {', '.join(FIRST_STAGES)}; it names {names}"
        )
    for part in (stage_name, "unet"):
        if not _weights(folder / part):
            raise UserError(f"{ldm_id!r} has no weights in {part}/: neither {' nor '.join(WEIGHTS)}")
    unet = _network(UNet2DModel, folder / "unet", dtype, ldm_id)
    first_stage = _network(FIRST_STAGES[names[stage_name]], folder / stage_name, dtype, ldm_id)
    return make_ldm(
        unet, first_stage, _json(folder / "scheduler" / "scheduler_config.json", ldm_id), ldm_id, digest(folder), device
    )


def _weights(part: Path) -> list[Path]:
    """A network's files of weights, of the preferred format that is there."""
    return next((found for pattern in WEIGHTS if (found := sorted(part.glob(pattern)))), [])


def _network(kind: Any, folder: Path, dtype: torch.dtype, ldm_id: str) -> Any:
    """A network with all of its weights: diffusers would draw those at random that the file lacks."""
    safe = _weights(folder)[0].suffix == ".safetensors"  # (diffusers loads others with torch's weights_only)
    load = {"torch_dtype": dtype, "use_safetensors": safe, "local_files_only": True, "low_cpu_mem_usage": False}
    try:
        network, found = kind.from_pretrained(folder, output_loading_info=True, **load)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder.name}/ of {ldm_id!r} cannot be loaded: {reason}") from error
    if lacking := [str(key) for key in (*found["missing_keys"], *found["mismatched_keys"])]:
        raise UserError(f"{folder.name}/ of {ldm_id!r} lacks {len(lacking)} of its weights, {lacking[0]} among them")
    return network


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
    """Freeze networks into an LDM. Raises UserError when the channels do not fit together."""
    channels = int(unet.config.out_channels)  # not in_channels // 2: the LR image is 3 channels, the latent may not be
    config: Any = first_stage.config
    if int(unet.config.in_channels) != channels + 3 or int(config.latent_channels) != channels:
        raise UserError(
            f"the networks of {ldm_id!r} do not fit: the denoiser takes {unet.config.in_channels} channels and gives "
            f"{channels} (it must take 3 more, the LR image), the first stage has {config.latent_channels}"
        )
    # A VQModel's LDM and the stock pipeline do not rescale latents, whatever its configuration says.
    latent_scale = 1.0 if isinstance(first_stage, VQModel) else float(config.scaling_factor)
    levels = len(config.get("decoder_block_out_channels") or config.block_out_channels)
    for network in (unet, first_stage):
        network.requires_grad_(False).eval().to(device)
    return LDM(
        ldm_id=ldm_id,
        digest=digest,
        unet=unet,
        first_stage=first_stage,
        schedule=schedule_of(scheduler_config),
        latent_channels=channels,
        scale=2 ** (levels - 1),
        latent_scale=latent_scale,
        size_multiple=2 ** (len(unet.config.block_out_channels) - 1),
    )


def scheduler_config(ldm_id: str) -> dict[str, Any]:
    """The diffusers scheduler configuration that an LDM comes with."""
    return _json(resolve(ldm_id) / "scheduler" / "scheduler_config.json", ldm_id)


def resolve(ldm_id: str) -> Path:
    """The local folder of an LDM; a hub id is downloaded into the hub's cache."""
    if ldm_id == "embedded":
        return shipped("embedded-ldm")
    folder = Path(ldm_id)
    if folder.is_dir():
        return folder
    if ldm_id.count("/") != 1 or ldm_id.startswith((".", "/", "~")):
        raise UserError(f"there is no LDM at {ldm_id!r}: give `embedded`, a folder, or a hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(ldm_id, allow_patterns=["*.json", WEIGHTS[0]]))
        older = [path.parent for path in folder.glob("*/config.json") if not _weights(path.parent)]
        if older:
            snapshot_download(ldm_id, allow_patterns=[f"{part.name}/{WEIGHTS[1]}" for part in older])
        return folder
    except Exception as error:  # many kinds of network and repository errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"could not get the LDM {ldm_id!r} from the hub (no such folder either): {reason}") from error


def digest(folder: Path) -> str:
    """SHA-256 over every configuration below the folder, and every part's weights in the format that is read."""
    whole = hashlib.sha256()
    parts = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in sorted([*folder.rglob("*.json"), *(path for part in parts for path in _weights(part))]):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _json(path: Path, ldm_id: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{ldm_id!r} is not a diffusers model: it has no {path.name}") from None
    except ValueError as error:
        raise UserError(f"{path.name} of {ldm_id!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name} of {ldm_id!r} is no JSON object")
    return content
