"""Means per method, and paired differences between two methods with bootstrap intervals.

The columns are the raw terms of orl_ldm.reward.TERMS, `reward`, and `reward_<setting>` for other settings.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from orl_ldm.errors import UserError
from orl_ldm.reward import TERMS, Term

Floats = npt.NDArray[np.float64]


def reward_column(name: str) -> Term:
    """`reward`, or `reward_<setting>`, as a column like those of TERMS."""
    return Term(name, name.replace("_", " ", 1), "", 4, True, None)


def columns() -> tuple[Term, ...]:
    """The columns that every evaluation has, in the order in which they are shown."""
    return (*TERMS.values(), reward_column("reward"))


def columns_of(frame: pd.DataFrame) -> tuple[Term, ...]:
    """The columns of a frame: those that every evaluation has, then the rewards under other settings."""
    known = tuple(term for term in columns() if term.name in frame.columns)
    return known + tuple(reward_column(name) for name in frame.columns if name.startswith("reward_"))


def title(term: Term) -> str:
    """A column's label with its unit."""
    return f"{term.label} ({term.unit})" if term.unit else term.label


def text(term: Term, value: float) -> str:
    """A value with the column's digits."""
    return f"{value:.{term.digits}f}"


def signed(term: Term, value: float) -> str:
    """A difference with the column's digits and a typographic minus."""
    return f"{value:+.{term.digits}f}".replace("-", "\N{MINUS SIGN}")


def summarise(per_image: pd.DataFrame, by_scene: bool) -> pd.DataFrame:
    """Mean of every column per method, or per method and scene, and the count of images.

    Methods, and scenes within a method, come in the order in which they first appear.
    """
    keys = ["method", "scene"] if by_scene else ["method"]
    ordered = per_image.assign(**{key: pd.Categorical(per_image[key], per_image[key].unique()) for key in keys})
    groups = ordered.groupby(keys, observed=True)
    means = groups[[term.name for term in columns_of(per_image)]].mean()
    means.insert(0, "count", groups.size())
    return means.reset_index().astype(dict.fromkeys(keys, "object"))


def means_by_method(per_image: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Method -> column (and "count") -> mean over images."""
    means = summarise(per_image, by_scene=False).set_index("method")
    return {str(method): {str(name): float(mean) for name, mean in row.items()} for method, row in means.iterrows()}


def paired_intervals(
    per_image: pd.DataFrame, method: str, reference: str, seed: int = 0, resamples: int = 2000
) -> pd.DataFrame:
    """`method` minus `reference` over the images that both have; one row per column of the evaluation.

    Columns: metric; difference (mean, in the metric's unit); low and high, the 95% percentile interval of that mean
    under resampling of images, NaN for fewer than two images; won, the share of images on which `method` is better (a
    tie counts half); images, their number. Pairing matters because images differ far more than methods do.
    Raises UserError when a method is unknown or the two share no image.
    """
    terms = columns_of(per_image)
    names = [term.name for term in terms]
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
    better = change * [1 if term.higher_is_better else -1 for term in terms]
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
    # The counts of a resample with replacement are multinomial; weighting by them is faster than drawing images.
    means = np.stack([rng.multinomial(count, share) @ change / count for _ in range(resamples)])  # (R, M)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return low, high


@dataclass(frozen=True)
class Change:
    """One row of paired_intervals: a mean difference, its 95% interval, and the share of images won."""

    term: Term
    difference: float
    low: float
    high: float
    won: float

    @property
    def mark(self) -> str:
        """ "gain", "loss" or, when the interval holds zero or is unknown, ""."""
        if self.low > 0 or self.high < 0:
            return "gain" if (self.low > 0) == self.term.higher_is_better else "loss"
        return ""

    @property
    def text(self) -> str:
        """The difference, signed."""
        return signed(self.term, self.difference)

    @property
    def interval(self) -> str:
        """The interval in brackets, or why there is none."""
        if np.isnan(self.low):
            return "[one image]"
        return f"[{signed(self.term, self.low)}, {signed(self.term, self.high)}]"


def changes(intervals: pd.DataFrame) -> dict[str, Change]:
    """Column -> its Change, from the rows of paired_intervals for one pair of methods."""
    return {
        name: Change(TERMS.get(name) or reward_column(name), float(difference), float(low), float(high), float(won))
        for name, difference, low, high, won in intervals[["metric", "difference", "low", "high", "won"]].to_numpy()
    }
