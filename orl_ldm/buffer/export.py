"""Write transitions for other libraries: a d3rlpy ReplayBuffer file, a Minari dataset, a Parquet table.

d3rlpy and Minari write their own formats. Legend: N rows, E episodes.
"""

import contextlib
import importlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.transitions import Transitions, episode_rewards
from orl_ldm.errors import UserError
from orl_ldm.reward import Weights

ExportFormat = Literal["d3rlpy", "minari", "parquet"]
Rewards = npt.NDArray[np.float32]  # (N,), on the last row of each episode


def export(transitions: Transitions, out: Path, form: ExportFormat, weights: Weights) -> None:
    """Write all transitions to the file or folder `out`, whole or not at all, with rewards under `weights`.

    Raises UserError when `out` exists or cannot be written, the format's library is not installed, or the buffer logs
    other reward terms.
    """
    rewards = np.zeros(len(transitions), dtype=np.float32)
    ends = transitions.episode_bounds[:, 1] - 1  # (E,)
    rewards[ends] = episode_rewards(transitions.header, transitions.terms[ends], weights)
    if out.exists():
        raise UserError(f"{str(out)!r} exists already; give another name, or remove it")
    try:
        with _staged(out) as stage:
            _WRITERS[form](transitions, rewards, stage)
    except OSError as error:
        raise UserError(f"cannot write {str(out)!r}: {error.strerror or error}; make room or set its rights") from error


def _write_d3rlpy(transitions: Transitions, rewards: Rewards, out: Path) -> None:
    """For `d3rlpy.dataset.ReplayBuffer.load(open(out, "rb"), ...)`."""
    d3rlpy = _library("d3rlpy.dataset")
    episodes = [
        d3rlpy.Episode(
            observations=transitions.observations[start:stop],
            actions=transitions.actions[start:stop],
            rewards=rewards[start:stop, None],
            terminated=True,
        )
        for start, stop in transitions.episode_bounds
    ]
    with out.open("w+b") as file:
        d3rlpy.dump(episodes, file)


def _write_minari(transitions: Transitions, rewards: Rewards, out: Path) -> None:
    """For `minari.load_dataset(out.name)` with MINARI_DATASETS_PATH set to the parent of `out`.

    Minari needs one observation more than actions: the last one is repeated.
    """
    if not re.fullmatch(r"[\w-]+-v\d+", out.name):
        raise UserError(f"Minari does not accept the name {out.name!r}; give one that ends in a version, like x-v0")
    minari, spaces = _library("minari"), _library("gymnasium.spaces")
    header = transitions.header
    low, high = np.array([header.action_low, header.action_high], dtype=np.float32)
    episodes = [
        minari.data_collector.EpisodeBuffer(
            id=number,
            observations=transitions.observations[[*range(start, stop), stop - 1]],
            actions=transitions.actions[start:stop],
            rewards=rewards[start:stop],
            terminations=transitions.terminals[start:stop],
            truncations=np.zeros(stop - start, dtype=np.bool_),
        )
        for number, (start, stop) in enumerate(transitions.episode_bounds)
    ]
    with _environment("MINARI_DATASETS_PATH", str(out.parent)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no author, permalink and environment
        minari.create_dataset_from_buffers(
            out.name,
            episodes,
            observation_space=spaces.Box(-np.inf, np.inf, (len(header.feature_names),), np.float32),
            action_space=spaces.Box(low, high, dtype=np.float32),
            algorithm_name=header.behavior_id,
            description=f"Logged decisions of steered denoising; observations are {', '.join(header.feature_names)}; "
            f"actions are {', '.join(header.action_names)}",
        )


def _write_parquet(transitions: Transitions, rewards: Rewards, out: Path) -> None:
    """For `datasets.load_dataset("parquet", data_files=str(out))`: a row for each transition, with image and scene.

    `episode` counts episodes from 0, as two behaviours may have the same `episode_id`. The header is JSON in the
    file's metadata, under `orl_ldm`.
    """
    arrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    starts, stops = transitions.episode_bounds.T  # (E,), (E,)
    images = [transitions.images[int(number)] for number in transitions.image_id]
    columns = {
        "episode": np.repeat(np.arange(len(starts)), stops - starts),
        **transitions.columns,
        "rewards": rewards,
        "image": np.array([image.name for image in images]),
        "scene": np.array([image.scene for image in images]),
    }
    arrays = {
        name: arrow.FixedSizeListArray.from_arrays(arrow.array(column.ravel()), column.shape[1])
        if column.ndim > 1
        else arrow.array(column)
        for name, column in columns.items()
    }
    table = arrow.table(arrays).replace_schema_metadata({"orl_ldm": json.dumps(asdict(transitions.header))})
    parquet.write_table(table, out)


_WRITERS: Mapping[ExportFormat, Callable[[Transitions, Rewards, Path], None]] = {
    "d3rlpy": _write_d3rlpy,
    "minari": _write_minari,
    "parquet": _write_parquet,
}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"this format needs {name.split('.')[0]}: pip install -e '.[export]'") from error


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A path of the same name elsewhere in the same file system, which becomes `out` in the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".tmp-", dir=out.parent.resolve()))  # Minari stumbles over relative paths
    try:
        yield stage / out.name
        (stage / out.name).rename(out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
