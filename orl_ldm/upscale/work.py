"""The working folder beside a target: what is finished so far, so that a killed run goes on.

`manifest.json` says what is being made (digests of input, policy and LDM, all options) and which decisions were taken
for the scene. Every finished piece is a small TIFF whose name holds its digest; it is written under another name,
synced and renamed, so that a piece is there as a whole or not at all.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from blake3 import blake3
from rasterio.windows import Window

from orl_ldm.errors import UserError
from orl_ldm.locks import locked
from orl_ldm.upscale.source import digest_of_file

#: Side of the blocks of a piece, in pixels.
BLOCK = 256


@dataclass(frozen=True)
class Work:
    """An open working folder."""

    folder: Path

    def begin(self, identity: Mapping[str, Any], again: bool) -> dict[str, Any]:
        """The scene's decisions, if an earlier run with the same identity took them.

        Raises UserError where an unfinished run had another identity, unless it may be started `again`.
        """
        try:
            content = json.loads((self.folder / "manifest.json").read_text())
            before = dict(content["identity"])
        except FileNotFoundError:
            before = None
        except (OSError, ValueError, KeyError, TypeError):
            before, again = {}, True  # damaged: nothing can be trusted
        if before is not None and before != identity:
            changed = [
                f"{k} ({_short(before.get(k))}, now {_short(v)})" for k, v in identity.items() if before.get(k) != v
            ]
            if not again:
                raise UserError(
                    f"an unfinished run lies in {self.folder}, with another {' and '.join(changed)}: repeat its "
                    "command to finish it, or give --overwrite to start again"
                )
            self.clear()
        if before == identity:
            return dict(content["scene"])
        return {}

    def decide(self, identity: Mapping[str, Any], scene: Mapping[str, Any]) -> None:
        """Store the scene's decisions before the first piece."""
        self.replace("manifest.json", json.dumps({"identity": identity, "scene": scene}).encode())

    def replace(self, name: str, content: bytes) -> Path:
        """Write a file of the folder whole or not at all."""
        staged, final = self.folder / f"{name}.part", self.folder / name
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(final)
        return final

    def finished(self) -> dict[str, Path]:
        """Pieces by name; those that are damaged are deleted."""
        found = {}
        for path in self.folder.glob("*.piece.tif"):
            name, digest = path.name.removesuffix(".piece.tif").rsplit("-", 1)
            if digest_of_file(path)[:16] == digest:
                found[name] = path
            else:
                path.unlink()
        return found

    @contextmanager
    def piece(self, name: str, shape: tuple[int, int, int], dtype: str) -> Iterator["PieceWriter"]:
        """Write a piece of (bands, height, width); it gets its name when the block ends without an exception."""
        staged = self.folder / f"{name}.part"
        count, height, width = shape
        layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "pixel", "bigtiff": "if_safer"}
        packed = {"compress": "deflate", "zlevel": 1, "predictor": 3 if dtype.startswith("float") else 2}
        with rasterio.open(
            staged, "w", driver="GTiff", count=count, height=height, width=width, dtype=dtype, **layout, **packed
        ) as file:
            writer = PieceWriter(file)
            yield writer
        writer.verify(staged)
        sync(staged)
        staged.rename(self.folder / f"{name}-{digest_of_file(staged)[:16]}.piece.tif")
        sync(self.folder)

    @property
    def size(self) -> int:
        """Bytes of the finished pieces."""
        return sum(path.stat().st_size for path in self.folder.glob("*.piece.tif"))

    def clear(self) -> None:
        """Delete everything but the lock."""
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()


@dataclass(frozen=True)
class PieceWriter:
    """Takes a piece's columns from left to right."""

    file: Any
    written: list[tuple[Window, bytes]] = field(default_factory=list)

    def write(self, pixels: npt.NDArray[Any], column: int) -> None:
        """Write (bands, height, w) at a column of the piece."""
        window = Window(column, 0, pixels.shape[2], pixels.shape[1])
        self.file.write(pixels, window=window)
        self.written.append((window, _digest(pixels)))

    def verify(self, path: Path) -> None:
        """Raise OSError unless the closed file holds what was written: GDAL does not report a full disk at closing."""
        with rasterio.open(path) as file:
            if any(_digest(file.read(window=window)) != digest for window, digest in self.written):
                raise OSError(f"{path.name} was not written completely")


def _digest(pixels: npt.NDArray[Any]) -> bytes:
    return blake3(np.ascontiguousarray(pixels).tobytes()).digest()


@contextmanager
def working_folder(target: Path) -> Iterator[Work]:
    """The locked working folder of a target, deleted when the block ends without an exception or with nothing in it.

    Raises UserError where it cannot be made, or another process works on the same target.
    """
    folder = target.parent / f".{target.name}.orl-ldm"
    try:
        folder.mkdir(exist_ok=True)
        lock = folder / "lock"
        lock.touch()
    except OSError as error:
        raise UserError(f"nothing can be written in {target.parent}: {error.strerror}") from None
    with locked(lock, f"is writing {target.name}"):
        for path in folder.glob("*.part*"):
            path.unlink()
        try:
            yield Work(folder)
        except BaseException:
            if not (folder / "manifest.json").exists():  # nothing to go on with
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
