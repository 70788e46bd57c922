"""Random crops as a pure function of (seed, position in the stream), so that training resumes exactly."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from orl_ldm.errors import UserError
from orl_ldm.images.resample import to_tensor
from orl_ldm.images.sources import ImageRef, open_images
from orl_ldm.pretrain.config import PretrainConfig
from orl_ldm.streams import stable_id, stream

CACHE_BYTES = 4 << 30


def open_sources(config: PretrainConfig) -> tuple[list[ImageRef], list[float], list[ImageRef]]:
    """(training images, their sampling weights, held-out images)."""
    weighted = [
        (ref, source.weight)
        for source in config.sources
        for ref in open_images(source.source, source.split, source.classes, source.count, config.seed)
    ]
    weighted.sort(key=lambda item: stable_id(f"{config.seed}/{item[0].name}"))
    held, kept = weighted[: config.holdout], weighted[config.holdout :]
    if not kept:
        raise UserError(f"all {len(weighted)} images are held out: lower holdout ({config.holdout}) or add images")
    return [ref for ref, _ in kept], [weight for _, weight in kept], [ref for ref, _ in held]


class Crops(Dataset[Tensor]):
    """Item i is a (3, size, size) crop in [0, 1], flipped and turned at random: the i-th of an endless stream."""

    def __init__(self, refs: Sequence[ImageRef], weights: Sequence[float], size: int, seed: int, length: int) -> None:
        self.refs, self.size, self.seed, self.length = list(refs), size, seed, length
        self._cumulative = np.cumsum(np.asarray(weights) / np.sum(weights))
        self._cache: dict[int, npt.NDArray[np.uint8]] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        rng = stream(self.seed, "crop", index)
        chosen = min(int(np.searchsorted(self._cumulative, rng.random())), len(self.refs) - 1)
        pixels = self._pixels(chosen)
        height, width = pixels.shape[:2]
        if min(height, width) < self.size:
            raise UserError(f"image {self.refs[chosen].name!r} is {width}x{height}: smaller than the crop {self.size}")
        top, left = rng.integers(height - self.size + 1), rng.integers(width - self.size + 1)
        crop = np.rot90(pixels[top : top + self.size, left : left + self.size], int(rng.integers(4)))
        return to_tensor(np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop))

    def _pixels(self, chosen: int) -> npt.NDArray[np.uint8]:
        if chosen not in self._cache:
            pixels = self.refs[chosen].load()
            if self._cached_bytes + pixels.nbytes > CACHE_BYTES:
                return pixels
            self._cache[chosen] = pixels
            self._cached_bytes += pixels.nbytes
        return self._cache[chosen]


def noise_like(x: Tensor, seed: int, purpose: str, step: int) -> Tensor:
    """Standard normal noise of x's shape, drawn on the CPU from the stream of this step."""
    values = stream(seed, purpose, step).standard_normal(tuple(x.shape), dtype=np.float32)
    return torch.from_numpy(values).to(x)
