"""Self-Classifier: classes without labels (Amrani, Karlinsky and Bronstein, ECCV 2022)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from regrain.data.dataset import Batch
from regrain.encoders.heads import ClassHeads
from regrain.errors import RegrainWarning, UserError
from regrain.methods.base import Method, Needs, Scan
from regrain.methods.memory import Queue
from regrain.objectives.relations import nearest_neighbours
from regrain.objectives.self_classifier import self_classifier_loss
from regrain.settings import require_range

__all__ = ["SelfClassifier"]

_FEW_CLASSES = 0.1
"""Share of the classes in use below which an epoch is called collapsed."""


class SelfClassifier(Method):
    """One view's classification teaches another's, with a loss that has no degenerate solution (eq. 1-5).

    See :func:`~regrain.objectives.self_classifier_loss`. Two global views and ``local_views`` smaller ones pass the
    encoder, those of one size together; several classifiers of different sizes share an MLP, and the loss is their
    mean. With a queue, the first view is replaced by its nearest neighbour among earlier first views, never the sample
    itself, as soon as the queue is full (section 3.3). Evaluation uses f(x); the first classifier's classes are what
    ``regrain discover`` shows.

    Logged: ``classes_in_use`` by the first view of a batch, ``assignment_entropy`` of the mean prediction and
    ``undecided``, log C, which the loss is far below once classes form (all for the first classifier). An epoch in
    which nearly all samples share a class is warned about.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; no label is read.
    class_counts : tuple of int
        C of every classifier, each at least 2. The paper's 1000, 2000, 4000, 8000 are for ImageNet.
    row_temperature, column_temperature : float
        Of the softmax over classes and over the batch, > 0.
    local_views : int
        Small crops beside the two global ones.
    queue_size : int
        Entries of the nearest-neighbour queue; 0: none. Shorter than the training data: the paper's 262,144 is for
        ImageNet.
    hidden, width, layers, batch_norm, leaky
        Of the MLP, see :class:`~regrain.encoders.heads.ClassHeads`.
    """

    name: ClassVar[str] = "self-classifier"
    summary: ClassVar[str] = "no labels: classes that views of a sample agree on"
    needs: ClassVar[Needs] = Needs(levels=(), views=("global", "global"))
    training_only: ClassVar[tuple[str, ...]] = ("queue",)
    in_batch: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        class_counts: tuple[int, ...] = (100,),
        row_temperature: float = 0.1,
        column_temperature: float = 0.05,
        local_views: int = 6,
        queue_size: int = 8192,
        hidden: int = 4096,
        width: int = 128,
        layers: int = 2,
        batch_norm: bool = True,
        leaky: bool = True,
    ) -> None:
        super().__init__(encoder, classes)
        if not class_counts or min(class_counts) < 2:
            raise UserError(f"class_counts holds the classes of each classifier, at least 2; got {list(class_counts)}")
        require_range(0, above=True, row_temperature=row_temperature, column_temperature=column_temperature)
        require_range(0, local_views=local_views)
        require_range(0, 3, layers=layers)
        require_range(1, hidden=hidden, width=width)
        self.row_temperature = row_temperature
        self.column_temperature = column_temperature
        self.heads = ClassHeads(
            self.encoder_width,
            class_counts,
            hidden=hidden,
            width=width,
            layers=layers,
            batch_norm=batch_norm,
            leaky=leaky,
        )
        self.class_counts = tuple(class_counts)
        self.queue = Queue(queue_size, width, 0)
        self._used = torch.zeros(class_counts[0])

    @classmethod
    def view_names(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("global", "global", *("local",) * int(settings["local_views"]))

    def project(self, batch: Batch) -> dict[str, Tensor]:
        features = _encode_by_size(self.encoder, batch.views)
        count = len(features)
        vectors = self.heads(torch.cat(features)).unflatten(0, (count, -1)).transpose(0, 1)
        return {"vectors": vectors, "labels": batch.labels, "ids": batch.ids}  # vectors (B, V, width)

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        vectors, ids = projected["vectors"], projected["ids"]
        first = vectors[:, 0]
        if 0 < self.queue.size == len(self.queue.keys):
            neighbour = nearest_neighbours(first.detach(), self.queue.keys, self.queue.candidate_mask(ids)[:, 1:])
            vectors = torch.cat([neighbour[:, None], vectors[:, 1:]], dim=1)
        self.queue.stage(first, projected["labels"], ids)
        losses = []
        for number, logits in enumerate(self.heads.logits(vectors.transpose(0, 1))):
            losses.append(
                self_classifier_loss(
                    logits, row_temperature=self.row_temperature, column_temperature=self.column_temperature
                )
            )
            if number == 0:
                told = self._describe(logits[0].detach())
        return {"loss": torch.stack(losses).mean(), **told}

    @torch.no_grad()
    def _describe(self, logits: Tensor) -> dict[str, Tensor]:
        chosen = torch.bincount(logits.argmax(dim=1), minlength=self.class_counts[0])
        self._used = self._used.to(chosen.device) + chosen
        mean = (logits.float() / self.row_temperature).softmax(dim=1).mean(dim=0)
        entropy = -torch.special.xlogy(mean, mean).sum()
        undecided = torch.full_like(entropy, math.log(self.class_counts[0]))
        return {"classes_in_use": (chosen > 0).sum(), "assignment_entropy": entropy, "undecided": undecided}

    def before_epoch(self, scan: Scan) -> None:
        total = float(self._used.sum())
        in_use = int((self._used > 0.001 * total).sum())
        if total >= 10 * self.class_counts[0] and in_use < max(2, _FEW_CLASSES * self.class_counts[0]):
            warnings.warn(
                f"{self.name} used {in_use} of {self.class_counts[0]} classes in the last epoch: it has collapsed or "
                "not begun to tell samples apart. Larger batches, a lower learning rate or fewer classes help",
                RegrainWarning,
                stacklevel=2,
            )
        self._used.zero_()

    def after_step(self) -> None:
        self.queue.commit()

    def embed_projected(self, x: Any) -> Tensor:
        result: Tensor = self.heads(self.encoder(x))
        return result

    def partitions(self, x: Any) -> tuple[Tensor, ...]:
        logits = self.heads.logits(self.heads(self.encoder(x)))
        return tuple((rows.float() / self.row_temperature).softmax(dim=1) for rows in logits)

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        return self.partitions(x)[0]


def _encode_by_size(encoder: nn.Module, views: Sequence[Any]) -> list[Tensor]:
    """f of every view, with one pass over consecutive views of one shape; texts and records go view by view."""
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
