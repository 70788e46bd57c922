"""The one door: any image in, the same kind of image out, four times the size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orl_ldm import SteeredSR
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.env.spaces import spec
from orl_ldm.errors import UserError
from orl_ldm.policy import BetaPolicy, save_policy
from orl_ldm.reward import setting
from orl_ldm.steer import door
from orl_ldm.steer.tiling import Grid, reflected


@pytest.fixture(scope="module")
def steered(ldm: LDM) -> SteeredSR:
    torch.manual_seed(0)
    return SteeredSR(ldm, BetaPolicy(spec(), (8,)), SamplerConfig(nfe_max=3), setting("balanced"))


def image(height: int, width: int, count: int = 1) -> torch.Tensor:
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(height * 100 + width))
    return torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic").clamp(0, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_every_size_becomes_four_times_as_large(steered: SteeredSR, height: int, width: int) -> None:
    hr = steered(image(height, width)[0])
    assert hr.shape == (3, 4 * height, 4 * width)
    assert torch.isfinite(hr).all() and hr.min() >= 0 and hr.max() <= 1


def test_the_same_kind_comes_out(steered: SteeredSR) -> None:
    lr = image(12, 20, 2)
    batch = steered(lr)
    assert batch.shape == (2, 3, 48, 80) and batch.dtype == torch.float32
    assert steered.last is not None and len(steered.last.nfe) == 2 and steered.last.seconds > 0
    floats = steered(lr[0].permute(1, 2, 0).numpy())
    assert floats.dtype == np.float32 and floats.shape == (48, 80, 3)
    np.testing.assert_allclose(floats, batch[0].permute(1, 2, 0), atol=1e-4)
    assert (batch * 255).round().div(255).sub(batch).abs().max() > 1e-4  # floats are not rounded to 8 bits
    pixels = (lr[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert steered(pixels).dtype == np.uint8
    assert steered(lr.double()).dtype == torch.float64


def test_a_seed_repeats_and_another_differs(steered: SteeredSR) -> None:
    lr = image(16, 16)
    assert torch.equal(steered(lr, seed=3), steered(lr, seed=3))
    assert not torch.equal(steered(lr, seed=3), steered(lr, seed=4))


def test_an_image_that_is_too_large_for_one_piece_is_tiled_without_holes(
    steered: SteeredSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "WHOLE", 16)
    monkeypatch.setattr(door, "TILE", 16)
    lr = image(40, 30)
    hr = steered(lr)
    assert hr.shape == (1, 3, 160, 120)
    assert steered.last is not None and len(set(steered.last.nfe)) == 1  # one set of decisions for the whole scene
    assert (hr.mean((2, 3)) - steered.ldm.decode(steered.ldm.encode(image(160, 120))).mean((2, 3))).abs().max() < 0.5


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (torch.rand(1, 4, 8, 8), r"\(1, 4, 8, 8\)"),
        (torch.rand(3, 8, 8) * 255, "divide by 255"),
        ((torch.rand(3, 8, 8) * 255).byte(), "divide 8-bit images by 255"),
        (torch.full((3, 8, 8), torch.nan), "not finite"),
        (np.zeros((8, 8), np.uint8), r"\(h, w, 3\)"),
    ],
)
def test_what_is_no_image_is_refused(steered: SteeredSR, wrong: torch.Tensor, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        steered(wrong)


def test_a_policy_of_another_ldm_is_refused_or_warned_about(tmp_path: Path, ldm_folder: Path) -> None:
    save_policy(BetaPolicy(spec(), (8,)), tmp_path / "policy", {"ldm_digest": "0" * 64, "ldm_id": "other"})
    with pytest.raises(UserError, match="learned with the LDM 'other'"):
        SteeredSR.load(str(tmp_path / "policy"), str(ldm_folder))
    with pytest.warns(UserWarning, match="learned with the LDM 'other'"):
        SteeredSR.load(str(tmp_path / "policy"), str(ldm_folder), any_ldm=True)


@given(st.integers(1, 200), st.integers(8, 40), st.data())
def test_tiles_cover_every_pixel_with_weights_that_sum_to_one(size: int, tile: int, data: st.DataObject) -> None:
    overlap, shift, border = (data.draw(st.integers(0, most)) for most in ((tile - 1) // 2, tile - 1, 8))
    grid = Grid(size, tile, overlap, shift, border)
    total = np.zeros(400, np.float64)
    for corner in grid.corners:
        total[corner + 60 : corner + 60 + tile] += grid.weights(corner, 1)
    np.testing.assert_allclose(total[60 - border : size + 60 + border], 1, atol=1e-6)
    begin = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(begin + 1, size))
    assert list(grid.touching(begin, end)) == [c for c in grid.corners if c < end and begin < c + tile]


@given(st.integers(1, 12), st.integers(-40, 40), st.integers(1, 40))
def test_mirroring_is_numpy_s_reflect(size: int, begin: int, count: int) -> None:
    line = np.arange(size)
    padded = np.pad(line, 100, mode="reflect") if size > 1 else np.zeros(201, int)
    np.testing.assert_array_equal(
        line[reflected(begin, begin + count, size)], padded[100 + begin : 100 + begin + count]
    )
