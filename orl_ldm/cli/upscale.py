"""`orl-ldm upscale`: files in, files of four times the size out."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from orl_ldm.errors import UserError
from orl_ldm.terminal import printable

if TYPE_CHECKING:
    from orl_ldm.steer.door import SteeredSR
    from orl_ldm.upscale.options import Options

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


def upscale(
    inputs: Annotated[list[str], typer.Argument(help="Files or folders: PNG, JPEG, WebP, TIFF, GeoTIFF.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The file to write; a folder for several inputs.")],
    policy: Annotated[str, typer.Option(help="embedded, or a policy's folder.")] = "embedded",
    ldm: Annotated[str, typer.Option(help="embedded, a folder, or a hub id.")] = "embedded",
    any_ldm: Annotated[bool, typer.Option("--any-ldm", help="Allow an LDM that the policy was not made for.")] = False,
    prefer: Annotated[str, typer.Option(help="The preference: paper, perceptual, perception=2,speed=1, ...")] = "",
    seed: Annotated[int, typer.Option(help="Of the noise.", min=0)] = 7,
    bands: Annotated[str, typer.Option(help="Bands to super-resolve, e.g. 3,2,1.")] = "",
    range_: Annotated[str, typer.Option("--range", help="Values of black and white, e.g. 0,10000; or auto.")] = "auto",
    window: Annotated[str, typer.Option(help="Only this part: column,row,width,height in input pixels.")] = "",
    bounds: Annotated[str, typer.Option(help="Only this part: left,bottom,right,top in the file's CRS.")] = "",
    tile: Annotated[str, typer.Option(help="Side of a tile in input pixels, a multiple of 32.")] = "auto",
    batch: Annotated[str, typer.Option(help="Tiles that are computed at once.")] = "auto",
    memory: Annotated[str, typer.Option(help="Main memory that may be used.")] = "2G",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    co: Annotated[list[str], typer.Option("--co", help="A GDAL creation option, NAME=VALUE; repeatable.")] = [],  # noqa: B006
    cog: Annotated[bool, typer.Option(help="Write TIFFs cloud-optimized, with overviews.")] = True,
    method: Annotated[str, typer.Option(help="steered or bicubic.")] = "steered",
    faithful: Annotated[bool, typer.Option("--faithful", help="Agree with the input; add no random texture.")] = False,
    uncertainty: Annotated[str, typer.Option(help="Also write the deviation over several seeds here (.tif).")] = "",
    samples: Annotated[int, typer.Option(help="Seeds for --uncertainty.")] = 5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Measure a file that was written before.")] = False,
) -> None:
    """Make images four times as large. The same command goes on where an interrupted one stopped."""
    from orl_ldm.upscale import options as read

    chosen = read.Options(
        seed=seed,
        method=_one_of(method, ("steered", "bicubic")),
        faithful=faithful,
        bands=read.whole_numbers(bands, "--bands", (1, 3), "three bands as 3,2,1, or one") if bands else (),
        range=None if range_ == "auto" else read.numbers(range_, "--range", (2,), "auto, or as 0,10000"),  # type: ignore[arg-type]
        window=read.whole_numbers(window, "--window", (4,), "column,row,width,height") if window else None,  # type: ignore[arg-type]
        bounds=read.numbers(bounds, "--bounds", (4,), "left,bottom,right,top") if bounds else None,  # type: ignore[arg-type]
        tile=128 if tile == "auto" else read.whole_numbers(tile, "--tile", (1,), "auto or a number")[0],
        batch=read.whole_numbers(batch, "--batch", (1,), "auto or a number")[0] if batch != "auto" else _batch(device),
        memory=read.size_of(memory),
        cog=cog,
        creation=read.creation_options(co),
        samples=samples,
    )
    console = Console(quiet=quiet or as_json)
    jobs = _jobs(inputs, out)
    if uncertainty and len(jobs) > 1:
        raise UserError("--uncertainty names one file, and there are several inputs")
    steered = None
    if chosen.method == "steered" and not check:
        from orl_ldm.steer.door import SteeredSR

        steered = SteeredSR.load(policy, ldm, prefer or None, device, seed, any_ldm)
    extra = Path(uncertainty) if uncertainty else None
    failed = []
    for source, target in jobs:
        if len(jobs) > 1 and target.exists() and not (overwrite or check or dry_run):
            _say(console, f"{target} exists already: skipped (--overwrite replaces it)")
            continue
        try:
            if check:
                report = _check(source, target, chosen)
            else:
                report = _upscale(source, target, steered, chosen, extra, overwrite, dry_run, console)
        except UserError as error:
            if len(jobs) == 1:
                raise
            failed.append((source, str(error)))
            _say(Console(stderr=True), f"{source}: {error}")
            continue
        if as_json and not quiet:
            print(json.dumps(report))
    if failed:
        names = ", ".join(str(source) for source, _ in failed)
        _say(Console(stderr=True), f"{len(failed)} of {len(jobs)} files failed: {names}")
        sys.exit(1)


def _upscale(
    source: Path,
    target: Path,
    steered: "SteeredSR | None",
    options: "Options",
    uncertainty: Path | None,
    overwrite: bool,
    dry_run: bool,
    console: Console,
) -> dict[str, Any]:
    from orl_ldm.upscale.file import upscale_one

    with tiles_bar(source.name, console) as advance:
        say: Callable[[str], None] = lambda sentence: _say(console, sentence)  # noqa: E731
        report = upscale_one(source, target, steered, options, uncertainty, overwrite, dry_run, advance, say)
    for note in report.notes:
        _say(console, f"{source.name}: {note}")
    _say(console, report.line())
    return report.as_dict()


def _check(source: Path, target: Path, options: "Options") -> dict[str, Any]:
    from orl_ldm.upscale.checking import check_file

    quality = check_file(source, target, options)
    _say(Console(stderr=True), f"{target}: {quality.line() or 'nothing to measure'}")
    return {"source": source.name, "target": str(target), "quality": vars(quality)}


def _jobs(inputs: list[str], out: str) -> list[tuple[Path, Path]]:
    """(source, target) of every file. Raises UserError where there is none, or two would have one target."""
    sources: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            sources += sorted(inside for inside in path.iterdir() if inside.suffix.lower() in ENDINGS)
        else:
            sources.append(path)
    if not sources:
        raise UserError(f"there is no image in {', '.join(inputs)}")
    target = Path(out)
    several = len(sources) > 1 or any(Path(path).is_dir() for path in inputs)
    if not several and not target.is_dir() and not out.endswith("/"):
        return [(sources[0], target)]
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: several inputs need a folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {target} cannot be made: {error.strerror}") from None
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two inputs are named {twice[0]}: upscale them into different folders")
    return [(source, target / source.name) for source in sources]


def _one_of(text: str, choices: tuple[str, ...]) -> Any:
    if text not in choices:
        raise UserError(f"--method {text!r}: give {' or '.join(choices)}")
    return text


def _batch(device: str) -> int:
    """Tiles at once: many on a GPU, few on a processor, where more are not faster."""
    import torch

    return 16 if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()) else 2


def _say(console: Console, sentence: str) -> None:
    console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def tiles_bar(name: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (tiles done, tiles in all)."""
    text = TextColumn("{task.description}", markup=False)
    with Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(printable(name), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
