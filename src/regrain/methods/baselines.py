"""Cross entropy on labels: SupCE on the coarse ones, SupFINE on the fine ones, the upper bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from regrain.data.dataset import Batch
from regrain.methods.base import Method, Needs
from regrain.settings import require_range

__all__ = ["SupCE", "SupFINE"]


class _CrossEntropy(Method):
    """A linear classifier on f(x)."""

    def __init__(self, encoder: nn.Module, classes: Sequence[int], *, label_smoothing: float = 0.0) -> None:
        super().__init__(encoder, classes)
        require_range(0, 1, label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing
        self.classifier = nn.Linear(self.encoder_width, self.classes[0])

    def project(self, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.classifier(self.encoder(batch.views[0])), "labels": batch.labels}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, labels = projected["logits"].float(), projected["labels"][:, 0]
        known = (labels >= 0).sum().clamp(min=1)  # a batch without any known label has zero loss and zero gradient
        total = functional.cross_entropy(
            logits, labels, ignore_index=-1, reduction="sum", label_smoothing=self.label_smoothing
        )
        return {"loss": total / known}

    def predict_proba(self, x: Any, level: str) -> Tensor:
        if level != self.needs.levels[0]:
            return super().predict_proba(x, level)
        result: Tensor = self.classifier(self.embed(x)).float().softmax(dim=1)
        return result


class SupCE(_CrossEntropy):
    """Cross entropy on the coarse labels; samples of unknown label are skipped.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    label_smoothing : float
        In [0, 1).
    """

    name: ClassVar[str] = "sup-ce"
    summary: ClassVar[str] = "plain classifier of the coarse labels: the baseline"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)


class SupFINE(_CrossEntropy):
    """Cross entropy on the fine labels: what coarse-trained methods are measured against, not a fair rival.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of fine classes.
    label_smoothing : float
        In [0, 1).
    """

    name: ClassVar[str] = "sup-fine"
    summary: ClassVar[str] = "plain classifier of the fine labels: the upper bound"
    needs: ClassVar[Needs] = Needs(levels=("fine",), views=("strong",), minimum_classes=2)
