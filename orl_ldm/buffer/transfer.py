"""Copy shards between buffers: push, pull and merge copy them byte by byte, convert writes them in another codec.

Only sound shards are copied: each is hashed, parsed and checked before its first byte is written. An interrupted copy
goes on with the missing shards when it is called again.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.buffer import discovery, shard, sidecar, validation
from orl_ldm.buffer.remote_store import FETCHES
from orl_ldm.buffer.schema import CodecName, ForeignError, ShardError, Sidecar
from orl_ldm.buffer.shard import Found
from orl_ldm.buffer.store import Store, open_store
from orl_ldm.buffer.writer import BufferWriter
from orl_ldm.errors import UserError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Transferred:
    """The result of a transfer."""

    copied: tuple[str, ...]  # names of shards, sorted
    bytes: int  # of their data
    present: int  # shards that were there already
    bad: Mapping[str, str]  # shards that were not copied -> a sentence with the reason


def convert(
    source: str | Path, target: str | Path, codec: CodecName, advance: Progress = lambda done, total: None
) -> Transferred:
    """Write every sound shard of `source` to another buffer with `codec`; names, columns and headers stay.

    Otherwise like `transfer`.
    """
    store = open_store(source)
    if open_store(target).place == store.place:
        raise UserError(f"cannot convert {store.url} in its own place, as shards never change; give another folder")
    return transfer([source], target, advance, codec)


def transfer(
    sources: Sequence[str | Path],
    target: str | Path,
    advance: Progress = lambda done, total: None,
    codec: CodecName | None = None,
) -> Transferred:
    """Copy every sound shard of the sources into the target, which is made when the first one arrives.

    `advance(done, total)` gets bytes. Of a name in several sources the first sound shard is taken, and shards that the
    target has already are kept. With `codec`, shards are written in it; by default their bytes are copied. Raises
    UserError, before anything is copied, when the shards do not belong together or the target holds other work; and
    when a store fails, with the shards that arrived kept.
    """
    bad: dict[str, str] = {}
    found = list(discovery.find(sources, bad))
    store = open_store(target)
    present = _present(store)
    joined = [*(one for one in present.values() if isinstance(one, Found)), *found]
    discovery.check_headers(joined)
    discovery.images(joined)
    wanted: dict[str, list[Found]] = {}
    for one in sorted(found, key=lambda one: one.sidecar.name):
        if not _is_there(one, present.get(one.sidecar.name)):
            wanted.setdefault(one.sidecar.name, []).append(one)
    sizes = [max(one.sidecar.bytes for one in choices) for choices in wanted.values()]
    done, copied = 0, list[Sidecar]()
    advance(done, sum(sizes))
    with ThreadPoolExecutor(FETCHES) as pool:
        try:
            arrivals = pool.map(lambda choices: _copy_first_sound(store, choices, codec, bad), wanted.values())
            for arrived, size in zip(arrivals, sizes, strict=True):
                copied += [arrived] if arrived else []
                done += size
                advance(done, sum(sizes))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # copies that have not begun do not begin
            raise
    there = {one.sidecar.name for one in found} - set(wanted)
    delivered = there | {side.name for side in copied}
    return Transferred(
        copied=tuple(side.name for side in copied),
        bytes=sum(side.bytes for side in copied),
        present=len(there),
        bad={name: reason for name, reason in sorted(bad.items()) if name not in delivered},
    )


def _present(store: Store) -> dict[str, Found | ForeignError]:
    """The target's shards that are not replaced: damaged sidecars, and those without data, are."""
    present: dict[str, Found | ForeignError] = {}
    for name, one in shard.find(store, shard.listing(store) or {}).items():
        if isinstance(one, ForeignError) or (isinstance(one, Found) and one.has_data):
            present[name] = one
        elif isinstance(one, ShardError) and isinstance(one.__cause__, OSError):
            raise UserError(f"shard {name} of {store.url} {one}; run the same command again when it can be")
    return present


def _is_there(one: Found, existing: Found | ForeignError | None) -> bool:
    """Whether the target has this work; another run of it counts, as only seconds and codec may differ."""
    if isinstance(existing, ForeignError):
        raise UserError(f"shard {one.sidecar.name} of the target {existing}; until then, use another folder")
    if existing is None:
        return False
    mine, theirs = one.sidecar.header, existing.sidecar.header
    if differences := validation.header_differences(mine, theirs, may_differ={"packages"}):
        raise UserError(f"{one} is other work than {existing}: its {differences[0]}; keep them in separate buffers")
    return True


def _copy_first_sound(
    target: Store, choices: Sequence[Found], codec: CodecName | None, bad: dict[str, str]
) -> Sidecar | None:
    for one in choices:
        try:
            if codec is None:
                return _copy(one, target)
            _, columns = shard.sound_files(one)
            writer = BufferWriter(target.url, one.sidecar.header, codec)
            return writer.write(one.sidecar.name, columns, one.sidecar.images)
        except ShardError as error:
            discovery.quarantine(bad, one.sidecar.name, f"{one} {error}")
        except OSError as error:
            raise UserError(
                f"cannot copy {one} to {target.url}: {error.strerror or error}; shards that arrived are kept: "
                "run the same command again to go on"
            ) from error
    return None


def _copy(one: Found, target: Store) -> Sidecar:
    """Publish the shard's own bytes, its sidecar as it is."""
    name = one.sidecar.name
    path = name + sidecar.SUFFIX
    content = one.store.read([path])[path]
    if sidecar.loads(content, name) != one.sidecar:
        raise ShardError("was replaced while it was being copied; run the same command again")
    files, _ = shard.sound_files(one)
    target.sweep(name)
    target.publish(name, one.sidecar.data, files, path, content)
    return one.sidecar
