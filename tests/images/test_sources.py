"""Every source gives the same names on every machine, and what is wrong with one is said in a sentence."""

import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from orl_ldm.errors import UserError
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import load_pairs
from orl_ldm.images.resample import downscale, to_tensor, upscale
from orl_ldm.images.sources import open_images
from orl_ldm.images.synthetic import SCENES
from orl_ldm.pipeline import load_pipeline

ROOT = Path(__file__).parents[2]
RESISC45, SPLITS = ROOT / "data" / "resisc45", ROOT / "data" / "splits"
ABSENT = pytest.mark.skipif(not RESISC45.is_dir(), reason="RESISC45 is not in data/resisc45")


def save(folder: Path, *files: str) -> None:
    """Small pictures."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An imagefolder: two splits, two classes, three images each."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for scene in ("airport", "river"):
            (tmp_path / "set" / split / scene).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / scene / f"{scene}_{i:03d}.png")
    return tmp_path / "set"


def test_an_imagefolder_is_named_by_its_files(folder: Path) -> None:
    refs = open_images(str(folder), "test")
    assert [ref.name for ref in refs] == [f"test/{s}/{s}_{i:03d}" for s in ("airport", "river") for i in range(3)]
    with Image.open(folder / "test" / "airport" / "airport_000.png") as image:
        np.testing.assert_array_equal(refs[0].load(), np.asarray(image))


def test_saved_and_parquet_data_sets_give_the_same_names(folder: Path, tmp_path: Path) -> None:
    expected = [ref.name for ref in open_images(str(folder), "test")]
    whole = datasets.load_dataset("imagefolder", data_dir=str(folder))
    whole.save_to_disk(tmp_path / "saved")
    assert [ref.name for ref in open_images(str(tmp_path / "saved"), "test")] == expected
    (tmp_path / "parquet").mkdir()
    for split in ("train", "test"):
        whole[split].to_parquet(tmp_path / "parquet" / f"{split}-00000.parquet")
    found = open_images(str(tmp_path / "parquet"), "test")
    assert [ref.name for ref in found] == expected
    np.testing.assert_array_equal(found[3].load(), open_images(str(folder), "test")[3].load())


def test_a_saved_split_is_no_other_split(folder: Path, tmp_path: Path) -> None:
    datasets.load_dataset("imagefolder", data_dir=str(folder))["train"].save_to_disk(tmp_path / "saved")
    assert open_images(str(tmp_path / "saved"), "train")[0].name == open_images(str(folder), "train")[0].name
    with pytest.raises(UserError, match="is a saved data set of the split 'train' alone"):
        open_images(str(tmp_path / "saved"), "test")


def test_a_saved_data_set_names_its_splits(folder: Path, tmp_path: Path) -> None:
    datasets.load_dataset("imagefolder", data_dir=str(folder)).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match=r"a saved data set without split 'valid'; it has: (train, test|test, train)$"):
        open_images(str(tmp_path / "saved"), "valid")


def test_images_without_a_label_are_of_one_scene(folder: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder))["test"]
    unlabelled = rows.map(lambda row: {"label": -1}, features=rows.features)
    (tmp_path / "hub").mkdir()
    unlabelled.to_parquet(tmp_path / "hub" / "test-00000.parquet")
    assert {ref.scene for ref in open_images(str(tmp_path / "hub"), "test")} == {"all"}


@pytest.mark.parametrize("layout", ["train/forest/{}.png", "forest/{}.png", "train/forest/{}.png test/x.png"])
def test_a_single_class_and_other_splits_change_no_names(tmp_path: Path, layout: str) -> None:
    save(tmp_path, *(file.format(name) for file in layout.split() for name in "ab"))
    assert [ref.name for ref in open_images(str(tmp_path), "train", ("forest",))] == [
        "train/forest/a",
        "train/forest/b",
    ]


@pytest.mark.parametrize("layout", ["{}.png", "train/{}.png", "Training/{}.png", "train/{}.png test/{}.png"])
def test_images_in_no_class_folder_are_of_one_scene(tmp_path: Path, layout: str) -> None:
    save(tmp_path, *(file.format(name) for file in layout.split() for name in "ab"))
    assert [ref.name for ref in open_images(str(tmp_path), "train")] == ["train/all/a", "train/all/b"]


@pytest.mark.parametrize("stray", ["test/overview.png", "test/river/north/overview.png"])
def test_an_image_beside_the_class_folders_is_named(folder: Path, stray: str) -> None:
    save(folder, stray)
    with pytest.raises(UserError, match=rf"'{folder / stray}' is not as deep in folders as other images of split 'te"):
        open_images(str(folder), "test")
    assert {ref.scene for ref in open_images(str(folder), "train")} == {"airport", "river"}


def test_labels_may_be_names(folder: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder))["test"]
    (tmp_path / "hub").mkdir()
    rows.remove_columns("label").add_column("label", ["lake"] * 4 + ["", None]).to_parquet(
        tmp_path / "hub" / "test-00000.parquet"
    )
    refs = open_images(str(tmp_path / "hub"), "test")
    assert [ref.scene for ref in refs] == ["all"] * 2 + ["lake"] * 4


def test_a_metadata_file_says_what_the_scenes_are(folder: Path) -> None:
    (folder / "test" / "metadata.csv").write_text("file_name,label\nairport/airport_000.png,lake\n")
    assert [ref.name for ref in open_images(str(folder), "test")] == ["test/lake/airport_000"]


@pytest.mark.parametrize("kind", ["int64", "uint8"])
def test_integer_labels_without_names_are_scenes(folder: Path, tmp_path: Path, kind: str) -> None:
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder))["test"].remove_columns("label").select(range(3))
    rows = rows.add_column("label", [7, 12, None], feature=datasets.Value(kind))
    rows.to_parquet(tmp_path / "test-00000.parquet")
    shutil.rmtree(folder)
    assert [ref.scene for ref in open_images(str(tmp_path), "test")] == ["12", "7", "all"]


def test_of_several_image_columns_one_is_chosen(folder: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder))["test"]
    both = rows.rename_column("image", "hr").map(lambda row: {"lr": row["hr"].resize((4, 4))})
    both.cast_column("lr", datasets.Image()).save_to_disk(tmp_path / "pairs")
    source = str(tmp_path / "pairs")
    with pytest.raises(UserError, match=r"several image columns, hr, lr: choose one with data\.image_column"):
        open_images(source, "test")
    assert open_images(source, "test", image_column="lr")[0].load().shape == (4, 4, 3)
    assert open_images(source, "test", image_column="hr")[0].load().shape == (40, 48, 3)
    for column in ("label", "nir"):
        with pytest.raises(UserError, match=rf"no image column '{column}' \(data.image_column\); it has: .*'hr', 'lr'"):
            open_images(source, "test", image_column=column)
    for other in ("synthetic", str(folder)):
        with pytest.raises(UserError, match="no data set with columns: remove data"):
            open_images(other, "test", image_column="hr")


def test_a_data_set_may_leave_its_images_undecoded(folder: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder))["test"]
    rows.cast_column("image", datasets.Image(decode=False)).save_to_disk(tmp_path / "bytes")
    ours = open_images(str(folder), "test")[0]
    saved = open_images(str(tmp_path / "bytes"), "test")[0]
    assert saved.name == ours.name
    np.testing.assert_array_equal(saved.load(), ours.load())


SPECIAL = "d/[aerial] 2024 #1 50% a:b 机场 {x}*"


@pytest.mark.parametrize("special", [SPECIAL, "x::y", "~"])
@pytest.mark.parametrize("kind", ["folder", "saved", "parquet"])
def test_any_path_is_a_source(
    folder: Path, tmp_path: Path, special: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = Path(special).expanduser() if special == "~" else tmp_path / special
    place.parent.mkdir(parents=True, exist_ok=True)
    expected = [ref.name for ref in open_images(str(folder), "test")]
    if kind == "folder":
        shutil.copytree(folder, place)
    else:
        rows = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
        if kind == "saved":
            rows.save_to_disk(tmp_path / "saved")  # (the library itself cannot write to every such path)
            shutil.copytree(tmp_path / "saved", place)
        else:
            place.mkdir()
            with (place / "test-00000.parquet").open("wb") as file:
                rows["test"].to_parquet(file)
    source = special if special == "~" else str(place)
    if kind == "parquet" and "::" in special:
        with pytest.raises(UserError, match="rename or link the folder without '::'"):
            open_images(source, "test")
    else:
        refs = open_images(source, "test")
        assert [ref.name for ref in refs] == expected
        assert refs[0].load().shape == (40, 48, 3)


def test_an_unknown_home_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="set HOME, or write the whole path"):
        open_images("~nobody-of-this-name/set", "test")


def test_a_draw_is_fixed_spread_over_scenes_and_independent_of_other_files(folder: Path) -> None:
    save(folder, *(f"train/river/{i}.png" for i in range(9)))

    def drawn(seed: int, classes: tuple[str, ...] = (), count: int = 4) -> list[str]:
        return [ref.name for ref in open_images(str(folder), "train", classes, count, seed)]

    scenes = [ref.scene for ref in open_images(str(folder), "train", count=4, seed=1)]
    assert scenes == ["airport", "airport", "river", "river"]
    both, rivers = drawn(1), drawn(1, ("river",), 2)
    assert drawn(1) == both
    assert drawn(2) != both
    assert rivers == [name for name in both if "/river/" in name]
    files = sorted((folder / "train" / "river").iterdir())
    next(path for path in files if f"train/river/{path.stem}" not in rivers).unlink()
    assert drawn(1, ("river",), 2) == rivers


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["demo", pytest.param("resisc45-local", marks=[pytest.mark.resisc45, ABSENT])])
def test_the_shipped_lists_are_what_pipelines_draw(name: str, split: str) -> None:
    pipeline = load_pipeline(str(ROOT / "pipelines" / f"{name}.toml"))
    data, counts = pipeline.data, {"train": pipeline.collect.images, "test": pipeline.evaluate.images}
    source = data.source if data.source == "synthetic" else str(ROOT / data.source)
    listed = (SPLITS / f"{name}-{split}.txt").read_text().split()
    assert [ref.name for ref in open_images(source, split, data.classes, counts[split], data.seed)] == listed


def test_synthetic_scenes_of_a_class_are_as_many_as_asked_for() -> None:
    assert len(open_images("synthetic", "train", ("forest",), 20)) == 20
    assert [ref.name for ref in open_images("synthetic", "train", count=16)] == [
        ref.name for ref in open_images("synthetic", "train", sorted(SCENES), 16)
    ]


def test_synthetic_splits_share_no_scene() -> None:
    train, test = (open_images("synthetic", split, count=8) for split in ("train", "test"))
    assert len({ref.scene for ref in train}) == 8
    assert not {ref.image_id for ref in train} & {ref.image_id for ref in test}
    assert (train[0].load() != test[0].load()).any()


@pytest.mark.parametrize(
    ("source", "split", "classes", "sentence"),
    [
        ("{tmp}/nowhere", "test", (), "there is no folder"),
        ("{tmp}/empty", "test", (), "there are no images in"),
        ("{tmp}/set", "valid", (), "has no split 'valid'; its folders make: test, train"),
        ("{tmp}/set", "test", ("harbour",), "class 'harbour' is not in split"),
    ],
)
def test_what_is_not_there_is_named(
    folder: Path, tmp_path: Path, source: str, split: str, classes: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=sentence):
        open_images(source.format(tmp=tmp_path), split, classes)


def test_unreadable_and_tiny_images_are_named(folder: Path) -> None:
    (folder / "test" / "airport" / "airport_000.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    Image.new("RGB", (1, 1)).save(folder / "test" / "river" / "river_000.png")
    refs = open_images(str(folder), "test")
    with pytest.raises(UserError, match="could not read the image 'test/airport/airport_000'"):
        load_pairs(refs[:1], DataConfig(size=32))
    with pytest.raises(UserError, match=r"'test/river/river_000' is 1x1 pixels; this pipeline needs at least 32x32"):
        load_pairs(refs[3:4], DataConfig(size=32))


def test_a_row_without_an_image_is_named(folder: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder))["test"]
    (tmp_path / "hub").mkdir()
    rows.map(lambda row, i: {"image": None if i == 2 else row["image"]}, with_indices=True).to_parquet(
        tmp_path / "hub" / "test-00000.parquet"
    )
    refs = open_images(str(tmp_path / "hub"), "test")
    assert refs[1].load().shape == (40, 48, 3)
    with pytest.raises(UserError, match="could not read the image 'test/airport/000002': its row holds none"):
        refs[2].load()


def test_bicubic_is_pillow_s_antialiased_bicubic() -> None:
    """In floats: Pillow's 8-bit path rounds between its two passes and differs by up to three levels."""
    pixels = to_tensor(open_images("synthetic", "train", count=1)[0].load())
    for ours, size in ((downscale(pixels[None], 4)[0], 64), (upscale(pixels[None, :, :64, :64], 4)[0], 256)):
        plane = pixels[0] if size == 64 else pixels[0, :64, :64]
        theirs = Image.fromarray(plane.numpy()).resize((size, size), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(ours[0].numpy(), np.asarray(theirs), atol=1e-4)


@pytest.mark.resisc45
@ABSENT
def test_real_resisc45_is_read() -> None:
    refs = open_images(str(RESISC45), "test", count=24)
    assert len({ref.scene for ref in refs}) == 12
    assert refs[0].load().shape == (256, 256, 3)
