"""Metrics mean what their names say, and alarms ring when they should."""

import math

import pytest
import torch

from orl_ldm.learn.metrics import alarms, explained_variance, importance_sampled, not_finite, ratios, spread


def test_the_effective_sample_size_is_the_fraction_that_counts() -> None:
    assert ratios(torch.zeros(8))["offline/effective_sample_size"] == pytest.approx(1.0)
    one_of_eight = ratios(torch.tensor([50.0] + [0.0] * 7))
    assert one_of_eight["offline/effective_sample_size"] == pytest.approx(1 / 8)
    assert one_of_eight["offline/largest_ratio"] == pytest.approx(math.exp(50), rel=1e-4)


def test_episodes_are_weighted_by_the_product_of_their_ratios() -> None:
    log_ratio = torch.tensor([2.0, 1.5]).log().repeat(2)[:3]  # episode 0: 2 * 1.5 = 3, episode 1: 2
    estimate = importance_sampled(log_ratio, torch.tensor([0, 0, 1]), torch.tensor([1.0, 0.0]))
    assert estimate == pytest.approx(3 / 5)


def test_explained_variance_is_one_for_the_truth_and_zero_for_a_constant() -> None:
    truth = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert explained_variance(truth, truth) == 1.0
    assert explained_variance(torch.ones(100), truth) == pytest.approx(0.0)
    assert explained_variance(truth, torch.ones(100)) == 0.0


def test_alarms_name_the_metric_its_value_and_what_to_do() -> None:
    assert alarms({"losses/approx_kl": 0.1, "losses/clipfrac": 0.5}) == {}
    assert alarms({"losses/approx_kl": 3.14159}) == {
        "losses/approx_kl": "losses/approx_kl is 3.14: the policy moves too fast; lower the learning rate"
    }


def test_nan_and_infinity_are_not_finite() -> None:
    assert not_finite({"a": 1.0, "b": math.nan, "c": math.inf}) == ["b", "c"]


def test_saturation_is_that_of_the_worst_free_action() -> None:
    alpha, beta = torch.tensor([[1.0, 50.0, 3.0], [1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.5, 2.0], [1.0, 2.0, 2.0]])
    found = spread(alpha, beta, ("", "step", "eta"))
    assert set(found) == {"policy/entropy_step", "policy/entropy_eta", "policy/saturation", "policy/at_limit"}
    assert (found["policy/saturation"], found["policy/at_limit"]) == (0.5, 0.0)
    uniform = spread(alpha, beta, ("detail", "step", "eta"))
    assert (uniform["policy/entropy_detail"], uniform["policy/at_limit"]) == (pytest.approx(0.0, abs=1e-6), 1.0)
    assert "policy/at_limit" in alarms(uniform) and not alarms(found)
    low = spread(torch.ones(2, 1), torch.full((2, 1), 9.0), ("step",))  # a mean of 0.1, as that of stopping
    assert low["policy/at_limit"] == 0
