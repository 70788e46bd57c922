"""Steer a frozen latent diffusion model for aerial super-resolution by offline reinforcement learning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orl_ldm.steer.door import SteeredSR as SteeredSR

__all__ = ["SteeredSR"]


def __getattr__(name: str) -> Any:
    """Import the door when it is asked for: learning needs none of its libraries."""
    if name == "SteeredSR":
        from orl_ldm.steer.door import SteeredSR

        return SteeredSR
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
