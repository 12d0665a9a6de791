"""A method of your own, outside the package: a coarse classifier that keeps the samples of a class apart.

Run as a script it is the ``regrain`` command with one method more::

    python examples/add_a_method.py fit spread digits --encoder conv4 --epochs 5 --out runs/spread
    python examples/add_a_method.py evaluate runs/spread -p recall
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import require_range
from regrain.data import Batch
from regrain.methods import METHODS, Method, Needs
from regrain.methods.classifier import labelled_cross_entropy


def spread_loss(embeddings: Tensor, labels: Tensor, *, sharpness: float) -> Tensor:
    r"""How crowded the samples of one class lie: :math:`\log` mean :math:`e^{-t |v_i - v_j|^2}` over pairs of a class.

    The uniformity of Wang and Isola (ICML 2020), within classes.

    Parameters
    ----------
    embeddings
        (n, d), normalised here.
    labels
        (n,) integers, -1 unknown: such a row has no pair. Without any pair the loss is zero, with zero gradient.
    sharpness
        t, positive.

    Examples
    --------
    >>> import torch
    >>> spread_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0]), sharpness=2.0).item()
    -8.0
    """
    vectors = functional.normalize(embeddings.float(), dim=1)
    squared = 2 - 2 * vectors @ vectors.T
    pairs = (labels[:, None] == labels) & (labels >= 0)[:, None]
    pairs.fill_diagonal_(False)
    if not bool(pairs.any()):
        return vectors.sum() * 0
    return (-sharpness * squared[pairs]).logsumexp(dim=0) - pairs.sum().log()


class Spread(Method):
    """CE(coarse) + w spread: superclasses are told apart, and what lies within them does not fall together.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    weight, sharpness : float
        w, at least 0, and t, > 0.
    """

    name: ClassVar[str] = "spread"
    summary: ClassVar[str] = "coarse classifier that keeps the samples of a class apart"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)
    in_batch: ClassVar[bool] = True

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, weight: float = 0.1, sharpness: float = 2.0
    ) -> None:
        super().__init__(encoder, classes)
        require_range(0, weight=weight)
        require_range(0, above=True, sharpness=sharpness)
        self.weight, self.sharpness = weight, sharpness
        self.classifier = nn.Linear(self.encoder_width, self.classes[0])

    def project(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encoder(batch.views[0])
        return {"features": features, "logits": self.classifier(features), "labels": batch.labels}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        coarse = projected["labels"][:, 0]
        classified = labelled_cross_entropy(projected["logits"], coarse)
        spread = spread_loss(projected["features"], coarse, sharpness=self.sharpness)
        return {"loss": classified + self.weight * spread, "spread": spread.detach()}

    def predict_proba(self, x: Any, level: str) -> Tensor:
        if level != "coarse":
            return super().predict_proba(x, level)
        return self.classifier(self.embed(x)).float().softmax(dim=1)


METHODS[Spread.name] = Spread

if __name__ == "__main__":
    from regrain.cli import main

    main()
