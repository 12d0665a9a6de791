"""One training on samples labelled at any mixture of levels: fine, coarse, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from regrain.checks import Positive, Share
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.base import EVERY, Needs, TrainingPass
from regrain.methods.level_classifier import LevelClassifier
from regrain.methods.memory import MomentumContrast
from regrain.objectives.host import may_look
from regrain.objectives.relations import maskcon_loss, supcon_queue_loss

_INVERSE_PENALTIES, _PARTIAL_WEIGHTS = (10.0, 100.0), (1.0, 0.3, 0.1)


class Mixed(MomentumContrast):
    r"""Contrast each sample as far as its labels allow, then fit a leaf classifier that uses labels at every level.

    On frozen features with few fine labels it is the highest on CLINC150, and level with ``multi-ce``, which is faster,
    on CIFAR-100 and Grocery (docs/results.md).

    Labels of mixed levels are a published setting (HRN, Chen et al., CVPR 2022; Free-Grained Hierarchical Visual
    Recognition, CVPR 2026), the sum over leaves is HRN's and FALCON's (ICML 2024, eq. 2); the combination is new. The
    training loss has terms for each kind of sample:

    .. math:: L = L_{MaskCon} + \sum_{l > 1} \rho_l L_{SupCon}^{(l)}

    MaskCon is over all samples, soft within the coarse class where it is known, and against everything where it is not.
    For the samples known at a finer level l, SupCon contrasts them with the queue's samples known there, weighted by
    their share rho of the batch.

    At the end, a logistic regression on the training samples' f(x) is solved to its optimum:

    .. math:: \min_W \; C \sum_{i \text{ labelled}} -u_i \log \sum_{leaf \in y_i} p_W(leaf | x_i) + \tfrac12 |W|^2

    with u_i = 1 where the leaf is known, else u, and y_i the finest class that is known: a sample of
    known leaf says which, one of known coarse class only that it is among the leaves below. A class of any level has
    the sum of its leaves' probabilities: they add up, though the most probable classes of two levels may be on
    different branches (``regrain calibrate`` gives answers that never do). A coarse class without finer ones is a leaf
    itself. The sum within the logarithm makes the problem non-convex; it starts from the solution of the samples
    whose leaf is known. Samples of unknown leaf then teach it once more, see ``balance``. Evaluation uses f(x).

    Parameters
    ----------
    weight, soft_temperature : float
        Of MaskCon, see :class:`~regrain.methods.maskcon.MaskCon`.
    inverse_penalty : float, optional
        C > 0, for f(x) standardised and divided by the root of its width. Unless it is given it is chosen from 10 and
        100; u from 0.1, 0.3 and 1. The likelihood of a fifth of the samples whose leaf is known decides, which are held
        out for that (where there are ten of them at least; else C = 10 and u = 1).
    balance : float
        In [0, 1]: how far samples of unknown leaf, which the classifier sorts itself, are shared out evenly over the
        leaves below a class; 1 for classes of equal size, 0 leaves the solution as it is. See
        :meth:`~regrain.methods.level_classifier.LevelClassifier.solve`.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name = "mixed"
    summary = "samples labelled at any mixture of levels, or not at all, in one training"
    needs = Needs(levels=(EVERY,), views=("strong", "weak"), minimum_classes=2)

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        weight: Share = 1.0,
        soft_temperature: Positive = 0.05,
        inverse_penalty: Positive | None = None,
        balance: Share = 0.5,
        **memory: Any,
    ) -> None:
        super().__init__(encoder, classes, **memory)
        self.weight = weight
        self.soft_temperature = soft_temperature
        self.inverse_penalties = (inverse_penalty,) if inverse_penalty is not None else _INVERSE_PENALTIES
        self.balance = balance
        self.classifier = LevelClassifier(self.encoder_width, self.classes).requires_grad_(False)

    def setup(self, labels: Labels) -> None:
        if labels.taxonomy is None:
            raise UserError(
                "mixed reads levels that nest, and those of these data do not: multi-ce and mlcl are for aspects"
            )
        self.classifier.setup(labels)

    def contrast(self, query: Tensor, key: Tensor, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
        keys, others = self.queue.keys, self.queue.labels
        soft = maskcon_loss(
            query, key, keys, labels[:, 0], others[:, 0], temperature=self.temperature, weight=self.weight,
            soft_temperature=self.soft_temperature, candidate_mask=mask,
        )  # fmt: skip
        finer = soft.new_zeros(())
        for level in range(1, labels.shape[1]):
            known = labels[:, level] >= 0
            rows = known.nonzero()[:, 0] if may_look(known) else slice(None)  # fewer where that costs nothing
            finer = finer + known.float().mean() * supcon_queue_loss(
                query[rows], key[rows], keys, labels[rows, level], others[:, level], temperature=self.temperature,
                candidate_mask=(mask & known[:, None])[rows],  # a row without a candidate does not count
            )  # fmt: skip
        return {"loss": soft + finer, "soft": soft.detach(), "finer": finer.detach()}

    def after_training(self, training_set: TrainingPass) -> None:
        self.classifier.solve(self, training_set, self.embed, self.inverse_penalties, _PARTIAL_WEIGHTS, self.balance)

    def class_proba(self, x: Any) -> dict[str, Tensor]:
        return dict(zip(self.roles, self.classifier.predict(self.encoder(x)), strict=True))
