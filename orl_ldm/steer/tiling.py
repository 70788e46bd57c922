"""Tiles of a scene on one absolute grid, and the weights that blend them.

All sizes are LR pixels unless said otherwise. Tiles have one size and start at multiples of the stride, counted from
the scene's corner, so that the same ground lies in the same tile whatever part of a scene is computed. Where the last
tile reaches beyond the scene it is filled by reflection.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Grid:
    """Tiles along one axis of a scene of `size` pixels: `tile` pixels each, neighbors share `overlap`.

    Tiles reach `border` pixels beyond both ends of the scene, since networks pad what they are given with zeros.
    `shift` moves the whole grid that many pixels before the scene's begin. ValueError unless 0 <= 2 overlap < tile.
    """

    size: int
    tile: int
    overlap: int
    shift: int = 0
    border: int = 0

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap < self.tile:
            raise ValueError(f"an overlap of {self.overlap} does not fit into tiles of {self.tile} pixels")

    @property
    def stride(self) -> int:
        """Pixels from one tile's corner to the next one's."""
        return self.tile - self.overlap

    @property
    def corners(self) -> range:
        """Where the tiles begin: as many as it takes to cover the scene."""
        first = -self.shift - self.border
        more = max(0, -(-(self.size + self.border - first - self.tile) // self.stride))
        return range(first, first + more * self.stride + 1, self.stride)

    def touching(self, begin: int, end: int) -> range:
        """Corners of the tiles that share pixels with [begin, end)."""
        corners = self.corners
        first = max(0, (begin - self.tile - corners[0]) // self.stride + 1)
        last = min(len(corners), -(-(end - corners[0]) // self.stride))
        return corners[first:last]

    def weights(self, corner: int, scale: int) -> npt.NDArray[np.float32]:
        """(scale * tile,) weights of a tile's HR pixels: a raised cosine across each overlap with a neighbor.

        Weights of neighboring tiles sum to 1 at every pixel; in two dimensions, weights are products.
        """
        ramp_size = scale * self.overlap
        ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp_size) + 0.5) / max(ramp_size, 1))).astype(np.float32)
        line = np.ones(scale * self.tile, np.float32)
        if ramp_size and corner != self.corners[0]:
            line[:ramp_size] = ramp
        if ramp_size and corner != self.corners[-1]:
            line[-ramp_size:] = 1 - ramp
        return line


@dataclass(frozen=True)
class Tiling:
    """The tiles of a scene: a grid of rows and one of columns."""

    rows: Grid
    columns: Grid

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(row, column) corners, row by row."""
        for row in self.rows.corners:
            for column in self.columns.corners:
                yield row, column

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of every tile."""
        return self.rows.tile, self.columns.tile

    def weight(self, corner: tuple[int, int], scale: int) -> npt.NDArray[np.float32]:
        """(scale * height, scale * width) weights of a tile's HR pixels."""
        return np.outer(self.rows.weights(corner[0], scale), self.columns.weights(corner[1], scale))


def tiling(size: tuple[int, int], tile: int, overlap: int, multiple: int, smallest: int, shift: int = 0) -> Tiling:
    """The tiles of a scene of (height, width) pixels; one smaller tile along an axis that is shorter than a tile."""
    grids = []
    for side in size:
        fits = min(tile, max(smallest, -(-(side + shift) // multiple) * multiple))
        border = overlap // 2 if side > fits else 0
        grids.append(Grid(side, fits, min(overlap, (fits - 1) // 2), shift, border))
    return Tiling(*grids)


def reflected(begin: int, end: int, size: int) -> npt.NDArray[np.int64]:
    """Indices of pixels [begin, end) of a line of `size` pixels that is mirrored beyond its ends, again and again.

    The pixel at an end is not repeated (a line of one pixel is constant).
    """
    if size == 1:
        return np.zeros(end - begin, dtype=np.int64)
    period = 2 * (size - 1)
    index = np.arange(begin, end) % period
    return np.where(index < size, index, period - index)
