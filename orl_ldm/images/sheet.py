"""A contact sheet: many images as one picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from orl_ldm.images.sources import ImageRef


def save_sheet(refs: Sequence[ImageRef], path: Path, cell: int = 128, columns: int = 8) -> None:
    """Save the images, each fitted into `cell` pixels, `columns` to a row."""
    rows = -(-len(refs) // columns)
    sheet = Image.new("RGB", (columns * (cell + 2), rows * (cell + 2)), "white")
    for i, ref in enumerate(refs):
        picture = Image.fromarray(np.asarray(ref.load()))
        picture.thumbnail((cell, cell), Image.Resampling.BICUBIC)
        sheet.paste(picture, ((i % columns) * (cell + 2), (i // columns) * (cell + 2)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
