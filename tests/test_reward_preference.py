"""Preferences in words."""

from dataclasses import astuple

import numpy as np
import pytest

from orl_ldm.errors import UserError
from orl_ldm.reward import SETTINGS, RewardWeights, compose, normalise, preference


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("fidelity=1,speed=0", (0.5, 0.5, 0, 0)),
        ("fidelity=1, perception=3", (0.125, 0.125, 0.75, 0)),
        ("lpips=2,nfe=2", (0, 0, 0.5, 0.5)),
        ("fidelity=1,psnr=1", (0.75, 0.25, 0, 0)),
        ("perceptual", astuple(SETTINGS["perceptual"])),
    ],
)
def test_words_are_shares_that_sum_to_one(text: str, weights: tuple[float, ...]) -> None:
    assert astuple(preference(text)) == pytest.approx(weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beauty=1", "unknown preference 'beauty'; choose among fidelity, perception, speed, psnr"),
        ("fidelity=much", "'fidelity=much' is not a name, `=` and a number"),
        ("fidelity=-1", "must be a finite number that is not negative"),
        ("fidelity=inf", "must be a finite number"),
        ("fidelity=0", "weighs nothing"),
        ("vivid", "unknown reward setting 'vivid'"),
    ],
)
def test_other_words_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preference(text)


def test_the_reward_is_the_weighed_sum_of_the_normalised_terms() -> None:
    terms = np.array([30.0, 0.8, 0.3, 5.0, 9.9])
    assert normalise(terms, 20).tolist() == pytest.approx([0.75, 0.8, 0.7, 0.75])
    assert compose(terms, RewardWeights(1, 2, 3, 4), 20) == pytest.approx(0.75 + 1.6 + 2.1 + 3.0)
