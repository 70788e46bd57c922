"""Copy shards between buffers as they are, byte by byte: pushing, pulling and merging are all this.

Only sound shards travel: each is hashed, parsed and judged by every rule before its first byte is written, and sent in
the order in which a writer publishes. Whatever is interrupted, the same call goes on with what is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.buffer import rules, shard, sidecar, together
from orl_ldm.buffer.local import Announcement
from orl_ldm.buffer.schema import ForeignError, ShardError, Sidecar
from orl_ldm.buffer.store import FETCHES, Store
from orl_ldm.buffer.together import Found
from orl_ldm.errors import UserError

#: Shards that are under way at the same time take up to this many bytes, or are one.
BATCH_BYTES = 2**28


@dataclass(frozen=True)
class Transferred:
    """What a transfer did."""

    copied: tuple[str, ...]  # names of shards, sorted
    bytes: int  # of their data
    present: int  # shards that were there already
    bad: Mapping[str, str]  # shards that were not copied -> a sentence that says why


def transfer(
    sources: Sequence[str | Path], target: str | Path, advance: Callable[[int, int], None] = lambda done, total: None
) -> Transferred:
    """Bring every sound shard of the sources into the target, which is made when the first one arrives.

    `advance(done, total)` hears of bytes. Of a name in several sources the first sound one counts, and what the target
    holds already is kept. Raises UserError, before anything is copied, when the shards do not belong together or the
    target holds other work; and when a store fails, with the shards that arrived kept.
    """
    bad: dict[str, str] = {}
    found = list(together.find(sources, bad))
    store = Store(target)
    present = _present(store)
    joined = [*(one for one in present.values() if isinstance(one, Found)), *found]
    together.check_headers(joined)
    together.images(joined)
    wanted: dict[str, list[Found]] = {}
    for one in found:
        if not _is_there(one, present.get(one.sidecar.name)):
            wanted.setdefault(one.sidecar.name, []).append(one)
    there = {one.sidecar.name for one in found} - set(wanted)
    total = sum(_bytes(choices) for choices in wanted.values())
    done, copied = 0, list[Sidecar]()
    advance(done, total)
    for batch in _batches(wanted):
        for name, arrived in _together(store, batch, bad):
            copied += [arrived] if arrived else []
            done += _bytes(wanted[name])
            advance(done, total)
    delivered = there | {side.name for side in copied}
    return Transferred(
        copied=tuple(sorted(side.name for side in copied)),
        bytes=sum(side.bytes for side in copied),
        present=len(there),
        bad={name: reason for name, reason in sorted(bad.items()) if name not in delivered},
    )


def _present(store: Store) -> dict[str, Found | ForeignError]:
    """What stands in the target and is not replaced: a damaged sidecar, or one without data, is."""
    entries = shard.listing(store) or {}
    present: dict[str, Found | ForeignError] = {}
    for name, one in shard.sidecars(store, entries, shard.names(entries)).items():
        if isinstance(one, ForeignError):
            present[name] = one
        elif isinstance(one, Sidecar):
            if shard.has_data(entries, one):
                present[name] = Found(store, entries, one)
        elif isinstance(one.__cause__, OSError):
            raise UserError(f"shard {name} of {store.url} {one}; run the same command again when it can be")
    return present


def _is_there(one: Found, existing: Found | ForeignError | None) -> bool:
    """Whether the target has this work, be it another run of it: seconds and codec may differ."""
    if isinstance(existing, ForeignError):
        raise UserError(f"shard {one.sidecar.name} of the target {existing}; until then, use another folder")
    if existing is None:
        return False
    mine, theirs = one.sidecar.header, existing.sidecar.header
    if differences := rules.header_differences(mine, theirs, may_differ={"packages"}):
        raise UserError(f"{one} is other work than {existing}: its {differences[0]}; keep them in separate buffers")
    return True


def _bytes(choices: Sequence[Found]) -> int:
    return max(one.sidecar.bytes for one in choices)


def _batches(wanted: Mapping[str, list[Found]]) -> Iterator[list[list[Found]]]:
    """In the order of names, as much as fits in memory at once."""
    batch: list[list[Found]] = []
    for name in sorted(wanted):
        if batch and sum(map(_bytes, [*batch, wanted[name]])) > BATCH_BYTES:
            yield batch
            batch = []
        batch.append(wanted[name])
    if batch:
        yield batch


def _together(target: Store, batch: Sequence[list[Found]], bad: dict[str, str]) -> Iterator[tuple[str, Sidecar | None]]:
    """(name, what arrived) of each shard of a batch; interrupted, those that have not begun do not begin."""
    with ThreadPoolExecutor(FETCHES) as pool:
        try:
            arrivals = pool.map(lambda choices: _first_sound(target, choices, bad), batch)
            yield from zip((choices[0].sidecar.name for choices in batch), arrivals, strict=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _first_sound(target: Store, choices: Sequence[Found], bad: dict[str, str]) -> Sidecar | None:
    for one in choices:
        try:
            return _copy(one, target)
        except ShardError as error:
            together.quarantine(bad, one.sidecar.name, f"{one} {error}")
        except OSError as error:
            raise UserError(
                f"cannot copy {one} to {target.url}: {error.strerror or error}; what arrived is kept: "
                "run the same command again to go on"
            ) from error
    return None


def _copy(one: Found, target: Store) -> Sidecar:
    """Publish the shard's own bytes, its sidecar as it is."""
    path = one.sidecar.name + shard.SIDECAR_SUFFIX
    content = one.store.read([path])[path]
    if sidecar.loads(content, one.sidecar.name) != one.sidecar:
        raise ShardError("was replaced while it was being copied; run the same command again")
    files = shard.sound_files(one.store, one.entries, one.sidecar)
    target.sweep(one.sidecar.name)
    target.publish(one.sidecar.name, files, lambda: Announcement(one.sidecar.data, path, content))
    return one.sidecar
