"""Encoders of vectors, and of any other tensor once flattened; static features of series follow the series."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from regrain.checks import BelowOne, Count
from regrain.errors import UserError

from .base import NO_PARAMETERS, Encoder, ScaledEncoder, column_statistics, record_parts

Norm = Literal["layer", "batch", "none"]
Activation = Literal["gelu", "relu"]


class _Standardised(ScaledEncoder):
    """Flattens its input and brings columns of different scales to mean 0 and standard deviation 1.

    A missing value (NaN) counts as its column's mean.
    """

    modality = "vector"
    input_mean: Tensor
    input_std: Tensor

    def __init__(self, sample_shape: Sequence[int], static_width: int = 0) -> None:
        super().__init__()
        self.static_width = static_width
        self.in_width = math.prod(sample_shape) + static_width
        self.register_buffer("input_mean", torch.zeros(self.in_width))
        self.register_buffer("input_std", torch.ones(self.in_width))

    def take_statistics(self, samples: Tensor | Mapping[str, Tensor]) -> None:
        """Take means and standard deviations of all columns over the training samples, missing values left out."""
        self.set_statistics(*column_statistics(_flat(samples, self.static_width)))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take the columns' means and standard deviations over the training samples.

        Parameters
        ----------
        mean, std : Tensor of the sample's shape
            Constant columns (standard deviation 0) are only centred.

        Raises
        ------
        UserError
            When the sizes differ from the input's or a value is not finite.
        """
        for name, value in (("mean", mean), ("std", std)):
            if value.numel() != self.in_width:
                raise UserError(
                    f"{name} has {value.numel()} columns, the encoder's input has {self.in_width}", code="wrong_shape"
                )
            if not value.isfinite().all():
                raise UserError(
                    f"{name} of the input columns is not finite; does the table hold missing values?", code="not_finite"
                )
        self.input_mean.copy_(mean.flatten())
        self.input_std.copy_(torch.where(std == 0, 1.0, std).flatten())

    def _standardise(self, flat: Tensor) -> Tensor:
        return (flat - self.input_mean) / self.input_std

    def _flatten(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        flat = _flat(x, self.static_width).to(self.input_mean.dtype)  # (B, in_width)
        return torch.where(flat.isnan(), self.input_mean, flat)


def _flat(x: Tensor | Mapping[str, Tensor], static_width: int) -> Tensor:
    """Samples as vectors (B, in_width): what is flattened, then the static features."""
    samples, static = record_parts(x, static_width)
    flat = samples.flatten(1)
    return flat if static is None else torch.cat([flat, static.to(flat.dtype)], dim=1)


class MLPEncoder(_Standardised):
    """A multilayer perceptron on the flattened, standardised input.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape of one sample: (D,) for vectors; (T, C) or (C, H, W) are flattened.
    static_width : int
        Number of static features of a series.
    hidden : sequence of int, default (256, 256)
        Widths of the hidden layers.
    width : int, default 128
        Width of the embedding.
    norm : {"layer", "batch", "none"}, default "layer"
        Normalisation of each hidden layer.
    activation : {"gelu", "relu"}, default "gelu"
    dropout : float in [0, 1), default 0
        Dropout after each hidden layer.

    Examples
    --------
    >>> encoder = MLPEncoder((20,), hidden=(64,), width=16)
    >>> encoder.set_statistics(mean=torch.full((20,), 5.0), std=torch.ones(20))
    >>> encoder(torch.zeros(3, 20)).shape
    torch.Size([3, 16])
    """

    def __init__(
        self,
        sample_shape: Sequence[int],
        static_width: int = 0,
        *,
        hidden: Sequence[Count] = (256, 256),
        width: Count = 128,
        norm: Norm = "layer",
        activation: Activation = "gelu",
        dropout: BelowOne = 0.0,
    ) -> None:
        super().__init__(sample_shape, static_width)
        self.mlp = mlp_layers(self.in_width, hidden, width, norm, activation, dropout)
        self.width = width

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Samples (B, ...) -> embeddings (B, width)."""
        return self.mlp(self._standardise(self._flatten(x)))


class ResidualEncoder(_Standardised):
    """x + MLP(x), whose last layer starts at zero: training starts exactly at the input features.

    The adapter of frozen encoders. The MLP's input is standardised, the sum's other term is x as it comes.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape of one sample; the embedding is as wide as the flattened sample.
    static_width : int
        Number of static features of a series.
    hidden, norm, activation, dropout
        As in :class:`MLPEncoder`; one hidden layer of 512 by default.

    Examples
    --------
    >>> x = torch.randn(3, 20)
    >>> torch.equal(ResidualEncoder((20,))(x), x)
    True
    """

    def __init__(
        self,
        sample_shape: Sequence[int],
        static_width: int = 0,
        *,
        hidden: Sequence[Count] = (512,),
        norm: Norm = "layer",
        activation: Activation = "gelu",
        dropout: BelowOne = 0.0,
    ) -> None:
        super().__init__(sample_shape, static_width)
        self.mlp = mlp_layers(self.in_width, hidden, self.in_width, norm, activation, dropout)
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)
        self.width = self.in_width

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Samples (B, ...) -> embeddings (B, in_width)."""
        flat = self._flatten(x)
        return flat + self.mlp(self._standardise(flat))


class StandardisedEncoder(_Standardised):
    """The flattened sample with every column at mean 0 and standard deviation 1 over the training samples.

    For tables and series as they are: columns of different units count alike, a missing value (NaN) counts as its
    column's mean. Nothing is learnt by gradients.

    Parameters
    ----------
    sample_shape : sequence of int
        Shape of a sample without the batch.
    static_width : int
        Number of static features beside a series.

    Examples
    --------
    >>> encoder = StandardisedEncoder((2,))
    >>> encoder.set_statistics(mean=torch.tensor([5.0, 0.0]), std=torch.tensor([2.0, 1.0]))
    >>> encoder(torch.tensor([[7.0, float("nan")]])).tolist()
    [[1.0, 0.0]]
    """

    origin = NO_PARAMETERS

    def __init__(self, sample_shape: Sequence[int], static_width: int = 0) -> None:
        super().__init__(sample_shape, static_width)
        self.width = self.in_width

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Samples (B, ...) -> (B, width)."""
        return self._standardise(self._flatten(x))


class IdentityEncoder(Encoder):
    """The flattened sample itself, without parameters: for embeddings that come ready-made.

    It has learnt no means to put where values are missing, so that missing values (NaN) of series are refused.

    Examples
    --------
    >>> IdentityEncoder((4, 5))(torch.ones(2, 4, 5)).shape
    torch.Size([2, 20])
    """

    modality = "vector"
    origin = NO_PARAMETERS

    def __init__(self, sample_shape: Sequence[int], static_width: int = 0) -> None:
        super().__init__()
        self.static_width = static_width
        self.width = math.prod(sample_shape) + static_width

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Samples (B, ...) -> (B, width)."""
        flat = _flat(x, self.static_width)
        if not flat.is_floating_point():
            return flat.to(torch.get_default_dtype())
        if self.modality == "series" and bool(flat.isnan().any()):
            raise UserError(
                "the encoder 'identity' cannot take missing values (NaN): use 'dccn' or 'mlp'", code="not_finite"
            )
        return flat


def mlp_layers(
    in_width: int, hidden: Sequence[int], width: int, norm: Norm, activation: Activation, dropout: float
) -> nn.Sequential:
    """Linear layers (N, in_width) -> (N, width), each hidden one normalised, activated and dropped out.

    Examples
    --------
    >>> mlp_layers(4, [8], 2, "layer", "gelu", 0.0)(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """
    norms: dict[str, Callable[[int], nn.Module]] = {
        "layer": nn.LayerNorm,
        "batch": nn.BatchNorm1d,
        "none": lambda _: nn.Identity(),
    }
    activations: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(in_width, size), norms[norm](size), activations[activation](), nn.Dropout(dropout)]
        in_width = size
    return nn.Sequential(*layers, nn.Linear(in_width, width))
