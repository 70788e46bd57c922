"""Shards of one or many buffers that are to be taken as one: found, and checked to belong together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.buffer import rules, shard
from orl_ldm.buffer.schema import ImageRef, Sidecar
from orl_ldm.buffer.store import Entry, Store
from orl_ldm.errors import UserError


@dataclass(frozen=True)
class Found:
    """A shard with a readable sidecar, and where it was found."""

    store: Store
    entries: Mapping[str, Entry]
    sidecar: Sidecar

    def __str__(self) -> str:
        return f"shard {self.sidecar.name} of {self.store.url}"


def find(places: Sequence[str | Path], bad: dict[str, str]) -> Iterator[Found]:
    """The shards of each buffer; `bad` learns why others have no readable sidecar.

    Raises UserError when there is no such buffer, or it has no shards.
    """
    if not places:
        raise UserError("no buffer was given to read; give at least one folder or URL")
    for place in places:
        store = Store(place)
        entries = shard.listed(store)
        names = shard.names(entries)
        if not names:
            raise UserError(f"the buffer {store.url} has no shards; collect into it first, or give another folder")
        for name, sidecar in shard.sidecars(store, entries, names).items():
            if isinstance(sidecar, Sidecar):
                yield Found(store, entries, sidecar)
            else:
                quarantine(bad, name, f"shard {name} of {store.url} {sidecar}")


def quarantine(bad: dict[str, str], name: str, reason: str) -> None:
    """Note why a shard is left out; the same name may be bad in two buffers."""
    bad[name] = f"{bad[name]}; {reason}" if name in bad else reason


def check_headers(found: Sequence[Found]) -> None:
    """Raises UserError for shards of different collections."""
    for other in found[1:]:
        if differences := rules.header_differences(other.sidecar.header, found[0].sidecar.header):
            raise UserError(f"{other} does not go with {found[0]}: its {differences[0]}; keep them in separate buffers")


def images(found: Sequence[Found]) -> dict[int, ImageRef]:
    """Every image of these shards by its id. Raises UserError when an id means two images."""
    known: dict[int, ImageRef] = {}
    for one in found:
        images = {image.image_id: image for image in one.sidecar.images}
        for number in sorted(known.keys() & images.keys()):
            image, earlier = images[number], known[number]
            if image != earlier:
                owner = next(other for other in found if earlier in other.sidecar.images)
                raise UserError(
                    f"{one} calls image {number} {image.name!r} ({image.scene}), but {owner} says "
                    f"{earlier.name!r} ({earlier.scene}); keep them in separate buffers"
                )
        known |= images
    return known
