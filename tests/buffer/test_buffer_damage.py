"""No damage goes unnoticed, and none takes the other shards with it."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from buffer_samples import columns, data_files, encoded, name, write

from orl_ldm.buffer import SCHEMA_VERSION, codec, read, schema, sidecar, verify
from orl_ldm.buffer.local_store import LocalStore
from orl_ldm.buffer.schema import CodecName, ShardError
from orl_ldm.errors import UserError

BOTH = pytest.mark.parametrize("codec_name", ["hdf5", "zarr"])


def assert_only_first_is_bad(folder: Path, reason: str = "") -> None:
    """Shard 0 is quarantined for a reason and named by verify; shard 3 reads as it was written."""
    buffer = read(folder)
    assert buffer.shards == (name(3),) and list(buffer.quarantined) == [name(0)]
    assert reason in buffer.quarantined[name(0)]
    np.testing.assert_array_equal(buffer.observations, columns(3)["observations"])
    assert {p.shard for p in verify(folder) if not p.harmless} == {name(0)}


def flips(content: bytes, count: int) -> Iterator[bytes]:
    """The content with one bit flipped, at `count` places spread evenly over it."""
    for place in np.unique(np.linspace(0, len(content) - 1, count).astype(int)):
        yield content[:place] + bytes([content[place] ^ (1 << int(place) % 8)]) + content[place + 1 :]


def cuts(content: bytes, count: int) -> Iterator[bytes]:
    for length in np.unique(np.linspace(0, len(content) - 1, count).astype(int)):
        yield content[:length]


@BOTH
@pytest.mark.parametrize(("damage", "places"), [(flips, 200), (cuts, 50)])
def test_damaged_data_are_always_detected(
    tmp_path: Path, codec_name: CodecName, damage: Callable[[bytes, int], Iterator[bytes]], places: int
) -> None:
    described, _ = write(tmp_path, 0, codec_name), write(tmp_path, 3, codec_name)
    files = data_files(tmp_path, described)
    for path in files:
        content = path.read_bytes()
        for damaged in damage(content, -(-places // len(files))):
            path.write_bytes(damaged)
            assert_only_first_is_bad(tmp_path)
        path.write_bytes(content)
    assert verify(tmp_path) == []


def test_every_bit_of_a_sidecar_counts() -> None:
    described = replace(write("memory://seal", 0), images=())
    content = sidecar.dumps(described)
    assert sidecar.loads(content, name(0)) == described
    for damaged in [*flips(content, len(content)), *cuts(content, len(content)), content + b" ", b" " + content]:
        with pytest.raises(ShardError):
            sidecar.loads(damaged, name(0))


def test_a_damaged_sidecar_takes_only_its_shard(tmp_path: Path) -> None:
    write(tmp_path, 0), write(tmp_path, 3)
    path = tmp_path / f"{name(0)}.json"
    content = path.read_bytes()
    for damaged in [b"", b"\xff", b"[]", b"null", b"[" * 100_000, *flips(content, 20), *cuts(content, 20)]:
        path.write_bytes(damaged)
        assert_only_first_is_bad(tmp_path)


@BOTH
def test_data_that_are_gone(tmp_path: Path, codec_name: CodecName) -> None:
    described, _ = write(tmp_path, 0, codec_name), write(tmp_path, 3, codec_name)
    path = tmp_path / described.data
    path.unlink() if codec_name == "hdf5" else shutil.rmtree(path)
    assert_only_first_is_bad(tmp_path, f"has no data: {described.data} is missing")


def test_a_deleted_zarr_chunk_is_an_error_and_never_zeros(tmp_path: Path) -> None:
    described, _ = write(tmp_path, 0, "zarr"), write(tmp_path, 3, "zarr")
    top = tmp_path / described.data
    for path in data_files(tmp_path, described):
        content = path.read_bytes()
        path.unlink()
        assert_only_first_is_bad(tmp_path, "bytes of data where")
        path.write_bytes(content)
    (top / "extra").write_bytes(b"")  # as many bytes as before, but not the same files
    assert_only_first_is_bad(tmp_path, "do not match their digest")


def test_swapped_sidecars_and_swapped_data(tmp_path: Path) -> None:
    one, other = write(tmp_path, 0), write(tmp_path, 6)
    write(tmp_path, 3)
    for pair in ((f"{one.name}.json", f"{other.name}.json"), (one.data, other.data)):
        first, second = tmp_path / pair[0], tmp_path / pair[1]
        swap(first, second)
        buffer = read(tmp_path)
        assert buffer.shards == (name(3),) and set(buffer.quarantined) == {name(0), name(6)}
        swap(first, second)
    assert verify(tmp_path) == []


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def test_data_without_a_sidecar_are_not_read_but_noted(tmp_path: Path) -> None:
    _, described = write(tmp_path, 0), write(tmp_path, 3)
    (tmp_path / f"{name(3)}.json").unlink()
    buffer = read(tmp_path)
    assert buffer.shards == (name(0),) and not buffer.quarantined
    (note,) = verify(tmp_path)
    assert note.harmless and note.shard == name(3) and described.data in str(note)


def test_leftovers_of_a_killed_writer_are_not_read_but_noted(tmp_path: Path) -> None:
    write(tmp_path, 0)
    stale = tmp_path / f".tmp-{name(3)}~0123"
    stale.mkdir()
    (stale / f"{name(3)}.json").write_text("half")
    assert read(tmp_path).shards == (name(0),) and not read(tmp_path).quarantined
    assert [(p.shard, p.harmless) for p in verify(tmp_path)] == [(name(3), True)]
    write(tmp_path, 6)
    assert stale.exists()  # another shard's writer does not touch it
    write(tmp_path, 3)
    assert not stale.exists() and verify(tmp_path) == []


def test_strict_reading_raises_for_the_first_bad_shard(tmp_path: Path) -> None:
    described, _ = write(tmp_path, 0), write(tmp_path, 3)
    (tmp_path / described.data).unlink()
    with pytest.raises(UserError, match=f"shard {name(0)} of .* has no data"):
        read(tmp_path, strict=True)


def test_a_buffer_with_bad_shards_only_is_an_error(tmp_path: Path) -> None:
    described = write(tmp_path, 0)
    (tmp_path / described.data).unlink()
    with pytest.raises(UserError, match=f"no good shard is left in .*: shard {name(0)} of .* has no data"):
        read(tmp_path)


def test_a_good_copy_elsewhere_makes_up_for_a_bad_one(tmp_path: Path) -> None:
    described, _ = write(tmp_path / "a", 0), write(tmp_path / "b", 0)
    (tmp_path / "a" / described.data).write_bytes(b"gone")
    buffer = read([tmp_path / "a", tmp_path / "b"])
    assert buffer.shards == (name(0),) and list(buffer.quarantined) == [name(0)]


def test_another_schema_version_is_named_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, 0), write(tmp_path, 3)
    path = tmp_path / f"{name(0)}.json"
    content = path.read_text()
    for schema_version in (1, 3, 5, 99):
        path.write_text(content.replace(f'"schema": {SCHEMA_VERSION}', f'"schema": {schema_version}'))
        sentence = f"is in schema {schema_version} but this version reads schema {SCHEMA_VERSION}: read it with the"
        assert_only_first_is_bad(tmp_path, sentence)
        with pytest.raises(UserError, match=rf"is in schema {schema_version} .* write to another folder"):
            write(tmp_path, 0)  # it may be sound: it is not overwritten


def test_zarr_finds_damage_even_when_the_digest_is_recomputed() -> None:
    fields = schema.field_specs(write("memory://crc", 0).header)
    files = encoded("zarr", columns())
    path = "observations/c/0/0"
    for damaged in flips(files[path], 20):
        with pytest.raises(ShardError, match="cannot be parsed as zarr"):
            codec.decode("zarr", files | {path: damaged}, fields, 6)


def test_sizes_are_checked_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described, _ = write(tmp_path, 0), write(tmp_path, 3)
    with (tmp_path / described.data).open("ab") as file:
        file.truncate(2**40)  # a sparse file of a terabyte
    fetched: list[str] = []
    original = LocalStore.read

    def noting(store: LocalStore, paths: Sequence[str]) -> dict[str, bytes]:
        fetched.extend(paths)
        return original(store, paths)

    monkeypatch.setattr(LocalStore, "read", noting)
    assert_only_first_is_bad(tmp_path, f"has {2**40} bytes of data where {described.bytes} are declared")
    assert described.data not in fetched
