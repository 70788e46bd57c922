"""Tiles of a scene on one absolute grid, and the weights that blend them.

All sizes are LR pixels unless said otherwise. Every tile has the same size and starts at a multiple of the stride, so
the same ground lies in the same tile whatever part of a scene is computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Grid:
    """Tiles of `tile` pixels a side, overlapping by `overlap`. Raises ValueError unless 0 <= 2 overlap < tile."""

    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap < self.tile:
            raise ValueError(f"an overlap of {self.overlap} does not fit into tiles of {self.tile} pixels")

    @property
    def stride(self) -> int:
        """Pixels from one tile's corner to the next one's."""
        return self.tile - self.overlap

    def corners(self, begin: int, end: int) -> range:
        """Corners, along one axis, of the tiles that cover pixels [begin, end).

        The first corner lies at or before `begin - overlap`, so that every pixel is covered by full weight.
        """
        first = (begin - self.overlap) // self.stride * self.stride
        return range(first, end, self.stride)

    def over(self, rows: tuple[int, int], columns: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """(row, column) corners of the tiles that cover a rectangle, row by row."""
        for row in self.corners(*rows):
            for column in self.corners(*columns):
                yield row, column

    def weights(self, scale: int) -> npt.NDArray[np.float32]:
        """(scale * tile,) weights of a tile's HR pixels along one axis: a raised cosine across each overlap.

        Weights of neighboring tiles sum to 1 at every pixel; the weight of a pixel is the product over both axes.
        """
        ramp_size = scale * self.overlap
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp_size) + 0.5) / max(ramp_size, 1))
        flat = np.ones(scale * self.tile - 2 * ramp_size)
        return np.concatenate([ramp, flat, ramp[::-1]]).astype(np.float32)


def reflected(begin: int, end: int, size: int) -> npt.NDArray[np.int64]:
    """Indices of pixels [begin, end) of a line of `size` pixels that is mirrored beyond its ends, again and again.

    The pixel at an end is not repeated (a line of one pixel is constant).
    """
    if size == 1:
        return np.zeros(end - begin, dtype=np.int64)
    period = 2 * (size - 1)
    index = np.arange(begin, end) % period
    return np.where(index < size, index, period - index)
