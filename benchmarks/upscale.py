"""Measure `orl-ldm upscale`: seams, agreement with the input, alignment, memory, disk, kill -9, speed.

    python benchmarks/upscale.py SCENE.tif --policy DIR [--window C,R,W,H] [--only seams,constant,...] [--side 4000]

Every measurement prints one line. `memory` and `disk` make a scene of --side LR pixels and use bicubic unless
`--steered` is given; all others use the policy.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from diffusers import DDIMScheduler

from orl_ldm import SteeredSR, upscale_file
from orl_ldm.images.resample import downscale
from orl_ldm.images.resample import upscale as bicubic
from orl_ldm.steer.door import OVERLAP, TILE

WHAT = ("seams", "constant", "consistency", "alignment", "speed", "killed", "memory")


def read(path: Path) -> np.ndarray[Any, Any]:
    """(n, h, w) float64."""
    with rasterio.open(path) as file:
        return file.read().astype(np.float64)  # type: ignore[no-any-return]


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """In dB, for 8 bits."""
    return float(10 * np.log10(255**2 / max(np.square(a - b).mean(), 1e-12)))


def seams(scene: Path, folder: Path, steered: SteeredSR, options: dict[str, Any]) -> None:
    """Seam score and the shifted grid, with statistics of each tile and of the scene."""
    schedule = SteeredSR.schedule
    for name in ("tile", "scene"):
        if name == "tile":
            own = lambda self, *a, **k: replace(schedule(self, *a, **k), statistics=())  # noqa: E731
            SteeredSR.schedule = own  # type: ignore[method-assign]
        results, scores = [], []
        for shift in (0, TILE // 2):
            target = folder / f"{name}-{shift}.tif"
            scores.append(upscale_file(scene, target, steered=steered, shift=shift, **options).quality.seam)
            results.append(read(target))
        SteeredSR.schedule = schedule  # type: ignore[method-assign]
        shown = " and ".join("-" if score is None else f"{score:.3f}" for score in scores)
        print(f"statistics of each {name}: seam score {shown}, shifted grid {psnr(*results):.1f} dB")


def constant(folder: Path, steered: SteeredSR) -> None:
    """A constant scene, and the spectrum of a noisy one at the tiles' period."""
    side, stride = 2 * TILE, TILE - OVERLAP
    for value in (0, 90, 255):
        write(folder / "c.tif", np.full((3, side, side), value, np.uint8))
        upscale_file(folder / "c.tif", folder / "c4.tif", steered=steered, overwrite=True)
        print(f"constant {value}: largest difference {np.abs(read(folder / 'c4.tif') - value).max():.0f} DN")
    noise = np.random.default_rng(0).normal(128, 20, (3, side, side)).clip(0, 255).astype(np.uint8)
    write(folder / "n.tif", noise)
    upscale_file(folder / "n.tif", folder / "n4.tif", steered=steered)
    power = np.square(np.abs(np.fft.rfft(read(folder / "n4.tif").mean((0, 1)))))
    at = round(4 * side / (4 * stride))
    beside = np.median(power[max(1, at - 3) : at + 4])
    print(f"spectrum at the tiles' period over the median beside it: {power[at] / beside:.2f}")


def consistency(scene: Path, folder: Path, steered: SteeredSR, options: dict[str, Any]) -> None:
    """down(SR) - LR."""
    for faithful in (False, True):
        report = upscale_file(scene, folder / f"f{faithful}.tif", steered=steered, faithful=faithful, **options)
        print(f"faithful={faithful}: {report.quality.line()}")


def alignment(scene: Path, folder: Path, steered: SteeredSR, options: dict[str, Any]) -> None:
    """Shift between LR and down(SR), by the peak of the phase correlation and a parabola through it."""
    upscale_file(scene, folder / "a.tif", steered=steered, **options)
    upscale_file(scene, folder / "b.tif", method="bicubic", **options)
    small = [
        downscale(torch.from_numpy(read(folder / name))[None], 4)[0].mean(0).numpy() for name in ("a.tif", "b.tif")
    ]
    spectra = [np.fft.fft2((image - image.mean()) * np.outer(*(np.hanning(n) for n in image.shape))) for image in small]
    cross = spectra[0] * spectra[1].conj()
    peak = np.fft.fftshift(np.fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9)).real)
    row, column = np.unravel_index(peak.argmax(), peak.shape)
    lines = peak[row - 1 : row + 2, column], peak[row, column - 1 : column + 2]
    moved = [
        place - size // 2 + (line[0] - line[2]) / (2 * (line[0] - 2 * line[1] + line[2]))
        for place, size, line in zip((row, column), peak.shape, lines, strict=True)
    ]
    print(f"alignment: {moved[0]:+.3f} rows, {moved[1]:+.3f} columns of the LR image")


@torch.inference_mode()
def speed(steered: SteeredSR, steps: int = 100) -> None:
    """One tile, against a plain loop of diffusers' DDIMScheduler around the same networks."""
    ldm, lr = steered.ldm, torch.rand(1, 3, TILE, TILE)
    schedule = steered.schedule([lr[0]], [(0, 0)], 7, 0)
    began = time.perf_counter()
    _, calls = steered.run(lr, [(0, 0)], schedule, 7, 0)
    ours = time.perf_counter() - began
    scheduler = DDIMScheduler(num_train_timesteps=ldm.schedule.num_train_timesteps)
    scheduler.set_timesteps(steps)
    began, x = time.perf_counter(), torch.randn(ldm.encode(bicubic(lr, 4)).shape)
    measured = 5  # steps cost the same: a few are enough
    for t in scheduler.timesteps[:measured]:
        x = scheduler.step(ldm.denoise(x, t[None].float(), lr), t, x).prev_sample
    loop = (time.perf_counter() - began) / measured * steps
    began = time.perf_counter()
    ldm.decode(x)
    loop += time.perf_counter() - began
    print(
        f"a tile: {ours:.2f} s ({calls[0]} calls); diffusers with {steps} steps: {loop:.1f} s; {loop / ours:.1f} times"
    )


def killed(scene: Path, folder: Path, options: dict[str, Any], extra: list[str]) -> None:
    """kill -9 at 30 % and 80 % of the time of a whole run, then the same command."""
    window = ["--window", ",".join(map(str, options["window"]))] if "window" in options else []
    command = [sys.executable, "-m", "orl_ldm.cli.main", "upscale", str(scene), *window, *extra, "-q", "-o"]
    began = time.perf_counter()
    subprocess.run([*command, str(folder / "whole.tif")], check=True)
    whole = time.perf_counter() - began
    for share in (0.3, 0.8):
        child = subprocess.Popen([*command, str(folder / "k.tif")])
        threading.Event().wait(share * whole)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    subprocess.run([*command, str(folder / "k.tif")], check=True)
    same = (folder / "k.tif").read_bytes() == (folder / "whole.tif").read_bytes()
    print(f"kill -9 at 30 % and 80 %, then the same command: {'the same bytes' if same else 'OTHER BYTES'}")


def memory(folder: Path, side: int, extra: list[str]) -> None:
    """Peak memory and disk of a large scene."""
    rows = np.random.default_rng(0).normal(0, 12, (3, 256, side))
    shape = {"count": 3, "height": side, "width": side, "dtype": "uint8", "tiled": True, "bigtiff": "if_safer"}
    with rasterio.open(folder / "big.tif", "w", driver="GTiff", **shape) as file:
        for top in range(0, side, 256):
            wave = 128 + 60 * np.sin(np.arange(top, min(top + 256, side)) / 40)[:, None]
            block = np.clip(wave + rows[:, : len(wave)], 0, 255).astype(np.uint8)
            file.write(block, window=((top, top + block.shape[1]), (0, side)))
    most = 0
    command = [sys.executable, "-m", "orl_ldm.cli.main", "upscale", str(folder / "big.tif"), *extra, "-q"]
    child = subprocess.Popen([*command, "-o", str(folder / "big4.tif")])
    while child.poll() is None:
        beside = sum(path.stat().st_size for path in (folder / ".big4.tif.orl-ldm").glob("*") if path.exists())
        most = max(most, beside)
        threading.Event().wait(0.5)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    size = (folder / "big4.tif").stat().st_size
    print(f"{side} x {side}: peak memory {peak / 1e9:.2f} GB; disk beside the output {most / size - 1:.2f} of it")


def write(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """A TIFF."""
    n, height, width = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", count=n, height=height, width=width, dtype=pixels.dtype) as file:
        file.write(pixels)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--policy", default="embedded")
    parser.add_argument("--window", default="")
    parser.add_argument("--only", default=",".join(WHAT))
    parser.add_argument("--side", type=int, default=4000)
    parser.add_argument("--steered", action="store_true", help="memory and disk with the policy")
    given = parser.parse_args()
    options: dict[str, Any] = {"window": tuple(map(int, given.window.split(",")))} if given.window else {}
    wanted = given.only.split(",")
    steered = SteeredSR.load(given.policy) if set(wanted) - {"memory"} or given.steered else None
    extra = ["--policy", given.policy]
    folder = Path(tempfile.mkdtemp(prefix="upscale-"))
    try:
        if "seams" in wanted and steered:
            seams(given.scene, folder, steered, options)
        if "constant" in wanted and steered:
            constant(folder, steered)
        if "consistency" in wanted and steered:
            consistency(given.scene, folder, steered, options)
        if "alignment" in wanted and steered:
            alignment(given.scene, folder, steered, options)
        if "speed" in wanted and steered:
            speed(steered)
        if "killed" in wanted:
            killed(given.scene, folder, options, extra)
        if "memory" in wanted:
            memory(folder, given.side, extra if given.steered else ["--method", "bicubic"])
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
