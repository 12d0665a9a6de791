"""Self-Classifier: classes without labels (Amrani, Karlinsky and Bronstein, ECCV 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from regrain.checks import Count, CountFromZero, Positive, Several
from regrain.data.dataset import Batch
from regrain.encoders.heads import ClassHeads
from regrain.errors import UserError, warn
from regrain.methods.assignment import over_training_set, rule_of_thumb
from regrain.methods.base import Method, Needs, Training, TrainingPass
from regrain.methods.classifier import class_counts
from regrain.methods.memory import Queue, fit_queue
from regrain.methods.neighbourhood import Neighbourhood
from regrain.metrics import neighbour_information
from regrain.objectives.relations import nearest_entries
from regrain.objectives.self_classifier import self_classifier_loss

_FEW_CLASSES = 0.1
"""Share of the classes in use below which an epoch is called collapsed."""

_PRIOR_SUM = 1e-3
"""Largest deviation of a prior's sum from 1, since its shares may be rounded."""


class SelfClassifier(Method):
    """One view's classification teaches another's, with a loss that has no degenerate solution (eq. 1-5).

    See :func:`~regrain.objectives.self_classifier_loss`. Two global views and ``local_views`` smaller ones pass the
    encoder, those of one size together; several classifiers of different sizes share an MLP, and the loss is their
    mean. Neighbours make views that say more than augmentation does: with a queue, the first view is replaced by its
    nearest neighbour among earlier first views, as soon as the queue is full (section 3.3); with ``neighbours``, the
    second view is one of the nearest training samples by cosine of the centred f(x), found before the first epoch and
    drawn again every epoch. Neither is ever the sample itself. Evaluation uses f(x); the first classifier's classes are
    what ``regrain discover`` shows.

    On frozen features of Grocery's photographs it finds classes better than k-means does; on CLINC150's texts, with 100
    of every intent, k-means, Ward linkage and TURTLE are as good or better.

    Logged: ``classes_in_use`` by the first view of a batch, ``assignment_entropy`` of the mean prediction and
    ``undecided``, log C, which the loss is far below once classes form (all for the first classifier). An epoch in
    which nearly all samples share a class is warned about.

    Parameters
    ----------
    class_counts : tuple of int, optional
        C of every classifier, each at least 2; default one, of 100 classes, or of one for 20 training samples where
        that is fewer. The paper's 1000, 2000, 4000, 8000 are for ImageNet.
    class_prior : tuple of float, optional
        p(y), the share of each class, the same for all classifiers: positive, with sum 1; default uniform. Classes keep
        the order given here.
    row_temperature, column_temperature : float
        Temperatures of the softmax over classes and over the batch, > 0.
    local_views : int
        Number of small crops besides the two global ones.
    queue_size : int
        Entries of the nearest-neighbour queue; 0: none. Shorter than the training data: the paper's 262,144 is for
        ImageNet.
    neighbours : int
        Number of nearest training samples from which the second view is drawn, in place of the queue; 0: it is another
        view of the sample. The neighbour's f(x) is from the beginning of the epoch and passes no gradient.
    restarts : int
        Number of sets of classifiers, MLP included, trained side by side. At the end the set is kept whose classes
        samples share most with their ``neighbours``, by :func:`~regrain.metrics.neighbour_information` over the
        training samples: labels are not used.
    hidden, width, layers, batch_norm
        Shape of the MLP, see :class:`~regrain.encoders.heads.ClassHeads`.
    """

    name = "self-classifier"
    summary = "no labels: classes that views of a sample agree on"
    needs = Needs(levels=(), views=("global", "global"))
    training_only = ("queue", "mined", "others")
    uses_in_batch_negatives = True
    prior: Tensor | None

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        class_counts: tuple[Several, ...] | None = None,
        class_prior: tuple[float, ...] | None = None,
        row_temperature: Positive = 0.1,
        column_temperature: Positive = 0.05,
        local_views: CountFromZero = 6,
        queue_size: CountFromZero = 8192,
        neighbours: CountFromZero = 0,
        restarts: Count = 1,
        hidden: Count = 4096,
        width: Count = 128,
        layers: Annotated[int, Ge(0), Le(3)] = 2,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(encoder, classes)
        counts = (100,) if class_counts is None else class_counts
        if not counts:
            raise UserError("class_counts holds the classes of each classifier, of one at least", code="wrong_shape")
        if neighbours and queue_size:
            raise UserError(
                "neighbours and queue_size both put a neighbour in a view's place: set queue_size=0 or neighbours=0"
            )
        if restarts > 1 and not neighbours:
            raise UserError("restarts are compared by their neighbours' classes: set neighbours=10, or restarts=1")
        self.row_temperature = row_temperature
        self.column_temperature = column_temperature
        made = [
            ClassHeads(self.encoder_width, counts, hidden=hidden, width=width, layers=layers, batch_norm=batch_norm)
            for _ in range(restarts)
        ]
        self.heads, self.others = made[0], nn.ModuleList(made[1:])
        self.class_counts = counts
        self.register_buffer("prior", _checked_prior(class_prior, counts), persistent=False)
        self.neighbours = neighbours
        self.mined = Neighbourhood(neighbours, int(torch.randint(2**31, ())))
        self.queue = Queue(queue_size, width)
        self._used = torch.zeros(counts[0])

    @classmethod
    def view_names(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        sample = 1 if settings["neighbours"] else 2
        return ("global",) * sample + ("local",) * int(settings["local_views"])

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        notices = fit_queue(settings, training)
        if settings["class_counts"] is None and settings["class_prior"] is not None:
            settings["class_counts"] = (len(settings["class_prior"]),)
        elif settings["class_counts"] is None:
            count = rule_of_thumb(training)
            settings["class_counts"] = (count,)
            notices.append(
                f"{count} classes, a rule of thumb: where you know or estimate them (`regrain "
                "discover RUN --estimate-classes`) give --set 'class_counts=[C]'"
            )
        return notices

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        features = _encode_by_size(self.encoder, batch.views)
        if self.neighbours:
            features.insert(1, self.mined.draw(batch.ids).to(features[0].dtype))
        joined = torch.cat(features)
        vectors = torch.stack([heads(joined) for heads in self._restarts], dim=1)
        vectors = vectors.unflatten(0, (len(features), -1)).transpose(0, 1)  # (B, V, restarts, width)
        return {"vectors": vectors, "ids": batch.ids}

    def loss(self, vectors: Tensor, ids: Tensor) -> dict[str, Tensor]:
        vectors = vectors.transpose(0, 1)
        first = vectors[0, :, 0]
        if 0 < self.queue.size == len(self.queue.keys):
            neighbour = nearest_entries(first.detach(), self.queue.keys, self.queue.candidate_mask(ids)[:, 1:])
            vectors = torch.cat([neighbour[None, :, None], vectors[1:]])
        self.queue.stage(first, ids)
        logits = [
            rows for heads, own in zip(self._restarts, vectors.unbind(2), strict=True) for rows in heads.logits(own)
        ]
        losses = [
            self_classifier_loss(
                rows,
                row_temperature=self.row_temperature,
                column_temperature=self.column_temperature,
                class_prior=self.prior,
            )
            for rows in logits
        ]
        return {"loss": torch.stack(losses).mean(), **self._describe(logits[0][0].detach())}

    @torch.no_grad()
    def _describe(self, logits: Tensor) -> dict[str, Tensor]:
        chosen = class_counts(logits.argmax(dim=1), self.class_counts[0])
        self._used = self._used.to(chosen.device) + chosen
        mean = (logits.float() / self.row_temperature).softmax(dim=1).mean(dim=0)
        entropy = -torch.special.xlogy(mean, mean).sum()
        undecided = torch.full_like(entropy, math.log(self.class_counts[0]))
        return {"classes_in_use": (chosen > 0).sum(), "assignment_entropy": entropy, "undecided": undecided}

    def before_epoch(self, training_set: TrainingPass) -> None:
        total = float(self._used.sum())
        in_use = int((self._used > 0.001 * total).sum())
        if total >= 10 * self.class_counts[0] and in_use < max(2, _FEW_CLASSES * self.class_counts[0]):
            warn(
                f"{self.name} used {in_use} of {self.class_counts[0]} classes in the last epoch: it has collapsed or "
                "not begun to tell samples apart. Larger batches, a lower learning rate or fewer classes help"
            )
        self._used.zero_()
        if not self.neighbours:
            return
        self.mined.epochs += 1
        if not self.mined.found or any(parameter.requires_grad for parameter in self.encoder.parameters()):
            features, _, ids = over_training_set(self, training_set, lambda x: self.encoder(x).float())
            self.mined.take(ids, features)

    def after_step(self) -> None:
        self.queue.commit()

    def after_training(self, training_set: TrainingPass) -> None:
        if not len(self.others):
            return
        codes, _, ids = over_training_set(self, training_set, self._restart_classes)
        codes = codes[ids.argsort()].cpu()
        information = [neighbour_information(own, self.mined.neighbours, self.class_counts[0]) for own in codes.T]
        best = int(torch.tensor(information).argmax())
        if best:
            other = self.others[best - 1]
            kept = {name: value.clone() for name, value in self.heads.state_dict().items()}
            self.heads.load_state_dict(other.state_dict())
            other.load_state_dict(kept)

    @property
    def _restarts(self) -> list[ClassHeads]:
        return [self.heads, *self.others]  # type: ignore[list-item]  # all are ClassHeads; nn.Module does not know

    def _restart_classes(self, x: Any) -> Tensor:
        """Return the class by the first classifier of each restart, (B, restarts)."""
        features = self.encoder(x)
        return torch.stack([heads.logits(heads(features))[0].argmax(dim=1) for heads in self._restarts], dim=1)

    def embed_projected(self, x: Any) -> Tensor:
        return self.heads(self.encoder(x))

    def partitions(self, x: Any) -> tuple[Tensor, ...]:
        logits = self.heads.logits(self.heads(self.encoder(x)))
        return tuple((rows.float() / self.row_temperature).softmax(dim=1) for rows in logits)

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        return self.partitions(x)[0]


def _checked_prior(class_prior: Sequence[float] | None, counts: Sequence[int]) -> Tensor | None:
    """Return the prior (C,), after checking that it fits all classifiers."""
    if class_prior is None:
        return None
    if any(count != len(class_prior) for count in counts):
        raise UserError(
            f"class_prior gives {len(class_prior)} shares, one for every class; the classifiers have {list(counts)} "
            f"classes (class_counts): give as many"
        )
    prior = torch.tensor(class_prior, dtype=torch.float64)
    if not bool((prior > 0).all()) or abs(float(prior.sum()) - 1) > _PRIOR_SUM:
        raise UserError(
            f"class_prior holds the share of each class, greater than 0, and they sum to 1; these sum to "
            f"{float(prior.sum()):g}, the smallest is {float(prior.min()):g}"
        )
    return (prior / prior.sum()).float()


def _encode_by_size(encoder: nn.Module, views: Sequence[Any]) -> list[Tensor]:
    """Encode every view, with one pass over consecutive views of one shape; texts and records go view by view."""
    features: list[Tensor] = []
    start = 0
    while start < len(views):
        end = start + 1
        if isinstance(views[start], Tensor):
            while end < len(views) and isinstance(views[end], Tensor) and views[end].shape == views[start].shape:
                end += 1
            joined = torch.cat(list(views[start:end])) if end > start + 1 else views[start]
            features += encoder(joined).chunk(end - start)
        else:
            features.append(encoder(views[start]))
        start = end
    return features
