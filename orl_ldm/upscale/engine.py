"""The loop: rows of tiles are computed, blended, projected onto the LR image and handed on as pieces.

Legend: n bands, P blended planes (three colors, and one of uncertainty where asked for), h x w LR pixels, s the scale.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orl_ldm.diffusion.projection import back_project
from orl_ldm.images.resample import upscale
from orl_ldm.steer.door import SteeredSR, add_tile
from orl_ldm.steer.schedule import Schedule
from orl_ldm.steer.tiling import Tiling, reflected
from orl_ldm.upscale.plan import CHUNK, CONTEXT, Piece, Plan
from orl_ldm.upscale.source import Source, Span
from orl_ldm.upscale.survey import Survey

Array = npt.NDArray[Any]

#: Rounds of the final projection, as in the sampler, and of `--faithful`.
ROUNDS, FAITHFUL_ROUNDS = 2, 30


class TileTooLargeError(Exception):
    """Not even one tile fits into memory."""


@dataclass(frozen=True)
class Tile:
    """An LR tile (3, h, w) in [0, 1]; `valid` says whether it holds a valid pixel of the scene."""

    corner: tuple[int, int]
    lr: Tensor
    valid: bool


@dataclass(frozen=True)
class Chunk:
    """A part of the output that begins at an LR column: (n, sh, sw) in the file's dtype and what goes with it."""

    column: int
    pixels: Array
    valid: npt.NDArray[np.bool_]  # (n, sh, sw)
    uncertainty: npt.NDArray[np.float32] | None  # (sh, sw), in input units


def lr_tiles(source: Source, survey: Survey, tiles: Tiling, corners: Sequence[tuple[int, int]]) -> list[Tile]:
    """Tiles of one row, without gaps, stretched, mirrored beyond the scene's borders; grey ones in three channels."""
    row, (height, width) = corners[0][0], tiles.tile
    left = corners[0][1]
    rows = reflected(row, row + height, source.size[0])
    columns = reflected(left, corners[-1][1] + width, source.size[1])
    spans = [(int(index.min()), int(index.max()) + 1) for index in (rows, columns)]
    values, valid = source.filled(spans[0], spans[1], np.array(survey.means))
    colors = survey.stretched(values[[band - 1 for band in source.steered]])
    colors = np.broadcast_to(colors, (3, *colors.shape[1:]))
    found = []
    for corner in corners:
        here = columns[corner[1] - left : corner[1] - left + width] - spans[1][0]
        lr = torch.from_numpy(colors[:, (rows - spans[0][0])[:, None], here])
        # Mirrored pixels repeat pixels of the scene, and of this tile where it is not the last.
        found.append(Tile(corner, lr, bool(valid[(rows - spans[0][0])[:, None], here].any())))
    return found


@dataclass
class Engine:
    """Computes the pieces of one scene. Without `steered`, tiles are bicubic."""

    source: Source
    plan: Plan
    survey: Survey
    steered: SteeredSR | None
    schedule: Schedule | None
    seeds: Sequence[int]  # the first makes the picture; all of them its uncertainty
    batch: int
    faithful: bool
    say: Callable[[str], None]
    progress: Callable[[int], None]  # tiles that are finished
    tiles: int = 0  # computed so far
    empty: int = 0  # tiles without a valid pixel so far
    calls: int = 0  # denoiser calls of each tile

    def pieces(self, panel: Span, wanted: Callable[[Piece], bool]) -> Iterator[tuple[Piece, Iterator[Chunk]]]:
        """The wanted pieces of a panel, from top to bottom, each in chunks from left to right."""
        grid, scale, reach = self.plan.tiles.rows, self.plan.scale, self.plan.reach(panel)
        height, width = grid.tile + 2 * CONTEXT, reach[1] - reach[0]
        blended = torch.zeros(3 + (len(self.seeds) > 1), scale * height, scale * width)
        added: int | None = None  # the row of tiles that was added last
        for piece in self.plan.pieces(panel):
            if wanted(piece):
                needed = grid.touching(max(0, piece.rows[0] - CONTEXT), min(piece.rows[1] + CONTEXT, grid.size))
                if added is not None and added == piece.corner - grid.stride:
                    kept = scale * (height - grid.stride)
                    blended[:, :kept] = blended[:, -kept:].clone()
                    blended[:, kept:] = 0
                    needed = needed[-1:]
                else:
                    blended.zero_()
                origin = (piece.corner - 2 * CONTEXT, reach[0])  # where `blended` begins in the scene
                for row in needed:
                    self._add_row(blended, row, origin, reach)
                added = piece.corner
                yield piece, self._chunks(piece, blended, origin)
            else:
                added = None
            self.progress(len(self.plan.tiles.columns.touching(*reach)))

    def _add_row(self, blended: Tensor, row: int, origin: tuple[int, int], reach: Span) -> None:
        """Compute the tiles of a row and add them, weighted, to planes that begin at `origin`."""
        corners = [(row, column) for column in self.plan.tiles.columns.touching(*reach)]
        tiles = lr_tiles(self.source, self.survey, self.plan.tiles, corners)
        valid = [tile for tile in tiles if tile.valid]
        begin = 0
        while begin < len(valid):
            now = valid[begin : begin + self.batch]
            try:
                hr = self.hr(now)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._use_less()
                continue
            self._blend(blended, now, hr, origin)
            begin += len(now)
        # Nothing is seen of tiles without a valid pixel, but the projection of their neighbors looks into them.
        for tile in tiles:
            if not tile.valid:
                self._blend(blended, [tile], _with_plane(upscale(tile.lr[None], self.plan.scale), blended), origin)
        self.tiles += len(valid)
        self.empty += len(tiles) - len(valid)

    def _use_less(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.batch == 1:
            raise TileTooLargeError
        self.batch //= 2
        self.say(f"out of memory: going on with batches of {self.batch}")

    def hr(self, tiles: Sequence[Tile]) -> Tensor:
        """HR tiles (B, P, sh, sw)."""
        lr = torch.stack([tile.lr for tile in tiles])
        if self.steered is None or self.schedule is None:
            return upscale(lr, self.plan.scale)
        corners, drawn = [tile.corner for tile in tiles], []
        for seed in self.seeds:
            images, calls = self.steered.run(lr, corners, self.schedule, seed, 0)
            self.calls = max(calls)
            drawn.append(images)
        if len(drawn) == 1:
            return drawn[0]
        return torch.cat([drawn[0], torch.stack(drawn).std(0).mean(1, keepdim=True)], dim=1)

    def _blend(self, blended: Tensor, tiles: Sequence[Tile], hr: Tensor, origin: tuple[int, int]) -> None:
        scale = self.plan.scale
        for tile, image in zip(tiles, hr, strict=True):
            weight = torch.from_numpy(self.plan.tiles.weight(tile.corner, scale))
            top, left = ((tile.corner[axis] - origin[axis]) * scale for axis in (0, 1))
            add_tile(blended, image * weight, (top, left))

    def _chunks(self, piece: Piece, blended: Tensor, origin: tuple[int, int]) -> Iterator[Chunk]:
        for begin in range(piece.columns[0], piece.columns[1], CHUNK):
            yield self._chunk(piece.rows, (begin, min(begin + CHUNK, piece.columns[1])), blended, origin)

    def _chunk(self, rows: Span, columns: Span, blended: Tensor, origin: tuple[int, int]) -> Chunk:
        """Output in the file's units: the upscaled LR image, and what was added to it in the stretched range."""
        source, survey, scale = self.source, self.survey, self.plan.scale
        part = source.read(rows, columns)
        pixels, valid = (np.repeat(np.repeat(a, scale, 1), scale, 2) for a in (part.raw, part.valid))
        if not part.valid[[band - 1 for band in source.bands]].any():
            empty = np.full(pixels.shape[1:], np.nan, np.float32) if len(self.seeds) > 1 else None
            return Chunk(columns[0], pixels, valid, empty)
        outer = [
            (max(0, a - CONTEXT), min(end, b + CONTEXT))
            for (a, b), end in zip((rows, columns), source.size, strict=True)
        ]
        values, _ = source.filled(outer[0], outer[1], np.array(survey.means))
        lr = np.broadcast_to(survey.stretched(values[[band - 1 for band in source.steered]]), (3, *values.shape[1:]))
        lr_image = torch.from_numpy(np.array(lr))[None]
        view = blended[:, *_within(outer, origin, scale)]
        hr = view[None, :3]
        if self.schedule is not None and self.schedule.fidelity > 0:
            strength = torch.tensor([self.schedule.fidelity])
            for _ in range(FAITHFUL_ROUNDS if self.faithful else ROUNDS):
                hr = back_project(hr, lr_image, strength, rounds=1).clamp(0, 1)
        detail = (hr - upscale(lr_image, scale))[0].numpy()  # (3, sh, sw), in the stretched range
        inner = _within((rows, columns), (outer[0][0], outer[1][0]), scale)
        for band in source.bands:
            index = band - 1
            plane = torch.from_numpy(values[index] - np.float32(survey.low))[None, None]
            base = upscale(plane, scale)[0, 0].numpy() + np.float32(survey.low)
            if band not in source.steered:
                added = survey.slopes[index] * detail.mean(0)
            elif len(source.steered) == 1:
                added = survey.gain * detail.mean(0)
            else:
                added = survey.gain * detail[source.steered.index(band)]
            result = as_dtype((base + added)[inner], source.dtype, source.dataset.nodatavals[index])
            pixels[index] = np.where(valid[index], result, pixels[index])
        if len(self.seeds) == 1:
            return Chunk(columns[0], pixels, valid, None)
        spread = view[3].numpy()[inner] * np.float32(survey.gain)
        anywhere = valid[[band - 1 for band in source.bands]].any(0)
        return Chunk(columns[0], pixels, valid, np.where(anywhere, spread, np.float32(np.nan)))


def _within(spans: Sequence[Span], origin: tuple[int, int], scale: int) -> tuple[slice, slice]:
    """LR rows and columns as slices of an HR image that begins at an LR origin."""
    rows, columns = (slice((a - o) * scale, (b - o) * scale) for (a, b), o in zip(spans, origin, strict=True))
    return rows, columns


def as_dtype(values: Array, dtype: np.dtype[Any], nodata: float | None) -> Array:
    """Valid float values in a file's dtype, rounded once and clipped; none of them becomes the nodata value."""
    if dtype.kind == "f":
        result = values.astype(dtype)
        beside: Any = (
            None if nodata is None else np.nextafter(dtype.type(nodata), dtype.type(0) if nodata else dtype.type(1))
        )
    else:
        limits = np.iinfo(dtype)
        result = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
        beside = None if nodata is None else nodata + 1 if nodata < limits.max else nodata - 1
    if nodata is not None and not np.isnan(nodata):
        result[result == nodata] = beside
    return result


def _with_plane(image: Tensor, blended: Tensor) -> Tensor:
    """(1, 3, sh, sw) with planes of zeros up to as many as `blended` has."""
    return torch.cat([image, image.new_zeros(1, len(blended) - 3, *image.shape[-2:])], dim=1)


def out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in text for sign in ("out of memory", "not enough memory", "can't allocate memory")
    )
