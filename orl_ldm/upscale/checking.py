"""`--check`: measure a file that was written before."""

import warnings
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from orl_ldm.errors import UserError
from orl_ldm.steer.tiling import tiling
from orl_ldm.upscale.check import Quality, measure
from orl_ldm.upscale.options import Options
from orl_ldm.upscale.plan import CACHE
from orl_ldm.upscale.scene import part_of
from orl_ldm.upscale.source import open_source


def check_file(source_path: Path, result_path: Path, options: Options) -> Quality:
    """Measure a file against its input. Raises UserError unless it is four times as large, with the same bands."""
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(GDAL_CACHEMAX=CACHE),
        open_source(source_path, options.bands, options.memory) as source,
        open_source(result_path, (), 32 * options.memory) as result,
    ):
        part = part_of(source, options)
        height, width = (end - begin for begin, end in part)
        found = result.dataset
        if (found.height, found.width, found.count) != (4 * height, 4 * width, source.dataset.count):
            raise UserError(
                f"{result_path.name} is no upscale of {source_path.name}: it has {found.width}x{found.height} pixels "
                f"and {found.count} bands, expected are {4 * width}x{4 * height} and {source.dataset.count}"
            )
        side = int(found.tags().get("ORL_LDM_TILE", options.tile))
        tiles = tiling(source.size, side, min(16, side // 4), 4, 16)
        return measure(source, found, part, tiles, 4)
