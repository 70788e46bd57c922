"""How a scene is cut: tiles for the networks, pieces for the disk, and what that needs.

A piece is a part of the output that is computed and stored as a whole: the rows that are complete once a row of tiles
is, by the columns of a panel. One panel is as wide as memory allows.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.errors import UserError
from orl_ldm.steer.tiling import Tiling
from orl_ldm.upscale.options import Options, readable
from orl_ldm.upscale.source import REACH, Source, Span

#: LR pixels around a piece that its projection onto the LR image sees: four a round, two rounds.
CONTEXT = 8

#: LR columns that are projected and written at once.
CHUNK = 256

#: Memory of the libraries and networks, and of a tile of 128 x 128 in the networks; GDAL's cache.
BASE, TILE_MEMORY, CACHE = 900 * 2**20, 110 * 2**20, 64 * 2**20


@dataclass(frozen=True)
class Piece:
    """A part of the output: LR rows and columns of the scene, and the corner row of the tiles that complete it."""

    rows: Span
    columns: Span
    corner: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"r{self.rows[0]:07d}-c{self.columns[0]:07d}"


@dataclass(frozen=True)
class Plan:
    """The cut of one scene; `rows` and `columns` is the part that is asked for."""

    tiles: Tiling
    rows: Span
    columns: Span
    panels: tuple[Span, ...]
    scale: int

    def pieces(self, panel: Span) -> list[Piece]:
        """The pieces of a panel, from top to bottom."""
        corners = list(self.tiles.rows.corners)
        found = []
        begin = 0
        for corner, below in zip(corners, [*corners[1:], None], strict=True):
            end = self.tiles.rows.size if below is None else max(begin, below - CONTEXT)
            rows = max(begin, self.rows[0]), min(end, self.rows[1])
            if rows[0] < rows[1]:
                found.append(Piece(rows, panel, corner))
            begin = end
        return found

    def __iter__(self) -> Iterator[Piece]:
        for panel in self.panels:
            yield from self.pieces(panel)

    def reach(self, panel: Span) -> Span:
        """The columns that a panel's projection sees."""
        return max(0, panel[0] - CONTEXT), min(self.tiles.columns.size, panel[1] + CONTEXT)

    @property
    def tile_count(self) -> int:
        """Tiles that are computed, valid or not."""
        return sum(
            len(self.tiles.columns.touching(*self.reach(panel)))
            * len(self.tiles.rows.touching(max(0, self.rows[0] - CONTEXT), self.rows[1] + CONTEXT))
            for panel in self.panels
        )


def make_plan(
    source: Source, tiles: Tiling, part: tuple[Span, Span], scale: int, options: Options, planes: int
) -> Plan:
    """Cut a scene; `planes` are HR planes that are blended. Raises UserError when the memory is too small."""
    free = options.memory - fixed_memory(tiles, options)
    floats = planes * scale * (tiles.rows.tile + 2 * CONTEXT) * scale  # of blended rows, for each LR column
    lr_rows = tiles.rows.tile + 2 * REACH
    per_column = 4 * floats + lr_rows * source.dataset.count * (8 + source.dtype.itemsize) + 16 * lr_rows
    width = int(free // per_column) // CHUNK * CHUNK
    rows, columns = part
    if width < CHUNK:
        raise UserError(
            f"{readable(options.memory)} of memory are too little for batches of {options.batch} tiles of "
            f"{tiles.rows.tile} pixels: give --memory {readable(options.memory - free + CHUNK * per_column)} or more"
        )
    panels = tuple((begin, min(begin + width, columns[1])) for begin in range(columns[0], columns[1], width))
    return Plan(tiles, rows, columns, panels, scale)


def fixed_memory(tiles: Tiling, options: Options) -> int:
    """Bytes that are needed whatever the scene's size."""
    pixels = tiles.rows.tile * tiles.columns.tile
    return BASE + CACHE + int(TILE_MEMORY * pixels / 128**2) * options.batch


def disk_needed(source: Source, plan: Plan) -> int:
    """Bytes beside and of the output, were nothing compressible: the pieces, the output and its overviews."""
    area = (plan.rows[1] - plan.rows[0]) * (plan.columns[1] - plan.columns[0]) * plan.scale**2
    return int(2.4 * area * (source.dataset.count + source.has_mask_band) * source.dtype.itemsize) + 2**20


def require_room(needed: int, there: int, folder: Path) -> None:
    """Raise UserError unless so many bytes, less those that are there already, are free."""
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise UserError(
            f"the disk of {folder} has {readable(free)} free, and up to {readable(needed - there)} are needed: "
            "free some, or choose another place"
        )
