"""Folders of images: what is in a split, and what it is called."""

from pathlib import Path

import pytest
from PIL import Image

from orl_ldm.errors import UserError
from orl_ldm.images.sources import open_images


def save(folder: Path, *files: str) -> None:
    """Small pictures, by their paths."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / file)


def names(folder: Path, split: str = "train") -> list[str]:
    return [ref.name for ref in open_images(str(folder), split)]


@pytest.mark.parametrize("scene", ["train_station", "test-track", "evaluation centre", "trainyard", "valley"])
def test_words_inside_a_name_say_nothing(tmp_path: Path, scene: str) -> None:
    """A class whose name holds a split's is a class, with split folders and without."""
    save(
        tmp_path / "b",
        *(f"{split}/{c}/{i}.png" for split in ("train", "test") for c in ("forest", scene) for i in "01"),
    )
    for split in ("train", "test"):
        assert names(tmp_path / "b", split) == [f"{split}/{c}/{i}" for c in sorted(("forest", scene)) for i in "01"]
    save(tmp_path / "c", *(f"{c}/x_{i}.png" for c in ("forest", scene) for i in "01"))
    assert names(tmp_path / "c") == [f"train/{c}/x_{i}" for c in sorted(("forest", scene)) for i in "01"]


@pytest.mark.parametrize(
    ("layout", "found"),
    [
        ("{}/river/a.png", "{}/river/a"),
        ("{}/a.png", "{}/all/a"),
        ("river/{}/a.png", "{}/river/a"),
        ("resisc45/{}/river/a.png", "{}/river/a"),
    ],
)
@pytest.mark.parametrize(("train", "validation", "test"), [("train", "val", "test"), ("Training", "DEV", "Eval")])
def test_a_split_is_a_folder_of_exactly_its_name(
    tmp_path: Path, layout: str, found: str, train: str, validation: str, test: str
) -> None:
    save(tmp_path, *(layout.format(split) for split in (train, validation, test)))
    assert names(tmp_path) == [found.format("train")]
    assert names(tmp_path, "test") == [found.format("test")]
    assert names(tmp_path, "val") == names(tmp_path, "validation") == [found.format("validation")]


def test_the_first_folder_of_a_split_s_name_decides(tmp_path: Path) -> None:
    save(tmp_path, "train/test/a.png", "test/train/b.png")
    assert names(tmp_path) == ["train/test/a"]
    assert names(tmp_path, "test") == ["test/train/b"]


def test_without_split_folders_all_images_are_for_training(tmp_path: Path) -> None:
    save(tmp_path, "forest/a.png", "river/a.png")
    assert names(tmp_path) == ["train/forest/a", "train/river/a"]
    for split in ("test", "val", "2024"):
        with pytest.raises(UserError, match=rf"no split '{split}'.*all of its images are in 'train'; move some into"):
            names(tmp_path, split)


@pytest.mark.parametrize("files", ["forest/a.png training/b.png", "test/b.png forest/a.png", "a.png train/b/b.png"])
def test_a_class_of_a_split_s_name_is_not_guessed(tmp_path: Path, files: str) -> None:
    save(tmp_path, *files.split())
    for split in ("train", "test"):
        with pytest.raises(
            UserError, match=r"is in no split, while another folder has the name of split '(train|test)'"
        ):
            names(tmp_path, split)


@pytest.mark.parametrize(
    "files", ["train_set/a.png test_set/a.png", "my_train/b/a.png my_test/b/a.png", "x/test2/a.png"]
)
def test_folders_that_may_mean_a_split_are_not_trained_on(tmp_path: Path, files: str) -> None:
    save(tmp_path, *files.split())
    for split in ("train", "test"):
        with pytest.raises(UserError, match="seems to be of one split, but no folder is called train"):
            names(tmp_path, split)


def test_folders_beside_two_splits_are_in_neither(tmp_path: Path) -> None:
    save(tmp_path, "train/river/a.png", "test/river/b.png", "masks/river/a.png", "overview.png")
    assert names(tmp_path) == ["train/river/a"]
    assert names(tmp_path, "test") == ["test/river/b"]


def test_only_files_of_one_stem_get_longer_names(tmp_path: Path) -> None:
    save(tmp_path, "train/river/a.jpg", "train/river/a.png", "train/river/b.png", "train/lake/a.png")
    assert names(tmp_path) == ["train/lake/a", "train/river/a.jpg", "train/river/a.png", "train/river/b"]
    save(tmp_path, "train/lake/a.png.jpg", "train/lake/a.jpg")
    assert len(set(names(tmp_path))) == 6
    save(tmp_path / "deep", "north/river/a.png", "south/river/a.png", "south/river/b.png")
    assert names(tmp_path / "deep") == [
        "train/river/b",
        "train/river/north/river/a.png",
        "train/river/south/river/a.png",
    ]


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "disk", "classes/river/a.png", "0001.png")
    (tmp_path / "set/test/lake").mkdir(parents=True)
    (tmp_path / "set/train").symlink_to(tmp_path / "disk/classes")
    (tmp_path / "set/test/lake/b.png").symlink_to(tmp_path / "disk/0001.png")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    for source in (tmp_path / "set", tmp_path / "link"):
        assert names(source) == ["train/river/a"]
        assert names(source, "test") == ["test/lake/b"]
    (tmp_path / "set/test/lake/c.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match="could not read the image 'test/lake/c'"):
        open_images(str(tmp_path / "set"), "test")[1].load()


@pytest.mark.parametrize(("link", "target"), [("river/self", "."), ("river/up", ".."), ("alias", "river")])
def test_no_image_is_twice_in_a_split(tmp_path: Path, link: str, target: str) -> None:
    save(tmp_path / "train", "river/a.png", "zoo/b.png")
    (tmp_path / "train" / link).symlink_to(target)
    assert names(tmp_path) == ["train/river/a", "train/zoo/b"]


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    save(tmp_path / "train", "river/a.png", "zoo/b.png")
    (tmp_path / "train/river/x").symlink_to("../zoo")
    (tmp_path / "train/zoo/x").symlink_to("../river")
    assert names(tmp_path) == ["train/river/a", "train/zoo/b"]


@pytest.mark.parametrize(
    ("link", "target"), [("test/river", "../train/river"), ("test/lake/z.png", "../../train/river/a.png")]
)
def test_no_image_is_in_two_splits(tmp_path: Path, link: str, target: str) -> None:
    save(tmp_path, "train/river/a.png", "test/lake/b.png")
    (tmp_path / link).symlink_to(target)
    for split in ("train", "test"):
        with pytest.raises(UserError, match="links to one image in two splits"):
            names(tmp_path, split)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metadata.csv", "file_name,label\nriver/a.png,0\n"),
        ("metadata.jsonl", '{"file_name": "river/a.png", "label": 0}\n'),
    ],
)
def test_a_metadata_file_names_images_and_labels(tmp_path: Path, file: str, text: str) -> None:
    save(tmp_path, "test/river/a.png", "test/river/b.png", "train/river/a.png")
    (tmp_path / "test" / file).write_text(text)
    assert names(tmp_path, "test") == ["test/0/a"]
    assert names(tmp_path) == ["train/river/a"]
    (tmp_path / "test" / file).write_text(text.replace("file_name", "name"))
    with pytest.raises(UserError, match="has no column file_name"):
        names(tmp_path)


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    save(tmp_path, "train/river/a.JPG", "train/river/.b.png", "train/.cache/c.png", "train/__MACOSX/d.png")
    assert names(tmp_path) == ["train/river/a"]
