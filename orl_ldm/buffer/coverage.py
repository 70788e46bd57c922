"""Whether the shards of a buffer cover all of the work: names with a range of it must leave no gap.

A shard that was lost together with its sidecar leaves no other trace.
"""

import re
from collections.abc import Iterable, Iterator

_RANGE = re.compile(r"(.+)-(\d{6,})-(\d{6,})(?:-of-(\d{6,}))?", re.ASCII)


def range_name(work: str, start: int, stop: int, total: int) -> str:
    """Name of the shard that holds the images from `start` up to `stop` of the `total` of some work."""
    return f"{work}-{start:06d}-{stop:06d}-of-{total:06d}"


def missing(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(WORK-START-STOP that no shard holds, where it is missing), for shards WORK-START-STOP-of-TOTAL.

    Work starts at 0. The end of work is unknown where names have no total.
    """
    ranges: dict[tuple[str, str | None], list[tuple[int, int, str]]] = {}
    for name in names:
        if match := _RANGE.fullmatch(name):
            ranges.setdefault((match[1], match[4]), []).append((int(match[2]), int(match[3]), f"before {name}"))
    for (work, total), found in sorted(ranges.items(), key=lambda item: item[0][0]):
        reached = 0
        end = [(int(total), int(total), "at the end")] if total else []
        for start, stop, where in sorted(found) + end:
            if start > reached:
                yield f"{work}-{reached:06d}-{start:06d}", where
            reached = max(reached, stop)
