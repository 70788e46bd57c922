"""Write shards: each whole or not at all, once."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer import codec as codecs
from orl_ldm.buffer import rules, shard, sidecar
from orl_ldm.buffer.local import Announcement, Pieces
from orl_ldm.buffer.schema import (
    SCHEMA_VERSION,
    CodecName,
    ForeignError,
    Header,
    ImageRef,
    Images,
    ShardError,
    Sidecar,
    field_specs,
    is_shard_name,
)
from orl_ldm.buffer.store import Store
from orl_ldm.errors import UserError


class BufferWriter:
    """Writes the shards of one collection to a folder or fsspec URL, which is made when the first shard is written.

    Any number of writers may share a buffer, on any number of machines, even for the same work. Raises UserError for
    a URL that cannot be opened.
    """

    def __init__(self, url: str | Path, header: Header, codec: CodecName = "hdf5") -> None:
        if codec not in get_args(CodecName):
            raise UserError(f"unknown buffer codec {codec!r}; choose one of {', '.join(get_args(CodecName))}")
        self._store = Store(url)
        self._header = header
        self._codec: CodecName = codec

    def published(self) -> set[str]:
        """Names of the shards that need not be written: what remains to be done is the set difference.

        They have a readable sidecar of this schema and header (other packages aside), and data beside it; whether the
        data are sound is for `verify` to say. A name that other work has taken is not among them: `write` refuses it.
        """
        return {
            name for name, found in self._find().items() if isinstance(found, Sidecar) and not self._differences(found)
        }

    def require_company(self, own: str = "") -> None:
        """Raises UserError when a shard is there that could not be read together with those of this writer.

        With `own`, also for one whose name does not begin so: it is of another collection.
        """
        for name, found in self._find().items():
            if isinstance(found, Sidecar) and (differences := rules.header_differences(found.header, self._header)):
                raise UserError(
                    f"{self._store.url} holds shard {name}, with which new shards could not be read together: its "
                    f"{'; its '.join(differences)}; write to another folder"
                )
            if not name.startswith(own):
                raise UserError(f"{self._store.url} holds shard {name} of another collection; write to another folder")

    def write(self, name: str, columns: Mapping[str, npt.NDArray[Any]], images: Sequence[ImageRef]) -> Sidecar:
        """Publish one shard, durably; returns its sidecar, or the existing one when `name` is already published.

        Columns are those of `schema.field_specs`, N rows each; `images` must hold every image that they mention.
        Raises UserError for a name or columns that break a rule, when the name is taken by other work, and when the
        store does not take the data: nothing is left of them.
        """
        if not is_shard_name(name):
            raise UserError(f"{name!r} is no shard name: use 1 to 128 of letters, digits, . _ - and start with no mark")
        listed = Images.of(images)
        _refuse(name, rules.form_problems(columns, self._header))
        self._store.sweep(name)
        existing = self._find({name}).get(name)
        if isinstance(existing, ForeignError):
            raise UserError(f"shard {name} of {self._store.url} {existing}; until then, write to another folder")
        if isinstance(existing, Sidecar):
            if differences := self._differences(existing):
                raise UserError(
                    f"shard {name} of {self._store.url} is there already, but its {differences[0]}; "
                    "write to another folder, or give other work another name"
                )
            return existing
        fields = field_specs(self._header)
        files = codecs.encode(self._codec, columns, fields)

        @cache
        def described() -> Sidecar:  # (while the data are on their way to a temporary place)
            _refuse(name, rules.content_problems(columns, self._header, listed.image_id))
            digest, checksum = codecs.hashed(files, codecs.DIGESTS[SCHEMA_VERSION], codecs.CHECKSUM)
            return Sidecar(
                schema=SCHEMA_VERSION,
                name=name,
                codec=self._codec,
                header=self._header,
                rows=len(columns["terminals"]),
                episodes=int(np.count_nonzero(columns["terminals"] | columns["timeouts"])),
                bytes=sum(len(piece) for pieces in files.values() for piece in pieces),
                digest=digest,
                checksum=checksum,
                fields=fields,
                images=listed,
            )

        self._publish(name, files, described)
        return described()

    def _find(self, wanted: Collection[str] | None = None) -> dict[str, Sidecar | ShardError]:
        """What stands in the buffer under these names, or all names; a sidecar without data is as good as nothing."""
        entries = shard.listing(self._store) or {}
        names = [name for name in shard.names(entries) if wanted is None or name in wanted]
        found = shard.sidecars(self._store, entries, names)
        return {name: one for name, one in found.items() if isinstance(one, ShardError) or shard.has_data(entries, one)}

    def _differences(self, existing: Sidecar) -> list[str]:
        return rules.header_differences(existing.header, self._header, may_differ={"packages"})

    def _publish(self, name: str, files: Mapping[str, Pieces], described: Callable[[], Sidecar]) -> None:
        def announce() -> Announcement:
            content = sidecar.dumps(described())
            try:
                sidecar.loads(content, name)  # what a reader would refuse, its size above all, is not written
            except ShardError as error:
                raise UserError(f"shard {name} {error}; nothing was published") from error
            return Announcement(described().data, name + shard.SIDECAR_SUFFIX, content)

        try:
            self._store.publish(name, files, announce)
        except OSError as error:
            raise UserError(
                f"cannot write shard {name} to {self._store.url}: {error.strerror or error}; "
                "make room, set its rights or wait for the store, then collect again: published shards are kept"
            ) from error


def _refuse(name: str, problems: Iterable[str]) -> None:
    if found := list(problems):
        raise UserError(f"shard {name} {'; and it '.join(found)}; nothing was published")
