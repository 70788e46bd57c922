"""Read one or many buffers as one, and take nothing on trust.

Legend: N rows (transitions), E episodes.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer import memory, rules, shard, together
from orl_ldm.buffer.schema import Header, ShardError, field_specs
from orl_ldm.buffer.selection import Selection
from orl_ldm.buffer.store import FETCHES
from orl_ldm.buffer.together import Found
from orl_ldm.buffer.transitions import Transitions
from orl_ldm.errors import UserError
from orl_ldm.reward import TERMS, Weights, compose

_Arrays = dict[str, npt.NDArray[Any]]


def read(
    urls: str | Path | Sequence[str | Path],
    *,
    feature_names: Sequence[str] | None = None,
    strict: bool = False,
    memory_limit: int = 0,
    select: Selection = Selection(),
    weights: Weights | None = None,
) -> Transitions:
    """The transitions of one or many buffers. Episodes that several shards hold are taken from the first.

    Columns that need more than `memory_limit` bytes are mapped from disk instead of held in memory (0: never); the
    shards that are being checked stay within it too, as long as one fits. `select` filters episodes; `weights`
    compose the rewards anew from the raw terms.

    A shard that is damaged, or in another schema, is left out and named in `quarantined`; under `strict` it raises.
    Raises UserError for a buffer that does not exist or has no shards, for shards that do not belong together, for
    `feature_names` other than the buffer's, when no good shard is left or no episode passes, without room, and when a
    remote store stops answering.
    """
    places = [urls] if isinstance(urls, str | Path) else list(urls)
    bad: dict[str, str] = {}
    found = sorted(together.find(places, bad), key=lambda one: one.sidecar.name)  # stable: buffers in the order given
    _check_together(found, feature_names)
    # Only what is declared in the size of data that are there has memory set aside for it.
    wanted = [one for one in found if select.takes_behavior(one.sidecar.header) and _has_its_size(one, bad)]
    columns, good = _load(wanted, bad, memory_limit)
    if strict and bad:
        raise UserError(f"{next(iter(bad.values()))}; run verify for all problems")
    if not good and (bad or not found):
        raise UserError(
            f"no good shard is left in {_list(places)}: {'; '.join(list(bad.values())[:3])}; "
            "run verify, then copy or collect the shards again"
        )
    if good:
        header = good[0].sidecar.header if weights is None else _reweighed(columns, good[0].sidecar.header, weights)
        transitions = _join(header, columns, good, bad, select)
        if len(transitions):
            return transitions
    raise UserError(f"no episode of {_list(places)} passes {select}; relax the filters")


def _check_together(found: Sequence[Found], feature_names: Sequence[str] | None) -> None:
    if not found:
        return
    first = found[0]
    names = first.sidecar.header.feature_names
    if feature_names is not None and tuple(feature_names) != names:
        difference = rules.difference("feature_names", names, tuple(feature_names))
        raise UserError(f"{first} has other features: its {difference}; use a buffer collected with the same features")
    together.check_headers(found)


def _has_its_size(one: Found, bad: dict[str, str]) -> bool:
    try:
        shard.check_size(one.store, one.entries, one.sidecar)
    except ShardError as error:
        together.quarantine(bad, one.sidecar.name, f"{one} {error}")
        return False
    return True


def _load(found: Sequence[Found], bad: dict[str, str], limit: int) -> tuple[_Arrays, list[Found]]:
    """Columns of the good shards, one after another, and those shards.

    Several are fetched and hashed at a time; each goes straight to its own rows.
    """
    if not found:
        return {}, []
    specs = field_specs(found[0].sidecar.header)
    stops = np.cumsum([one.sidecar.rows for one in found])
    folder = memory.folder_for(int(stops[-1]) * sum(spec.row_bytes for spec in specs), limit)
    columns = memory.columns(specs, int(stops[-1]), folder)
    parts = [
        {name: column[stop - one.sidecar.rows : stop] for name, column in columns.items()}
        for one, stop in zip(found, stops, strict=True)
    ]
    largest = max(one.sidecar.bytes for one in found)
    at_once = FETCHES if folder is None else max(1, min(FETCHES, limit // largest))
    with ThreadPoolExecutor(min(at_once, os.cpu_count() or 1)) as pool:
        reasons = list(pool.map(_load_one, found, parts))
    for one, reason in zip(found, reasons, strict=True):
        if reason:
            together.quarantine(bad, one.sidecar.name, f"{one} {reason}")
    if any(reasons):
        keep = np.repeat([not reason for reason in reasons], [one.sidecar.rows for one in found])
        columns = {name: memory.compact(column, keep) for name, column in columns.items()}
    return columns, [one for one, reason in zip(found, reasons, strict=True) if not reason]


def _load_one(one: Found, into: _Arrays) -> str:
    """Fill a shard's rows; why they cannot be trusted, or nothing."""
    try:
        shard.fill(one.store, one.entries, one.sidecar, into)
    except ShardError as error:
        return str(error)
    return ""


def _reweighed(columns: _Arrays, header: Header, weights: Weights) -> Header:
    """Compose `rewards` anew from the raw terms, in place; the header that says so."""
    if header.term_names != tuple(TERMS):
        raise UserError(
            f"rewards cannot be weighed anew: the buffer logs {', '.join(header.term_names)} where "
            f"{', '.join(TERMS)} are needed; read it without weights"
        )
    last = rules.episode_bounds(columns)[:, 1] - 1  # (E,)
    columns["rewards"][:] = 0
    columns["rewards"][last] = compose(columns["values"][last], weights, header.nfe_max)
    return replace(header, reward_weights=weights)


def _join(
    header: Header, columns: _Arrays, good: Sequence[Found], bad: Mapping[str, str], select: Selection
) -> Transitions:
    """The transitions of the selected episodes, each once."""
    images = together.images(good)
    collections = [(one.sidecar.header.behavior_id, one.sidecar.header.seed) for one in good]
    numbers = {collection: number for number, collection in enumerate(dict.fromkeys(collections))}
    collection = np.repeat([numbers[one] for one in collections], [one.sidecar.episodes for one in good])  # (E,)
    bounds = rules.episode_bounds(columns)  # (E, 2)
    first = _first_of_each(collection, columns["episode_id"][bounds[:, 0]])  # (E,)
    taken = select.episodes(header, columns, images, bounds, first)
    names = [one.sidecar.name for one in good]
    if not taken.all():
        rows = np.repeat(taken, np.diff(bounds)[:, 0])  # (N,)
        ends = np.cumsum([one.sidecar.rows for one in good])
        names = [name for name, part in zip(names, np.split(rows, ends[:-1]), strict=True) if part.any()]
        columns = {name: memory.compact(column, rows) for name, column in columns.items()}
    return Transitions(header, columns, images, tuple(names), dict(bad))


def _first_of_each(collection: npt.NDArray[np.int64], episode: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(E,) whether an episode is the first of its id in its collection."""
    first = np.ones(len(episode), dtype=np.bool_)
    for number in range(collection.max() + 1):
        places = np.flatnonzero(collection == number)
        if rules.repeated(episode[places]) is not None:
            first[places] = False
            first[places[np.unique(episode[places], return_index=True)[1]]] = True
    return first


def _list(places: Sequence[str | Path]) -> str:
    return ", ".join(str(place) for place in places)
