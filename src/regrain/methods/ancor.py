"""ANCOR: angular contrast within superclasses beside a coarse classifier (Bukchin et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regrain.data.dataset import Batch
from regrain.methods.base import Needs
from regrain.methods.classifier import labelled_cross_entropy
from regrain.methods.embedder import EmbedderMethod
from regrain.methods.memory import AngularMemory


class ANCOR(EmbedderMethod):
    """CE(coarse) plus InfoNCE between directions as seen from the superclass's classifier weight (section 3).

    The classifier works on the embedder's output before it is scaled to unit length.

    Samples of unknown coarse label are left out of both terms.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.embedder.EmbedderMethod`; ``classes`` holds the number of coarse classes.
    temperature : float
        Of the angular contrast, > 0.
    queue_size : int
        Keys kept of each superclass, as published; ``regrain fit`` keeps fewer where a superclass has fewer than twice
        as many training samples in the mean.
    momentum : float
        Of the twin, in [0, 1).
    embedder_width, embedder_layers : int
        Of the embedder, an MLP with one hidden layer as in MoCo v2.
    """

    name: ClassVar[str] = "ancor"
    summary: ClassVar[str] = "coarse classifier with angular contrast within each superclass"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong", "strong"), minimum_classes=2)
    training_only: ClassVar[tuple[str, ...]] = ("angular",)
    queue_of_each_superclass: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: float = 0.2,
        queue_size: int = 65536,
        momentum: float = 0.999,
        embedder_width: int = 128,
        embedder_layers: int = 1,
    ) -> None:
        super().__init__(encoder, classes, embedder_width=embedder_width, embedder_layers=embedder_layers)
        self.classifier = nn.Linear(embedder_width, self.classes[0])
        self.angular = AngularMemory(
            encoder,
            self.embedder,
            embedder_width,
            self.classes[0],
            temperature=temperature,
            queue_size=queue_size,
            momentum=momentum,
        )

    def project(self, batch: Batch) -> dict[str, Tensor]:
        return {
            "embedding": self.embedder(self.encoder(batch.views[0])),
            "key": self.angular.key(batch.views[1]),
            "labels": batch.labels,
            "ids": batch.ids,
        }

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        embedding, coarse = projected["embedding"].float(), projected["labels"][:, 0]
        classified = labelled_cross_entropy(self.classifier(embedding), coarse)
        contrast = self.angular.loss(embedding, projected["key"], coarse, projected["ids"], self.classifier.weight)
        return {"loss": classified + contrast, "cross_entropy": classified, "angular": contrast}

    def after_step(self) -> None:
        self.angular.after_step(self.encoder, self.embedder)

    def predict_proba(self, x: Any, level: str) -> Tensor:
        if level != "coarse":
            return super().predict_proba(x, level)
        result: Tensor = self.classifier(self.embedder(self.encoder(x))).float().softmax(dim=1)
        return result
