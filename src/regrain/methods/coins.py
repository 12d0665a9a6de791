"""CoIns: coarse classification and instance discrimination together (Xu et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from regrain.methods.base import Needs
from regrain.methods.memory import WeightedContrast
from regrain.objectives.relations import coins_loss


class CoIns(WeightedContrast):
    """w CE(coarse) + (1 - w) SelfCon (MaskCon paper, eq. 7); the classifier is linear on f(x).

    Parameters
    ----------
    weight : float, optional
        w of the cross entropy, in [0, 1], default 0.5; 1 removes the contrastive term.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name = "coins"
    summary = "coarse classifier and instance discrimination together"
    needs = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2)
    weights = (0.5, 0.5)

    def __init__(self, encoder: nn.Module, classes: Sequence[int], **memory: Any) -> None:
        super().__init__(encoder, classes, **memory)
        self.classifier = nn.Linear(self.encoder_width, self.classes[0])

    def forward_features(self, features: Tensor) -> dict[str, Tensor]:
        return {"logits": self.classifier(features)}

    def contrast(self, query: Tensor, key: Tensor, labels: Tensor, mask: Tensor, logits: Tensor) -> dict[str, Tensor]:
        loss = coins_loss(
            query, key, self.queue.keys, logits, labels[:, 0], temperature=self.temperature, weight=self.weight,
            candidate_mask=mask,
        )  # fmt: skip
        return {"loss": loss}

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        return {"coarse": self.classifier(self.encoder(x))}
