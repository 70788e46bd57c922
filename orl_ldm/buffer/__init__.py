"""The transition buffer: what one machine logs, another can trust. Format: docs/buffer-format.md."""

from orl_ldm.buffer.reader import read
from orl_ldm.buffer.schema import SCHEMA_VERSION, FieldSpec, Header, ImageRef, Sidecar
from orl_ldm.buffer.selection import Selection
from orl_ldm.buffer.transitions import Transitions
from orl_ldm.buffer.verification import Problem, verify
from orl_ldm.buffer.writer import BufferWriter

__all__ = [
    "SCHEMA_VERSION",
    "BufferWriter",
    "FieldSpec",
    "Header",
    "ImageRef",
    "Problem",
    "Selection",
    "Sidecar",
    "Transitions",
    "read",
    "verify",
]
