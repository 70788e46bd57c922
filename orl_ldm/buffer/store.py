"""The place where a buffer lies. Only `scheme://...` is a URL; everything else is a local path as it is written."""

import re
from pathlib import Path

from orl_ldm.buffer.local_store import LocalStore
from orl_ldm.buffer.remote_store import RemoteStore

#: Both have the same methods. They raise OSError; StoreAwayError is the one that tells nothing about the content.
Store = LocalStore | RemoteStore

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def local_folder(place: str | Path) -> Path | None:
    """The absolute folder of a local path or `file://` URL, with a leading `~` expanded; None for other URLs."""
    text = str(place)
    if scheme := _URL.match(text):
        return Path(text[scheme.end() :]).absolute() if scheme[1] in ("file", "local") else None
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # there is no such user, so that it is a folder's name
        return Path(text).absolute()


def open_store(place: str | Path) -> Store:
    """Open a folder or URL. Raises UserError for a URL that no installed package can open."""
    folder = local_folder(place)
    return RemoteStore(str(place)) if folder is None else LocalStore(str(place), folder)
