"""Shards made to deceive: their sidecars match their files, so that only what is inside gives them away."""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from buffer_samples import HEADER, columns, encoded, forge, images, name, write
from test_buffer_damage import assert_only_first_is_bad

import orl_ldm.buffer as buffer_package
from orl_ldm.buffer import BufferWriter, FieldSpec, ImageRef, read, schema, sidecar
from orl_ldm.buffer.schema import Images, ShardError

SECRET = "/etc/hostname"


def hdf5_files(change: Callable[[h5py.File], Any]) -> dict[str, bytes]:
    """An honest HDF5 shard after `change`."""
    content = io.BytesIO(encoded("hdf5", columns(), schema.field_specs(HEADER))[""])
    with h5py.File(content, "r+") as file:
        change(file)
    return {"": content.getvalue()}


def replaced(make: Callable[[h5py.File], Any]) -> Callable[[h5py.File], Any]:
    """Put something else in the place of the rewards."""

    def change(file: h5py.File) -> None:
        del file["rewards"]
        make(file)

    return change


def external_link(file: h5py.File) -> None:
    file["rewards"] = h5py.ExternalLink("other.h5", "/rewards")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("rewards", (6,), "<f4", external=[(SECRET, 0, 24)])


def soft_link(file: h5py.File) -> None:
    file["rewards"] = h5py.SoftLink("/potentials")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((6,), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "rewards", (6,))
    file.create_virtual_dataset("rewards", layout)


def variable_length(file: h5py.File) -> None:
    file.create_dataset("rewards", data=["a"] * 6, dtype=h5py.string_dtype())


def ragged(file: h5py.File) -> None:
    file.create_dataset("rewards", (6,), dtype=h5py.vlen_dtype(np.float32))


def reference(file: h5py.File) -> None:
    file.create_dataset("rewards", (6,), dtype=h5py.ref_dtype)


def compound(file: h5py.File) -> None:
    file.create_dataset("rewards", data=np.zeros(6, [("a", "<f2"), ("b", "<f2")]))


def bomb(file: h5py.File) -> None:
    file.create_dataset("rewards", (10**9,), "<f4", chunks=(10**6,), compression="gzip")


def compressed(file: h5py.File) -> None:
    file.create_dataset("rewards", data=np.zeros(6, "<f4"), compression="lzf")


def unwritten(file: h5py.File) -> None:
    file.create_dataset("rewards", (6,), "<f4")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replaced(external_link), "HDF5 external link as 'rewards'; links are refused"),
        (replaced(soft_link), "HDF5 soft link as 'rewards'; links are refused"),
        (replaced(external_storage), "a dataset in another file"),
        (replaced(virtual), "a virtual dataset"),
        (replaced(variable_length), "'rewards' as object"),
        (replaced(ragged), "'rewards' as object"),
        (replaced(reference), "'rewards' as object"),
        (replaced(compound), "'rewards' as [('a'"),
        (replaced(bomb), "only contiguous, unfiltered data are read"),
        (replaced(compressed), "the filters ['lzf']"),
        (replaced(unwritten), "no data behind 'rewards', which would read as zeros"),
        (replaced(lambda file: file.create_group("rewards")), "HDF5 group or type as 'rewards'"),
        (replaced(lambda file: file.create_dataset("rewards", data=np.zeros(6, ">f4"))), "'rewards' as >f4"),
        (replaced(lambda file: file.create_dataset("rewards", data=np.zeros(6, "<f8"))), "'rewards' as float64"),
        (replaced(lambda file: file.create_dataset("rewards", data=np.zeros(10**6, "<f4"))), "(1000000,)"),
        (replaced(lambda file: None), "missing or unknown HDF5 objects: rewards"),
        (lambda file: file.create_group("more"), "missing or unknown HDF5 objects: more"),
        (lambda file: file["rewards"].write_direct(np.full(6, np.nan, "<f4")), "not finite"),
        (lambda file: file["terminals"].write_direct(np.full(6, 2, "u1")), "only 0 and 1 are booleans"),
        (lambda file: file["episode_id"].write_direct(np.arange(6)), "'episode_id' on row 1"),
    ],
)
def test_hostile_hdf5_is_refused(tmp_path: Path, change: Callable[[h5py.File], Any], reason: str) -> None:
    (tmp_path / "buffer").mkdir()
    with h5py.File(tmp_path / "buffer" / "other.h5", "w") as file:
        file["rewards"] = np.ones(6, np.float32)
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
        (lambda files: files.pop("rewards/c/0"), "missing or unknown Zarr files: rewards/c/0"),
        (lambda files: files.pop("rewards/zarr.json"), "no Zarr file rewards/zarr.json"),
        (lambda files: files.pop("zarr.json"), "no Zarr file zarr.json"),
        (lambda files: files.update({"more": b"x"}), "missing or unknown Zarr files: more"),
        (lambda files: files.update({"rewards/c/0": b"short"}), "of 5 bytes where 28 are needed"),
        (edited("rewards/zarr.json", codecs=[{"name": "pickle"}]), "with the codecs"),
        (edited("rewards/zarr.json", codecs=[SHARDING]), "only bytes, crc32c are read"),
        (edited("rewards/zarr.json", data_type="float64"), "as float64 [6]"),
        (edited("rewards/zarr.json", shape=[10**12]), "where float32 [6] is declared"),
        (edited("rewards/zarr.json", zarr_format=2), "does not describe a Zarr v3 array"),
        (edited("rewards/zarr.json", chunk_grid=GRID), "missing or unknown Zarr files: rewards/c/1"),
        (edited("observations/zarr.json", chunk_grid=GRID), "impossible shape [1]"),
        (edited("rewards/zarr.json", chunk_grid={"name": "wild"}), "not regular"),
        (edited("rewards/zarr.json", chunk_key_encoding={"name": "v2"}), "not read here"),
        (edited("rewards/zarr.json", storage_transformers=[{"name": "x"}]), "not read here"),
        (edited("rewards/zarr.json", must_understand=True), "not read here: ['must_understand']"),
        (edited("zarr.json", consolidated_metadata={}), "unknown metadata"),
        (lambda files: files.update({"zarr.json": b"[]"}), "does not describe a Zarr v3 group"),
        (lambda files: files.update({"zarr.json": b"{"}), "cannot be parsed as zarr"),
    ],
)
def test_hostile_zarr_is_refused(tmp_path: Path, change: Callable[[dict[str, bytes]], Any], reason: str) -> None:
    files = encoded("zarr", columns(), schema.field_specs(HEADER))
    change(files)
    forge(tmp_path, 0, files, "zarr")
    write(tmp_path, 3, "zarr")
    assert_only_first_is_bad(tmp_path, reason)


def test_a_folder_of_other_chunks_is_read_by_the_rules_of_zarr(tmp_path: Path) -> None:
    """Another writer may cut a column into several chunks, as long as all of them are there."""
    files = encoded("zarr", columns(), schema.field_specs(HEADER))
    chunks = {"name": "regular", "configuration": {"chunk_shape": [4]}}
    edited("rewards/zarr.json", chunk_grid=chunks)(files)
    halves = np.concatenate([columns()["rewards"], [0, 0]]).astype("<f4").reshape(2, 4)
    for index, half in enumerate(halves):
        files[f"rewards/c/{index}"] = half.tobytes() + crc32c(half.tobytes())
    forge(tmp_path, 0, files, "zarr")
    np.testing.assert_array_equal(read(tmp_path).rewards, columns()["rewards"])
    del files["rewards/c/1"]
    forge(tmp_path, 3, files, "zarr", name=name(3))
    assert "missing" in read(tmp_path).quarantined[name(3)]


def crc32c(content: bytes) -> bytes:
    """CRC-32C (Castagnoli), reflected, little-endian: the checksum that closes a Zarr chunk, from its definition."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("lies", "reason"),
    [
        ({"name": "../../etc/passwd"}, "has the sidecar of '../../etc/passwd'"),
        ({"name": "/etc/passwd"}, "has the sidecar of '/etc/passwd'"),
        ({"name": name(9)}, f"has the sidecar of '{name(9)}'"),
        ({"digest": "../" * 21 + "x"}, "not 64 lower-case hex digits"),
        ({"digest": "A" * 64}, "not 64 lower-case hex digits"),
        ({"checksum": "A" * 32}, "not 32 lower-case hex digits"),
        ({"checksum": ""}, "not 32 lower-case hex digits"),
        ({"codec": "pickle"}, "unknown codec 'pickle'"),
        ({"rows": 10**12}, "in memory; 1073741824 is the most allowed"),
        ({"rows": 5}, "where float32 (5, 3) is declared"),
        ({"rows": True}, "'rows' is True where a int is needed"),
        ({"rows": 6.0}, "'rows' is 6.0 where a int is needed"),
        ({"rows": 0}, "which cannot be"),
        ({"bytes": 2**62}, "is the most allowed"),
        ({"bytes": -1}, "is the most allowed"),
        ({"bytes": 1}, "columns of 372 bytes in 1 bytes of data, which cannot be"),
        ({"bytes": 2**20}, "bytes of data where 1048576 are declared"),
        ({"episodes": 2}, "has 3 episodes where its sidecar declares 2"),
        ({"episodes": 7}, "which cannot be"),
        ({"fields": ()}, "declares other columns"),
        ({"fields": (*schema.field_specs(HEADER), FieldSpec("more", "float32", ()))}, "declares other columns"),
        ({"images": Images((), (), ())}, "rows of image 0"),
        ({"images": Images.of([ImageRef(0, "a", "b")] * 2)}, "lists image 0 twice"),
        ({"images": Images.of([ImageRef(2**63, "a", "b")])}, "lists an image id that does not fit in 64 bits"),
    ],
)
def test_a_sidecar_that_lies_is_refused(tmp_path: Path, lies: dict[str, Any], reason: str) -> None:
    files = encoded("hdf5", columns(), schema.field_specs(HEADER))
    folder = tmp_path / "deep" / "buffer"
    folder.mkdir(parents=True)
    if {"name", "digest", "codec"} & set(lies):  # a path that leaves the buffer: the sidecar is all there is
        described = forge(folder, 0, files, "hdf5")
        (folder / f"{name(0)}.json").write_bytes(sidecar.dumps(schema.Sidecar(**vars(described) | lies)))
    else:
        forge(folder, 0, files, "hdf5", **lies)
    write(folder, 3)
    assert_only_first_is_bad(folder, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"schema": 1, "schema": 1}', "a key is repeated"),
        ('{"schema": NaN}', "NaN is not a JSON number"),
        ('{"schema": "1"}', "'schema' is '1' where a int is needed"),
        ('{"schema": ' + "9" * 5000 + "}", "not JSON"),
        ("{" * 10**5, "not JSON"),
        (f'{{"schema": "{"x" * 10**6}"}}', "..."),
    ],
    ids=range(6),
)
def test_json_tricks_are_refused_in_one_short_line(text: str, reason: str) -> None:
    with pytest.raises(ShardError, match="sidecar") as caught:
        sidecar.loads(text.encode(), name(0))
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
        (("header", "reward_weights"), {"psnr": "0.4"}),
        (("images",), {"0": "x"}),
        (("images",), ["x"]),
        (("images",), [{"image_id": 2**64, "name": "x", "scene": "y"}]),
        (("images",), [{"image_id": 0, "name": "x"}]),
        (("fields",), [{"name": "observations", "dtype": "object", "shape": [None]}]),
        (("extra",), 1),
    ],
)
def test_a_sidecar_of_wrong_types_is_refused(path: tuple[str, ...], value: object) -> None:
    described = write(f"memory://types/{uuid.uuid4().hex}", 0)
    doc = json.loads(sidecar.dumps(described))
    where = doc
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    with pytest.raises(ShardError, match=f"{path[-1]}|image|ImageRef|shape|too large"):
        sidecar.loads(sealed(doc), name(0))


def sealed(doc: dict[str, Any]) -> bytes:
    """The document under a seal that is right, from the format's definition."""
    doc.pop("seal")
    doc["signature"] = doc.pop("signature")
    head = json.dumps(doc)[:-1].encode() + b", "
    return head + b'"seal": "' + hashlib.sha256(head).hexdigest().encode() + b'"\n}\n'


def test_a_sidecar_from_another_writer_is_read_in_any_layout() -> None:
    described = write("memory://layout", 0)
    assert sidecar.loads(sealed(json.loads(sidecar.dumps(described))), name(0)) == described


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
    for path in (folder / flat.data, folder / deep.data / "rewards", folder / f"{side.name}.json"):
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
