"""The E-step's memory: the subclass of every training sample, found by balanced transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from regrain.errors import warn
from regrain.methods.base import Method, Training, TrainingPass
from regrain.methods.classifier import class_counts
from regrain.methods.clustering import MOST_FITTED
from regrain.metrics import nearest_neighbours
from regrain.objectives.gathering import gather
from regrain.objectives.transport import ScoreBlocks, sinkhorn_potentials

_TOLERANCE = 1e-4
"""Tolerance on the subclass sizes, in sum: a smaller one changes no hard code that matters."""

_LOW_AGREEMENT = 0.6
"""Neighbour agreement of k-means' clusters was 0.74 to 0.93 on six data sets, that of a random start 0.22 to 0.56."""

_UNCHANGED, _FEW_RENEWALS, _STILL = 1e-3, 3, 0.25
"""Codes are settled where E-steps change less than this share; warn after this many, if settled this early."""

_ROWS = 65536
_HELD_ELEMENTS = 2**26
"""Elements of a matrix of scores up to which it is held (256 MB); a larger one is computed again at every pass."""
_NEIGHBOUR_SAMPLES = 1000


class Assignments(nn.Module):
    """The subclass of every training sample by its id, renewed every ``period`` epochs.

    Everything here is part of the state dict, so that a resumed run goes on within a period with the same codes.

    ``clusters``: number of subclasses r. ``period``: epochs between E-steps; the first is before the first epoch.
    ``epochs``: epochs that have begun. ``potentials`` (r,) or None: potentials of the last transport; the next one
    starts from them.

    Examples
    --------
    >>> assignments = Assignments(3, 2)
    >>> assignments.due()
    True
    >>> assignments.renew(torch.tensor([70, 5]), torch.tensor([2, 0]))
    >>> assignments.due(), assignments.due()
    (False, True)
    >>> assignments.lookup(torch.tensor([5, 6, 70]))  # sample 6 is not known
    tensor([ 0, -1,  2])
    """

    def __init__(self, clusters: int, period: int) -> None:
        super().__init__()
        self.clusters = clusters
        self.period = period
        self.potentials: Tensor | None = None
        self.epochs = 0
        self._ids = torch.empty(0, dtype=torch.long)
        self._codes = torch.empty(0, dtype=torch.long)
        self._changed = 0.0
        self._last_change = 0
        self._renewals_unchanged = 0
        self._summary: dict[str, Tensor] = {}

    @property
    def known(self) -> bool:
        """Whether the samples have codes."""
        return len(self._ids) > 0

    def due(self) -> bool:
        """Count an epoch that begins; return whether its E-step is due."""
        self.epochs += 1
        return (self.epochs - 1) % self.period == 0

    def renew(self, ids: Tensor, codes: Tensor) -> None:
        """Store the codes (N,) of all training samples with ids (N,)."""
        order = ids.argsort()
        old = self.lookup(ids[order])
        self._changed = float((old != codes[order]).float().mean())
        if self._changed > _UNCHANGED:
            self._last_change, self._renewals_unchanged = self.epochs, 0
        else:
            self._renewals_unchanged += 1
        self._ids, self._codes, self._summary = ids[order], codes[order], {}

    def transport(
        self,
        log_scores: Tensor | ScoreBlocks,
        ids: Tensor,
        *,
        sharpness: float,
        cluster_marginal: Tensor | None = None,
    ) -> None:
        """Renew all codes by balanced transport, from the scores (n, r) of this process's share of the samples."""
        codes, self.potentials = transported(
            log_scores, sharpness=sharpness, cluster_marginal=cluster_marginal, warm_start=self.potentials
        )
        self.renew(gather(ids, with_gradient=False), gather(codes, with_gradient=False))

    def lookup(self, ids: Tensor) -> Tensor:
        """Return the codes (B,) of samples, -1 where a sample has none yet."""
        self._ids, self._codes = self._ids.to(ids.device), self._codes.to(ids.device)
        if not self.known:
            return torch.full_like(ids, -1)
        places = torch.searchsorted(self._ids, ids).clamp(max=len(self._ids) - 1)
        return torch.where(self._ids[places] == ids, self._codes[places], -1)

    def sizes(self) -> Tensor:
        """Return the number of samples in every subclass, (r,)."""
        return class_counts(self._codes, self.clusters)

    def warn_if_meaningless(self, features: Tensor, ids: Tensor, superclasses: Tensor | None = None) -> None:
        """Warn where neighbours in features (N, d) of samples seldom have the same code; see neighbour_agreement."""
        found = neighbour_agreement(features, self.lookup(ids), superclasses)
        if found < _LOW_AGREEMENT:
            when = "at the start" if self.epochs <= 1 else "at the end"
            upper = "chance" if superclasses is None else "the superclass"
            share = 100 * max(0.0, found)
            warn(
                f"{when} the subclasses say little beyond {upper}: neighbours share one {share:.0f}% of the way from "
                "chance to always; initial_means=k-means, fewer subclasses or a pretrained encoder help"
            )

    def warn_at_end(self) -> None:
        """Warn about subclasses without a sample, and about codes that did not change for most of the training."""
        dead = int((self.sizes() == 0).sum())
        if dead:
            warn(f"{dead} of {self.clusters} subclasses have no training sample: fewer subclasses would do")
        if self._renewals_unchanged >= _FEW_RENEWALS and self._last_change <= _STILL * self.epochs:
            warn(
                f"the subclasses have not changed since epoch {self._last_change} of {self.epochs}: more "
                "epochs do not change them"
            )

    def summary(self) -> dict[str, Tensor]:
        """Return log values: share of codes that the last E-step changed, empty subclasses, extreme sizes."""
        if not self._summary:  # it changes with the codes alone
            sizes = self.sizes()
            self._summary = {
                "codes_changed": torch.full((), self._changed, device=sizes.device),
                "dead_subclasses": (sizes == 0).sum().float(),
                "smallest_subclass": sizes.min().float(),
                "largest_subclass": sizes.max().float(),
            }
        return dict(self._summary)

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "changed": self._changed,
            "last_change": self._last_change,
            "unchanged": self._renewals_unchanged,
            "ids": self._ids,
            "codes": self._codes,
            "potentials": self.potentials,
        }

    def set_extra_state(self, state: Any) -> None:
        self.epochs, self._changed = int(state["epochs"]), float(state["changed"])
        self._last_change, self._renewals_unchanged = int(state["last_change"]), int(state["unchanged"])
        self._ids, self._codes, self.potentials = state["ids"], state["codes"], state["potentials"]
        self._summary = {}


def count_subclasses(
    settings: dict[str, Any], training: Training, *, better: str = "regrain tune --range subclasses=..."
) -> list[str]:
    """Choose the number of subclasses if the user gave none; the notice names the ``better`` way.

    10 per superclass, or 100 without labels; fewer where subclasses would have less than 20 samples each.
    """
    if settings["subclasses"] is not None:
        return []
    settings["subclasses"] = rule_of_thumb(training)
    return [f"{settings['subclasses']} subclasses, a rule of thumb: `{better}` chooses without fine labels"]


def rule_of_thumb(training: Training) -> int:
    """Return a number of subclasses, see :func:`count_subclasses`."""
    most = max(training.classes, default=0)
    fewest, wanted = (most, 10 * most) if most else (2, 100)
    return max(fewest, min(wanted, training.samples // 20))


@torch.no_grad()
def over_training_set(
    method: Method, training_set: TrainingPass, function: Callable[[Any], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply ``function`` to every training sample's un-augmented view in evaluation mode; also return labels and ids.

    All processes get all samples.
    """
    rows, labels, ids = (gather(part, with_gradient=False) for part in over_own_share(method, training_set, function))
    return rows, labels, ids


@torch.no_grad()
def over_own_share(
    method: Method, training_set: TrainingPass, function: Callable[[Any], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run :func:`over_training_set` on this process's share of the samples."""
    modes = {module: module.training for module in method.modules()}
    method.eval()
    try:
        parts = [(function(x), labels, ids) for x, labels, ids in training_set()]
    finally:
        for module, mode in modes.items():
            module.training = mode
    rows, labels, ids = (torch.cat(column) for column in zip(*parts, strict=True))
    return rows, labels, ids


def drawn_together(*columns: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes together, on each of them; of more than 131,072 an evenly spaced share."""
    own = torch.tensor([len(columns[0])], device=columns[0].device)
    step = -(-int(gather(own, with_gradient=False).sum()) // MOST_FITTED)
    return tuple(gather(column[:: max(1, step)], with_gradient=False) for column in columns)


@torch.no_grad()
def neighbour_agreement(features: Tensor, codes: Tensor, superclasses: Tensor | None = None) -> float:
    """Measure how often the nearest neighbour in features has the same code, from chance (0) to always (1).

    Uses at most 1000 evenly spaced samples and their neighbours by cosine among all samples of the same superclass.
    Chance is the agreement of codes drawn by their shares within the superclass.

    ``features``: (N, d). ``codes`` (N,): -1 unknown. ``superclasses`` (N,): -1 unknown: such samples are left out.
    Default: all samples belong to one superclass.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> neighbour_agreement(x, torch.tensor([0, 0, 1, 1])), neighbour_agreement(x, torch.tensor([0, 1, 0, 1]))
    (1.0, -1.0)
    """
    owners = torch.zeros_like(codes) if superclasses is None else superclasses
    agreed = expected = judged = 0.0
    step = max(1, len(codes) // _NEIGHBOUR_SAMPLES)
    for owner in owners[owners >= 0].unique().tolist():
        rows = ((owners == owner) & (codes >= 0)).nonzero()[:, 0]
        if len(rows) < 2:
            continue
        queries = rows[::step]
        _, nearest = nearest_neighbours(features[queries], features[rows], 2, exclude_self=False)
        own = nearest[:, 0] == torch.arange(0, len(rows), step, device=nearest.device)
        neighbour = rows[torch.where(own, nearest[:, 1], nearest[:, 0])]
        shares = torch.bincount(codes[rows]).double() / len(rows)
        agreed += float((codes[queries] == codes[neighbour]).sum())
        expected += float(shares.square().sum()) * len(queries)
        judged += len(queries)
    return (agreed - expected) / (judged - expected) if judged > expected else 1.0


@torch.no_grad()
def scores_by_block(
    of_rows: Callable[[slice], Tensor], shape: tuple[int, int], device: torch.device
) -> Tensor | ScoreBlocks:
    """Scores of a shape (n, r) whose rows do not depend on each other: held if they are few, else by block."""
    if shape[0] * shape[1] <= _HELD_ELEMENTS:
        return of_rows(slice(0, shape[0]))
    return ScoreBlocks(of_rows, shape, device)


@torch.no_grad()
def transported(
    log_scores: Tensor | ScoreBlocks,
    *,
    sharpness: float,
    cluster_marginal: Tensor | None = None,
    warm_start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the hard codes argmax_z Q_iz (n,) of the balanced plan over log_scores (n, r), and its potentials (r,)."""
    potentials = sinkhorn_potentials(
        log_scores, sharpness=sharpness, cluster_marginal=cluster_marginal, tolerance=_TOLERANCE, warm_start=warm_start
    )
    step = max(1, min(_ROWS, _HELD_ELEMENTS // log_scores.shape[1]))
    blocks = (log_scores[start : start + step] for start in range(0, len(log_scores), step))
    codes = [(sharpness * rows + potentials).argmax(dim=1) for rows in blocks]
    return torch.cat(codes), potentials
