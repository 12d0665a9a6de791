"""Base of the methods that train on v, an embedder's output on the unit sphere, and memory of angular contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import Count, CountFromZero
from regrain.encoders.heads import projector
from regrain.methods.base import Method
from regrain.methods.memory import MomentumTwin, Queue
from regrain.objectives.angular import angular_info_nce_loss


class EmbedderMethod(Method):
    """v = embedder(f(x)) scaled to unit length; losses, classifiers and subclasses live on v.

    Evaluation, ``embed``, ``discover`` and few-shot classifiers use f(x), as with every other method, so that tables
    compare like with like; the papers report the better of f(x) and v by their test labels. ``evaluate`` judges v too,
    as the representation ``projection``.

    Parameters
    ----------
    embedder_width : int
        Width d of v.
    embedder_layers : int
        Hidden layers of the embedder, as wide as f(x); 0 = one linear layer.
    """

    judges_projection = True

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        embedder_width: Count = 128,
        embedder_layers: CountFromZero = 0,
    ) -> None:
        super().__init__(encoder, classes)
        self.embedder_width = embedder_width
        self.embedder = projector(self.encoder_width, self.encoder_width, embedder_width, layers=embedder_layers)

    def embed_projected(self, x: Any) -> Tensor:
        """Return v, (B, embedder_width)."""
        return self.unit_embedding(self.encoder(x))

    def unit_embedding(self, features: Tensor) -> Tensor:
        """Return the unit vectors v of f(x), (B, embedder_width)."""
        return functional.normalize(self.embedder(features).float(), dim=1)


class AngularMemory(nn.Module):
    """Memory of angular contrast within superclasses: the momentum twin, and a queue for every superclass."""

    def __init__(
        self,
        encoder: nn.Module,
        embedder: nn.Module,
        width: int,
        classes: int,
        *,
        temperature: float,
        queue_size: int,
        momentum: float,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.twin = MomentumTwin(encoder, embedder, momentum=momentum)
        self.queues = Queue(queue_size, width, owners=classes)

    def loss(self, query: Tensor, key: Tensor, coarse: Tensor, ids: Tensor, means: Tensor) -> Tensor:
        """Return the angular InfoNCE loss of the global batch, whose keys enter the queues after the step."""
        mask, queues = self.queues.candidate_mask(ids, coarse), self.queues.by_owner
        self.queues.stage(key, ids, owner=coarse)
        return angular_info_nce_loss(
            query, key, queues, coarse, means, temperature=self.temperature, candidate_mask=mask
        )

    def after_step(self, encoder: nn.Module, embedder: nn.Module) -> None:
        """Add the staged keys to the queues and update the twin."""
        self.queues.commit()
        self.twin.update(encoder, embedder)
