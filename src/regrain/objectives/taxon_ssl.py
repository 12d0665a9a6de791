"""Taxon-SSL: labels as far as known, pseudo-labels of every level, and a contrast of samples whose paths agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError

from ._checks import check_classes, check_labels, check_matrix, check_temperature
from ._numerics import counted_mean, full_precision, unit


class PseudoLabels(NamedTuple):
    """Result of :func:`aligned_labels`."""

    classes: Tensor
    """LongTensor (B,)."""
    confidence: Tensor
    """(B,): in [0, 1]."""


@torch.no_grad()
@full_precision
def aligned_labels(logits: Tensor, marginal: Tensor) -> PseudoLabels:
    """The most probable classes, after probabilities are divided by those that the model gives on average.

    A class that the model prefers to all others loses that advantage (distribution alignment).

    Parameters
    ----------
    logits
        (B, C).
    marginal
        (C,) mean probabilities of recent batches, positive.

    Examples
    --------
    >>> found = aligned_labels(torch.tensor([[0.0, 0.5]]), torch.tensor([0.2, 0.8]))
    >>> found.classes.tolist(), round(float(found.confidence), 3)
    ([0], 0.708)
    """
    check_matrix(logits, "logits")
    if marginal.shape != logits.shape[1:]:
        raise UserError(f"marginal is ({logits.shape[1]},); got {tuple(marginal.shape)}", code="wrong_shape")
    aligned = logits.softmax(dim=1) / marginal.clamp(min=1e-12)
    confidence, classes = (aligned / aligned.sum(dim=1, keepdim=True)).max(dim=1)
    return PseudoLabels(classes, confidence)


def confidence_threshold(confidences: Tensor, share: float) -> Tensor:
    """The smallest of the ``share`` (in (0, 1]) of confidences (n,) that are largest.

    Examples
    --------
    >>> confidence_threshold(torch.tensor([0.9, 0.5, 0.7, 0.6]), 0.5)
    tensor(0.7000)
    """
    if not 0 < share <= 1:
        raise UserError(f"the share of pseudo-labels lies in (0, 1]; got {share}", code="out_of_range")
    ranked = confidences.sort(descending=True).values
    return ranked[math.ceil(share * len(ranked)) - 1]


@full_precision
def taxon_ssl_loss(
    logits: Sequence[Tensor],
    strong_logits: Sequence[Tensor],
    query: Tensor,
    key: Tensor,
    labels: Tensor,
    pseudo: Sequence[PseudoLabels],
    thresholds: Sequence[Tensor | float],
    *,
    temperature: float = 0.1,
) -> dict[str, Tensor]:
    r"""Taxon-SSL of Free-Grained Hierarchical Visual Recognition (CVPR 2026).

    .. math::
        L = \sum_l \operatorname{mean}_{y_{il}\ known} \mathrm{CE}(f_l(x_i), y_{il})
          + \sum_l \operatorname{mean}_i [s_{il} \ge h_l] \mathrm{CE}(f_l(x'_i), c_{il})
          - \operatorname{mean}_i \sum_j R_{ij} \log \operatorname{softmax}_j (\cos(g_i, g'_j) / \tau)

    with R, whose rows sum to one, over the samples whose pseudo-labels c agree at all levels, and the sample itself.
    Known labels do not replace pseudo-labels, as in the published code. Returns ``loss``, and its terms ``supervised``,
    ``pseudo`` and ``contrast``, detached.

    Parameters
    ----------
    logits, strong_logits
        For each level (B, C) of the plain view x and the strong one x'.
    query, key
        (B, d) embeddings g of the strong view, and g' of another one; normalised here.
    labels
        (B, L) integers, -1 unknown.
    pseudo
        For each level the pseudo-labels c and confidences s of :func:`aligned_labels`, from ``logits``.
    thresholds
        For each level h.
    temperature
        tau, positive.

    Examples
    --------
    >>> logits, embeddings = [torch.eye(2)], torch.eye(2)
    >>> found = [aligned_labels(logits[0], torch.tensor([0.5, 0.5]))]
    >>> losses = taxon_ssl_loss(logits, logits, embeddings, embeddings, torch.tensor([[0], [-1]]), found, [1.0])
    >>> round(float(losses["supervised"]), 4), float(losses["pseudo"])  # nothing is as sure as 1
    (0.3133, 0.0)
    """
    check_temperature(temperature)
    check_matrix(query, "query")
    check_matrix(key, "key", rows=len(query), columns=query.shape[1])
    if labels.ndim != 2 or not len(logits) == len(strong_logits) == len(pseudo) == len(thresholds) == labels.shape[1]:
        raise UserError(
            f"logits, labels, pseudo-labels and thresholds are of the same levels; got {len(logits)}, "
            f"{tuple(labels.shape)}, {len(pseudo)} and {len(thresholds)}",
            code="wrong_shape",
        )
    supervised = guessed = query.new_zeros(())
    alike = torch.ones(len(query), len(query), dtype=torch.bool, device=query.device)
    for level, (plain, strong) in enumerate(zip(logits, strong_logits, strict=True)):
        check_matrix(plain, "logits", rows=len(query))
        check_matrix(strong, "strong_logits", rows=len(query), columns=plain.shape[1])
        own = labels[:, level].long()
        check_labels(own, len(query), "labels")
        check_classes(own, plain.shape[1], "labels")
        losses = functional.cross_entropy(plain, own.clamp(min=0), reduction="none")
        supervised = supervised + counted_mean(losses, own >= 0)
        classes, confidence = pseudo[level]
        guesses = functional.cross_entropy(strong, classes, reduction="none")
        guessed = guessed + guesses.where(confidence >= thresholds[level], 0).mean()
        alike &= classes[:, None] == classes
    alike.fill_diagonal_(True)
    relation = alike / alike.sum(dim=1, keepdim=True)
    contrast = -(relation * (unit(query) @ unit(key).T / temperature).log_softmax(dim=1)).sum(dim=1).mean()
    return {
        "loss": supervised + guessed + contrast,
        "supervised": supervised.detach(),
        "pseudo": guessed.detach(),
        "contrast": contrast.detach(),
    }
