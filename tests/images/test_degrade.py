"""Degradations: what each part does, that each image has its own draws, and what cannot be read."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from orl_ldm.config import build
from orl_ldm.errors import UserError
from orl_ldm.images.config import DataConfig
from orl_ldm.images.degrade import EDITS, KERNELS, LIMITS, PRESETS, anisotropic, blur, low_resolution, mtf, read, shift
from orl_ldm.images.resample import downscale, to_8bit
from orl_ldm.streams import stream

RNG = stream(0, "degrade", 0)


def picture(size: int = 64) -> Tensor:
    """A smooth random image (3, size, size) in [0, 1]."""
    noise = torch.rand(1, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic", align_corners=False)[0].clamp(0, 1)


@pytest.mark.parametrize("name", ["bicubic", "box", *PRESETS])
def test_every_preset_gives_8_bit_levels_that_depend_on_seed_and_image_alone(name: str) -> None:
    hr = picture()
    first = low_resolution(hr, 4, name, seed=1, image_id=5)
    assert first.shape == (3, 16, 16)
    assert torch.equal(first, to_8bit(first))
    assert torch.equal(first, low_resolution(hr, 4, name, seed=1, image_id=5))


@pytest.mark.parametrize("name", ["noise", "sensor", "jpeg", "bsrgan_light"])
def test_another_image_has_other_draws(name: str) -> None:
    hr = picture()
    assert not torch.equal(low_resolution(hr, 4, name, 1, 5), low_resolution(hr, 4, name, 1, 6))
    assert not torch.equal(low_resolution(hr, 4, name, 1, 5), low_resolution(hr, 4, name, 2, 5))


def test_clean_bicubic_is_about_40_percent_of_the_mixture() -> None:
    hr, clean = picture(), to_8bit(downscale(picture()[None], 4))[0]
    share = np.mean([torch.equal(low_resolution(hr, 4, "mixed", 3, i), clean) for i in range(400)])
    assert 0.32 < share < 0.48


def test_blur_is_scipy_s_gaussian() -> None:
    hr = picture()
    theirs = ndimage.gaussian_filter(hr.numpy(), sigma=(0, 1.6, 1.6), mode="mirror", truncate=5 / 1.6)
    np.testing.assert_allclose(blur(hr, 1.6, 4, RNG).numpy(), theirs, atol=2e-3)


def test_anisotropic_blur_has_the_strength_along_one_direction_and_less_across() -> None:
    """The second moments of a blurred point: their sum lies between once and twice the square of the strength."""
    point = torch.zeros(3, 65, 65)
    point[:, 32, 32] = 1
    spread = anisotropic(point, 4.0, 4, stream(1, "degrade", 1))[0].double()
    offset = torch.arange(65, dtype=torch.double) - 32
    cov = torch.tensor(
        [
            [(spread * offset[:, None] ** 2).sum(), (spread * offset[:, None] * offset).sum()],
            [(spread * offset[:, None] * offset).sum(), (spread * offset**2).sum()],
        ]
    )
    across, along = torch.linalg.eigvalsh(cov).sqrt().tolist()
    assert along == pytest.approx(4.0, rel=0.05)
    assert 0.15 * 4 < across < along


@pytest.mark.parametrize("contrast", [0.3, 0.7])
def test_mtf_is_the_contrast_that_remains_at_the_nyquist_frequency_of_the_lr_grid(contrast: float) -> None:
    """A wave with a period of two LR pixels, eight HR pixels."""
    wave = 0.5 + 0.4 * torch.cos(2 * math.pi * torch.arange(128) / 8).expand(3, 128, 128)
    left = mtf(wave, contrast, 4, RNG)[0, 64, 32:96]
    assert float(left.max() - left.min()) / 0.8 == pytest.approx(contrast, rel=0.05)


def test_a_shift_moves_the_image_by_no_more_than_it_says() -> None:
    point = torch.zeros(3, 33, 33)
    point[:, 16, 16] = 1
    moved = shift(point, 0.5, 4, stream(2, "degrade", 1))[0]
    offset = torch.arange(33.0) - 16
    center = [float((moved.sum(dim) * offset).sum()) for dim in (0, 1)]
    assert all(0 < abs(pixels) <= 0.5 for pixels in center)


def test_noise_has_the_standard_deviation_that_it_says() -> None:
    flat = torch.full((3, 256, 256), 0.5)
    assert float(low_resolution(flat, 4, "bicubic+noise=0.02", 1, 1).std()) == pytest.approx(0.02, rel=0.05)
    dark, bright = (low_resolution(flat * x, 4, "bicubic+shot=0.04", 1, 1).std() for x in (0.5, 1.8))
    assert float(bright / dark) == pytest.approx(math.sqrt(0.9 / 0.25), rel=0.1)


parts = st.sampled_from(sorted(EDITS)).flatmap(
    lambda name: st.floats(*LIMITS.get(name, (0.0, 4.0))).map(lambda strength: f"{name}={strength}")
)


@given(st.lists(parts, max_size=3), st.sampled_from(sorted(KERNELS)), st.lists(parts, max_size=3))
def test_parts_compose(before: list[str], kernel: str, after: list[str]) -> None:
    lr = low_resolution(picture(32), 4, "+".join([*before, kernel, *after]), 1, 1)
    assert lr.shape == (3, 8, 8)
    assert torch.equal(lr, to_8bit(lr))


def test_a_mixture_s_weights_sum_to_one_and_names_stand_for_their_texts() -> None:
    recipes = read("3 mixed | 1 box")
    assert sum(recipe.weight for recipe in recipes) == pytest.approx(1)
    assert recipes[:-1] == tuple(
        type(recipe)(pytest.approx(0.75 * recipe.weight), recipe.parts) for recipe in read("mixed")
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("foggy", r"unknown part 'foggy'.*known: bicubic"),
        ("blur+bicubic", "unknown part 'blur'"),
        ("bicubic+box", "exactly one of bicubic"),
        ("noise=0.1", "exactly one of bicubic"),
        ("blur=3..1+bicubic", "its strength lies between 0 and 64"),
        ("bicubic+jpeg=0", "its strength lies between 1 and 100"),
        ("bicubic+noise=much", "'much' in degradation"),
        ("-1 box | 2 bicubic", "the weight -1"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build(DataConfig, {"degradation": text}, "test")
