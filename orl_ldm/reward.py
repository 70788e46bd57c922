"""The table of reward terms, and the reward composed from them by whoever learns or compares.

    reward = w_psnr PSNR/40 + w_ssim SSIM + w_lpips (1 - LPIPS) + w_nfe (1 - NFE/NFE_max)

Terms are logged raw, so that one buffer serves every weighting. The setting `paper` has the weights of Lyu 2025,
Table 1. Adding a term is one entry here and its metric in orl_ldm.metrics.

Legend: T raw terms, W of them weighted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.errors import UserError

Floats = npt.NDArray[np.floating[Any]]

#: Weights of the reward by the names of the weighted terms, in the table's order.
Weights = dict[str, float]

#: A PSNR of this many dB counts as one.
PSNR_SCALE = 40.0


@dataclass(frozen=True)
class Term:
    """One raw reward term of an episode.

    `normalise` maps raw values and NFE_max to what the weight multiplies, higher is better; terms without it are
    logged but not rewarded.
    """

    name: str
    label: str
    unit: str
    digits: int  # decimals that tables show
    higher_is_better: bool
    normalise: Callable[[Floats, int], Floats] | None


def _table(*terms: Term) -> dict[str, Term]:
    return {term.name: term for term in terms}


#: Every raw term by name, in the order of columns. Seconds depend on the machine and are not rewarded.
TERMS: dict[str, Term] = _table(
    Term("psnr", "PSNR", "dB", 2, True, lambda x, nfe_max: x / PSNR_SCALE),
    Term("ssim", "SSIM", "", 3, True, lambda x, nfe_max: x),
    Term("lpips", "LPIPS", "", 3, False, lambda x, nfe_max: 1 - x),
    Term("nfe", "NFE", "", 1, False, lambda x, nfe_max: 1 - x / nfe_max),
    Term("seconds", "time", "s", 3, False, None),
)

#: The settings that every report shows.
SETTINGS: dict[str, Weights] = {
    "paper": {"psnr": 0.4, "ssim": 0.3, "lpips": 0.2, "nfe": 0.1},
    "balanced": {"psnr": 0.2, "ssim": 0.2, "lpips": 0.5, "nfe": 0.1},
    "perceptual": {"psnr": 0.1, "ssim": 0.1, "lpips": 0.75, "nfe": 0.05},
}

#: Words for groups of terms; a share is split evenly within a group.
GROUPS: dict[str, tuple[str, ...]] = {"distortion": ("psnr", "ssim"), "perception": ("lpips",), "speed": ("nfe",)}


def weighted() -> tuple[str, ...]:
    """Names of the W terms that are weighted, in order."""
    return tuple(name for name, term in TERMS.items() if term.normalise is not None)


def as_weights(table: Mapping[str, float]) -> Weights:
    """Weights for every weighted term, 0 where the table names none.

    Raises ValueError for unknown terms, and for weights that are negative, not finite, or all 0.
    """
    names = weighted()
    if unknown := sorted(set(table) - set(names)):
        raise ValueError(f"unknown reward term {unknown[0]!r}; the terms are {', '.join(names)}")
    weights = {name: float(table.get(name, 0.0)) for name in names}
    if not all(weight >= 0 and isfinite(weight) for weight in weights.values()) or not any(weights.values()):
        raise ValueError("reward weights must be finite, not negative, and not all 0")
    return weights


def setting(name: str) -> Weights:
    """The weights of a named setting. Raises UserError for a name that is not in SETTINGS."""
    if name not in SETTINGS:
        raise UserError(f"unknown reward setting {name!r}; choose one of {', '.join(SETTINGS)}")
    return as_weights(SETTINGS[name])


def preference(text: str) -> Weights:
    """Weights from words: the name of a setting, or shares such as `perception=2,distortion=1`; the rest counts 0.

    Shares name weighted terms or GROUPS and are scaled to a sum of 1. Raises UserError for anything else.
    """
    if "=" not in text:
        return setting(text)
    groups = {**GROUPS, **{name: (name,) for name in weighted()}}
    shares = dict.fromkeys(weighted(), 0.0)
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in groups:
            raise UserError(f"unknown preference {name!r}; choose among {', '.join(groups)}, or a setting's name")
        try:
            share = float(value)
        except ValueError:
            raise UserError(f"the preference {part.strip()!r} is not a name, `=` and a number") from None
        if not 0 <= share < float("inf"):
            raise UserError(f"the preference {part.strip()!r} must be a finite number that is not negative")
        for term in groups[name]:
            shares[term] += share / len(groups[name])
    total = sum(shares.values())
    if not total:
        raise UserError(f"the preference {text!r} weights nothing: give at least one share above zero")
    return {term: share / total for term, share in shares.items()}


def normalise(terms: Floats, nfe_max: int) -> npt.NDArray[np.float64]:
    """What the weights multiply, float64 (..., W), higher is better, of raw terms (..., T)."""
    columns = zip(TERMS.values(), np.moveaxis(np.asarray(terms, dtype=np.float64), -1, 0), strict=True)
    return np.stack([term.normalise(column, nfe_max) for term, column in columns if term.normalise], axis=-1)


def compose(terms: Floats, weights: Mapping[str, float], nfe_max: int) -> npt.NDArray[np.float64]:
    """Reward of each episode, float64 (...,), from raw terms (..., T) in the order of TERMS."""
    return np.asarray(normalise(terms, nfe_max) @ np.array([weights.get(name, 0.0) for name in weighted()]))
