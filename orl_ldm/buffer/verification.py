"""Say everything that is wrong with a buffer, by shard."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.buffer import gaps, rules, shard
from orl_ldm.buffer.local import TEMPORARY
from orl_ldm.buffer.schema import ImageRef, ShardError, Sidecar
from orl_ldm.buffer.store import Entry, Store


@dataclass(frozen=True)
class Problem:
    """Something wrong with a shard. `harmless` is what a reader passes over: work done twice, leftovers of a writer."""

    shard: str
    reason: str  # continues a sentence that starts with the shard's name
    harmless: bool = False

    def __str__(self) -> str:
        return f"{'note: ' if self.harmless else ''}shard {self.shard} {self.reason}"


def verify(url: str | Path) -> list[Problem]:
    """Every problem of every shard, sorted by shard name; [] for a buffer that can be read whole.

    Reads everything. Raises UserError when there is no such folder, or a remote store stops answering.
    """
    store = Store(url)
    entries = shard.listed(store)
    found = shard.sidecars(store, entries, shard.names(entries))
    sound = {name: side for name, side in found.items() if isinstance(side, Sidecar)}
    problems = [Problem(name, str(error)) for name, error in found.items() if isinstance(error, ShardError)]
    owners: dict[tuple[str, int, int], str] = {}
    for side in sound.values():
        problems += _shard_problems(store, entries, side, owners)
    problems += _disagreements(sound)
    problems += _leftovers(entries, found)
    problems += _gaps(found)
    return sorted(problems, key=lambda problem: (problem.harmless, problem.shard))


def _shard_problems(
    store: Store, entries: Mapping[str, Entry], side: Sidecar, owners: dict[tuple[str, int, int], str]
) -> Iterator[Problem]:
    """What is wrong with a shard's data; `owners` learns which shard holds which episode first."""
    try:
        columns = shard.columns(store, entries, side)
    except ShardError as error:
        yield Problem(side.name, str(error))
        return
    if broken := shard.content_problems(columns, side):
        yield from (Problem(side.name, reason) for reason in broken)
        return
    keys = rules.episode_keys(side.header, columns)
    for other in sorted({owners[key] for key in keys if key in owners}):
        yield Problem(side.name, f"repeats episodes of shard {other}, which are read from there", harmless=True)
    owners.update((key, side.name) for key in keys if key not in owners)


def _disagreements(sound: Mapping[str, Sidecar]) -> Iterator[Problem]:
    """Headers and images that keep shards from being read together with the first one."""
    first = next(iter(sound.values()), None)
    images: dict[int, ImageRef] = {}
    for name, side in sound.items():
        assert first is not None
        for difference in rules.header_differences(side.header, first.header):
            yield Problem(name, f"does not go with shard {first.name}: its {difference}")
        for image in side.images:
            if images.setdefault(image.image_id, image) != image:
                yield Problem(
                    name, f"calls image {image.image_id} {image.name!r} ({image.scene}), unlike another shard"
                )


def _leftovers(entries: Mapping[str, Entry], found: Mapping[str, Sidecar | ShardError]) -> Iterator[Problem]:
    expected = {side.data for side in found.values() if isinstance(side, Sidecar)}
    for name in entries:
        if name.startswith(TEMPORARY):
            yield Problem(_owner(name), f"is being written, or its writer was killed: {name}", harmless=True)
        elif (
            name.endswith((".h5", ".zarr"))
            and name not in expected
            and not isinstance(found.get(_owner(name)), ShardError)
        ):
            yield Problem(_owner(name), f"has data without a sidecar, which no reader sees: {name}", harmless=True)


def _gaps(names: Iterable[str]) -> Iterator[Problem]:
    for name, where in gaps.missing(names):
        yield Problem(name, f"is missing {where}: copy it again, or collect again")


def _owner(entry: str) -> str:
    if entry.startswith(TEMPORARY):
        return entry.removeprefix(TEMPORARY).rpartition("~")[0]
    return entry.rsplit(".", 2)[0]
