"""Real small GeoTIFFs where they are, made files, and a steered model that takes milliseconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orl_ldm import SteeredSR
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.env.spaces import spec
from orl_ldm.policy import BetaPolicy, save_policy
from orl_ldm.reward import setting

ROOT = Path(__file__).resolve().parents[2]
PLACES = (ROOT / "data" / "geotiff", ROOT.parent / "shared" / "data" / "geotiff")


@pytest.fixture
def real() -> Callable[[str], Path]:
    """A real file by its name; the test is skipped where the files are not."""

    def find(name: str) -> Path:
        for place in PLACES:
            if (place / name).exists():
                return place / name
        pytest.skip(f"{name} is neither in data/geotiff nor in ../shared/data/geotiff")

    return find


@pytest.fixture(scope="session")
def steered(ldm: LDM) -> SteeredSR:
    """The tiny LDM under an untrained policy."""
    torch.manual_seed(0)
    return SteeredSR(ldm, BetaPolicy(spec(), (8,)), SamplerConfig(nfe_max=2), setting("balanced"))


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained policy as a folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("policy")
    save_policy(BetaPolicy(spec(), (8,)), folder, {})
    return folder
