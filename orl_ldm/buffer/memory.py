"""Where columns live: in memory, or in files without a name that are mapped into it.

Such a file is gone as soon as nothing maps it any more, however the process ends, so that none is ever left behind,
found by anybody else, or read again after it was damaged.
"""

import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import FieldSpec
from orl_ldm.config import cache_folder
from orl_ldm.errors import UserError

#: Columns begin at multiples of this: a line of a core's cache.
LINE = 64


def folder_for(size: int, limit: int) -> Path | None:
    """Where to map `size` bytes that exceed `limit`; None when they may stay in memory, as with a limit of 0."""
    return cache_folder() / "columns" if 0 < limit < size else None


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike, folder: Path | None = None) -> npt.NDArray[Any]:
    """An array of this shape with any content: in memory, or in a file below `folder`.

    Raises UserError when there is no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        if folder is None or size == 0:
            return np.empty(shape, dtype)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is met here, and not as a SIGBUS when a page is written
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "w+", shape=shape).view(np.ndarray)
    except MemoryError:
        raise UserError(
            f"the buffer needs {size / 2**30:.1f} GiB of memory; set memory_limit (in bytes) to map it from disk"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot map {size / 2**30:.1f} GiB below {folder}: {error.strerror}; make room, or set ORL_LDM_CACHE"
        ) from error


def columns(fields: Iterable[FieldSpec], rows: int, folder: Path | None = None) -> dict[str, npt.NDArray[Any]]:
    """Columns (rows, *shape) with any content, side by side in one `empty`.

    An operating system hands out one large room in larger pages than several smaller ones, which takes half the time.
    """
    sizes = {field: rows * field.row_bytes for field in fields}
    room = empty((sum(-(-size // LINE) * LINE for size in sizes.values()),), np.uint8, folder)
    result, start = {}, 0
    for field, size in sizes.items():
        result[field.name] = room[start : start + size].view(field.dtype).reshape(rows, *field.shape)
        start += -(-size // LINE) * LINE
    return result


def compact(column: npt.NDArray[Any], keep: npt.NDArray[np.bool_], block: int = 2**16) -> npt.NDArray[Any]:
    """The rows of `column` where `keep` is true, moved to its front in place, a block at a time."""
    done = 0
    for start in range(0, len(column), block):
        kept = column[start : start + block][keep[start : start + block]]
        column[done : done + len(kept)] = kept
        done += len(kept)
    return column[:done]
