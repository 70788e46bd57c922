"""What makes columns and headers right: the same rules before a shard is written and after it is read.

Legend: N rows (transitions), E episodes, F observation features, A action dimensions, T raw reward terms.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import Columns, Header, field_specs

#: Facts that may differ between shards that are read together: who acted, with which noise, with which packages.
MAY_DIFFER = frozenset({"behavior_id", "seed", "packages"})


def column_problems(
    columns: Columns, header: Header, image_ids: Sequence[int], finite: Collection[str] = ()
) -> list[str]:
    """Every reason why these columns are no shard of these images under this header; [] when they are.

    Each reason continues a sentence that starts with the shard's name. Checks of content follow only when names,
    dtypes and shapes are right. Columns in `finite` have been found to hold finite numbers only.
    """
    return list(form_problems(columns, header)) or list(content_problems(columns, header, image_ids, finite))


def header_differences(one: Header, other: Header, may_differ: Iterable[str] = MAY_DIFFER) -> list[str]:
    """Why two shards cannot be read together, as "NAME is X, not Y"; [] when they can."""
    fields = [name for name in Header.__dataclass_fields__ if name not in may_differ]
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in fields)
    return [difference(name, mine, others) for name, mine, others in pairs if mine != others]


def episode_keys(header: Header, columns: Columns) -> list[tuple[str, int, int]]:
    """What tells episodes apart, for each of the E episodes: behaviour, seed and id."""
    ids = columns["episode_id"][episode_bounds(columns)[:, 0]]  # (E,)
    return [(header.behavior_id, header.seed, int(number)) for number in ids]


def difference(name: str, one: Any, other: Any) -> str:
    """Two unequal values in words; of two sequences of one length, the first place where they differ."""
    if isinstance(one, tuple) and len(one) == len(other):
        place = next(index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
        return f"{name}[{place}] is {one[place]!r}, not {other[place]!r}"
    return f"{name} is {one!r}, not {other!r}"


def episode_bounds(columns: Columns) -> npt.NDArray[np.int64]:
    """(E, 2) first row and one past the last row of each episode, from the flags that end them."""
    stops = np.flatnonzero(columns["terminals"] | columns["timeouts"]).astype(np.int64) + 1
    return np.stack([np.concatenate([[0], stops[:-1]]).astype(np.int64), stops], axis=1)  # (E, 2)


def is_finite(column: npt.NDArray[np.float32]) -> bool:
    """Whether every number is finite. A sum of squares that is finite proves it at the speed of memory."""
    flat = column.reshape(-1)
    blocks = (flat[start : start + 2**18] for start in range(0, flat.size, 2**18))  # (each stays in the cache)
    with np.errstate(over="ignore", invalid="ignore"):
        return all(np.isfinite(np.dot(block, block)) or bool(np.isfinite(block).all()) for block in blocks)


def repeated(ids: npt.NDArray[np.int64]) -> int | None:
    """The least id that occurs more than once; None when all differ."""
    if (ids[1:] > ids[:-1]).all():
        return None  # as is most often so, and quicker to see than to sort
    ordered = np.sort(ids)
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    return int(ordered[again[0]]) if len(again) else None


def form_problems(columns: Columns, header: Header) -> Iterator[str]:
    """Those of names, dtypes and shapes, as in `column_problems`."""
    specs = {spec.name: spec for spec in field_specs(header)}
    if missing := [name for name in specs if name not in columns]:
        yield f"lacks the columns {', '.join(missing)}"
    if unknown := sorted(set(columns) - set(specs)):
        yield f"has the unknown columns {', '.join(unknown)}"
    rows = max((len(column) for column in columns.values() if column.ndim), default=0)
    if rows == 0:
        yield "has no rows"
    for name in sorted(set(specs) & set(columns)):
        shape = (rows, *specs[name].shape)
        if columns[name].dtype != specs[name].dtype or columns[name].shape != shape:
            found = f"{columns[name].dtype} {columns[name].shape}"
            yield f"has {name!r} as {found} where {specs[name].dtype} {shape} is needed"


def content_problems(
    columns: Columns, header: Header, image_ids: Sequence[int], finite: Collection[str] = ()
) -> Iterator[str]:
    """Those of the numbers in columns that have the right form, as in `column_problems`."""
    for name, column in columns.items():
        if column.dtype.kind == "f" and name not in finite and not is_finite(column):
            yield f"has a value in {name!r} on row {_first(~np.isfinite(column))} that is not finite"
    yield from _action_problems(columns["actions"], header)
    yield from _episode_problems(columns)
    yield from _image_problems(columns["image_id"], image_ids)


def _action_problems(actions: npt.NDArray[np.float32], header: Header) -> Iterator[str]:
    low, high = np.array([header.action_low, header.action_high], dtype=np.float32)  # (A,), rounded as actions are
    lowest, highest = _extremes(actions)
    if (lowest >= low).all() and (highest <= high).all():
        return
    for index, name in enumerate(header.action_names):
        values = actions[:, index]  # (N,)
        if (row := _first((values < low[index]) | (values > high[index]))) is not None:
            yield f"has action {name!r} of {values[row]!s} on row {row}, outside [{low[index]!s}, {high[index]!s}]"


def _extremes(actions: npt.NDArray[np.float32], tile: int = 64) -> tuple[npt.NDArray[np.float32], ...]:
    """(A,) least and (A,) largest number of each column, NaN where there is one; NumPy is quick in wide rows only."""
    wide = len(actions) // tile * tile
    parts = [actions[:wide].reshape(-1, tile * actions.shape[1]), actions[wide:]]
    return tuple(
        extreme(
            np.concatenate([extreme(part, axis=0).reshape(-1, actions.shape[1]) for part in parts if len(part)]), axis=0
        )
        for extreme in (np.min, np.max)
    )


def _episode_problems(columns: Columns) -> Iterator[str]:
    terminals, timeouts = columns["terminals"], columns["timeouts"]
    ends = terminals | timeouts  # (N,)
    if (row := _first(terminals & timeouts)) is not None:
        yield f"has both a terminal and a timeout on row {row}"
    if not ends[-1]:
        yield "has neither a terminal nor a timeout on its last row"
        return
    last = np.flatnonzero(ends)  # (E,)
    logged = columns["values"] != 0  # (N, T)
    if np.count_nonzero(logged) != np.count_nonzero(logged.take(last, axis=0)):
        row = _first(logged & ~ends[:, None])
        yield f"has reward terms on row {row}, which does not end an episode"
    for name in ("episode_id", "image_id"):
        changed = columns[name][1:] != columns[name][:-1]  # (N - 1,)
        if (row := _first(changed & ~ends[:-1])) is not None:
            yield f"has another {name!r} on row {row + 1} though no episode ended on the row before"
    if (number := repeated(columns["episode_id"].take(last))) is not None:
        yield f"has more than one end in episode {number}, or its rows are not contiguous"


def _image_problems(ids: npt.NDArray[np.int64], image_ids: Sequence[int]) -> Iterator[str]:
    try:
        listed = np.array(image_ids, dtype=np.int64)
    except OverflowError:
        yield f"lists an image id that does not fit in 64 bits ({min(image_ids)} to {max(image_ids)})"
        return
    if (number := repeated(listed)) is not None:
        yield f"lists image {number} twice"
    runs = ids[np.append(True, ids[1:] != ids[:-1])]  # the image of each run of rows
    unknown = runs[~np.isin(runs, listed)]
    if len(unknown):
        yield f"has rows of image {unknown.min()}, which is not in its list of images"


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    """Row of the first True, over all columns; None when there is none."""
    return int(np.argwhere(wrong)[0, 0]) if wrong.any() else None
