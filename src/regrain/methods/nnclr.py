"""NNCLR: nearest neighbours as positives (Dwibedi et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import CountFromZero
from regrain.data.dataset import Batch
from regrain.encoders.heads import predictor
from regrain.methods.base import Needs, Training
from regrain.methods.contrast import ContrastiveMethod
from regrain.methods.memory import Queue, fit_queue
from regrain.objectives.relations import nnclr_loss


class NNCLR(ContrastiveMethod):
    """A view's nearest neighbour in the queue is contrasted with the other view's prediction, within the batch (eq. 2).

    Reads no label. The queue holds past embeddings of the first view; a sample's own are forbidden. The prediction head
    is an MLP of 4096 hidden units with batch norm.

    In the short trainings measured here (CIFARtoy) it is below ``selfcon``, and below the weights that it started from.

    Parameters
    ----------
    queue_size : int
        Entries of the queue; ``regrain fit`` takes half of the training samples where they are fewer than twice it.
    **contrast
        See :class:`~regrain.methods.contrast.ContrastiveMethod`.
    """

    name = "nnclr"
    summary = "no labels: nearest neighbours as positives"
    needs = Needs(levels=(), views=("simclr", "simclr"))
    training_only = ("queue",)
    uses_in_batch_negatives = True

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, queue_size: CountFromZero = 8192, **contrast: Any
    ) -> None:
        super().__init__(encoder, classes, **contrast)
        self.predictor = predictor(self.projector_width)
        self.queue = Queue(queue_size, self.projector_width)

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        return fit_queue(settings, training)

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        first, second = (self.projector(self.encoder(view)) for view in batch.views)
        predictions = {"first_prediction": self.predictor(first), "second_prediction": self.predictor(second)}
        return {"first": first, "second": second, **predictions, "ids": batch.ids}

    def loss(
        self, first: Tensor, second: Tensor, first_prediction: Tensor, second_prediction: Tensor, ids: Tensor
    ) -> dict[str, Tensor]:
        allowed = self.queue.candidate_mask(ids)[:, 1:]
        one, other = (
            nnclr_loss(view.detach(), prediction, self.queue.keys, temperature=self.temperature, neighbour_mask=allowed)
            for view, prediction in ((first, second_prediction), (second, first_prediction))
        )
        self.queue.stage(functional.normalize(first.float(), dim=1), ids)
        return {"loss": (one + other) / 2}

    def after_step(self) -> None:
        self.queue.commit()
