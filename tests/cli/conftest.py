"""A demo that takes seconds."""

from pathlib import Path

import pytest


@pytest.fixture
def settings(tmp_path: Path, ldm_folder: Path) -> list[str]:
    """A demo that takes seconds."""
    values = {
        "name": "tiny", "ldm.id": ldm_folder, "data.size": 32, "collect.images": 4, "collect.rollouts": 3,
        "collect.out": tmp_path / "buffer", "train.out": tmp_path / "train", "evaluate.out": tmp_path / "evaluate",
        "train.critics.epochs": 2, "train.critics.steps": 5, "train.critics.batch_size": 16, "evaluate.images": 8,
        "evaluate.ddim_steps": 5, "evaluate.search_images": 2, "sampler.nfe_max": 5,
    }  # fmt: skip
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
