"""FALCON: hidden fine classes under coarse labels, and the coarse class of each (Grcic et al., ICML 2024)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from regrain.errors import UserError

from ._checks import check_classes, check_floats, check_labels, check_temperature, check_weight
from ._numerics import counted_mean, entropy_of_mean, full_precision
from .host import may_look


@full_precision
def falcon_losses(
    logits: Tensor,
    average_logits: Tensor,
    neighbour_logits: Tensor,
    relations: Tensor,
    coarse: Tensor,
    *,
    target_temperature: float = 0.9,
    hardness: float,
    shares: Tensor | None = None,
) -> dict[str, Tensor]:
    r"""The four terms of FALCON, for fine classes f and their relations M to the coarse classes y.

    .. math::
        L_{coarse} &= -\tfrac1n \sum_i \log \sum_{f: M_{f y_i} = 1} p_f(x_i) \\
        L_{neighbours} &= -\tfrac1{nk} \sum_{i,k} \log\, p(x_i) \cdot p'(x_{ik}) \\
        L_{confidence} &= -\tfrac1n \sum_i t_i \cdot \log p(x_i),\quad
            t = (1 - h)\, q + h\, \mathrm{onehot}(\arg\max q),\quad
            q = \mathrm{softmax}_{f: M_{f y} = 1}(s'(x) / T) \\
        L_{balance} &= \log K_f - H(\bar p) \quad\text{or, with shares,}\quad
            \mathrm{KL}(\bar p \,\|\, \pi)

    s are logits, p their softmax, a dash marks the moving average of the network, which gets no gradient. The paper
    adds them up as 0.5 coarse + 0.5 (neighbours + confidence) + 2 balance.

    Parameters
    ----------
    logits : Tensor (n, K_f)
        s(x).
    average_logits : Tensor (n, K_f)
        s'(x).
    neighbour_logits : Tensor (n, k, K_f)
        s' of k neighbours of each sample.
    relations : BoolTensor (K_f, K_c)
        M: every fine class is under one coarse class; see :func:`falcon_relations`.
    coarse : LongTensor (n,)
        -1 is unknown: the sample leaves the coarse term, and q runs over all fine classes. Each class has a fine class
        under it.
    target_temperature : float
        T, > 0.
    hardness : float in [0, 1]
        h: 0 gives soft targets, 1 one-hot ones.
    shares : Tensor (K_f,), optional
        pi: the shares of samples that fine classes should have, >= 0, of sum 1; not in the paper, whose classes have
        equal ones.

    Returns
    -------
    dict
        ``coarse``, ``neighbours``, ``confidence``, ``balance``: scalars.

    Examples
    --------
    >>> s = torch.eye(4) * 5
    >>> below = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]]).bool()
    >>> terms = falcon_losses(s, s, s[:, None], below, torch.tensor([0, 0, 1, 1]), hardness=1.0)
    >>> {name: round(float(value), 3) for name, value in terms.items()}
    {'coarse': 0.013, 'neighbours': 0.04, 'confidence': 0.02, 'balance': 0.0}
    """
    count, classes = logits.shape
    check_floats(average_logits, "average_logits", count, classes)
    check_floats(neighbour_logits, "neighbour_logits", count, "k", classes)
    if len(relations) != classes or relations.ndim != 2:
        raise UserError(
            f"relations must be ({classes}, coarse classes); got {tuple(relations.shape)}", code="wrong_shape"
        )
    check_labels(coarse, count, "coarse")
    check_classes(coarse, relations.shape[1], "coarse")
    if may_look(coarse):
        childless = ~relations.bool().any(dim=0)[coarse.clamp(min=0)] & (coarse >= 0)
        if childless.any():
            raise UserError(
                f"relations have no fine class under coarse class {int(coarse[childless][0])}, which a sample has",
                code="out_of_range",
            )
    check_weight(hardness, "hardness")
    check_temperature(target_temperature, "target_temperature")
    log_p = logits.log_softmax(dim=1)
    known = coarse >= 0
    allowed = relations.bool().T[coarse.clamp(min=0)] | ~known[:, None]  # (n, K_f)
    with torch.no_grad():
        log_near = neighbour_logits.log_softmax(dim=2)
        q = (average_logits / target_temperature).masked_fill(~allowed, -torch.inf).softmax(dim=1)
        onehot = torch.zeros_like(q).scatter_(1, q.argmax(dim=1, keepdim=True), 1)
        target = torch.lerp(q, onehot, hardness)
    return {
        "coarse": counted_mean(-log_p.masked_fill(~allowed, -torch.inf).logsumexp(dim=1), known),
        "neighbours": -(log_p[:, None] + log_near).logsumexp(dim=2).mean(),
        "confidence": -(target * log_p).sum(dim=1).mean(),
        "balance": math.log(classes) - entropy_of_mean(log_p) if shares is None else _divergence(log_p, shares),
    }


def _divergence(log_p: Tensor, shares: Tensor) -> Tensor:
    """KL divergence of the mean row from the shares; a class of share 0 costs much, not infinitely much."""
    mean = log_p.exp().mean(dim=0)
    return -entropy_of_mean(log_p) - mean @ shares.clamp(min=torch.finfo(shares.dtype).tiny).log()


def falcon_relations(cost: Tensor, *, balance: float) -> Tensor:
    r"""Assign every fine class to a coarse class: the relations M with the highest

    .. math:: \sum_{fc} C_{fc} M_{fc} - \beta \sum_c s_c^2 / K_c,
        \qquad s_c = \sum_f M_{fc} \ge 1,\quad \sum_c M_{fc} = 1

    The size term is convex in s_c, so the t-th class of a coarse class costs beta (2t - 1) / K_c, and a linear
    assignment of fine classes to such places is exact: no integer program is solved. Returns BoolTensor (K_f, K_c), on
    the device of ``cost``.

    Parameters
    ----------
    cost : Tensor (K_f, K_c)
        C: how much a pair speaks for itself, such as the mean of p_f over samples labelled c.
    balance : float
        beta, >= 0: how much equal numbers of fine classes are wanted.

    Raises
    ------
    UserError
        If there are fewer fine than coarse classes, or a number is not finite.

    Examples
    --------
    >>> falcon_relations(torch.tensor([[9.0, 1.0], [8.0, 2.0], [7.0, 3.0]]), balance=0.0).int()  # none stays empty
    tensor([[1, 0],
            [1, 0],
            [0, 1]], dtype=torch.int32)
    """
    from scipy.optimize import linear_sum_assignment  # late: `import regrain.objectives` brings torch alone

    gain = cost.detach().double().cpu().numpy()
    if gain.ndim != 2 or gain.shape[0] < gain.shape[1] or not gain.shape[1]:
        raise UserError(
            f"cost must be (fine, coarse) classes, at least as many fine ones; got {gain.shape}", code="wrong_shape"
        )
    if not np.isfinite(gain).all() or not 0 <= balance < np.inf:
        raise UserError("cost must be finite and balance at least 0", code="out_of_range")
    fine, coarse = gain.shape
    places = fine - coarse + 1  # of each coarse class, at most
    price = balance * (2 * np.arange(places) + 1) / coarse
    first = np.zeros(places)
    first[0] = 2 * (np.abs(gain).sum() + price.sum() * coarse + 1)  # above all that could be won by leaving one empty
    value = (gain[:, :, None] - price + first).reshape(fine, coarse * places)
    rows, columns = linear_sum_assignment(value, maximize=True)
    result = torch.zeros(fine, coarse, dtype=torch.bool)
    result[rows, columns // places] = True
    return result.to(cost.device)
