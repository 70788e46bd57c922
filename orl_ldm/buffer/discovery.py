"""Shards of one or many buffers that are read as one: found, and checked to belong together."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from orl_ldm.buffer import shard, validation
from orl_ldm.buffer.schema import ImageRef
from orl_ldm.buffer.shard import Found
from orl_ldm.buffer.store import open_store
from orl_ldm.errors import UserError


def find(places: Sequence[str | Path], bad: dict[str, str]) -> Iterator[Found]:
    """The shards of each buffer; the reasons why others have no readable sidecar are added to `bad`.

    Raises UserError when there is no such buffer, or it has no shards.
    """
    if not places:
        raise UserError("no buffer was given to read; give at least one folder or URL")
    for place in places:
        store = open_store(place)
        found = shard.find(store, shard.listed(store))
        if not found:
            raise UserError(f"the buffer {store.url} has no shards; collect into it first, or give another folder")
        for name, one in found.items():
            if isinstance(one, Found):
                yield one
            else:
                quarantine(bad, name, f"shard {name} of {store.url} {one}")


def quarantine(bad: dict[str, str], name: str, reason: str) -> None:
    """Note why a shard is left out; the same name may be bad in two buffers."""
    bad[name] = f"{bad[name]}; {reason}" if name in bad else reason


def check_headers(found: Sequence[Found]) -> None:
    """Raises UserError for shards of different collections."""
    for other in found[1:]:
        if differences := validation.header_differences(other.sidecar.header, found[0].sidecar.header):
            raise UserError(f"{other} does not go with {found[0]}: its {differences[0]}; keep them in separate buffers")


def images(found: Sequence[Found]) -> dict[int, ImageRef]:
    """Every image of these shards by its id. Raises UserError when an id means two images."""
    known: dict[int, tuple[ImageRef, Found]] = {}
    for one in found:
        for image in one.sidecar.images:
            earlier, owner = known.setdefault(image.image_id, (image, one))
            if image != earlier:
                raise UserError(
                    f"{one} calls image {image.image_id} {image.name!r} ({image.scene}), but {owner} says "
                    f"{earlier.name!r} ({earlier.scene}); keep them in separate buffers"
                )
    return {number: image for number, (image, _) in known.items()}
