"""Random crops as a pure function of (seed, item), so that training resumes exactly and splits over machines."""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from orl_ldm.errors import UserError
from orl_ldm.images.degrade import low_resolution
from orl_ldm.images.sources import ImageRef, open_images
from orl_ldm.pretrain.config import PretrainConfig
from orl_ldm.streams import normal, stable_id, stream

CACHE_BYTES = 4 << 30


@dataclass(frozen=True)
class Images:
    """Training images with their sampling weights, held-out ones, and how many of the former each source gave."""

    refs: Sequence[ImageRef]
    weights: Sequence[float]
    held_out: Sequence[ImageRef]
    counts: dict[str, int]


def open_sources(config: PretrainConfig) -> Images:
    """All images of the sources. Raises UserError when none is left to train on."""
    drawn = [
        (ref, source)
        for source in config.sources
        for ref in open_images(
            source.source, source.split, source.classes, source.count, config.holdout_seed, source.image_column
        )
    ]
    drawn.sort(key=lambda item: stable_id(f"{config.holdout_seed}/{item[0].name}"))
    held = drawn[: config.holdout]
    names = {ref.name for ref, _ in held}  # an image that two sources have is on one side of the two
    kept = [item for item in drawn[config.holdout :] if item[0].name not in names]
    if not kept:
        raise UserError(f"all {len(drawn)} images are held out: lower holdout ({config.holdout}) or add images")
    return Images(
        refs=[ref for ref, _ in kept],
        weights=[source.weight for _, source in kept],
        held_out=[ref for ref, _ in held],
        counts=dict(Counter(source.source for _, source in kept)),
    )


class Crops(Dataset[tuple[Tensor, Tensor, Tensor, int]]):
    """The i-th of an endless stream: a crop (3, size, size) uint8, mirrored and rotated at random; its LR image
    (3, size/scale, size/scale) in [0, 1]; its noise; and i.

    The noise is standard normal, float32, of the `latent` shape (C, h, w); drawn here, it is the loader's workers that
    draw it. Images are kept in memory as long as they fit: with `workers` they are read before training begins, by all
    of these at once, and each finds them there; otherwise each is read when it is first drawn.
    """

    def __init__(
        self,
        images: Images,
        size: int,
        latent: tuple[int, int, int],
        seed: int,
        length: int,
        workers: int = 0,
        degradation: str = "bicubic",
    ) -> None:
        self.refs, self.size, self.latent, self.seed, self.length = images.refs, size, latent, seed, length
        self.degradation = degradation
        self._cumulative = np.cumsum(np.asarray(images.weights) / np.sum(images.weights))
        self._cache: dict[int, npt.NDArray[np.uint8]] = {}
        self._cached_bytes = 0
        if workers:
            for chosen, pixels in enumerate(loaded(_Whole(self.refs), batch_size=None, num_workers=workers)):
                if not self._keep(chosen, pixels.numpy().copy()):  # a copy: what a worker shares holds a file open
                    break

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        rng = stream(self.seed, "crop", index)
        chosen = min(int(np.searchsorted(self._cumulative, rng.random())), len(self.refs) - 1)
        pixels = self._pixels(chosen)
        height, width = pixels.shape[:2]
        if min(height, width) < self.size:
            raise UserError(f"image {self.refs[chosen].name!r} is {width}x{height}: smaller than the crop {self.size}")
        top, left = rng.integers(height - self.size + 1), rng.integers(width - self.size + 1)
        crop = np.rot90(pixels[top : top + self.size, left : left + self.size], int(rng.integers(4)))
        pixels = np.ascontiguousarray((crop[:, ::-1] if rng.random() < 0.5 else crop).transpose(2, 0, 1))
        hr = torch.from_numpy(pixels)
        lr = low_resolution(hr.float() / 255, self.size // self.latent[1], self.degradation, self.seed, index)
        return hr, lr, noise_of(self.latent, self.seed, index), index

    def _pixels(self, chosen: int) -> npt.NDArray[np.uint8]:
        if chosen in self._cache:
            return self._cache[chosen]
        pixels = self.refs[chosen].load()
        self._keep(chosen, pixels)
        return pixels

    def _keep(self, chosen: int, pixels: npt.NDArray[np.uint8]) -> bool:
        if self._cached_bytes + pixels.nbytes > CACHE_BYTES:
            return False
        self._cache[chosen] = pixels
        self._cached_bytes += pixels.nbytes
        return True


def loaded(dataset: Dataset[Any], **options: Any) -> Iterator[Any]:
    """What a DataLoader with these options gives, by workers that leave Ctrl-C to the process that they work for.

    A UserError of a worker comes out as it was, without the worker's traceback, which torch makes its message.
    """
    batches = iter(DataLoader(dataset, worker_init_fn=_leave_interrupts, **options))
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except UserError as error:
            raise UserError(str(error).strip().splitlines()[-1].removeprefix("orl_ldm.errors.UserError: ")) from None
        yield batch


def _leave_interrupts(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Whole(Dataset[npt.NDArray[np.uint8]]):
    """Every image as it is."""

    def __init__(self, refs: Sequence[ImageRef]) -> None:
        self.refs = refs

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        return self.refs[index].load()


def noise_of(latent: tuple[int, ...], seed: int, item: int) -> Tensor:
    """Standard normal noise of a latent's shape, float32, of one item of the stream."""
    return torch.from_numpy(normal(latent, seed, "noise", item))


def spread(items: Tensor) -> Tensor:
    """Numbers in [0, 1) (B,) float64 that any run of consecutive items covers evenly: Kronecker's golden sequence."""
    return (items.double() * (5**0.5 - 1) / 2) % 1
