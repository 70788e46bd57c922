"""Metrics score a batch under the contract."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.images.resample import to_8bit
from orl_ldm.metrics import Contract, Metrics, psnr, ssim
from orl_ldm.metrics import metrics as module


@pytest.fixture(scope="module")
def metrics(weights_file: Path) -> Metrics:
    return Metrics()


def test_a_row_per_image_with_psnr_ssim_and_lpips(metrics: Metrics, output: Tensor, target: Tensor) -> None:
    scores = metrics(output, target)
    assert scores.shape == (4, 3)
    assert scores.dtype == torch.float32
    assert torch.equal(scores[:, 0], psnr(output, target))
    assert torch.equal(scores[:, 1], ssim(output, target))
    assert scores[3, 0] == scores[:, 0].min(), "the last image has most of the noise"
    assert scores[3, 2] > scores[0, 2]


def test_a_row_does_not_depend_on_its_batch(
    metrics: Metrics, output: Tensor, target: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = metrics(output, target)
    alone = torch.cat([metrics(output[i : i + 1], target[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)
    monkeypatch.setattr(module, "CHUNK_PIXELS", 3 * 96 * 96)  # chunks of three and one
    assert torch.allclose(together, metrics(output, target), atol=1e-5)


def test_the_output_is_rounded_to_8_bits_first(metrics: Metrics, output: Tensor, target: Tensor) -> None:
    unrounded = output + 0.4 / 255 * (1 - 2 * output)  # within the same level, and within [0, 1]
    assert not torch.equal(unrounded, output)
    assert torch.equal(metrics(unrounded, target), metrics(output, target))
    assert torch.equal(to_8bit(unrounded), output)


def test_identical_images_are_finite(metrics: Metrics, target: Tensor) -> None:
    assert metrics(target, target).tolist() == [pytest.approx([100, 1, 0])] * 4


def test_crop_removes_the_border_and_nothing_else(weights_file: Path, output: Tensor, target: Tensor) -> None:
    inside = (..., slice(4, -4), slice(4, -4))
    scores = Metrics(Contract(crop=4))(output, target)
    assert torch.allclose(scores, Metrics()(output[inside], target[inside]), atol=1e-6)

    damaged = output.clone()
    damaged[..., :4, :] = 0
    assert torch.equal(Metrics(Contract(crop=4))(damaged, target), scores)


def test_y_channel_ignores_colour_but_lpips_does_not(weights_file: Path, target: Tensor) -> None:
    grey = target.mean(1, keepdim=True).expand_as(target) * 0.5 + 0.25
    tinted = grey + torch.tensor([0.0, -24.966, 128.553])[:, None, None] / 1000  # leaves Y as it is
    y, rgb = Metrics(Contract(y_channel=True))(tinted, grey), Metrics()(tinted, grey)
    assert y[:, 0].min() > 45
    assert y[:, 1].min() > 0.99
    assert rgb[:, 0].max() < 30
    assert torch.equal(y[:, 2], rgb[:, 2])


def test_y_channel_shrinks_errors_by_the_studio_swing(weights_file: Path) -> None:
    """Y of a grey step of 10 levels is a step of 10 * 219/255: 1.32 dB are won by definition."""
    target = torch.full((1, 3, 32, 32), 100 / 255)
    y, rgb = (Metrics(Contract(y_channel=flag))(target + 10 / 255, target)[0, 0].item() for flag in (True, False))
    assert y - rgb == pytest.approx(1.3220, abs=1e-3)


def test_too_small_an_image_is_refused_with_its_size(weights_file: Path) -> None:
    small = torch.zeros(1, 3, 36, 64)
    with pytest.raises(UserError, match="at least 31 x 31 px, got 56 x 28 after cropping 4 px per side"):
        Metrics(Contract(crop=4))(small, small)


def test_the_range_is_checked(metrics: Metrics, output: Tensor, target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"target has values in \[-1"):
        metrics(output, target * 2 - 1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_numbers(metrics: Metrics, output: Tensor, target: Tensor) -> None:
    """Also with TF32 and autocast on, either of which would cost SSIM its second decimal."""
    with torch.autocast("cuda"), torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        scores = Metrics(device="cuda")(output, target)
    assert torch.allclose(scores.cpu(), metrics(output, target), atol=1e-4)
