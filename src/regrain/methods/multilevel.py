"""One representation from labels at several levels or aspects: MLCL, HiMulConE, and a classifier for each level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import BelowOne, Count, NonNegative, Positive, Share
from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.base import EVERY, Method, Needs, TrainingPass
from regrain.methods.level_classifier import LevelClassifier
from regrain.objectives.hierarchy import hmce_loss, jaccard_supcon_loss, multilevel_supcon_loss

_COARSE_TEMPERATURE, _FINE_TEMPERATURE = 0.5, 0.1


_INVERSE_PENALTIES = (0.1, 1.0, 10.0, 100.0)


class _MultiLevel(Method):
    """Base: a linear classifier of all levels on f(x), see :class:`~regrain.methods.level_classifier.LevelClassifier`.

    A coarse probability is the sum of those of the classes below; aspects have a softmax each.
    """

    needs = Needs(levels=(EVERY,), views=("strong", "strong"), minimum_classes=2)
    uses_in_batch_negatives = True

    def __init__(self, encoder: nn.Module, classes: Sequence[int], *, normalise_classifier: bool = False) -> None:
        super().__init__(encoder, classes)
        self.normalise_classifier = normalise_classifier
        self.classifier = LevelClassifier(self.encoder_width, self.classes)

    def setup(self, labels: Labels) -> None:
        self.classifier.setup(labels)

    def classified(self, features: Tensor) -> Tensor:
        """Return f(x) as the classifier sees it."""
        return functional.normalize(features.float(), dim=1) if self.normalise_classifier else features

    def solve(self, training_set: TrainingPass) -> None:
        """Solve the classifier on all training samples."""
        self.classifier.solve(
            self, training_set, lambda x: self.classified(self.encoder(x)).float(), _INVERSE_PENALTIES
        )

    def class_proba(self, x: Any) -> dict[str, Tensor]:
        return dict(zip(self.roles, self.classifier.predict(self.classified(self.encoder(x))), strict=True))


class MultiCE(_MultiLevel):
    """A linear classifier of every level on one encoder: the mean of the levels' cross entropies.

    Where levels nest it is one of the taxonomy's leaves, and a coarse class has the sum of the probabilities of the
    leaves below: levels never contradict in their probabilities. Aspects have a classifier each. A missing label leaves
    its sample out of that level's term alone.

    Parameters
    ----------
    normalise_classifier : bool
        Scale f(x) to unit length before the classifier: it fits the training labels less closely, which is worth
        much where many of these are wrong.
    """

    name = "multi-ce"
    summary = "a classifier for every level or aspect on one encoder"
    needs = Needs(levels=(EVERY,), views=("strong",), minimum_classes=2)
    uses_in_batch_negatives = False

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.classifier(self.classified(self.encoder(batch.views[0])))
        return {"logits": logits, "labels": batch.labels}

    def loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": self.classifier.cross_entropy(logits, labels)}


class MLCL(_MultiLevel):
    r"""SupCon on a projection of its own for every level or aspect, and one for their overlap (AISTATS 2025, eq. 1-3).

    .. math:: L = \sum_h \alpha_h L^{SupCon}_h + \alpha_{global} L_{global} + \alpha_{CE}\, \mathrm{CE}

    See :func:`~regrain.objectives.hierarchy.multilevel_supcon_loss` and, for the global head of aspects,
    :func:`~regrain.objectives.hierarchy.jaccard_supcon_loss`. The heads are dropped: evaluation uses f(x). The
    classifier that predicts is solved at the end, on f(x) of all training samples
    (:meth:`~regrain.methods.level_classifier.LevelClassifier.solve`), with ``ce_weight`` too: there the cross entropy
    of one that learns in steps is a term of the loss alone. A missing label leaves its sample out of that level's terms
    alone.

    Parameters
    ----------
    temperatures : tuple of float, optional
        Temperature of every level, coarse to fine, > 0; default from 0.5 to 0.1 in equal ratios where levels nest, and
        0.1 for aspects and with a global head.
    weights : tuple of float, optional
        alpha of every level; default equal parts of the rest of 1 after ``global_weight`` and ``ce_weight``.
    global_weight, ce_weight : float
        Weights in [0, 1]; the paper's texts have 0.1 and 0.7.
    threshold : float
        t in [0, 1): overlap above which two samples are positives of the global head.
    orders : tuple of tuple of str, optional
        For the global head: the classes of every level from lowest to highest, or one list that is every level's.
        Needed where class names are not numbers.
    projector_hidden : int
        Hidden width of every head; on images 2048 by recipe, as in SupCon.
    projector_width : int or tuple of int
        Output of every head, or of each: the levels', coarse to fine, and the global one's last.
    normalise_heads : bool
        Scale f(x) to unit length before the heads, as in the paper; the classifier and evaluation take f(x) as it is.
    normalise_classifier : bool
        Scale it before the classifier too, see :class:`MultiCE`.
    """

    name = "mlcl"
    summary = "labels at several levels or aspects: a contrast of its own for each"

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperatures: tuple[Positive, ...] | None = None,
        weights: tuple[NonNegative, ...] | None = None,
        global_weight: Share = 0.0,
        ce_weight: Share = 0.0,
        threshold: BelowOne = 0.5,
        orders: tuple[tuple[str, ...], ...] | None = None,
        projector_hidden: Count = 512,
        projector_width: Count | tuple[Count, ...] = 128,
        normalise_heads: bool = True,
        normalise_classifier: bool = False,
    ) -> None:
        super().__init__(encoder, classes, normalise_classifier=normalise_classifier)
        count = len(self.classes)
        if global_weight + ce_weight > 1:
            raise UserError(f"global_weight {global_weight} and ce_weight {ce_weight} are shares of 1")
        left = 1 - global_weight - ce_weight
        self.weights = (left / count,) * count if weights is None else tuple(weights)
        steps = torch.linspace(0, 1, count).tolist() if count > 1 else [1.0]
        ratio = _FINE_TEMPERATURE / _COARSE_TEMPERATURE
        self._by_default = temperatures is None
        self.temperatures = (
            tuple(_COARSE_TEMPERATURE * ratio**step for step in steps) if temperatures is None else tuple(temperatures)
        )
        for name, values in (("temperatures", self.temperatures), ("weights", self.weights)):
            if len(values) != count:
                raise UserError(f"{name} are {count} numbers, one for every level; got {list(values)}")
        self.global_weight = global_weight
        self.ce_weight = ce_weight
        self.threshold = threshold
        self.orders = orders
        heads = count + bool(global_weight)
        widths = (projector_width,) * heads if isinstance(projector_width, int) else tuple(projector_width)
        if len(widths) != heads:
            raise UserError(f"projector_width is one number, or {heads}, one for every head; got {list(widths)}")
        self.widths = widths
        self.normalise_heads = normalise_heads
        self.classifier.requires_grad_(ce_weight > 0)
        self.heads = nn.ModuleList(projector(self.encoder_width, projector_hidden, width) for width in self.widths)
        self._ranks: list[Tensor] = [torch.arange(classes_of) for classes_of in self.classes]

    def setup(self, labels: Labels) -> None:
        super().setup(labels)
        if self._by_default and (labels.taxonomy is None or self.global_weight):  # aspects are not coarse or fine
            self.temperatures = (_FINE_TEMPERATURE,) * len(labels.levels)
        if not self.global_weight:
            return
        count = len(labels.levels)
        orders: tuple[tuple[str, ...] | None, ...] = self.orders or (None,)
        if len(orders) not in (1, count):
            raise UserError(f"orders list the classes of {count} levels, or one list for all; got {len(orders)} lists")
        orders = orders * (count // len(orders))
        self._ranks = [_ranks(names, order) for names, order in zip(labels.classes, orders, strict=True)]

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        views = [self.encoder(view) for view in batch.views]
        inputs = [functional.normalize(view.float(), dim=1) for view in views] if self.normalise_heads else views
        heads = [torch.cat([head(view) for head in self.heads], dim=1) for view in inputs]
        logits = {"logits": self.classifier(self.classified(views[0]))} if self.ce_weight else {}
        return {"heads": torch.stack(heads, dim=1), "labels": batch.labels, **logits}

    def loss(self, heads: Tensor, labels: Tensor, logits: Tensor | None = None) -> dict[str, Tensor]:
        views = heads.shape[1]
        stacked, repeated = heads.flatten(0, 1), labels.repeat_interleave(views, dim=0)
        own = stacked.split(self.widths, dim=1)
        levels = multilevel_supcon_loss(
            own[: len(self.classes)], repeated, temperatures=self.temperatures, weights=self.weights
        )
        loss, terms = levels, {"levels": levels.detach()}
        if logits is not None:
            classified = self.classifier.cross_entropy(logits, labels)
            loss, terms["cross_entropy"] = loss + self.ce_weight * classified, classified.detach()
        if self.global_weight:
            overlap = jaccard_supcon_loss(
                own[-1], self._ordinals(repeated), threshold=self.threshold, temperature=_FINE_TEMPERATURE
            )
            loss, terms["overlap"] = loss + self.global_weight * overlap, overlap.detach()
        return {"loss": loss, **terms}

    def after_training(self, training_set: TrainingPass) -> None:
        self.solve(training_set)

    def _ordinals(self, labels: Tensor) -> Tensor:
        """Return ranks (n, L) from 1, 0 unknown."""
        self._ranks = [ranks.to(labels.device) for ranks in self._ranks]
        columns = [
            torch.where(labels[:, level] >= 0, ranks[labels[:, level].clamp(min=0)] + 1, 0)
            for level, ranks in enumerate(self._ranks)
        ]
        return torch.stack(columns, dim=1)


class HiMulConE(_MultiLevel):
    """One projection contrasted by the labels of every level (Zhang et al., CVPR 2022).

    See :func:`~regrain.objectives.hierarchy.hmce_loss`, which is the paper's, not the published code's. The classifier
    is solved at the end, see :class:`MLCL`; evaluation uses f(x).

    Parameters
    ----------
    temperature : float
        Temperature, > 0.
    level_weights : tuple of float, optional
        lambda of every level, coarse to fine; default halved with every step up.
    projector_hidden, projector_width : int
        Hidden and output width of the projection head; on images 2048 hidden units by recipe, as in SupCon.
    """

    name = "himulcone"
    summary = "labels at several levels: one contrast, deeper levels bound the others"

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: Positive = 0.1,
        level_weights: tuple[NonNegative, ...] | None = None,
        projector_hidden: Count = 512,
        projector_width: Count = 128,
    ) -> None:
        super().__init__(encoder, classes)
        if level_weights is not None and len(level_weights) != len(self.classes):
            raise UserError(f"level_weights are {len(self.classes)} numbers; got {list(level_weights)}")
        self.temperature = temperature
        self.level_weights = level_weights
        self.projector = projector(self.encoder_width, projector_hidden, projector_width)
        self.classifier.requires_grad_(False)

    def setup(self, labels: Labels) -> None:
        if labels.taxonomy is None:
            raise UserError("himulcone's levels bound each other, and those of these data do not nest: take mlcl")
        super().setup(labels)

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        views = [self.encoder(view) for view in batch.views]
        projected = torch.stack([self.projector(view) for view in views], dim=1)
        return {"views": projected, "labels": batch.labels}

    def loss(self, views: Tensor, labels: Tensor) -> dict[str, Tensor]:
        contrast = hmce_loss(
            views.flatten(0, 1),
            labels.repeat_interleave(views.shape[1], dim=0),
            temperature=self.temperature,
            level_weights=self.level_weights,
        )
        return {"loss": contrast}

    def after_training(self, training_set: TrainingPass) -> None:
        self.solve(training_set)

    def embed_projected(self, x: Any) -> Tensor:
        return self.projector(self.encoder(x))


def _ranks(names: Sequence[str], order: Sequence[str] | None) -> Tensor:
    """Return the rank of every class in its order (classes,), lowest first; numbers need no declared order."""
    if order is None:
        values = [_number(name) for name in names]
        if not all(map(math.isfinite, values)):
            raise UserError(
                f"the global head compares ordered classes, and {', '.join(map(repr, names[:3]))} have no order of "
                "their own: declare one, --set 'orders=[[negative, neutral, positive]]', for all levels or a list each"
            )
        return torch.tensor(values, dtype=torch.float64).argsort().argsort()
    missing = [name for name in names if name not in order]
    if missing:
        raise UserError(f"orders leave out the class '{missing[0]}': list every class of the level, lowest first")
    return torch.tensor([list(order).index(name) for name in names])


def _number(name: str) -> float:
    """Return the number in a class name, NaN if the name is not a number."""
    try:
        return float(name)
    except ValueError:
        return math.nan
