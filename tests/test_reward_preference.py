"""The reward's table and preferences in words."""

import numpy as np
import pytest

from orl_ldm.errors import UserError
from orl_ldm.reward import SETTINGS, TERMS, as_weights, compose, normalise, preference, weighted


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("distortion=1,speed=0", (0.5, 0.5, 0, 0)),
        ("distortion=1, perception=3", (0.125, 0.125, 0.75, 0)),
        ("lpips=2,nfe=2", (0, 0, 0.5, 0.5)),
        ("distortion=1,psnr=1", (0.75, 0.25, 0, 0)),
        ("perceptual", tuple(SETTINGS["perceptual"].values())),
    ],
)
def test_words_are_shares_that_sum_to_one(text: str, weights: tuple[float, ...]) -> None:
    assert tuple(preference(text).values()) == pytest.approx(weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beauty=1", "unknown preference 'beauty'; choose among distortion, perception, speed, psnr"),
        ("fidelity=1", "unknown preference 'fidelity'"),
        ("speed=much", "'speed=much' is not a name, `=` and a number"),
        ("speed=-1", "must be a finite number that is not negative"),
        ("speed=inf", "must be a finite number"),
        ("speed=0", "weights nothing"),
        ("vivid", "unknown reward setting 'vivid'"),
    ],
)
def test_other_words_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preference(text)


def test_the_reward_is_the_weighted_sum_of_the_normalised_terms() -> None:
    terms = np.array([30.0, 0.8, 0.3, 5.0, 9.9])
    assert normalise(terms, 20).tolist() == pytest.approx([0.75, 0.8, 0.7, 0.75])
    weights = as_weights({"psnr": 1, "ssim": 2, "lpips": 3, "nfe": 4})
    assert compose(terms, weights, 20) == pytest.approx(0.75 + 1.6 + 2.1 + 3.0)


def test_settings_are_of_table_1_and_of_weighted_terms_alone() -> None:
    assert as_weights(SETTINGS["paper"]) == {"psnr": 0.4, "ssim": 0.3, "lpips": 0.2, "nfe": 0.1}
    assert weighted() == ("psnr", "ssim", "lpips", "nfe")
    assert set(TERMS) - set(weighted()) == {"seconds"}


@pytest.mark.parametrize("table", [{"psnr": -1.0}, {"psnr": float("nan")}, {}, {"beauty": 1.0}])
def test_weights_that_cannot_be_are_refused(table: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"finite|unknown reward term 'beauty'"):
        as_weights(table)
