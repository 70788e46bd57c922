"""The synthetic scenes: the same bytes every time, varied, and told apart by simple statistics."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from orl_ldm.errors import UserError
from orl_ldm.images.synthetic import SCENES, render

Image = npt.NDArray[np.uint8]


def digest(image: Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def features(image: Image) -> npt.NDArray[np.float64]:
    """Mean and spread of each channel, and the mean gradient and its peakedness at three scales."""
    pixels = image.astype(np.float64)
    grey = pixels.mean(2)
    values = [*pixels.mean((0, 1)), *np.ptp(np.percentile(pixels, [5, 95], (0, 1)), 0)]
    values += [float(np.mean(pixels[..., a] - pixels[..., b])) for a, b in ((0, 1), (1, 2))]
    for step in (1, 2, 4, 8):
        change = np.abs(grey[step:] - grey[:-step])
        values += [np.log(change.mean()), np.log((change**2).mean() / change.mean() ** 2)]
    return np.array(values)


def test_the_eight_scenes_are_named_in_order() -> None:
    assert SCENES == (
        "commercial_area",
        "dense_residential",
        "desert",
        "forest",
        "industrial_area",
        "railway_station",
        "river",
        "runway",
    )


@pytest.mark.parametrize("scene", SCENES)
def test_a_picture_follows_from_scene_seed_and_index_alone(scene: str) -> None:
    first = render(scene, seed=5, index=2, size=64)
    render(scene, seed=5, index=1, size=64)
    np.random.seed(1)  # noqa: NPY002 (the generator that all share)
    np.random.random(10)  # noqa: NPY002
    assert np.array_equal(first, render(scene, seed=5, index=2, size=64))


def test_another_process_draws_the_same_pictures_in_another_order() -> None:
    code = (
        "import hashlib; from orl_ldm.images.synthetic import SCENES, render\n"
        "for s in reversed(SCENES): print(s, hashlib.sha256(render(s, 11, 4, 64).tobytes()).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert dict(line.split() for line in out.splitlines()) == {s: digest(render(s, 11, 4, 64)) for s in SCENES}


@pytest.mark.parametrize("scene", SCENES)
def test_another_seed_or_index_is_another_picture(scene: str) -> None:
    pictures = [render(scene, seed, index, 64) for seed in (0, 1) for index in range(3)]
    assert len({digest(p) for p in pictures}) == len(pictures)
    differences = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(pictures)]
    assert min(differences) > 4


@pytest.mark.parametrize(
    ("scene", "size"), [(s, size) for i, s in enumerate(SCENES) for size in (16, (31, 64, 100, 256, 384)[i % 5])]
)
def test_any_size_is_an_rgb_picture_of_some_range(scene: str, size: int) -> None:
    image = render(scene, seed=0, index=0, size=size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert np.ptp(image) > 30


@pytest.mark.parametrize("scene", SCENES)
def test_a_smaller_picture_shows_the_same_ground(scene: str) -> None:
    large = render(scene, seed=3, index=0, size=256).astype(float)
    small = render(scene, seed=3, index=0, size=128).astype(float)
    # Compared at 32 x 32, where sensor noise and the finest texture have averaged out.
    coarse = [image.reshape(32, len(image) // 32, 32, -1, 3).mean((1, 3)).ravel() for image in (large, small)]
    assert np.corrcoef(*coarse)[0, 1] > 0.9


def test_scenes_are_told_apart_by_simple_statistics() -> None:
    def describe(indices: range) -> npt.NDArray[np.float64]:
        return np.array([[features(render(scene, 1, i, 96)) for i in indices] for scene in SCENES])

    known, unseen = describe(range(8)), describe(range(100, 105))  # (scenes, pictures, features)
    spread = (known - known.mean(1, keepdims=True)).reshape(-1, known.shape[-1])
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(spread.T) + 1e-6 * np.eye(spread.shape[1])))
    distances = np.linalg.norm((unseen[:, :, None] - known.mean(1)) @ whiten.T, axis=-1)
    right = distances.argmin(-1) == np.arange(len(SCENES))[:, None]
    assert right.mean() >= 0.8, dict(zip(SCENES, right.mean(1), strict=True))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: render("volcano", 0, 0), "volcano.*commercial_area.*runway"),
        (lambda: render("desert", 0, 0, size=15), "15.*16"),
        (lambda: render("desert", -1, 0), "seed -1"),
    ],
)
def test_impossible_requests_say_what_is_possible(call: Callable[[], Image], words: str) -> None:
    with pytest.raises(UserError, match=words):
        call()
