"""Remove the entries of a buffer's folder that no reader uses."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.buffer import shard, sidecar
from orl_ldm.buffer.local_store import TEMPORARY
from orl_ldm.buffer.schema import ForeignError, ShardError
from orl_ldm.buffer.shard import Found
from orl_ldm.buffer.store import Store, open_store
from orl_ldm.errors import UserError


@dataclass(frozen=True)
class Waste:
    """An entry of a buffer's folder that no reader uses."""

    entry: str
    reason: str
    removable: bool = True  # False: someone may still be writing it, or it may be sound after all


def prune(
    url: str | Path,
    min_age: float,
    quarantined: bool = False,
    dry_run: bool = False,
    tell: Callable[[Waste], None] = lambda waste: None,
) -> list[Waste]:
    """Remove leftovers; returns them in the order of removal. `dry_run` removes nothing.

    Unpublished data must be `min_age` seconds old, as their writer may live; a local writer's staging folder is locked
    while it lives. `quarantined` adds shards that no reader accepts. `tell` gets each entry before it is removed.
    Raises UserError when there is no such buffer, or something cannot be removed.
    """
    store = open_store(url)
    entries = shard.listed(store)
    found = shard.find(store, entries)
    wastes = [_leftover(store, entry, min_age) for entry, _ in shard.unpublished(entries, found)]
    if quarantined:
        wastes += _quarantined(entries, found)
    for waste in wastes:
        tell(waste)
        if waste.removable and not dry_run:
            try:
                store.remove(waste.entry)
            except FileNotFoundError:
                continue  # its writer cleaned up
            except OSError as error:
                raise UserError(f"cannot remove {waste.entry} from {store.url}: {error}; check your rights") from error
    return wastes


def _leftover(store: Store, entry: str, min_age: float) -> Waste:
    gone = store.abandoned(entry) if entry.startswith(TEMPORARY) else None
    if gone is None:
        gone = time.time() - store.modified(entry) >= min_age
    what = "left behind by a writer" if entry.startswith(TEMPORARY) else "data that no sidecar names"
    return Waste(entry, what if gone else f"{what}, or still being written", gone)


def _quarantined(entries: Iterable[str], found: Mapping[str, Found | ShardError]) -> Iterator[Waste]:
    """Sidecars first, so that a shard that is half removed is not published."""
    for name, one in found.items():
        try:
            if isinstance(one, ShardError):
                raise one
            shard.sound_files(one)
        except ShardError as error:
            # Shards of another version, and those that the store cannot read just now, may be sound.
            removable = not isinstance(error, ForeignError) and not isinstance(error.__cause__, OSError)
            yield Waste(name + sidecar.SUFFIX, f"shard {name} {error}", removable)
            for entry in entries:
                if (data := shard.DATA_NAME.fullmatch(entry)) and data[1] == name:
                    yield Waste(entry, f"data of shard {name}", removable)
