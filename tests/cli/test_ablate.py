"""Ablations as a user runs them: one command, one table, nothing done twice."""

from pathlib import Path

import pandas as pd
import pytest
from test_cli import call

from orl_ldm.cli.ablate import variants
from orl_ldm.pipeline import load_pipeline


@pytest.mark.slow
def test_ablations_train_replay_and_compare(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("collect", "demo", *settings, capsys=capsys)[0] == 0
    chosen = ["--only=everything", "--only=time only", "--only=no warm start: from noise", f"--out={tmp_path / 'out'}"]
    status, printed = call("ablate", "demo", "--seeds=2", *chosen, *settings, capsys=capsys)
    assert status == 0, printed
    scores = pd.read_csv(tmp_path / "out" / "per_image-balanced.csv")
    assert scores.groupby(["variant", "seed"]).size().tolist() == [8] * 6
    table = (tmp_path / "out" / "ablation-balanced.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:5]] == [
        "everything", "time only", "no warm start: from noise",
    ]  # fmt: skip
    again = call("ablate", "demo", "--seeds=2", *chosen, *settings, capsys=capsys)[1]
    assert again.count("is already trained") == 6


def test_every_variant_is_a_training_that_exists(settings: list[str]) -> None:
    plain = [setting for setting in settings if setting != "--set"]
    for own in variants(load_pipeline("demo", plain), 2).values():
        load_pipeline("demo", [*plain, *own])


def test_what_cannot_be_compared_is_said_before_any_training(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed = call("ablate", "demo", "--prefer=perceptual", *settings, capsys=capsys)
    assert (status, "learns for one reward alone, balanced, and cannot be compared" in printed) == (2, True)
    status, printed = call("ablate", "demo", "--prefer=percptual", *settings, capsys=capsys)
    assert (status, "unknown reward setting 'percptual'" in printed) == (2, True)


def test_an_unknown_variant_is_named(settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = call("ablate", "demo", "--only=without luck", *settings, capsys=capsys)
    assert status == 2
    assert "there is no variant 'without luck'; there are: everything, " in printed
