"""Tables of buffers' contents, for the terminal."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rich.bar import Bar
from rich.console import RenderableType
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orl_ldm.buffer import Transitions
from orl_ldm.buffer.schema import ShardError
from orl_ldm.buffer.shard import Found
from orl_ldm.buffer.transitions import episode_rewards
from orl_ldm.reward import Weights
from orl_ldm.terminal import printable

_BINS = 12


def shard_table(url: str, found: Mapping[str, Found | ShardError]) -> Table:
    """One line for each shard: its sidecar's facts, or the fault of the sidecar."""
    sound = [one.sidecar for one in found.values() if isinstance(one, Found)]
    table = Table(title=_plain(url), title_justify="left", show_footer=True, box=None, pad_edge=False)
    table.add_column("shard", f"{len(found)} shards", no_wrap=True, overflow="fold")
    table.add_column("rows", str(sum(one.rows for one in sound)), justify="right")
    table.add_column("episodes", str(sum(one.episodes for one in sound)), justify="right")
    table.add_column("bytes", decimal(sum(one.bytes for one in sound)), justify="right")
    table.add_column("codec")
    table.add_column("behaviour", overflow="fold")
    for name, one in found.items():
        if isinstance(one, Found):
            side = one.sidecar
            behavior = _plain(side.header.behavior_id)
            table.add_row(_plain(name), str(side.rows), str(side.episodes), decimal(side.bytes), side.codec, behavior)
        else:
            table.add_row(_plain(name), "", "", "", "", Text(printable(str(one)), style="red"))
    return table


def summary_tables(url: str, found: Transitions, weights: Weights) -> Iterator[RenderableType]:
    """Facts, behaviours, scenes, rewards under `weights` and raw terms, and the histogram of rewards."""
    header = found.header
    starts, stops = found.episode_bounds.T  # (E,), (E,)
    terms = found.terms[stops - 1]  # (E, T)
    rewards = episode_rewards(header, terms, weights)  # (E,)
    scenes = Counter(found.images[number].scene for number in found.image_id[starts].tolist())
    facts = {
        "shards": len(found.shards),
        "transitions": len(found),
        "episodes": len(starts),
        "steps per episode": f"{len(found) / len(starts):.2f}, at most {header.nfe_max} denoiser calls",
        "images": f"{len(np.unique(found.image_id))}, scenes: {len(scenes)}",
        "LDM": f"{header.ldm_id} ({header.ldm_digest[:12]})",
        "observations": ", ".join(header.feature_names),
        "actions": ", ".join(header.action_names),
        "reward": " + ".join(f"{weight:g} {name}" for name, weight in weights.items()),
    }
    table = _table(f"[bold]{_plain(url)}", ("", ""), [(name, _plain(str(fact))) for name, fact in facts.items()])
    table.show_header = False
    yield table
    for reason in found.quarantined.values():
        yield Text(printable(f"left out: {reason}"), style="red")
    behaviors = [(_plain(policy), seed, count) for (policy, seed), count in found.behaviors.items()]
    yield _table("", ("behaviour policy", "seed", "episodes"), behaviors)
    yield _table("", ("scene", "episodes"), [(_plain(scene), count) for scene, count in scenes.most_common()])
    columns: dict[str, npt.NDArray[np.floating]] = {"reward": rewards}
    columns |= dict(zip(header.term_names, terms.T, strict=True))
    statistics = [(_plain(name), *(f"{number:.4g}" for number in _statistics(of))) for name, of in columns.items()]
    yield _table("", ("per episode", "mean", "std", "min", "25%", "50%", "75%", "max"), statistics)
    yield _histogram(rewards)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, title_style="")
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index and head else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    return table


def _plain(text: str) -> str:
    return escape(printable(text))


def _statistics(values: npt.NDArray[np.floating]) -> list[float]:
    return [
        float(values.mean()),
        float(values.std()),
        *(float(np.quantile(values, q)) for q in (0, 0.25, 0.5, 0.75, 1)),
    ]


def _histogram(rewards: npt.NDArray[np.float64]) -> Table:
    counts, edges = np.histogram(rewards, bins=_BINS)
    table = Table(box=None, pad_edge=False)
    table.add_column("reward from", justify="right")
    table.add_column("episodes", justify="right")
    table.add_column("", min_width=40)
    for count, edge in zip(counts, edges, strict=False):
        table.add_row(f"{edge:.3f}", str(count), Bar(float(counts.max()), 0, float(count), width=40))
    return table
