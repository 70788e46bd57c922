"""The buffer beside other formats: loading, writing and bytes on disk.

    OMP_NUM_THREADS=1 python benchmarks/buffer.py --out runs/benchmarks/buffer

Two datasets of random numbers in 10-step episodes: 1,000,000 rows of 32 float32 features, and rows with a latent-sized
observation of 24 KB (fewer, as they are large). Every comparison is made in this one run, alternating, and prints the
best time of each, and of writing, which a disk makes irregular, the median. Files are in the page cache: what is
compared are formats, not disks. d3rlpy and Minari store
observations, actions, rewards and ends only; this buffer, NumPy and TorchRL (tensordict) store all of its columns.
"""

import ctypes
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer

from orl_ldm.buffer import BufferWriter, Header, ImageRef, read
from orl_ldm.buffer.schema import CodecName

STEPS = 10
ROLLOUTS = 8
ACTIONS = 4
SEED = 7

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Timed:
    """Best or median of some calls, in seconds."""

    name: str
    seconds: float


def header(features: int) -> Header:
    return Header(
        feature_names=tuple(f"f{i}" for i in range(features)),
        action_names=tuple(f"a{i}" for i in range(ACTIONS)),
        action_low=(0.0,) * ACTIONS,
        action_high=(1.0,) * ACTIONS,
        term_names=("psnr", "ssim", "lpips", "nfe", "seconds"),
        nfe_max=20,
        pipeline_digest="benchmark",
        ldm_id="none",
        ldm_digest="none",
        behavior_id="random",
        seed=SEED,
        packages={},
    )


def columns(rows: int, features: int) -> Columns:
    """Random numbers that keep every rule of the format."""
    rng = np.random.default_rng(SEED)
    ends = np.arange(rows) % STEPS == STEPS - 1
    return {
        "observations": rng.standard_normal((rows, features), dtype=np.float32),
        "actions": rng.random((rows, ACTIONS), dtype=np.float32),
        "log_probs": rng.standard_normal(rows, dtype=np.float32),
        "terminals": ends,
        "terms": (ends[:, None] * rng.random((rows, 5))).astype(np.float32),
        "episode_id": np.arange(rows) // STEPS,
        "image_id": np.arange(rows) // (STEPS * ROLLOUTS),
    }


def nothing() -> None:
    pass


def give_memory_back() -> None:
    """What was freed goes back to the system: a process loads a buffer once, into pages that it has not had before."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def best_of(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    pick: Callable[[list[float]], float] = min,
    after: Callable[[], None] = nothing,
) -> list[Timed]:
    """The best time of each call, or what `pick` makes of its times, taken in turns; `after` each, untimed."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            result = call()
            times[name].append(time.perf_counter() - started)
            del result
            after()
    return [Timed(name, pick(seconds)) for name, seconds in times.items()]


def table(title: str, timed: list[Timed], unit: float, label: str, gigabytes: float | None = None) -> str:
    """Markdown: each time, its rate, and how many times longer than the first it is."""
    rate = "" if gigabytes is None else " GB/s |"
    lines = [f"| {title} | {label} |{rate} times ours |", "| --- | ---: | ---: |" + (" ---: |" if rate else "")]
    for one in timed:
        speed = "" if gigabytes is None else f" {gigabytes / one.seconds:.2f} |"
        lines.append(f"| {one.name} | {one.seconds * unit:.3g} |{speed} {one.seconds / timed[0].seconds:.2f} |")
    return "\n".join(lines)


def write_buffer(data: Columns, of: Header, folder: Path, shard_rows: int, codec: CodecName = "hdf5") -> None:
    writer = BufferWriter(folder, of, codec)
    for start in range(0, len(data["terminals"]), shard_rows):
        part = {name: column[start : start + shard_rows] for name, column in data.items()}
        images = [image(i) for i in range(part["image_id"][0], part["image_id"][-1] + 1)]
        writer.write(f"shard-{start:09d}", part, images)


@cache
def image(number: int) -> ImageRef:
    return ImageRef(number, f"forest/forest_{number:05d}.png", "forest")


def write_raw(contents: list[bytes], folder: Path) -> None:
    folder.mkdir(parents=True)
    for i, content in enumerate(contents):
        with (folder / str(i)).open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())


def d3rlpy_buffer(data: Columns) -> Any:
    from d3rlpy.dataset import Episode, InfiniteBuffer, ReplayBuffer

    rows = range(0, len(data["terminals"]), STEPS)
    pick = {"observations": data["observations"], "actions": data["actions"], "rewards": data["terms"][:, 0]}
    episodes = [
        Episode(*(column[i : i + STEPS].reshape(STEPS, -1) for column in pick.values()), terminated=True) for i in rows
    ]
    return ReplayBuffer(InfiniteBuffer(), episodes=episodes)


def d3rlpy_load(path: Path) -> Any:
    from d3rlpy.dataset import InfiniteBuffer, ReplayBuffer

    with path.open("rb") as file:
        return ReplayBuffer.load(file, InfiniteBuffer())


def write_minari(data: Columns, folder: Path) -> None:
    """Minari has one observation more than actions in every episode: the last is repeated."""
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    def episode(i: int) -> EpisodeBuffer:
        rows = slice(i, i + STEPS)
        seen = data["observations"][rows]
        return EpisodeBuffer(
            observations=np.concatenate([seen, seen[-1:]]),
            actions=data["actions"][rows],
            rewards=data["terms"][rows, 0],
            terminations=data["terminals"][rows],
            truncations=np.zeros(STEPS, dtype=np.bool_),
        )

    os.environ["MINARI_DATASETS_PATH"] = str(folder.resolve())
    minari.create_dataset_from_buffers(
        "benchmark/buffer-v0",
        [episode(i) for i in range(0, len(data["terminals"]), STEPS)],
        observation_space=Box(-np.inf, np.inf, data["observations"].shape[1:]),
        action_space=Box(0, 1, (ACTIONS,)),
        eval_env=None,
    )


def load_minari() -> Any:
    import minari

    return list(minari.load_dataset("benchmark/buffer-v0").iterate_episodes())


def write_memmap(data: Columns, folder: Path) -> None:
    from tensordict import TensorDict

    tensors = {name: torch.from_numpy(column) for name, column in data.items()}
    TensorDict(tensors, batch_size=[len(data["terminals"])]).memmap(str(folder))


def load_memmap(folder: Path) -> Any:
    """Opened, and then every row in memory: a memory map that nobody has looked at is not loaded."""
    from tensordict import TensorDict

    opened = TensorDict.load_memmap(str(folder))
    return {name: opened[name].clone() for name in opened.keys()}  # noqa: SIM118


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare(name: str, rows: int, features: int, shard_rows: int, out: Path, repeats: int, slow: bool) -> None:
    """Print the tables of one dataset."""
    data, of = columns(rows, features), header(features)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_buffer(data, of, out / "hdf5", shard_rows)
    write_buffer(data, of, out / "zarr", shard_rows, "zarr")
    contents = [path.read_bytes() for path in sorted((out / "hdf5").iterdir())]
    (out / "numpy").mkdir()
    for key, column in data.items():
        np.save(out / "numpy" / f"{key}.npy", column)
    write_memmap(data, out / "torchrl")
    loaded = best_of(
        {
            "this buffer, hdf5 (verified)": lambda: read(out / "hdf5"),
            "np.load of the same columns": lambda: [np.load(path) for path in (out / "numpy").iterdir()],
            "TorchRL memory maps, every row copied": lambda: load_memmap(out / "torchrl"),
            "this buffer, zarr (verified)": lambda: read(out / "zarr"),
        },
        repeats,
        after=give_memory_back,
    )
    written = out / "written"
    wrote = best_of(
        {
            "this buffer, hdf5: check, hash, write, fsync": lambda: write_buffer(data, of, written, shard_rows),
            "raw write and fsync of the same bytes": lambda: write_raw(contents, written),
            "this buffer, zarr": lambda: write_buffer(data, of, written, shard_rows, "zarr"),
        },
        repeats,
        statistics.median,
        lambda: shutil.rmtree(written),
    )
    if slow:  # last, as hundreds of thousands of Python objects slow down whatever comes after them
        (out / "d3rlpy").mkdir()
        with (out / "d3rlpy" / "replay.h5").open("w+b") as file:
            d3rlpy_buffer(data).dump(file)
        write_minari(data, out / "minari")
        loaded += best_of({"d3rlpy ReplayBuffer.load": lambda: d3rlpy_load(out / "d3rlpy" / "replay.h5")}, 1)
        loaded += best_of({"Minari": load_minari}, 1)
    on_disk = sum(map(len, contents)) / 1e9
    print(f"\n### {name}: {rows:,} rows, {-(-rows // shard_rows)} shards, {on_disk * 1e3:.0f} MB\n")
    print(table("open and load", loaded, 1e3, "ms", sum(column.nbytes for column in data.values()) / 1e9) + "\n")
    print(table("write", wrote, 1e3, "ms", on_disk) + "\n")
    print("| on disk | bytes a row |\n| --- | ---: |")
    for label in ("hdf5", "zarr", "torchrl", *(("d3rlpy", "minari") if slow else ())):
        print(f"| {label} | {size_of(out / label) / rows:.1f} |")
    shutil.rmtree(out)


def main(
    rows: Annotated[int, typer.Option(help="Rows of 32 features.")] = 1_000_000,
    latent_rows: Annotated[int, typer.Option(help="Rows of 24 KB.")] = 10_000,
    repeats: int = 7,
    slow: Annotated[bool, typer.Option(help="d3rlpy and Minari too, which take minutes each.")] = True,
    out: Path = Path("runs/benchmarks/buffer"),
) -> None:
    """Print the tables in Markdown."""
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} CPU cores, torch {torch.__version__}, NumPy {np.__version__}")
    for name, count, features in (("32 features", rows, 32), ("latents of 24 KB", latent_rows, 6144)):
        if count:
            compare(name, count, features, max(STEPS, count // 10), out, repeats, slow)


if __name__ == "__main__":
    typer.run(main)
