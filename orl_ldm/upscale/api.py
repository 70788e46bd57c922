"""`upscale_file`: what the command does, for Python."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from orl_ldm.config import build
from orl_ldm.steer.door import SteeredSR
from orl_ldm.upscale.file import Progress, upscale_one
from orl_ldm.upscale.options import Options
from orl_ldm.upscale.report import Report


def upscale_file(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    steered: SteeredSR | None = None,
    policy: str = "embedded",
    ldm: str = "embedded",
    prefer: str | None = None,
    device: str = "auto",
    any_ldm: bool = False,
    uncertainty: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
    **options: Any,
) -> Report:
    """Upscale a PNG, JPEG, WebP, TIFF or GeoTIFF four times, whatever its size; the target's ending says the format.

    `options` are those of `orl_ldm.upscale.options.Options`. To upscale many files, load a SteeredSR once and give it
    as `steered`; policy, ldm, prefer, device and any_ldm are then not used. `progress` is told (tiles done, tiles in
    all), `say` gets sentences about what had to be changed on the way. The same call goes on where a killed one
    stopped. Raises UserError for whatever is wrong with the files or options.
    """
    wanted = build(Options, options, "upscale_file")
    if steered is None and wanted.method == "steered":
        steered = SteeredSR.load(policy, ldm, prefer, device, wanted.seed, any_ldm)
    where = None if uncertainty is None else Path(uncertainty)
    used = steered if wanted.method == "steered" else None
    return upscale_one(Path(source), Path(target), used, wanted, where, overwrite, False, progress, say)
