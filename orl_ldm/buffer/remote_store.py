"""An fsspec URL as a store.

Remote stores fail now and then: every exception of their client library is tried again, a little later each time, and
in the end becomes a StoreAwayError.
"""

import contextlib
import posixpath
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import fsspec

from orl_ldm.buffer.local_store import PROBE_BYTES, TEMPORARY, Entry
from orl_ldm.errors import UserError

#: Objects that are fetched or sent at the same time.
FETCHES = 8

#: Seconds before a store is asked again; s3fs and its like wait a few times more, inside each of these tries.
PAUSES = (1.0, 4.0)

#: Answers that asking again does not change.
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)

#: The keys under which file systems give the time of the last change.
_MODIFIED_KEYS = ("LastModified", "mtime", "last_modified", "updated", "created")

#: File systems that are not made for several calls at a time (SFTP, FTP, ...) share a connection, and would hang.
_ONE_AT_A_TIME = threading.Lock()

_T = TypeVar("_T")


class StoreAwayError(UserError, OSError):
    """A remote store failed whenever it was asked; its content may be sound."""


class RemoteStore:
    """A folder of any fsspec file system, with the methods of LocalStore.

    Raises UserError for a URL that no installed package can open.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self.fs, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            extra = "; pip install -e '.[s3]' brings it" if url.startswith(("s3:", "s3a:")) else ""
            raise UserError(f"cannot open the buffer {url}: {error}{extra}") from error
        except ValueError as error:
            raise UserError(f"cannot open the buffer {url}: {error}") from error
        self.root: str = root.rstrip("/")
        self.place = f"{self.fs.protocol}: {self.root}"
        self._turn = contextlib.nullcontext() if self.fs.async_impl else _ONE_AT_A_TIME

    def entries(self) -> dict[str, Entry] | None:
        self.fs.invalidate_cache()
        try:
            infos = self._ask(partial(self.fs.ls, detail=True), self.root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        found = {posixpath.relpath(info["name"], self.root): _entry(info) for info in infos}
        itself = found.pop(".", None)  # some stores list a file, or an empty folder, as itself
        return None if itself is not None and itself.kind != "directory" else found

    def tree(self, folder: str) -> dict[str, Entry]:
        base = self._path(folder)
        infos = self._ask(partial(self.fs.find, maxdepth=4, withdirs=True, detail=True), base).values()
        found = {posixpath.relpath(info["name"], base): _entry(info) for info in infos}
        return {path: entry for path, entry in found.items() if entry.kind != "directory"}

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        fetch = partial(self._ask, self.fs.cat_file)
        return dict(zip(paths, self.each(lambda path: fetch(self._path(path)), paths), strict=True))

    def each(self, call: Callable[[str], _T], names: Sequence[str]) -> list[_T]:
        """The results of a call for each name; several are under way at a time."""
        with ThreadPoolExecutor(FETCHES) as pool:
            return list(pool.map(call, names))

    def modified(self, name: str) -> float:
        """When anything in an entry last changed; now, if the store does not tell."""
        infos = self._ask(partial(self.fs.find, detail=True), self._path(name))
        return max(map(_modified, infos.values()), default=time.time())

    def abandoned(self, name: str) -> bool | None:
        """None: a remote store cannot tell whether a writer lives."""
        return None

    def sweep(self, shard: str) -> None:
        """Nothing: writers of remote stores leave nothing temporary."""

    def remove(self, name: str) -> None:
        self._ask(partial(self.fs.rm, recursive=True), self._path(name))

    def publish(self, shard: str, data: str, files: Mapping[str, bytes], sidecar: str, content: bytes) -> None:
        """The data are sent and read back before the sidecar; nothing is overwritten, as data names hold a digest."""
        sent = {f"{data}/{path}" if path else data: part for path, part in files.items()}
        self.each(lambda path: self._send(path, sent[path]), list(sent))
        self._send(sidecar, content)

    def check_writable(self) -> None:
        probe = f"{TEMPORARY}probe~{secrets.token_hex(8)}"
        self._send(probe, bytes(PROBE_BYTES))
        with contextlib.suppress(OSError):  # a writer need not have the right to delete; readers ignore it
            self.remove(probe)

    def _send(self, path: str, content: bytes) -> None:
        path = self._path(path)
        try:
            self._ask(self.fs.pipe_file, path, content)
        except FileNotFoundError:  # object stores have no folders; where there are some, they are made when missed
            self._ask(partial(self.fs.makedirs, exist_ok=True), posixpath.dirname(path))
            self._ask(self.fs.pipe_file, path, content)
        if self._ask(self.fs.cat_file, path) != content:
            raise OSError(f"{path} did not arrive as it was sent")

    def _ask(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """The call's result, after some patience."""
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
        return f"{self.root}/{path}"


def _entry(info: Mapping[str, Any]) -> Entry:
    if info["type"] not in ("file", "directory"):
        return Entry("other", 0)
    return Entry(info["type"], int(info.get("size") or 0) if info["type"] == "file" else 0)


def _modified(info: Mapping[str, Any]) -> float:
    value = next((info[key] for key in _MODIFIED_KEYS if info.get(key) is not None), time.time())
    return value.timestamp() if isinstance(value, datetime) else float(value)
