"""LPIPS agrees with three other implementations that are given the same weights."""

from pathlib import Path

import lpips
import piqa.lpips
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.transforms.functional import gaussian_blur

from orl_ldm.errors import UserError
from orl_ldm.metrics import Lpips

LAYERS = ("0", "3", "6", "8", "10")


@pytest.fixture(scope="module")
def distance(weights_file: Path) -> Lpips:
    return Lpips()


def with_backbone(network: nn.Module, backbone: dict[str, Tensor]) -> nn.Module:
    """lpips' and torchmetrics' network (the same slices) with our AlexNet in place of a random one."""
    names = {f"net.slice{i}.{layer}.": f"{layer}." for i, layer in enumerate(LAYERS, start=1)}
    state = {ours + end: backbone[theirs + end] for ours, theirs in names.items() for end in ("weight", "bias")}
    assert not network.load_state_dict(state, strict=False).unexpected_keys
    return network


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
def test_it_is_the_reference_implementation(
    distance: Lpips, backbone: dict[str, Tensor], output: Tensor, target: Tensor
) -> None:
    reference = with_backbone(lpips.LPIPS(net="alex", pnet_rand=True, verbose=False), backbone)
    with torch.no_grad():
        expected = reference(output * 2 - 1, target * 2 - 1).flatten()
        confused = reference(output, target).flatten()
    assert torch.allclose(distance(output, target), expected, atol=1e-6)
    assert (confused - expected).abs().max() > 0.02, "[0, 1] images pass silently there, and give other numbers"


def test_it_is_torchmetrics(distance: Lpips, backbone: dict[str, Tensor], output: Tensor, target: Tensor) -> None:
    reference = with_backbone(_LPIPS(net="alex", pnet_rand=True), backbone)
    with torch.no_grad():
        expected = reference(output, target, normalize=True).flatten()
    assert torch.allclose(distance(output, target), expected, atol=1e-6)


def test_it_is_piqa_but_for_the_rounding_of_the_means(
    distance: Lpips, backbone: dict[str, Tensor], output: Tensor, target: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """piqa normalises with ImageNet's mean and standard deviation unrounded: 1e-3 of difference at most."""
    alexnet = torchvision.models.AlexNet()
    alexnet.load_state_dict({f"features.{name}": tensor for name, tensor in backbone.items()}, strict=False)
    heads = [distance.get_buffer(f"head{i}").flatten() for i in range(5)]
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: alexnet)
    monkeypatch.setattr(piqa.lpips, "get_weights", lambda network: heads)
    expected = piqa.lpips.LPIPS(network="alex", reduction="none")(output, target)
    assert torch.allclose(distance(output, target), expected, atol=1e-3)


def test_more_blur_is_further_away(distance: Lpips, target: Tensor) -> None:
    blurs = [distance(gaussian_blur(target, [21, 21], [s, s]), target) for s in (0.5, 1.0, 2.0, 4.0)]
    assert (torch.stack(blurs).diff(dim=0) > 0).all()


def test_it_is_a_symmetric_distance(distance: Lpips, output: Tensor, target: Tensor) -> None:
    assert distance(target, target).tolist() == [0] * 4
    assert torch.allclose(distance(output, target), distance(target, output), atol=1e-6)


def test_it_keeps_no_gradient_and_ignores_autocast(distance: Lpips, output: Tensor, target: Tensor) -> None:
    with torch.autocast("cpu"):
        inside = distance(output.clone().requires_grad_(), target)
    assert not inside.requires_grad
    assert torch.equal(inside, distance(output, target))


def test_alexnet_needs_31_pixels(distance: Lpips) -> None:
    assert distance(torch.zeros(1, 3, 31, 40), torch.zeros(1, 3, 31, 40)).tolist() == [0]
    with pytest.raises(UserError, match="at least 31 x 31 px, got 40 x 30"):
        distance(torch.zeros(1, 3, 30, 40), torch.zeros(1, 3, 30, 40))
