"""The transition buffer: logged transitions in checked, immutable shards. Format: docs/buffer-format.md."""

from orl_ldm.buffer.reader import read
from orl_ldm.buffer.schema import SCHEMA_VERSION, FieldSpec, Header, ImageRef, Sidecar
from orl_ldm.buffer.selection import Selection
from orl_ldm.buffer.store import local_folder
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
    "local_folder",
    "read",
    "verify",
]
