"""Metrics score a batch under the contract."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.images.resample import to_8bit
from orl_ldm.metrics import Metrics, psnr, ssim, ssim_map, tiles
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


def test_too_small_an_image_is_refused_with_its_size(metrics: Metrics) -> None:
    small = torch.zeros(1, 3, 30, 64)
    with pytest.raises(UserError, match="at least 31 x 31 px, got 64 x 30"):
        metrics(small, small)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x * 2 - 1, r"output has values in \[-1"),
        (lambda x: x * 255, "output has values in .*divide by 255"),
        (lambda x: x / 0, "output holds values that are not finite.*ldm.dtype"),
        (lambda x: (x * 255).byte(), "output is torch.uint8"),
        (lambda x: x[:, :1], r"output has shape \(4, 1, 96, 96\)"),
        (lambda x: x[..., :-1], r"output has shape \(4, 3, 96, 95\) but target has \(4, 3, 96, 96\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    metrics: Metrics, target: Tensor, change: Callable[[Tensor], Tensor], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        metrics(change(target), target)


def test_the_caller_s_autocast_and_default_dtype_do_not_matter(
    output: Tensor, target: Tensor, metrics: Metrics
) -> None:
    expected = metrics(output, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Metrics()(output, target), expected)
    torch.set_default_dtype(torch.float64)
    try:
        found = Metrics()(output.double(), target.double())
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(40, 337), (345, 331)])
def test_tiles_change_no_number(metrics: Metrics, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    target = F.interpolate(torch.rand(1, 3, 40, 40, generator=generator), size=size, mode="bicubic").clamp(0, 1)
    output = (target + 0.1 * torch.rand(target.shape, generator=generator)).clamp(0, 1)
    whole, maps = metrics(output, target), (ssim_map(output, target), *metrics._metrics["lpips"].maps(output, target))
    assert maps[0].shape == (1, *size)
    monkeypatch.setattr(tiles, "SIDE", 320)
    for found, expected in zip(
        (ssim_map(output, target), *metrics._metrics["lpips"].maps(output, target)), maps, strict=True
    ):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(metrics(output, target), whole, atol=1e-5, rtol=1e-5)


MEMORY = """
import resource, torch
from orl_ldm.metrics import Metrics
torch.set_num_threads(1)
metrics, small, large = Metrics(), torch.rand(1, 3, 64, 64), torch.rand(1, 3, 1024, 1024)
metrics(small, small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
metrics(large, large)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_the_memory_of_a_large_image_is_bounded(weights_file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    images = 2 * 3 * 1024 * 1024 * 4
    assert int(done.stdout) * 1024 < 0.5e9 + 2 * images


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_numbers(metrics: Metrics, output: Tensor, target: Tensor) -> None:
    """Also with TF32 and autocast on, either of which would cost SSIM its second decimal."""
    with torch.autocast("cuda"), torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        scores = Metrics(device="cuda")(output, target)
    assert torch.allclose(scores.cpu(), metrics(output, target), atol=1e-4)
