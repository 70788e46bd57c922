"""From a local HDF5 file straight into columns: each byte is read once, and hashed and judged while it is in the cache.

Nothing in the file is parsed for it: where the columns lie is known beforehand, as long as what stands between them is
what this package would write there. A file of another writer is left to `codec.decode`.
"""

from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer import codec, hdf5, rules
from orl_ldm.buffer.schema import Columns, ShardError, Sidecar

Filled = tuple[tuple[str, ...], frozenset[str]]

#: Bytes that are read, hashed and judged at a time: they stay in a processor's cache.
BLOCK = 2**22


def fill(path: Path, shard: Sidecar, into: Columns, hashes: Iterable[codec.Hash]) -> Filled | None:
    """Fill a shard's columns (C-contiguous, in the dtypes of its fields) with what nobody has vouched for yet.

    Returns the file's hashes (hex) and the names of the columns whose numbers are all finite; None, with any content in
    the columns, when the file is not laid out as this package does it. Raises ShardError for a file that ends too
    early, and OSError when it cannot be read.
    """
    stored = {field.name: field.stored for field in shard.fields}
    columns = {name: into[name].reshape(-1).view(_as_bytes(into[name])) for name in stored}
    if any(columns[name].dtype != dtype for name, dtype in stored.items()):
        return None  # a big-endian machine
    hashed, finite = [new() for new in hashes], set[str]()
    shapes = tuple((name, dtype.str, into[name].shape) for name, dtype in stored.items())
    with path.open("rb", buffering=0) as file:
        for part in hdf5.skeleton(shapes):
            if isinstance(part, bytes):
                between = bytearray(len(part))
                _read(file, memoryview(between))
                _update(hashed, between)
                if between != part:
                    return None
            else:
                step, sound = BLOCK // stored[part].itemsize, stored[part].kind == "f"
                for start in range(0, columns[part].size, step):
                    block = columns[part][start : start + step]
                    _read(file, block.data.cast("B"))
                    _update(hashed, block.data.cast("B"))
                    sound = sound and rules.is_finite(block)
                finite |= {part} if sound else set()
        return None if file.read(1) else (tuple(one.hexdigest() for one in hashed), frozenset(finite))


def _as_bytes(column: npt.NDArray[np.generic]) -> np.dtype[np.generic]:
    """Booleans are looked at as the bytes that they are stored as."""
    return np.dtype(np.uint8) if column.dtype == np.bool_ else column.dtype


def _update(hashed: Iterable[Any], content: bytearray | memoryview) -> None:
    for one in hashed:
        one.update(content)


def _read(file: FileIO, into: memoryview) -> None:
    """Fill `into` from where the file stands."""
    done = 0
    while done < len(into):
        read = file.readinto(into[done:])
        if not read:
            raise ShardError("has data that were cut off while they were read")
        done += read
