"""Where a buffer lies: a local folder or any fsspec URL, listed, read and published to.

Remote stores fail now and then: whatever their client library raises is tried again, a little later each time, and in
the end becomes a StoreAwayError.
"""

import contextlib
import posixpath
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import fsspec

from orl_ldm.buffer import local
from orl_ldm.buffer.local import Announcement, Pieces
from orl_ldm.errors import UserError

#: Objects of a remote store that are fetched or sent at the same time.
FETCHES = 8

#: Seconds before a remote store is asked again; s3fs and its like wait a few times more, inside each of these tries.
PAUSES = (1.0, 4.0)

#: Answers that asking again does not change.
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)

#: What file systems call the time of the last change.
_MODIFIED_KEYS = ("LastModified", "mtime", "last_modified", "updated", "created")

#: File systems that are not made for several calls at a time (SFTP, FTP, ...) share a connection, and would hang.
_ONE_AT_A_TIME = threading.Lock()

_T = TypeVar("_T")


class StoreAwayError(UserError, OSError):
    """A remote store that has failed whenever it was asked: what it holds may well be sound."""


@dataclass(frozen=True)
class Entry:
    """A name in a folder. `other` is what a buffer never holds: symbolic links, pipes, devices."""

    kind: Literal["file", "directory", "other"]
    size: int  # bytes; 0 unless a file


class Store:
    """A folder of a file system. Paths are relative to it, with `/`.

    Raises UserError for a URL that no installed package can open. The methods raise OSError, of which StoreAwayError
    is the one that says nothing about what was asked for.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        try:
            self._fs, root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            extra = "; pip install -e '.[s3]' brings it" if self.url.startswith(("s3:", "s3a:")) else ""
            raise UserError(f"cannot open the buffer {self.url}: {error}{extra}") from error
        except ValueError as error:
            raise UserError(f"cannot open the buffer {self.url}: {error}") from error
        self._root: str = root.rstrip("/")
        self._local = Path(root) if "file" in _protocols(self._fs) else None
        self._turn = contextlib.nullcontext() if self._fs.async_impl else _ONE_AT_A_TIME

    def same_place(self, other: "Store") -> bool:
        """Whether both are one folder, as far as their names say."""
        return (self._root, _protocols(self._fs)) == (other._root, _protocols(other._fs))

    def entries(self) -> dict[str, Entry] | None:
        """What the folder holds now, by name; None when it does not exist."""
        self._fs.invalidate_cache()
        try:
            infos = self._ask(partial(self._fs.ls, detail=True), self._root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        found = {posixpath.relpath(info["name"], self._root): _entry(info) for info in infos}
        itself = found.pop(".", None)  # some stores list a file, or an empty folder, as itself
        return None if itself is not None and itself.kind != "directory" else found

    def tree(self, folder: str) -> dict[str, Entry]:
        """Everything below a folder except folders, by path relative to it."""
        base = self._path(folder)
        infos = self._ask(partial(self._fs.find, maxdepth=4, withdirs=True, detail=True), base).values()
        found = {posixpath.relpath(info["name"], base): _entry(info) for info in infos}
        return {path: entry for path, entry in found.items() if entry.kind != "directory"}

    def local(self, name: str) -> Path | None:
        """Where an entry lies on this machine's file systems; None on a remote store."""
        return None if self._local is None else self._local / name

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Whole contents by path."""
        fetch = partial(self._ask, self._fs.cat_file)
        return dict(zip(paths, self.each(lambda path: fetch(self._path(path)), paths), strict=True))

    def each(self, call: Callable[[str], _T], names: Sequence[str]) -> list[_T]:
        """What a call that waits for this store returns for each name: from a remote one, several at a time."""
        if self._local is not None:
            return list(map(call, names))
        with ThreadPoolExecutor(FETCHES) as pool:
            return list(pool.map(call, names))

    def modified(self, name: str) -> float:
        """When anything in an entry last changed, in seconds since the epoch; now, if the store does not say."""
        infos = self._ask(partial(self._fs.find, withdirs=self._local is not None, detail=True), self._path(name))
        return max(map(_modified, infos.values()), default=time.time())

    def abandoned(self, name: str) -> bool | None:
        """Whether the writer of a temporary folder is gone; None where that cannot be told: on remote stores."""
        return None if self._local is None else local.abandoned(self._local / name)

    def sweep(self, shard: str) -> None:
        """Remove what killed writers of this shard left behind. Remote stores have nothing temporary."""
        if self._local is not None:
            local.sweep(self._local, shard)

    def remove(self, name: str) -> None:
        """Remove an entry and everything below it."""
        if self._local is None:
            self._ask(partial(self._fs.rm, recursive=True), self._path(name))
        elif (path := self._local / name).is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def publish(self, shard: str, files: Mapping[str, Pieces], announce: Callable[[], Announcement]) -> None:
        """Make a shard's data a file (the empty path alone) or a folder of files, and then its sidecar a file.

        Local: each in one step, by rename; `announce` is called while the data are being written. Remote: the data are
        sent and read back before the sidecar, which is safe because data names carry their digest.
        """
        if self._local is not None:
            local.publish(self._local, shard, files, announce)
            return
        announced = announce()
        data = {self._path(f"{announced.data}/{path}" if path else announced.data): files[path] for path in files}
        with ThreadPoolExecutor(FETCHES) as pool:
            list(pool.map(self._send, data.keys(), data.values()))
        self._send(self._path(announced.sidecar), [announced.content])

    def _send(self, path: str, pieces: Pieces) -> None:
        content = b"".join(pieces)
        try:
            self._ask(self._fs.pipe_file, path, content)
        except FileNotFoundError:  # object stores have no folders; where there are some, they are made when missed
            self._ask(partial(self._fs.makedirs, exist_ok=True), posixpath.dirname(path))
            self._ask(self._fs.pipe_file, path, content)
        if self._ask(self._fs.cat_file, path) != content:
            raise OSError(f"{path} did not arrive as it was sent")

    def _ask(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """What the call returns, after some patience with a remote store."""
        if self._local is not None:
            return call(*arguments)
        for pause in (0.0, *PAUSES):
            time.sleep(pause)
            try:
                with self._turn:
                    return call(*arguments)
            except _LASTING:
                raise
            except Exception as error:  # client libraries have exceptions of their own
                failure = error
        what = str(failure) if isinstance(failure, OSError) else f"{type(failure).__name__}: {failure}"
        raise StoreAwayError(f"{self.url} does not answer ({what}); try again when it does") from failure

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"


def _entry(info: Mapping[str, Any]) -> Entry:
    if info["type"] not in ("file", "directory"):  # fsspec does not follow links here
        return Entry("other", 0)
    return Entry(info["type"], int(info.get("size") or 0) if info["type"] == "file" else 0)


def _modified(info: Mapping[str, Any]) -> float:
    value = next((info[key] for key in _MODIFIED_KEYS if info.get(key) is not None), time.time())
    return value.timestamp() if isinstance(value, datetime) else float(value)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
