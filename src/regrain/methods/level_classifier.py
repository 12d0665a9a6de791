"""One linear classifier for all levels: of a taxonomy's leaves where levels nest, of every aspect where they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.encoders.base import column_statistics, inverse_spread
from regrain.labels import Labels
from regrain.methods.assignment import over_training_set
from regrain.methods.base import Method, TrainingPass
from regrain.methods.leaves import log_within, summed_above, under_finest_known

_ITERATIONS, _ROUGH_ITERATIONS = 1000, 100
_PRECISION, _ROUGH_PRECISION = 1e-9, 1e-7
"""Change of the mean loss between two steps at which the solution counts as found."""

_HELD_OUT, _FEWEST_TO_CHOOSE = 5, 10
_MOST_TO_CHOOSE = 10_000
"""Largest number of samples used for the choice."""

_BALANCE_ROUNDS, _BALANCE_STEPS, _BALANCE_RATE = 2, 30, 0.7
_SMALLEST_SIZE = 1e-3
"""Of a class, in samples: one of no size at all gets none."""

_USUAL_PENALTY = 10.0
"""C where there are too few samples to choose it, or the nearest allowed value."""


class LevelClassifier(nn.Linear):
    """Probabilities of the classes of every level from f(x): linear logits, of all levels side by side.

    Where levels nest, one softmax over the taxonomy's leaves; a class has the sum of the probabilities of the leaves
    below it, so that a coarse probability is the sum of its children's. A class without finer ones is a leaf itself.
    Aspects have a softmax each.

    It learns either by gradient (:meth:`cross_entropy`) or in one go from all training samples (:meth:`solve`).

    ``width``: width of f(x). ``classes``: number of classes of every level, coarse to fine.

    Examples
    --------
    >>> labels = Labels.from_paths(["a/c", "a/d", "b"], ["coarse", "fine"])
    >>> classifier = LevelClassifier(3, [labels.counts[level] for level in labels.levels])
    >>> classifier.setup(labels)
    >>> coarse, fine = classifier.predict(torch.randn(5, 3))
    >>> torch.allclose(coarse[:, 0], fine.sum(dim=1))  # a is c or d; b has no finer classes
    True
    """

    above: Tensor
    is_leaf: Tensor
    nested: Tensor

    def __init__(self, width: int, classes: Sequence[int]) -> None:
        super().__init__(width, sum(classes))
        self.classes = tuple(classes)
        self.register_buffer("above", _own_level(classes))
        self.register_buffer("is_leaf", torch.ones(sum(classes), dtype=torch.bool))
        self.register_buffer("nested", torch.tensor(False))
        self._host_nested: bool | None = False

    def setup(self, labels: Labels) -> None:
        """Learn from the training labels which classes are below which."""
        taxonomy = labels.taxonomy
        if taxonomy is None:
            return
        self.nested.fill_(True)
        self._host_nested = True
        start = 0
        for index, level in enumerate(taxonomy.levels):
            rows = slice(start, start + self.classes[index])
            for upper, name in enumerate(taxonomy.levels[:index]):
                self.above[upper, rows] = taxonomy.ancestors(level, name)
            self.is_leaf[rows] = ~taxonomy.has_children(level)
            start = rows.stop

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._host_nested = None

    @property
    def _nests(self) -> bool:
        """Whether levels nest; a device is asked once."""
        if self._host_nested is None:
            self._host_nested = bool(self.nested)
        return self._host_nested

    def predict(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities (B, classes) of every level."""
        p = self._log_p(self(features)).exp()
        return tuple(summed_above(p, above, count) for above, count in zip(self.above, self.classes, strict=True))

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over levels of -log p of the known classes; each level skips samples without its label."""
        log_p = self._log_p(logits)
        losses = []
        for codes, above in zip(labels.T, self.above, strict=True):
            known = codes >= 0
            lost = -log_within(log_p, above == codes[:, None])
            losses.append(lost.where(known, 0).sum() / known.sum().clamp(min=1))
        return torch.stack(losses).mean()

    def solve(
        self,
        method: Method,
        training_set: TrainingPass,
        function: Callable[[Any], Tensor],
        inverse_penalties: Sequence[float],
        partial_weights: Sequence[float] = (1.0,),
        balance: float = 0.0,
    ) -> None:
        r"""Solve the logistic regression on ``function`` of all labelled training samples to its optimum.

        .. math:: \min_W \; C \sum_i -u_i \log p_W(y_i | x_i) + \tfrac12 |W|^2

        for x standardised and divided by the root of its width. Where levels nest, y_i is the finest class that is
        known, its p the sum over the leaves below, and u_i = 1 where it is a leaf, else ``partial_weight``; the sum
        within the logarithm makes the problem non-convex, and it starts from the solution of the samples whose leaf
        is known. Of aspects each known one is a term.

        C and u are chosen from what is given by the mean log p of the leaves, or of all aspects, on a fifth of the
        samples whose leaf is known, which is held out for that; of equals the first.

        With ``balance`` b above 0 the samples without a leaf label then teach the solution in two more rounds. Their
        targets are its probabilities of the leaves that they may be, moved towards classes of equal size: the leaves
        below one class get shares in proportion to :math:`s^{1 - b}` of their present sizes s, by a factor for each
        leaf. So a leaf that few labels name, because they are hard to tell, gets samples, and one that none names keeps
        a probability.
        """
        features, labels, ids = over_training_set(method, training_set, function)
        order = ids.argsort()
        known = (labels[order] >= 0).any(dim=1)
        features, labels = features[order][known], labels[order][known]
        mean, std = column_statistics(features)
        factor = inverse_spread(std) / features.shape[1] ** 0.5
        x = functional.pad(((features - mean) * factor).double(), (0, 1), value=1.0)
        samples = _Samples(x, self._terms(labels))
        penalty, weight, near = self._chosen(samples, inverse_penalties, partial_weights)
        solution = self._descended(near.double(), samples.sure, penalty, 1.0)
        if not bool(samples.is_sure.all()):
            solution = self._descended(solution, samples, penalty, weight)
            for _ in range(_BALANCE_ROUNDS if balance and bool(self.nested) else 0):
                taught = replace(samples, targets=self._balanced(solution, samples, balance))
                solution = self._descended(solution, taught, penalty, weight, roughly=True)
        self.weight.data.copy_(solution[:, :-1] * factor)
        self.bias.data.copy_(solution[:, -1] - (solution[:, :-1] * factor) @ mean.double())

    def _terms(self, labels: Tensor) -> Tensor:
        """(T, N, all classes): the leaves that a sample is known to be among; of aspects T are, with one class each.

        Nothing is marked for a sample that is not known.
        """
        if self._nests:
            return (self.is_leaf & under_finest_known(labels, self.above))[None]
        return (self.above[:, None, :] == labels.T[:, :, None]) & (labels.T >= 0)[:, :, None]

    def _balanced(self, solution: Tensor, samples: _Samples, balance: float) -> Tensor:
        """(N, all classes): probabilities of the leaves that a sample may be, their sizes moved towards equal ones."""
        log_p = self._log_p(samples.x @ solution.T).masked_fill(~samples.terms[0], -torch.inf)
        group = self._parents()
        groups = int(group.max()) + 1
        sizes = log_p.softmax(dim=1).sum(dim=0)

        def share(values: Tensor) -> Tensor:
            """Of the group's sum."""
            return values / values.new_zeros(groups).index_add_(0, group, values)[group].clamp(min=1e-12)

        wanted = share(torch.where(self.is_leaf, sizes.clamp(min=_SMALLEST_SIZE) ** (1 - balance), 0))
        shift = torch.zeros_like(wanted)
        for _ in range(_BALANCE_STEPS):
            found = share((log_p + shift).softmax(dim=1).sum(dim=0))
            shift -= _BALANCE_RATE * (found.clamp(min=1e-6) / wanted.clamp(min=1e-6)).log()
        return (log_p + shift).softmax(dim=1)

    def _parents(self) -> Tensor:
        """(all classes,): a number for the class right above each; classes of the top level have one in common."""
        start, found, first = 0, torch.zeros_like(self.above[0]), 1
        for level, count in enumerate(self.classes):
            rows = slice(start, start + count)
            if level:
                over = self.above[level - 1, rows]
                found[rows] = torch.where(over >= 0, first + over, 0)
                first += self.classes[level - 1]
            start = rows.stop
        return found

    def _chosen(
        self, samples: _Samples, inverse_penalties: Sequence[float], partial_weights: Sequence[float]
    ) -> tuple[float, float, Tensor]:
        """Choose C and the weight of samples without a leaf label on held-out ones with one; also return a start."""
        start = samples.x.new_zeros(self.out_features, samples.x.shape[1])
        options = [(c, u) for u in partial_weights for c in sorted(inverse_penalties)]
        if len(options) == 1:
            return (*options[0], start)
        order = torch.randperm(len(samples.x), generator=torch.Generator().manual_seed(0))[:_MOST_TO_CHOOSE]
        drawn = samples.at(order.to(samples.x.device)).single()
        rows = drawn.is_sure.nonzero()[:, 0]
        if len(rows) < _FEWEST_TO_CHOOSE:
            penalty = min(inverse_penalties, key=lambda c: abs(math.log(c / _USUAL_PENALTY)))
            return penalty, partial_weights[0], start
        held, kept = rows[::_HELD_OUT], torch.ones_like(drawn.is_sure)
        kept[held] = False
        judged, fitted = drawn.at(held), drawn.at(kept.nonzero()[:, 0])
        found: dict[tuple[float, float], float] = {}
        sure = {0.0: start.float()}
        for c in sorted(inverse_penalties):  # each from the one before
            sure[c] = self._descended(sure[max(sure)], fitted.sure, c, 1.0, roughly=True)
            for u in partial_weights:
                partly = sure[c] if bool(fitted.is_sure.all()) else self._descended(sure[c], fitted, c, u, roughly=True)
                found[c, u] = self._likelihood(partly, judged)
        penalty, weight = max(options, key=found.__getitem__)  # of equals the first: the stronger penalty
        return penalty, weight, sure[penalty]

    def _likelihood(self, solution: Tensor, samples: _Samples) -> float:
        """Return the mean log p of the known classes."""
        log_p = self._log_p(samples.x @ solution.T)
        return float(torch.cat([log_within(log_p, term)[term.any(dim=1)] for term in samples.terms]).mean())

    @torch.enable_grad()
    def _descended(
        self, start: Tensor, samples: _Samples, penalty: float, partial_weight: float, *, roughly: bool = False
    ) -> Tensor:
        """(all classes, d + 1): weights, and biases as the last column, from ``start`` to the optimum."""
        weights = penalty * torch.where(samples.is_sure, 1.0, partial_weight).to(samples.x.dtype)
        if not len(weights):
            return start
        solution = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [solution],
            max_iter=_ROUGH_ITERATIONS if roughly else _ITERATIONS,
            tolerance_change=(_ROUGH_PRECISION if roughly else _PRECISION) * float(weights.sum()),
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            optimizer.zero_grad()
            log_p = self._log_p(samples.x @ solution.T)
            lost = sum((-log_within(log_p, term)).where(term.any(dim=1), 0) for term in samples.terms)
            if samples.targets is not None:
                lost = -(samples.targets * log_p).sum(dim=1)
            loss = weights @ lost + 0.5 * solution[:, :-1].square().sum()
            loss.backward()
            return loss

        with torch.autocast(samples.x.device.type, enabled=False):
            optimizer.step(objective)
        return solution.detach()

    def _log_p(self, logits: Tensor) -> Tensor:
        """Return log p of the leaves (B, all classes), the lowest number elsewhere; each aspect is separate."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not self._nests:
            return torch.cat([part.log_softmax(dim=1) for part in logits.split(self.classes, dim=1)], dim=1)
        return logits.masked_fill(~self.is_leaf, torch.finfo(logits.dtype).min).log_softmax(dim=1)


@dataclass(frozen=True)
class _Samples:
    """Samples (N, d + 1), scaled, with a last column of ones, and what is known of them (T, N, all classes)."""

    x: Tensor
    terms: Tensor
    targets: Tensor | None = None
    """(N, all classes) shares of the leaves, in place of what is known."""

    @property
    def is_sure(self) -> Tensor:
        """(N,): whether one class is left, of a term at least."""
        return (self.terms.sum(dim=2) == 1).any(dim=0)

    @property
    def sure(self) -> _Samples:
        return self.at(self.is_sure.nonzero()[:, 0])

    def at(self, rows: Tensor) -> _Samples:
        return _Samples(self.x[rows], self.terms[:, rows])

    def single(self) -> _Samples:
        """In single precision."""
        return _Samples(self.x.float(), self.terms)


def _own_level(classes: Sequence[int]) -> Tensor:
    """(L, all classes): the class over each at its own level, -1 at the others."""
    above = torch.full((len(classes), sum(classes)), -1)
    start = 0
    for level, count in enumerate(classes):
        above[level, start : start + count] = torch.arange(count)
        start += count
    return above
