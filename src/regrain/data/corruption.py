"""What an experiment takes from a training split: samples, labels, or their truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regrain.data.dataset import Dataset
from regrain.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """How a training split is made poorer before a method sees it; in the order of the fields.

    Attributes
    ----------
    samples : int, optional
        So many samples in all: see :meth:`~regrain.data.dataset.Dataset.subsample`.
    limit_per_class : int, optional
        At most so many of every class of the finest level in use.
    label_noise : float, or mapping of level to float
        See :meth:`~regrain.data.dataset.Dataset.with_label_noise`.
    noise_within : str, optional
        The level whose classes wrong labels do not leave.
    hide_labels : float, or mapping of level to float
        See :meth:`~regrain.data.dataset.Dataset.hide_labels`.
    draw : int
        At least 0. The seed of all that is drawn here, apart from the seed of the training: methods are compared on
        the same samples, and another draw is another experiment.
    """

    samples: int | None = None
    limit_per_class: int | None = None
    label_noise: float | Mapping[str, float] = 0.0
    noise_within: str | None = None
    hide_labels: float | Mapping[str, float] = 0.0
    draw: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.draw < 2**32:
            raise UserError(f"data.draw is a whole number from 0 to 2^32 - 1; got {self.draw}")

    def apply(self, train: Dataset, levels: Sequence[str]) -> Dataset:
        """The corrupted training split; ``levels`` are those in use, coarse to fine.

        Raises
        ------
        UserError
            If a number lies outside its range, a level is unknown, or more samples are asked for than there are.
        """
        if self.samples is not None:
            train = train.subsample(self.samples, seed=self.draw)
        if self.limit_per_class is not None:
            finest = levels[-1] if levels else None
            train = train.limit_per_class(self.limit_per_class, level=finest, seed=self.draw)
        if self.noise_within is not None:
            train.labels.level_index(self.noise_within)
        if self.label_noise and levels:
            train = train.with_label_noise(self.label_noise, levels=levels, within=self.noise_within, seed=self.draw)
        if self.hide_labels and levels:
            train = train.hide_labels(self.hide_labels, within=levels[0], seed=self.draw)
        return train
