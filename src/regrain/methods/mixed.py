"""Ours: one training from samples labelled at any mixture of levels, some fine, more coarse, others not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regrain.checks import require_range
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.base import EVERY, Needs, Scan
from regrain.methods.level_classifier import LevelClassifier
from regrain.methods.memory import MomentumContrast, Queue
from regrain.objectives.relations import maskcon_loss, supcon_queue_loss

_INVERSE_PENALTIES, _PARTIAL_WEIGHTS = (10.0, 100.0), (1.0, 0.3, 0.1)


class Mixed(MomentumContrast):
    r"""Contrast in the measure of what is known, then a classifier of the taxonomy's leaves that uses every label.

    In training each kind of sample has its part:

    .. math:: L = L_{MaskCon} + w_f \sum_{l > 1} \rho_l L_{SupCon}^{(l)}

    MaskCon over all samples, soft within the coarse class where it is known, and against everything where it is not;
    and, for the samples known at a finer level l, SupCon against the queue's samples known there, in the measure of
    their share rho of the batch.

    At the end a logistic regression on the training samples' f(x) is solved to its optimum:

    .. math:: \min_W \; C \sum_{i \text{ labelled}} -u_i \log \sum_{leaf \in y_i} p_W(leaf | x_i) + \tfrac12 |W|^2

    with u_i = 1 where the leaf is known, else ``partial_weight``, and y_i the finest class that is known: a sample of
    known leaf says which, one of known coarse class only that it is among the leaves below. A class of any level has
    the sum of its leaves' probabilities: they add up, though the most probable classes of two levels may lie on
    different branches (``regrain calibrate`` gives answers that never do). A coarse class without finer ones is a leaf
    itself. The sum within the logarithm makes the problem non-convex; it starts from the solution of the samples
    whose leaf is known. Evaluation uses f(x).

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of classes of every level.
    finer_weight : float
        w_f, at least 0.
    weight, soft_temperature : float
        Of MaskCon, see :class:`~regrain.methods.maskcon.MaskCon`.
    inverse_penalty, partial_weight : float, optional
        C > 0, for f(x) standardised and divided by the root of its width, and u >= 0; what is not given is chosen from
        10 and 100, and from 0.1, 0.3 and 1, by the likelihood of a fifth of the samples whose leaf is known, which are
        held out for that (where there are ten of them at least; else 10 and 1).
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name: ClassVar[str] = "mixed"
    summary: ClassVar[str] = "samples labelled at any mixture of levels, or not at all, in one training"
    needs: ClassVar[Needs] = Needs(levels=(EVERY,), views=("strong", "weak"), minimum_classes=2)

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        finer_weight: float = 1.0,
        weight: float = 1.0,
        soft_temperature: float = 0.05,
        inverse_penalty: float | None = None,
        partial_weight: float | None = None,
        queue_size: int = 8192,
        **memory: Any,
    ) -> None:
        super().__init__(encoder, classes, queue_size=queue_size, **memory)
        require_range(0, finer_weight=finer_weight)
        require_range(0, 1, weight=weight)
        require_range(0, above=True, soft_temperature=soft_temperature)
        if inverse_penalty is not None:
            require_range(0, above=True, inverse_penalty=inverse_penalty)
        if partial_weight is not None:
            require_range(0, partial_weight=partial_weight)
        self.finer_weight = finer_weight
        self.weight = weight
        self.soft_temperature = soft_temperature
        self.inverse_penalties = (inverse_penalty,) if inverse_penalty is not None else _INVERSE_PENALTIES
        self.partial_weights = (partial_weight,) if partial_weight is not None else _PARTIAL_WEIGHTS
        self.queue = Queue(queue_size, self.projector_width, len(self.classes))
        self.classifier = LevelClassifier(self.encoder_width, self.classes).requires_grad_(False)

    def take_labels(self, labels: Labels) -> None:
        if labels.taxonomy is None:
            raise UserError(
                "mixed reads levels that nest, and those of these data do not: multi-ce and mlcl are for aspects"
            )
        self.classifier.take_labels(labels)

    def contrast(self, projected: Mapping[str, Tensor], candidate_mask: Tensor) -> dict[str, Tensor]:
        query, key, labels = projected["query"], projected["key"], projected["labels"]
        soft = maskcon_loss(
            query,
            key,
            self.queue.keys,
            labels[:, 0],
            self.queue.labels[:, 0],
            temperature=self.temperature,
            soft_temperature=self.soft_temperature,
            weight=self.weight,
            candidate_mask=candidate_mask,
        )
        finer = soft.new_zeros(())
        for level in range(1, labels.shape[1]):
            known = labels[:, level] >= 0
            finer = finer + known.float().mean() * supcon_queue_loss(
                query[known],
                key[known],
                self.queue.keys,
                labels[known, level],
                self.queue.labels[:, level],
                temperature=self.temperature,
                candidate_mask=candidate_mask[known],
            )
        return {"loss": soft + self.finer_weight * finer, "soft": soft.detach(), "finer": finer.detach()}

    def after_training(self, scan: Scan) -> None:
        self.classifier.solve(self, scan, self.embed, self.inverse_penalties, self.partial_weights)

    def predict_proba(self, x: Any, level: str) -> Tensor:
        if level not in self.roles:
            return super().predict_proba(x, level)
        return self.predict_levels(x)[self.roles.index(level)]

    def predict_levels(self, x: Any) -> tuple[Tensor, ...]:
        return self.classifier.predict(self.encoder(x))
