"""Shards that travel: whole and sound, once, wherever they are stopped."""

import contextlib
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from buffer_samples import HEADER, columns, data_files, images, name, write
from fsspec.implementations.memory import MemoryFileSystem
from test_buffer_crashes import small_disk  # noqa: F401  # a fixture

from orl_ldm.buffer import SCHEMA_VERSION, BufferWriter, ImageRef, read, remote_store, sidecar, verify
from orl_ldm.buffer.prune import prune
from orl_ldm.buffer.schema import CodecName
from orl_ldm.buffer.transfer import convert, transfer
from orl_ldm.errors import UserError

BOTH = pytest.mark.parametrize("codec_name", ["hdf5", "zarr"])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store, "PAUSES", (0.001, 0.001))


def memory_url() -> str:
    return f"memory://{uuid.uuid4().hex}/buffer"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@BOTH
def test_what_is_pushed_and_pulled_is_byte_for_byte_the_same(tmp_path: Path, codec_name: CodecName) -> None:
    remote = memory_url()
    for unit in (0, 3, 6):
        write(tmp_path / "here", unit, codec_name)
    heard: list[tuple[int, int]] = []
    pushed = transfer([tmp_path / "here"], remote, lambda done, total: heard.append((done, total)))
    assert pushed.copied == (name(0), name(3), name(6)) and (pushed.present, pushed.bad) == (0, {})
    assert heard[0] == (0, pushed.bytes) and heard[-1] == (pushed.bytes, pushed.bytes)
    assert verify(remote) == []
    transfer([remote], tmp_path / "there")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_only_what_is_missing_is_copied(tmp_path: Path) -> None:
    remote = memory_url()
    write(tmp_path, 0)
    transfer([tmp_path], remote)
    write(tmp_path, 3)
    again = transfer([tmp_path], remote)
    assert (again.copied, again.present) == ((name(3),), 1)
    assert transfer([tmp_path], remote).copied == ()


def test_damaged_shards_stay_behind_by_name_and_are_taken_from_where_they_are_sound(tmp_path: Path) -> None:
    damaged = write(tmp_path / "a", 0)
    write(tmp_path / "a", 3), write(tmp_path / "b", 0)
    (tmp_path / "a" / damaged.data).write_bytes(b"x" * damaged.bytes)
    alone = transfer([tmp_path / "a"], tmp_path / "alone")
    assert alone.copied == (name(3),) and list(alone.bad) == [name(0)] and "do not match their" in alone.bad[name(0)]
    assert read(tmp_path / "alone").shards == (name(3),) and not read(tmp_path / "alone").quarantined
    both = transfer([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert both.copied == (name(0), name(3)) and both.bad == {} and verify(tmp_path / "both") == []


def test_damage_in_the_target_is_repaired(tmp_path: Path) -> None:
    lost, cut = write(tmp_path / "a", 0), write(tmp_path / "a", 3)
    transfer([tmp_path / "a"], tmp_path / "b")
    (tmp_path / "b" / lost.data).unlink()
    (tmp_path / "b" / f"{cut.name}.json").write_bytes(b"{")
    assert transfer([tmp_path / "a"], tmp_path / "b").copied == (name(0), name(3))
    assert verify(tmp_path / "b") == []


def test_buffers_join_if_a_reader_would_read_them_together(tmp_path: Path) -> None:
    write(tmp_path / "a", 0)
    write(tmp_path / "b", 0, noise=1)  # the same work, measured again
    write(tmp_path / "b", 3, "zarr", header=replace(HEADER, behavior_id="policy-1"))
    joined = transfer([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert joined.copied == (name(0), name(3)) and verify(tmp_path / "all") == []
    rows = read(tmp_path / "all")
    np.testing.assert_array_equal(rows.log_probs, np.concatenate([columns(unit)["log_probs"] for unit in (0, 3)]))
    assert len(rows.episode_bounds) == 6


def test_what_does_not_belong_together_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    write(tmp_path / "a", 0), write(tmp_path / "a", 3)
    write(tmp_path / "ldm", 6, header=replace(HEADER, ldm_digest="c" * 64))
    write(tmp_path / "seed", 0, header=replace(HEADER, seed=7))
    data = columns(9)
    data["image_id"][:] = 0
    BufferWriter(tmp_path / "image", HEADER).write("x", data, [ImageRef(0, "river_7.png", "river")])
    for other, sentence in {
        "ldm": f"shard {name(6)} of .*ldm does not go with shard {name(0)} of .*: its ldm_digest is",
        "seed": f"shard {name(0)} of .*seed is other work than shard {name(0)} of .*: its seed is 7, not 42",
        "image": r"shard x of .*image calls image 0 'river_7.png' \(river\), but shard .* says 'forest_000.png'",
    }.items():
        transfer([tmp_path / "a"], tmp_path / f"with {other}")
        before = contents(tmp_path / f"with {other}")
        with pytest.raises(UserError, match=sentence):
            transfer([tmp_path / other], tmp_path / f"with {other}")
        assert contents(tmp_path / f"with {other}") == before
    with pytest.raises(UserError, match="has no shards; collect into it first"):
        (tmp_path / "empty").mkdir()
        transfer([tmp_path / "empty"], tmp_path / "new")
    with pytest.raises(UserError, match=r"there is no buffer .*nowhere"):
        transfer([tmp_path / "nowhere"], tmp_path / "new")


def test_another_schema_in_the_target_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "a", 0)
    transfer([tmp_path / "a"], tmp_path / "b")
    path = tmp_path / "b" / f"{name(0)}.json"
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA_VERSION}', '"schema": 99'))
    with pytest.raises(UserError, match=r"is in schema 99 .* use another folder"):
        transfer([tmp_path / "a"], tmp_path / "b")


def test_a_store_that_lists_paths_outside_itself_writes_nothing_outside_the_target(tmp_path: Path) -> None:
    remote = memory_url()
    described = write(remote, 0, "zarr")
    memory = fsspec.filesystem("memory")
    root = remote.removeprefix("memory:/")
    memory.store[f"{root}/{described.data}/../../../outside"] = memory.store.pop(f"{root}/{described.data}/zarr.json")
    arrived = transfer([remote], tmp_path / "deep" / "er" / "here")
    assert list(arrived.bad) == [name(0)] and not list(tmp_path.rglob("outside"))
    assert not (tmp_path / "deep").exists()


@BOTH
def test_conversion_keeps_content_and_goes_on(tmp_path: Path, codec_name: CodecName) -> None:
    other: CodecName = "zarr" if codec_name == "hdf5" else "hdf5"
    policy = replace(HEADER, behavior_id="policy-1")
    write(tmp_path / "a", 0, codec_name), write(tmp_path / "a", 3, codec_name, header=policy)
    damaged = write(tmp_path / "a", 6, codec_name)
    data_files(tmp_path / "a", damaged)[0].write_bytes(b"x")
    done = convert(tmp_path / "a", tmp_path / "b", other)
    assert done.copied == (name(0), name(3)) and list(done.bad) == [name(6)]
    one, two = read(tmp_path / "a"), read(tmp_path / "b", strict=True)
    for key, column in one.columns.items():
        np.testing.assert_array_equal(two.columns[key], column)
    assert one.images == two.images and verify(tmp_path / "b") == []
    assert len(list((tmp_path / "b").glob("*.zarr" if other == "zarr" else "*.h5"))) == 2
    assert (convert(tmp_path / "a", tmp_path / "b", other).present) == 2
    with pytest.raises(UserError, match=r"cannot convert .* in its own place"):
        convert(tmp_path / "a", f"{tmp_path}/a/", other)


def test_a_full_disk_keeps_what_arrived_and_the_same_call_goes_on(
    tmp_path: Path,
    small_disk: Path,  # noqa: F811
) -> None:
    for unit in range(0, 60, 3):
        write(tmp_path / "a", unit)
    room = small_disk / "something else"
    room.write_bytes(bytes(2**15))
    with pytest.raises(UserError, match=r"cannot copy shard .*: No space left on device; shards that arrived are kept"):
        transfer([tmp_path / "a"], small_disk / "b")
    arrived = set(read(small_disk / "b", strict=True).shards)
    assert not list((small_disk / "b").glob(".tmp-*"))
    room.unlink()
    with pytest.raises(UserError, match="No space left on device"):
        transfer([tmp_path / "a"], small_disk / "b")
    assert arrived < set(read(small_disk / "b", strict=True).shards)


@pytest.mark.parametrize("key", ["another key of the team", ""])
def test_signed_shards_are_neither_replaced_nor_pruned_by_who_has_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(sidecar.KEY_VARIABLE, "the key of the team")
    write(tmp_path / "theirs", 0)
    monkeypatch.setenv(sidecar.KEY_VARIABLE, key)
    write(tmp_path / "mine", 0, noise=1)
    before = contents(tmp_path / "theirs")
    if key:
        with pytest.raises(UserError, match=rf"shard {name(0)} of the target .* use another folder"):
            transfer([tmp_path / "mine"], tmp_path / "theirs")
        assert [waste.removable for waste in prune(tmp_path / "theirs", 0, quarantined=True)] == [False, False]
        assert list(transfer([tmp_path / "theirs"], tmp_path / "new").bad) == [name(0)]
    else:
        assert transfer([tmp_path / "theirs"], tmp_path / "new").copied == (name(0),)
        assert contents(tmp_path / "new") == before  # its signature travels with it
    assert contents(tmp_path / "theirs") == before


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """A store that fails as often as it is told to; what it fails at, it has done in part."""

    protocol = "flaky"
    failures = 0

    def pipe_file(self, path: str, value: bytes, **options: object) -> None:
        if Flaky.failures:
            Flaky.failures -= 1
            super().pipe_file(path, value[: len(value) // 2])
            raise ConnectionResetError("the store went away")
        super().pipe_file(path, value)


fsspec.register_implementation("flaky", Flaky)


class Single(MemoryFileSystem):  # type: ignore[misc]
    """A store on one connection, as SFTP is: a second call at the same time would hang; here it fails for good."""

    protocol = "single"
    busy = threading.Lock()

    def pipe_file(self, path: str, value: bytes, **options: object) -> None:
        with self.alone():
            super().pipe_file(path, value)

    def cat_file(self, path: str, **options: object) -> bytes:
        with self.alone():
            return bytes(super().cat_file(path, **options))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        if not self.busy.acquire(blocking=False):
            raise PermissionError("two calls at a time")
        time.sleep(0.001)
        yield
        self.busy.release()


fsspec.register_implementation("single", Single)


@BOTH
def test_a_store_on_one_connection_is_asked_one_thing_at_a_time(tmp_path: Path, codec_name: CodecName) -> None:
    url = memory_url().replace("memory", "single")
    for unit in range(0, 36, 3):
        write(tmp_path / "here", unit, codec_name)
    assert len(transfer([tmp_path / "here"], url).copied) == 12
    assert verify(url) == [] and len(read(url, strict=True)) == len(read(tmp_path / "here"))
    assert len(transfer([url], tmp_path / "there").copied) == 12


@BOTH
def test_a_hiccup_of_the_store_is_waited_out(codec_name: CodecName, monkeypatch: pytest.MonkeyPatch) -> None:
    url = memory_url().replace("memory", "flaky")
    monkeypatch.setattr(Flaky, "failures", 2)
    write(url, 0, codec_name)
    assert Flaky.failures == 0 and verify(url) == []


@BOTH
def test_an_upload_that_fails_for_good_leaves_nothing_that_a_reader_takes(
    tmp_path: Path, codec_name: CodecName, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = memory_url().replace("memory", "flaky")
    write(tmp_path, 0, codec_name), write(url, 3, codec_name)
    monkeypatch.setattr(Flaky, "failures", 10_000)
    with pytest.raises(
        UserError,
        match=f"cannot write shard {name(6)} to {url}: .*the store went away.*; .* wait for the store, .* are kept",
    ):
        write(url, 6, codec_name)
    with pytest.raises(UserError, match=rf"cannot copy shard {name(0)} of .*the store went away.* run the same"):
        transfer([tmp_path], url)
    assert read(url, strict=True).shards == (name(3),)
    Flaky.failures = 0
    assert transfer([tmp_path], url).copied == (name(0),)
    assert read(url, strict=True).shards == (name(0), name(3))


@pytest.mark.parametrize("answers", [0, 1])  # not even a sidecar, or nothing after it
def test_a_store_that_goes_away_is_not_taken_for_damage(
    tmp_path: Path, answers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = memory_url().replace("memory", "flaky")
    for place in (tmp_path, url):
        write(place, 0)
    answer, left = Flaky.cat_file, 0

    def answer_at_first(self: Flaky, path: str, **options: object) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionResetError("the store went away")
        return bytes(answer(self, path, **options))

    monkeypatch.setattr(Flaky, "cat_file", answer_at_first)
    for use in (read, verify, lambda url: prune(url, 0, quarantined=True)):
        left = answers
        with pytest.raises(UserError, match=rf"{url} does not answer \(the store went away\); try again"):
            use(url)
    left = answers
    with pytest.raises(UserError, match="the store went away"):
        transfer([url], tmp_path / "there")
    left = 0
    with pytest.raises(UserError, match=f"{url} does not answer"):
        transfer([tmp_path], url)
    monkeypatch.undo()
    assert verify(url) == []


def test_what_must_not_be_read_is_neither_replaced_nor_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = memory_url().replace("memory", "flaky")
    for place in (tmp_path, url):
        write(place, 0)

    def refuse(self: Flaky, path: str, **options: object) -> bytes:
        raise PermissionError("access denied")

    monkeypatch.setattr(Flaky, "cat_file", refuse)
    assert [waste.removable for waste in prune(url, 0, quarantined=True)] == [False, False]
    with pytest.raises(
        UserError, match=rf"shard {name(0)} of {url} has a sidecar that cannot be read .* when it can be"
    ):
        transfer([tmp_path], url)
    monkeypatch.undo()
    assert verify(url) == []


def test_a_missing_client_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"cannot open the buffer s3://team/x: .*; pip install -e '.\[s3\]' brings it"):
        read("s3://team/x")


def test_what_arrives_otherwise_than_it_was_sent_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    url = memory_url()
    monkeypatch.setattr(
        MemoryFileSystem, "cat_file", lambda self, path, **options: bytes(self.store[path].getvalue())[:-1] + b"?"
    )
    with pytest.raises(UserError, match="did not arrive as it was sent"):
        write(url, 0)
    monkeypatch.undo()
    assert BufferWriter(url, HEADER).published() == set()
    assert images(columns())  # the shard can be written again
    write(url, 0)
    assert verify(url) == []
