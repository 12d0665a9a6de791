"""Ours: one training from samples labelled at any mixture of levels, some fine, more coarse, others not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.encoders.base import column_statistics, inverse_spread
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.assignment import over_training_set
from regrain.methods.base import EVERY, Needs, Scan
from regrain.methods.leaves import log_within, summed_above, under_finest_known
from regrain.methods.memory import MomentumContrast, Queue
from regrain.objectives.gather import gather
from regrain.objectives.relations import maskcon_loss, supcon_queue_loss
from regrain.settings import require_range

__all__ = ["Mixed"]

_ITERATIONS, _ITERATIONS_TO_CHOOSE = 1000, 200
_INVERSE_PENALTIES, _PARTIAL_WEIGHTS = (10.0, 100.0), (1.0, 0.3, 0.1)
_HELD_OUT, _FEWEST_TO_CHOOSE = 5, 10


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
        10 and 100, and from 0.1, 0.3 and 1, by the accuracy on a fifth of the samples whose leaf is known, which are
        held out for that (where there are ten of them at least; else 10 and 1).
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name: ClassVar[str] = "mixed"
    summary: ClassVar[str] = "samples labelled at any mixture of levels, or not at all, in one training"
    needs: ClassVar[Needs] = Needs(levels=(EVERY,), views=("strong", "weak"), minimum_classes=2)
    above: Tensor
    is_leaf: Tensor

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
        count = sum(self.classes)  # every class may be a leaf of its own, until the taxonomy says which are
        self.classifier = nn.Linear(self.encoder_width, count).requires_grad_(False)
        self.register_buffer("above", _own_leaves(self.classes))
        self.register_buffer("is_leaf", torch.ones(count, dtype=torch.bool))

    def take_labels(self, labels: Labels) -> None:
        taxonomy = labels.taxonomy
        if taxonomy is None:
            raise UserError(
                "mixed reads levels that nest, and those of these data do not: multi-ce and mlcl are for aspects"
            )
        start = 0
        for index, level in enumerate(taxonomy.levels):
            rows = slice(start, start + self.classes[index])
            for upper, name in enumerate(taxonomy.levels[:index]):
                self.above[upper, rows] = taxonomy.ancestors(level, name)
            self.is_leaf[rows] = ~taxonomy.has_children(level)
            start = rows.stop

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
        features, labels, ids = (
            gather(rows, with_gradient=False)
            for rows in over_training_set(self, scan, lambda x: self.encoder(x).float())
        )
        order = ids.argsort()
        known = (labels[order] >= 0).any(dim=1)
        features, labels = features[order][known], labels[order][known]
        mean, std = column_statistics(features)
        factor = inverse_spread(std) / features.shape[1] ** 0.5
        weight, bias = self._solved(((features - mean) * factor).double(), labels)
        self.classifier.weight.copy_(weight * factor)
        self.classifier.bias.copy_(bias - (weight * factor) @ mean.double())

    def _solved(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (classes, d) and biases of the logistic regression over leaves."""
        allowed = self._allowed(labels)
        to_leaf = allowed.sum(dim=1) == 1
        penalty, weight = self._chosen(x, allowed, to_leaf)
        solution = self._fitted(x, allowed, to_leaf, penalty, weight, _ITERATIONS)
        return solution[:, :-1], solution[:, -1]

    def _chosen(self, x: Tensor, allowed: Tensor, to_leaf: Tensor) -> tuple[float, float]:
        """C and the weight of samples not known to the leaf, by held-out samples that are."""
        options = [(c, u) for u in self.partial_weights for c in self.inverse_penalties]
        rows = to_leaf.nonzero()[:, 0]
        if len(options) == 1 or len(rows) < _FEWEST_TO_CHOOSE:
            return options[0]
        drawn = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).to(rows.device)]
        held, kept = drawn[::_HELD_OUT], torch.ones_like(to_leaf)
        kept[held] = False
        leaf, judged = allowed[held].float().argmax(dim=1), functional.pad(x[held], (0, 1), value=1.0)

        def accuracy(option: tuple[float, float]) -> float:
            solution = self._fitted(x[kept], allowed[kept], to_leaf[kept], *option, _ITERATIONS_TO_CHOOSE)
            found = self._log_leaves(judged @ solution.T).argmax(dim=1)
            return float((found == leaf).float().mean())

        return max(options, key=accuracy)  # of equals the first: the likelihood as it is, the stronger penalty

    def _fitted(
        self, x: Tensor, allowed: Tensor, to_leaf: Tensor, penalty: float, weight: float, iterations: int
    ) -> Tensor:
        """(classes, d + 1): by the samples whose leaf is known, then by all, from there."""
        solution = x.new_zeros(len(self.is_leaf), x.shape[1] + 1)
        weights = torch.where(to_leaf, 1.0, weight).to(x.dtype)
        for rows in (to_leaf, torch.ones_like(to_leaf)):
            if bool(rows.any()):
                solution = self._descended(solution, x[rows], allowed[rows], penalty * weights[rows], iterations)
        return solution

    @torch.enable_grad()
    def _descended(self, start: Tensor, x: Tensor, allowed: Tensor, weights: Tensor, iterations: int) -> Tensor:
        solution = start.clone().requires_grad_()
        padded = functional.pad(x, (0, 1), value=1.0)
        optimizer = torch.optim.LBFGS([solution], max_iter=iterations, line_search_fn="strong_wolfe")

        def objective() -> Tensor:
            optimizer.zero_grad()
            losses = -log_within(self._log_leaves(padded @ solution.T), allowed)
            loss = weights @ losses + 0.5 * solution[:, :-1].square().sum()
            loss.backward()
            return loss

        with torch.autocast(x.device.type, enabled=False):
            optimizer.step(objective)
        return solution.detach()

    def _log_leaves(self, logits: Tensor) -> Tensor:
        """(B, classes of all levels): log p of the leaves, the lowest number elsewhere."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.masked_fill(~self.is_leaf, torch.finfo(torch.float32).min).log_softmax(dim=1)

    def _allowed(self, labels: Tensor) -> Tensor:
        """(B, classes of all levels): the leaves under the finest known class, all where none is known."""
        return self.is_leaf & under_finest_known(labels, self.above)

    def predict_proba(self, x: Any, level: str) -> Tensor:
        if level not in self.roles:
            return super().predict_proba(x, level)
        return self.predict_levels(x)[self.roles.index(level)]

    def predict_levels(self, x: Any) -> tuple[Tensor, ...]:
        leaves = self._log_leaves(self.classifier(self.encoder(x))).exp()
        return tuple(summed_above(leaves, above, count) for above, count in zip(self.above, self.classes, strict=True))


def _own_leaves(classes: Sequence[int]) -> Tensor:
    """(L, classes of all levels): the class over each at its own level, -1 at the others."""
    above = torch.full((len(classes), sum(classes)), -1)
    start = 0
    for level, count in enumerate(classes):
        above[level, start : start + count] = torch.arange(count)
        start += count
    return above
