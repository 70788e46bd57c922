"""The action vector and what it means to the sampler; the one place where both spaces are named."""

from typing import Final

import torch
from torch import Tensor

from orl_ldm.diffusion.sampler import Decision, State
from orl_ldm.policy import PolicySpec
from orl_ldm.policy.effects import limits

#: Numbers that are seen of the denoiser's inner layer, whatever its width.
INNER: Final = 16

#: Observation features in order; `observe` computes them in this order.
FEATURES: Final = (
    "position/t",
    "position/log_snr",
    "position/decision",
    "position/nfe_left",
    "estimate/high_frequency",
    "estimate/std",
    "estimate/change",
    "estimate/noise_std",
    "mismatch/low_frequency",
    "mismatch/detail",
    "estimate/sharpening",
    "estimate/channels_added",
    "estimate/channels",
    "lr/gradient",
    "lr/std",
    "lr/mean",
    "lr/spectrum_slope",
    "lr/upscale_residual",
    "lr/unevenness",
    *(f"denoiser/{number:02d}" for number in range(INNER)),
)

#: name -> (low, high, neutral). Some ranges reach beyond what the sampler can do, and `effective` clamps them
#: (orl_ldm.policy.effects says why). `step` has no neutral value of its own: plain DDIM's steps are those of its grid.
ACTIONS: Final = {
    "step": (-0.25, 1.0, 1.0),
    "eta": (-0.25, 1.0, 0.0),
    "detail": (0.5, 2.5, 1.0),
    "fidelity": (0.0, 1.25, 0.0),
    "grain": (-0.25, 3.0, 0.0),
}

SPEC: Final = PolicySpec(
    feature_names=FEATURES,
    action_names=tuple(ACTIONS),
    action_low=tuple(low for low, _, _ in ACTIONS.values()),
    action_high=tuple(high for _, high, _ in ACTIONS.values()),
)


def effective(actions: Tensor) -> Tensor:
    """Action vectors (B, 5) as the sampler can follow them: step, eta and fidelity in [0, 1], grain from 0 on."""
    columns = zip(SPEC.action_names, actions.to(torch.float32).unbind(-1), strict=True)
    return torch.stack([column.clamp(*limits(name)) for name, column in columns], dim=-1)


def decide(state: State, actions: Tensor) -> Decision:
    """Action vectors (B, 5) as decisions: t_next = t * step (so a step of 0 stops); the others as they are."""
    step, eta, detail, fidelity, grain = effective(actions).unbind(-1)
    return Decision(state.t * step.double(), eta, detail, fidelity, grain)
