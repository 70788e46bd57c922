"""The numbers that a redesign must not move."""

import golden_runs
import numpy as np
import pytest

GOLDEN = np.load(golden_runs.FILE, allow_pickle=False)


def compare(run: str, found: golden_runs.Arrays, atol: float) -> None:
    assert {f"{run}/{name}" for name in found} == {name for name in GOLDEN.files if name.startswith(f"{run}/")}
    for name, array in found.items():
        np.testing.assert_allclose(array.astype(np.float64), GOLDEN[f"{run}/{name}"], atol=atol, rtol=1e-3)


def test_a_roll_out_logs_the_same_numbers() -> None:
    found = golden_runs.rollout()
    difference = np.abs(found["images"].astype(int) - GOLDEN["rollout/images"].astype(int))
    assert difference.max() <= 1  # a rounding to 8 bits may fall on either side
    compare("rollout", {**found, "images": GOLDEN["rollout/images"]}, atol=1e-3)


@pytest.mark.parametrize("algo", ["critics", "ppo", "bppo"])
def test_a_training_learns_the_same_policy(algo: str) -> None:
    compare(algo, golden_runs.training(algo), atol=2e-3)
