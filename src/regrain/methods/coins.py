"""CoIns: coarse classification and instance discrimination together (Xu et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regrain.methods.base import Needs
from regrain.methods.memory import WeightedContrast
from regrain.objectives.relations import coins_loss


class CoIns(WeightedContrast):
    """w CE(coarse) + (1 - w) SelfCon (MaskCon paper, eq. 7); the classifier is linear on f(x).

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    weight : float, optional
        w of the cross entropy, in [0, 1], default 0.5; 1 removes the contrastive term.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name: ClassVar[str] = "coins"
    summary: ClassVar[str] = "coarse classifier and instance discrimination together"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2)
    weights: ClassVar[tuple[float, float]] = (0.5, 0.5)

    def __init__(self, encoder: nn.Module, classes: Sequence[int], **memory: Any) -> None:
        super().__init__(encoder, classes, **memory)
        self.classifier = nn.Linear(self.encoder_width, self.classes[0])

    def project_features(self, features: Tensor) -> dict[str, Tensor]:
        return {"class_logits": self.classifier(features)}

    def contrast(self, projected: Mapping[str, Tensor], candidate_mask: Tensor) -> dict[str, Tensor]:
        loss = coins_loss(
            projected["query"],
            projected["key"],
            self.queue.keys,
            projected["class_logits"],
            projected["labels"][:, 0],
            temperature=self.temperature,
            weight=self.weight,
            candidate_mask=candidate_mask,
        )
        return {"loss": loss}

    def predict_proba(self, x: Any, level: str) -> Tensor:
        if level != "coarse":
            return super().predict_proba(x, level)
        result: Tensor = self.classifier(self.embed(x)).float().softmax(dim=1)
        return result
