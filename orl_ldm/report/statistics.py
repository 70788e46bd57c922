"""Means per method, and paired differences between two methods with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from orl_ldm.errors import UserError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A column of per_image.csv: how it is called, measured and printed, and which direction is better."""

    name: str
    label: str
    unit: str = ""
    digits: int = 4
    higher_is_better: bool = True

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float) -> str:
        """The value with this metric's digits."""
        return f"{value:.{self.digits}f}"

    def change(self, value: float) -> str:
        """A signed difference with this metric's digits and a typographic minus."""
        return f"{value:+.{self.digits}f}".replace("-", "\N{MINUS SIGN}")


#: The columns that every evaluation has, in the order in which they are shown. Seconds and NFE are per image.
METRICS: tuple[Metric, ...] = (
    Metric("psnr", "PSNR", "dB", 2),
    Metric("ssim", "SSIM", digits=3),
    Metric("lpips", "LPIPS", digits=3, higher_is_better=False),
    Metric("nfe", "NFE", digits=1, higher_is_better=False),
    Metric("seconds", "time", "s", 3, higher_is_better=False),
    Metric("reward", "reward"),
)


def metrics_of(frame: pd.DataFrame) -> tuple[Metric, ...]:
    """The metrics among a frame's columns: METRICS first, then rewards under other settings (`reward_<setting>`)."""
    other = [name for name in frame.columns if name.startswith("reward_")]
    known = tuple(metric for metric in METRICS if metric.name in frame.columns)
    return known + tuple(_other(name) for name in other)


def _other(name: str) -> Metric:
    """The reward under another setting."""
    return Metric(name, name.replace("_", " ", 1))


def summarise(per_image: pd.DataFrame, by_scene: bool) -> pd.DataFrame:
    """Mean of every metric per method, or per method and scene, and the count of images.

    Methods, and scenes within a method, come in the order in which they first appear.
    """
    keys = ["method", "scene"] if by_scene else ["method"]
    ordered = per_image.assign(**{key: pd.Categorical(per_image[key], per_image[key].unique()) for key in keys})
    groups = ordered.groupby(keys, observed=True)
    means = groups[[metric.name for metric in metrics_of(per_image)]].mean()
    means.insert(0, "count", groups.size())
    return means.reset_index().astype(dict.fromkeys(keys, "object"))


def paired_intervals(
    per_image: pd.DataFrame, method: str, reference: str, seed: int = 0, resamples: int = 2000
) -> pd.DataFrame:
    """`method` minus `reference` over the images that both have; one row per metric.

    Columns: metric; difference (mean, in the metric's unit); low and high, the 95% percentile interval of that mean
    when whole images are drawn again with replacement, NaN for fewer than two images; won, the share of images on
    which `method` is better (lower LPIPS, NFE and seconds are better; a tie counts half); images, their number.
    Pairing matters because images differ from each other far more than methods do.
    Raises UserError when a method is unknown or the two share no image.
    """
    metrics = metrics_of(per_image)
    names = [metric.name for metric in metrics]
    pair = []
    for name in (method, reference):
        rows = per_image[per_image["method"] == name]
        if rows.empty:
            known = ", ".join(map(repr, per_image["method"].unique()))
            raise UserError(f"there is no method {name!r} in the evaluation; it has {known}")
        pair.append(rows.set_index("image")[names])
    common = pair[0].index.intersection(pair[1].index)
    if common.empty:
        raise UserError(f"methods {method!r} and {reference!r} share no image, so they cannot be compared in pairs")
    change = (pair[0].loc[common] - pair[1].loc[common]).to_numpy(dtype=np.float64)  # (N, M)
    better = change * [1 if metric.higher_is_better else -1 for metric in metrics]
    low, high = _bootstrap(change, seed, resamples)
    return pd.DataFrame(
        {
            "metric": names,
            "difference": change.mean(0),
            "low": low,
            "high": high,
            "won": (better > 0).mean(0) + 0.5 * (better == 0).mean(0),
            "images": len(common),
        }
    )


def _bootstrap(change: Floats, seed: int, resamples: int) -> tuple[Floats, Floats]:
    """Ends (M,) of the 95% percentile interval of the mean over images of `change` (N, M)."""
    count, metrics = change.shape
    if count < 2:
        return np.full(metrics, np.nan), np.full(metrics, np.nan)
    rng, share = np.random.default_rng(seed), np.full(count, 1 / count)
    # How often each image is drawn is multinomial; to weight by it is to draw with replacement, and quicker.
    means = np.stack([rng.multinomial(count, share) @ change / count for _ in range(resamples)])  # (R, M)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return low, high


@dataclass(frozen=True)
class Change:
    """One row of paired_intervals: a mean difference in a metric, its 95% interval, and the share of images won."""

    metric: Metric
    difference: float
    low: float
    high: float
    won: float

    @property
    def mark(self) -> str:
        """ "gain", "loss" or, when the interval holds zero or is unknown, ""."""
        if self.low > 0 or self.high < 0:
            return "gain" if (self.low > 0) == self.metric.higher_is_better else "loss"
        return ""

    @property
    def text(self) -> str:
        """The difference, signed."""
        return self.metric.change(self.difference)

    @property
    def interval(self) -> str:
        """The interval in brackets, or why there is none."""
        if np.isnan(self.low):
            return "[one image]"
        return f"[{self.metric.change(self.low)}, {self.metric.change(self.high)}]"


def changes(intervals: pd.DataFrame) -> dict[str, Change]:
    """Metric name -> its Change, from the rows that paired_intervals gives for one pair of methods."""
    metrics = {metric.name: metric for metric in METRICS}
    return {
        name: Change(metrics.get(name) or _other(name), float(difference), float(low), float(high), float(won))
        for name, difference, low, high, won in intervals[["metric", "difference", "low", "high", "won"]].to_numpy()
    }


def means_by_method(per_image: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Method -> metric (and "count") -> mean over images."""
    means = summarise(per_image, by_scene=False).set_index("method")
    return {str(method): {str(name): float(mean) for name, mean in row.items()} for method, row in means.iterrows()}
