"""Where images come from: the synthetic scenes, the hub, or anything local that `datasets` reads.

A source is one string:

- ``synthetic``                 procedural aerial scenes, no network;
- ``timm/resisc45``             a data set of the Hugging Face hub (owner/name);
- ``path/to/folder``            an imagefolder (``split/class/file.jpg`` or ``class/file.jpg``), a folder of parquet
                                files, or a data set saved with ``save_to_disk``.

Every image has a name that is the same on every machine (``split/class/file`` or ``split/class/number``), an id derived
from that name, and a scene: its class, or ``all`` where there are none. Selections are drawn by hashing names: a fixed
list, whatever the order of files.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from datasets.data_files import SPLIT_KEYWORDS
from PIL import Image, ImageOps

from orl_ldm.errors import UserError
from orl_ldm.images import synthetic
from orl_ldm.streams import stable_id

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
#: Of these words, `datasets` takes a folder's name for that of a split.
SPLIT_WORDS = {word for words in SPLIT_KEYWORDS.values() for word in words}
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageRef:
    """One image of a source: its stable name and scene, and how to get its pixels (H, W, 3) uint8."""

    name: str
    scene: str
    load: Callable[[], Pixels]

    @property
    def image_id(self) -> int:
        """63-bit id derived from the name; the same on every machine."""
        return stable_id(self.name)


def open_images(
    source: str,
    split: str,
    classes: Sequence[str] = (),
    count: int = 0,
    seed: int = 0,
) -> list[ImageRef]:
    """The selected images of one split, sorted by name.

    `classes` keeps only these scenes; `count` > 0 then draws that many, or all if there are fewer, spread evenly over
    the scenes, by the hash of (seed, name). A larger draw holds a smaller one, except of synthetic scenes, of which
    there are as many as are asked for. Raises UserError when the source, the split or a class does not exist.
    """
    refs = list(_synthetic(split, count, seed, classes) if source == "synthetic" else _dataset(source, split))
    if classes:
        unknown = sorted(set(classes) - {ref.scene for ref in refs})
        if unknown:
            known = ", ".join(sorted({ref.scene for ref in refs}))
            raise UserError(f"class {unknown[0]!r} is not in split {split!r} of {source!r}; it has: {known}")
        refs = [ref for ref in refs if ref.scene in classes]
    if not refs:
        raise UserError(f"split {split!r} of {source!r} has no images")
    if count:
        refs = _draw(refs, count, seed)
    return sorted(refs, key=lambda ref: ref.name)


def _draw(refs: list[ImageRef], count: int, seed: int) -> list[ImageRef]:
    """`count` images, taken in turn from every scene in the order of a seeded hash."""
    ranked = sorted(refs, key=lambda ref: stable_id(f"{seed}/{ref.name}"))
    rank: dict[str, int] = {}
    keyed = []
    for ref in ranked:
        rank[ref.scene] = rank.get(ref.scene, -1) + 1
        keyed.append((rank[ref.scene], ref.scene, ref))
    keyed.sort(key=lambda item: item[:2])
    return [ref for _, _, ref in keyed[:count]]


def _synthetic(split: str, count: int, seed: int, classes: Sequence[str]) -> Iterator[ImageRef]:
    """At least `count` of these classes, or 256 of all: what a draw is made from grows with `count`.

    Scenes are rendered on demand; each split has a seed of its own, so that no scene is in two of them.
    """
    split_seed = stable_id(f"synthetic/{split}/{seed}") & 0x7FFFFFFF
    per_scene = -(-(count or 256) // (len(set(classes)) if count and classes else len(synthetic.SCENES)))
    for scene in synthetic.SCENES:
        for index in range(per_scene):
            load = partial(synthetic.render, scene, split_seed, index)
            yield ImageRef(f"{split}/{scene}/{seed}-{index:05d}", scene, load)


def _dataset(source: str, split: str) -> Iterator[ImageRef]:
    """Every row of one split, named by its file where the data set knows it and by its number otherwise."""
    rows = _load(source, split)
    image_key = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
    if image_key is None:
        raise UserError(f"data set {source!r} has no image column; its columns are {', '.join(rows.features)}")
    scenes = _scenes(rows)
    stems = [Path(path).stem if path else "" for path in _paths(rows, image_key)]
    named = all(stems) and len(set(zip(scenes, stems, strict=True))) == len(stems)
    for index, (scene, stem) in enumerate(zip(scenes, stems, strict=True)):
        name = f"{split}/{scene}/{stem if named else f'{index:06d}'}"
        yield ImageRef(name, scene, partial(_row_pixels, rows, index, image_key, name))


def _scenes(rows: datasets.Dataset) -> list[str]:
    """Each row's class by the first column of class labels, or else by a column `label` of names."""
    key = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)), None)
    if key:
        names = rows.features[key].names
        return ["all" if label is None or label < 0 else names[label] for label in rows[key][:]]  # (-1: not labelled)
    if getattr(rows.features.get("label"), "dtype", None) in ("string", "large_string"):
        return [name or "all" for name in rows["label"][:]]
    return ["all"] * len(rows)


def _paths(rows: datasets.Dataset, image_key: str) -> list[str | None]:
    """Each row's file, as far as the data set knows it."""
    chunks = rows.with_format("arrow")[:][image_key].chunks  # joined they may be too long for Arrow
    return [path for chunk in chunks for path in chunk.field("path").to_pylist()]


def _row_pixels(rows: Any, index: int, image_key: str, name: str) -> Pixels:
    try:
        image = rows[index][image_key]
        if image is None:
            raise ValueError("its row holds none")
        return _rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"could not read the image {name!r}: {error}") from error


def _load(source: str, split: str) -> datasets.Dataset:
    """One split of a local folder or of a hub data set. Raises UserError saying what was looked for."""
    folder = Path(source)
    if not folder.is_dir() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise UserError(
            f"there is no folder {source!r}: put or link the images there, or name others with data.source (a hub data "
            "set is written owner/name)"
        )
    try:
        if not folder.is_dir():
            return datasets.load_dataset(source, split=split)
        if (folder / "state.json").exists():
            rows = datasets.load_from_disk(source)
            if split != str(rows.split or "train"):
                raise UserError(f"{source!r} is a saved data set of the split {str(rows.split or 'train')!r} alone")
            return rows
        if (folder / "dataset_dict.json").exists():
            splits = datasets.load_from_disk(source)
            if split not in splits:
                raise UserError(f"{source!r} is a saved data set without split {split!r}; it has: {', '.join(splits)}")
            return splits[split]
        if any(folder.rglob("*.parquet")):
            return datasets.load_dataset("parquet", data_dir=source, split=split)
        return _imagefolder(source, split)
    except UserError:
        raise
    except Exception as error:  # the library raises many kinds, network errors among them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"could not load split {split!r} of data set {source!r}: {reason}") from error


def _imagefolder(source: str, split: str) -> datasets.Dataset:
    """One split of a folder of images, each labelled by the folder that it is in, unless that is no class's.

    Raises UserError when there are no images, or one is not in a class folder as the others are.
    """
    folder = Path(source).resolve()
    if not any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")):
        raise UserError(f"there are no images in {source!r} (looked for {', '.join(SUFFIXES)} and parquet files)")
    # Left to itself, `datasets` drops the labels of one class alone and of images at several depths: other names.
    rows = datasets.load_dataset("imagefolder", data_dir=source, split=split, drop_labels=False)
    if not isinstance(rows.features.get("label"), datasets.ClassLabel):  # a metadata file says what there is
        return rows
    paths = [Path(path or "") for path in _paths(rows, "image")]
    depths = Counter(len(path.parts) for path in paths)
    usual = max(depths, key=lambda depth: (depths[depth], depth))
    if stray := next((path for path in paths if len(path.parts) != usual), None):
        raise UserError(
            f"{str(stray)!r} is not as deep in folders as other images of split {split!r}: put every image into the "
            "folder of its class (split/class/file)"
        )
    classes = any(path.parent != folder and not _is_split(path.parent.name) for path in paths)
    return rows if classes else rows.remove_columns("label")


def _is_split(folder: str) -> bool:
    """Whether `datasets` takes a folder of this name for a split."""
    return not SPLIT_WORDS.isdisjoint(re.split("[-._ 0-9]", folder))


def _rgb(image: Image.Image) -> Pixels:
    """8-bit pixels. Raises ValueError for more bits than that, which a conversion would clip."""
    if image.mode.startswith("I") or image.mode == "F":
        raise ValueError(f"its pixels are of mode {image.mode}, not of 8 bits: scale them to 0 to 255 first")
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
