"""Shards of one or many buffers that are to be taken as one: found, and checked to belong together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orl_ldm.buffer import rules, shard
from orl_ldm.buffer.schema import ImageRef, Images, Sidecar
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


def images(found: Sequence[Found]) -> Mapping[int, ImageRef]:
    """Every image of these shards by its id. Raises UserError when an id means two images."""
    lists = [one.sidecar.images for one in found]
    if len(set[int]().union(*(one.image_id for one in lists))) < sum(map(len, lists)):
        _check_images(found)
    return _ById(lists)


class _ById(Mapping[int, ImageRef]):
    """Images by their ids, made when they are first asked for."""

    def __init__(self, lists: Sequence[Images]) -> None:
        self._lists = lists

    @cached_property
    def _known(self) -> dict[int, ImageRef]:
        return {image.image_id: image for images in self._lists for image in images}

    def __getitem__(self, image_id: int) -> ImageRef:
        return self._known[image_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _check_images(found: Sequence[Found]) -> None:
    known: dict[int, ImageRef] = {}
    for one in found:
        for image in one.sidecar.images:
            earlier = known.setdefault(image.image_id, image)
            if image != earlier:
                owner = next(other for other in found if earlier in other.sidecar.images)
                raise UserError(
                    f"{one} calls image {image.image_id} {image.name!r} ({image.scene}), but {owner} says "
                    f"{earlier.name!r} ({earlier.scene}); keep them in separate buffers"
                )
