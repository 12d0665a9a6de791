"""Encoders of records: time series with static features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from regrain.checks import BelowOne, Count
from regrain.errors import UserError

from .base import ScaledEncoder, column_statistics, record_parts
from .vector import mlp_layers

Cell = Literal["lstm", "gru"]


class DCCNEncoder(ScaledEncoder):
    """The dual-channel combiner network (SCGM, appendix C.3, after Che et al. 2016).

    A recurrent network reads the series, a multilayer perceptron the static features; their outputs stand side by side
    and a second perceptron projects them to the embedding. Without static features there is the temporal channel alone.

    Channels and static features are standardised by means and standard deviations over the training samples. A missing
    value (NaN) counts as the training mean, which is 0 then; with ``missing_inputs`` the network also sees which
    values are missing. A step without any value gets no attention, unless all steps are such.

    Parameters
    ----------
    sample_shape : (T, C)
    static_width : int
        S, the number of static features; may be 0.
    cell : {"lstm", "gru"}, default "lstm"
    state : int, default 128
        Width of the recurrent state.
    layers : int, default 1
        Recurrent layers, one on top of the other.
    attention : bool, default False
        A weighted mean of the states of all steps, weighted by a small network of the state, instead of the last state.
    static_hidden : sequence of int, default (64, 64)
        Widths of the layers of the static channel; the last is its output.
    hidden : sequence of int, default (128,)
        Widths of the hidden layers that combine the two channels.
    width : int, default 128
        Width of the embedding.
    missing_inputs : bool, default False
        For every value a further input that is 1 where it is missing.
    dropout : float in [0, 1), default 0
        After each hidden layer of the perceptrons and between recurrent layers.

    Notes
    -----
    The paper gives the parts, not their sizes: all widths are ours.

    Examples
    --------
    >>> encoder = DCCNEncoder((5, 40), 28, cell="gru", attention=True)
    >>> series = torch.randn(3, 5, 40)
    >>> series[0] = float("nan")
    >>> encoder({"series": series, "static": torch.randn(3, 28)}).shape
    torch.Size([3, 128])
    """

    modality = "series"
    input_mean: Tensor
    input_std: Tensor
    input_static_mean: Tensor
    input_static_std: Tensor

    def __init__(
        self,
        sample_shape: Sequence[int],
        static_width: int = 0,
        *,
        cell: Cell = "lstm",
        state: Count = 128,
        layers: Count = 1,
        attention: bool = False,
        static_hidden: Sequence[Count] = (64, 64),
        hidden: Sequence[Count] = (128,),
        width: Count = 128,
        missing_inputs: bool = False,
        dropout: BelowOne = 0.0,
    ) -> None:
        super().__init__()
        if static_width and not static_hidden:
            raise UserError("static_hidden needs at least one width: the static channel's output", code="wrong_shape")
        self.static_width, self.missing_inputs, self.width = static_width, missing_inputs, width
        channels = sample_shape[1]
        for name, size in (("input", channels), ("input_static", static_width)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        inputs = 2 if missing_inputs else 1  # values, and whether they are missing
        network = nn.LSTM if cell == "lstm" else nn.GRU
        self.temporal = network(
            inputs * channels, state, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )
        self.score = nn.Sequential(nn.Linear(state, state), nn.Tanh(), nn.Linear(state, 1)) if attention else None
        self.static: nn.Module | None = None
        combined = state
        if static_width:
            *before, last = static_hidden
            self.static = mlp_layers(inputs * static_width, before, last, "layer", "gelu", dropout)
            combined += last
        self.combine = mlp_layers(combined, hidden, width, "layer", "gelu", dropout)

    def take_statistics(self, samples: Tensor | Mapping[str, Tensor]) -> None:
        """Take means and standard deviations per channel and static feature over the training samples.

        Parameters
        ----------
        samples : Tensor (N, T, C), or a dictionary of it as ``series`` and (N, S) as ``static``
            Missing values (NaN) are left out; constant channels are only centred.
        """
        series, static = record_parts(samples, self.static_width)
        self._set("input", *column_statistics(series.flatten(0, 1)))
        if static is not None:
            self._set("input_static", *column_statistics(static))

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Series (B, T, C), or a dictionary of series and static features (B, S) -> embeddings (B, width)."""
        series, static = record_parts(x, self.static_width)
        missing = series.isnan()  # (B, T, C)
        values = self._filled(series, missing, self.input_mean, self.input_std)
        states, _ = self.temporal(values)  # (B, T, state)
        channel = states[:, -1] if self.score is None else self._attended(states, missing.all(dim=2))
        if self.static is not None and static is not None:
            values = self._filled(static, static.isnan(), self.input_static_mean, self.input_static_std)
            channel = torch.cat([channel, self.static(values).to(channel.dtype)], dim=1)
        return self.combine(channel)

    def _filled(self, values: Tensor, missing: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Return standardised values, 0 where missing; with ``missing_inputs`` also indicators of missing values."""
        scaled = ((values.to(mean.dtype) - mean) / std).masked_fill(missing, 0.0)
        return torch.cat([scaled, missing.to(scaled.dtype)], dim=-1) if self.missing_inputs else scaled

    def _attended(self, states: Tensor, empty: Tensor) -> Tensor:
        """The weighted mean (B, state) of states (B, T, state); steps (B, T) without any value weigh nothing."""
        assert self.score is not None
        scores = self.score(states)[:, :, 0].float()  # (B, T)
        ignored = empty & ~empty.all(dim=1, keepdim=True)
        weights = scores.masked_fill(ignored, -torch.inf).softmax(dim=1)
        return (weights.to(states.dtype)[:, :, None] * states).sum(dim=1)

    def _set(self, name: str, mean: Tensor, std: Tensor) -> None:
        if not (mean.isfinite().all() and std.isfinite().all()):
            raise UserError(
                "the training series hold infinite values, so that they cannot be standardised", code="not_finite"
            )
        getattr(self, f"{name}_mean").copy_(mean)
        getattr(self, f"{name}_std").copy_(torch.where(std == 0, 1.0, std))
