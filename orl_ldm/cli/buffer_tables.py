"""Tables of what buffers hold, for the terminal."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rich.bar import Bar
from rich.console import RenderableType
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orl_ldm.buffer.schema import ShardError, Sidecar
from orl_ldm.buffer.summary import Summary
from orl_ldm.terminal import printable

_BINS = 12


def shard_table(url: str, found: Mapping[str, Sidecar | ShardError]) -> Table:
    """One line for each shard; what is wrong with a sidecar stands in the place of what it would say."""
    sound = [one for one in found.values() if isinstance(one, Sidecar)]
    table = Table(title=_plain(url), title_justify="left", show_footer=True, box=None, pad_edge=False)
    table.add_column("shard", f"{len(found)} shards", no_wrap=True, overflow="fold")
    table.add_column("rows", str(sum(one.rows for one in sound)), justify="right")
    table.add_column("episodes", str(sum(one.episodes for one in sound)), justify="right")
    table.add_column("bytes", decimal(sum(one.bytes for one in sound)), justify="right")
    table.add_column("codec")
    table.add_column("behaviour", overflow="fold")
    for name, one in found.items():
        if isinstance(one, Sidecar):
            behavior = _plain(one.header.behavior_id)
            table.add_row(_plain(name), str(one.rows), str(one.episodes), decimal(one.bytes), one.codec, behavior)
        else:
            table.add_row(_plain(name), "", "", "", "", Text(printable(str(one)), style="red"))
    return table


def summary_tables(url: str, summary: Summary) -> Iterator[RenderableType]:
    """Facts, behaviours, scenes, rewards and terms, and the histogram of returns."""
    header, episodes = summary.header, len(summary.returns)
    facts = {
        "shards": f"{summary.shards} ({decimal(summary.bytes)})",
        "transitions": summary.rows,
        "episodes": f"{episodes}, {summary.timeouts} of them cut off",
        "steps per episode": f"{summary.rows / episodes:.2f}, at most {header.nfe_max} denoiser calls",
        "images": f"{summary.images}, scenes: {len(summary.scenes)}",
        "LDM": f"{header.ldm_id} ({header.ldm_digest[:12]})",
        "observations": ", ".join(header.feature_names),
        "actions": ", ".join(header.action_names),
        "reward": " + ".join(f"{weight:g} {name}" for name, weight in header.reward_weights.items()),
    }
    table = _table(f"[bold]{_plain(url)}", ("", ""), [(name, _plain(str(fact))) for name, fact in facts.items()])
    table.show_header = False
    yield table
    for reason in summary.bad.values():
        yield Text(printable(f"left out: {reason}"), style="red")
    behaviors = [(_plain(policy), seed, count) for (policy, seed), count in summary.behaviors.items()]
    yield _table("", ("behaviour policy", "seed", "episodes"), behaviors)
    yield _table("", ("scene", "episodes"), [(_plain(scene), count) for scene, count in summary.scenes.items()])
    columns: dict[str, npt.NDArray[np.floating]] = {"reward": summary.returns, **summary.terms}
    statistics = [(_plain(name), *(f"{number:.4g}" for number in _statistics(of))) for name, of in columns.items()]
    yield _table("", ("per episode", "mean", "std", "min", "25%", "50%", "75%", "max"), statistics)
    yield _histogram(summary.returns)


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


def _histogram(returns: npt.NDArray[np.float64]) -> Table:
    counts, edges = np.histogram(returns, bins=_BINS)
    table = Table(box=None, pad_edge=False)
    table.add_column("reward from", justify="right")
    table.add_column("episodes", justify="right")
    table.add_column("", min_width=40)
    for count, edge in zip(counts, edges, strict=False):
        table.add_row(f"{edge:.3f}", str(count), Bar(float(counts.max()), 0, float(count), width=40))
    return table
