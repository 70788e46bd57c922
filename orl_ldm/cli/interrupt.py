"""Ctrl-C and SIGTERM end a command in one sentence."""

import signal
from typing import NoReturn


class InterruptedByUser(BaseException):
    """Not a KeyboardInterrupt, which typer would turn into "Aborted!" and status 1."""


def install() -> None:
    """Raise InterruptedByUser on both signals."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


def _raise(signum: int, frame: object) -> NoReturn:
    raise InterruptedByUser
