r"""Self-Classifier: classes without labels, from one view's classification to another's (Amrani et al., ECCV 2022).

With logits :math:`S` of B samples (rows) and C classes (columns), two softmaxes turned against each other (eq. 3-5):

.. math::
    t_{nc} &= \frac{p(c) \operatorname{softmax}_n(S_{\cdot c} / \tau_{col})_n}
                   {\sum_{c'} p(c') \operatorname{softmax}_n(S_{\cdot c'} / \tau_{col})_n} \\
    q_{nc} &= \frac{\operatorname{softmax}_c(S_{n \cdot} / \tau_{row})_c}
                   {\sum_{n'} \operatorname{softmax}_c(S_{n' \cdot} / \tau_{row})_c} \\
    L(i, j) &= -\frac1B \sum_{nc} t^{(i)}_{nc} \log\big(B\, p(c)\, q^{(j)}_{nc} + \epsilon\big)

The batch-wise softmax makes a solution in which all samples share a class as costly as one without any decision; with
the uniform prior :math:`p(c) = 1/C` it is the paper's loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regrain.errors import UserError

from ._checks import check_at_least_0, check_distribution, check_temperature
from ._numerics import full_precision


@full_precision
def self_classifier_loss(
    logits: Tensor,
    *,
    row_temperature: float = 0.1,
    column_temperature: float = 0.05,
    global_views: int = 2,
    class_prior: Tensor | None = None,
    epsilon: float = 0.0,
) -> Tensor:
    """The mean of L(i, j) over ordered pairs of different views that are not both local (Amrani et al., eq. 5).

    The softmax over the batch spans all rows given: under several processes give the gathered batch
    (:func:`regrain.objectives.gather`). Gradients flow through targets and predictions alike. Without any
    decision (equal logits) it is log C for the uniform prior.

    Parameters
    ----------
    logits
        (V, B, C): V views of B samples, the global ones first; not normalised.
    row_temperature, column_temperature
        tau_row of the softmax over classes, tau_col of the softmax over the batch; positive.
    global_views
        How many of the V views are global, 1 to V.
    class_prior
        (C,) positive probabilities p(c); default uniform.
    epsilon
        0 is exact. A positive one is added inside the logarithm, and is the least row sum that a target is divided by,
        as in the published code (1e-8).

    Raises
    ------
    UserError
        If a shape or type differs from the above, there is no pair of views, or a number is out of range.

    Examples
    --------
    >>> import torch
    >>> decided = 10 * torch.eye(4).expand(2, 4, 4)
    >>> round(self_classifier_loss(decided).item(), 4), round(self_classifier_loss(torch.zeros(2, 4, 4)).item(), 4)
    (0.0, 1.3863)
    """
    if logits.ndim != 3 or not logits.is_floating_point() or 0 in logits.shape:
        raise UserError(
            f"logits must be floats of shape (views, samples, classes), none of them 0, got {logits.dtype} of shape "
            f"{tuple(logits.shape)}",
            code="wrong_shape",
        )
    views, samples, classes = logits.shape
    if views < 2 or not 1 <= global_views <= views:
        raise UserError(
            f"at least two views are compared, 1 to V of them global; got {views} views, {global_views} global",
            code="too_few",
        )
    check_temperature(row_temperature, "row_temperature")
    check_temperature(column_temperature, "column_temperature")
    check_at_least_0(epsilon, "epsilon")
    log_prior = _log_prior(class_prior, logits)

    over_batch = (logits / column_temperature).log_softmax(dim=1) + log_prior
    log_row_sums = over_batch.logsumexp(dim=2, keepdim=True)
    over_classes = (logits / row_temperature).log_softmax(dim=2)
    log_predictions = over_classes - over_classes.logsumexp(dim=1, keepdim=True) + log_prior + math.log(samples)
    if epsilon > 0:
        # the published code's row sums have no prior in them: those of a uniform one are C times as large
        log_row_sums = log_row_sums.clamp(min=math.log(epsilon / classes))
        log_predictions = torch.logaddexp(log_predictions, log_predictions.new_tensor(math.log(epsilon)))
    targets = (over_batch - log_row_sums).exp()

    losses = -targets.flatten(1) @ log_predictions.flatten(1).T / samples  # (V, V): target view, prediction view
    view = torch.arange(views, device=logits.device)
    compared = (view[:, None] != view) & ((view[:, None] < global_views) | (view < global_views))
    local = views - global_views
    pairs = views * (views - 1) - local * (local - 1)
    return losses.where(compared, 0).sum() / pairs


def _log_prior(class_prior: Tensor | None, logits: Tensor) -> Tensor:
    """(C,): log p(c)."""
    classes = logits.shape[2]
    if class_prior is None:
        return logits.new_full((classes,), -math.log(classes))
    check_distribution(class_prior, "class_prior", classes, positive=True)
    return class_prior.to(logits.dtype).log()
