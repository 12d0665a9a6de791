"""FALCON: hidden classes and the coarse class of each, found together (Grcic et al., ICML 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import BelowOne, Count, CountFromZero, NonNegative, Positive
from regrain.data.dataset import Batch
from regrain.encoders.base import RANDOM, is_pretrained
from regrain.errors import UserError
from regrain.methods.assignment import count_subclasses, over_training_set
from regrain.methods.base import Method, Needs, Training, TrainingPass
from regrain.methods.classifier import class_counts
from regrain.methods.clustering import CLUSTER_VARIANCE, cluster_within
from regrain.methods.memory import MomentumTwin
from regrain.methods.neighbourhood import Neighbourhood
from regrain.objectives.falcon import falcon_losses, falcon_relations
from regrain.objectives.gathering import from_first

_SOFT_SHARE = 0.3
"""Share of the training with soft targets: 30 of 100 epochs in the paper."""

_PER_CLASS = 10
_NO_CLASS = -1e4
"""Logit of a place without a class."""


class FALCON(Method):
    r"""Classes below the coarse labels, and the coarse class of each, which alternate (Grcic et al., eq. 1-7).

    p = softmax s(x) are the probabilities of K hidden classes, s linear in f(x) at unit length; the relations M say
    which coarse class each is under. A dash marks the moving average of the network:

    .. math::
        L &= w_c L_{coarse} + w_f (L_{neighbours} + L_{confidence}) + w_b L_{balance} \\
        L_{coarse} &= -\log \sum_{z: M_{zy} = 1} p_z(x), \qquad
        L_{neighbours} = -\log\, p(x) \cdot p'(x_k), \qquad
        L_{balance} = \mathrm{KL}(\bar p \,\|\, \pi)

    with :math:`x_k` one of the nearest samples of the same coarse class, :math:`\pi` equal shares of all classes, which
    makes the last term :math:`\log K - H(\bar p)`, and :math:`L_{confidence}` the cross entropy
    to p' within the coarse class, soft at first and one-hot after ``soft_epochs``
    (:func:`~regrain.objectives.falcon.falcon_losses`). Every ``relations_period`` steps M is solved again for the
    samples seen since then, exactly, as a linear assignment (:func:`~regrain.objectives.falcon.falcon_relations`).

    The classes start as the centres of k-means on f(x) within each coarse class, of equal size where the silhouette
    loses little by it; ``initial_means="random"`` is the published start. Neighbours are found once, on the features
    before training; their logits are those of the average network's features at the epoch's beginning, which is the
    paper's for features that stay as they are.

    Several coarse levels may be named (``--coarse A --coarse B``), and samples may be known at some alone. Each has
    relations of its own to the same classes, so that their classes may cut across each other.

    Parameters
    ----------
    subclasses : int, optional
        K, at least the number of coarse classes. Default: 10 a coarse class, or fewer where there are fewer than 20
        training samples each.
    largest : int, optional
        In place of ``subclasses``: the silhouette chooses the number of hidden classes of each coarse class at the
        start, up to so many. Of several levels the one of most classes counts.
    neighbours, drawn_neighbours : int
        Number of nearest neighbours, and of those drawn for a step.
    coarse_weight, fine_weight, balance_weight : float
        w_c, w_f, w_b, >= 0. A low w_b lets classes die out; 0.5 is the paper's for single cells.
    target_temperature : float
        Of the soft targets, > 0.
    soft_epochs : int, optional
        Epochs in which targets harden, and the numbers of hidden classes count. Default: 3 tenths of the training.
    size_weight : float, optional
        beta, >= 0: how much equal numbers of hidden classes are wanted in the coarse classes during those epochs.
        Default: 0.1, as published, with random means; 0 where k-means gave each coarse class a number by its size.
    relations_period : int
        Steps between two solutions of M.
    momentum : float
        Of the average network, in [0, 1).
    class_sizes : {"equal", "start"}
        pi: equal shares, as published, or those of the clusters at the start, for classes that are known to be well
        apart and of unequal size.
    initial_means : {"k-means", "random"}
        Start of the classes.
    balanced : bool, optional
        Whether clusters of the start have equal sizes within a coarse class. Default: where that costs less than a
        tenth of the silhouette.
    """

    name = "falcon"
    summary = "hidden classes and the coarse class of each, found together; coarse levels may disagree"
    needs = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2, several=True)
    training_only = ("twin", "mined", "evidence", "shares")
    relations: Tensor
    shares: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: Count | None = None,
        largest: Count | None = None,
        neighbours: Count = 20,
        drawn_neighbours: Count = 5,
        coarse_weight: NonNegative = 0.5,
        fine_weight: NonNegative = 0.5,
        balance_weight: NonNegative = 2.0,
        target_temperature: Positive = 0.9,
        soft_epochs: CountFromZero | None = None,
        size_weight: NonNegative | None = None,
        relations_period: Count = 20,
        momentum: BelowOne = 0.99,
        class_sizes: Literal["equal", "start"] = "equal",
        initial_means: Literal["k-means", "random"] = "k-means",
        balanced: bool | None = None,
    ) -> None:
        super().__init__(encoder, classes)
        most = max(self.classes)
        if subclasses is not None and subclasses < most:
            raise UserError(
                f"subclasses is {subclasses}, fewer than the {most} coarse classes: each needs one at least",
                code="out_of_range",
            )
        if largest is not None and (subclasses is not None or initial_means == "random"):
            raise UserError(
                "largest lets the silhouette of k-means choose the number of classes: leave out subclasses and "
                "initial_means=random, or give subclasses alone",
                code="conflicting_options",
            )
        self.estimated, self.largest = largest is not None, largest or 1
        self.drawn_neighbours = drawn_neighbours
        self.weights = {
            "coarse": coarse_weight,
            "neighbours": fine_weight,
            "confidence": fine_weight,
            "balance": balance_weight,
        }
        self.target_temperature = target_temperature
        self.soft_epochs = 30 if soft_epochs is None else soft_epochs
        self.size_weight = (0.1 if initial_means == "random" else 0.0) if size_weight is None else size_weight
        self.relations_period = relations_period
        self.momentum = momentum
        self.class_sizes = class_sizes
        self.initial_means = initial_means
        self.balanced = balanced
        count = subclasses or most * (largest or _PER_CLASS)
        self.classifier = _UnitClassifier(self.encoder_width, count)
        with torch.no_grad():
            means = functional.normalize(torch.randn(count, self.encoder_width), dim=1)
            self.classifier.weight.copy_(means / CLUSTER_VARIANCE)
            self.classifier.bias.zero_()
        self.twin = MomentumTwin(encoder, self.classifier, momentum=momentum)
        self.mined = Neighbourhood(neighbours, int(torch.randint(2**31, ())))
        self.register_buffer("relations", self._related([torch.arange(count) % of_level for of_level in self.classes]))
        self.register_buffer("shares", torch.full((count,), 1 / count))
        self.evidence = _Evidence(count, sum(self.classes))
        self._cluster_seed = int(torch.randint(2**31, ()))

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        notices = [] if settings["largest"] is not None else count_subclasses(settings, training)
        if settings["soft_epochs"] is None:
            settings["soft_epochs"] = round(_SOFT_SHARE * training.epochs)
        encoder = training.encoder
        learns = any(parameter.requires_grad for parameter in encoder.parameters())
        pictures = getattr(encoder, "modality", "image") == "image"
        if learns and pictures and not is_pretrained(getattr(encoder, "origin", RANDOM)):
            notices.append(
                "the encoder starts from random weights, in which neighbours and k-means find little: --pretrained or "
                "--weights gives falcon a start, such as a run of selfcon"
            )
        return notices

    # -- the classes -----------------------------------------------------------------------------------------------

    def _related(self, owners: Sequence[Tensor]) -> Tensor:
        """Relations (K, classes of all levels) from the class (K,) of each level over each hidden class."""
        levels = zip(owners, self.classes, strict=True)
        return torch.cat([functional.one_hot(owner, of_level) > 0 for owner, of_level in levels], dim=1)

    def _marked(self, labels: Tensor) -> Tensor:
        """(B, classes of all levels): the one-hot labels of all levels side by side, nothing where unknown."""
        levels = zip(labels.T, self.classes, strict=True)
        return torch.cat(
            [functional.one_hot(codes.clamp(min=0), of) * (codes >= 0)[:, None] for codes, of in levels], dim=1
        )

    def allowed(self, labels: Tensor) -> Tensor:
        """Whether each hidden class is under all known labels (B, L) of a sample, (B, K).

        Where none is, those under any of them are allowed.
        """
        marked = self._marked(labels).float()
        fits = marked @ self.relations.T.float()  # at so many levels
        known = (labels >= 0).sum(dim=1, keepdim=True)
        every = fits == known
        return torch.where(every.any(dim=1, keepdim=True), every, fits > 0)

    def in_use(self, logits: Tensor) -> Tensor:
        """Return logits (..., K) without the places that hold no class."""
        return logits.masked_fill(~self.relations.any(dim=1), _NO_CLASS)

    def logits(self, x: Any) -> Tensor:
        """Return s(x), (B, K)."""
        return self.in_use(self.classifier(self.encoder(x)).float())

    # -- training --------------------------------------------------------------------------------------------------

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        strong, weak = batch.views
        average = self.in_use(self.twin(weak).float())
        near = average[:, None]  # before the first epoch a sample is its own neighbour
        if self.mined.found:
            drawn = self.mined.draw_several(batch.ids, self.drawn_neighbours)
            with torch.no_grad():
                near = self.in_use(self.twin.network[1](drawn).float())
        return {
            "logits": self.logits(strong),
            "average_logits": average,
            "neighbour_logits": near,
            "labels": batch.labels,
        }

    def loss(
        self, logits: Tensor, average_logits: Tensor, neighbour_logits: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        known = (labels >= 0).any(dim=1)
        sample = torch.arange(len(labels), device=labels.device)
        terms = falcon_losses(
            logits,
            average_logits,
            neighbour_logits,
            self.allowed(labels).T,  # each sample is a coarse class of its own: what it is known to be under
            sample.where(known, -1),
            target_temperature=self.target_temperature,
            hardness=self.hardness,
            shares=self.shares,
        )
        with torch.no_grad():
            self.evidence.together += average_logits.float().softmax(dim=1).T @ self._marked(labels).float()
        loss = torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()
        in_use = (class_counts(logits.argmax(dim=1), logits.shape[1]) > 0).sum()
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}, "classes_in_use": in_use}

    @property
    def hardness(self) -> float:
        """Share of one-hot targets in the current epoch."""
        done = (self.mined.epochs - 1) / self.soft_epochs if self.soft_epochs else 1.0
        return (1 - math.cos(math.pi * min(1.0, max(0.0, done)))) / 2

    def before_epoch(self, training_set: TrainingPass) -> None:
        self.mined.epochs += 1
        features, labels, ids = over_training_set(self, training_set, lambda x: self.twin.network[0](x).float())
        start = not self.mined.found
        self.mined.take(ids, features, _groups(labels) if start else None)
        if start and self.initial_means == "k-means":
            order = ids.argsort()
            self._start_from(features[order], labels[order])

    @torch.no_grad()
    def _start_from(self, features: Tensor, labels: Tensor) -> None:
        """Begin with k-means on f(x) within the coarse classes."""
        places = len(self.relations)
        counts: dict[str, Any]
        if self.estimated:
            within, counts = labels[:, self.classes.index(max(self.classes))], {"each": (1, self.largest)}
        else:
            within, counts = _to_cluster_within(labels, places), {"total": places}
        found = cluster_within(features, within, **counts, balanced=self.balanced, seed=self._cluster_seed)
        codes, centres = from_first(found.codes), from_first(found.centres)
        count, marked = len(centres), self._marked(labels).float()
        for level, of_level in zip(self.roles, marked.split(self.classes, dim=1), strict=True):
            if int(of_level.any(dim=0).sum()) > count:
                raise UserError(
                    f"{count} hidden classes were found, fewer than the {level} classes: --set subclasses=N gives a "
                    "number",
                    code="too_few",
                )
        together = marked.new_zeros(count, marked.shape[1]).index_add_(0, codes, marked)
        self.relations.zero_()
        self.relations[:count] = self._related_by(together, torch.ones_like(together, dtype=torch.bool), balance=0.0)
        self.classifier.weight[:count] = centres / CLUSTER_VARIANCE
        self.classifier.bias[:count] = from_first(found.offsets) / CLUSTER_VARIANCE
        sizes = torch.bincount(codes, minlength=places).float()
        if self.class_sizes == "equal":
            sizes = (torch.arange(places, device=sizes.device) < count).float()
        self.shares.copy_(sizes / sizes.sum())
        self.twin.momentum = 0.0
        self.twin.update(self.encoder, self.classifier)

    def _related_by(self, together: Tensor, before: Tensor, *, balance: float) -> Tensor:
        """Relations (r, classes of all levels) by how much each hidden class is together with each label.

        A coarse class that was not met keeps the hidden classes that it had ``before``.
        """
        owners = []
        for share, old in zip(together.split(self.classes, dim=1), before.split(self.classes, dim=1), strict=True):
            met, new = share.any(dim=0), old.clone()
            rows = old[:, met].any(dim=1)
            if bool(met.any()):
                found = falcon_relations(share[rows][:, met] / share.sum(), balance=balance)
                new[rows] = torch.zeros_like(new[rows]).masked_scatter(met.expand_as(new[rows]), found)
            owners.append(new)
        return torch.cat(owners, dim=1)

    def after_step(self) -> None:
        done = self.evidence.count_step()
        self.twin.momentum = min(self.momentum, (1 + done) / (10 + done))
        self.twin.update(self.encoder, self.classifier)
        if done % self.relations_period == 0:
            balance = self.size_weight if self.hardness < 1 else 0.0
            self.relations.copy_(self._related_by(self.evidence.together, self.relations, balance=balance))
            self.evidence.together.zero_()

    # -- use -------------------------------------------------------------------------------------------------------

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        """The logarithm of the summed exponentials under each coarse class: probabilities are the sums of p."""
        logits = self.logits(x)
        of_all = [logits.masked_fill(~under, _NO_CLASS).logsumexp(dim=1) for under in self.relations.T]
        return dict(zip(self.roles, torch.stack(of_all, dim=1).split(self.classes, dim=1), strict=True))

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        """p(x), of the classes under the given coarse class alone where there is one; of the first coarse level."""
        logits = self.logits(x)
        if coarse is not None:
            under = self.relations[:, : self.classes[0]].T[coarse.clamp(min=0)] | (coarse < 0)[:, None]
            logits = logits.masked_fill(~under, torch.finfo(logits.dtype).min)
        return logits.softmax(dim=1)


class _UnitClassifier(nn.Linear):
    """Linear logits of vectors (..., d) scaled to unit length."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(functional.normalize(features, dim=-1))


class _Evidence(nn.Module):
    """How much hidden classes and labels were together since the relations were solved, and the steps done."""

    together: Tensor

    def __init__(self, classes: int, labels: int) -> None:
        super().__init__()
        self.register_buffer("together", torch.zeros(classes, labels))
        self._steps = 0

    def count_step(self) -> int:
        """Count a step; return how many there were."""
        self._steps += 1
        return self._steps

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._steps)

    def set_extra_state(self, state: Any) -> None:
        self._steps = int(state)


def _groups(labels: Tensor) -> Tensor:
    """A number (N,) for every combination of labels (N, L) that occurs; -1 where no label is known."""
    codes = labels.unique(dim=0, return_inverse=True)[1]
    return codes.where((labels >= 0).any(dim=1), -1)


def _to_cluster_within(labels: Tensor, most: int) -> Tensor:
    """Classes (N,) to cluster within, -1 unknown: combinations of all levels' labels, as each hidden class has one.

    The best known level alone, where most samples are not known at all levels, or combinations are more than ``most``.
    """
    known = labels >= 0
    complete = known.all(dim=1)
    combined = _groups(labels).where(complete, -1)
    few = len(combined[complete].unique()) <= most
    if few and 2 * int(complete.sum()) >= int(known.any(dim=1).sum()):
        return combined
    return labels[:, int(known.sum(dim=0).argmax())]
