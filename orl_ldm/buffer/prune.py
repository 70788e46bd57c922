"""Remove from a buffer what no reader takes."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.buffer import shard
from orl_ldm.buffer.local import TEMPORARY
from orl_ldm.buffer.schema import ForeignError, ShardError, Sidecar
from orl_ldm.buffer.store import Entry, Store
from orl_ldm.errors import UserError

#: Data of a shard: NAME, sixteen digits, the codec's suffix.
_DATA = re.compile(r"(.+)\.[0-9a-f]{16}\.(?:h5|zarr)")


@dataclass(frozen=True)
class Waste:
    """An entry of a buffer's folder that no reader takes."""

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
    """What is not needed, in the order in which it was removed; under `dry_run`, what would be.

    Unpublished data must be `min_age` seconds old, as their writer may live; a local writer's staging folder is locked
    while it lives. `quarantined` adds shards that no reader accepts. `tell` hears of each entry before it goes. Raises
    UserError when there is no such buffer, or something cannot be removed.
    """
    store = Store(url)
    entries = shard.listed(store)
    found = shard.sidecars(store, entries, shard.names(entries))
    wastes = [*_unpublished(store, entries, found, min_age)]
    if quarantined:
        wastes += _quarantined(store, entries, found)
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


def _unpublished(
    store: Store, entries: Mapping[str, Entry], found: Mapping[str, Sidecar | ShardError], min_age: float
) -> Iterator[Waste]:
    for name in entries:
        data = _DATA.fullmatch(name)
        if name.startswith(TEMPORARY):
            gone = store.abandoned(name)
            old = gone if gone is not None else _is_old(store, name, min_age)
            yield Waste(name, "left behind by a writer" if old else "being written, perhaps", old)
        elif data and _is_orphan(name, found.get(data[1])):
            old = _is_old(store, name, min_age)
            yield Waste(name, "data that no sidecar names" + ("" if old else ", too young to be sure"), old)


def _quarantined(
    store: Store, entries: Mapping[str, Entry], found: Mapping[str, Sidecar | ShardError]
) -> Iterator[Waste]:
    """Sidecars first: what has begun to disappear is not published."""
    for name, side in found.items():
        try:
            if isinstance(side, ShardError):
                raise side
            shard.checked_columns(store, entries, side)
        except ShardError as error:
            # What a store cannot read just now may be sound, and so may what another version wrote.
            removable = not isinstance(error, ForeignError) and not isinstance(error.__cause__, OSError)
            yield Waste(name + shard.SIDECAR_SUFFIX, f"shard {name} {error}", removable)
            for entry in entries:
                if (data := _DATA.fullmatch(entry)) and data[1] == name:
                    yield Waste(entry, f"data of shard {name}", removable)


def _is_orphan(data: str, owner: Sidecar | ShardError | None) -> bool:
    """Whether data have no sidecar, or one that names others; what belongs to a damaged sidecar, nobody knows."""
    return owner is None or (isinstance(owner, Sidecar) and owner.data != data)


def _is_old(store: Store, name: str, min_age: float) -> bool:
    return time.time() - store.modified(name) >= min_age
