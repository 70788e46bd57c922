"""Plain data that describe a shard: header, columns, images and sidecar.

Legend: N rows (transitions), F observation features, A action dimensions, T raw reward terms.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from orl_ldm.errors import UserError

#: The version of the format. Shards of other versions are refused.
SCHEMA_VERSION = 4

#: The largest shard, on disk and in memory. A shard is one unit of work; a larger one is a mistake or an attack.
MAX_SHARD_BYTES = 2**30

CodecName = Literal["hdf5", "zarr"]
Columns = Mapping[str, npt.NDArray[Any]]

_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_EXACT = ConfigDict(extra="forbid", strict=True)


class ShardError(Exception):
    """One shard cannot be trusted. The message continues a sentence that starts with the shard's name."""

    def __init__(self, reason: str) -> None:
        line = " ".join(reason.split())  # it may quote a hostile file at any length
        super().__init__(line if len(line) <= 400 else f"{line[:397]}...")


class ForeignError(ShardError):
    """The shard may be sound but is of another version or key, so that no writer may replace it."""


@dataclass(frozen=True)
class FieldSpec:
    """One column: `dtype` is float32, int64 or bool; `shape` is that of one row, () for a scalar."""

    __pydantic_config__ = _EXACT

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def stored(self) -> np.dtype[Any]:
        """The dtype on disk: little-endian, and bool as uint8 0 or 1, which every HDF5 and Zarr library can read."""
        return np.dtype("uint8" if self.dtype == "bool" else self.dtype).newbyteorder("<")

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.stored.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class ImageRef:
    """The image of an episode: its id in the collection, its file or dataset name, its scene class."""

    __pydantic_config__ = _EXACT

    image_id: int  # 64 bits, signed
    name: str
    scene: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_id", int(self.image_id))  # JSON has no NumPy integers


@dataclass(frozen=True)
class Header:
    """The facts about a collection that every shard of it repeats. Raises UserError for facts that cannot be true."""

    __pydantic_config__ = _EXACT

    feature_names: tuple[str, ...]  # (F,) names of the observation vector, in order
    action_names: tuple[str, ...]  # (A,)
    action_low: tuple[float, ...]  # (A,) inclusive
    action_high: tuple[float, ...]  # (A,) inclusive
    term_names: tuple[str, ...]  # (T,) raw reward terms, in order
    nfe_max: int  # the most denoiser calls of an episode
    pipeline_digest: str  # sha256 hex of the configuration that decides the data
    ldm_id: str
    ldm_digest: str
    behavior_id: str  # the policy that acted
    seed: int
    packages: Mapping[str, str]  # package versions; informative, they may differ between shards
    sampler: Mapping[str, float | str] = field(default_factory=dict)  # the sampler's settings
    degradation: str = ""  # how LR images were made

    def __post_init__(self) -> None:
        # Copies in plain Python types, so that a header equals the one read back from its JSON.
        for name in ("feature_names", "action_names", "term_names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            _check_names(name, getattr(self, name))
        for name in ("action_low", "action_high"):
            object.__setattr__(self, name, tuple(float(bound) for bound in getattr(self, name)))
            if len(getattr(self, name)) != len(self.action_names):
                raise UserError(f"Header.{name} has {len(getattr(self, name))} values; give one for each action name")
        for name in ("nfe_max", "seed"):
            object.__setattr__(self, name, int(getattr(self, name)))
        for name in ("packages", "sampler"):
            object.__setattr__(self, name, dict(sorted(getattr(self, name).items())))
        for action, low, high in zip(self.action_names, self.action_low, self.action_high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UserError(
                    f"Header bounds action {action!r} by [{low}, {high}]; give finite bounds with low < high"
                )
        if self.nfe_max < 1:
            raise UserError(f"Header.nfe_max is {self.nfe_max}; give at least 1")
        for name in ("pipeline_digest", "ldm_id", "ldm_digest", "behavior_id"):
            if not getattr(self, name):
                raise UserError(f"Header.{name} is empty; name what the data were collected with")


@dataclass(frozen=True)
class Sidecar:
    """The content of `NAME.json`, whose presence publishes shard NAME."""

    __pydantic_config__ = _EXACT

    name: str
    codec: CodecName
    header: Header
    rows: int
    episodes: int
    bytes: int  # of all data files together
    digest: str  # BLAKE3 of the data, hex
    fields: tuple[FieldSpec, ...]
    images: tuple[ImageRef, ...]

    @property
    def data(self) -> str:
        """Name of the data file (HDF5) or folder (Zarr) beside the sidecar.

        It contains a part of the digest, so that published data never change under their name. When two machines
        publish the same work at the same moment, each sidecar names its own data.
        """
        return f"{self.name}.{self.digest[:16]}.{'h5' if self.codec == 'hdf5' else 'zarr'}"


def field_specs(header: Header) -> tuple[FieldSpec, ...]:
    """The columns of a shard under this header: all are required, and there are no others."""
    return (
        FieldSpec("observations", "float32", (len(header.feature_names),)),
        FieldSpec("actions", "float32", (len(header.action_names),)),
        FieldSpec("log_probs", "float32", ()),
        FieldSpec("terminals", "bool", ()),
        FieldSpec("terms", "float32", (len(header.term_names),)),
        FieldSpec("episode_id", "int64", ()),
        FieldSpec("image_id", "int64", ()),
    )


def is_shard_name(name: str) -> bool:
    """Whether a name is safe as a file name on every store: no separators, no leading dot, at most 128 characters."""
    return _SHARD_NAME.fullmatch(name) is not None


def _check_names(what: str, names: tuple[str, ...]) -> None:
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise UserError(f"Header.{what} is {list(names)}; give at least one name, none of them empty or repeated")
