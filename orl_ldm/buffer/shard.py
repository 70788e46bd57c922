"""One shard on a store: found in a listing, its sidecar read, its data fetched, checked and parsed.

Nothing is parsed before it is hashed, and nothing is fetched before its size is known to be the declared one.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from orl_ldm.buffer import codec, rules, sidecar, signing, straight
from orl_ldm.buffer.local import TEMPORARY, Pieces
from orl_ldm.buffer.schema import Columns, ShardError, Sidecar, is_shard_name
from orl_ldm.buffer.store import Entry, Store, StoreAwayError
from orl_ldm.errors import UserError

SIDECAR_SUFFIX = ".json"


def listing(store: Store) -> dict[str, Entry] | None:
    """What a buffer's folder holds, None when there is no such folder. Raises UserError when it cannot be listed.

    Data are looked for after the sidecars, so that a shard that is published at this moment is never seen without them.
    """
    try:
        earlier, later = store.entries(), store.entries()
    except StoreAwayError:
        raise
    except OSError as error:
        raise UserError(f"cannot list the buffer {store.url}: {error}; check the path and its rights") from error
    if earlier is None or later is None:
        return None
    return {name: entry for name, entry in later.items() if name in earlier or not name.endswith(SIDECAR_SUFFIX)}


def listed(store: Store) -> dict[str, Entry]:
    """What a buffer's folder holds. Raises UserError when there is no such folder, or it cannot be listed."""
    entries = listing(store)
    if entries is None:
        raise UserError(f"there is no buffer {store.url}; check the path, or collect into it first")
    return entries


def names(entries: Mapping[str, Entry]) -> list[str]:
    """Sorted names of everything that claims to be published; not all of them need be valid shard names."""
    stems = (name.removesuffix(SIDECAR_SUFFIX) for name in entries if name.endswith(SIDECAR_SUFFIX))
    return sorted(stem for stem in stems if not stem.startswith(TEMPORARY))


def sidecars(store: Store, entries: Mapping[str, Entry], wanted: Sequence[str]) -> dict[str, Sidecar | ShardError]:
    """The sidecar of each shard, or what is wrong with it."""
    like: sidecar.Known | None = None

    def outcome(name: str) -> Sidecar | ShardError:
        nonlocal like
        try:
            found = _sidecar(store, entries, name, like)
        except ShardError as error:
            return error
        if like is None or found.header is not like.header:
            like = sidecar.Known.of(found.header)
        return found

    return dict(zip(wanted, store.each(outcome, wanted), strict=True))


def _sidecar(store: Store, entries: Mapping[str, Entry], name: str, like: sidecar.Known | None) -> Sidecar:
    if not is_shard_name(name):
        raise ShardError("has a name that is not allowed (letters, digits, . _ - only, at most 128)")
    path = name + SIDECAR_SUFFIX
    entry = entries[path]
    if entry.kind != "file" or entry.size > sidecar.MAX_SIDECAR_BYTES:
        raise ShardError(f"has a sidecar that is no file of at most {sidecar.MAX_SIDECAR_BYTES} bytes")
    with _reading("a sidecar"):
        return sidecar.loads(store.read([path])[path], name, like)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """What cannot be read counts as damage of the shard, unless it is the store that is away."""
    try:
        yield
    except StoreAwayError:
        raise
    except OSError as error:
        raise ShardError(f"has {what} that cannot be read ({error})") from error


def has_data(entries: Mapping[str, Entry], shard: Sidecar) -> bool:
    """Whether the listing holds the data of a sidecar, as the kind of entry that its codec makes."""
    entry = entries.get(shard.data)
    return entry is not None and entry.kind == ("file" if shard.codec == "hdf5" else "directory")


def columns(store: Store, entries: Mapping[str, Entry], shard: Sidecar, fast: bool = False) -> Columns:
    """The parsed columns, not yet judged by `rules`. Raises ShardError, saying why they cannot be trusted.

    Their digest is checked and their checksum or, if `fast`, the latter alone.
    """
    with _reading("data"):
        files = _verified_files(store, entries, shard, fast)
    return codec.decode(shard.codec, files, shard.fields, shard.rows)


def fill(store: Store, entries: Mapping[str, Entry], shard: Sidecar, into: Columns) -> None:
    """Fetch a shard that keeps every rule into its columns. Raises ShardError with the first reason otherwise.

    Without a key, which makes a digest worth more than a checksum, the checksum alone is looked at.
    """
    path, finite = store.local(shard.data), frozenset[str]()
    fast = signing.key() is None
    with _reading("data"):
        if path is not None and shard.codec == "hdf5":
            filled = straight.fill(path, shard, into, _expected(shard, fast))
        else:
            filled = None
    if filled is None:
        for name, column in columns(store, entries, shard, fast).items():
            into[name][...] = column
    else:
        found, finite = filled
        _check_hashes(found, shard, fast)
        for name in ("terminals", "timeouts"):
            codec.check_booleans(into[name].view(np.uint8), name)
    _refuse_broken(into, shard, finite)


def _verified_files(store: Store, entries: Mapping[str, Entry], shard: Sidecar, fast: bool = False) -> codec.Files:
    files = _files(store, entries, shard)
    _check_hashes(codec.hashed(codec.whole(files), *_expected(shard, fast)), shard, fast)
    return files


def _expected(shard: Sidecar, fast: bool) -> dict[codec.Hash, str]:
    """What the data must hash to, by what: checksum alone if `fast` and there is one, or else everything there is."""
    checksum = {codec.CHECKSUM: shard.checksum} if shard.checksum else {}
    return checksum if fast and checksum else {codec.DIGESTS[shard.schema]: shard.digest} | checksum


def _check_hashes(found: tuple[str, ...], shard: Sidecar, fast: bool) -> None:
    if found != tuple(_expected(shard, fast).values()):
        raise ShardError(f"has data that do not match their digest: {shard.data} was damaged or replaced")


def sound_files(store: Store, entries: Mapping[str, Entry], shard: Sidecar) -> Mapping[str, Pieces]:
    """The very bytes of a shard that keeps every rule, to be copied.

    Raises ShardError with the first reason otherwise, and OSError when not the shard but the store is the trouble.
    """
    files = _verified_files(store, entries, shard)
    _refuse_broken(codec.decode(shard.codec, files, shard.fields, shard.rows), shard)
    return codec.whole(files)


def checked_columns(store: Store, entries: Mapping[str, Entry], shard: Sidecar) -> Columns:
    """The columns of a shard that keeps every rule. Raises ShardError with the first reason otherwise."""
    found = columns(store, entries, shard)
    _refuse_broken(found, shard)
    return found


def _refuse_broken(found: Columns, shard: Sidecar, finite: Collection[str] = ()) -> None:
    if problems := content_problems(found, shard, finite):
        raise ShardError(problems[0])


def content_problems(found: Columns, shard: Sidecar, finite: Collection[str] = ()) -> list[str]:
    """Every rule that parsed columns break, the sidecar's count of episodes included.

    Columns in `finite` have been found to hold finite numbers only.
    """
    problems = rules.column_problems(found, shard.header, shard.images.image_id, finite)
    if not problems:
        episodes = np.count_nonzero(found["terminals"] | found["timeouts"])
        if episodes != shard.episodes:
            problems = [f"has {episodes} episodes where its sidecar declares {shard.episodes}"]
    return problems


def check_size(store: Store, entries: Mapping[str, Entry], shard: Sidecar) -> None:
    """Raises ShardError unless a shard has plain files of the declared size, all together."""
    _tree(store, entries, shard)


def _tree(store: Store, entries: Mapping[str, Entry], shard: Sidecar) -> dict[str, Entry]:
    """The data files by path. Raises ShardError."""
    if not has_data(entries, shard):
        raise ShardError(
            f"has no data: {shard.data} is missing; copy it again, or delete the sidecar and collect again"
        )
    with _reading("data"):
        tree = {"": entries[shard.data]} if shard.codec == "hdf5" else store.tree(shard.data)
    if links := [path for path, entry in tree.items() if entry.kind != "file"]:
        raise ShardError(f"has in {shard.data} what is no plain file: {links[0]}")
    size = sum(entry.size for entry in tree.values())
    if size != shard.bytes:
        raise ShardError(
            f"has {size} bytes of data where {shard.bytes} are declared: {shard.data} is cut off or damaged"
        )
    return tree


def _files(store: Store, entries: Mapping[str, Entry], shard: Sidecar) -> codec.Files:
    tree = _tree(store, entries, shard)
    full = {path: f"{shard.data}/{path}" if path else shard.data for path in tree}
    contents = store.read(list(full.values()))
    return {path: contents[full[path]] for path in tree}
