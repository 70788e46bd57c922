"""Columns as the bytes of files, and back: pure functions, the same for both codecs.

A shard's files are a mapping from relative path to content; a shard of one file has the empty path.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from blake3 import blake3

from orl_ldm.buffer import hdf5, zarr3
from orl_ldm.buffer.schema import CodecName, Columns, FieldSpec, ShardError

Files = Mapping[str, bytes]


_ENCODERS = {"hdf5": hdf5.encode, "zarr": zarr3.encode}
_DECODERS = {"hdf5": hdf5.decode, "zarr": zarr3.decode}


def encode(codec: CodecName, columns: Columns, fields: Sequence[FieldSpec]) -> Files:
    """Files of a shard; the same columns give the same bytes. Columns must be valid (validation.column_problems)."""
    stored = {field.name: np.ascontiguousarray(columns[field.name], dtype=field.stored) for field in fields}
    return _ENCODERS[codec](stored)


def decode(codec: CodecName, files: Files, fields: Sequence[FieldSpec], rows: int) -> Columns:
    """Columns of exactly these fields, each (rows, *shape), in their declared dtypes.

    Raises ShardError for anything else in the files; nothing in them is ever executed.
    """
    try:
        stored = _DECODERS[codec](files, fields, rows)
    except (ShardError, MemoryError):
        raise
    except Exception as error:  # whatever a format library raises for a file that is not in its format
        raise ShardError(f"cannot be parsed as {codec} ({type(error).__name__}: {error})") from error
    for field in fields:
        if field.dtype == "bool" and (largest := stored[field.name].max(initial=0)) > 1:
            raise ShardError(f"stores {largest} in {field.name!r}, where only 0 and 1 are booleans")
    return {field.name: stored[field.name].astype(field.dtype, copy=False) for field in fields}


def digest(files: Files) -> str:
    """BLAKE3 (hex) of the single file, or of the lines "HEX, two spaces, path, newline" of all files, by path."""
    if set(files) == {""}:
        return blake3(files[""]).hexdigest()
    lines = (f"{blake3(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    return blake3("".join(lines).encode()).hexdigest()
