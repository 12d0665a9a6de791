"""Nearest neighbours of training samples, some of which are drawn every epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regrain.metrics import nearest_neighbours
from regrain.views.random import uniform


class Neighbourhood(nn.Module):
    """The training samples' features and nearest neighbours; part of checkpoints.

    Neighbours are nearest by cosine of the features minus their mean over the training set, since the features of many
    networks all point in one direction.

    ``size``: neighbours of a sample; all others where there are fewer. A sample is not a neighbour of itself. ``seed``:
    seed of the draws. ``epochs``: epochs that have begun.

    Examples
    --------
    >>> neighbourhood = Neighbourhood(1, seed=0)
    >>> neighbourhood.take(torch.tensor([7, 3, 5]), torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]))
    >>> neighbourhood.draw(torch.tensor([7]))  # the features of sample 3
    tensor([[0.9000, 0.1000]])
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.size = size
        self.seed = seed
        self.epochs = 0
        self._rows: dict[str, Tensor] = {}

    @property
    def found(self) -> bool:
        """Whether the neighbours are known."""
        return bool(self._rows)

    @property
    def neighbours(self) -> Tensor:
        """Positions of every sample's neighbours, (N, size), with samples in the order of their ids."""
        return self._rows["neighbours"]

    def take(self, ids: Tensor, features: Tensor, groups: Tensor | None = None) -> None:
        """Store the features (N, d) of the samples with these ids (N,); the first call also finds their neighbours.

        With ``groups`` (N,) a sample's neighbours are of its own group, or of any for a sample of group -1. A sample of
        a group smaller than that has some of them several times; one that is alone is its own neighbour.
        """
        order = ids.argsort()
        self._rows |= {"ids": ids[order], "features": features[order]}
        if "neighbours" not in self._rows:
            ordered, count = features[order] - features.mean(dim=0), min(self.size, len(ids) - 1)
            if groups is None:
                found = nearest_neighbours(ordered, ordered, count, exclude_self=True)[1]
            else:
                found = _within(ordered, groups[order], count)
            self._rows["neighbours"] = found

    def draw(self, ids: Tensor) -> Tensor:
        """Return the features (B, d) of one neighbour of each sample, drawn by seed, epoch and the sample's id."""
        return self.draw_several(ids, 1)[:, 0]

    def draw_several(self, ids: Tensor, count: int) -> Tensor:
        """Return the features (B, count, d) of so many neighbours of each sample; one may be drawn twice."""
        self._rows = {name: rows.to(ids.device) for name, rows in self._rows.items()}
        own = self._rows["neighbours"][torch.searchsorted(self._rows["ids"], ids)]
        drawn = (uniform(ids, seed=self.seed, epoch=self.epochs, view=0, count=count) * own.shape[1]).long()
        return self._rows["features"][own.gather(1, drawn)]

    def get_extra_state(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "rows": self._rows}

    def set_extra_state(self, state: Any) -> None:
        self.epochs, self._rows = int(state["epochs"]), dict(state["rows"])


def _within(features: Tensor, groups: Tensor, count: int) -> Tensor:
    """(N, count): the nearest samples of each one's own group, of all for group -1, repeated where they are fewer."""
    found = torch.empty(len(features), count, dtype=torch.long, device=features.device)
    for group in groups.unique().tolist():
        rows = (groups == group).nonzero()[:, 0]
        among = rows if group >= 0 else torch.arange(len(features), device=features.device)
        fewer = min(count, len(among) - 1)
        if not fewer:
            found[rows] = rows[:, None]
            continue
        _, nearest = nearest_neighbours(features[rows], features[among], fewer + 1, exclude_self=False)
        nearest = among[nearest]
        itself_last = (nearest == rows[:, None]).long().argsort(dim=1, stable=True)
        repeated = torch.arange(count, device=features.device) % fewer
        found[rows] = nearest.gather(1, itself_last)[:, repeated]
    return found
