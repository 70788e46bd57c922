"""From columns to the bytes of files and back: pure functions, in memory, the same for both codecs.

A shard's files are a mapping from relative path to content; a shard that is one file has the empty path. Content that
is to be written may come in pieces, of which columns are some: nothing is copied before it is on its way.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from orl_ldm.buffer import hdf5, zarr3
from orl_ldm.buffer.local import Pieces
from orl_ldm.buffer.schema import SCHEMA_VERSION, CodecName, Columns, FieldSpec, ShardError

Files = Mapping[str, bytes]

#: By schema: BLAKE3 reads at three times the speed of SHA-256, which was slower than the disks.
_HASHES: Mapping[int, Callable[[], Any]] = {1: hashlib.sha256, 2: blake3}


class Codec(Protocol):
    """Two functions that know a file format and only ever see arrays in their stored dtypes."""

    def encode(self, columns: Columns) -> Mapping[str, Pieces]:
        """Files for these columns, perhaps views of them; the same columns give the same bytes."""
        ...

    def decode(self, files: Files, fields: Sequence[FieldSpec], rows: int) -> dict[str, npt.NDArray[Any]]:
        """Columns of exactly these fields, each (rows, *shape), perhaps read-only views of the files' bytes.

        Raises ShardError for anything else in the files.
        """
        ...


CODECS: Mapping[CodecName, Codec] = {"hdf5": hdf5, "zarr": zarr3}


def encode(codec: CodecName, columns: Columns, fields: Sequence[FieldSpec]) -> Mapping[str, Pieces]:
    """Files of a shard, perhaps views of its columns. Columns must already be valid (rules.column_problems)."""
    return CODECS[codec].encode({field.name: _to_stored(columns[field.name], field) for field in fields})


def decode(codec: CodecName, files: Files, fields: Sequence[FieldSpec], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Columns of a shard in their declared dtypes, read-only where they are views of the files' bytes.

    Raises ShardError; nothing in the files is ever executed.
    """
    try:
        stored = CODECS[codec].decode(files, fields, rows)
    except ShardError:
        raise
    except Exception as error:  # whatever a format library says about a file that is not in its format
        raise ShardError(f"cannot be parsed as {codec} ({type(error).__name__}: {error})") from error
    return {field.name: _from_stored(stored[field.name], field) for field in fields}


def digest(files: Mapping[str, Pieces], schema: int = SCHEMA_VERSION) -> str:
    """Hash (hex) of the single file, or of the lines "HASH, two spaces, path, newline" of all files sorted by path."""
    if set(files) == {""}:
        return _hash(files[""], schema)
    lines = (f"{_hash(files[path], schema)}  {path}\n" for path in sorted(files))
    return _hash(["".join(lines).encode()], schema)


def whole(files: Files) -> dict[str, Pieces]:
    """Files that were read, as files that can be written or hashed."""
    return {path: [content] for path, content in files.items()}


def hasher(schema: int) -> Any:
    """What digests of a schema are made with, by `update` and `hexdigest`."""
    return _HASHES[schema]()


def check_booleans(column: npt.NDArray[np.uint8], name: str) -> None:
    """Raises ShardError unless all numbers are 0 or 1."""
    if column.max(initial=0) > 1:
        raise ShardError(f"stores {column.max()} in {name!r}, where only 0 and 1 are booleans")


def _hash(pieces: Pieces, schema: int) -> str:
    hashed = hasher(schema)
    for piece in pieces:
        hashed.update(piece)
    return str(hashed.hexdigest())


def _to_stored(column: npt.NDArray[Any], field: FieldSpec) -> npt.NDArray[Any]:
    return np.ascontiguousarray(column, dtype=field.stored)


def _from_stored(column: npt.NDArray[Any], field: FieldSpec) -> npt.NDArray[Any]:
    if field.dtype != "bool":
        return column.astype(field.dtype, copy=False)
    check_booleans(column, field.name)
    return column.view(np.bool_)
