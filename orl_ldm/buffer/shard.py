"""One shard on a store: found in a listing, its sidecar read, its data fetched, checked and parsed.

Nothing is fetched before its size is known to be the declared one, and nothing is parsed before its digest is checked.
"""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from orl_ldm.buffer import codec, sidecar, validation
from orl_ldm.buffer.codec import Files
from orl_ldm.buffer.local_store import TEMPORARY, Entry
from orl_ldm.buffer.remote_store import StoreAwayError
from orl_ldm.buffer.schema import Columns, ShardError, Sidecar, is_shard_name
from orl_ldm.buffer.store import Store
from orl_ldm.errors import UserError

#: The name of a shard's data: NAME, sixteen digits of the digest, the codec's suffix.
DATA_NAME = re.compile(r"(.+)\.[0-9a-f]{16}\.(?:h5|zarr)")


@dataclass(frozen=True)
class Found:
    """A shard with a readable sidecar, and where it was found."""

    store: Store
    entries: Mapping[str, Entry]
    sidecar: Sidecar

    def __str__(self) -> str:
        return f"shard {self.sidecar.name} of {self.store.url}"

    @property
    def has_data(self) -> bool:
        """Whether the listing has the shard's data, as a file or folder as its codec makes it."""
        entry = self.entries.get(self.sidecar.data)
        return entry is not None and entry.kind == ("file" if self.sidecar.codec == "hdf5" else "directory")


def listing(store: Store) -> dict[str, Entry] | None:
    """The entries of a buffer's folder, None when there is no such folder. Raises UserError when it cannot be listed.

    The folder is listed twice, and sidecars are taken from the first listing: so a shard that is published at this
    moment is never seen without its data.
    """
    try:
        earlier, later = store.entries(), store.entries()
    except StoreAwayError:
        raise
    except OSError as error:
        raise UserError(f"cannot list the buffer {store.url}: {error}; check the path and its rights") from error
    if earlier is None or later is None:
        return None
    return {name: entry for name, entry in later.items() if name in earlier or not name.endswith(sidecar.SUFFIX)}


def listed(store: Store) -> dict[str, Entry]:
    """The entries of a buffer's folder. Raises UserError when there is no such folder, or it cannot be listed."""
    entries = listing(store)
    if entries is None:
        raise UserError(f"there is no buffer {store.url}; check the path, or collect into it first")
    return entries


def find(
    store: Store, entries: Mapping[str, Entry], wanted: Collection[str] | None = None
) -> dict[str, Found | ShardError]:
    """The shards of a listing by name, sorted, or what is wrong with their sidecars; `wanted` names alone, if given."""

    def outcome(name: str) -> Found | ShardError:
        try:
            return Found(store, entries, _sidecar(store, entries, name))
        except ShardError as error:
            return error

    stems = (name.removesuffix(sidecar.SUFFIX) for name in entries if name.endswith(sidecar.SUFFIX))
    names = sorted(name for name in stems if not name.startswith(TEMPORARY) and (wanted is None or name in wanted))
    return dict(zip(names, store.each(outcome, names), strict=True))


def _sidecar(store: Store, entries: Mapping[str, Entry], name: str) -> Sidecar:
    if not is_shard_name(name):
        raise ShardError("has a name that is not allowed (letters, digits, . _ - only, at most 128)")
    path = name + sidecar.SUFFIX
    if entries[path].kind != "file" or entries[path].size > sidecar.MAX_SIDECAR_BYTES:
        raise ShardError(f"has a sidecar that is no file of at most {sidecar.MAX_SIDECAR_BYTES} bytes")
    with _reading("a sidecar"):
        return sidecar.loads(store.read([path])[path], name)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Unreadable files count as damage of the shard, unless the whole store is away."""
    try:
        yield
    except StoreAwayError:
        raise
    except OSError as error:
        raise ShardError(f"has {what} that cannot be read ({error})") from error


def unpublished(entries: Mapping[str, Entry], found: Mapping[str, Found | ShardError]) -> Iterator[tuple[str, str]]:
    """(entry, shard name) of data that no sidecar names, and of writers' temporary folders."""
    published = {one.sidecar.data for one in found.values() if isinstance(one, Found)}
    for entry in sorted(entries):
        if entry.startswith(TEMPORARY):
            yield entry, entry.removeprefix(TEMPORARY).rpartition("~")[0]
        elif (
            (data := DATA_NAME.fullmatch(entry))
            and entry not in published
            and not isinstance(found.get(data[1]), ShardError)  # a damaged sidecar may name any data
        ):
            yield entry, data[1]


def check_size(one: Found) -> list[str]:
    """Paths of the data files, relative to the shard's data ("" for the file itself).

    Raises ShardError unless they are plain files of the declared size, all together.
    """
    data = one.sidecar.data
    if not one.has_data:
        raise ShardError(f"has no data: {data} is missing; copy it again, or delete the sidecar and collect again")
    with _reading("data"):
        tree = {"": one.entries[data]} if one.sidecar.codec == "hdf5" else one.store.tree(data)
    if links := [path for path, entry in tree.items() if entry.kind != "file"]:
        raise ShardError(f"has in {data} an entry that is no plain file: {links[0]}")
    size = sum(entry.size for entry in tree.values())
    if size != one.sidecar.bytes:
        raise ShardError(
            f"has {size} bytes of data where {one.sidecar.bytes} are declared: {data} is cut off or damaged"
        )
    return list(tree)


def fetch(one: Found) -> Files:
    """The data files, whose digest is right. Raises ShardError."""
    data = one.sidecar.data
    full = {path: f"{data}/{path}" if path else data for path in check_size(one)}
    with _reading("data"):
        contents = one.store.read(list(full.values()))
    files = {path: contents[full[path]] for path in full}
    if codec.digest(files) != one.sidecar.digest:
        raise ShardError(f"has data that do not match their digest: {data} was damaged or replaced")
    return files


def parse(files: Files, shard: Sidecar) -> tuple[Columns, list[str]]:
    """The columns of fetched files, and every rule that they break. Raises ShardError for files in another format."""
    columns = codec.decode(shard.codec, files, shard.fields, shard.rows)
    problems = validation.column_problems(columns, shard.header, shard.images)
    episodes = np.count_nonzero(columns["terminals"])
    if not problems and episodes != shard.episodes:
        problems = [f"has {episodes} episodes where its sidecar declares {shard.episodes}"]
    return columns, problems


def sound_files(one: Found) -> tuple[Files, Columns]:
    """Files and columns of a shard that keeps every rule. Raises ShardError with the first reason otherwise."""
    files = fetch(one)
    columns, problems = parse(files, one.sidecar)
    if problems:
        raise ShardError(problems[0])
    return files, columns
