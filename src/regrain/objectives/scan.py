r"""SCAN: a sample and its neighbours share a class (Van Gansbeke et al., ECCV 2020).

With :math:`\Phi(x)` the class probabilities (eq. 2):

.. math::
    L = -\frac1B \sum_i \log \langle \Phi(x_i), \Phi(k_i) \rangle + \lambda \sum_c \bar\Phi_c \log \bar\Phi_c,
    \qquad \bar\Phi = \frac1B \sum_i \Phi(x_i)

:math:`k_i` is a neighbour of :math:`x_i`; the second term is largest where all samples share a class. Self-labelling
(section 2.3) then lets samples that are surely classified teach a strongly augmented view of themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError

from ._checks import check_at_least_0, check_floats, check_matrix
from ._numerics import entropy_of_mean, full_precision


@full_precision
def scan_loss(logits: Tensor, neighbour_logits: Tensor, *, entropy_weight: float = 5.0) -> dict[str, Tensor]:
    """SCAN's clustering loss over the global batch.

    Returns ``loss``, and its terms ``consistency`` and ``entropy`` (of the mean probabilities, at most log C),
    detached.

    Parameters
    ----------
    logits, neighbour_logits
        (B, C) of the samples and of one neighbour each.
    entropy_weight
        lambda, at least 0.

    Examples
    --------
    >>> sure = torch.tensor([[5.0, 0.0], [0.0, 5.0]])
    >>> found = scan_loss(sure, sure, entropy_weight=1.0)
    >>> [round(float(found[name]), 3) for name in ("loss", "consistency", "entropy")]
    [-0.68, 0.013, 0.693]
    """
    check_matrix(logits, "logits")
    check_floats(neighbour_logits, "neighbour_logits", *logits.shape)
    check_at_least_0(entropy_weight, "entropy_weight")
    log_phi = logits.log_softmax(dim=1)
    log_dot = torch.logsumexp(log_phi + neighbour_logits.log_softmax(dim=1), dim=1)
    entropy = entropy_of_mean(log_phi)
    consistency = -log_dot.mean()
    return {
        "loss": consistency - entropy_weight * entropy,
        "consistency": consistency.detach(),
        "entropy": entropy.detach(),
    }


@full_precision
def self_labelling_loss(logits: Tensor, strong_logits: Tensor, *, threshold: float = 0.99) -> dict[str, Tensor]:
    """Cross entropy of the strong view to the class that the weak view is sure of, classes weighted alike.

    Returns ``loss``, zero where no sample is sure, and ``confident``, the share of sure ones.

    Parameters
    ----------
    logits, strong_logits
        (B, C) of the weakly and the strongly augmented view; no gradient flows into the first.
    threshold
        Probability above which a sample counts as sure, in (0, 1).

    Examples
    --------
    >>> weak = torch.tensor([[9.0, 0.0], [0.1, 0.0]])
    >>> found = self_labelling_loss(weak, torch.tensor([[0.0, 0.0], [5.0, 0.0]]))
    >>> round(float(found["loss"]), 3), float(found["confident"])
    (0.693, 0.5)
    """
    check_matrix(logits, "logits")
    check_floats(strong_logits, "strong_logits", *logits.shape)
    if not 0 < threshold < 1:
        raise UserError(f"threshold lies between 0 and 1; got {threshold}", code="out_of_range")
    probability, label = logits.detach().softmax(dim=1).max(dim=1)
    sure = probability > threshold
    counts = label.new_zeros(logits.shape[1]).index_add(0, label, sure.long())
    weight = (1 / counts.clamp(min=1)).to(logits.dtype)[label].where(sure, 0)
    losses = functional.cross_entropy(strong_logits, label, reduction="none")
    return {"loss": (weight * losses).sum() / weight.sum().clamp(min=1e-12), "confident": sure.to(logits.dtype).mean()}
