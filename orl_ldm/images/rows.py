"""Data sets that the library `datasets` reads: saved ones, folders of parquet files, and those of the hub."""

import glob
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import datasets
import fsspec

from orl_ldm.errors import UserError
from orl_ldm.images.folders import NO_CLASS, distinct


def image_rows(
    source: str, folder: Path, split: str, column: str = ""
) -> Iterator[tuple[str, str, Callable[[], Path | bytes]]]:
    """(name, class, where its file is) of every row of one split of `source`, which is a local folder or of the hub.

    Names are `split/class/stem` where the data set knows its files, and `split/class/number` otherwise. Raises
    UserError when the split or the image column does not exist, or several image columns do and none is chosen.
    """
    rows = _load(source, folder, split)
    key = _image_column(rows, source, column)
    rows = rows.cast_column(key, datasets.Image(decode=False))  # as bytes or paths: read_pixels decodes them
    scenes = _scenes(rows)
    numbers = [f"{index:06d}" for index in range(len(rows))]
    files = [Path(path).name if path else "" for path in _paths(rows, key)]
    labels = distinct(scenes, [Path(file).stem for file in files], files, numbers) if all(files) else numbers
    for index, (scene, label) in enumerate(zip(scenes, labels, strict=True)):
        yield f"{split}/{scene}/{label}", scene, partial(_row_file, rows, index, key)


def _image_column(rows: datasets.Dataset, source: str, column: str) -> str:
    """The column that holds the images. Raises UserError unless there is one, or `column` says which."""
    images = [key for key, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if column and column not in images:
        raise UserError(f"data set {source!r} has no image column {column!r} (data.image_column); it has: {images}")
    if not images:
        raise UserError(f"data set {source!r} has no image column; its columns are {', '.join(rows.features)}")
    if len(images) > 1 and not column:
        raise UserError(
            f"data set {source!r} has several image columns, {', '.join(images)}: choose one with data.image_column"
        )
    return column or images[0]


def _scenes(rows: datasets.Dataset) -> list[str]:
    """Each row's class by the first column of class labels, or else by a column `label` of names or integers."""
    key = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)), None)
    if key:
        names = rows.features[key].names
        return [NO_CLASS if label is None or label < 0 else names[label] for label in rows[key][:]]
    dtype = getattr(rows.features.get("label"), "dtype", "")
    if dtype in ("string", "large_string"):
        return [label or NO_CLASS for label in rows["label"][:]]
    if dtype.startswith(("int", "uint")):
        return [NO_CLASS if label is None or label < 0 else str(label) for label in rows["label"][:]]
    return [NO_CLASS] * len(rows)


def _paths(rows: datasets.Dataset, image_key: str) -> list[str | None]:
    """Each row's file, as far as the data set knows it."""
    chunks = rows.with_format("arrow")[:][image_key].chunks  # joined they may be too long for Arrow
    return [path for chunk in chunks for path in chunk.field("path").to_pylist()]


def _row_file(rows: datasets.Dataset, index: int, image_key: str) -> Path | bytes:
    """A row's image file, or its bytes. Raises ValueError when the row holds neither."""
    cell = rows[index][image_key] or {}
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    if not cell.get("path"):
        raise ValueError("its row holds none")
    if Path(cell["path"]).exists():
        return Path(cell["path"])
    with fsspec.open(cell["path"]) as file:  # a URL
        return bytes(file.read())


def _load(source: str, folder: Path, split: str) -> datasets.Dataset:
    """One split of a saved data set, of parquet files or of the hub. Raises UserError saying what was looked for."""
    try:
        if not folder.is_dir():
            return datasets.load_dataset(source, split=split)
        if (folder / "state.json").exists():
            rows = _saved(folder)
            if split != str(rows.split or "train"):
                raise UserError(f"{source!r} is a saved data set of the split {str(rows.split or 'train')!r} alone")
            return rows
        if (folder / "dataset_dict.json").exists():
            splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            if split not in splits:
                raise UserError(f"{source!r} is a saved data set without split {split!r}; it has: {', '.join(splits)}")
            return _saved(folder / split)
        if "::" in str(folder):
            raise UserError(f"parquet files cannot be read below {source!r}: rename or link the folder without '::'")
        return datasets.load_dataset("parquet", data_dir=glob.escape(str(folder.resolve())), split=split)
    except UserError:
        raise
    except Exception as error:  # the library raises many kinds, network errors among them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"could not load split {split!r} of data set {source!r}: {reason}") from error


def _saved(folder: Path) -> datasets.Dataset:
    """A split that `save_to_disk` wrote, memory-mapped; `load_from_disk` would take `::` in a path for a URL."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    split = datasets.NamedSplit(state["_split"]) if state["_split"] else None
    files = [str(folder / part["filename"]) for part in state["_data_files"]]
    return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files], split=split)
