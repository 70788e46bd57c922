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
from xxhash import xxh3_128

from orl_ldm.buffer import hdf5, zarr3
from orl_ldm.buffer.local import Pieces
from orl_ldm.buffer.schema import CodecName, Columns, FieldSpec, ShardError

Files = Mapping[str, bytes]

Hash = Callable[[], Any]  # makes something with `update` and `hexdigest`

#: By schema: BLAKE3 reads at three times the speed of SHA-256, which was slower than the disks.
DIGESTS: Mapping[int, Hash] = {1: hashlib.sha256, 2: blake3, 3: blake3}

#: Finds damage as surely, at the speed of memory, but not forgery.
CHECKSUM: Hash = xxh3_128


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


def hashed(files: Mapping[str, Pieces], *hashes: Hash) -> tuple[str, ...]:
    """By each hash, the hex of the single file, or of the lines "HEX, two spaces, path, newline" of all, by path."""
    if set(files) == {""}:
        return _hashed(files[""], hashes)
    lines = [[f"{one}  {path}\n" for one in _hashed(files[path], hashes)] for path in sorted(files)]
    texts = ("".join(parts).encode() for parts in zip(*lines, strict=True))
    return tuple(_hashed([text], [new])[0] for text, new in zip(texts, hashes, strict=True))


def whole(files: Files) -> dict[str, Pieces]:
    """Files that were read, as files that can be written or hashed."""
    return {path: [content] for path, content in files.items()}


def check_booleans(column: npt.NDArray[np.uint8], name: str) -> None:
    """Raises ShardError unless all numbers are 0 or 1."""
    if column.max(initial=0) > 1:
        raise ShardError(f"stores {column.max()} in {name!r}, where only 0 and 1 are booleans")


def _hashed(pieces: Pieces, hashes: Sequence[Hash]) -> tuple[str, ...]:
    begun = [new() for new in hashes]
    for piece in pieces:
        for one in begun:  # (one after the other while a piece may still be in the cache)
            one.update(piece)
    return tuple(str(one.hexdigest()) for one in begun)


def _to_stored(column: npt.NDArray[Any], field: FieldSpec) -> npt.NDArray[Any]:
    return np.ascontiguousarray(column, dtype=field.stored)


def _from_stored(column: npt.NDArray[Any], field: FieldSpec) -> npt.NDArray[Any]:
    if field.dtype != "bool":
        return column.astype(field.dtype, copy=False)
    check_booleans(column, field.name)
    return column.view(np.bool_)
