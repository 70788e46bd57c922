"""Natural texture: noise over many octaves, whose spectrum falls off as photographs' spectra do."""

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]

_REFERENCE_SIZE = (
    256  # variance is set for this size; smaller images leave out the finest octaves, as a real downscale does
)


def resized(field: Floats, size: int) -> Floats:
    """A float32 field (h, w) resampled to (size, size) with an antialiased bicubic filter."""
    return np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC))


def fractal(rng: np.random.Generator, size: int, coarsest: int = 4, decay: float = 0.3) -> Floats:
    """Noise (size, size) of mean about 0 and variance about 1, the same pattern at every size.

    The first octave has `coarsest` cells across the picture; each further one has twice as many and 2^-decay times the
    amplitude, so that power falls with frequency as f^-(2 + 2 decay). Coarse octaves are drawn first: another size only
    adds or leaves out fine ones.
    """
    field = rng.standard_normal((coarsest, coarsest), np.float32)
    amplitude, octaves = 1.0, max(1, round(np.log2(_REFERENCE_SIZE / coarsest)) + 1)
    variance = sum(4.0 ** (-decay * k) for k in range(octaves))
    while len(field) < size:
        amplitude *= 2.0**-decay
        cells = 2 * len(field)
        field = resized(field, cells) + np.float32(amplitude) * rng.standard_normal((cells, cells), np.float32)
    return resized(field, size) / np.float32(np.sqrt(0.7 * variance))


def smoothstep(low: float, high: float, values: npt.NDArray[np.floating]) -> Floats:
    """0 below `low`, 1 above `high`, a smooth ramp between (high may be below low: the ramp then falls)."""
    t = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return np.asarray(t * t * (3 - 2 * t))


def mix(a: npt.ArrayLike, b: npt.ArrayLike, weight: Floats) -> Floats:
    """Blend colours: weight (H, W) 0 gives a, 1 gives b, each a colour (3,) or an image (H, W, 3)."""
    first, second = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return first + (second - first) * weight[..., None]
