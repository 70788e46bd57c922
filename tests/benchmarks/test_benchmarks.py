"""Benchmark scripts that a tiny LDM lets run in seconds do run, and say what they are meant to say.

Not run here: buffer (it fills a disk), replay and seeds (they read finished evaluations).
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import typer
from PIL import Image
from typer.testing import CliRunner, Result

from orl_ldm.images.synthetic import render

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: object) -> Result:
    """The script's command line in this process, which has imported PyTorch already."""
    spec = spec_from_file_location(f"benchmark_{script}", SCRIPTS / f"{script}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    app = getattr(module, "app", None) or typer.Typer()
    if not app.registered_commands:
        app.command()(module.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(script: str, *arguments: object) -> str:
    done = run(script, *arguments)
    assert done.exit_code == 0, (done.stderr, done.exception)
    return done.stdout


def cells(markdown: str) -> list[list[str]]:
    """Rows of the tables in it, their headers left out."""
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    rules = [i for i, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    return [row for i, row in enumerate(rows) if i not in rules and i + 1 not in rules]


def save(path: Path, scene: str) -> None:
    """A small picture."""
    path.parent.mkdir(parents=True)
    Image.fromarray(render(scene, 0, 0, 64)).save(path)


def test_the_table_of_an_ldm(ldm_folder: Path, tmp_path: Path) -> None:
    for scene in ("desert", "river", "runway"):
        save(tmp_path / "set" / "test" / scene / "0.png", scene)
    arguments = ["--ldm", ldm_folder, "--source", tmp_path / "set", "--images", 0, "--size", 64, "--steps", 2]
    arguments += ["--threads", 1, "--out", tmp_path]
    first = printed("ldm", *arguments)
    assert "| one NFE |" in first and "| decode |" in first
    assert "set, test: 3 images of 3 scenes, LR by `bicubic`" in first
    rows = {row[0]: row for row in cells(first)}
    assert rows["bicubic"][5] == "+0.00 [+0.00, +0.00]"
    assert rows["LDM, DDIM 2, eta 0"][1] == "2"
    assert float(rows["LDM, one call from pure noise + projection"][2]) > float(
        rows["LDM, one call from pure noise"][2]
    )
    kinds = printed("ldm", *arguments, "--degradation", "bicubic", "--degradation", "jpeg40", "--steps", 0)
    assert "LR by `jpeg40`" in kinds and "DDIM" not in kinds
    again = printed("ldm", *arguments)
    assert again.split("scenes")[1] == first.split("scenes")[1]
    save(tmp_path / "set" / "test" / "forest" / "0.png", "forest")
    more = {row[0]: row for row in cells(printed("ldm", *arguments))}
    assert more["bicubic"][2] != rows["bicubic"][2], "scores are those of the images that there are"


def test_the_tables_of_the_learners() -> None:
    speed = cells(printed("learners", "speed", "--turns", 1, "--threads", 1))
    assert [row[:2] for row in speed] == [["64", "1"], ["256", "1"]]
    assert all(float(rate) > 0 for row in speed for rate in row[2:5])
    assert printed("learners", "table1", "--epochs", 2, "--threads", 1).startswith("2 epochs, 1 threads: ")


def test_the_speed_of_sampling_beside_diffusers(ldm_folder: Path) -> None:
    arguments = ["--size", 32, "--steps", 2, "--threads", 1, "--turns", 1, "--batches", "1,3"]
    rows = cells(printed("sampling", "--ldm", ldm_folder, *arguments))
    assert [row[0] for row in rows] == ["1", "3"] and all(float(cell) > 0 for row in rows for cell in row[1:])
