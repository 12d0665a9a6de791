r"""Cross-instance attention: a sample's embedding is made of others' (SCLRE, Kang et al., CVPR 2023).

.. math::
    A^h = \operatorname{softmax}_{rows}\big(Z W_Q^h (C W_K^h)^\top / \sqrt{d_h}\big), \qquad
    \tilde v = \operatorname{concat}_h (A^h C W_V^h), \qquad v = \tilde v / \lVert \tilde v \rVert

with Z the samples and C the candidates: the batch itself in training, where a sample attends to itself too; a bank of
training samples at inference. No residual, no normalisation of layers, no projection of the output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regrain.errors import UserError

from ._checks import check_matrix
from ._numerics import full_precision, unit


@full_precision
def attention_weights(
    embeddings: Tensor, bank: Tensor | None, w_query: Tensor, w_key: Tensor, *, heads: int, include_self: bool = False
) -> Tensor:
    """Compute the attention of every sample to the candidates.

    Returns (heads, n, m), or m + 1 with ``include_self``; rows sum to one.

    Parameters
    ----------
    embeddings
        (n, d) samples Z, not normalised.
    bank
        (m, d) candidates C; None: the samples themselves.
    w_query, w_key
        (heads * d_h, d) weights, as ``nn.Linear`` has them.
    heads
        Number of heads.
    include_self
        With a bank: whether a sample is also a candidate of its own, in the last column.

    Raises
    ------
    UserError
        If shapes do not fit, or the widths cannot be divided by ``heads``.

    Examples
    --------
    >>> weights = attention_weights(torch.eye(2), None, 9 * torch.eye(2), 9 * torch.eye(2), heads=1)
    >>> weights.round().tolist()  # each mostly to itself
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    _check(embeddings, bank, w_query, w_key, heads=heads)
    if w_query.shape != w_key.shape:
        raise UserError(
            f"w_query and w_key have one shape; got {tuple(w_query.shape)} and {tuple(w_key.shape)}", code="wrong_shape"
        )
    if bank is not None and not len(bank) and not include_self:
        raise UserError("the bank is empty: there is nothing to attend to", code="too_few")
    query, candidates = _split(embeddings, w_query, heads), embeddings if bank is None else bank
    logits = query @ _split(candidates, w_key, heads).transpose(1, 2)
    if include_self and bank is not None:
        own = (query * _split(embeddings, w_key, heads)).sum(dim=2, keepdim=True)
        logits = torch.cat([logits, own], dim=2)
    return (logits / query.shape[2] ** 0.5).softmax(dim=2)


@full_precision
def cross_instance_attention(
    embeddings: Tensor,
    bank: Tensor | None,
    w_query: Tensor,
    w_key: Tensor,
    w_value: Tensor,
    *,
    heads: int,
    include_self: bool = False,
) -> Tensor:
    """Embeddings enhanced by what they attend to, scaled to unit length.

    Given a bank, a row of the result depends on its own sample and the bank alone. Under several processes give the
    gathered batch (:func:`regrain.objectives.gather`). Returns (n, width).

    Parameters
    ----------
    embeddings, bank, w_query, w_key, heads, include_self
        See :func:`attention_weights`.
    w_value
        (width, d).

    Examples
    --------
    >>> eye = torch.eye(2)
    >>> cross_instance_attention(eye[:1], 5 * eye, 9 * eye, 9 * eye, eye, heads=1)
    tensor([[1., 0.]])
    """
    weights = attention_weights(embeddings, bank, w_query, w_key, heads=heads, include_self=include_self)
    _check(embeddings, bank, w_value, heads=heads)
    values = _split(embeddings if bank is None else bank, w_value, heads)
    if include_self and bank is not None:
        enhanced = weights[:, :, :-1] @ values + weights[:, :, -1:] * _split(embeddings, w_value, heads)
    else:
        enhanced = weights @ values
    return unit(enhanced.transpose(0, 1).flatten(1))


@full_precision
def attention_spread(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How attention within a batch is spread: over all alike, on few, or on oneself.

    Parameters
    ----------
    weights
        (heads, n, n) of :func:`attention_weights` without a bank, n > 1.

    Returns
    -------
    entropy
        Mean entropy of a row over log n: 1 where all samples are attended to alike, 0 where each attends to one.
    own
        Mean weight of a sample for itself; 1/n where all are attended to alike.
    reach
        Samples that are attended to, over n: the exponential of the entropy of what they receive in the mean over rows.
        1 where all receive alike, 1/n where one receives everything.

    Raises
    ------
    UserError
        If ``weights`` are not square, or of fewer than two samples.

    Examples
    --------
    >>> [round(float(x), 2) for x in attention_spread(torch.full((1, 4, 4), 0.25))]
    [1.0, 0.25, 1.0]
    >>> [round(float(x), 2) for x in attention_spread(torch.eye(4)[None])]  # each to itself
    [0.0, 1.0, 1.0]
    >>> [round(float(x), 2) for x in attention_spread(torch.eye(4)[None, :1].expand(1, 4, 4))]  # all to the first
    [0.0, 0.25, 0.25]
    """
    if weights.ndim != 3 or weights.shape[1] != weights.shape[2] or weights.shape[1] < 2:
        raise UserError(f"weights are (heads, n, n) with n of at least 2; got {tuple(weights.shape)}", code="too_few")
    count = weights.shape[1]
    received = weights.mean(dim=1)
    entropy = torch.special.entr(weights).sum(dim=2).mean() / math.log(count)
    reach = torch.special.entr(received).sum(dim=1).exp().mean() / count
    return entropy, weights.diagonal(dim1=1, dim2=2).mean(), reach


def _split(rows: Tensor, weight: Tensor, heads: int) -> Tensor:
    """(n, d) through (heads * d_h, d) -> (heads, n, d_h)."""
    return (rows @ weight.T).unflatten(1, (heads, -1)).transpose(0, 1)


def _check(embeddings: Tensor, bank: Tensor | None, *weights: Tensor, heads: int) -> None:
    check_matrix(embeddings, "embeddings")
    width = embeddings.shape[1]
    if bank is not None:
        check_matrix(bank, "bank", columns=width)
    for weight in weights:
        check_matrix(weight, "a weight of the attention", columns=width)
        if heads < 1 or weight.shape[0] % heads:
            raise UserError(
                f"{weight.shape[0]} output widths cannot be shared out over {heads} heads", code="wrong_shape"
            )
