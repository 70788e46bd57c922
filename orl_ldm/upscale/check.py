"""How good a finished file is: its agreement with the input, and its seams.

Legend: n bands, h x w LR pixels, s the scale.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import minimum_filter

from orl_ldm.images.resample import downscale
from orl_ldm.steer.tiling import Grid, Tiling
from orl_ldm.upscale.source import Source, Span

#: Side, in LR pixels, of the blocks that are read, and what is read around them.
BLOCK, MARGIN = 256, 4  # the margin holds the borders beside one at a block's edge


@dataclass(frozen=True)
class Quality:
    """down(SR) - LR over all bands, in the input's units, and the seam score; None where there is nothing to measure.

    The seam score is the mean absolute gradient across the borders of tiles over that across the LR pixels' borders one
    and two LR pixels beside them. (HR pixels beside them do not compare: what lies inside an LR pixel is smoother.)
    """

    bias: float | None
    rmse: float | None
    largest: float | None
    seam: float | None

    def line(self) -> str:
        """One sentence for people; empty where nothing was measured."""
        parts = []
        if self.bias is not None:
            parts.append(f"down(SR) - LR: bias {self.bias:.2g}, RMSE {self.rmse:.2g}, max {self.largest:.2g}")
        if self.seam is not None:
            parts.append(f"seam score {self.seam:.3f}")
        return "; ".join(parts)


@dataclass
class _Sums:
    count: float = 0
    total: float = 0
    squares: float = 0
    largest: float = 0
    across: float = 0
    beside: float = 0


def measure(source: Source, result: Any, part: tuple[Span, Span], tiles: Tiling, scale: int) -> Quality:
    """Measure an open output dataset against its input; `part` is the (rows, columns) of the input that it shows."""
    sums = _Sums()
    bands = [band - 1 for band in source.bands]
    (top, bottom), (left, right) = part
    for row in range(top, bottom, BLOCK):
        for column in range(left, right, BLOCK):
            inner = (row, min(row + BLOCK, bottom)), (column, min(column + BLOCK, right))
            outer = [
                (max(a - MARGIN, lowest), min(b + MARGIN, highest))
                for (a, b), (lowest, highest) in zip(inner, part, strict=True)
            ]
            lr = source.read(outer[0], outer[1])
            valid = lr.valid[bands]
            if not valid.any():
                continue
            window = tuple(((a - o) * scale, (b - o) * scale) for (a, b), (o, _) in zip(outer, part, strict=True))
            hr = result.read(list(source.bands), window=window).astype(np.float32)
            crop = tuple(slice(a - o, b - o) for (a, b), (o, _) in zip(inner, outer, strict=True))
            sure = minimum_filter(valid, size=(1, 5, 5))  # the down-scaling sees two pixels around
            hr = np.where(np.isfinite(hr), hr, 0)
            shrunk = downscale(torch.from_numpy(hr)[None], scale)[0].numpy()
            error = (shrunk - np.where(sure, lr.raw[bands], 0))[:, *crop][sure[:, *crop]].astype(np.float64)
            sums.count += error.size
            sums.total += error.sum()
            sums.squares += np.square(error).sum()
            sums.largest = max(sums.largest, float(np.abs(error).max(initial=0)))
            seen = np.repeat(np.repeat(valid.all(0), scale, 0), scale, 1)
            _seams(sums, hr, seen, [a for a, _ in outer], inner, tiles, scale)
    if not sums.count:
        return Quality(None, None, None, None)
    seam = sums.across / (sums.beside / 4) if sums.beside else None
    bias, rmse = sums.total / sums.count, (sums.squares / sums.count) ** 0.5
    return Quality(float(bias), float(rmse), sums.largest, None if seam is None else float(seam))


def _seams(
    sums: _Sums,
    hr: npt.NDArray[np.float32],
    seen: npt.NDArray[np.bool_],
    origin: list[int],
    inner: tuple[Span, Span],
    tiles: Tiling,
    scale: int,
) -> None:
    """Add the gradients across, and beside, the borders of tiles in a block; `hr` begins at `origin`."""
    for axis, grid in ((0, tiles.rows), (1, tiles.columns)):
        lines, ok = (np.moveaxis(array, axis - 2, -1) for array in (hr, seen))
        for border in borders(grid):
            if not inner[axis][0] <= border < inner[axis][1]:
                continue
            places = [(border - origin[axis] + beside) * scale for beside in (-2, -1, 0, 1, 2)]
            if places[0] < 1 or places[-1] >= lines.shape[-1]:
                continue
            use = ok[..., places[0] - 1 : places[-1] + 1].all(-1)
            before, after = (lines[:, use][..., [at + side for at in places]] for side in (-1, 0))
            steps = np.abs(after - before).sum((0, 1), dtype=np.float64)  # (5,)
            sums.across += steps[2]
            sums.beside += steps.sum() - steps[2]


def borders(grid: Grid) -> list[int]:
    """LR positions where a tile begins or ends inside the scene."""
    corners = grid.corners
    places = {*corners[1:], *(corner + grid.tile for corner in corners[:-1])}
    return sorted(place for place in places if 0 < place < grid.size)
