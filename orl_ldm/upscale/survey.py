"""A first look at a whole scene: which tiles hold valid pixels, and how values map to [0, 1].

Legend: n bands, R x C tiles.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.steer.tiling import Tiling
from orl_ldm.upscale.source import Source

#: About so many pixels of a scene are looked at for its range of values.
LOOKED_AT = 1_000_000

#: Decisions are made from one tile in EVERY, but from FEWEST at least and MOST at most.
EVERY, FEWEST, MOST = 4, 2, 8

#: Full ranges of common kinds of files; one is taken when the values fill more than FILLS of it and stay inside.
FULL_RANGES = {"uint16": (65535.0, 10000.0, 4095.0), "int16": (32767.0, 10000.0), "float32": (1.0, 255.0, 10000.0)}
FILLS = 0.4


@dataclass(frozen=True)
class Survey:
    """What is known of a scene before its first tile."""

    low: float  # the input value that counts as black
    high: float  # and as white
    guessed: str  # how low and high were found; empty where there was no choice
    means: list[float]  # (n,) of valid pixels
    slopes: list[float]  # (n,) change of a band per luminance of the steered bands; 0 for those themselves
    sampled: list[tuple[int, int]]  # corners of tiles that decisions are made from

    @property
    def gain(self) -> float:
        """Input units of the stretched range [0, 1]."""
        return self.high - self.low

    def stretched(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Values in the file's units as [0, 1], clipped."""
        result: npt.NDArray[np.float32] = np.clip((values - np.float32(self.low)) / np.float32(self.gain), 0, 1)
        return result


def survey(source: Source, tiles: Tiling, given: tuple[float, float] | None) -> Survey:
    """Read a scene once, a row of tiles at a time. Raises UserError where the file is damaged."""
    height, width = source.size
    n = source.dataset.count
    step = max(1, round((height * width / LOOKED_AT) ** 0.5))
    total, count = np.zeros(n), np.zeros(n)
    looked: list[npt.NDArray[Any]] = []
    shares: dict[tuple[int, int], float] = {}
    seen = 0
    for row in tiles.rows.corners:
        rows = (max(0, row), min(height, row + tiles.rows.tile))
        part = source.read(rows, (0, width))
        new = slice(max(0, seen - rows[0]), None)
        values = np.where(part.valid[:, new], part.raw[:, new], 0)
        total += values.sum((1, 2), dtype=np.float64)
        count += part.valid[:, new].sum((1, 2))
        every = slice(-(rows[0] + (new.start or 0)) % step, None, step)
        ok = part.valid[:, new][:, every, ::step].all(0)
        looked.append(part.raw[:, new][:, every, ::step][:, ok].astype(np.float32))
        seen = rows[1]
        anywhere = part.valid[[band - 1 for band in source.bands]].any(0).sum(0).cumsum()
        for column in tiles.columns.corners:
            left, right = max(0, column), min(width, column + tiles.columns.tile)
            inside = anywhere[right - 1] - (anywhere[left - 1] if left else 0)
            shares[row, column] = inside / ((rows[1] - rows[0]) * (right - left))
    pixels = np.concatenate(looked, axis=1)  # (n, looked at)
    steered = pixels[[band - 1 for band in source.steered]]
    low, high, guessed = (*given, "") if given else guess_range(steered, source.dtype)
    luminance = np.clip((steered - low) / (high - low), 0, 1).mean(0) if steered.size else np.zeros(0)
    slopes = [0.0 if band in source.steered else _slope(luminance, pixels[band - 1]) for band in range(1, n + 1)]
    return Survey(low, high, guessed, (total / np.maximum(count, 1)).tolist(), slopes, _evenly(shares))


def guess_range(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> tuple[float, float, str]:
    """(black, white, how it was found) of valid values.

    8 bits are taken as they are. Other types have a common full range where values fill it, or else from their 0.5 % to
    their 99.5 % quantile.
    """
    if dtype == np.uint8:
        return 0.0, 255.0, ""
    if not values.size:
        return 0.0, 1.0, ""
    low, high = (float(q) for q in np.quantile(values, (0.005, 0.995)))
    lowest, highest = float(values.min()), float(values.max())
    for full in FULL_RANGES[str(dtype)]:
        if lowest >= 0 and FILLS * full < high and highest <= full:
            return 0.0, full, f"values fill the range 0 to {full:g}"
    if low == high:
        low, high = low - 0.5, high + 0.5
    return low, high, "0.5 % and 99.5 % of the values lie below"


def _slope(luminance: npt.NDArray[Any], band: npt.NDArray[Any]) -> float:
    """Least-squares slope of a band's values over the luminance."""
    if not luminance.size or (spread := float(luminance.var())) < 1e-9:
        return 0.0
    return float(((luminance - luminance.mean()) * (band - band.mean())).mean() / spread)


def _evenly(shares: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Corners of tiles that are spread evenly over those that are valid at least by half, or as far as there are."""
    enough = min(0.5, max(shares.values()))
    valid = [corner for corner, share in shares.items() if share >= enough and share > 0]
    count = min(len(valid), max(FEWEST, min(MOST, len(valid) // EVERY)))
    picked = ((np.arange(count) + 0.5) * len(valid) / max(count, 1)).astype(int)
    return [valid[index] for index in picked]
