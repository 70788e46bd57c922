"""Folders of images: which files belong to a split, and what each is called.

Layouts, with any folders in between:

    split/class/file    class/split/file    split/file    class/file    file

A split's folder has exactly the name of a split (in any case); words inside a name say nothing. The class is the folder
that a file is in. Without split folders every image is in `train`. Links are followed. Where a folder has a
`metadata.csv` or `metadata.jsonl`, the images there are those that it lists under `file_name`, of the class `label`.
"""

import csv
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".ppm", ".pgm")
#: Names of a split's folder, by the split's own name.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
#: Where no folder is a split's, names that might mean one are refused: else test images would be trained on.
SPLIT_LIKE = re.compile(rf"({'|'.join(SPLIT_OF)})[-_. ]?(sets?|splits?|data|images?|imgs?|\d+)", re.IGNORECASE)
WORDS = re.compile(r"[-_. \d]+")
NO_CLASS = "all"


@dataclass(frozen=True)
class _File:
    path: Path
    inside: str  # the path within the folder
    split: str | None
    scene: str


def image_files(folder: Path, split: str) -> list[tuple[str, str, Path]]:
    """(name, class, path) of every image of a split; names are `split/class/stem`, and `val` is `validation`.

    Raises UserError when the folder has no images or no such split, when an image is not in the folder of a class
    while others are, or when links put one image into two splits.
    """
    files = _files(folder.resolve())
    if not files:
        raise UserError(f"there are no images in {str(folder)!r} (looked for {', '.join(SUFFIXES)} and parquet files)")
    found = sorted({file.split for file in files if file.split})
    outside = next((file for file in files if file.split is None), None)
    wanted = SPLIT_OF.get(split.lower(), split)
    if not found and (alike := next((file for file in files if _looks_split(file.inside)), None)):
        raise UserError(
            f"{alike.inside!r} in {str(folder)!r} seems to be of one split, but no folder is called train, validation "
            "or test: rename the folders of splits, exactly so"
        )
    if not found and wanted != "train":
        raise UserError(
            f"{str(folder)!r} has no split {split!r}: none of its folders is called so, and all of its images are in "
            f"'train'; move some into {split}/ and the others into train/"
        )
    if len(found) == 1 and outside:  # a class may be called so
        raise UserError(
            f"{outside.inside!r} in {str(folder)!r} is in no split, while another folder has the name of split "
            f"{found[0]!r}: rename that folder if it is a class, or put every image into train/ or test/"
        )
    if found and wanted not in found:
        raise UserError(f"{str(folder)!r} has no split {split!r}; its folders make: {', '.join(found)}")
    chosen = [file for file in files if file.split == (wanted if found else None)]
    _require_one_depth(chosen, wanted)
    scenes = [file.scene for file in chosen]
    labels = distinct(scenes, [f.path.stem for f in chosen], [f.path.name for f in chosen], [f.inside for f in chosen])
    return [(f"{wanted}/{f.scene}/{label}", f.scene, f.path) for f, label in zip(chosen, labels, strict=True)]


def distinct(scenes: Sequence[str], *labels: Sequence[str]) -> list[str]:
    """One label for each image: the first that no other image of its scene has, or else the last."""
    names = list(labels[0])
    for finer in labels[1:]:
        count = Counter(zip(scenes, names, strict=True))
        names = [f if count[s, n] > 1 else n for s, n, f in zip(scenes, names, finer, strict=True)]
    return names


def _files(root: Path) -> list[_File]:
    """Every image below `root` once, in the order of their paths.

    Of several links to one image in one split the real file counts, or else the first link.
    """
    paths = list(_walk(root, (root,)))
    images = [(path, real) for path, real in paths if path.suffix.lower() in SUFFIXES]
    listed = _listed([path for path, _ in paths])
    seen: dict[Path, _File] = {}
    for path, real in sorted(images, key=lambda item: (item[0] != item[1], item[0])):
        inside = path.relative_to(root)
        split, scene = _place(inside.parts[:-1])
        table = next((listed[place] for place in path.parents if place in listed), None)
        if table is not None:
            if path not in table:
                continue
            scene = table[path] or NO_CLASS
        file = _File(path, inside.as_posix(), split, scene)
        if (before := seen.setdefault(real, file)).split != split:
            raise UserError(
                f"{before.inside!r} and {file.inside!r} in {str(root)!r} are links to one image in two splits: "
                "remove one of them"
            )
    return sorted(seen.values(), key=lambda file: file.path)


def _place(folders: Sequence[str]) -> tuple[str | None, str]:
    """(split, class) that the folders of a file say: the first of a split's name, and the last of the others."""
    at = next((i for i, name in enumerate(folders) if name.lower() in SPLIT_OF), None)
    split = None if at is None else SPLIT_OF[folders[at].lower()]
    others = [name for i, name in enumerate(folders) if i != at]
    return split, others[-1] if others else NO_CLASS


def _looks_split(inside: str) -> bool:
    """Whether a path has a folder like `aerial_test/` above its class's, or like `test_set/` for its class's."""
    *above, scene = inside.split("/")[:-1] or [""]
    return bool(SPLIT_LIKE.fullmatch(scene)) or any(SPLIT_OF.keys() & set(WORDS.split(n.lower())) for n in above)


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, Path]]:
    """(path, real path) of the files below a folder; hidden ones are left out.

    Links are followed, but not into a folder that they are in: `above` holds the real paths of those.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = folder / entry.name
            real = path.resolve() if entry.is_symlink() else above[-1] / entry.name
            if entry.name.startswith((".", "__")):
                continue
            if not entry.is_dir():
                yield path, real
            elif real not in above:
                yield from _walk(path, (*above, real))


def _listed(paths: Sequence[Path]) -> dict[Path, dict[Path, str]]:
    """For each folder with a metadata file: the images that it lists, and their labels."""
    tables: dict[Path, dict[Path, str]] = defaultdict(dict)
    for path in paths:
        rows: list[dict[str, object]]
        if path.name == "metadata.csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        elif path.name == "metadata.jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        else:
            continue
        if not all("file_name" in row for row in rows):
            raise UserError(f"{str(path)!r} has no column file_name")
        for row in rows:
            label = row.get("label")
            tables[path.parent][path.parent / str(row["file_name"])] = "" if label is None else str(label)
    return tables


def _require_one_depth(files: Sequence[_File], split: str) -> None:
    """Raise UserError, naming an image, unless all images of a split are equally deep in folders."""
    depths = Counter(file.inside.count("/") for file in files)
    usual = max(depths, key=lambda depth: (depths[depth], depth))
    if stray := next((file for file in files if file.inside.count("/") != usual), None):
        raise UserError(
            f"{str(stray.path)!r} is not as deep in folders as other images of split {split!r}: put every image into "
            "the folder of its class (split/class/file)"
        )
