"""One process at a time where two would overwrite each other's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from orl_ldm.errors import UserError


@contextmanager
def alone(lock: Path, doing: str) -> Iterator[None]:
    """Raises UserError while another process holds the lock, whose folder exists; one that dies leaves it free."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process {doing}: wait for it, or choose another folder") from None
    try:
        yield
    finally:
        held.release()
