"""Shards that should be there: names that end in a range of work, as collectors give them, leave no gap.

A shard that was lost with its sidecar leaves no other trace.
"""

import re
from collections.abc import Iterable, Iterator

_RANGE = re.compile(r"(.+)-(\d{6,})-(\d{6,})", re.ASCII)


def missing(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(PREFIX-START-STOP that no shard holds, where it is missing), for shards PREFIX-START-STOP.

    A collection starts at 0; where it ends, no name says.
    """
    ranges: dict[str, list[tuple[int, int]]] = {}
    for name in names:
        if match := _RANGE.fullmatch(name):
            ranges.setdefault(match[1], []).append((int(match[2]), int(match[3])))
    for prefix, found in sorted(ranges.items()):
        reached = 0
        for start, stop in sorted(found):
            if start > reached:
                yield f"{prefix}-{reached:06d}-{start:06d}", f"before {prefix}-{start:06d}-{stop:06d}"
            reached = max(reached, stop)
