"""A linear classifier fitted on training embeddings, for the protocols that need one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regrain.encoders.base import column_statistics, inverse_spread
from regrain.errors import RegrainWarning, UserError
from regrain.evaluation.protocols import Representation, Task
from regrain.metrics import fit_logistic_regressions

_INVERSE_PENALTIES = (0.1, 1.0, 10.0, 100.0)
_CHOICE_SAMPLES = 10_000
"""Training samples on which the penalty is chosen, where there are more."""
_HELD_OUT = 0.2

Layer = Callable[[Tensor], Tensor]
"""Scaled embeddings (n, d) -> logits (n, classes)."""


@dataclass(frozen=True)
class _Scale:
    """Standardised columns; one that is constant in training stays 0, whatever augmented views have there."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> _Scale:
        mean, std = column_statistics(vectors)
        return cls(mean, inverse_spread(std) / math.sqrt(vectors.shape[1]))

    def __call__(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) * self.factor


@dataclass(frozen=True)
class Probed:
    """Training data of a linear classifier: labelled training embeddings, scaled, and a fifth of them held out."""

    # embeddings (n, d) -> standardised by the training split and divided by the root of their width
    scale: Callable[[Tensor], Tensor]
    fitted: Tensor  # BoolTensor (M,): the training samples that are labelled
    train: Tensor  # (m, d): scaled
    labels: Tensor  # LongTensor (m,): numbered by the classes that occur
    classes: Tensor  # LongTensor (C,): the level's codes of those
    # kept and held: rows of ``train``
    kept: Tensor
    held: Tensor

    @classmethod
    def of(cls, representation: Representation, task: Task, protocol: str) -> Probed:
        """From the training split; a UserError where fewer than two classes are labelled in it."""
        if representation.train is None or task.train_labels is None:
            raise UserError(f"{protocol} needs training samples labelled at level '{task.level}'; there are none")
        fitted = task.train_labels >= 0
        classes, labels = task.train_labels[fitted].unique(return_inverse=True)
        if len(classes) < 2:
            raise UserError(
                f"{protocol} needs training samples of two classes of level '{task.level}'; got {len(classes)}"
            )
        scale = _Scale.of(representation.train[fitted])
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(task.seed))
        kept, held = order[math.ceil(_HELD_OUT * len(order)) :], order[: math.ceil(_HELD_OUT * len(order))]
        return cls(scale, fitted, scale(representation.train[fitted]), labels, classes, kept, held)


def logistic_layer(probed: Probed) -> Layer:
    """Multinomial logistic regression solved to its optimum; C of 0.1, 1, 10, 100 by the samples held out."""
    train, labels = probed.train, probed.labels

    def fitted(rows: Tensor, inverse_penalty: float) -> Layer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RegrainWarning)  # accuracy is settled long before the last digits
            found = fit_logistic_regressions(
                train[rows][None],
                labels[rows][None],
                classes=len(probed.classes),
                inverse_penalty=inverse_penalty,
                tolerance=1e-3 * inverse_penalty * math.sqrt(len(rows)),
                max_iterations=200,
                dtype=torch.float32,
            )
        return lambda x: found.logits(x[None])[0]

    rows, judges = probed.kept[:_CHOICE_SAMPLES], probed.held[:_CHOICE_SAMPLES]

    def held_out(inverse_penalty: float) -> float:
        predicted = fitted(rows, inverse_penalty)(train[judges]).argmax(dim=1)
        return float((predicted == labels[judges]).float().mean())

    chosen = max(_INVERSE_PENALTIES, key=held_out)  # of equals the strongest penalty
    return fitted(torch.arange(len(train)), chosen)


def class_probabilities(representation: Representation, task: Task, protocol: str) -> tuple[Tensor, str]:
    """(N, classes) of the test samples by the method's own classifier, else by a probe; and in words whose they are.

    Raises a UserError if the method has no classifier of this level, and fewer than two classes are labelled in the
    training split.
    """
    own = representation.probabilities.get(task.level)
    if own is not None:
        return own, "by the method's own classifier"
    probed = Probed.of(representation, task, protocol)
    found = logistic_layer(probed)(probed.scale(representation.test)).softmax(dim=1)
    result = found.new_zeros(len(found), len(task.classes))
    result[:, probed.classes] = found
    return result, "by logistic regression on the training split's embeddings"
