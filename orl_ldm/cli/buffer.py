"""`orl-ldm buffer`: look at buffers, check them, move them, and hand them to other libraries."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from orl_ldm.cli.progress import bytes_bar
from orl_ldm.terminal import say

if TYPE_CHECKING:
    from orl_ldm.buffer.transfer import Transferred

app = typer.Typer(
    help="Look at, check, move and export buffers.\n\nA buffer is a folder or any fsspec URL, such as s3://bucket/name.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
console = Console(emoji=False, highlight=False)  # names are escaped by buffer_tables

BufferArgument = Annotated[str, typer.Argument(help="A buffer folder or fsspec URL.")]
BuffersArgument = Annotated[list[str], typer.Argument(help="Buffer folders or fsspec URLs.")]


@app.command("ls")
def list_shards(buffers: BuffersArgument) -> None:
    """List the shards. Only sidecars are read, no data."""
    from orl_ldm.buffer import shard
    from orl_ldm.buffer.store import Store
    from orl_ldm.cli.buffer_tables import shard_table

    for url in buffers:
        store = Store(url)
        entries = shard.listed(store)
        console.print(shard_table(url, shard.sidecars(store, entries, shard.names(entries))))


@app.command()
def info(buffers: BuffersArgument) -> None:
    """Sum up what is in there. Episodes, scenes, behaviour policies, rewards and their histogram; reads everything."""
    from orl_ldm.buffer.summary import summarize
    from orl_ldm.cli.buffer_tables import summary_tables

    for url in buffers:
        for part in summary_tables(url, summarize(url)):
            console.print(part)


@app.command()
def verify(buffers: BuffersArgument) -> None:
    """Check everything and name every bad shard. Hashes, schemas, shapes, ranges, duplicates, gaps."""
    from orl_ldm.buffer import verify as check

    sound = True
    for url in buffers:
        problems = check(url)
        for problem in problems:
            _say(f"{url}: {problem}")
        good = all(problem.harmless for problem in problems)
        if good:
            _say(f"{url}: every shard is sound")
        sound &= good
    if not sound:
        sys.exit(1)


@app.command()
def push(
    source: BufferArgument, target: Annotated[str, typer.Argument(help="Where to push it: a folder or fsspec URL.")]
) -> None:
    """Copy a buffer to a store. What is not there yet, checked before it is sent and when it has arrived."""
    _transfer("push", [source], target)


@app.command()
def pull(
    source: BufferArgument, target: Annotated[str, typer.Argument(help="Where to pull it to: a folder or fsspec URL.")]
) -> None:
    """Copy a buffer from a store. What is not here yet, checked when it has arrived and before it is published."""
    _transfer("pull", [source], target)


@app.command()
def merge(sources: BuffersArgument, target: Annotated[str, typer.Argument(help="The buffer to join them in.")]) -> None:
    """Join buffers in one. They must be of the same LDM, observations, actions and reward terms."""
    _transfer("merge", sources, target)


@app.command()
def convert(
    source: BufferArgument,
    target: Annotated[str, typer.Argument(help="The buffer to write.")],
    codec: Annotated[Literal["hdf5", "zarr"], typer.Option(help="The codec to write.")],
) -> None:
    """Write the same shards with another codec. HDF5 is easy to copy, Zarr is at home on object stores."""
    from orl_ldm.buffer.convert import convert as run

    with bytes_bar("convert", console) as advance:
        result = run(source, target, codec, advance)
    _report(result, target)


@app.command()
def prune(
    buffer: BufferArgument,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Also remove damaged shards, so that they can be copied again.")
    ] = False,
    min_age: Annotated[
        float, typer.Option(help="Minutes that unpublished data must be old; younger may be being written.", min=0)
    ] = 60,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what no reader takes. Leftovers of killed writers, and data that no sidecar names."""
    from orl_ldm.buffer.prune import Waste
    from orl_ldm.buffer.prune import prune as run

    def tell(waste: Waste) -> None:
        action = "keep" if not waste.removable else "would remove" if dry_run else "remove"
        _say(f"{action} {waste.entry}: {waste.reason}")

    wastes = run(buffer, 60 * min_age, quarantined, dry_run, tell)
    removed = sum(waste.removable for waste in wastes)
    _say(f"{'would remove' if dry_run else 'removed'} {removed} of {len(wastes)} entries that no reader takes")


@app.command()
def export(
    buffers: BuffersArgument,
    out: Annotated[Path, typer.Argument(help="The file (d3rlpy, parquet) or folder (minari) to write.")],
    form: Annotated[Literal["d3rlpy", "minari", "parquet"], typer.Option("--format", help="Whose format to write.")],
) -> None:
    """Write buffers for another library. A d3rlpy ReplayBuffer, a Minari dataset, or Parquet."""
    from orl_ldm.buffer import read
    from orl_ldm.buffer.export import export as run

    transitions = read(buffers)
    for reason in transitions.quarantined.values():
        _say(f"left out: {reason}")
    run(transitions, out, form)
    rows, episodes = len(transitions.rewards), len(transitions.episode_bounds)
    _say(f"{rows} transitions in {episodes} episodes in {out}")
    if transitions.quarantined:
        sys.exit(1)


def _transfer(what: str, sources: list[str], target: str) -> None:
    from orl_ldm.buffer.transfer import transfer

    with bytes_bar(what, console) as advance:
        result = transfer(sources, target, advance)
    _report(result, target)


def _report(result: "Transferred", target: str) -> None:
    """Say what arrived; exit with 1 when a shard did not."""
    from rich.filesize import decimal

    for reason in result.bad.values():
        _say(f"not copied: {reason}")
    there = f"; {result.present} were there already" if result.present else ""
    _say(f"{len(result.copied)} shards ({decimal(result.bytes)}) in {target}{there}")
    if result.bad:
        sys.exit(1)


def _say(sentence: str) -> None:
    say(console, sentence)
