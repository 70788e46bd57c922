"""From high to low resolution as images come: blur, a sensor's pixel, noise, JPEG.

A degradation is written as parts joined by `+`, applied from left to right; exactly one of them resamples:

    bicubic                                     antialiased bicubic, clean
    blur=1.6+bicubic                            Gaussian blur of 1.6 HR pixels first
    mtf=0.3..0.7+shift=0.5+box+noise=0.01       `low..high` draws a strength for each image
    0.4 bicubic | 0.6 bicubic+jpeg=40..95       a mixture: each image draws one of the recipes by weight

PRESETS gives names to such texts, and names can stand inside of texts. Every draw comes from the image's own stream, a
function of (seed, image id). The result is clamped and has 8-bit levels.

Legend: H x W image, h x w LR image. Images are float tensors (3, H, W) in [0, 1].
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from orl_ldm.images.resample import downscale, to_8bit, to_pixels, to_tensor
from orl_ldm.streams import stream

#: Degradations with a name.
PRESETS: dict[str, str] = {
    "blur": "blur=1.6+bicubic",
    "noise": "bicubic+noise=0.02",
    "jpeg75": "bicubic+jpeg=75",
    "jpeg40": "bicubic+jpeg=40",
    "sensor": "mtf=0.3..0.8+shift=0.5+box+shot=0..0.02+noise=0.002..0.01",
    "jpeg": "resample+jpeg=40..95",
    "bsrgan_light": "anisotropic=0.1..2.4+bicubic+noise=0.004..0.04+jpeg=60..95",
    "mixed": (
        "0.4 bicubic | 0.12 blur=0.4..2.4+bicubic | 0.12 box | 0.12 bicubic+noise=0.003..0.04 | 0.12 jpeg "
        "| 0.06 sensor | 0.06 anisotropic=0.2..2+resample+noise=0.002..0.03+jpeg=50..95"
    ),
}


def low_resolution(hr: Tensor, scale: int, degradation: str = "bicubic", seed: int = 0, image_id: int = 0) -> Tensor:
    """LR image (3, H/scale, W/scale), 8-bit levels in [0, 1], of one HR image (3, H, W).

    Raises ValueError for a degradation that cannot be read.
    """
    mixture = read(degradation)
    x, rng = hr, stream(seed, "degrade", image_id)
    chosen = rng.choice(len(mixture), p=[recipe.weight for recipe in mixture]) if len(mixture) > 1 else 0
    for part in mixture[chosen].parts:
        strength = float(rng.uniform(part.low, part.high))
        x = KERNELS[part.name](x, scale, rng) if part.name in KERNELS else EDITS[part.name](x, strength, scale, rng)
    return to_8bit(x)


# ---- parts ---------------------------------------------------------------------------------------------------------


def blur(x: Tensor, sigma: float, scale: int, rng: np.random.Generator) -> Tensor:
    """Gaussian blur of `sigma` pixels."""
    return _gaussian(x, sigma, sigma, 0.0)


def anisotropic(x: Tensor, sigma: float, scale: int, rng: np.random.Generator) -> Tensor:
    """Gaussian blur of `sigma` pixels along a random direction and of a random share of it across."""
    return _gaussian(x, sigma, sigma * rng.uniform(0.2, 1), rng.uniform(0, math.pi))


def mtf(x: Tensor, contrast: float, scale: int, rng: np.random.Generator) -> Tensor:
    """A sensor's optics: the Gaussian blur that leaves this contrast, in (0, 1], at the LR grid's Nyquist frequency."""
    sigma = scale * math.sqrt(-2 * math.log(contrast)) / math.pi  # from exp(-2 (pi sigma f)^2) at f = 1 / (2 scale)
    return _gaussian(x, sigma, sigma, 0.0)


def shift(x: Tensor, pixels: float, scale: int, rng: np.random.Generator) -> Tensor:
    """A sub-pixel shift, drawn for each axis from [-pixels, pixels]."""
    dy, dx = rng.uniform(-pixels, pixels, size=2)
    height, width = x.shape[-2:]
    theta = x.new_tensor([[[1, 0, 2 * dx / width], [0, 1, 2 * dy / height]]])
    grid = F.affine_grid(theta, [1, 3, height, width], align_corners=False)
    return F.grid_sample(x[None], grid, "bicubic", "reflection", align_corners=False)[0]


def noise(x: Tensor, std: float, scale: int, rng: np.random.Generator) -> Tensor:
    """Gaussian noise, the same everywhere (a sensor's read noise)."""
    return x + std * torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32)).to(x)


def shot(x: Tensor, std: float, scale: int, rng: np.random.Generator) -> Tensor:
    """Noise that grows with the square root of the brightness (Poisson, as a Gaussian); `std` at white."""
    return x + x.clamp(min=0).sqrt() * std * torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32)).to(
        x
    )


def jpeg(x: Tensor, quality: float, scale: int, rng: np.random.Generator) -> Tensor:
    """Through JPEG at `quality`, 1 to 100."""
    encoded = io.BytesIO()
    Image.fromarray(to_pixels(x)).save(encoded, "JPEG", quality=round(quality))
    return to_tensor(np.asarray(Image.open(encoded).convert("RGB"))).to(x)


def _gaussian(x: Tensor, along: float, across: float, angle: float) -> Tensor:
    """Convolve with a Gaussian of two standard deviations, reflecting at the borders."""
    radius = min(math.ceil(3 * max(along, across)), min(x.shape[-2:]) - 1)
    if radius < 1:
        return x
    offset = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    v, u = torch.meshgrid(offset, offset, indexing="ij")
    a, b = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
    kernel = torch.exp(-0.5 * ((a / max(along, 1e-3)).square() + (b / max(across, 1e-3)).square()))
    padded = F.pad(x[:, None], (radius,) * 4, mode="reflect")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None])[:, 0]


def _bicubic(x: Tensor, scale: int, rng: np.random.Generator) -> Tensor:
    return downscale(x[None], scale)[0]


def _box(x: Tensor, scale: int, rng: np.random.Generator) -> Tensor:
    return F.avg_pool2d(x, scale)


def _bilinear(x: Tensor, scale: int, rng: np.random.Generator) -> Tensor:
    size = [side // scale for side in x.shape[-2:]]
    return F.interpolate(x[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def _any(x: Tensor, scale: int, rng: np.random.Generator) -> Tensor:
    return (_bicubic, _box, _bilinear)[rng.integers(3)](x, scale, rng)


#: Parts that resample: antialiased bicubic or bilinear, the mean over a pixel, or one of the three at random.
KERNELS: dict[str, Callable[[Tensor, int, np.random.Generator], Tensor]] = {
    "bicubic": _bicubic,
    "box": _box,
    "bilinear": _bilinear,
    "resample": _any,
}

#: Parts that keep the size: (image, strength, scale, stream) -> image.
EDITS: dict[str, Callable[[Tensor, float, int, np.random.Generator], Tensor]] = {
    "blur": blur,
    "anisotropic": anisotropic,
    "mtf": mtf,
    "shift": shift,
    "noise": noise,
    "shot": shot,
    "jpeg": jpeg,
}

#: The strengths that an edit takes.
LIMITS = {"mtf": (1e-3, 1.0), "jpeg": (1.0, 100.0), "noise": (0.0, 1.0), "shot": (0.0, 1.0)}


# ---- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One part of a recipe with the range that its strength is drawn from; 0 where it takes none."""

    name: str
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Parts in their order, and how often they are drawn."""

    weight: float
    parts: tuple[Part, ...]


@cache
def read(text: str) -> tuple[Recipe, ...]:
    """The recipes of a degradation, with weights that sum to 1. Raises ValueError saying which part cannot be read."""
    recipes = []
    for choice in text.split("|"):
        weight, _, recipe = choice.strip().rpartition(" ")
        share = _number(weight, text) if weight else 1.0
        if share <= 0:
            raise ValueError(f"the weight {weight} in degradation {text!r} is not positive")
        inner = _expand(recipe)
        total = sum(part.weight for part in inner)
        recipes += [Recipe(share * part.weight / total, part.parts) for part in inner]
    whole = sum(recipe.weight for recipe in recipes)
    return tuple(Recipe(recipe.weight / whole, recipe.parts) for recipe in recipes)


def _expand(text: str) -> tuple[Recipe, ...]:
    """A recipe without weights; a preset's name stands for what it says."""
    if text in PRESETS:
        return read(PRESETS[text])
    parts = tuple(_part(part, text) for part in text.split("+"))
    if sum(part.name in KERNELS for part in parts) != 1:
        raise ValueError(f"degradation {text!r} has to name exactly one of {', '.join(KERNELS)}")
    return (Recipe(1.0, parts),)


def _part(text: str, whole: str) -> Part:
    name, given, strength = text.strip().partition("=")
    if name in KERNELS and not given:
        return Part(name)
    if name not in EDITS or not given:
        known = ", ".join([*KERNELS, *(f"{edit}=..." for edit in EDITS), *PRESETS])
        raise ValueError(f"unknown part {text.strip()!r} in degradation {whole!r}; known: {known}")
    low, _, high = strength.partition("..")
    part = Part(name, _number(low, whole), _number(high or low, whole))
    least, most = LIMITS.get(name, (0.0, 64.0))
    if not least <= part.low <= part.high <= most:
        raise ValueError(f"{text.strip()!r} in degradation {whole!r}: its strength lies between {least:g} and {most:g}")
    return part


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} in degradation {whole!r} is no number") from None
