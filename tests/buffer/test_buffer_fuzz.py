"""Random damage by a fuzzer: whatever the bytes, a shard is read as it was written or refused, in little memory.

The fuzzer computes digests and seals anew, as an attacker would, so that nothing is caught by a hash.
"""

import json
import tracemalloc
from collections.abc import Mapping

import numpy as np
import pytest
from buffer_samples import HEADER, columns, encoded, images, name
from hypothesis import given, settings
from hypothesis import strategies as st

from orl_ldm.buffer import codec, schema, sidecar
from orl_ldm.buffer.schema import CodecName, ShardError

FIELDS = schema.field_specs(HEADER)
HDF5 = encoded("hdf5", columns())
ZARR = encoded("zarr", columns())
SIDECAR = sidecar.dumps(schema.Sidecar(name(0), "hdf5", HEADER, 6, 3, 9000, "c" * 64, FIELDS, tuple(images(columns()))))

#: The shard is a few kilobytes: nobody who reads it needs more than this.
MOST_BYTES = 2**22

changes = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=12)


def changed(content: bytes, places: list[tuple[int, int]], metadata: int) -> bytes:
    """The content with bytes replaced, of the first `metadata` only."""
    damaged = bytearray(content)
    for place, byte in places:
        damaged[place % min(metadata, len(content))] = byte
    return bytes(damaged)


def read_or_refused(codec_name: CodecName, files: Mapping[str, bytes]) -> None:
    """Decode within the memory limit; what comes out has the declared form."""
    tracemalloc.start()
    try:
        found = codec.decode(codec_name, files, FIELDS, 6)
    except ShardError:
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_BYTES
    for field in FIELDS:
        assert found[field.name].dtype == field.dtype and found[field.name].shape == (6, *field.shape)
        np.asarray(found[field.name]).tobytes()  # every byte of it can be looked at


@settings(max_examples=150, deadline=2000)
@given(places=changes, metadata=st.sampled_from([100, 2**11, 2**16]), cut=st.integers(0, 400))
def test_hdf5_files(places: list[tuple[int, int]], metadata: int, cut: int) -> None:
    content = HDF5[""]
    read_or_refused("hdf5", {"": changed(content, places, metadata)[: len(content) - cut]})


@settings(max_examples=100, deadline=2000)
@given(path=st.sampled_from(sorted(ZARR)), places=changes)
def test_zarr_files(path: str, places: list[tuple[int, int]]) -> None:
    read_or_refused("zarr", ZARR | {path: changed(ZARR[path], places, 2**16)})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
ARRAY = json.loads(ZARR["observations/zarr.json"])
DOCUMENT = json.loads(SIDECAR)["shard"]


@settings(max_examples=100, deadline=2000)
@given(key=st.sampled_from(sorted(ARRAY)), value=values)
def test_zarr_metadata_of_any_values(key: str, value: object) -> None:
    read_or_refused("zarr", ZARR | {"observations/zarr.json": json.dumps(ARRAY | {key: value}).encode()})


@settings(max_examples=200, deadline=2000)
@given(key=st.sampled_from(sorted(DOCUMENT)), value=values, deep=st.booleans())
def test_sidecars_of_any_values(key: str, value: object, deep: bool) -> None:
    """Sealed anew, with any value anywhere: refused in one line, or as sound as any sidecar."""
    document = json.loads(SIDECAR)["shard"]
    where = document[key] if deep and isinstance(document[key], dict) else document
    where[key if where is document else sorted(where)[hash(repr(value)) % len(where)]] = value
    try:
        found = sidecar.loads(sidecar.sealed(json.dumps(document).encode(), ""), name(0))
    except ShardError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return
    assert found.rows * sum(field.row_bytes for field in found.fields) <= found.bytes <= schema.MAX_SHARD_BYTES


@settings(max_examples=200, deadline=2000)
@given(places=changes)
def test_sidecars_of_any_bytes(places: list[tuple[int, int]]) -> None:
    damaged = changed(SIDECAR, places, 2**16)
    if damaged != SIDECAR:
        with pytest.raises(ShardError):
            sidecar.loads(damaged, name(0))
