"""NNCLR: nearest neighbours as positives (Dwibedi et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from regrain.data.dataset import Batch
from regrain.encoders.heads import predictor, projector
from regrain.methods.base import Method, Needs
from regrain.methods.memory import Queue
from regrain.objectives.relations import nnclr_loss
from regrain.settings import require_range

__all__ = ["NNCLR"]


class NNCLR(Method):
    """A view's nearest neighbour in the queue is contrasted with the other view's prediction, within the batch (eq. 2).

    Reads no label. The queue holds past embeddings of the first view; a sample's own are forbidden.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` is empty.
    temperature : float
        tau, > 0.
    queue_size : int
        Entries of the queue.
    projector_hidden, projector_width : int
        Hidden and output width of the projection head, an MLP.
    predictor_hidden : int
        Hidden width of the prediction head, an MLP with batch norm.
    """

    name: ClassVar[str] = "nnclr"
    summary: ClassVar[str] = "no labels: nearest neighbours as positives"
    needs: ClassVar[Needs] = Needs(levels=(), views=("simclr", "simclr"))
    training_only: ClassVar[tuple[str, ...]] = ("queue",)
    in_batch: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: float = 0.1,
        queue_size: int = 8192,
        projector_hidden: int = 512,
        projector_width: int = 128,
        predictor_hidden: int = 4096,
    ) -> None:
        super().__init__(encoder, classes)
        require_range(0, above=True, temperature=temperature)
        require_range(1, projector_hidden=projector_hidden, projector_width=projector_width)
        require_range(1, predictor_hidden=predictor_hidden)
        self.temperature = temperature
        self.projector = projector(self.encoder_width, projector_hidden, projector_width)
        self.predictor = predictor(projector_width, predictor_hidden)
        self.queue = Queue(queue_size, projector_width, 0)

    def project(self, batch: Batch) -> dict[str, Tensor]:
        first, second = (self.projector(self.encoder(view)) for view in batch.views)
        return {
            "first": first,
            "second": second,
            "first_prediction": self.predictor(first),
            "second_prediction": self.predictor(second),
            "labels": batch.labels,
            "ids": batch.ids,
        }

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        allowed = self.queue.candidate_mask(projected["ids"])[:, 1:]
        pairs = [("first", "second_prediction"), ("second", "first_prediction")]
        one, other = (
            nnclr_loss(
                projected[view].detach(),
                projected[prediction],
                self.queue.keys,
                temperature=self.temperature,
                neighbour_mask=allowed,
            )
            for view, prediction in pairs
        )
        self.queue.stage(functional.normalize(projected["first"].float(), dim=1), projected["labels"], projected["ids"])
        return {"loss": (one + other) / 2}

    def after_step(self) -> None:
        self.queue.commit()
