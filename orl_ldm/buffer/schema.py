"""What a shard says about itself: header, fields, images and sidecar, as plain data.

Legend: N rows (transitions), F observation features, A action dimensions, T raw reward terms.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from orl_ldm.errors import UserError

SCHEMA_VERSION: int = 3

#: What readers read. Schema 1 had SHA-256 digests and no signatures, 2 had no checksums.
READABLE_SCHEMAS = (1, 2, 3)

#: A shard is one unit of work; one that is larger than this, on disk or in memory, is a mistake or an attack.
MAX_SHARD_BYTES = 2**30

CodecName = Literal["hdf5", "zarr"]
Columns = Mapping[str, npt.NDArray[Any]]

_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class ShardError(Exception):
    """One shard cannot be trusted. The message continues a sentence that starts with the shard's name."""

    def __init__(self, reason: str) -> None:
        line = " ".join(reason.split())  # it may quote a hostile file at any length
        super().__init__(line if len(line) <= 400 else f"{line[:397]}...")


class ForeignError(ShardError):
    """The shard may well be sound, but it is not for this reader; so no writer may replace it."""


class OtherSchemaError(ForeignError):
    """The shard was written by a version of this package that this one cannot read."""


class SignatureError(ForeignError):
    """The shard is not signed with the key that this machine has been given."""


@dataclass(frozen=True)
class FieldSpec:
    """One column: `dtype` is float32, int64 or bool; `shape` is that of one row, () for a scalar."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def stored(self) -> np.dtype[Any]:
        """The dtype on disk: little-endian, and bool as uint8 0 or 1, which every HDF5 and Zarr library can read."""
        return np.dtype("uint8" if self.dtype == "bool" else self.dtype).newbyteorder("<")

    @property
    def row_bytes(self) -> int:
        return self.stored.itemsize * math.prod(self.shape)


class ImageRef(NamedTuple):
    """The image that an episode worked on: its id in this collection, its file or dataset name, its scene class."""

    image_id: int  # 64 bits, signed
    name: str
    scene: str


@dataclass(frozen=True)
class Images(Sequence[ImageRef]):
    """Images as a tuple for each of their facts, all of one length: shards list thousands, few are ever looked at."""

    image_id: tuple[int, ...]
    name: tuple[str, ...]
    scene: tuple[str, ...]

    @staticmethod
    def of(images: Iterable[ImageRef]) -> "Images":
        """From images one by one."""
        listed = list(images)
        return Images(
            tuple(int(image.image_id) for image in listed),  # NumPy's integers are no JSON
            tuple(image.name for image in listed),
            tuple(image.scene for image in listed),
        )

    def __len__(self) -> int:
        return len(self.image_id)

    @overload
    def __getitem__(self, index: int) -> ImageRef: ...
    @overload
    def __getitem__(self, index: slice) -> "Images": ...
    def __getitem__(self, index: int | slice) -> "ImageRef | Images":
        one = (self.image_id[index], self.name[index], self.scene[index])
        return Images(*one) if isinstance(index, slice) else ImageRef(*one)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Header:
    """The facts about a collection that every shard of it repeats. Raises UserError for facts that cannot be true."""

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
    reward_weights: Mapping[str, float]  # the weights under which `rewards` was composed

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
        object.__setattr__(self, "packages", dict(sorted(self.packages.items())))
        weights = {key: float(weight) for key, weight in sorted(self.reward_weights.items())}
        object.__setattr__(self, "reward_weights", weights)
        for action, low, high in zip(self.action_names, self.action_low, self.action_high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UserError(
                    f"Header bounds action {action!r} by [{low}, {high}]; give finite bounds with low < high"
                )
        if self.nfe_max < 1:
            raise UserError(f"Header.nfe_max is {self.nfe_max}; give at least 1")
        for key, weight in self.reward_weights.items():
            if not math.isfinite(weight):
                raise UserError(f"Header.reward_weights[{key!r}] is {weight}; give a finite number")
        for name in ("pipeline_digest", "ldm_id", "ldm_digest", "behavior_id"):
            if not getattr(self, name):
                raise UserError(f"Header.{name} is empty; say what the data were collected with")


@dataclass(frozen=True)
class Sidecar:
    """What `NAME.json` says about shard NAME; its presence is what publishes the shard."""

    schema: int
    name: str
    codec: CodecName
    header: Header
    rows: int
    episodes: int
    bytes: int  # of all data files together
    digest: str  # hex; a cryptographic hash of the data, see codec.DIGESTS
    checksum: str  # hex; a faster hash of the same, none (empty) before schema 3; see codec.CHECKSUM
    fields: tuple[FieldSpec, ...]
    images: Images

    @property
    def data(self) -> str:
        """Name of the data file (HDF5) or folder (Zarr) beside the sidecar.

        It carries a part of the digest, so that data, once published, never change under their name: two machines
        that publish the same work at the same moment cannot leave the sidecar of one with the data of the other.
        """
        return f"{self.name}.{self.digest[:16]}.{'h5' if self.codec == 'hdf5' else 'zarr'}"


def field_specs(header: Header) -> tuple[FieldSpec, ...]:
    """The columns of a shard under this header: all are required, and there are no others."""
    return (
        FieldSpec("observations", "float32", (len(header.feature_names),)),
        FieldSpec("actions", "float32", (len(header.action_names),)),
        FieldSpec("log_probs", "float32", ()),
        FieldSpec("rewards", "float32", ()),
        FieldSpec("terminals", "bool", ()),
        FieldSpec("timeouts", "bool", ()),
        FieldSpec("values", "float32", (len(header.term_names),)),
        FieldSpec("potentials", "float32", ()),
        FieldSpec("episode_id", "int64", ()),
        FieldSpec("image_id", "int64", ()),
    )


def is_shard_name(name: str) -> bool:
    """Whether a name is safe as a file name on every store: no separators, no leading dot, at most 128 characters."""
    return _SHARD_NAME.fullmatch(name) is not None


def _check_names(what: str, names: tuple[str, ...]) -> None:
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise UserError(f"Header.{what} is {list(names)}; give at least one name, none of them empty or repeated")
