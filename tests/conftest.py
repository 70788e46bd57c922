"""Tiny real models, so that the tests run the product's own code in seconds."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_ldm import tiny_ldm_folder

from orl_ldm.diffusion.ldm import LDM, load_ldm
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import Batch, load_pairs
from orl_ldm.images.sources import open_images

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ldm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny v-prediction LDM on disk."""
    return tiny_ldm_folder(tmp_path_factory.mktemp("ldm"))


@pytest.fixture(scope="session")
def ldm(ldm_folder: Path) -> LDM:
    """A tiny v-prediction LDM."""
    return load_ldm(str(ldm_folder))


@pytest.fixture(scope="session")
def data() -> DataConfig:
    """Synthetic scenes as 32 x 32 crops of small renderings."""
    return DataConfig(size=32)


@pytest.fixture(scope="session")
def batch(data: DataConfig) -> Batch:
    """Three pairs of different scenes."""
    return load_pairs(open_images("synthetic", "train", count=3), data)


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


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Every file ends at 1000 bytes, as if its disk were full there."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
