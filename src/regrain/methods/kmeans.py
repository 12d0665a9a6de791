"""k-means: classes found in an encoder's unchanged features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import Count, Several
from regrain.errors import UserError
from regrain.methods.assignment import count_subclasses, over_training_set
from regrain.methods.base import Method, Needs, Training, TrainingPass
from regrain.methods.clustering import CLUSTER_VARIANCE, STARTS, kmeans
from regrain.objectives.gathering import from_first


class KMeans(Method):
    r"""Lloyd's algorithm on the features of all training samples; the encoder stays as it is (Lloyd 1982).

    .. math:: \min_{\mu} \sum_i \min_z \lVert v_i - \mu_z \rVert^2, \qquad
              p(z|v) \propto \exp(-\lVert v - \mu_z \rVert^2 / 2\sigma^2), \quad \sigma^2 = 0.1

    with v = f(x) scaled to unit length. Nothing is trained by gradients, so there are no epochs: one pass over the
    un-augmented samples, then scikit-learn's k-means from ``starts`` k-means++ starts, of which the tightest is kept.
    With ``--encoder identity`` it works on the raw input.

    Parameters
    ----------
    subclasses : int, optional
        Number of clusters, at least 2; default 100, or one for 20 training samples where that is fewer.
    starts : int
        Number of k-means++ starts, at least 1.
    """

    name = "kmeans"
    summary = "no labels, no training: k-means on the encoder's features"
    needs = Needs(levels=(), views=("weak",))
    trains_encoder = False
    fit_once = True
    centres: Tensor

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, subclasses: Several | None = None, starts: Count = STARTS
    ) -> None:
        super().__init__(encoder, classes)
        self.starts = starts
        self.register_buffer("centres", torch.zeros(subclasses or 100, self.encoder_width))
        self._seed = int(torch.randint(2**31, ()))

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        return count_subclasses(settings, training, better="regrain discover RUN --estimate-classes")

    def before_epoch(self, training_set: TrainingPass) -> None:
        vectors = over_training_set(self, training_set, self.embed)[0].cpu()
        if len(vectors) < len(self.centres):
            raise UserError(
                f"{len(self.centres)} subclasses are more than the {len(vectors)} training samples", code="too_few"
            )
        self.centres.copy_(kmeans(vectors, len(self.centres), starts=self.starts, seed=self._seed)[1])
        self.centres.copy_(from_first(self.centres))

    def embed(self, x: Any) -> Tensor:
        return functional.normalize(self.encoder(x).float(), dim=1)

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        squared = torch.cdist(self.embed(x), self.centres).square()
        return (-squared / (2 * CLUSTER_VARIANCE)).softmax(dim=1)
