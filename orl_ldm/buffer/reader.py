"""Read one or many buffers into memory, and take nothing on trust.

Legend: N rows (transitions), E episodes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer import rules, shard
from orl_ldm.buffer.schema import Columns, Header, ImageRef, ShardError, Sidecar, field_specs
from orl_ldm.buffer.store import Entry, Store
from orl_ldm.buffer.transitions import Transitions
from orl_ldm.errors import UserError


@dataclass(frozen=True)
class _Found:
    """A shard with a readable sidecar, and where it was found."""

    store: Store
    entries: Mapping[str, Entry]
    sidecar: Sidecar

    def __str__(self) -> str:
        return f"shard {self.sidecar.name} of {self.store.url}"


def read(
    urls: str | Path | Sequence[str | Path],
    *,
    feature_names: Sequence[str] | None = None,
    strict: bool = False,
) -> Transitions:
    """All transitions of one or many buffers. Episodes that several shards hold are taken from the first.

    A shard that is damaged, or in another schema, is left out and named in `quarantined`; under `strict` it raises.
    Raises UserError for a buffer that does not exist or has no shards, for shards that do not belong together, for
    `feature_names` other than the buffer's, and when no good shard is left.
    """
    places = [urls] if isinstance(urls, str | Path) else list(urls)
    bad: dict[str, str] = {}
    found = sorted(_find(places, bad), key=lambda one: one.sidecar.name)  # stable: buffers in the order given
    _check_together(found, feature_names)
    good = [(one, columns) for one in found if (columns := _load(one, bad)) is not None]
    if strict and bad:
        raise UserError(f"{next(iter(bad.values()))}; run verify for all problems")
    if not good:
        raise UserError(
            f"no good shard is left in {_list(places)}: {'; '.join(list(bad.values())[:3])}; "
            "run verify, then copy or collect the shards again"
        )
    return _join(good, bad)


def _find(places: Sequence[str | Path], bad: dict[str, str]) -> Iterator[_Found]:
    if not places:
        raise UserError("no buffer was given to read; give at least one folder or URL")
    for place in places:
        store = Store(place)
        entries = shard.listed(store)
        shards = shard.names(entries)
        if not shards:
            raise UserError(f"the buffer {store.url} has no shards; collect into it first, or give another folder")
        for name, sidecar in shard.sidecars(store, entries, shards).items():
            if isinstance(sidecar, Sidecar):
                yield _Found(store, entries, sidecar)
            else:
                _quarantine(bad, name, f"shard {name} of {store.url} {sidecar}")


def _check_together(found: Sequence[_Found], feature_names: Sequence[str] | None) -> None:
    if not found:
        return
    first = found[0]
    names = first.sidecar.header.feature_names
    if feature_names is not None and tuple(feature_names) != names:
        difference = rules.difference("feature_names", names, tuple(feature_names))
        raise UserError(f"{first} has other features: its {difference}; use a buffer collected with the same features")
    for other in found[1:]:
        if differences := rules.header_differences(other.sidecar.header, first.sidecar.header):
            raise UserError(f"{other} does not go with {first}: its {differences[0]}; read them separately")


def _load(one: _Found, bad: dict[str, str]) -> Columns | None:
    try:
        return shard.checked_columns(one.store, one.entries, one.sidecar)
    except ShardError as error:
        _quarantine(bad, one.sidecar.name, f"{one} {error}")
        return None


def _quarantine(bad: dict[str, str], name: str, reason: str) -> None:
    bad[name] = f"{bad[name]}; {reason}" if name in bad else reason  # the same name in two buffers


def _join(good: Sequence[tuple[_Found, Columns]], bad: Mapping[str, str]) -> Transitions:
    seen: set[tuple[str, int, int]] = set()
    parts: list[Columns] = []
    names: list[str] = []
    for one, columns in good:
        if (fresh := _fresh_rows(one.sidecar.header, columns, seen)).any():
            parts.append({name: column[fresh] for name, column in columns.items()})
            names.append(one.sidecar.name)
    header = good[0][0].sidecar.header
    return Transitions(
        header=header,
        columns={spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in field_specs(header)},
        images=_join_images([one for one, _ in good]),
        shards=tuple(names),
        quarantined=dict(bad),
    )


def _fresh_rows(header: Header, columns: Columns, seen: set[tuple[str, int, int]]) -> npt.NDArray[np.bool_]:
    """(N,) rows of episodes that were not seen yet; marks them as seen."""
    keys = rules.episode_keys(header, columns)
    fresh = np.array([key not in seen for key in keys], dtype=np.bool_)  # (E,)
    seen.update(keys)
    starts, stops = rules.episode_bounds(columns).T  # (E,), (E,)
    return np.repeat(fresh, stops - starts)


def _join_images(found: Sequence[_Found]) -> dict[int, ImageRef]:
    images: dict[int, ImageRef] = {}
    for one in found:
        for image in one.sidecar.images:
            known = images.setdefault(image.image_id, image)
            if known != image:
                raise UserError(
                    f"{one} calls image {image.image_id} {image.name!r} ({image.scene}), but an earlier shard says "
                    f"{known.name!r} ({known.scene}); read the buffers separately"
                )
    return images


def _list(places: Sequence[str | Path]) -> str:
    return ", ".join(str(place) for place in places)
