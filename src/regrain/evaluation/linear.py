"""Protocol ``linear``: what a linear classifier on frozen embeddings tells apart."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from regrain.encoders.base import column_statistics
from regrain.errors import RegrainWarning, UserError
from regrain.evaluation.base import Representation, Score, Setting
from regrain.metrics import balanced_accuracy, bootstrap_interval, fit_logistic_regressions

__all__ = ["linear"]

_INVERSE_PENALTIES = (0.1, 1.0, 10.0, 100.0)
_CHOICE_SAMPLES = 10_000
"""Training samples on which the penalty is chosen, where there are more."""
_HELD_OUT = 0.2

_RATES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Learning rates tried side by side; high, because the embeddings are scaled to a mean squared length of 1."""
_BATCH = 256
_MOMENTUM = 0.9


def linear(representation: Representation, setting: Setting) -> dict[str, Score]:
    """Accuracy of one linear layer trained on the training split's embeddings, which stay as they are.

    ``linear`` is multinomial logistic regression, solved to its optimum on the embeddings of the un-augmented samples;
    C is chosen from 0.1, 1, 10, 100 on a fifth of (at most 10,000) training samples, and all are used then. With the
    option ``linear_epochs`` above 0, ``linear-sgd`` is the classical probe: as many epochs of SGD (batch 256, Nesterov
    momentum 0.9, cosine) over augmented views of the training samples, the learning rate chosen of five on a fifth of
    them, which it does not train on. Embeddings are standardised by the training split and divided by the root of
    their width. Intervals are bootstrapped over test samples.

    Raises
    ------
    UserError
        If training samples of fewer than two classes are labelled at this level.
    """
    known = setting.known()
    fitted = None if setting.train_labels is None else setting.train_labels >= 0
    if fitted is None or representation.train is None or setting.train_labels is None:
        raise UserError(f"linear needs training samples labelled at level '{setting.level}'; there are none")
    classes, labels = setting.train_labels[fitted].unique(return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"linear needs training samples of two classes of level '{setting.level}'; got {len(classes)}")
    scale = _Scale.of(representation.train[fitted])
    train, test = scale(representation.train[fitted]), scale(representation.test[known])
    truth = setting.test_labels[known]
    generator = torch.Generator().manual_seed(setting.seed)
    order = torch.randperm(len(labels), generator=generator)
    kept, held = order[math.ceil(_HELD_OUT * len(order)) :], order[: math.ceil(_HELD_OUT * len(order))]
    fits = {"linear": _logistic(train, labels, kept, held, len(classes))}
    epochs = int(setting.options.get("linear_epochs", 0))
    if epochs and representation.augment_train is not None:
        augment = representation.augment_train
        fits["linear-sgd"] = _descend(
            lambda epoch: scale(augment(epoch)[fitted]), train, labels, kept, held, len(classes), epochs, generator
        )
    scores = {}
    for name, layer in fits.items():
        predicted = classes[layer(test).argmax(dim=1)]
        hits = (predicted == truth).double()
        scores[name] = Score(*bootstrap_interval(hits, seed=setting.seed), "queries")
        scores[f"{name}-balanced"] = Score(balanced_accuracy(truth, predicted))
    return scores


@dataclass(frozen=True)
class _Scale:
    """Standardised columns; one that is constant in training stays 0, whatever augmented views have there."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> _Scale:
        mean, std = column_statistics(vectors)
        varies = std > 1e-6 * std.max()
        return cls(mean, (1 / (std * math.sqrt(vectors.shape[1]))).where(varies, 0))

    def __call__(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) * self.factor


_Layer = Callable[[Tensor], Tensor]


def _logistic(train: Tensor, labels: Tensor, kept: Tensor, held: Tensor, classes: int) -> _Layer:
    def fitted(rows: Tensor, inverse_penalty: float) -> _Layer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RegrainWarning)  # accuracy is settled long before the last digits
            found = fit_logistic_regressions(
                train[rows][None],
                labels[rows][None],
                classes=classes,
                inverse_penalty=inverse_penalty,
                tolerance=1e-3 * inverse_penalty * math.sqrt(len(rows)),
                max_iterations=200,
                dtype=torch.float32,
            )
        return lambda x: found.logits(x[None])[0]

    rows, judges = kept[:_CHOICE_SAMPLES], held[:_CHOICE_SAMPLES]

    def held_out(inverse_penalty: float) -> float:
        predicted = fitted(rows, inverse_penalty)(train[judges]).argmax(dim=1)
        return float((predicted == labels[judges]).float().mean())

    chosen = max(_INVERSE_PENALTIES, key=held_out)  # of equals the strongest penalty
    return fitted(torch.arange(len(train)), chosen)


def _descend(
    augmented: Callable[[int], Tensor],
    train: Tensor,
    labels: Tensor,
    kept: Tensor,
    held: Tensor,
    classes: int,
    epochs: int,
    generator: torch.Generator,
) -> _Layer:
    """The best, on the held-out samples, of linear layers trained at once with one learning rate each."""
    rates = torch.tensor(_RATES)[:, None, None]
    weight = torch.zeros(len(_RATES), classes, train.shape[1] + 1)  # the intercept last
    velocity = torch.zeros_like(weight)
    steps, step = epochs * math.ceil(len(kept) / _BATCH), 0
    for epoch in range(epochs):
        vectors = functional.pad(augmented(epoch), (0, 1), value=1.0)
        for rows in kept[torch.randperm(len(kept), generator=generator)].split(_BATCH):
            x = vectors[rows]
            residual = (x @ weight.transpose(1, 2)).softmax(dim=2) - functional.one_hot(labels[rows], classes)
            gradient = residual.transpose(1, 2) @ x / len(rows)
            velocity.mul_(_MOMENTUM).add_(gradient)
            rate = rates * 0.5 * (1 + math.cos(math.pi * step / steps))
            weight -= rate * (gradient + _MOMENTUM * velocity)
            step += 1
    judged = functional.pad(train[held], (0, 1), value=1.0) @ weight.transpose(1, 2)
    accuracy = (judged.argmax(dim=2) == labels[held]).float().mean(dim=1)
    best = weight[int(accuracy.argmax())]
    return lambda x: functional.pad(x, (0, 1), value=1.0) @ best.T
