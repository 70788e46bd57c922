"""What a buffer holds, in numbers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer import rules, shard
from orl_ldm.buffer.schema import Columns, Header, ShardError, Sidecar
from orl_ldm.buffer.store import Store
from orl_ldm.errors import UserError


@dataclass(frozen=True)
class Summary:
    """E episodes of all sound shards, each counted once."""

    header: Header  # of the first shard
    shards: int
    bytes: int  # on disk
    rows: int
    timeouts: int  # episodes that were cut off
    images: int
    scenes: Mapping[str, int]  # episodes of each, most first
    behaviors: Mapping[tuple[str, int], int]  # episodes of each (behaviour, seed), most first
    returns: npt.NDArray[np.float64]  # (E,) sums of rewards
    terms: Mapping[str, npt.NDArray[np.float32]]  # raw reward terms, (E,) each
    bad: Mapping[str, str]  # shards that were left out -> a sentence that says why


def summarize(url: str | Path) -> Summary:
    """Read a buffer shard by shard. Raises UserError when there is none, or no shard of it is sound."""
    store = Store(url)
    entries = shard.listed(store)
    bad: dict[str, str] = {}
    sound: list[Sidecar] = []
    episodes: list[Columns] = []  # last rows of episodes, with their returns as `rewards`
    scenes, behaviors = Counter[str](), Counter[tuple[str, int]]()
    seen: set[tuple[str, int, int]] = set()
    rows = 0
    for name, side in shard.sidecars(store, entries, shard.names(entries)).items():
        try:
            if isinstance(side, ShardError):
                raise side
            if sound and (differences := rules.header_differences(side.header, sound[0].header)):
                raise ShardError(f"does not go with shard {sound[0].name}: its {differences[0]}")
            columns = shard.checked_columns(store, entries, side)
        except ShardError as error:
            bad[name] = f"shard {name} {error}"
            continue
        sound.append(side)
        keys = rules.episode_keys(side.header, columns)
        fresh = np.array([key not in seen for key in keys])  # (E of this shard,)
        seen.update(keys)
        starts, stops = rules.episode_bounds(columns)[fresh].T
        rows += int((stops - starts).sum())
        totals = np.add.reduceat(columns["rewards"].astype(np.float64), rules.episode_bounds(columns)[:, 0])[fresh]
        ends = {key: columns[key][stops - 1] for key in ("values", "timeouts", "image_id")}
        episodes.append({**ends, "rewards": totals})
        of_image = {image.image_id: image.scene for image in side.images}
        scenes.update(of_image[int(number)] for number in ends["image_id"])
        behaviors[side.header.behavior_id, side.header.seed] += len(totals)
    if not sound:
        reason = next(iter(bad.values()), "it has no shards; collect into it first")
        raise UserError(f"there is nothing to read in {store.url}: {reason}")
    joined = {key: np.concatenate([part[key] for part in episodes]) for key in episodes[0]}
    header = sound[0].header
    return Summary(
        header=header,
        shards=len(sound),
        bytes=sum(side.bytes for side in sound),
        rows=rows,
        timeouts=int(joined["timeouts"].sum()),
        images=len(np.unique(joined["image_id"])),
        scenes=dict(scenes.most_common()),
        behaviors=dict(behaviors.most_common()),
        returns=joined["rewards"],
        terms={name: joined["values"][:, index] for index, name in enumerate(header.term_names)},
        bad=bad,
    )
