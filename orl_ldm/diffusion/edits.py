"""What actions do to the estimate x0: one pure function an action, under its name in orl_ldm.actions.

Legend: B images, C latent channels, h x w latent. Values are (B, 1, 1, 1), or maps (B, 1, h, w).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: (x0, lr_latent, value, noise) -> x0; `noise()` draws standard normal noise (B, C, h, w) of the action's own stream.
Edit = Callable[[Tensor, Tensor, Tensor, Callable[[], Tensor]], Tensor]


def detail(x0: Tensor, lr_latent: Tensor, gain: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    """Multiply what x0 adds to the encoded bicubic upscale."""
    return lr_latent + gain * (x0 - lr_latent)


def grain(x0: Tensor, lr_latent: Tensor, amount: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    """Add fresh high frequencies, as a multiple of the local strength of what x0 adds to the upscale.

    Film grain synthesis (Norkin and Birkbeck 2018) on a latent: an estimate from few calls is a mean and lacks texture.
    """
    strength = low_pass((x0 - lr_latent).square().mean(dim=1, keepdim=True)).sqrt()  # (B, 1, h, w)
    drawn = noise()
    return x0 + amount * strength * (drawn - low_pass(drawn))


#: Edits in the order in which they are applied. Actions that are not here steer the step itself.
EDITS: dict[str, Edit] = {"detail": detail, "grain": grain}


def low_pass(x: Tensor) -> Tensor:
    """5 x 5 binomial blur of (B, C, h, w), edges repeated."""
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device, dtype=x.dtype) / 16
    channels = x.shape[1]
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, 5).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(rows, kernel.view(1, 1, 5, 1).repeat(channels, 1, 1, 1), groups=channels)
