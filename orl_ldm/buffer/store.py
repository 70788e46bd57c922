"""Where a buffer lies: a local folder or any fsspec URL, listed, read and published to."""

import posixpath
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec

from orl_ldm.buffer import local
from orl_ldm.errors import UserError

#: Objects of a remote store that are fetched at the same time.
FETCHES = 8


@dataclass(frozen=True)
class Entry:
    """A name in a folder. `other` is what a buffer never holds: symbolic links, pipes, devices."""

    kind: Literal["file", "directory", "other"]
    size: int  # bytes; 0 unless a file


class Store:
    """A folder of a file system. Paths are relative to it, with `/`.

    Raises UserError for a URL that no installed package can open. The methods raise OSError.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        try:
            self._fs, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UserError(f"cannot open the buffer {self.url}: {error}") from error
        self._root: str = root.rstrip("/")
        self._local = Path(root) if "file" in _protocols(self._fs) else None

    def entries(self) -> dict[str, Entry] | None:
        """What the folder holds now, by name; None when it does not exist."""
        self._fs.invalidate_cache()
        try:
            infos = self._fs.ls(self._root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return None
        found = {posixpath.relpath(info["name"], self._root): _entry(info) for info in infos}
        itself = found.pop(".", None)  # some stores list a file, or an empty folder, as itself
        return None if itself is not None and itself.kind != "directory" else found

    def tree(self, folder: str) -> dict[str, Entry]:
        """Everything below a folder except folders, by path relative to it."""
        base = self._path(folder)
        infos = self._fs.find(base, maxdepth=4, withdirs=True, detail=True).values()
        found = {posixpath.relpath(info["name"], base): _entry(info) for info in infos}
        return {path: entry for path, entry in found.items() if entry.kind != "directory"}

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Whole contents by path; from a remote store, several at a time."""
        with ThreadPoolExecutor(FETCHES if self._local is None else 1) as pool:
            contents = pool.map(self._fs.cat_file, [self._path(path) for path in paths])
            return dict(zip(paths, contents, strict=True))

    def sweep(self, shard: str) -> None:
        """Remove what killed writers of this shard left behind. Remote stores have nothing temporary."""
        if self._local is not None:
            local.sweep(self._local, shard)

    def publish(self, shard: str, targets: Mapping[str, Mapping[str, bytes]]) -> None:
        """Make each target a file (the empty path alone) or a folder of files, in this order.

        Local: each in one step, by rename. Remote: object by object, which is safe because the sidecar comes last and
        data names carry their digest.
        """
        if self._local is not None:
            local.publish(self._local, shard, targets)
            return
        for target, files in targets.items():
            for path, content in files.items():
                full = self._path(f"{target}/{path}" if path else target)
                self._fs.makedirs(posixpath.dirname(full), exist_ok=True)
                self._fs.pipe_file(full, content)

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"


def _entry(info: Mapping[str, Any]) -> Entry:
    if info["type"] not in ("file", "directory"):  # fsspec does not follow links here
        return Entry("other", 0)
    return Entry(info["type"], int(info.get("size") or 0) if info["type"] == "file" else 0)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
