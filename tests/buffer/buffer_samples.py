"""Small honest shards, and forged ones whose sidecar vouches for whatever is in their files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer import BufferWriter, Header, ImageRef, Sidecar, codec, schema, sidecar
from orl_ldm.buffer.schema import CodecName
from orl_ldm.reward import TERMS

HEADER = Header(
    feature_names=("t", "log_snr", "std"),
    action_names=("step", "eta"),
    action_low=(0.0, 0.0),
    action_high=(0.95, 1.0),
    term_names=tuple(TERMS),
    nfe_max=20,
    pipeline_digest="a" * 64,
    ldm_id="tiny",
    ldm_digest="b" * 64,
    behavior_id="uniform",
    seed=42,
    packages={"numpy": "2.0"},
)


def columns(
    first_episode: int = 0, lengths: Sequence[int] = (3, 1, 2), noise: int = 0, header: Header = HEADER
) -> dict[str, npt.NDArray[Any]]:
    """Valid columns of episodes `first_episode`, ... with these many rows, each on the image of its own number."""
    rng = np.random.default_rng((abs(first_episode), noise))
    rows = sum(lengths)
    ends = np.zeros(rows, dtype=np.bool_)
    ends[np.cumsum(lengths) - 1] = True
    ids = np.repeat(np.arange(first_episode, first_episode + len(lengths)), lengths)
    low, high = np.float32(header.action_low), np.float32(header.action_high)
    return {
        "observations": rng.normal(size=(rows, len(header.feature_names))).astype(np.float32),
        "actions": (low + (high - low) * rng.random((rows, len(header.action_names)))).astype(np.float32),
        "log_probs": rng.normal(size=rows).astype(np.float32),
        "terminals": ends,
        "terms": (ends[:, None] * rng.random((rows, len(header.term_names)))).astype(np.float32),
        "episode_id": ids.astype(np.int64),
        "image_id": ids.astype(np.int64),
    }


def images(of: Mapping[str, npt.NDArray[Any]]) -> list[ImageRef]:
    return [ImageRef(int(number), f"forest_{number:03d}.png", "forest") for number in np.unique(of["image_id"])]


def name(unit: int) -> str:
    return f"b3f1a2-{unit:06d}-{unit + 3:06d}"


def write(url: str | Path, unit: int, codec: CodecName = "hdf5", noise: int = 0, header: Header = HEADER) -> Sidecar:
    """Publish unit 0, 3, 6, ...: three episodes from the unit's number on."""
    data = columns(unit, noise=noise, header=header)
    return BufferWriter(url, header, codec).write(name(unit), data, images(data))


def encoded(codec_name: CodecName, data: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a shard."""
    return dict(codec.encode(codec_name, data, schema.field_specs(HEADER)))


def forge(folder: Path, unit: int, files: Mapping[str, bytes], codec_name: CodecName, **lies: Any) -> Sidecar:
    """Put files of any content into a buffer under a sidecar that matches them, but for `lies`."""
    honest = columns(unit)
    described = Sidecar(
        name=name(unit),
        codec=codec_name,
        header=HEADER,
        rows=len(honest["terminals"]),
        episodes=3,
        bytes=sum(map(len, files.values())),
        digest=codec.digest(files),
        fields=schema.field_specs(HEADER),
        images=tuple(images(honest)),
    )
    described = replace(described, **lies)
    for path, content in files.items():
        target = folder / described.data / path if path else folder / described.data
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (folder / f"{name(unit)}.json").write_bytes(sidecar.dumps(described))
    return described


def data_files(folder: Path, described: Sidecar) -> list[Path]:
    """The sidecar's data files, sorted."""
    top = folder / described.data
    return sorted(path for path in [top, *top.rglob("*")] if path.is_file())
