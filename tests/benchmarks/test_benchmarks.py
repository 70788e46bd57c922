"""The benchmark scripts run and say what they are meant to say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_an_ldm(ldm_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/ldm.py", "--ldm", str(ldm_folder), "--source", "synthetic", "--images", "3"]
    command += ["--size", "64", "--steps", "2", "--threads", "1", "--out", str(tmp_path)]
    first = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "| one NFE |" in first and "| decode |" in first
    assert "synthetic, test: 3 images of 3 scenes" in first
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in first.splitlines() if line.startswith("| ")}
    assert rows["bicubic"][5] == "+0.00 [+0.00, +0.00]"
    assert rows["LDM, DDIM 2, eta 0"][1] == "2"
    assert float(rows["LDM, one call from pure noise + projection"][2]) > float(
        rows["LDM, one call from pure noise"][2]
    )
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert again.split("scenes")[1] == first.split("scenes")[1]


def test_the_tables_of_the_learners() -> None:
    def printed(*arguments: str) -> str:
        command = [sys.executable, "benchmarks/learners.py", *arguments, "--threads", "1"]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    rows = [line.strip("| ").split(" | ") for line in printed("speed", "--turns", "1").splitlines() if "|" in line]
    assert [row[:2] for row in rows[2:]] == [["64", "1"], ["256", "1"]]
    assert all(float(rate) > 0 for row in rows[2:] for rate in row[2:5])
    assert printed("table1", "--epochs", "2").startswith("2 epochs, 1 threads: ")


def test_the_speed_of_sampling_beside_diffusers(ldm_folder: Path) -> None:
    command = [sys.executable, "benchmarks/sampling.py", "--ldm", str(ldm_folder), "--size", "32", "--steps", "2"]
    command += ["--threads", "1", "--turns", "1", "--batches", "1,3"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["1", "3"] and all(float(cell) > 0 for row in rows for cell in row[1:])
