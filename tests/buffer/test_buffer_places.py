"""Folders, shares and disks as users have them: every local path, and targets that do not take everything."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from buffer_samples import HEADER, columns, images, name, write
from fsspec.implementations.memory import MemoryFileSystem

from orl_ldm.buffer import BufferWriter, local_folder, local_store, read, remote_store, verify
from orl_ldm.buffer.prune import prune
from orl_ldm.buffer.schema import CodecName
from orl_ldm.buffer.transfer import convert, transfer
from orl_ldm.errors import UserError

NAMES = [
    "x::y/buf",
    "a b",
    "[best]",
    "run [1]*?",
    "a~b",
    "~nobody-of-this-name",
    "#1",
    "50%25",
    "s3:buf",
    "机场/数据",
    "a:b",
]


def failing(number: int) -> Callable[..., None]:
    """A system call that fails."""

    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("written", NAMES)
def test_a_local_path_is_a_path_in_every_use(tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative or absolute, folders land where they are named, and nowhere else."""
    monkeypatch.chdir(tmp_path)
    write(written, 0), write(written, 3, "zarr")
    assert (tmp_path / written / f"{name(0)}.json").is_file()
    assert read(written, strict=True).shards == read(tmp_path / written).shards == (name(0), name(3))
    transfer([written], f"{written}-copy"), convert(written, f"{written}-zarr", "zarr")
    (tmp_path / written / f"{name(0)}.json").unlink()
    assert len(prune(written, 0)) == 1
    for place in (written, f"{written}-copy", f"{written}-zarr"):
        assert not [problem for problem in verify(place) if "missing before" not in problem.reason]
    assert {path.name for path in tmp_path.iterdir()} <= {
        (written + end).split("/")[0] for end in ("", "-copy", "-zarr")
    }


def test_home_is_expanded_and_only_a_scheme_makes_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write("~/buffer", 0)
    assert read(tmp_path / "buffer").shards == read("~/buffer").shards == read(f"file://{tmp_path}/buffer").shards
    assert [local_folder(url) for url in ("s3://a/b", "memory://x", "simplecache+s3://x")] == [None] * 3
    assert local_folder("x::memory://y") == Path.cwd() / "x::memory:/y"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP])
@pytest.mark.parametrize("codec_name", ["hdf5", "zarr"])
def test_a_share_without_fsync_and_without_fallocate_publishes(
    tmp_path: Path, codec_name: CodecName, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("fsync", "posix_fallocate"):
        monkeypatch.setattr(os, call, failing(number))
    BufferWriter(tmp_path, HEADER).check_writable()
    write(tmp_path, 0, codec_name)
    assert verify(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_fsync_that_fails_for_good_publishes_nothing(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(UserError, match=f"cannot write shard {name(0)} to .*: {os.strerror(number)}; make room"):
        write(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_target_that_takes_nothing_is_noticed_before_any_work(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(local_store, "_write", refuse)
    writer = BufferWriter(tmp_path / "buffer", HEADER)
    with pytest.raises(UserError, match=f"^cannot write to the buffer .*: {os.strerror(number)}; make room, set its"):
        writer.check_writable()
    assert not list((tmp_path / "buffer").iterdir())


def test_a_file_in_the_way_is_noticed_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/deeper"):
        with pytest.raises(UserError, match=f"cannot write to the buffer .*{place}: .*; make room, set its rights"):
            BufferWriter(tmp_path / place, HEADER).check_writable()


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    for place in (tmp_path / "new", "memory://checked/buffer"):
        writer = BufferWriter(place, HEADER)
        writer.check_writable()
        assert writer.published() == set()
    assert list((tmp_path / "new").iterdir()) == []
    assert not MemoryFileSystem().find("/checked")


def test_a_remote_store_without_the_right_to_write_is_noticed_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: MemoryFileSystem, path: str, value: bytes, **options: object) -> None:
        raise PermissionError("access denied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    monkeypatch.setattr(remote_store, "PAUSES", (0.001,))
    with pytest.raises(UserError, match="cannot write to the buffer memory://x/y: access denied; make room, set its"):
        BufferWriter("memory://x/y", HEADER).check_writable()


def test_a_file_where_the_buffer_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    data = columns()
    with pytest.raises(UserError, match=f"cannot write shard {name(0)}"):
        BufferWriter(tmp_path / "file", HEADER).write(name(0), data, images(data))
    assert (tmp_path / "file").read_text() == "x"
