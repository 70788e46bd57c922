"""Steer a frozen latent diffusion model for aerial super-resolution by offline reinforcement learning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orl_ldm.steer.door import SteeredSR as SteeredSR
    from orl_ldm.steer.pipeline import SteeredSRPipeline as SteeredSRPipeline
    from orl_ldm.upscale.api import upscale_file as upscale_file

#: Public names and where they are: imported when they are asked for, since learning needs none of their libraries.
_PLACES = {
    "SteeredSR": "orl_ldm.steer.door",
    "SteeredSRPipeline": "orl_ldm.steer.pipeline",
    "upscale_file": "orl_ldm.upscale.api",
}

__all__ = ["SteeredSR", "SteeredSRPipeline", "upscale_file"]


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
