"""Where images come from: the synthetic scenes, a folder, or a data set that `datasets` reads.

A source is one string:

- ``synthetic``                 procedural aerial scenes, no network;
- ``timm/resisc45``             a data set of the Hugging Face hub (owner/name);
- ``path/to/folder``            a folder of images (see orl_ldm.images.folders), of parquet files, or a data set saved
                                with ``save_to_disk``.

Every image has a name that is the same on every machine (``split/class/file`` or ``split/class/number``), an id derived
from that name, and a scene: its class, or ``all`` where there are none. Selections are drawn by hashing names: a fixed
list, whatever the order of files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orl_ldm.errors import UserError
from orl_ldm.images import synthetic
from orl_ldm.images.folders import image_files
from orl_ldm.images.pixels import Pixels, read_pixels
from orl_ldm.images.rows import image_rows
from orl_ldm.streams import stable_id


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
    image_column: str = "",
) -> list[ImageRef]:
    """The selected images of one split, sorted by name.

    `classes` keeps only these scenes; `count` > 0 then draws that many, or all if there are fewer, spread evenly over
    the scenes, by the hash of (seed, name). A larger draw holds a smaller one, except of synthetic scenes, of which
    there are as many as are asked for. `image_column` chooses among several image columns of a data set; a folder of
    images has none. Raises UserError when the source, the split, the column or a class does not exist.
    """
    is_data_set = source != "synthetic" and not _holds_image_files(source)
    if image_column and not is_data_set:
        raise UserError(f"{source!r} is no data set with columns: remove data.image_column")
    if is_data_set:
        found = _dataset(source, split, image_column)
    elif source == "synthetic":
        found = _synthetic(split, count, seed, classes)
    else:
        found = _folder(local(source), split)
    refs = list(found)
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


def local(source: str) -> Path:
    """A source as a path; `~` is the home folder. Raises UserError when nobody knows where that is."""
    try:
        return Path(source).expanduser()
    except RuntimeError:
        raise UserError(f"the home folder in {source!r} is not known: set HOME, or write the whole path") from None


def _holds_image_files(source: str) -> bool:
    """Whether a source is a folder of images. Raises UserError when it is no folder and can be no hub's name."""
    folder = local(source)
    if folder.is_dir():
        saved = any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
        return not saved and not any(folder.rglob("*.parquet"))
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise UserError(
            f"there is no folder {source!r}: put or link the images there, or name others with data.source (a hub data "
            "set is written owner/name)"
        )
    return False


def _folder(folder: Path, split: str) -> Iterator[ImageRef]:
    """Every image of one split of a folder of images."""
    for name, scene, path in image_files(folder, split):
        yield ImageRef(name, scene, partial(_pixels, name, partial(Path, path)))


def _dataset(source: str, split: str, column: str) -> Iterator[ImageRef]:
    """Every row of one split of a data set."""
    for name, scene, file in image_rows(source, local(source), split, column):
        yield ImageRef(name, scene, partial(_pixels, name, file))


def _pixels(name: str, file: Callable[[], Path | bytes]) -> Pixels:
    try:
        return read_pixels(file())
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"could not read the image {name!r}: {error}") from error
