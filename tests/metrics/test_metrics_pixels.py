"""PSNR and SSIM agree with three other implementations, up to differences that are named here."""

import numpy as np
import piqa.psnr
import piqa.ssim
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio as skimage_psnr
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from orl_ldm.errors import UserError
from orl_ldm.metrics import psnr, ssim

BORDER = 5  # half of SSIM's window


def skimage_ssim_map(output: Tensor, target: Tensor) -> np.ndarray:
    """scikit-image's SSIM at every pixel and channel of one image, in Wang's setting: (H, W, 3)."""
    a, b = (x.permute(1, 2, 0).double().numpy() for x in (output, target))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    _, full = skimage_ssim(a, b, channel_axis=2, full=True, **options)  # type: ignore[no-untyped-call]
    return np.asarray(full)


def torchmetrics_ssim_map(output: Tensor, target: Tensor) -> Tensor:
    """torchmetrics' SSIM at every pixel and channel, in double precision: (B, C, H, W)."""
    a, b = output.double(), target.double()
    return structural_similarity_index_measure(a, b, data_range=1.0, reduction="none", return_full_image=True)[1]


def test_psnr_is_that_of_scikit_image(output: Tensor, target: Tensor) -> None:
    pairs = zip(target.numpy(), output.numpy(), strict=True)
    expected = [skimage_psnr(a, b, data_range=1) for a, b in pairs]  # type: ignore[no-untyped-call]
    assert psnr(output, target).tolist() == pytest.approx(expected, abs=1e-4)


def test_psnr_is_that_of_piqa_but_for_its_epsilon(output: Tensor, target: Tensor) -> None:
    """piqa adds 1e-8 to the MSE: unseen here, but identical images are 80 dB to it and 100 dB to us."""
    assert torch.allclose(psnr(output, target), piqa.psnr.psnr(output, target, epsilon=0), atol=1e-4)
    assert torch.allclose(psnr(output, target), piqa.psnr.psnr(output, target), atol=1e-2)
    assert piqa.psnr.psnr(target, target).tolist() == pytest.approx([80] * 4)
    assert psnr(target, target).tolist() == [100] * 4


def test_psnr_is_per_image_where_torchmetrics_pools(output: Tensor, target: Tensor) -> None:
    """The pooled number is that of the mean error, always below the mean of the numbers."""
    pooled = peak_signal_noise_ratio(output, target, data_range=1.0)
    mse = (output - target).square().mean((1, 2, 3))
    assert pooled.item() == pytest.approx(-10 * mse.mean().log10().item(), abs=1e-4)
    assert psnr(output, target).tolist() == pytest.approx((-10 * mse.log10()).tolist(), abs=1e-4)
    assert psnr(output, target).mean() > pooled + 0.5


def test_ssim_is_that_of_torchmetrics_per_image(output: Tensor, target: Tensor) -> None:
    for i in range(len(target)):
        pair = output[i : i + 1], target[i : i + 1]
        expected = structural_similarity_index_measure(*pair, data_range=1.0)
        assert isinstance(expected, Tensor)
        assert ssim(output, target)[i].item() == pytest.approx(expected.item(), abs=1e-6)


def test_ssim_is_that_of_piqa_and_scikit_image_but_for_the_border(output: Tensor, target: Tensor) -> None:
    """All three have one map inside. At the 5 px of border piqa has no values, scikit-image has some (mirrored
    otherwise than torchmetrics') but leaves them out of its mean, and the contract counts them."""
    ours = torchmetrics_ssim_map(output, target)
    # E[x^2] - E[x]^2 in float32 costs a few 1e-5 in flat regions
    assert torch.allclose(ours.mean((1, 2, 3)).float(), ssim(output, target), atol=1e-4)
    inside = ours[..., BORDER:-BORDER, BORDER:-BORDER]

    kernel = piqa.ssim.gaussian_kernel(11, sigma=1.5).repeat(3, 1, 1).double()
    theirs, _ = piqa.ssim.ssim(output.double(), target.double(), kernel)  # the kernel itself is rounded to float32
    assert torch.allclose(inside.mean((1, 2, 3)), theirs, atol=5e-5)

    for i in range(len(target)):
        their_map = skimage_ssim_map(output[i], target[i])[BORDER:-BORDER, BORDER:-BORDER]
        assert np.abs(their_map.transpose(2, 0, 1) - inside[i].numpy()).max() < 1e-6

    difference = (inside.mean((1, 2, 3)) - ssim(output, target)).abs()
    assert 1e-4 < difference.max() < 0.02


def test_identical_images_have_ssim_one(target: Tensor) -> None:
    assert ssim(target, target).tolist() == pytest.approx([1] * 4)


def test_one_channel_is_enough(output: Tensor, target: Tensor) -> None:
    assert ssim(output[:, :1], target[:, :1]).shape == psnr(output[:, :1], target[:, :1]).shape == (4,)


def test_ssim_is_not_touched_by_autocast(output: Tensor, target: Tensor) -> None:
    with torch.autocast("cpu"):
        inside = ssim(output, target)
    assert torch.equal(inside, ssim(output, target))


def test_ssim_needs_its_window() -> None:
    assert ssim(torch.zeros(1, 3, 11, 12), torch.zeros(1, 3, 11, 12)).tolist() == [1]
    with pytest.raises(UserError, match="at least 11 x 11 px, got 12 x 10"):
        ssim(torch.zeros(1, 3, 10, 12), torch.zeros(1, 3, 10, 12))
