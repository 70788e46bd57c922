"""The process that a command runs in: its encoding, its signals, and where the libraries keep their caches."""

import atexit
import codecs
import getpass
import os
import signal
import sys
import tempfile
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

#: A library's variable -> the folder that it uses otherwise, below the home folder.
CACHES = {
    "HF_HOME": ".cache/huggingface",
    "MPLCONFIGDIR": ".config/matplotlib",
    "TORCH_HOME": ".cache/torch",
}

#: What stands for a character that the terminal's encoding lacks; "?" for any other.
PLAIN = {
    "\N{MINUS SIGN}": "-",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{CHECK MARK}": "(+)",
    "\N{BALLOT X}": "(-)",
}


class InterruptedByUser(BaseException):
    """Ctrl-C or SIGTERM. Not a KeyboardInterrupt, which typer would turn into "Aborted!" and status 1."""


def catch_signals() -> None:
    """Raise InterruptedByUser on both signals."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


def _raise(signum: int, frame: object) -> NoReturn:
    raise InterruptedByUser


def print_in_any_encoding() -> None:
    """Let stdout and stderr print something for a character that their encoding lacks, instead of failing."""
    codecs.register_error("orl_ldm.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="orl_ldm.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def name_user() -> None:
    """Name a user who has no entry in the password database: torch asks for the name."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid-{os.getuid()}"


def place_caches() -> str:
    """Give the libraries cache folders where they can write none below the home folder, before they are imported.

    These lie in $ORL_LDM_CACHE, else in a temporary folder that is removed at exit. Variables that are set stay.
    Returns a sentence for the user, or "" where nothing will be lost.
    """
    if os.environ.get("XDG_CACHE_HOME"):
        return ""
    homeless = [variable for variable, folder in CACHES.items() if variable not in os.environ and not _usable(folder)]
    if not homeless:
        return ""
    kept = os.environ.get("ORL_LDM_CACHE")
    if kept:
        base = Path(kept).expanduser().absolute()
    else:
        temporary = tempfile.TemporaryDirectory(prefix="orl-ldm-", ignore_cleanup_errors=True)
        atexit.register(temporary.cleanup)
        base = Path(temporary.name)
    for variable in homeless:
        os.environ[variable] = str(base / variable.lower())
    if kept:
        return ""
    return (
        "note: no home folder can be written to, so downloads are removed at the end; to keep them, set the "
        "environment variable ORL_LDM_CACHE to a folder"
    )


def _usable(folder: str) -> bool:
    """Whether a folder below the home folder exists, or could be made."""
    try:
        place = Path.home() / folder
    except RuntimeError:
        return False
    if os.path.isdir(place):  # noqa: PTH112 - False, not an error, where looking is forbidden
        return True
    while not os.path.exists(place):  # noqa: PTH110
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)
