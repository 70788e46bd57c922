"""Upscale one file: look at it, decide once, compute what is missing, finish."""

import errno
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from orl_ldm.errors import UserError
from orl_ldm.steer.door import SteeredSR
from orl_ldm.steer.tiling import Tiling, tiling
from orl_ldm.upscale.check import Quality, measure
from orl_ldm.upscale.engine import Engine, TileTooLargeError, lr_tiles
from orl_ldm.upscale.finish import LOSSLESS, kind_of, put_in_place, read_back, write_picture, write_tiff
from orl_ldm.upscale.mosaic import Placed, write_mosaic, write_plane
from orl_ldm.upscale.options import Options, readable
from orl_ldm.upscale.picture import require_picture
from orl_ldm.upscale.plan import CACHE, Piece, Plan, disk_needed, fixed_memory, make_plan, require_room
from orl_ldm.upscale.provenance import identity_of, provenance
from orl_ldm.upscale.report import Report
from orl_ldm.upscale.scene import Scene, decide, from_stored, part_of, to_stored
from orl_ldm.upscale.source import Source, digest_of, open_source
from orl_ldm.upscale.work import Work, working_folder

#: Scale, size multiple and smallest tile of bicubic upscaling, which needs no LDM.
BICUBIC = (4, 4, 16)

Progress = Callable[[int, int], None]


def upscale_one(
    source_path: Path,
    target: Path,
    steered: SteeredSR | None,
    options: Options,
    uncertainty: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Report:
    """Upscale a file; `steered` is None for bicubic. Raises UserError for whatever is wrong with it or its target."""
    kind = kind_of(target)
    for path in (target, uncertainty):
        if path is None:
            continue
        if path.exists() and source_path.exists() and path.samefile(source_path):
            raise UserError(f"{path} is the input itself: name another target")
        if path.exists() and not overwrite and not dry_run:
            raise UserError(f"{path} exists already: give --overwrite, or another name")
        if path.is_dir() or not path.parent.is_dir():
            raise UserError(
                f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'its folder is missing'}"
            )
    if uncertainty is not None and (
        kind_of(uncertainty) != "TIFF"
        or uncertainty == target
        or uncertainty.parent.absolute() != target.parent.absolute()
        or steered is None
    ):
        raise UserError("--uncertainty needs a .tif of its own, beside the target, and the steered method")
    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_TIFF_INTERNAL_MASK=True),
            torch.inference_mode(),
            open_source(source_path, options.bands, options.memory) as source,
        ):
            job = Job(source, target, kind, steered, options, uncertainty, overwrite, progress, say)
            return job.estimate() if dry_run else job.run()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {target.parent} is full; run again with more room, finished parts are kept"
            ) from error
        raise UserError(f"{target} could not be written: {error}; run again, finished parts are kept") from error


@dataclass
class Job:
    """One file on its way."""

    source: Source
    target: Path
    kind: str
    steered: SteeredSR | None
    options: Options
    uncertainty: Path | None
    overwrite: bool
    progress: Progress
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.scale = self.steered.scale if self.steered else BICUBIC[0]
        self.part = part_of(self.source, self.options)
        self.seeds = [self.options.seed + k for k in range(self.options.samples if self.uncertainty else 1)]
        self.notes = list(self.source.notes)
        if self.kind != "TIFF":
            dataset = self.source.dataset
            size = tuple((b - a) * self.scale for a, b in self.part)
            roles = list(dataset.colorinterp)
            require_picture(self.kind, (size[0], size[1]), roles, str(self.source.dtype), self.target.name)
            if dataset.crs or dataset.gcps[0]:
                self.notes.append(f"{self.kind} holds no georeference")

    def tiles(self, tile: int, shift: int = 0) -> Tiling:
        """The scene's tiles; decisions are made from those of the grid that is not shifted."""
        if self.steered is not None:
            return self.steered.tiling(self.source.size, tile, shift)
        return tiling(self.source.size, tile, min(16, tile // 4), BICUBIC[1], BICUBIC[2], shift)

    def plan(self, tile: int) -> Plan:
        """How the scene is cut."""
        planes = 3 + (self.uncertainty is not None)
        tiles = self.tiles(tile, self.options.shift)
        return make_plan(self.source, tiles, self.part, self.scale, self.options, planes)

    def estimate(self) -> Report:
        """What `run` would need; one tile is computed to learn how long it takes."""
        scene = decide(self.source, self.tiles(self.options.tile), self.steered, self.options)
        plan = self.plan(scene.tile)
        self._explain(scene)
        self.notes.append(f"about {readable(fixed_memory(plan.tiles, self.options))} of memory at least")
        seconds = 0.0
        if scene.survey.sampled:
            engine = self._engine(plan, scene)
            tile = lr_tiles(self.source, scene.survey, plan.tiles, scene.survey.sampled[:1])
            began = time.perf_counter()
            engine.hr(tile)
            seconds = (time.perf_counter() - began) * plan.tile_count
        return self._report(plan, (plan.tile_count, 0, 0, 0), seconds, None)

    def run(self) -> Report:
        """Make the file."""
        before = self._stamp()
        with working_folder(self.target) as work:
            identity = identity_of(self.source, self.steered, self.options, self.uncertainty)
            stored = work.begin(identity, self.overwrite)
            require_room(disk_needed(self.source, self.plan(self.options.tile)), work.size, self.target.parent)
            while True:
                if stored:
                    scene = from_stored(stored)
                else:
                    scene = decide(self.source, self.tiles(self.options.tile), self.steered, self.options)
                    work.decide(identity, to_stored(scene))
                self._explain(scene)
                plan = self.plan(scene.tile)
                try:
                    engine, found = self._compute(work, plan, scene)
                    break
                except TileTooLargeError:
                    if scene.tile == 32:
                        raise UserError("the memory is too small even for tiles of 32 pixels") from None
                    self.say(f"out of memory: starting again with tiles of {scene.tile // 2} pixels")
                    work.clear()
                    stored, self.options = {}, replace(self.options, tile=scene.tile // 2)
            if self._stamp() != before and digest_of(self.source) != identity["input"]:
                work.clear()
                raise UserError(f"{self.source.path.name} changed while it was being read: run again")
            quality = self._finish(work, plan, scene, identity)
        seconds = time.perf_counter() - self.started
        return self._report(plan, (engine.tiles, engine.empty, engine.calls, found), seconds, quality)

    def _explain(self, scene: Scene) -> None:
        if scene.survey.guessed:
            low, high = f"{scene.survey.low:g}", f"{scene.survey.high:g}"
            self.notes.append(f"the range {low} to {high} is guessed ({scene.survey.guessed}); --range sets it")

    def _engine(self, plan: Plan, scene: Scene, progress: Callable[[int], None] = lambda n: None) -> Engine:
        return Engine(
            self.source, plan, scene.survey, self.steered, scene.schedule, self.seeds, self.options.batch,
            self.options.faithful, self.say, progress,
        )  # fmt: skip

    def _compute(self, work: Work, plan: Plan, scene: Scene) -> tuple[Engine, int]:
        """Compute and store the pieces that are missing: (the engine, pieces that were there)."""
        done, total = 0, sum(len(plan.tiles.columns.touching(*plan.reach(piece.columns))) for piece in plan)

        def advance(tiles: int) -> None:
            nonlocal done
            done += tiles
            self.progress(done, total)

        engine = self._engine(plan, scene, advance)
        there = work.finished()
        planes = [""] if self.uncertainty is None else ["", "u"]

        def wanted(piece: Piece) -> bool:
            return any(piece.name + plane not in there for plane in planes)

        self.progress(0, total)
        for panel in plan.panels:
            for piece, chunks in engine.pieces(panel, wanted):
                self._store(work, piece, list(chunks) if len(planes) == 2 else chunks)
        return engine, len(there) // len(planes)

    def _store(self, work: Work, piece: Piece, chunks: Any) -> None:
        height, width = ((b - a) * self.scale for a, b in (piece.rows, piece.columns))
        masked = self.source.has_mask_band
        dtype = str(self.source.dtype)
        with work.piece(piece.name, (self.source.dataset.count + masked, height, width), dtype) as writer:
            for chunk in chunks:
                mask = chunk.valid[:1].astype(chunk.pixels.dtype) * np.array(255, chunk.pixels.dtype)
                pixels = np.concatenate([chunk.pixels, mask]) if masked else chunk.pixels
                writer.write(pixels, (chunk.column - piece.columns[0]) * self.scale)
        if self.uncertainty is not None:
            with work.piece(piece.name + "u", (1, height, width), "float32") as writer:
                for chunk in chunks:
                    writer.write(chunk.uncertainty[None], (chunk.column - piece.columns[0]) * self.scale)

    def _finish(self, work: Work, plan: Plan, scene: Scene, identity: dict[str, Any]) -> Quality:
        window = Window(plan.columns[0], plan.rows[0], plan.columns[1] - plan.columns[0], plan.rows[1] - plan.rows[0])
        mosaic = work.folder / "mosaic.vrt"
        tags = provenance(scene, self.steered, self.options, identity)
        write_mosaic(mosaic, self.source, window, self.scale, self._placed(work, plan, ""), tags)
        with rasterio.open(mosaic) as result:
            quality = measure(self.source, result, self.part, plan.tiles, self.scale)
        made = [(mosaic, self.target, self.kind)]
        if self.uncertainty is not None:
            plane = work.folder / "uncertainty.vrt"
            name = f"standard deviation over {len(self.seeds)} seeds"
            write_plane(plane, self.source, window, self.scale, self._placed(work, plan, "u"), name)
            made.append((plane, self.uncertainty, "TIFF"))
        staged = []
        for number, (vrt, target, kind) in enumerate(made):
            staged.append(work.folder / f"out{number}.part{target.suffix}")
            if kind == "TIFF":
                write_tiff(vrt, staged[-1], self.options.cog, self.options.creation)
                lossless = self.options.creation.get("COMPRESS", "DEFLATE").upper() in LOSSLESS
                read_back(vrt, staged[-1], lossless)
            else:
                write_picture(vrt, staged[-1], kind, self.source.extra)
        for path, (_, target, _) in zip(staged, made, strict=True):
            put_in_place(path, target)
        return quality

    def _placed(self, work: Work, plan: Plan, plane: str) -> list[Placed]:
        files = work.finished()
        top, left = plan.rows[0], plan.columns[0]
        return [
            Placed(
                files[piece.name + plane],
                (piece.rows[0] - top) * self.scale,
                (piece.columns[0] - left) * self.scale,
                (piece.rows[1] - piece.rows[0]) * self.scale,
                (piece.columns[1] - piece.columns[0]) * self.scale,
            )
            for piece in plan
        ]

    def _stamp(self) -> tuple[int, int]:
        status = self.source.path.stat()
        return status.st_size, status.st_mtime_ns

    def _report(self, plan: Plan, done: tuple[int, int, int, int], seconds: float, quality: Quality | None) -> Report:
        """`done` counts tiles, empty tiles, calls of each tile and pieces that were there; no quality: a dry run."""
        height, width = ((b - a) * self.scale for a, b in self.part)
        disk = self.target.stat().st_size if quality else disk_needed(self.source, plan)
        return Report(
            self.source.path.name, str(self.target), width, height, *done, seconds, width * height / 1e6, disk,
            quality or Quality(None, None, None, None), tuple(self.notes), quality is None,
        )  # fmt: skip
