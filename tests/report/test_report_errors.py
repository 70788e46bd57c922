"""Whatever is wrong with an evaluation folder is said in one sentence."""

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_evaluation import write_evaluation
from rich.console import Console

from orl_ldm.errors import UserError
from orl_ldm.report import build_report, print_table, write_tables


def edit_json(name: str, change: Callable[[object], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_text(json.dumps(change(json.loads((folder / name).read_text()))))

    return edit


def replace_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def write_text(name: str, text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_text(text)

    return edit


def first_psnr(value: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        header, first, *rest = (folder / "per_image.csv").read_text().splitlines(keepends=True)
        fields = first.split(",")
        fields[header.split(",").index("psnr")] = value
        (folder / "per_image.csv").write_text("".join([header, ",".join(fields), *rest]))

    return edit


def repeat_last_row(folder: Path) -> None:
    text = (folder / "per_image.csv").read_text()
    (folder / "per_image.csv").write_text(text + text.splitlines()[-1] + "\n")


def keep_header(folder: Path) -> None:
    (folder / "per_image.csv").write_text((folder / "per_image.csv").read_text().splitlines()[0] + "\n")


def crop_file(value: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / "secret.png").write_bytes((folder / "examples/commercial_area/hr.png").read_bytes())
        index = json.loads((folder / "examples/index.json").read_text())
        index[0]["columns"][0]["file"] = value
        (folder / "examples/index.json").write_text(json.dumps(index))

    return edit


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "no table": (lambda folder: (folder / "per_image.csv").unlink(), "run make evaluate first"),
    "empty file": (write_text("per_image.csv", ""), "could not read"),
    "no rows": (keep_header, "has no rows"),
    "no column": (replace_text("per_image.csv", "lpips", "lips"), "has no column 'lpips'"),
    "not a number": (first_psnr("high"), "line 2: psnr is 'high', not a finite number"),
    "not finite": (first_psnr("inf"), "line 2: psnr is 'inf'"),
    "nothing": (first_psnr(""), "line 2: psnr is ''"),
    "an image twice": (repeat_last_row, "twice"),
    "no facts": (lambda folder: (folder / "facts.json").unlink(), "facts.json is missing"),
    "facts cut short": (write_text("facts.json", '{"a":'), "could not read"),
    "facts a list": (edit_json("facts.json", lambda facts: [facts]), "should hold a JSON object"),
    "roles a list": (edit_json("facts.json", lambda facts: {"roles": ["steered"]}), "roles should be an object"),
    "unknown role holder": (edit_json("facts.json", lambda facts: {"roles": {"steered": "gone"}}), "'gone'"),
    "role holder a list": (edit_json("facts.json", lambda facts: {"roles": {"steered": ["a"]}}), "'steered'"),
    "one method, two roles": (
        edit_json("facts.json", lambda facts: {"roles": {"steered": "steered", "fixed": "steered"}}), "same method"),
    "actions malformed": (replace_text("actions.csv", "eta", "theta"), "has no column 'eta'"),
    "index malformed": (edit_json("examples/index.json", lambda index: [{"scene": "a"}]), "index.json is malformed"),
    "crop missing": (crop_file("gone.png"), "not a PNG file"),
    "crop not PNG": (crop_file("index.json"), "not a PNG file"),
    "crop outside": (crop_file("../secret.png"), "outside its folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_malformed_evaluations_are_named(tmp_path: Path, name: str) -> None:
    spoil, message = WRONG[name]
    folder = write_evaluation(tmp_path / "evaluate", 8, examples=1)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        build_report(folder, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use", [lambda f: write_tables(f), lambda f: print_table(f, Console())])
def test_tables_too_ask_for_an_evaluation_first(tmp_path: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match="run make evaluate first"):
        use(tmp_path / "nowhere")


def test_a_training_folder_without_metrics_is_named(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluate", 8, examples=0)
    with pytest.raises(UserError, match="run make train first"):
        build_report(folder, tmp_path / "train")


@pytest.mark.parametrize("write", [write_tables, lambda folder: build_report(folder, None)])
def test_a_full_disk_is_named_and_keeps_what_was_there(
    tmp_path: Path, full_disk: None, write: Callable[[Path], object]
) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    folder = write_evaluation(tmp_path / "evaluate", 8, examples=0)
    (folder / "figures").mkdir()
    there = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    with pytest.raises(UserError, match=r"cannot write '.*evaluate/.*' \(File too large\)"):
        write(folder)
    assert all(path.read_bytes() == content for path, content in there.items())
    assert not list(folder.rglob("*.part"))
