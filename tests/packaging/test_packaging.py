"""What is installed is what is needed: the wheel, the extras, and learning without an LDM's libraries."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from orl_ldm.shipped import EXTRAS, missing, shipped

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed_for_the_wheel() -> None:
    found = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("orl_ldm/**/*.py")}
    assert {*found, "orl_ldm.data"} == set(PROJECT["tool"]["setuptools"]["packages"])


def test_extras_bring_what_the_messages_say() -> None:
    names = {"PIL": "pillow"}
    for extra, modules in EXTRAS.items():
        brought = " ".join(PROJECT["project"]["optional-dependencies"][extra])
        assert all(names.get(module, module) in brought for module in modules), extra
    assert "diffusers is not installed: install the extra 'ldm'" in str(missing("diffusers.models"))
    assert missing("no_such_module") is None


@pytest.mark.slow
def test_a_wheel_holds_the_shipped_models(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for file in shipped("embedded-ldm").rglob("*"):
        if file.is_file():
            assert f"orl_ldm/data/embedded-ldm/{file.relative_to(shipped('embedded-ldm')).as_posix()}" in names
    assert not [name for name in names if "resisc45" in name or "ucmerced" in name]
