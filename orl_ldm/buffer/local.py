"""Publishing on a local file system: whole or not at all, whatever is killed, and whoever else writes the same."""

import contextlib
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import fcntl

TEMPORARY = ".tmp-"  # readers ignore every name that starts so

#: A file's content, one piece after another.
Pieces = Sequence[bytes | memoryview]


@dataclass(frozen=True)
class Announcement:
    """What is known of a shard when its data have been hashed: the names of its data and sidecar, and the latter."""

    data: str
    sidecar: str
    content: bytes


def publish(root: Path, shard: str, files: Mapping[str, Pieces], announce: Callable[[], Announcement]) -> None:
    """Make a shard's data a file (the empty path alone) or a folder of files, and then its sidecar a file, durably.

    `announce` is called while the data are being written. Everything is written and flushed inside a temporary folder
    of `shard` first, so that a full disk is met before anything is visible; then each is moved in one step, replacing
    what is there. Raises OSError, after cleaning up, and whatever `announce` raises.
    """
    root.mkdir(parents=True, exist_ok=True)
    with staging(root, shard) as stage:
        data, sidecar = stage / "data", stage / "sidecar"
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(_write_all, data, files)
            announced = announce()
            _write(sidecar, [announced.content])
            writing.result()
        _sync(stage)
        _move(data, root / announced.data, aside=stage)
        _sync(root)  # before the next: a sidecar must not outlive its data in a power cut
        _move(sidecar, root / announced.sidecar, aside=stage)
        _sync(root)


@contextlib.contextmanager
def staging(root: Path, shard: str) -> Iterator[Path]:
    """A fresh temporary folder, locked while its writer lives, removed in the end."""
    stage, lock = _stage(root, shard)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _stage(root: Path, shard: str) -> tuple[Path, int | None]:
    while True:
        stage = root / f"{TEMPORARY}{shard}~{secrets.token_hex(8)}"  # shard names have no ~
        stage.mkdir()
        try:
            return stage, _lock(stage)
        except (BlockingIOError, FileNotFoundError):
            continue  # another writer of the same shard swept it away between mkdir and lock
        except OSError:
            return stage, None  # a file system without locks: there, nobody sweeps either


def sweep(root: Path, shard: str) -> None:
    """Remove what killed writers of this shard left behind; what living ones stage is locked, and stays."""
    for stale in root.glob(f"{TEMPORARY}{shard}~*"):
        with contextlib.suppress(OSError):  # its writer lives, or it is gone already
            lock = _lock(stale)
            shutil.rmtree(stale, ignore_errors=True)
            os.close(lock)


def abandoned(stage: Path) -> bool:
    """Whether the writer of a temporary folder is gone for sure: not where the file system has no locks."""
    try:
        os.close(_lock(stage))
    except OSError:
        return False
    return True


def _lock(folder: Path) -> int:
    """A descriptor that holds the folder until it is closed, or until the process ends, however it ends.

    Raises BlockingIOError when another process holds it, FileNotFoundError when it is gone, OSError without locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(target: Path, files: Mapping[str, Pieces]) -> None:
    for path, pieces in files.items():
        _write(target / path if path else target, pieces)
    for folder, _, _ in os.walk(target, topdown=False):
        _sync(Path(folder))


def _write(path: Path, pieces: Pieces) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        if (size := sum(map(len, pieces))) and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # in one piece, which is faster, or a full disk is met here
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the folder's own entries durable."""
    if sys.platform != "win32":  # which cannot open a folder, and does not need to
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
