r"""TURTLE: the labelling that a linear classifier learns most easily (Gadetsky, Jiang and Brbic, ICML 2024).

With features z, a labelling :math:`\tau_\theta(z) = \operatorname{softmax}(\theta z)` and a linear classifier W
(eq. 5-7; one space of features):

.. math::
    \min_\theta \; \frac1B \sum_i \mathrm{CE}\big(W^* z_i,\; \tau_\theta(z_i)\big) - \gamma\, H(\bar\tau_\theta),
    \qquad W^* \approx \arg\min_W \frac1B \sum_i \mathrm{CE}\big(W z_i,\; \tau_\theta(z_i)\big)

W* is where some steps of gradient descent lead from the last W; the outer gradient takes it as constant.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ._checks import check_at_least_0, check_floats, check_matrix
from ._numerics import entropy_of_mean, full_precision


@full_precision
def turtle_loss(labelling_logits: Tensor, classifier_logits: Tensor, *, entropy_weight: float = 10.0) -> Tensor:
    """The outer objective: cross entropy of the classifier to the labelling, less the entropy of the mean labels.

    Parameters
    ----------
    labelling_logits
        (B, C) theta z; the gradient flows here.
    classifier_logits
        (B, C) W z, taken as constant.
    entropy_weight
        gamma, at least 0.

    Examples
    --------
    >>> sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    >>> round(float(turtle_loss(sure, sure, entropy_weight=1.0)), 3)  # -log 2: both agree, and both classes occur
    -0.693
    """
    check_matrix(labelling_logits, "labelling_logits")
    check_floats(classifier_logits, "classifier_logits", *labelling_logits.shape)
    check_at_least_0(entropy_weight, "entropy_weight")
    log_labels = labelling_logits.log_softmax(dim=1)
    cross_entropy = functional.cross_entropy(classifier_logits.detach(), log_labels.exp())
    return cross_entropy - entropy_weight * entropy_of_mean(log_labels)


@torch.no_grad()
@full_precision
def turtle_inner(weight: Tensor, features: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """W after some steps of gradient descent on the cross entropy of W z to soft labels.

    The step is 1 / L with L = |Z|^2 / 2B, which bounds the curvature of the cross entropy, so that it never rises.
    |Z|^2 is the largest eigenvalue of the Gram matrix, from above, within a hundredth. Returns (C, d).

    Parameters
    ----------
    weight
        (C, d) to start from.
    features
        (B, d).
    labels
        (B, C), rows sum to one.
    steps
        At least 0.

    Examples
    --------
    >>> z, labels = torch.eye(2), torch.eye(2)
    >>> bool((turtle_inner(torch.zeros(2, 2), z, labels, steps=50) @ z.T).argmax(dim=0).equal(torch.tensor([0, 1])))
    True
    """
    count = len(features)
    gram = features.T @ features if features.shape[1] < count else features @ features.T
    step = 2 * count / _largest_eigenvalue(gram).clamp(min=1e-12)
    for _ in range(steps):
        residual = (features @ weight.T).softmax(dim=1) - labels
        weight = weight - step * (residual.T @ features) / count
    return weight


def _largest_eigenvalue(gram: Tensor) -> Tensor:
    r"""The largest eigenvalue of a Gram matrix (m, m), from above: :math:`(\operatorname{tr} G^p)^{1/p}`, p = 1024.

    At most m^(1/p) times too large. A decomposition would wait for the device to say that it went well.
    """
    tiny = torch.finfo(gram.dtype).tiny
    trace = gram.trace().clamp(min=tiny)
    log_value = trace.log()
    for squarings in range(1, 11):
        gram = gram / trace
        gram = gram @ gram
        trace = gram.trace().clamp(min=tiny)
        log_value = log_value + trace.log() / 2**squarings
    return log_value.exp()
