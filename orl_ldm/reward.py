"""The reward: raw quality and cost terms, composed into one number by whoever learns or compares.

DESIGN: ``reward = w_psnr * PSNR/40 + w_ssim * SSIM + w_lpips * (1 - LPIPS) + w_nfe * (1 - NFE/NFE_max)``, with the
weights of Lyu 2025, Table 1 as the ``paper`` setting. Terms are logged raw, so that one buffer serves every setting.
"""

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from orl_ldm.errors import UserError

Floats = npt.NDArray[np.floating]

#: Names and order of the raw terms, one row per episode: dB, [-1, 1], [0, ~1], denoiser calls, seconds.
TERMS: tuple[str, ...] = ("psnr", "ssim", "lpips", "nfe", "seconds")

#: The terms that are weighed, in the order of RewardWeights.
WEIGHTED: tuple[str, ...] = TERMS[:4]

#: Words for preferences, and the terms that each stands for.
ALIASES: dict[str, tuple[str, ...]] = {
    "fidelity": ("psnr", "ssim"),
    "perception": ("lpips",),
    "speed": ("nfe",),
    **{term: (term,) for term in WEIGHTED},
}

#: A PSNR of this many dB counts as one.
PSNR_SCALE = 40.0


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the four terms that count. Seconds are logged but not rewarded: they depend on the machine.

    Raises ValueError for weights that are no finite numbers from 0 on, or all 0.
    """

    psnr: float
    ssim: float
    lpips: float
    nfe: float

    def __post_init__(self) -> None:
        weights = astuple(self)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError("weights of the reward are finite numbers from 0 on, and not all of them 0")


#: The three settings that every report shows.
SETTINGS: dict[str, RewardWeights] = {
    "paper": RewardWeights(0.4, 0.3, 0.2, 0.1),
    "balanced": RewardWeights(0.2, 0.2, 0.5, 0.1),
    "perceptual": RewardWeights(0.1, 0.1, 0.75, 0.05),
}


def setting(name: str) -> RewardWeights:
    """The weights of a named setting. Raises UserError for a name that is not in SETTINGS."""
    if name not in SETTINGS:
        raise UserError(f"unknown reward setting {name!r}; choose one of {', '.join(SETTINGS)}")
    return SETTINGS[name]


def preference(text: str) -> RewardWeights:
    """Weights from words: the name of a setting, or shares such as `fidelity=1,speed=0`; what is not named counts 0.

    `fidelity` is split evenly between PSNR and SSIM, `perception` is LPIPS and `speed` is NFE; the four terms can be
    named too. Shares are brought to a sum of 1. Raises UserError for anything else.
    """
    if "=" not in text:
        return setting(text)
    shares = dict.fromkeys(WEIGHTED, 0.0)
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in ALIASES:
            raise UserError(f"unknown preference {name!r}; choose among {', '.join(ALIASES)}, or a setting's name")
        try:
            share = float(value)
        except ValueError:
            raise UserError(f"the preference {part.strip()!r} is not a name, `=` and a number") from None
        if not 0 <= share < float("inf"):
            raise UserError(f"the preference {part.strip()!r} must be a finite number that is not negative")
        for term in ALIASES[name]:
            shares[term] += share / len(ALIASES[name])
    total = sum(shares.values())
    if not total:
        raise UserError(f"the preference {text!r} weighs nothing: give at least one share above zero")
    return RewardWeights(**{term: share / total for term, share in shares.items()})


def normalise(terms: Floats, nfe_max: int) -> npt.NDArray[np.float64]:
    """What the weights weigh, float64 (..., 4) in the order of WEIGHTED, higher is better, of raw terms (..., 5)."""
    psnr, ssim, lpips, nfe, _ = np.moveaxis(np.asarray(terms, dtype=np.float64), -1, 0)
    return np.stack([psnr / PSNR_SCALE, ssim, 1.0 - lpips, 1.0 - nfe / nfe_max], axis=-1)


def compose(terms: Floats, weights: RewardWeights, nfe_max: int) -> npt.NDArray[np.float64]:
    """Reward of each episode, float64 (...,), from raw terms (..., 5) in the order of TERMS.

    Best possible value is about ``weights.psnr * PSNR/40 + weights.ssim + weights.lpips + weights.nfe``.
    """
    return np.asarray(normalise(terms, nfe_max) @ np.array(astuple(weights)), dtype=np.float64)
