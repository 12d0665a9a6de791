"""A method of your own, outside the package: a coarse classifier that keeps the samples of a class apart.

``python examples/add_a_method.py fit spread digits --encoder conv4`` is the ``regrain`` command with one method more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import NonNegative
from regrain.data import Batch
from regrain.methods import METHODS, Method, Needs
from regrain.methods.classifier import labelled_cross_entropy


class Spread(Method):
    """CE(coarse) + w log mean exp(-2 |v_i - v_j|^2) over the pairs of a class, own ones among them; v = f(x) / |f(x)|.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    weight : float
        w, at least 0.
    """

    name, summary = "spread", "coarse classifier that keeps the samples of a class apart"
    needs = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)

    def __init__(self, encoder: nn.Module, classes: Sequence[int], *, weight: NonNegative = 0.1) -> None:
        super().__init__(encoder, classes)
        self.weight = weight
        self.classifier = nn.Linear(self.encoder_width, self.classes[0])

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:  # row by row
        features = self.encoder(batch.views[0])
        return {"features": features, "logits": self.classifier(features), "labels": batch.labels}

    def loss(self, features: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:  # the whole batch
        coarse, v = labels[:, 0], functional.normalize(features.float(), dim=1)
        pairs = ((coarse[:, None] == coarse) & (coarse >= 0)).fill_diagonal_(True)
        spread = (4 * (v @ v.T - 1))[pairs].logsumexp(dim=0) - pairs.sum().log()
        return {"loss": labelled_cross_entropy(logits, coarse) + self.weight * spread, "spread": spread.detach()}

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        return {"coarse": self.classifier(self.encoder(x))}


METHODS[Spread.name] = Spread
if __name__ == "__main__":
    from regrain.cli import main

    main()
