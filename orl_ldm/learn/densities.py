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


def family(excess: Tensor) -> tuple[Tensor, Tensor]:
    """Log-normaliser (B,) and expected logs (B, 2A) of concentrations 1 + excess (B, 2A), alpha's before beta's.

    Betas are an exponential family. With logs = (log u, log(1 - u)) of unit actions u, summing over the 2A columns,
    the log-density is sum(excess * logs) - log-normaliser, its gradient in the excess is logs - expected logs, and the
    entropy is log-normaliser - sum(excess * expected logs).
    """
    both = excess + 1  # (B, 2A)
    total = sum_of_pairs(both)  # (B, A)
    log_norm = torch.lgamma(both).sum(-1) - torch.lgamma(total).sum(-1)
    return log_norm, both.digamma_() - total.digamma_().repeat(1, 2)


def entropy_gradient(excess: Tensor) -> Tensor:
    """Gradient (B, 2A) of the entropy in the excess (see `family`)."""
    total = sum_of_pairs(excess)  # (B, A)
    return (total * torch.polygamma(1, total + 2)).repeat(1, 2) - excess * torch.polygamma(1, excess + 1)


def sum_of_pairs(both: Tensor) -> Tensor:
    """(B, A) alpha's column and beta's together, of (B, 2A)."""
    alpha, beta = both.chunk(2, dim=-1)
    return alpha + beta


def logs(unit: Tensor) -> Tensor:
    """log u and log(1 - u), (B, 2A), of unit actions (B, A)."""
    return torch.cat([unit.log(), (-unit).log1p()], dim=-1)


def sample(alpha: Tensor, beta: Tensor) -> Tensor:
    """Unit actions (B, A), differentiable in both concentrations (Figurnov et al. 2018)."""
    return Beta(alpha, beta, validate_args=False).rsample()
