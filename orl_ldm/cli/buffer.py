"""`orl-ldm buffer`: list, check, copy and export buffers."""

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
    help="List, check, copy and export buffers. A buffer is a folder or an fsspec URL, such as s3://bucket/name.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
console = Console(emoji=False, highlight=False)  # names are escaped by buffer_tables

#: Larger buffers are mapped from disk while they are summarized.
_MEMORY_LIMIT = 2**30

BufferArgument = Annotated[str, typer.Argument(help="A buffer folder or fsspec URL.")]
BuffersArgument = Annotated[list[str], typer.Argument(help="Buffer folders or fsspec URLs.")]
PreferOption = Annotated[
    str,
    typer.Option(
        "--prefer", help="Reward weights: paper, balanced or perceptual, or shares such as perception=2,speed=1."
    ),
]


@app.command("ls")
def list_shards(buffers: BuffersArgument) -> None:
    """List the shards. Only sidecars are read, no data."""
    from orl_ldm.buffer import shard
    from orl_ldm.buffer.store import open_store
    from orl_ldm.cli.buffer_tables import shard_table

    for url in buffers:
        store = open_store(url)
        console.print(shard_table(url, shard.find(store, shard.listed(store))))


@app.command()
def info(buffers: BuffersArgument, prefer: PreferOption = "balanced") -> None:
    """Summarize the content: episodes, scenes, behaviour policies, rewards and their histogram. Reads everything."""
    from orl_ldm.buffer import read
    from orl_ldm.cli.buffer_tables import summary_tables
    from orl_ldm.reward import preference

    weights = preference(prefer)
    for url in buffers:
        for part in summary_tables(url, read(url, memory_limit=_MEMORY_LIMIT), weights):
            console.print(part)


@app.command()
def verify(buffers: BuffersArgument) -> None:
    """Check everything and name every bad shard: digests, schemas, shapes, ranges, duplicates, gaps."""
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
    """Copy a buffer's missing shards to a store. Each is checked before it is sent and when it has arrived."""
    _transfer("push", [source], target)


@app.command()
def pull(
    source: BufferArgument, target: Annotated[str, typer.Argument(help="Where to pull it to: a folder or fsspec URL.")]
) -> None:
    """Copy a buffer's missing shards from a store. Each is checked before it is published."""
    _transfer("pull", [source], target)


@app.command()
def merge(sources: BuffersArgument, target: Annotated[str, typer.Argument(help="The buffer to join them in.")]) -> None:
    """Join buffers in one. They must have the same LDM, observations, actions and reward terms."""
    _transfer("merge", sources, target)


@app.command()
def convert(
    source: BufferArgument,
    target: Annotated[str, typer.Argument(help="The buffer to write.")],
    codec: Annotated[Literal["hdf5", "zarr"], typer.Option(help="The codec to write.")],
) -> None:
    """Write the same shards with another codec. HDF5 is one file a shard; Zarr suits object stores."""
    from orl_ldm.buffer.transfer import convert as run

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
        float,
        typer.Option(help="Least age of unpublished data, in minutes; a writer may be using younger data.", min=0),
    ] = 60,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove leftovers of killed writers, and data that no sidecar names. Readers use neither."""
    from orl_ldm.buffer.prune import Waste
    from orl_ldm.buffer.prune import prune as run

    def tell(waste: Waste) -> None:
        action = "keep" if not waste.removable else "would remove" if dry_run else "remove"
        _say(f"{action} {waste.entry}: {waste.reason}")

    wastes = run(buffer, 60 * min_age, quarantined, dry_run, tell)
    removed = sum(waste.removable for waste in wastes)
    _say(f"{'would remove' if dry_run else 'removed'} {removed} of {len(wastes)} entries that no reader uses")


@app.command()
def export(
    buffers: BuffersArgument,
    out: Annotated[Path, typer.Argument(help="The file (d3rlpy, parquet) or folder (minari) to write.")],
    form: Annotated[Literal["d3rlpy", "minari", "parquet"], typer.Option("--format", help="The format to write.")],
    prefer: PreferOption = "balanced",
) -> None:
    """Write buffers for another library: a d3rlpy ReplayBuffer, a Minari dataset, or Parquet."""
    from orl_ldm.buffer import read
    from orl_ldm.buffer.export import export as run
    from orl_ldm.reward import preference

    weights = preference(prefer)
    transitions = read(buffers)
    for reason in transitions.quarantined.values():
        _say(f"left out: {reason}")
    run(transitions, out.expanduser(), form, weights)
    rows, episodes = len(transitions), len(transitions.episode_bounds)
    _say(f"{rows} transitions in {episodes} episodes in {out}")
    if transitions.quarantined:
        sys.exit(1)


def _transfer(what: str, sources: list[str], target: str) -> None:
    from orl_ldm.buffer.transfer import transfer

    with bytes_bar(what, console) as advance:
        result = transfer(sources, target, advance)
    _report(result, target)


def _report(result: "Transferred", target: str) -> None:
    """Print what arrived; exit with 1 when a shard did not."""
    from rich.filesize import decimal

    for reason in result.bad.values():
        _say(f"not copied: {reason}")
    there = f"; {result.present} were there already" if result.present else ""
    _say(f"{len(result.copied)} shards ({decimal(result.bytes)}) in {target}{there}")
    if result.bad:
        sys.exit(1)


def _say(sentence: str) -> None:
    say(console, sentence)
