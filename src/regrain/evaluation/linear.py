"""Protocol ``linear``: what a linear classifier on frozen embeddings tells apart."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from regrain.checks import CountFromZero
from regrain.evaluation.probe import Layer, Probed, logistic_layer
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.metrics import balanced_accuracy

_RATES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Learning rates tried side by side; high, because the embeddings are scaled to a mean squared length of 1."""
_BATCH = 256
_MOMENTUM = 0.9


@protocol("train", "augment_train", classifies=True)
def linear(representation: Representation, task: Task, *, linear_epochs: CountFromZero = 0) -> dict[str, Score]:
    """Accuracy of one linear layer trained on the training split's embeddings, which stay as they are.

    ``linear`` is multinomial logistic regression, solved to its optimum on the embeddings of the un-augmented samples;
    C is chosen from 0.1, 1, 10, 100 on a fifth of (at most 10,000) training samples, and all are used then. With
    ``linear_epochs`` above 0, ``linear-sgd`` is a probe by as many epochs of SGD (batch 256, Nesterov momentum
    0.9, cosine) over augmented views of the training samples, the learning rate chosen of five on a fifth of them,
    which it does not train on; the Self-Classifier paper's takes LARS at 0.8 and batches of 4096. Embeddings are
    standardised by the training split and divided by the root of their width. Intervals are bootstrapped over test
    samples.

    Raises a UserError if training samples of fewer than two classes are labelled at this level.

    Parameters
    ----------
    linear_epochs : int
        Epochs of SGD with augmentations, in addition to the convex solver.
    """
    known = task.known()
    probed = Probed.of(representation, task, "linear")
    test, truth = probed.scale(representation.test[known]), task.test_labels[known]
    fits = {"linear": logistic_layer(probed)}
    if linear_epochs and representation.augment_train is not None:
        augment = representation.augment_train
        fits["linear-sgd"] = _descend(
            lambda epoch: probed.scale(augment(epoch)[probed.fitted]), probed, linear_epochs, task.seed
        )
    scores = {}
    for name, layer in fits.items():
        predicted = probed.classes[layer(test).argmax(dim=1)]
        scores[name] = Score.of_samples(predicted == truth, task)
        scores[f"{name}-balanced"] = Score(balanced_accuracy(truth, predicted))
    return scores


@protocol("train", "augment_train", classifies=True, other_data=True)
def transfer(representation: Representation, task: Task, *, linear_epochs: CountFromZero = 0) -> dict[str, Score]:
    """:func:`linear` on data that the encoder was not trained on: both splits are of those data.

    Raises a UserError as :func:`linear`.

    Parameters
    ----------
    linear_epochs : int
        As of :func:`linear`.
    """
    found: dict[str, Score] = linear(representation, task, linear_epochs=linear_epochs)
    return {name.replace("linear", "transfer"): score for name, score in found.items()}


def _descend(augmented: Callable[[int], Tensor], probed: Probed, epochs: int, seed: int) -> Layer:
    """The best, on the held-out samples, of linear layers trained at once with one learning rate each."""
    train, labels, kept, held, classes = probed.train, probed.labels, probed.kept, probed.held, len(probed.classes)
    generator = torch.Generator().manual_seed(seed + 1)
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
