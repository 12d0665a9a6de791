"""Base class of encoders f: a modality, a width, and the origin of the weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from regrain.checks import checks_settings
from regrain.errors import UserError

RANDOM = "random initialisation"
NO_PARAMETERS = "no parameters"


def is_pretrained(origin: str) -> bool:
    """Whether weights of this origin come from other data.

    Examples
    --------
    >>> is_pretrained(RANDOM), is_pretrained(f"{RANDOM} (frozen, with a trained adapter)")
    (False, False)
    >>> is_pretrained("timm resnet18.a1_in1k")
    True
    """
    return not origin.startswith((RANDOM, NO_PARAMETERS))


class Encoder(nn.Module):
    """f: a batch of samples -> embeddings of shape (B, width), float.

    Attributes
    ----------
    modality : str
        "image", "text", "vector" or "series": what ``forward`` takes.
    width : int
        Dimension of the embedding.
    mean, std : tuple of float or None
        Per channel, the normalisation that the weights expect; None when the caller may compute it from the data.
    origin : str
        Where the weights come from, for the model card.
    freeze_statistics : bool
        Whether batch normalisation keeps its running statistics in training too, as it does where fine-tuning starts
        from weights that fit the encoder whole. Its scale and shift are trained like all other weights. Statistics of
        small, strongly augmented batches pull a good start apart before the loss does: on CIFAR-100's superclasses
        (EfficientNet-Lite0, SupCE, 4,000 images, learning rate 0.001) recall@1 of the fine classes, 32.4 at the start,
        is 23.2 with updated statistics and 35.2 with those of the start.
    halves : bool
        Whether half precision makes it faster, see :func:`~regrain.encoders.half.computing_in`; what is small gains
        nothing from it.
    """

    modality: str
    width: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    origin: str = RANDOM
    freeze_statistics: bool = False
    halves: bool = False
    build_config: dict[str, Any] | None = None

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        checks_settings(cls)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch normalisation stays in evaluation mode where its statistics are frozen."""
        super().train(mode)
        if self.freeze_statistics:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def layer_numbers(self) -> dict[str, int]:
        """Parameter name -> its layer, from 0 at the input upwards; empty where layers are not told apart."""
        return {}

    def save_extra(self, folder: str | Path) -> None:
        """Write what rebuilding needs beyond the configuration and the weights; for most encoders nothing."""


class ScaledEncoder(Encoder):
    """An encoder that knows the scale of its input from the training samples: what to subtract and divide by.

    The scale is stored in buffers whose names start with ``input_``; they are saved with the weights.
    """

    @abstractmethod
    def take_statistics(self, samples: Tensor | Mapping[str, Tensor]) -> None:
        """Take means and standard deviations over the training samples, missing values (NaN) left out."""

    def copy_statistics(self, other: ScaledEncoder) -> None:
        """Copy the input scale of another encoder of the same form."""
        known = dict(other.named_buffers(recurse=False))
        for name, buffer in self.named_buffers(recurse=False):
            if name.startswith("input_"):
                buffer.copy_(known[name])


def inverse_spread(std: Tensor) -> Tensor:
    """One over the standard deviation (D,); 0 for a constant column, which then says nothing of any sample.

    Examples
    --------
    >>> inverse_spread(torch.tensor([0.5, 0.0]))
    tensor([2., 0.])
    """
    return (1 / std).where(std > 1e-6 * std.max(), 0)


def column_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of columns (N, D) over what is not missing (NaN).

    A column without any value has mean 0, and one with fewer than two has standard deviation 0.

    Examples
    --------
    >>> nan = float("nan")
    >>> column_statistics(torch.tensor([[1.0, nan], [nan, nan], [3.0, nan]]))
    (tensor([2., 0.]), tensor([1.4142, 0.0000]))
    """
    there = ~values.isnan()
    if bool(there.all()) and len(values) > 1:
        std, mean = torch.std_mean(values, dim=0)
        return mean, std
    known = torch.where(there, values, 0.0).double()
    count = there.sum(dim=0)
    mean = known.sum(dim=0) / count.clamp(min=1)
    squares = torch.where(there, known - mean, 0.0).square().sum(dim=0)
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    return mean.to(values.dtype), std.to(values.dtype)


def record_parts(samples: Tensor | Mapping[str, Tensor], static_width: int) -> tuple[Tensor, Tensor | None]:
    """Split samples into series, or any other input, and their static features (B, S); None where S is 0.

    Raises
    ------
    UserError
        If the samples have other static features than the encoder was built for.
    """
    series, static = (samples["series"], samples.get("static")) if isinstance(samples, Mapping) else (samples, None)
    width = 0 if static is None else static.shape[1]
    if width != static_width:
        raise UserError(
            f"the encoder takes {static_width} static features beside a series; the samples have {width}",
            code="wrong_shape",
        )
    return series, static if width else None
