"""Shards made to deceive: their sidecars match their files, so that only what is inside gives them away."""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from buffer_samples import HEADER, columns, encoded, forge, images, name, write
from test_buffer_damage import assert_only_first_is_bad

import orl_ldm.buffer as buffer_package
from orl_ldm.buffer import BufferWriter, FieldSpec, ImageRef, read, schema, sidecar
from orl_ldm.buffer.schema import ShardError

SECRET = "/etc/hostname"


def hdf5_files(change: Callable[[h5py.File], Any]) -> dict[str, bytes]:
    """An honest HDF5 shard after `change`."""
    content = io.BytesIO(encoded("hdf5", columns())[""])
    with h5py.File(content, "r+") as file:
        change(file)
    return {"": content.getvalue()}


def replaced(make: Callable[[h5py.File], Any]) -> Callable[[h5py.File], Any]:
    """Put something else in the place of the log-probabilities."""

    def change(file: h5py.File) -> None:
        del file["log_probs"]
        make(file)

    return change


def external_link(file: h5py.File) -> None:
    file["log_probs"] = h5py.ExternalLink("other.h5", "/log_probs")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("log_probs", (6,), "<f4", external=[(SECRET, 0, 24)])


def soft_link(file: h5py.File) -> None:
    file["log_probs"] = h5py.SoftLink("/actions")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((6,), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "log_probs", (6,))
    file.create_virtual_dataset("log_probs", layout)


def variable_length(file: h5py.File) -> None:
    file.create_dataset("log_probs", data=["a"] * 6, dtype=h5py.string_dtype())


def ragged(file: h5py.File) -> None:
    file.create_dataset("log_probs", (6,), dtype=h5py.vlen_dtype(np.float32))


def reference(file: h5py.File) -> None:
    file.create_dataset("log_probs", (6,), dtype=h5py.ref_dtype)


def compound(file: h5py.File) -> None:
    file.create_dataset("log_probs", data=np.zeros(6, [("a", "<f2"), ("b", "<f2")]))


def bomb(file: h5py.File) -> None:
    file.create_dataset("log_probs", (10**9,), "<f4", chunks=(10**6,), compression="gzip")


def compressed(file: h5py.File) -> None:
    file.create_dataset("log_probs", data=np.zeros(6, "<f4"), compression="lzf")


def unwritten(file: h5py.File) -> None:
    file.create_dataset("log_probs", (6,), "<f4")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replaced(external_link), "HDF5 external link as 'log_probs'; links are refused"),
        (replaced(soft_link), "HDF5 soft link as 'log_probs'; links are refused"),
        (replaced(external_storage), "a dataset in another file"),
        (replaced(virtual), "a virtual dataset"),
        (replaced(variable_length), "'log_probs' as object"),
        (replaced(ragged), "'log_probs' as object"),
        (replaced(reference), "'log_probs' as object"),
        (replaced(compound), "'log_probs' as [('a'"),
        (replaced(bomb), "only contiguous, unfiltered data are read"),
        (replaced(compressed), "the filters ['lzf']"),
        (replaced(unwritten), "no data behind 'log_probs', which would read as zeros"),
        (replaced(lambda file: file.create_group("log_probs")), "HDF5 group or type as 'log_probs'"),
        (replaced(lambda file: file.create_dataset("log_probs", data=np.zeros(6, ">f4"))), "'log_probs' as >f4"),
        (replaced(lambda file: file.create_dataset("log_probs", data=np.zeros(6, "<f8"))), "'log_probs' as float64"),
        (replaced(lambda file: file.create_dataset("log_probs", data=np.zeros(10**6, "<f4"))), "(1000000,)"),
        (replaced(lambda file: None), "missing or unknown HDF5 objects: log_probs"),
        (lambda file: file.create_group("more"), "missing or unknown HDF5 objects: more"),
        (lambda file: file["log_probs"].write_direct(np.full(6, np.nan, "<f4")), "not finite"),
        (lambda file: file["terminals"].write_direct(np.full(6, 2, "u1")), "only 0 and 1 are booleans"),
        (lambda file: file["episode_id"].write_direct(np.arange(6)), "'episode_id' on row 1"),
    ],
)
def test_hostile_hdf5_is_refused(tmp_path: Path, change: Callable[[h5py.File], Any], reason: str) -> None:
    (tmp_path / "buffer").mkdir()
    with h5py.File(tmp_path / "buffer" / "other.h5", "w") as file:
        file["log_probs"] = np.ones(6, np.float32)
    forge(tmp_path / "buffer", 0, hdf5_files(change), "hdf5")
    write(tmp_path / "buffer", 3)
    assert_only_first_is_bad(tmp_path / "buffer", reason)


def edited(path: str, **changes: Any) -> Callable[[dict[str, bytes]], Any]:
    def change(files: dict[str, bytes]) -> None:
        files[path] = json.dumps(json.loads(files[path]) | changes).encode()

    return change


SHARDING = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [6],
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    },
}
GRID = {"name": "regular", "configuration": {"chunk_shape": [1]}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda files: files.pop("log_probs/c/0"), "missing or unknown Zarr files: log_probs/c/0"),
        (lambda files: files.pop("log_probs/zarr.json"), "missing or unknown Zarr files: log_probs/zarr.json"),
        (lambda files: files.pop("zarr.json"), "missing or unknown Zarr files: zarr.json"),
        (lambda files: files.update({"more": b"x"}), "missing or unknown Zarr files: more"),
        (lambda files: files.update({"log_probs/c/0": b"short"}), "of 5 bytes where 28 are needed"),
        (edited("log_probs/zarr.json", codecs=[{"name": "pickle"}]), "whose ['codecs'] differ"),
        (edited("log_probs/zarr.json", codecs=[SHARDING]), "whose ['codecs'] differ"),
        (edited("log_probs/zarr.json", data_type="float64"), "whose ['data_type'] differ"),
        (edited("log_probs/zarr.json", shape=[10**12]), "whose ['shape'] differ"),
        (edited("log_probs/zarr.json", zarr_format=2), "whose ['zarr_format'] differ"),
        (edited("log_probs/zarr.json", chunk_grid=GRID), "whose ['chunk_grid'] differ"),
        (edited("log_probs/zarr.json", chunk_key_encoding={"name": "v2"}), "whose ['chunk_key_encoding'] differ"),
        (edited("log_probs/zarr.json", storage_transformers=[{"name": "x"}]), "whose ['storage_transformers'] differ"),
        (edited("log_probs/zarr.json", must_understand=True), "whose ['must_understand'] differ"),
        (edited("zarr.json", consolidated_metadata={}), "whose ['consolidated_metadata'] differ"),
        (lambda files: files.update({"zarr.json": b"[]"}), "cannot be parsed as zarr"),
        (lambda files: files.update({"zarr.json": b"{"}), "cannot be parsed as zarr"),
    ],
)
def test_hostile_zarr_is_refused(tmp_path: Path, change: Callable[[dict[str, bytes]], Any], reason: str) -> None:
    files = encoded("zarr", columns())
    change(files)
    forge(tmp_path, 0, files, "zarr")
    write(tmp_path, 3, "zarr")
    assert_only_first_is_bad(tmp_path, reason)


def test_metadata_that_change_no_number_are_free(tmp_path: Path) -> None:
    """Another version of the Zarr library, or another writer, may write them otherwise."""
    files = encoded("zarr", columns())
    edited("log_probs/zarr.json", fill_value=1.0, attributes={"unit": "nats"}, storage_transformers=[])(files)
    edited("zarr.json", attributes={"made by": "somebody"})(files)
    forge(tmp_path, 0, files, "zarr")
    np.testing.assert_array_equal(read(tmp_path, strict=True).log_probs, columns()["log_probs"])


def test_an_hdf5_file_of_another_writer_is_read(tmp_path: Path) -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for field in reversed(schema.field_specs(HEADER)):
            file.create_dataset(field.name, data=columns()[field.name].astype(field.stored), track_times=True)
            file[field.name].attrs["note"] = "mine"
    forge(tmp_path, 0, {"": content.getvalue()}, "hdf5")
    np.testing.assert_array_equal(read(tmp_path, strict=True).observations, columns()["observations"])


@pytest.mark.parametrize(
    ("lies", "reason"),
    [
        ({"name": "../../etc/passwd"}, "has the sidecar of '../../etc/passwd'"),
        ({"name": "/etc/passwd"}, "has the sidecar of '/etc/passwd'"),
        ({"name": name(9)}, f"has the sidecar of '{name(9)}'"),
        ({"digest": "../" * 21 + "x"}, "not 64 lower-case hex digits"),
        ({"digest": "A" * 64}, "not 64 lower-case hex digits"),
        ({"codec": "pickle"}, "codec is wrong: Input should be 'hdf5' or 'zarr'"),
        ({"rows": 10**12}, "in memory; 1073741824 is the most allowed"),
        ({"rows": 5}, "where float32 (5, 3) is declared"),
        ({"rows": True}, "rows is wrong: Input should be a valid integer"),
        ({"rows": 6.0}, "rows is wrong: Input should be a valid integer"),
        ({"rows": 0}, "which cannot be"),
        ({"bytes": 2**62}, "is the most allowed"),
        ({"bytes": -1}, "is the most allowed"),
        ({"bytes": 1}, "columns of 366 bytes in 1 bytes of data, which cannot be"),
        ({"bytes": 2**20}, "bytes of data where 1048576 are declared"),
        ({"episodes": 2}, "has 3 episodes where its sidecar declares 2"),
        ({"episodes": 7}, "which cannot be"),
        ({"fields": ()}, "declares other columns"),
        ({"fields": (*schema.field_specs(HEADER), FieldSpec("more", "float32", ()))}, "declares other columns"),
        ({"images": ()}, "rows of image 0"),
        ({"images": (ImageRef(0, "a", "b"),) * 2}, "lists image 0 twice"),
        ({"images": (ImageRef(2**63, "a", "b"),)}, "lists an image id that does not fit in 64 bits"),
    ],
)
def test_a_sidecar_that_lies_is_refused(tmp_path: Path, lies: dict[str, Any], reason: str) -> None:
    files = encoded("hdf5", columns())
    folder = tmp_path / "deep" / "buffer"
    folder.mkdir(parents=True)
    if {"name", "digest", "codec"} & set(lies):  # a path that leaves the buffer: the sidecar is all there is
        described = forge(folder, 0, files, "hdf5")
        (folder / f"{name(0)}.json").write_bytes(sidecar.dumps(replace(described, **lies)))
    else:
        forge(folder, 0, files, "hdf5", **lies)
    write(folder, 3)
    assert_only_first_is_bad(folder, reason)


@pytest.mark.parametrize(
    ("shard", "reason"),
    [
        ('{"rows": 1, "rows": 1}', "a key is repeated"),
        ('{"rows": NaN}', "NaN is not a JSON number"),
        ('{"name": 1}', "name is wrong"),
        ('{"rows": ' + "9" * 5000 + "}", "not JSON"),
        ("{" * 10**5 + "}", "not JSON"),
        (f'{{"{"x" * 10**6}": 1}}', "is wrong"),
    ],
    ids=range(6),
)
def test_json_tricks_are_refused_in_one_short_line(shard: str, reason: str) -> None:
    with pytest.raises(ShardError, match="sidecar") as caught:
        sidecar.loads(sidecar.sealed(shard.encode(), ""), name(0))
    assert reason in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("header",), []),
        (("header", "seed"), 1.5),
        (("header", "extra"), 1),
        (("header", "feature_names"), "abc"),
        (("header", "feature_names"), [1, 2, 3]),
        (("header", "action_low"), [0.0]),
        (("header", "action_low"), [None, 0.0]),
        (("header", "action_high"), [10**400, 1.0]),
        (("header", "nfe_max"), -1),
        (("header", "packages"), {"numpy": 2}),
        (("images",), {"0": "x"}),
        (("images",), ["x"]),
        (("images",), [{"image_id": 0, "name": "x"}]),
        (("fields",), [{"name": "observations", "dtype": "object", "shape": [None]}]),
        (("extra",), 1),
    ],
)
def test_a_sidecar_of_wrong_types_is_refused(path: tuple[str, ...], value: object) -> None:
    doc = json.loads(sidecar.dumps(write(f"memory://types/{uuid.uuid4().hex}", 0)))["shard"]
    where = doc
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    with pytest.raises(ShardError, match=f"{path[-1]}|shape|Infinity|large|header that cannot"):
        sidecar.loads(sidecar.sealed(json.dumps(doc).encode(), ""), name(0))


def test_a_sidecar_from_another_writer_is_read_in_any_layout_of_its_shard() -> None:
    described = write("memory://layout", 0)
    shard = json.dumps(json.loads(sidecar.dumps(described))["shard"], indent=2, sort_keys=True).encode()
    rest = b'", "signature": "", "shard": ' + shard + b"}\n"  # from the format's definition
    content = b'{"schema": 4, "seal": "' + hashlib.sha256(rest).hexdigest().encode() + rest
    assert sidecar.loads(content, name(0)) == described


@pytest.mark.parametrize("stem", ["a b", ".hidden", "x" * 130, "-x", "né"])
def test_a_sidecar_under_a_name_that_is_not_allowed_is_quarantined(tmp_path: Path, stem: str) -> None:
    write(tmp_path, 3)
    (tmp_path / f"{stem}.json").write_bytes((tmp_path / f"{name(3)}.json").read_bytes())
    assert "name that is not allowed" in read(tmp_path).quarantined[stem]


def test_links_and_pipes_on_the_file_system_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "buffer"
    (flat, deep, side) = write(folder, 0), write(folder, 6, "zarr"), write(folder, 9)
    write(folder, 3)
    pipe = write(folder, 12)
    for path in (folder / flat.data, folder / deep.data / "log_probs", folder / f"{side.name}.json"):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    (folder / pipe.data).unlink()
    os.mkfifo(folder / pipe.data)  # opening it would wait for ever
    buffer = read(folder)
    assert buffer.shards == (name(3),)
    assert set(buffer.quarantined) == {name(0), name(6), name(9), name(12)}


def test_a_symbolic_link_to_a_whole_buffer_is_the_users_own(tmp_path: Path) -> None:
    described = write(tmp_path / "real", 0)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert read(tmp_path / "link").shards == (described.name,)


def test_an_unreadable_shard_is_quarantined(tmp_path: Path) -> None:
    described, _ = write(tmp_path, 0), write(tmp_path, 3)
    (tmp_path / described.data).unlink()
    (tmp_path / described.data).mkdir()  # a folder where a file belongs
    assert_only_first_is_bad(tmp_path, "is missing")


def test_nothing_in_this_package_can_unpickle() -> None:
    for path in Path(buffer_package.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert not any(word in text for word in ("import pickle", "allow_pickle", "np.load", "torch.load", "eval("))


def test_images_are_only_names(tmp_path: Path) -> None:
    """An image's name is never opened here, so that it may be anything; it comes back as it was given."""
    data = columns()
    refs = [ImageRef(ref.image_id, "../../etc/passwd", ref.scene) for ref in images(data)]
    BufferWriter(tmp_path, HEADER).write(name(0), data, refs)
    assert read(tmp_path).images[0].name == "../../etc/passwd"
