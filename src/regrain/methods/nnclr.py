"""NNCLR: nearest neighbours as positives (Dwibedi et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import require_range
from regrain.data.dataset import Batch
from regrain.encoders.heads import predictor
from regrain.methods.base import Needs
from regrain.methods.contrast import ContrastiveMethod
from regrain.methods.memory import Queue
from regrain.objectives.relations import nnclr_loss


class NNCLR(ContrastiveMethod):
    """A view's nearest neighbour in the queue is contrasted with the other view's prediction, within the batch (eq. 2).

    Reads no label. The queue holds past embeddings of the first view; a sample's own are forbidden.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` is empty.
    queue_size : int
        Entries of the queue.
    predictor_hidden : int
        Hidden width of the prediction head, an MLP with batch norm.
    **contrast
        See :class:`~regrain.methods.contrast.ContrastiveMethod`.
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
        queue_size: int = 8192,
        predictor_hidden: int = 4096,
        **contrast: Any,
    ) -> None:
        super().__init__(encoder, classes, **contrast)
        require_range(1, predictor_hidden=predictor_hidden)
        self.predictor = predictor(self.projector_width, predictor_hidden)
        self.queue = Queue(queue_size, self.projector_width, 0)

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
