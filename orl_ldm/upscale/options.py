"""What a user may ask of an upscale, and how it is written on a command line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orl_ldm.config import STRICT
from orl_ldm.errors import UserError

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Options:
    """What is done with one file. All sizes are LR pixels.

    `bands` are the three (or one) that are super-resolved, counted from 1; by default those that are red, green and
    blue. `range` are the input values that count as black and white; by default it is guessed and reported. `window`
    is (column, row, width, height); `bounds` (left, bottom, right, top) in the file's CRS. `creation` are GDAL creation
    options of the written TIFF. `samples` is only used with an uncertainty file.
    """

    __pydantic_config__ = STRICT

    seed: int = 7
    method: Literal["steered", "bicubic"] = "steered"
    faithful: bool = False
    bands: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
    window: tuple[int, int, int, int] | None = None
    bounds: tuple[float, float, float, float] | None = None
    tile: int = 128
    batch: int = 4
    memory: int = 2 * 2**30
    cog: bool = True
    creation: Mapping[str, str] = field(default_factory=dict)
    samples: int = 5
    shift: int = 0  # of the tile grid; for measuring seams

    def __post_init__(self) -> None:
        if self.tile < 32 or self.tile % 32:
            raise UserError(f"--tile {self.tile}: give a multiple of 32, from 32 on")
        if self.batch < 1 or self.samples < 2:
            raise UserError("--batch must be at least 1 and --samples at least 2")
        if self.window is not None and self.bounds is not None:
            raise UserError("give --window or --bounds, not both")
        if self.bands and len(self.bands) not in (1, 3):
            raise UserError(f"--bands names {len(self.bands)} bands: give three (as red, green, blue) or one (grey)")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise UserError(f"--range {self.range[0]:g},{self.range[1]:g}: the first value must be below the second")


def size_of(text: str) -> int:
    """Bytes from text such as `2G`, `800M` or `1.5GiB`. Raises UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UserError(f"--memory {text!r} is no size: write for example 800M or 2G")
    return int(float(match[1]) * UNITS[match[2].upper()])


def numbers(text: str, option: str, count: tuple[int, ...], form: str) -> tuple[float, ...]:
    """Comma-separated numbers, as many as one of `count`. Raises UserError that shows the right form."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in count or any(value != value or abs(value) == float("inf") for value in values):
        raise UserError(f"{option} {text!r}: write {form}")
    return values


def whole_numbers(text: str, option: str, count: tuple[int, ...], form: str) -> tuple[int, ...]:
    """`numbers` that are whole."""
    values = numbers(text, option, count, form)
    if any(value != int(value) for value in values):
        raise UserError(f"{option} {text!r}: write {form}, in whole numbers")
    return tuple(int(value) for value in values)


def creation_options(pairs: list[str]) -> dict[str, str]:
    """GDAL creation options from NAME=VALUE texts. Raises UserError for anything else."""
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UserError(f"--co {pair!r} is not NAME=VALUE, such as COMPRESS=ZSTD")
        options[name.upper()] = value
    return options


def readable(size: float) -> str:
    """Bytes for people: `3.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
