"""Means and paired intervals against the obvious way to compute them."""

import numpy as np
import pandas as pd
import pytest
from fake_evaluation import METHODS, SCENES, per_image

from orl_ldm.errors import UserError
from orl_ldm.report import paired_intervals, summarise
from orl_ldm.report.statistics import changes, columns_of


def two_methods(differences: list[float], metric: str = "psnr") -> pd.DataFrame:
    """Methods a and b on as many images; a is better or worse by `differences` in one metric, alike in the others."""
    images = [f"image {i}" for i in range(len(differences))]
    frames = []
    for method, extra in (("a", np.array(differences)), ("b", np.zeros(len(images)))):
        frame = pd.DataFrame({"method": method, "image": images, "scene": "river"})
        for name in ("psnr", "ssim", "lpips", "nfe", "seconds", "reward"):
            frame[name] = np.arange(len(images)) * 10.0 + (extra if name == metric else 0.0)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("by_scene", [False, True])
def test_means_are_those_of_a_loop(by_scene: bool) -> None:
    table = per_image(24)
    means = summarise(table, by_scene)
    assert len(means) == len(METHODS) * (len(SCENES) if by_scene else 1)
    for _, mean in means.iterrows():
        rows = [
            row
            for _, row in table.iterrows()
            if row["method"] == mean["method"] and (not by_scene or row["scene"] == mean["scene"])
        ]
        assert mean["count"] == len(rows)
        for metric in columns_of(table):
            assert mean[metric.name] == pytest.approx(sum(row[metric.name] for row in rows) / len(rows))


def test_methods_keep_the_order_of_first_appearance_even_when_rows_are_mixed() -> None:
    table = per_image(8)
    mixed = table.sort_values("image", kind="stable")
    assert list(summarise(mixed, by_scene=False)["method"]) == list(METHODS)
    assert list(summarise(mixed, by_scene=True)["method"].unique()) == list(METHODS)


def test_differences_and_their_interval_match_a_naive_bootstrap() -> None:
    table = per_image(16)
    result = changes(paired_intervals(table, "steered", "bicubic"))["lpips"]
    values = {(row["method"], row["image"]): float(row["lpips"]) for _, row in table.iterrows()}
    differences = [v - values["bicubic", image] for (method, image), v in values.items() if method == "steered"]
    rng = np.random.default_rng(3)
    means = [np.mean([differences[i] for i in rng.integers(0, 16, 16)]) for _ in range(2000)]
    assert result.difference == pytest.approx(np.mean(differences))
    width = result.high - result.low
    assert [result.low, result.high] == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=0.08 * width)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(80):
        table = two_methods(list(rng.normal(0.3, 1.0, 40)))
        change = changes(paired_intervals(table, "a", "b", seed=repeat, resamples=150))["psnr"]
        covered += change.low < 0.3 < change.high
    assert 0.88 <= covered / 80 <= 0.99


def test_pairing_removes_what_images_have_in_common() -> None:
    change = changes(paired_intervals(two_methods([0.1] * 10), "a", "b"))["psnr"]  # images differ by 10 dB
    assert [change.low, change.high] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("metric", "won"),
    [("psnr", 0.75), ("ssim", 0.75), ("reward", 0.75), ("lpips", 0.25), ("nfe", 0.25), ("seconds", 0.25)],
)
def test_a_larger_value_wins_or_loses_as_the_metric_has_it(metric: str, won: float) -> None:
    table = two_methods([1.0, 1.0, 1.0, -1.0], metric)
    assert paired_intervals(table, "a", "b").set_index("metric").loc[metric, "won"] == won


def test_a_gain_is_a_lower_lpips_and_a_higher_psnr() -> None:
    for metric, mark in (("psnr", "gain"), ("lpips", "loss"), ("nfe", "loss"), ("reward", "gain")):
        table = two_methods([1.0, 1.1, 0.9, 1.0], metric)
        assert changes(paired_intervals(table, "a", "b"))[metric].mark == mark
        assert changes(paired_intervals(table, "b", "a"))[metric].mark == {"gain": "loss", "loss": "gain"}[mark]
    assert changes(paired_intervals(two_methods([1.0, -1.0, 0.5, -0.5]), "a", "b"))["psnr"].mark == ""


def test_ties_count_half() -> None:
    assert paired_intervals(two_methods([0.0] * 4), "a", "b")["won"].tolist() == [0.5] * 6


def test_one_image_gives_no_interval_and_no_verdict() -> None:
    change = changes(paired_intervals(two_methods([2.0]), "a", "b"))["psnr"]
    assert np.isnan(change.low)
    assert change.mark == ""
    assert change.interval == "[one image]"


def test_only_shared_images_are_compared() -> None:
    table = two_methods([1.0, 1.0, 5.0])
    table = table[~((table["method"] == "b") & (table["image"] == "image 2"))]
    result = paired_intervals(table, "a", "b").set_index("metric")
    assert result.loc["psnr", "difference"] == pytest.approx(1.0)
    assert result.loc["psnr", "images"] == 2


def test_unknown_methods_and_methods_without_shared_images_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"no method 'c' .* 'a', 'b'"):
        paired_intervals(two_methods([1.0]), "a", "c")
    table = two_methods([1.0, 1.0])
    apart = table[(table["method"] == "a") ^ (table["image"] == "image 0")]
    with pytest.raises(UserError, match="share no image"):
        paired_intervals(apart, "a", "b")
