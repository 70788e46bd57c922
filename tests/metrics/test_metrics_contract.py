"""The contract says what is computed, and refuses what it does not cover."""

import json

import pytest
import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.images.resample import to_8bit
from orl_ldm.metrics import Contract
from orl_ldm.metrics.contract import check_pair, luma


def test_8_bits_are_the_levels_of_a_file() -> None:
    x = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 100.2 / 255, 1.0, 1.3])
    assert to_8bit(x).mul(255).tolist() == pytest.approx([0, 0, 0, 1, 100, 255, 255])


def test_rounding_leaves_8_bit_images_alone() -> None:
    levels = torch.arange(256) / 255
    assert torch.equal(to_8bit(levels), levels)


def test_luma_is_matlabs() -> None:
    """rgb2ycbcr of black, white, red, green and blue in MATLAB: 16, 235, 81.481, 144.553 and 40.966."""
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).float()
    y = luma(colours[:, :, None, None]).flatten() * 255
    assert y.tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966], abs=1e-4)


def test_a_contract_is_plain_data_that_tells_its_options_apart() -> None:
    contracts = [Contract(), Contract(crop=4), Contract(y_channel=True)]
    stored = [json.dumps(contract.describe()) for contract in contracts]
    assert len(set(stored)) == 3
    assert json.loads(stored[1])["crop"] == 4


@pytest.mark.parametrize(("options", "word"), [({"version": "2"}, "version"), ({"crop": -1}, "crop")])
def test_a_contract_that_cannot_be_kept_is_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Contract(**options)  # type: ignore[arg-type]


GOOD = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (GOOD * 2 - 1, r"values in \[-1, 1\].*x / 2 \+ 0.5"),
        (GOOD * 255, r"metrics take \[0, 1\]"),
        ((GOOD * 255).byte(), "uint8.*divide 8-bit images by 255"),
        (GOOD[0], r"shape \(3, 32, 32\).*\(B, 3, H, W\)"),
        (GOOD[:, :1], r"shape \(2, 1, 32, 32\)"),
        (GOOD[:0], r"shape \(0, 3, 32, 32\)"),
        (GOOD[:, :, :31], r"output has shape \(2, 3, 31, 32\) but target has \(2, 3, 32, 32\)"),
    ],
)
def test_images_outside_the_contract_are_refused_with_a_sentence(output: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_pair(output, GOOD)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_overflow_points_to_the_dtype(value: float) -> None:
    output = GOOD.clone()
    output[1, 2, 3, 4] = value
    with pytest.raises(UserError, match=r"output images whose values are not finite.*ldm\.dtype"):
        check_pair(output, GOOD)


def test_rounding_noise_around_the_range_is_forgiven() -> None:
    check_pair(GOOD * (1 + 2e-4) - 1e-4, GOOD)
