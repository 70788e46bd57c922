"""Find every problem of a buffer, by shard."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.buffer import coverage, shard, validation
from orl_ldm.buffer.local_store import TEMPORARY
from orl_ldm.buffer.schema import ImageRef, ShardError
from orl_ldm.buffer.shard import Found
from orl_ldm.buffer.store import open_store


@dataclass(frozen=True)
class Problem:
    """Something wrong with a shard. Readers pass over `harmless` problems: work done twice, leftovers of a writer."""

    shard: str
    reason: str  # continues a sentence that starts with the shard's name
    harmless: bool = False

    def __str__(self) -> str:
        return f"{'note: ' if self.harmless else ''}shard {self.shard} {self.reason}"


def verify(url: str | Path) -> list[Problem]:
    """Every problem of every shard, harmless ones last; [] for a buffer that can be read whole.

    Reads everything. Raises UserError when there is no such folder, or a remote store stops answering.
    """
    store = open_store(url)
    entries = shard.listed(store)
    found = shard.find(store, entries)
    readable = [one for one in found.values() if isinstance(one, Found)]
    problems = [Problem(name, str(error)) for name, error in found.items() if isinstance(error, ShardError)]
    owners: dict[tuple[str, int, int], str] = {}
    for one in readable:
        problems += _shard_problems(one, owners)
    problems += _disagreements(readable)
    for entry, name in shard.unpublished(entries, found):
        writing = entry.startswith(TEMPORARY)
        what = "is being written, or its writer was killed" if writing else "has data without a sidecar"
        problems.append(Problem(name, f"{what}: {entry}, which no reader uses", harmless=True))
    for name, where in coverage.missing(found):
        problems.append(Problem(name, f"is missing {where}: copy it again, or collect again"))
    return sorted(problems, key=lambda problem: (problem.harmless, problem.shard))


def _shard_problems(one: Found, owners: dict[tuple[str, int, int], str]) -> Iterator[Problem]:
    """The problems of a shard's data. Its episodes are added to `owners`: episode -> the first shard that holds it."""
    name, header = one.sidecar.name, one.sidecar.header
    try:
        columns, broken = shard.parse(shard.fetch(one), one.sidecar)
    except ShardError as error:
        broken = [str(error)]
    if broken:
        yield from (Problem(name, reason) for reason in broken)
        return
    ids = columns["episode_id"][columns["terminals"]].tolist()
    keys = [(header.behavior_id, header.seed, number) for number in ids]
    for other in sorted({owners[key] for key in keys if key in owners}):
        yield Problem(name, f"repeats episodes of shard {other}, which are read from there", harmless=True)
    owners.update((key, name) for key in keys if key not in owners)


def _disagreements(readable: Sequence[Found]) -> Iterator[Problem]:
    """Headers and images that keep shards from being read together with the first one."""
    images: dict[int, ImageRef] = {}
    for side in (one.sidecar for one in readable):
        first = readable[0].sidecar
        for difference in validation.header_differences(side.header, first.header):
            yield Problem(side.name, f"does not go with shard {first.name}: its {difference}")
        for image in side.images:
            if images.setdefault(image.image_id, image) != image:
                what = f"calls image {image.image_id} {image.name!r} ({image.scene}), unlike another shard"
                yield Problem(side.name, what)
