"""SteeredSR with the interface of diffusers' LDMSuperResolutionPipeline.

pipe = SteeredSRPipeline.from_pretrained("embedded").to("cuda")
image = pipe(low_res_image, generator=torch.Generator().manual_seed(0)).images[0]
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.images.resample import to_pixels, to_tensor
from orl_ldm.steer.door import SteeredSR

Images = Image.Image | Tensor | Sequence[Image.Image]


@dataclass(frozen=True)
class PipelineOutput:
    """`images`: a list of PIL images, an array (B, H, W, 3) or a tensor (B, 3, H, W), floats in [0, 1]."""

    images: Any


class SteeredSRPipeline:
    """Super-resolve images four times. The policy decides how many steps are made."""

    def __init__(self, steered: SteeredSR) -> None:
        self.steered = steered

    @classmethod
    def from_pretrained(cls, ldm: str = "embedded", policy: str = "embedded", **options: Any) -> "SteeredSRPipeline":
        """Load an LDM (`embedded`, a folder or a hub id) and a policy; `options` as SteeredSR.load takes them."""
        return cls(SteeredSR.load(policy, ldm, device=options.pop("device", "cpu"), **options))

    def to(self, device: str | torch.device) -> "SteeredSRPipeline":
        """Move the networks."""
        self.steered.ldm.unet.to(device)
        self.steered.ldm.first_stage.to(device)
        return self

    def __call__(
        self,
        image: Images,
        *,
        num_inference_steps: int | None = None,
        generator: torch.Generator | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
    ) -> PipelineOutput:
        """Images are PIL's, or tensors (B, 3, h, w) or (3, h, w) of floats in [0, 1] (not in [-1, 1]).

        `generator` gives the seed. Raises UserError for images that cannot be used.
        """
        if num_inference_steps is not None:
            warnings.warn("the policy decides how many steps are made: num_inference_steps is not used", stacklevel=2)
        if output_type not in ("pil", "np", "pt"):
            raise UserError(f"output_type {output_type!r}: give pil, np or pt")
        seed = None if generator is None else generator.initial_seed() % 2**32
        if isinstance(image, Tensor):
            made = self.steered(image if image.ndim == 4 else image[None], seed=seed)
        else:
            several = [image] if isinstance(image, Image.Image) else list(image)
            if not several or not all(isinstance(one, Image.Image) for one in several):
                raise UserError("give a PIL image, a list of them, or a tensor (B, 3, h, w)")
            pixels = [to_tensor(np.asarray(one.convert("RGB"))) for one in several]
            if len({one.shape for one in pixels}) > 1:
                raise UserError("images of one call must have one size")
            made = self.steered(torch.stack(pixels), seed=seed)
        if output_type == "pt":
            return PipelineOutput(made)
        if output_type == "np":
            return PipelineOutput(made.permute(0, 2, 3, 1).numpy())
        return PipelineOutput([Image.fromarray(to_pixels(one)) for one in made])
