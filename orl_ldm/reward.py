"""The reward: raw quality and cost terms, composed into one number by whoever learns or compares.

DESIGN: ``reward = w_psnr * PSNR/40 + w_ssim * SSIM + w_lpips * (1 - LPIPS) + w_nfe * (1 - NFE/NFE_max)``, with the
weights of Lyu 2025, Table 1 as the ``paper`` setting. Terms are logged raw, so that one buffer serves every setting.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orl_ldm.errors import UserError

Floats = npt.NDArray[np.floating]

#: Names and order of the raw terms, one row per episode: dB, [-1, 1], [0, ~1], denoiser calls, seconds.
TERMS: tuple[str, ...] = ("psnr", "ssim", "lpips", "nfe", "seconds")

#: A PSNR of this many dB counts as one.
PSNR_SCALE = 40.0


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the four terms that count. Seconds are logged but not rewarded: they depend on the machine."""

    psnr: float = 0.4
    ssim: float = 0.3
    lpips: float = 0.2
    nfe: float = 0.1


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


def compose(terms: Floats, weights: RewardWeights, nfe_max: int) -> npt.NDArray[np.float64]:
    """Reward of each episode, float64 (...,), from raw terms (..., 5) in the order of TERMS.

    Best possible value is about ``weights.psnr * PSNR/40 + weights.ssim + weights.lpips + weights.nfe``.
    """
    psnr, ssim, lpips, nfe, _ = np.moveaxis(np.asarray(terms, dtype=np.float64), -1, 0)
    reward = (
        weights.psnr * psnr / PSNR_SCALE
        + weights.ssim * ssim
        + weights.lpips * (1.0 - lpips)
        + weights.nfe * (1.0 - nfe / nfe_max)
    )
    return np.asarray(reward, dtype=np.float64)
