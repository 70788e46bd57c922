"""Images of a caller are checked in one place, and each fault is named with its mend."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.images.check import as_images
from orl_ldm.images.resample import to_8bit

LR = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0))


def but_one(value: float) -> Tensor:
    changed = LR.clone()
    changed[1, 2, 3, 4] = value
    return changed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_sound_batch_comes_back_as_float32(dtype: torch.dtype) -> None:
    found = as_images(LR.to(dtype))
    assert found.dtype == torch.float32
    assert found.shape == LR.shape
    torch.testing.assert_close(found, LR, atol=4e-3, rtol=0)
    assert torch.equal(as_images(LR[0]), LR[:1])


def test_rounding_noise_around_the_range_is_forgiven() -> None:
    found = as_images(LR * (1 + 1e-3) - 5e-4)
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (LR * 255, r"lr has values in \[.*, 25\d\], not in \[0, 1\]: divide by 255"),
        (LR * 2 - 1, r"values in \[-0.998, 1\].*x / 2 \+ 0.5"),
        ((LR * 255).byte(), "lr is torch.uint8.*divide 8-bit images by 255"),
        (LR > 0.5, "lr is torch.bool: give floats"),
        (LR.to(torch.complex64), "lr is torch.complex64: give floats"),
        (but_one(torch.nan), "not finite.*ldm.dtype"),
        (but_one(-torch.inf), "not finite"),
        (but_one(1.01), "not in .*clamp them"),
        (LR[0, 0], r"shape \(8, 10\): give RGB images as \(B, 3, h, w\)"),
        (LR[None], r"shape \(1, 2, 3, 8, 10\)"),
        (torch.rand(2, 4, 8, 8), "4 channels where 3 are expected: give red, green and blue alone"),
        (torch.rand(1, 8, 8), "1 channels where 3"),
        (torch.rand(2, 8, 8, 3), "move the channels there with permute"),
        (LR[:0], r"shape \(0, 3, 8, 10\): it holds no pixels"),
        (LR[..., :0], "holds no pixels"),
        (LR.numpy(), "lr is a ndarray: give a float tensor"),
        (None, "lr is a NoneType"),
    ],
)
def test_each_fault_is_named(x: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        as_images(x)


def test_what_is_checked_is_called_by_its_name() -> None:
    with pytest.raises(UserError, match="target is torch"):
        as_images((LR * 255).int(), "target")


def test_autocast_and_default_dtype_do_not_matter() -> None:
    expected = as_images(LR)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(as_images(LR), expected)
            assert as_images(LR).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_8_bits_are_the_levels_of_a_file() -> None:
    x = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 100.2 / 255, 1.0, 1.3])
    assert to_8bit(x).mul(255).tolist() == pytest.approx([0, 0, 0, 1, 100, 255, 255])
    levels = torch.from_numpy(np.arange(256, dtype=np.float32)) / 255
    assert torch.equal(to_8bit(levels), levels)
