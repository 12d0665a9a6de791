"""Heads h on top of an encoder: projectors and predictors. A linear classifier is plain ``nn.Linear``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm


def projector(
    in_width: int, hidden: int = 512, out: int = 128, *, layers: int = 1, batch_norm: bool = False
) -> nn.Sequential:
    """The MLP from embedding to contrastive space: ``layers`` hidden layers with ReLU, then a linear layer.

    The defaults are MaskCon's (CVPR 2023): hidden 512, output 128. The output is not normalised.

    Parameters
    ----------
    in_width, hidden, out : int
        Widths.
    layers : int, default 1
        Number of hidden layers; 0 gives a single linear layer (SCGM's embedder).
    batch_norm : bool, default False
        Batch normalisation before each ReLU (SimCLR, MoCo v3).

    Examples
    --------
    >>> projector(512)
    Sequential(
      (0): Linear(in_features=512, out_features=512, bias=True)
      (1): ReLU()
      (2): Linear(in_features=512, out_features=128, bias=True)
    )
    """
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts.append(nn.Linear(in_width, hidden, bias=not batch_norm))
        if batch_norm:
            parts.append(nn.BatchNorm1d(hidden))
        parts.append(nn.ReLU())
        in_width = hidden
    return nn.Sequential(*parts, nn.Linear(in_width, out))


def predictor(width: int, hidden: int = 4096) -> nn.Sequential:
    """The MLP from projection to projection that only the query passes (BYOL, NeurIPS 2020; NNCLR, ICCV 2021).

    Examples
    --------
    >>> [type(part).__name__ for part in predictor(128)]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    return projector(width, hidden, width, batch_norm=True)


class ClassHeads(nn.Module):
    """Classifiers of several sizes on one vector: an MLP whose output is scaled to unit length, then linear layers.

    The linear layers have no bias, and weight vectors of unit length (weight normalisation with gain 1), so that a
    logit is a cosine: Self-Classifier (Amrani et al., ECCV 2022, section 4.1).

    Parameters
    ----------
    classes : sequence of int
        Classes of each classifier.
    hidden, width : int
        Widths of the MLP's hidden layers and of its output.
    layers : int
        Hidden layers; 0: one linear layer.
    batch_norm : bool
        Before each activation, a leaky ReLU.

    Examples
    --------
    >>> import torch
    >>> heads = ClassHeads(8, (3, 5), hidden=16, width=4)
    >>> [tuple(logits.shape) for logits in heads.logits(heads(torch.zeros(2, 8)))]
    [(2, 3), (2, 5)]
    """

    def __init__(
        self,
        in_width: int,
        classes: Sequence[int],
        *,
        hidden: int = 4096,
        width: int = 128,
        layers: int = 2,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts.append(nn.Linear(in_width, hidden, bias=not batch_norm))
            parts += [nn.BatchNorm1d(hidden)] * batch_norm
            parts.append(nn.LeakyReLU())
            in_width = hidden
        self.mlp = nn.Sequential(*parts, nn.Linear(in_width, width))
        self.classifiers = nn.ModuleList()
        for count in classes:
            classifier = weight_norm(nn.Linear(width, count, bias=False))
            gain = classifier.parametrizations.weight.original0
            gain.data.fill_(1)
            gain.requires_grad_(False)
            self.classifiers.append(classifier)

    def forward(self, features: Tensor) -> Tensor:
        """Unit vectors (B, width) of features (B, in_width)."""
        return functional.normalize(self.mlp(features).float(), dim=1)

    def logits(self, vectors: Tensor) -> list[Tensor]:
        """Cosines (B, classes) of unit vectors to the classes, head by head."""
        return [classifier(vectors) for classifier in self.classifiers]
