"""A local folder as a store. Shards appear whole or not at all, whoever is killed or writes the same shard."""

import contextlib
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

if sys.platform != "win32":
    import fcntl

#: Readers ignore every name that starts so.
TEMPORARY = ".tmp-"

#: A writer's check of a target writes this many bytes, about a shard's.
PROBE_BYTES = 2**16

_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Entry:
    """A name in a folder. `other` is everything that a buffer never holds: symbolic links, pipes, devices."""

    kind: Literal["file", "directory", "other"]
    size: int  # bytes; 0 unless a file


class LocalStore:
    """A folder of this machine's file systems. Paths are relative to it, with `/`. Methods raise OSError."""

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url, root
        self.place = str(root.resolve())

    def entries(self) -> dict[str, Entry] | None:
        """The folder's entries now, by name; None when it does not exist."""
        try:
            with os.scandir(self.root) as found:
                return dict(_entries(found))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def tree(self, folder: str) -> dict[str, Entry]:
        """Everything below a folder except folders, by path relative to it."""
        files, folders = {}, [""]
        while folders:
            inner = folders.pop()
            with os.scandir(self.root / folder / inner) as found:
                for name, entry in _entries(found):
                    if entry.kind == "directory":
                        folders.append(f"{inner}{name}/")
                    else:
                        files[f"{inner}{name}"] = entry
        return files

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Whole contents by path."""
        return {path: (self.root / path).read_bytes() for path in paths}

    def each(self, call: Callable[[str], _T], names: Sequence[str]) -> list[_T]:
        """The results of a call that reads this store, for each name."""
        return [call(name) for name in names]

    def modified(self, name: str) -> float:
        """When anything in an entry last changed, in seconds since the epoch."""
        paths = [self.root / name, *(self.root / name).rglob("*")]
        return max(path.lstat().st_mtime for path in paths)

    def abandoned(self, name: str) -> bool | None:
        """Whether the writer of a temporary folder is gone; False where the file system has no locks."""
        try:
            os.close(_lock(self.root / name))
        except OSError:
            return False
        return True

    def sweep(self, shard: str) -> None:
        """Remove leftovers of killed writers of this shard; folders of living writers are locked and stay."""
        for stale in self.root.glob(f"{TEMPORARY}{shard}~*"):
            with contextlib.suppress(OSError):  # its writer lives, or it is gone already
                lock = _lock(stale)
                shutil.rmtree(stale, ignore_errors=True)
                os.close(lock)

    def remove(self, name: str) -> None:
        """Remove an entry and everything below it."""
        path = self.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def publish(self, shard: str, data: str, files: Mapping[str, bytes], sidecar: str, content: bytes) -> None:
        """Make `data` a file (the empty path alone) or a folder of files, and then `sidecar` a file of this content.

        Everything is written and flushed in a temporary folder first; then data and sidecar are renamed.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with self.staging(shard) as stage:
            staged = stage / "data"
            for path, part in files.items():
                _write(staged / path if path else staged, part)
            _write(stage / "sidecar", content)
            for folder, _, _ in os.walk(stage, topdown=False):
                _sync(Path(folder))
            _move(staged, self.root / data, aside=stage)
            _sync(self.root)  # before the next: a sidecar must not outlive its data in a power cut
            _move(stage / "sidecar", self.root / sidecar, aside=stage)
            _sync(self.root)

    def check_writable(self) -> None:
        """Raise OSError unless a file of PROBE_BYTES can be written; makes the folder when it is missing."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self.staging("probe") as stage:
            _write(stage / "probe", bytes(PROBE_BYTES))

    @contextlib.contextmanager
    def staging(self, shard: str) -> Iterator[Path]:
        """A fresh temporary folder, locked while its writer lives, removed in the end."""
        stage, lock = self._stage(shard)
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            if lock is not None:
                os.close(lock)

    def _stage(self, shard: str) -> tuple[Path, int | None]:
        while True:
            stage = self.root / f"{TEMPORARY}{shard}~{secrets.token_hex(8)}"  # shard names have no ~
            stage.mkdir()
            try:
                return stage, _lock(stage)
            except (BlockingIOError, FileNotFoundError):
                continue  # another writer of the same shard swept it away between mkdir and lock
            except OSError:
                return stage, None  # a file system without locks: there, nobody sweeps either


def _entries(found: Iterator["os.DirEntry[str]"]) -> Iterator[tuple[str, Entry]]:
    for one in found:
        if one.is_dir(follow_symlinks=False):
            yield one.name, Entry("directory", 0)
        elif one.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):  # it vanished since it was listed
                yield one.name, Entry("file", one.stat(follow_symlinks=False).st_size)
        else:
            yield one.name, Entry("other", 0)


def _lock(folder: Path) -> int:
    """A descriptor that locks the folder until it is closed, or until the process ends, however it ends.

    Raises BlockingIOError when another process has the lock, FileNotFoundError when the folder is gone, OSError where
    the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        _flush(file.fileno())


def _sync(folder: Path) -> None:
    """Make the folder's own entries durable."""
    if sys.platform != "win32":  # which cannot open a folder, and does not need to
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _flush(descriptor)
        finally:
            os.close(descriptor)


def _flush(descriptor: int) -> None:
    """fsync, where the file system supports it: some network shares do not, above all for folders."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _move(staged: Path, target: Path, aside: Path) -> None:
    """Rename over whatever is there; a folder with files in it has to step aside first."""
    while True:
        try:
            staged.replace(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        with contextlib.suppress(FileNotFoundError):  # another writer of the same data moved it first
            target.rename(aside / secrets.token_hex(8))
