"""Side-by-side examples for the report: for every scene one image, under the methods that matter."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from orl_ldm.files import write_bytes, write_text
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import centre_crop
from orl_ldm.images.resample import to_pixels
from orl_ldm.images.sources import ImageRef
from orl_ldm.metrics import METRICS

#: Which columns are shown, in order, by role; the HR image comes last.
COLUMNS = ("bicubic", "alone", "fixed", "steered")


class Scored(Protocol):
    """What an example needs of a method's scores."""

    quality: npt.NDArray[np.float32]
    nfe: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]


def write_examples(
    folder: Path, refs: Sequence[ImageRef], data: DataConfig, scores: Mapping[str, Any], names: Mapping[str, str]
) -> None:
    """Save the first image of every scene under each of COLUMNS as PNG, with `index.json` saying what is what."""
    first: dict[str, int] = {}
    for i, ref in enumerate(refs):
        first.setdefault(ref.scene, i)
    index = []
    for scene, i in first.items():
        place = folder / _slug(scene)
        columns: list[dict[str, Any]] = []
        for role in COLUMNS:
            score: Scored = scores[role]
            write_bytes(place / f"{role}.png", to_png(score.pixels[i]))
            quality = dict(zip(METRICS, map(float, score.quality[i]), strict=True))
            columns.append(
                {
                    "label": names[role],
                    "file": f"{_slug(scene)}/{role}.png",
                    "psnr": quality["psnr"],
                    "lpips": quality["lpips"],
                    "nfe": int(score.nfe[i]),
                }
            )
        write_bytes(place / "hr.png", to_png(to_pixels(centre_crop(refs[i], data.size))))
        columns.append({"label": "HR (reference)", "file": f"{_slug(scene)}/hr.png"})
        index.append({"scene": scene, "image": refs[i].name, "columns": columns})
    write_text(folder / "index.json", json.dumps(index, indent=2) + "\n")


def to_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Pixels (H, W, 3) as a PNG file."""
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _slug(scene: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in scene)
