"""Signatures for teams that share a store: HMAC-SHA-256 of a sidecar, whose digest vouches for the data in turn."""

import hashlib
import hmac
import os

from orl_ldm.errors import UserError

#: With a key in this variable writers sign, and readers take nothing that is not signed with it.
VARIABLE = "ORL_LDM_BUFFER_KEY"

_SHORTEST = 16


def key() -> bytes | None:
    """The key of this process, None without one. Raises UserError for one that could be guessed."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    if len(text.encode()) < _SHORTEST:
        raise UserError(f"{VARIABLE} is shorter than {_SHORTEST} bytes; take a longer key, or unset it to sign nothing")
    return text.encode()


def sign(secret: bytes, content: bytes) -> str:
    """64 lower-case hex digits."""
    return hmac.new(secret, content, hashlib.sha256).hexdigest()


def matches(secret: bytes, content: bytes, signature: str) -> bool:
    """Whether a signature is right, found in a time that does not tell where it is wrong."""
    return hmac.compare_digest(sign(secret, content).encode(), signature.encode())
