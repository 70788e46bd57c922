"""Locks: one process at a time where two would overwrite each other's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from orl_ldm.errors import UserError
from orl_ldm.files import reason


@contextmanager
def locked(lock: Path, doing: str) -> Iterator[None]:
    """Hold a lock file, whose folder exists; the lock of a process that died is free.

    Raises UserError while another process holds it, with `doing` as what that process does ("trains in 'runs/a'").
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process {doing}: wait for it, or choose another folder") from None
    except OSError as error:
        raise UserError(f"cannot lock {str(lock)!r} ({reason(error)}): choose another folder") from error
    try:
        yield
    finally:
        held.release()
