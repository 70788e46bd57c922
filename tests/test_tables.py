"""The tables are the only place to edit: an action, a reward term and a feature, one entry each, go the whole way."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import Tensor
from typer.testing import CliRunner

from orl_ldm.actions import ACTIONS, Action
from orl_ldm.buffer import read
from orl_ldm.cli.main import app
from orl_ldm.diffusion.edits import EDITS
from orl_ldm.env.features import FEATURES, View
from orl_ldm.metrics.metrics import METRICS
from orl_ldm.reward import TERMS, Term


def darken(x0: Tensor, lr_latent: Tensor, amount: Tensor, noise: object) -> Tensor:
    """An edit: shrink the estimate."""
    return x0 * (1 - amount)


def sharpness(output: Tensor, target: Tensor) -> Tensor:
    """(B,) mean absolute horizontal difference of the output."""
    return output.diff(dim=-1).abs().mean((1, 2, 3))


def largest(view: View) -> Tensor:
    """A feature: (B,) the brightest LR pixel."""
    return view.state.lr.amax((1, 2, 3))


def test_one_entry_each_is_enough(tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIONS, "darken", Action("darken", 0.0, 0.5, 0.0, (1.0, 3.0), 0.0, "shrinks the estimate"))
    monkeypatch.setitem(EDITS, "darken", darken)
    monkeypatch.setitem(TERMS, "sharpness", Term("sharpness", "sharpness", "", 3, True, lambda x, nfe_max: x))
    monkeypatch.setitem(METRICS, "sharpness", lambda device: sharpness)
    monkeypatch.setitem(FEATURES, "lr/largest", largest)
    weights = ["--set", "train.weights={psnr = 0.5, sharpness = 0.5}"]
    for command in ("collect", "train", "evaluate"):
        done = CliRunner().invoke(app, [command, "demo", *settings, *weights])
        assert done.exit_code == 0, (command, done.output, done.exception)
    found = read(tmp_path / "buffer")
    assert found.header.action_names[-1] == "darken"
    assert found.header.feature_names[-1] == "lr/largest"
    assert found.header.term_names[-1] == "sharpness"
    drawn = found.actions[:, -1]
    assert drawn.min() >= 0 and drawn.max() <= 0.5 and drawn.std() > 0.01
    assert (found.terms[found.terminals][:, -1] > 0).all()
    table = pd.read_csv(tmp_path / "evaluate" / "per_image.csv")
    assert np.isfinite(table["sharpness"]).all() and table["sharpness"].std() > 0
    assert "darken" in pd.read_csv(tmp_path / "evaluate" / "actions.csv").columns
    assert "sharpness" in (tmp_path / "evaluate" / "table.md").read_text(encoding="utf-8")
    facts = json.loads((tmp_path / "evaluate" / "facts.json").read_text(encoding="utf-8"))
    assert facts["weights"]["sharpness"] == 0.5
    assert all("darken" in decision for decision in facts["fixed_schedule"])
