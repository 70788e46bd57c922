"""Independent Beta distributions over unit actions, of concentrations alpha and beta (B, A): a number for each row.

The same as torch.distributions.Beta, summed over A, at a fraction of its cost for small batches.
"""

import torch
from torch import Tensor
from torch.distributions import Beta


def log_prob(alpha: Tensor, beta: Tensor, unit: Tensor) -> Tensor:
    """Log-density (B,) of unit actions (B, A)."""
    return ((alpha - 1) * unit.log() + (beta - 1) * (-unit).log1p() - log_norm(alpha, beta)).sum(-1)


def entropy(alpha: Tensor, beta: Tensor) -> Tensor:
    """Differential entropy (B,)."""
    total = alpha + beta
    digammas = (alpha - 1) * alpha.digamma() + (beta - 1) * beta.digamma() - (total - 2) * total.digamma()
    return (log_norm(alpha, beta) - digammas).sum(-1)


def kl(alpha: Tensor, beta: Tensor, other_alpha: Tensor, other_beta: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B,) of the first from the other."""
    total = alpha + beta
    norms = log_norm(other_alpha, other_beta) - log_norm(alpha, beta)
    means = (
        (alpha - other_alpha) * alpha.digamma()
        + (beta - other_beta) * beta.digamma()
        + (other_alpha + other_beta - total) * total.digamma()
    )
    return (norms + means).sum(-1)


def log_norm(alpha: Tensor, beta: Tensor) -> Tensor:
    """Logarithm of the Beta function (B, A)."""
    return torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)


def sample(alpha: Tensor, beta: Tensor) -> Tensor:
    """Unit actions (B, A), differentiable in both concentrations (Figurnov et al. 2018)."""
    return Beta(alpha, beta, validate_args=False).rsample()
