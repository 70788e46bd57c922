"""The rules for columns and headers: the same before a shard is written and after it is read.

Legend: N rows (transitions), E episodes, A action dimensions, T raw reward terms.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import Columns, Header, ImageRef, field_specs

#: Facts that may differ between shards that are read together.
MAY_DIFFER = frozenset({"behavior_id", "seed", "packages"})


def column_problems(columns: Columns, header: Header, images: Sequence[ImageRef]) -> list[str]:
    """Every reason why these columns are no shard of these images under this header; [] when they are.

    Each reason continues a sentence that starts with the shard's name. Content is checked only when names, dtypes and
    shapes are right.
    """
    return list(_form_problems(columns, header)) or list(_content_problems(columns, header, images))


def header_differences(one: Header, other: Header, may_differ: Iterable[str] = MAY_DIFFER) -> list[str]:
    """Why two shards cannot be read together, as "NAME is X, not Y"; [] when they can."""
    fields = [name for name in Header.__dataclass_fields__ if name not in may_differ]
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in fields)
    return [difference(name, mine, others) for name, mine, others in pairs if mine != others]


def difference(name: str, one: Any, other: Any) -> str:
    """Two unequal values in words; of two sequences of one length, the first place where they differ."""
    if isinstance(one, tuple) and len(one) == len(other):
        place = next(index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
        return f"{name}[{place}] is {one[place]!r}, not {other[place]!r}"
    return f"{name} is {one!r}, not {other!r}"


def episode_bounds(columns: Columns) -> npt.NDArray[np.int64]:
    """(E, 2) first row and one past the last row of each episode."""
    stops = np.flatnonzero(columns["terminals"]) + 1  # (E,)
    return np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1).astype(np.int64)


def _form_problems(columns: Columns, header: Header) -> Iterator[str]:
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


def _content_problems(columns: Columns, header: Header, images: Sequence[ImageRef]) -> Iterator[str]:
    for name, column in columns.items():
        if column.dtype.kind == "f" and (row := _first(~np.isfinite(column))) is not None:
            yield f"has a value in {name!r} on row {row} that is not finite"
    yield from _action_problems(columns["actions"], header)
    yield from _episode_problems(columns)
    yield from _image_problems(columns["image_id"], images)


def _action_problems(actions: npt.NDArray[np.float32], header: Header) -> Iterator[str]:
    low, high = np.array([header.action_low, header.action_high], dtype=np.float32)  # (A,), rounded as actions are
    for index, name in enumerate(header.action_names):
        values = actions[:, index]  # (N,)
        if (row := _first((values < low[index]) | (values > high[index]))) is not None:
            yield f"has action {name!r} of {values[row]!s} on row {row}, outside [{low[index]!s}, {high[index]!s}]"


def _episode_problems(columns: Columns) -> Iterator[str]:
    ends = columns["terminals"]  # (N,)
    if not ends[-1]:
        yield "has no terminal on its last row"
        return
    if (row := _first((columns["terms"] != 0) & ~ends[:, None])) is not None:
        yield f"has reward terms on row {row}, which does not end an episode"
    for name in ("episode_id", "image_id"):
        changed = columns[name][1:] != columns[name][:-1]  # (N - 1,)
        if (row := _first(changed & ~ends[:-1])) is not None:
            yield f"has another {name!r} on row {row + 1} though no episode ended on the row before"
    if (number := _repeated(columns["episode_id"][ends])) is not None:
        yield f"has more than one end in episode {number}, or its rows are not contiguous"


def _image_problems(ids: npt.NDArray[np.int64], images: Sequence[ImageRef]) -> Iterator[str]:
    numbers = [image.image_id for image in images]
    try:
        listed = np.array(numbers, dtype=np.int64)
    except OverflowError:
        yield f"lists an image id that does not fit in 64 bits ({min(numbers)} to {max(numbers)})"
        return
    if (number := _repeated(listed)) is not None:
        yield f"lists image {number} twice"
    if len(unknown := np.setdiff1d(ids, listed)):
        yield f"has rows of image {unknown[0]}, which is not in its list of images"


def _repeated(ids: npt.NDArray[np.int64]) -> int | None:
    """The least id that occurs more than once; None when all differ."""
    numbers, counts = np.unique(ids, return_counts=True)
    again = numbers[counts > 1]
    return int(again[0]) if len(again) else None


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    """Row of the first True, over all columns; None when there is none."""
    return int(np.argwhere(wrong)[0, 0]) if wrong.any() else None
