"""k-means: the classes that an encoder's features hold as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import require_range
from regrain.errors import UserError
from regrain.methods.assignment import over_training_set
from regrain.methods.base import Method, Needs, Scan
from regrain.methods.lloyd import CLUSTER_VARIANCE, STARTS, lloyd
from regrain.objectives.gathering import from_first, gather


class KMeans(Method):
    r"""Lloyd's algorithm on the features of all training samples; the encoder stays as it is (Lloyd 1982).

    .. math:: \min_{\mu} \sum_i \min_z \lVert v_i - \mu_z \rVert^2, \qquad
              p(z|v) \propto \exp(-\lVert v - \mu_z \rVert^2 / 2\sigma^2), \quad \sigma^2 = 0.1

    with v = f(x), scaled to unit length unless ``normalise`` is false. Nothing is trained by gradients, so there are no
    epochs: one pass over the un-augmented samples, then scikit-learn's k-means from ``starts`` k-means++ starts, of
    which the tightest counts. With ``--encoder identity`` it works on the raw input.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; no label is read.
    subclasses : int, optional
        Number of clusters, at least 2; default 100, or one for 20 training samples where that is fewer.
    starts : int
    normalise : bool
    """

    name: ClassVar[str] = "kmeans"
    summary: ClassVar[str] = "no labels, no training: k-means on the encoder's features"
    needs: ClassVar[Needs] = Needs(levels=(), views=("weak",))
    trains_encoder: ClassVar[bool] = False
    by_gradient: ClassVar[bool] = False
    centres: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: int | None = None,
        starts: int = STARTS,
        normalise: bool = True,
    ) -> None:
        super().__init__(encoder, classes)
        count = 100 if subclasses is None else subclasses
        require_range(2, subclasses=count)
        require_range(1, starts=starts)
        self.starts = starts
        self.normalise = normalise
        self.register_buffer("centres", torch.zeros(count, self.encoder_width))
        self._seed = int(torch.randint(2**31, ()))

    def before_epoch(self, scan: Scan) -> None:
        vectors = gather(over_training_set(self, scan, self._vectors)[0], with_gradient=False).cpu()
        if len(vectors) < len(self.centres):
            raise UserError(f"{len(self.centres)} subclasses are more than the {len(vectors)} training samples")
        self.centres.copy_(lloyd(vectors, len(self.centres), starts=self.starts, seed=self._seed)[1])
        self.centres.copy_(from_first(self.centres))

    def embed(self, x: Any) -> Tensor:
        return self._vectors(x)

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        squared = torch.cdist(self._vectors(x), self.centres).square()
        return (-squared / (2 * CLUSTER_VARIANCE)).softmax(dim=1)

    def _vectors(self, x: Any) -> Tensor:
        features = self.encoder(x).float()
        return functional.normalize(features, dim=1) if self.normalise else features
