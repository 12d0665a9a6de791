r"""The superclass-conditional Gaussian mixture on the unit sphere (Ni et al., ICLR 2022): posteriors and M-step terms.

With unit vectors :math:`v, \mu_z, \mu_y` and variances :math:`\sigma^2, \bar\sigma^2`:

.. math::
    p(y \mid z) &\propto \exp(\mu_z \cdot \mu_y / \bar\sigma^2)\, p(y) \\
    \pi_z(y) &= \operatorname{softmax}_z(\mu_z \cdot \mu_y / \bar\sigma^2) \\
    p(z \mid v, y) &\propto \exp(v \cdot \mu_z / \sigma^2)\, \pi_z(y) \\
    p(z \mid v) &\propto \exp(v \cdot \mu_z / \sigma^2) \sum_y p(y)\, \pi_z(y)

The mixture ``"uniform"`` leaves :math:`\pi` out (the published code); ``"superclass"`` is the paper's. Everything is in
log space. Letters: B samples, d width, r subclasses, C superclasses. A coarse label of -1 is unknown: then p(z|v)
stands for p(z|v, y), and the superclass term leaves the sample out.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from regrain.errors import UserError

from ._checks import check_classes, check_distribution, check_labels, check_matrix, check_temperature
from ._numerics import counted_mean, full_precision, unit

Mixture = Literal["superclass", "uniform"]


@full_precision
def scgm_posterior(
    embedding: Tensor,
    subclass_means: Tensor,
    superclass_means: Tensor,
    coarse: Tensor | None = None,
    *,
    variance: float,
    superclass_variance: float = 1.0,
    mixture: Mixture = "superclass",
    superclass_prior: Tensor | None = None,
) -> Tensor:
    """p(z | v, y) for known superclasses, p(z | v) otherwise (eq. 2 and 3). Returns (B, r), rows sum to 1.

    Parameters
    ----------
    embedding
        (B, d), normalised here.
    subclass_means, superclass_means
        (r, d) and (C, d), normalised here.
    coarse
        (B,) integers below C, -1 = unknown; None where none is known (inference).
    variance, superclass_variance
        sigma^2 and sigma_bar^2, positive.
    mixture
        "superclass": weights pi_z(y) of the paper; "uniform": none, as in the published code.
    superclass_prior
        (C,) probabilities p(y); default uniform.

    Raises
    ------
    UserError
        If a shape or type differs from the above, a variance is not positive, the mixture is unknown, or the prior
        is not a distribution.

    Examples
    --------
    >>> import torch
    >>> means = torch.eye(2)
    >>> scgm_posterior(torch.tensor([[1.0, 1.0]]), means, means, variance=0.1)
    tensor([[0.5000, 0.5000]])
    """
    means = subclass_means, superclass_means
    return _log_terms(embedding, *means, coarse, variance, superclass_variance, mixture, superclass_prior)[0].exp()


@full_precision
def scgm_owned_posterior(
    embedding: Tensor,
    subclass_means: Tensor,
    superclass_means: Tensor,
    superclass_of: Tensor,
    superclass_posterior: Tensor,
    *,
    variance: float,
    superclass_variance: float = 1.0,
    mixture: Mixture = "superclass",
) -> Tensor:
    """p(z | v) = p(y | v) p(z | v, y), where every subclass z belongs to one superclass y.

    p(z | v, y) is that of :func:`scgm_posterior` over the subclasses of y alone, so that the probabilities of the
    subclasses of a superclass add up to that of the superclass.

    Parameters
    ----------
    embedding, subclass_means, superclass_means, variance, superclass_variance, mixture
        As in :func:`scgm_posterior`.
    superclass_of
        (r,) integers below C.
    superclass_posterior
        (B, C): p(y | v); 1 where the superclass is known. The share of superclasses without a subclass goes to
        the others in proportion.

    Returns
    -------
    (B, r), rows sum to 1.

    Examples
    --------
    >>> import torch
    >>> means, upper = torch.eye(2)[[0, 1, 1]], torch.tensor([[0.6, 0.4]])
    >>> scgm_owned_posterior(torch.tensor([[1.0, 1.0]]), means, torch.eye(2), torch.tensor([0, 1, 1]), upper, variance=0.1)
    tensor([[0.6000, 0.2000, 0.2000]])
    """  # noqa: E501
    _check(embedding, subclass_means, superclass_means, variance, superclass_variance, mixture)
    check_labels(superclass_of, subclass_means.shape[0], "superclass_of")
    check_classes(superclass_of, superclass_means.shape[0], "superclass_of")
    check_matrix(superclass_posterior, "superclass_posterior", rows=embedding.shape[0], columns=len(superclass_means))
    scores = unit(embedding) @ unit(subclass_means).T / variance
    if mixture == "superclass":
        scores = (
            scores + (unit(subclass_means) * unit(superclass_means)[superclass_of]).sum(dim=1) / superclass_variance
        )
    shape = len(scores), superclass_means.shape[0]
    largest = scores.new_full(shape, -torch.inf).scatter_reduce_(1, superclass_of.expand_as(scores), scores, "amax")
    weights = (scores - largest[:, superclass_of]).exp()
    within = weights / scores.new_zeros(shape).index_add_(1, superclass_of, weights)[:, superclass_of]
    result = within * superclass_posterior[:, superclass_of]
    return result / result.sum(dim=1, keepdim=True)


@full_precision
def scgm_losses(
    embedding: Tensor,
    coarse: Tensor,
    assignment: Tensor,
    subclass_means: Tensor,
    superclass_means: Tensor,
    *,
    variance: float,
    superclass_variance: float = 1.0,
    mixture: Mixture = "superclass",
    superclass_prior: Tensor | None = None,
) -> dict[str, Tensor]:
    """The two terms of the M-step that the assignment q enters (eq. 8).

    Returns a dict of two scalars, means over the rows that count (zero with zero gradient where there is none):
    ``subclass``, -log p(z = q | v, y), and ``superclass``, -log p(y | z = q), over the rows of known superclass.

    Parameters
    ----------
    embedding, coarse, subclass_means, superclass_means, variance, superclass_variance, mixture, superclass_prior
        As in :func:`scgm_posterior`.
    assignment
        (B,) integers below r: the subclass q of the E-step; rows of -1 (none yet) are left out.

    Examples
    --------
    >>> import torch
    >>> means = torch.eye(2)
    >>> zero = torch.tensor([0])
    >>> losses = scgm_losses(torch.tensor([[1.0, 1.0]]), zero, zero, means, means, variance=0.1)
    >>> {name: round(loss.item(), 4) for name, loss in losses.items()}
    {'subclass': 0.3133, 'superclass': 0.3133}
    """
    log_posterior, log_superclass = _log_terms(
        embedding, subclass_means, superclass_means, coarse, variance, superclass_variance, mixture, superclass_prior
    )
    check_labels(assignment, embedding.shape[0], "assignment")
    check_classes(assignment, subclass_means.shape[0], "assignment")
    assigned, labelled = assignment >= 0, coarse >= 0
    subclass = assignment.clamp(min=0)
    of_subclass = -log_posterior.gather(1, subclass[:, None])[:, 0]
    of_superclass = -log_superclass[subclass, coarse.clamp(min=0)]
    return {
        "subclass": counted_mean(of_subclass, assigned),
        "superclass": counted_mean(of_superclass, assigned & labelled),
    }


@full_precision
def scgm_log_joint(
    embedding: Tensor,
    coarse: Tensor,
    subclass_means: Tensor,
    superclass_means: Tensor,
    *,
    variance: float,
    superclass_variance: float = 1.0,
    mixture: Mixture = "superclass",
    superclass_prior: Tensor | None = None,
) -> Tensor:
    """The E-step's log P: log p(y | z) + log p(z | v, y) (eq. 6), rows = samples.

    Parameters are those of :func:`scgm_posterior`. Without a coarse label p(y | z) drops out. Returns (B, r).

    Examples
    --------
    >>> import torch
    >>> means = torch.eye(2)
    >>> scgm_log_joint(torch.tensor([[1.0, 1.0]]), torch.tensor([-1]), means, means, variance=0.1)
    tensor([[-0.6931, -0.6931]])
    """
    log_posterior, log_superclass = _log_terms(
        embedding, subclass_means, superclass_means, coarse, variance, superclass_variance, mixture, superclass_prior
    )
    return log_posterior + log_superclass.T[coarse.clamp(min=0)].where((coarse >= 0)[:, None], 0)


def _log_terms(
    embedding: Tensor,
    subclass_means: Tensor,
    superclass_means: Tensor,
    coarse: Tensor | None,
    variance: float,
    superclass_variance: float,
    mixture: Mixture,
    superclass_prior: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """log p(z | v, y) (B, r) and log p(y | z) (r, C), of checked arguments."""
    _check(embedding, subclass_means, superclass_means, variance, superclass_variance, mixture)
    if coarse is not None:
        check_labels(coarse, embedding.shape[0], "coarse")
        check_classes(coarse, superclass_means.shape[0], "coarse")
    affinity = unit(subclass_means) @ unit(superclass_means).T / superclass_variance  # (r, C)
    log_prior = _log_prior(superclass_prior, affinity)
    scores = unit(embedding) @ unit(subclass_means).T / variance
    log_posterior = (scores + _log_mixture(affinity, log_prior, coarse, mixture)).log_softmax(dim=1)
    return log_posterior, (affinity + log_prior).log_softmax(dim=1)


def _check(
    embedding: Tensor,
    subclass_means: Tensor,
    superclass_means: Tensor,
    variance: float,
    superclass_variance: float,
    mixture: str,
) -> None:
    check_matrix(embedding, "embedding")
    check_matrix(subclass_means, "subclass_means", columns=embedding.shape[1])
    check_matrix(superclass_means, "superclass_means", columns=embedding.shape[1])
    check_temperature(variance, "variance")
    check_temperature(superclass_variance, "superclass_variance")
    if mixture not in ("superclass", "uniform"):
        raise UserError(f"mixture is 'superclass' or 'uniform', got {mixture!r}", code="unknown_name")


def _log_prior(superclass_prior: Tensor | None, affinity: Tensor) -> Tensor:
    """(C,): log p(y)."""
    classes = affinity.shape[1]
    if superclass_prior is None:
        return affinity.new_zeros(classes) - torch.tensor(classes).log()
    check_distribution(superclass_prior, "superclass_prior", classes)
    return superclass_prior.to(affinity.dtype).log()


def _log_mixture(affinity: Tensor, log_prior: Tensor, coarse: Tensor | None, mixture: Mixture) -> Tensor:
    """Return the log of the factor of each subclass besides exp(v . mu_z / sigma^2), (B or 1, r)."""
    if mixture == "uniform":
        return affinity.new_zeros(1, affinity.shape[0])
    log_pi = affinity.log_softmax(dim=0)  # (r, C), sums to 1 over the subclasses
    averaged = (log_pi + log_prior).logsumexp(dim=1)[None]
    if coarse is None:
        return averaged
    return log_pi.T[coarse.clamp(min=0)].where((coarse >= 0)[:, None], averaged)
