"""Write shards: each whole or not at all, once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer import codec as codecs
from orl_ldm.buffer import shard, sidecar, validation
from orl_ldm.buffer.schema import (
    CodecName,
    ForeignError,
    Header,
    ImageRef,
    ShardError,
    Sidecar,
    field_specs,
    is_shard_name,
)
from orl_ldm.buffer.shard import Found
from orl_ldm.buffer.store import open_store
from orl_ldm.errors import UserError


class BufferWriter:
    """Writes the shards of one collection to a folder or fsspec URL, which is made when it is missing.

    Any number of writers may share a buffer, on any number of machines, even for the same work. Raises UserError for
    a URL that cannot be opened.
    """

    def __init__(self, url: str | Path, header: Header, codec: CodecName = "hdf5") -> None:
        if codec not in get_args(CodecName):
            raise UserError(f"unknown buffer codec {codec!r}; choose one of {', '.join(get_args(CodecName))}")
        self._store = open_store(url)
        self._header = header
        self._codec: CodecName = codec

    def published(self) -> set[str]:
        """Names of the shards that need not be written: the work that remains is the set difference.

        They have a readable sidecar of this schema and header (other packages aside), and data beside it; `verify`
        checks the data. A name that other work has taken is not among them: `write` refuses it.
        """
        return {name for name, one in self._find().items() if isinstance(one, Found) and not self._differences(one)}

    def require_compatible(self, prefix: str = "") -> None:
        """Raises UserError when the buffer has a shard that could not be read together with those of this writer.

        With `prefix`, also for a shard whose name does not start with it, as one of another collection.
        """
        for name, one in self._find().items():
            if isinstance(one, Found) and (
                differences := validation.header_differences(one.sidecar.header, self._header)
            ):
                raise UserError(
                    f"{self._store.url} holds shard {name}, with which new shards could not be read together: its "
                    f"{'; its '.join(differences)}; write to another folder"
                )
            if not name.startswith(prefix):
                raise UserError(f"{self._store.url} holds shard {name} of another collection; write to another folder")

    def check_writable(self) -> None:
        """Raises UserError when the buffer's place is read-only or full. Call it before long work; makes the folder."""
        try:
            self._store.check_writable()
        except OSError as error:
            raise UserError(
                f"cannot write to the buffer {self._store.url}: {error.strerror or error}; "
                "make room, set its rights, or give another folder"
            ) from error

    def write(self, name: str, columns: Mapping[str, npt.NDArray[Any]], images: Sequence[ImageRef]) -> Sidecar:
        """Publish one shard, durably; returns its sidecar, or the existing one when `name` is already published.

        Columns are those of `schema.field_specs`, N rows each; `images` must list every image of these rows. Raises
        UserError for a name or columns that break a rule, when other work has taken the name, and when the store
        does not take the data: nothing is left of them.
        """
        if not is_shard_name(name):
            raise UserError(f"{name!r} is no shard name: use 1 to 128 of letters, digits, . _ - and start with no mark")
        if problems := validation.column_problems(columns, self._header, images):
            raise UserError(f"shard {name} {'; and it '.join(problems)}; nothing was published")
        self._store.sweep(name)
        existing = self._find([name]).get(name)
        if isinstance(existing, ForeignError):
            raise UserError(f"shard {name} of {self._store.url} {existing}; until then, write to another folder")
        if isinstance(existing, Found):
            if differences := self._differences(existing):
                raise UserError(
                    f"shard {name} of {self._store.url} is there already, but its {differences[0]}; "
                    "write to another folder, or give other work another name"
                )
            return existing.sidecar
        return self._publish(name, columns, images)

    def _publish(self, name: str, columns: Mapping[str, npt.NDArray[Any]], images: Sequence[ImageRef]) -> Sidecar:
        fields = field_specs(self._header)
        files = codecs.encode(self._codec, columns, fields)
        described = Sidecar(
            name=name,
            codec=self._codec,
            header=self._header,
            rows=len(columns["terminals"]),
            episodes=int(np.count_nonzero(columns["terminals"])),
            bytes=sum(map(len, files.values())),
            digest=codecs.digest(files),
            fields=fields,
            images=tuple(images),
        )
        content = sidecar.dumps(described)
        try:
            sidecar.loads(content, name)  # a shard that readers would refuse, for its size above all, is not written
        except ShardError as error:
            raise UserError(f"shard {name} {error}; nothing was published") from error
        try:
            self._store.publish(name, described.data, files, name + sidecar.SUFFIX, content)
        except OSError as error:
            raise UserError(
                f"cannot write shard {name} to {self._store.url}: {error.strerror or error}; "
                "make room, set its rights or wait for the store, then collect again: published shards are kept"
            ) from error
        return described

    def _find(self, wanted: Sequence[str] | None = None) -> dict[str, Found | ShardError]:
        """The buffer's shards under these names, or all names; a sidecar without data counts as missing."""
        found = shard.find(self._store, shard.listing(self._store) or {}, wanted)
        return {name: one for name, one in found.items() if isinstance(one, ShardError) or one.has_data}

    def _differences(self, existing: Found) -> list[str]:
        return validation.header_differences(existing.sidecar.header, self._header, may_differ={"packages"})
