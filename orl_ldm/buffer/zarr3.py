"""Zarr v3 shards: a group with one array of one chunk for each column, closed by a CRC-32C, nothing else.

A missing chunk would read as zeros, so the set of files must be exactly the expected one. Nothing is compressed, so
every chunk's size is known before it is parsed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from orl_ldm.buffer.schema import Columns, FieldSpec, ShardError

_CRC_BYTES = 4

#: Metadata that do not change the meaning of chunks that are all there.
_FREE = {"attributes", "fill_value", "dimension_names"}


def encode(columns: Columns) -> dict[str, bytes]:
    """The group's files by relative path."""
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(store_dict=files))
    for name, column in columns.items():
        _create(group, name, column.shape, column.dtype)[...] = column
    return {path: buffer.to_bytes() for path, buffer in files.items()}


def decode(files: Mapping[str, bytes], fields: Sequence[FieldSpec], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Columns (rows, *shape) in their stored dtypes.

    Raises ShardError for missing chunks, and for metadata other than `encode` writes, with other codecs above all.
    """
    metadata: dict[str, Any] = {}
    expected = zarr.create_group(MemoryStore(store_dict=metadata))
    chunks: dict[str, int] = {}  # path -> bytes
    for field in fields:
        _create(expected, field.name, (rows, *field.shape), field.stored)
        chunks["/".join([field.name, "c", "0", *("0" for _ in field.shape)])] = rows * field.row_bytes + _CRC_BYTES
    if difference := {*metadata, *chunks} ^ set(files):
        raise ShardError(f"has missing or unknown Zarr files: {', '.join(sorted(difference)[:10])}")
    for path, buffer in metadata.items():
        found, ours = _meaning(files[path]), _meaning(buffer.to_bytes())
        if different := sorted(key for key in {*found, *ours} if found.get(key) != ours.get(key)):
            raise ShardError(f"has the metadata {path}, whose {different} differ from those of a plain chunk")
    for path, size in chunks.items():
        if len(files[path]) != size:
            raise ShardError(f"has the Zarr file {path} of {len(files[path])} bytes where {size} are needed")
    store = MemoryStore(store_dict={path: Buffer.from_bytes(content) for path, content in files.items()})
    group = zarr.open_group(store, mode="r", zarr_format=3)
    return {field.name: np.asarray(group[field.name][...], dtype=field.stored) for field in fields}  # type: ignore[index]


def _create(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> "zarr.Array[Any]":
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=shape,
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": True},  # a chunk of zeros is data like any other
    )


def _meaning(content: bytes) -> dict[str, Any]:
    """The metadata that decide what chunks mean; empty ones are left out."""
    return {key: value for key, value in json.loads(content).items() if key not in _FREE and value not in (None, [])}
