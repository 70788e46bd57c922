"""Read one or many buffers as one, and trust nothing in them.

Legend: N rows (transitions), E episodes.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer import discovery, mapped_arrays, shard, validation
from orl_ldm.buffer.remote_store import FETCHES
from orl_ldm.buffer.schema import ShardError, field_specs
from orl_ldm.buffer.selection import Selection
from orl_ldm.buffer.shard import Found
from orl_ldm.buffer.transitions import Transitions
from orl_ldm.errors import UserError

_Arrays = dict[str, npt.NDArray[Any]]


def read(
    urls: str | Path | Sequence[str | Path],
    *,
    feature_names: Sequence[str] | None = None,
    strict: bool = False,
    memory_limit: int = 0,
    select: Selection = Selection(),
) -> Transitions:
    """The transitions of one or many buffers. Episodes that several shards hold are taken from the first.

    Columns that need more than `memory_limit` bytes are mapped from disk instead of held in memory (0: never); the
    shards that are being checked stay within it too, as long as one fits. `select` filters episodes.

    A shard that is damaged, or in another schema, is left out and named in `quarantined`; under `strict` it raises.
    Raises UserError for a buffer that does not exist or has no shards, for shards that do not belong together, for
    `feature_names` other than the buffer's, when no good shard is left or no episode passes, without room, and when a
    remote store stops answering.
    """
    places = [urls] if isinstance(urls, str | Path) else list(urls)
    bad: dict[str, str] = {}
    found = sorted(discovery.find(places, bad), key=lambda one: one.sidecar.name)  # stable: buffers in the order given
    discovery.check_headers(found)
    _check_features(found, feature_names)
    wanted = [one for one in found if select.takes_behavior(one.sidecar.header)]
    # Memory is allocated only for shards whose files have the declared size.
    columns, good = _load([one for one in wanted if _has_its_size(one, bad)], bad, memory_limit)
    everything = ", ".join(map(str, places))
    if strict and bad:
        raise UserError(f"{next(iter(bad.values()))}; run verify for all problems")
    if not good and (bad or not found):
        raise UserError(
            f"no good shard is left in {everything}: {'; '.join(list(bad.values())[:3])}; "
            "run verify, then copy or collect the shards again"
        )
    transitions = _join(columns, good, bad, select) if good else None
    if not transitions:
        raise UserError(f"no episode of {everything} passes {select}; relax the filters")
    return transitions


def _check_features(found: Sequence[Found], feature_names: Sequence[str] | None) -> None:
    names = found[0].sidecar.header.feature_names if found else ()
    if found and feature_names is not None and tuple(feature_names) != names:
        difference = validation.difference("feature_names", names, tuple(feature_names))
        raise UserError(
            f"{found[0]} has other features: its {difference}; use a buffer collected with the same features"
        )


def _has_its_size(one: Found, bad: dict[str, str]) -> bool:
    try:
        shard.check_size(one)
    except ShardError as error:
        discovery.quarantine(bad, one.sidecar.name, f"{one} {error}")
        return False
    return True


def _load(found: Sequence[Found], bad: dict[str, str], limit: int) -> tuple[_Arrays, list[Found]]:
    """Columns of the good shards, one after another, and those shards. Several are fetched and checked at a time."""
    if not found:
        return {}, []
    specs = field_specs(found[0].sidecar.header)
    counts = [one.sidecar.rows for one in found]
    stops = np.cumsum(counts)
    total = int(stops[-1])
    folder = mapped_arrays.folder_for(total * sum(spec.row_bytes for spec in specs), limit)
    columns = {spec.name: mapped_arrays.empty((total, *spec.shape), spec.dtype, folder) for spec in specs}

    def load(one: Found, stop: int) -> str:
        """Fill a shard's rows; why they cannot be trusted, or nothing."""
        try:
            _, content = shard.sound_files(one)
        except ShardError as error:
            return str(error)
        for name, column in content.items():
            columns[name][stop - one.sidecar.rows : stop] = column
        return ""

    # While it is checked, a shard takes about three times its size: its file, the parsed columns, and copies.
    largest = 3 * max(one.sidecar.bytes for one in found)
    at_once = FETCHES if folder is None else max(1, min(FETCHES, limit // largest))
    with ThreadPoolExecutor(min(at_once, os.cpu_count() or 1)) as pool:
        try:
            reasons = list(pool.map(load, found, stops))
        except MemoryError:
            raise mapped_arrays.memory_error(sum(column.nbytes for column in columns.values())) from None
    for one, reason in zip(found, reasons, strict=True):
        if reason:
            discovery.quarantine(bad, one.sidecar.name, f"{one} {reason}")
    if any(reasons):
        keep = np.repeat([not reason for reason in reasons], counts)
        columns = {name: mapped_arrays.compact(column, keep) for name, column in columns.items()}
    return columns, [one for one, reason in zip(found, reasons, strict=True) if not reason]


def _join(columns: _Arrays, good: Sequence[Found], bad: Mapping[str, str], select: Selection) -> Transitions:
    """The transitions of the selected episodes, each once."""
    header, images = good[0].sidecar.header, discovery.images(good)
    bounds = validation.episode_bounds(columns)  # (E, 2)
    # The first episode with each id, behaviour and seed.
    behaviors = [(one.sidecar.header.behavior_id, one.sidecar.header.seed) for one in good]
    known = list(dict.fromkeys(behaviors))
    number = np.repeat([known.index(one) for one in behaviors], [one.sidecar.episodes for one in good])  # (E,)
    taken = np.zeros(len(bounds), dtype=np.bool_)
    identity = np.stack([number, columns["episode_id"][bounds[:, 0]]])
    taken[np.unique(identity, axis=1, return_index=True)[1]] = True
    taken &= select.episodes(header, columns, images, bounds[:, 1] - 1)
    rows = np.repeat(taken, np.diff(bounds)[:, 0])  # (N,)
    stops = np.cumsum([one.sidecar.rows for one in good])
    names = [one.sidecar.name for one, part in zip(good, np.split(rows, stops[:-1]), strict=True) if part.any()]
    if not taken.all():
        columns = {name: mapped_arrays.compact(column, rows) for name, column in columns.items()}
    counts = np.bincount(number[taken], minlength=len(known)).tolist()
    episodes = {one: count for one, count in zip(known, counts, strict=True) if count}
    return Transitions(header, columns, images, tuple(names), episodes, dict(bad))
