"""Writing files: whole or not at all, UTF-8 always, and one sentence when the disk does not take them."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from orl_ldm.errors import UserError

#: What network shares answer when they cannot flush a file.
_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file as `write_bytes` does. Line ends stay as they are; bytes of undecodable names are escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it, so that a reader never meets half of it.

    Raises UserError when it cannot be written; what was there before then stays.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with staged.open("wb") as file:
                file.write(content)
                flush(file.fileno())
            staged.replace(path)
        except BaseException:
            with suppress(OSError):
                staged.unlink()
            raise


@contextmanager
def writing(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Turn an OSError, a SafetensorError or one of `others`, raised while `path` is written, into a UserError."""
    kinds: tuple[type[Exception], ...] = (OSError, SafetensorError, *others)
    try:
        yield
    except kinds as error:
        sentence = f"cannot write {str(path)!r} ({reason(error)}): make room there, or choose another folder"
        raise UserError(sentence) from error


def require_writable(folder: str | Path, setting: str) -> None:
    """Check, without leaving a trace, that files can be written to a folder, which need not exist yet.

    Raises UserError that names the setting: a file is in the way, the place is read-only, or its disk is full.
    """
    place = Path(folder).absolute()
    try:
        while not (place.exists() or place.is_symlink()):
            place = place.parent
        if place.is_file():
            raise FileExistsError(errno.EEXIST, f"{str(place)!r} is a file")
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        raise UserError(
            f"{setting} = {str(folder)!r} cannot be written to ({reason(error)}): make room there, or choose another "
            "folder"
        ) from error


def flush(descriptor: int) -> None:
    """fsync, where the file system supports it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise


def reason(error: BaseException) -> str:
    """The first line of what went wrong, without Python's error number."""
    lines = str((isinstance(error, OSError) and error.strerror) or error).splitlines()
    return lines[0] if lines else type(error).__name__
