"""Arrays that live in memory, or in files without a name that are mapped into it.

Such a file is gone as soon as nothing maps it any more, however the process ends.
"""

import errno
import math
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from orl_ldm.config import cache_folder
from orl_ldm.errors import UserError

_BLOCK = 2**20


def folder_for(size: int, limit: int) -> Path | None:
    """The folder in which to map `size` bytes that exceed `limit`; None when they may stay in memory.

    A limit of 0 is none.
    """
    return cache_folder() / "columns" if 0 < limit < size else None


def memory_error(size: int) -> UserError:
    """The error when `size` bytes do not fit in memory."""
    return UserError(
        f"the buffer needs {size / 2**30:.1f} GiB of memory; set memory_limit (in bytes) to map it from disk"
    )


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
            _allocate(file, size)
            return np.memmap(file, dtype, "w+", shape=shape).view(np.ndarray)
    except MemoryError:
        raise memory_error(size) from None
    except OSError as error:
        raise UserError(
            f"cannot map {size / 2**30:.1f} GiB below {folder}: {error.strerror}; make room, or set ORL_LDM_CACHE"
        ) from error


def _allocate(file: IO[bytes], size: int) -> None:
    """Take the file's room on disk now: later, a full disk would kill the process with SIGBUS."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        # The system or the file system does not support it: write zeros instead.
        for start in range(0, size, _BLOCK):
            file.write(bytes(min(_BLOCK, size - start)))
        file.flush()


def compact(column: npt.NDArray[Any], keep: npt.NDArray[np.bool_], block: int = 2**16) -> npt.NDArray[Any]:
    """The rows of `column` where `keep` is true, moved to its front in place, a block at a time."""
    done = 0
    for start in range(0, len(column), block):
        kept = column[start : start + block][keep[start : start + block]]
        column[done : done + len(kept)] = kept
        done += len(kept)
    return column[:done]
