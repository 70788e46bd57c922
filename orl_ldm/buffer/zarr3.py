"""Zarr v3 shards: a group with one array for each column, little-endian bytes closed by a CRC-32C, nothing else.

A chunk that is missing would read as zeros, so the set of files must be exactly the one that the metadata ask for; and
as nothing is compressed, every chunk's size is known before it is parsed.
"""

import itertools
import json
import math
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
_GROUP_KEYS = {"zarr_format", "node_type", "attributes"}
_ARRAY_KEYS = {
    *("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs"),
    *("attributes", "storage_transformers", "dimension_names"),
}
_KEY_ENCODING = {"name": "default", "configuration": {"separator": "/"}}


def encode(columns: Columns) -> dict[str, list[bytes]]:
    """The group's files by relative path: one chunk for each column."""
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(store_dict=files))
    for name, column in columns.items():
        array = group.create_array(
            name,
            shape=column.shape,
            dtype=column.dtype,
            chunks=column.shape,
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},  # a chunk of zeros is data like any other
        )
        array[...] = column
    return {path: [buffer.to_bytes()] for path, buffer in files.items()}


def decode(files: Mapping[str, bytes], fields: Sequence[FieldSpec], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Columns (rows, *shape) in their stored dtypes. Raises ShardError for missing chunks, other codecs or damage."""
    if set(_json(files, "zarr.json")) - _GROUP_KEYS:
        raise ShardError("has a Zarr group with unknown metadata")
    sizes = {"zarr.json": len(files["zarr.json"])}
    for field in fields:
        path = f"{field.name}/zarr.json"
        sizes[path] = len(files.get(path, b""))
        chunk = _chunk_shape(_json(files, path), field, (rows, *field.shape))
        chunk_bytes = math.prod(chunk) * field.stored.itemsize + _CRC_BYTES
        sizes.update(dict.fromkeys(_chunk_keys(field, rows, chunk, present=len(files)), chunk_bytes))
    if difference := set(sizes) ^ set(files):
        raise ShardError(f"has missing or unknown Zarr files: {', '.join(sorted(difference)[:10])}")
    for path, size in sizes.items():
        if len(files[path]) != size:
            raise ShardError(f"has the Zarr file {path} of {len(files[path])} bytes where {size} are needed")
    store = MemoryStore(store_dict={path: Buffer.from_bytes(content) for path, content in files.items()})
    group = zarr.open_group(store, mode="r", zarr_format=3)
    return {field.name: _read(group, field) for field in fields}


def _read(group: zarr.Group, field: FieldSpec) -> npt.NDArray[Any]:
    array = group[field.name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...], dtype=field.stored)


def _json(files: Mapping[str, bytes], path: str) -> dict[str, Any]:
    if path not in files:
        raise ShardError(f"has no Zarr file {path}")
    doc = json.loads(files[path])
    node = "group" if path == "zarr.json" else "array"
    if not isinstance(doc, dict) or doc.get("zarr_format") != 3 or doc.get("node_type") != node:
        raise ShardError(f"has a Zarr file {path} that does not describe a Zarr v3 {node}")
    return doc


def _chunk_shape(doc: Mapping[str, Any], field: FieldSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a chunk from an array's metadata, once everything in them is known to be harmless."""
    stored = field.stored.name
    if doc.get("data_type") != stored or doc.get("shape") != list(shape):
        found = f"{doc.get('data_type')} {doc.get('shape')}"
        raise ShardError(f"stores {field.name!r} as {found} where {stored} {list(shape)} is declared")
    order = {} if field.stored.itemsize == 1 else {"configuration": {"endian": "little"}}
    if doc.get("codecs") != [{"name": "bytes", **order}, {"name": "crc32c"}]:
        raise ShardError(f"stores {field.name!r} with the codecs {doc.get('codecs')}; only bytes, crc32c are read")
    unknown = set(doc) - _ARRAY_KEYS
    if unknown or doc.get("storage_transformers") or doc.get("chunk_key_encoding") != _KEY_ENCODING:
        raise ShardError(f"has Zarr metadata of {field.name!r} that are not read here: {sorted(unknown)}")
    grid = doc.get("chunk_grid")
    if not isinstance(grid, dict) or grid.get("name") != "regular":
        raise ShardError(f"has a chunk grid of {field.name!r} that is not regular")
    chunk = grid.get("configuration", {}).get("chunk_shape")
    if not (isinstance(chunk, list) and len(chunk) == len(shape) and all(type(n) is int and n > 0 for n in chunk)):
        raise ShardError(f"has chunks of {field.name!r} with the impossible shape {chunk}")
    return tuple(chunk)


def _chunk_keys(field: FieldSpec, rows: int, chunk: tuple[int, ...], present: int) -> list[str]:
    """Every chunk's path. Raises ShardError before listing more chunks than there are files present."""
    counts = [-(-size // step) for size, step in zip((rows, *field.shape), chunk, strict=True)]
    if math.prod(counts) > present:
        raise ShardError(f"has missing Zarr chunks of {field.name!r}, which would read as zeros")
    return ["/".join((field.name, "c", *map(str, index))) for index in itertools.product(*map(range, counts))]
