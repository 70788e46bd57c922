"""What is decided for a whole scene before its first tile, and which part of it is asked for."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rasterio.windows import Window, from_bounds

from orl_ldm.errors import UserError
from orl_ldm.steer.door import SteeredSR
from orl_ldm.steer.schedule import Schedule
from orl_ldm.steer.tiling import Tiling
from orl_ldm.upscale.engine import lr_tiles, out_of_memory
from orl_ldm.upscale.options import Options
from orl_ldm.upscale.source import Source, Span
from orl_ldm.upscale.survey import Survey, survey


@dataclass(frozen=True)
class Scene:
    """The decisions for a scene, taken before its first tile."""

    tile: int
    survey: Survey
    schedule: Schedule | None


def decide(source: Source, tiles: Tiling, steered: SteeredSR | None, options: Options) -> Scene:
    """Look at the whole scene, and let the policy decide for it."""
    seen = survey(source, tiles, options.range)
    if steered is None or not seen.sampled:
        return Scene(options.tile, seen, None)
    edit = Schedule.faithful if options.faithful else lambda schedule: schedule
    sample = [lr_tiles(source, seen, tiles, [corner])[0].lr for corner in seen.sampled]
    batch = options.batch
    while True:
        try:
            return Scene(options.tile, seen, steered.schedule(sample, seen.sampled, options.seed, 0, batch, edit))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or batch == 1:
                raise
            batch //= 2


def part_of(source: Source, options: Options) -> tuple[Span, Span]:
    """(rows, columns) that `--window` or `--bounds` ask for. Raises UserError where they lie outside."""
    height, width = source.size
    window = options.window
    if options.bounds is not None:
        transform = source.dataset.transform
        if transform.is_identity or transform.b or transform.d:
            raise UserError(f"--bounds needs an image whose rows run from west to east; {source.path.name} is none")
        left, top, right, bottom = _outward(from_bounds(*options.bounds, transform))
        window = (max(left, 0), max(top, 0), min(right, width) - max(left, 0), min(bottom, height) - max(top, 0))
    if window is None:
        return (0, height), (0, width)
    column, row, across, down = window
    if min(column, row) < 0 or min(across, down) < 1 or column + across > width or row + down > height:
        raise UserError(
            f"the window {column},{row},{across},{down} does not lie in the image of {width}x{height} pixels"
        )
    return (row, row + down), (column, column + across)


def _outward(window: Window) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in whole pixels; a thousandth of a pixel is rounding."""
    left, top = (int(np.floor(value + 1e-3)) for value in (window.col_off, window.row_off))
    right, bottom = (
        int(np.ceil(value - 1e-3)) for value in (window.col_off + window.width, window.row_off + window.height)
    )
    return left, top, right, bottom


def to_stored(scene: Scene) -> dict[str, Any]:
    """A scene for the manifest."""
    return {"tile": scene.tile, "survey": asdict(scene.survey), "schedule": _as_json(scene.schedule)}


def from_stored(content: dict[str, Any]) -> Scene:
    """A scene from the manifest."""
    seen = dict(content["survey"])
    seen["sampled"] = [tuple(corner) for corner in seen["sampled"]]
    return Scene(content["tile"], Survey(**seen), _from_json(content["schedule"]))


def _as_json(schedule: Schedule | None) -> dict[str, Any] | None:
    """A schedule for the manifest; floats survive exactly."""
    if schedule is None:
        return None
    return {"actions": schedule.actions.tolist(), "statistics": [s.tolist() for s in schedule.statistics]}


def _from_json(content: dict[str, Any] | None) -> Schedule | None:
    """A schedule from the manifest."""
    if content is None:
        return None
    statistics = tuple(torch.tensor(s, dtype=torch.float64) for s in content["statistics"])
    return Schedule(np.array(content["actions"], np.float32), statistics)
