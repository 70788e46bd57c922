"""What an LDM can do by itself, and what a call costs: the table of its model card.

    python benchmarks/ldm.py --source data/resisc45 --source data/ucmerced \
        --spandrel path/to/RealESRGAN_x4plus_fp16.pth --threads 2
    python benchmarks/ldm.py --source data/resisc45 --images 204 --size 128 --steps 0 \
        --degradation bicubic --degradation blur --degradation mixed

Scores the `test` split of each source (centre crops, x4) under each kind of input and prints Markdown.
Scores are kept in `runs/benchmarks/ldm-<digest>`, so an interrupted run goes on; a folder is of one device and number
of threads, because seconds are among the scores. A method with the projection has the seconds of that without.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from rich.console import Console

from orl_ldm.cli.progress import methods_bar
from orl_ldm.config import build, digest
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM, load_ldm
from orl_ldm.diffusion.sampler import ddim_controller
from orl_ldm.evaluate.methods import Method, interpolations, ldm_alone, network, steered_by, with_projection
from orl_ldm.evaluate.runner import Runner, per_image
from orl_ldm.images.config import DataConfig
from orl_ldm.images.sources import open_images
from orl_ldm.metrics import Metrics
from orl_ldm.report.statistics import paired_intervals
from orl_ldm.reward import SETTINGS

SEED = 7
BATCH = 8


def methods(ldm: LDM, steps: int, spandrel: list[str]) -> list[Method]:
    """Every row of the table."""
    one = ldm_alone(ldm, [ldm.schedule.num_train_timesteps - 1], 0.0, "LDM, one call from pure noise", SEED)
    start, limits = round(0.9 * (ldm.schedule.num_train_timesteps - 1)), SamplerConfig(nfe_max=1)
    key = f"warm/{start}/{asdict(limits)}/{SEED}"
    warm = steered_by(ldm, "LDM, one call from bicubic at 0.9 T", key, ddim_controller([start], 0.0), limits, SEED)
    grid = ldm.schedule.grid(steps) if steps else []
    alone = [ldm_alone(ldm, grid, eta, f"LDM, DDIM {steps}, eta {eta:g}", SEED) for eta in (0.0, 1.0) if steps]
    estimates = [one, with_projection(one), warm, with_projection(warm)]
    others = [network(path, ldm.scale, ldm.device) for path in spandrel]
    return [*interpolations(ldm), *estimates, *alone, *others]


def table(frame: pd.DataFrame) -> str:
    """Means, and paired differences to bicubic with 95 % intervals."""
    lines = [
        "| method | NFE | PSNR (dB) | SSIM | LPIPS | PSNR - bicubic | LPIPS - bicubic | s / image |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for method, rows in frame.groupby("method", sort=False):
        mean = rows[["nfe", "psnr", "ssim", "lpips", "seconds"]].mean()
        changes = paired_intervals(frame, str(method), "bicubic").set_index("metric")
        cells = [
            f"{c.difference:+.{digits}f} [{c.low:+.{digits}f}, {c.high:+.{digits}f}]"
            for c, digits in ((changes.loc["psnr"], 2), (changes.loc["lpips"], 3))
        ]
        lines.append(
            f"| {method} | {mean.nfe:.0f} | {mean.psnr:.2f} | {mean.ssim:.3f} | {mean.lpips:.3f} | {cells[0]} | "
            f"{cells[1]} | {mean.seconds:.3f} |"
        )
    return "\n".join(lines)


def milliseconds(call: Callable[[], object], repeats: int = 30) -> float:
    """The median time of a call, after three to warm up."""
    times = []
    for i in range(repeats + 3):
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i >= 3:
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def costs(ldm: LDM, side: int) -> str:
    """The time of each network on one image of `side` LR pixels, in the LDM's dtype."""
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(1, 3, side, side, generator=generator).to(ldm.device)
    latent = torch.randn(1, ldm.latent_channels, side, side, generator=generator).to(ldm.device)
    hr = torch.rand(1, 3, side * ldm.scale, side * ldm.scale, generator=generator).to(ldm.device)
    t = torch.full((1,), 500.0, device=ldm.device)
    calls = {
        "one NFE": lambda: ldm.denoise(latent, t, lr),
        "decode": lambda: ldm.decode(latent),
        "encode": lambda: ldm.encode(hr),
    }
    rows = [f"| {name} | {milliseconds(call):.1f} |" for name, call in calls.items()]
    return "\n".join(["| on one image | ms, median of 30 |", "| --- | ---: |", *rows])


def main(
    source: Annotated[list[str], typer.Option(help="An image source with a split `test`; repeatable.")],
    ldm: str = "embedded",
    images: Annotated[int, typer.Option(help="How many of each source; 0 means all.")] = 60,
    size: int = 256,
    degradation: Annotated[list[str], typer.Option(help="A kind of input; repeatable.")] = ["bicubic"],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Steps of the DDIM rows; 0 leaves them out.")] = 50,
    spandrel: Annotated[list[str], typer.Option(help="Weights of another x4 network; repeatable.")] = [],  # noqa: B006
    threads: int = 2,
    device: str = "cpu",
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Print the costs, and a table for each source."""
    torch.set_num_threads(threads)
    model = load_ldm(ldm, device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} threads"
    print(f"\n{ldm}, {name}, LR {size // model.scale} x {size // model.scale}\n\n{costs(model, size // model.scale)}\n")
    folder = out / f"ldm-{digest(device, name, threads)[:12]}"
    metrics = Metrics(model.device)
    for place in source:
        refs = [ref for ref in open_images(place, "test", (), images, SEED) if min(ref.load().shape[:2]) >= size]
        for kind in degradation:
            data = build(DataConfig, {"source": place, "size": size, "scale": model.scale, "degradation": kind}, kind)
            with methods_bar(Console(stderr=True)) as advance:
                runner = Runner(folder, refs, data, model, metrics, BATCH, advance)
                scores = {(method.name, kind): runner.score(method) for method in methods(model, steps, spandrel)}
            scenes = len({ref.scene for ref in refs})
            print(f"\n{place}, test: {len(refs)} images of {scenes} scenes, LR by `{kind}`\n")
            print(table(per_image(scores, refs, SETTINGS["balanced"], max(steps, 1))), flush=True)


if __name__ == "__main__":
    typer.run(main)
