r"""Optimal transport of samples to clusters: the E-step of SCGM and SeLa.

The plan Q that maximises :math:`\operatorname{Tr}(Q^T \log P) + H(Q) / \lambda` under given marginals a (samples) and b
(clusters) is :math:`Q_{iz} = a_i \operatorname{softmax}_z(\lambda \log P_{iz} + v_z)` with potentials v that minimise

.. math:: F(v) = \sum_i a_i \operatorname{logsumexp}_z(\lambda \log P_{iz} + v_z) - b \cdot v,

which is convex, with gradient (column sums of Q) - b and Hessian :math:`\operatorname{diag}(Q^T 1) - Q^T
\operatorname{diag}(1/a)\, Q`. Only v (r numbers) is kept between passes, so nothing overflows at any sharpness, a warm
start is r numbers, and processes sum r numbers (and an r x r matrix), never the plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from regrain.errors import UserError, warn

from ._checks import check_matrix
from ._numerics import CHUNK_ELEMENTS
from .gathering import gather

_HALVINGS = 5
"""Softer plans solved first, each at twice the sharpness of the one before: a hard plan is nearly flat in v almost
everywhere, where no step knows how far to go."""

_LOOSE = 1e-2
"""Tolerance of the softer plans."""

_STAGE_ITERATIONS, _WARM_ITERATIONS = 10, 10
"""Steps for a softer plan, and from a warm start before it is given up for the softer plans."""

_LEAST_DAMPING, _MOST_DAMPING = 1e-5, 1.0
"""Relative to the curvature of Sinkhorn's own step."""


@dataclass(frozen=True)
class ScoreBlocks:
    """Scores (n, r) that are computed block by block at every pass, and never held whole.

    Examples
    --------
    >>> vectors, means = torch.eye(3), torch.eye(2, 3)
    >>> scores = ScoreBlocks(lambda rows: vectors[rows] @ means.T, (3, 2), vectors.device)
    >>> held = sinkhorn_potentials(vectors @ means.T, sharpness=5.0)
    >>> torch.equal(sinkhorn_potentials(scores, sharpness=5.0), held)
    True
    """

    of_rows: Callable[[slice], Tensor]
    """Scores (b, r) of a slice of the rows."""
    shape: tuple[int, int]
    """(n, r)."""
    device: torch.device

    def __getitem__(self, rows: slice) -> Tensor:
        return self.of_rows(slice(rows.start, min(rows.stop, self.shape[0])))

    def __len__(self) -> int:
        return self.shape[0]


@torch.no_grad()
def sinkhorn(
    log_scores: Tensor,
    *,
    sharpness: float,
    cluster_marginal: Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    warm_start: Tensor | None = None,
) -> Tensor:
    """The transport plan, rows = samples (Cuturi 2013; SCGM eq. 7; Asano et al. 2020).

    All samples have the same mass, 1 over their number; under several processes every one holds its own samples.
    Returns (n, r) in the type of the scores, float32 at least.

    Parameters
    ----------
    log_scores
        (n, r): log P. -inf forbids a pair, such as a sample and the clusters of another superclass; every sample must
        have a pair that is allowed.
    sharpness
        lambda, positive: the larger, the harder the plan.
    cluster_marginal
        (r,) non-negative masses, scaled to sum to 1; default equal ones.
    tolerance
        Stop when the column sums differ from the cluster marginal by less than this in sum; rows are exact.
    max_iterations
        A warning says so when they did not suffice.
    warm_start
        (r,) potentials of an earlier call (:func:`sinkhorn_potentials`).

    Examples
    --------
    >>> import torch
    >>> plan = sinkhorn(torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log(), sharpness=25.0)
    >>> plan.argmax(dim=1)  # both score the first cluster higher, and one has to go
    tensor([0, 1])
    """
    potentials = sinkhorn_potentials(
        log_scores,
        sharpness=sharpness,
        cluster_marginal=cluster_marginal,
        tolerance=tolerance,
        max_iterations=max_iterations,
        warm_start=warm_start,
    )
    mass = _mass(log_scores)
    plan = torch.empty_like(log_scores, dtype=torch.promote_types(log_scores.dtype, torch.float32))
    for rows in _chunks(log_scores):
        plan[rows] = _rows_of_plan(log_scores[rows], potentials, sharpness)[0] * mass
    return plan


@torch.no_grad()
def sinkhorn_potentials(
    log_scores: Tensor | ScoreBlocks,
    *,
    sharpness: float,
    cluster_marginal: Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    warm_start: Tensor | None = None,
) -> Tensor:
    """The cluster potentials v (r,) in float64 that give the plan; parameters are those of :func:`sinkhorn`.

    Plans of growing sharpness, each from the one before, by damped Newton steps on F with Sinkhorn's scaling as
    fallback: at sharpness 25 one or two dozen passes over the scores do what takes scalings alone over a thousand.
    A cluster that every sample is forbidden to join stays empty, and a warning names how many there are.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log()
    >>> v = sinkhorn_potentials(scores, sharpness=5.0)
    >>> torch.allclose(sinkhorn(scores, sharpness=5.0, warm_start=v, max_iterations=1).sum(0), torch.tensor([0.5, 0.5]))
    True
    """
    wanted, potentials = _start(log_scores, sharpness, cluster_marginal, warm_start, tolerance, max_iterations)
    problem = _Problem(log_scores, wanted, _mass(log_scores))
    state, left = None, max_iterations
    if warm_start is not None:
        state, left = problem.solve(sharpness, potentials, tolerance, min(left, _WARM_ITERATIONS), left)
    if state is None or (state.error >= tolerance and left > 0):
        if state is not None:
            potentials = state.potentials / 2**_HALVINGS
        for halvings in range(_HALVINGS, 0, -1):
            softer, most = sharpness / 2**halvings, min(left, _STAGE_ITERATIONS)
            state, left = problem.solve(softer, potentials, max(tolerance, _LOOSE), most, left)
            potentials = 2 * state.potentials
        state, left = problem.solve(sharpness, potentials, tolerance, left, left)
    dead = int(((wanted > 0) & ~problem.live).sum())
    if dead:
        warn(f"{dead} of {len(wanted)} clusters may be joined by no sample and stay empty")
    elif not state.error < tolerance:
        warn(
            f"the transport plan misses its cluster marginal by {state.error:.2g} in sum after {max_iterations} "
            f"iterations (tolerance {tolerance:g})"
        )
    return state.potentials


class _State(NamedTuple):
    """F, the column sums of Q, Q^T diag(1/a) Q, and how far the sums miss the marginal in sum, at some potentials."""

    potentials: Tensor
    value: float
    columns: Tensor
    squares: Tensor
    error: float


class _Problem:
    """Scores (n, r), and the masses of the clusters (r,) and of a sample."""

    def __init__(self, log_scores: Tensor | ScoreBlocks, wanted: Tensor, mass: float) -> None:
        self.log_scores, self.wanted, self.mass = log_scores, wanted, mass
        reachable = torch.zeros_like(wanted)
        for rows in _chunks(log_scores):
            reachable += (log_scores[rows] > -torch.inf).sum(dim=0)
        _sum_over_processes(reachable)
        self.live = (wanted > 0) & (reachable > 0)

    def solve(
        self, sharpness: float, potentials: Tensor, tolerance: float, iterations: int, left: int
    ) -> tuple[_State, int]:
        """Return the state after at most ``iterations`` steps from some potentials, and the number of steps left."""
        state, damping = self.evaluate(potentials, sharpness), _LEAST_DAMPING
        for _ in range(iterations):
            if state.error < tolerance:
                break
            left -= 1
            moved = self.newton_step(state, sharpness, damping)
            if moved is not None:
                state, damping = moved, max(damping / 10, _LEAST_DAMPING)
            elif damping < _MOST_DAMPING:
                damping = min(damping * 10, _MOST_DAMPING)
            else:
                state, damping = self.evaluate(self.scaled(state, sharpness), sharpness), damping / 10
        return state, left

    def evaluate(self, potentials: Tensor, sharpness: float) -> _State:
        """One pass over the scores, on all processes."""
        clusters = len(self.wanted)
        total = potentials.new_zeros(1 + clusters + clusters**2)
        for rows in _chunks(self.log_scores):
            plan, value = _rows_of_plan(self.log_scores[rows], potentials, sharpness)
            weighted = plan * self.mass
            total[0] += value.double().sum() * self.mass
            total[1 : 1 + clusters] += weighted.sum(dim=0)
            total[1 + clusters :] += (plan.T @ weighted).flatten()
        _sum_over_processes(total)
        columns, kept = total[1 : 1 + clusters], self.wanted > 0
        objective = float(total[0] - self.wanted[kept] @ potentials[kept])
        error = float((columns - self.wanted)[self.live].abs().sum())
        return _State(potentials, objective, columns, total[1 + clusters :].view(clusters, clusters), error)

    def newton_step(self, state: _State, sharpness: float, damping: float) -> _State | None:
        """The state after a step of (Hessian + damping * diag(column sums)), or None where that step does not help.

        Without damping it is Newton's; a large one makes it Sinkhorn's own direction.
        """
        live = self.live
        columns, residual = state.columns[live], (self.wanted - state.columns)[live]
        hessian = torch.diag(columns) - state.squares[live][:, live]
        scale = float(columns.mean())
        hessian += scale / len(hessian)  # F does not change when all potentials move alike: fix that direction
        hessian.diagonal().add_(damping * columns + 1e-12 * scale)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if int(failed):
            return None
        direction = torch.cholesky_solve(residual[:, None], factor)[:, 0]
        potentials = state.potentials.clone()
        potentials[live] += direction
        moved = self.evaluate(potentials, sharpness)
        helps = moved.value < state.value - 1e-2 * float(residual @ direction) or moved.error < 0.5 * state.error
        return moved if helps else None

    def scaled(self, state: _State, sharpness: float) -> Tensor:
        """Sinkhorn's own step, v + log(b / column sum); sums that underflowed are taken again in log space."""
        log_columns = state.columns.log()
        faint = (self.live & (state.columns < 1e-30)).nonzero()[:, 0]
        if len(faint):
            log_columns[faint] = -torch.inf
            for rows in _chunks(self.log_scores):
                log_sums = _rows_of_plan(self.log_scores[rows], state.potentials, sharpness)[1].double()
                terms = sharpness * self.log_scores[rows][:, faint].double() - log_sums[:, None]
                part = terms.logsumexp(dim=0) + math.log(self.mass) + state.potentials[faint]
                log_columns[faint] = torch.logaddexp(log_columns[faint], part)
            gathered = gather(log_columns[None], with_gradient=False)[:, faint]
            log_columns[faint] = gathered.logsumexp(dim=0)
        return torch.where(self.live, state.potentials + self.wanted.log() - log_columns, state.potentials)


def _rows_of_plan(log_scores: Tensor, potentials: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """softmax over the clusters (b, r), and its logsumexp (b,)."""
    dtype = torch.promote_types(log_scores.dtype, torch.float32)
    scores = torch.add(potentials.to(dtype), log_scores.to(dtype), alpha=sharpness)
    largest = scores.amax(dim=1, keepdim=True)
    exps = scores.sub_(largest).exp_()
    sums = exps.sum(dim=1, keepdim=True)
    return exps.div_(sums), (largest + sums.log())[:, 0]


def _chunks(log_scores: Tensor | ScoreBlocks) -> Iterator[slice]:
    size = max(1, CHUNK_ELEMENTS // log_scores.shape[1])
    return (slice(start, start + size) for start in range(0, len(log_scores), size))


def _mass(log_scores: Tensor | ScoreBlocks) -> float:
    """Of a sample: 1 over their number on all processes."""
    count = torch.tensor([float(len(log_scores))], dtype=torch.float64, device=log_scores.device)
    _sum_over_processes(count)
    return 1 / float(count)


def _start(
    log_scores: Tensor | ScoreBlocks,
    sharpness: float,
    cluster_marginal: Tensor | None,
    warm_start: Tensor | None,
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, Tensor]:
    """The cluster marginal and the first potentials, (r,) in float64."""
    if isinstance(log_scores, Tensor):
        check_matrix(log_scores, "log_scores")
    clusters = log_scores.shape[1]
    if not 0 < sharpness < torch.inf:
        raise UserError(f"sharpness must be a positive, finite number, got {sharpness}", code="out_of_range")
    if not tolerance > 0 or max_iterations < 1:
        raise UserError(
            f"tolerance must be positive and max_iterations at least 1, got {tolerance}, {max_iterations}",
            code="out_of_range",
        )
    if clusters == 0:
        raise UserError("log_scores has no column: there is no cluster to join", code="too_few")
    for rows in _chunks(log_scores):
        largest = log_scores[rows].amax(dim=1)  # NaN where one is
        odd = (~largest.isfinite()).nonzero()
        if len(odd):
            raise UserError(
                f"log_scores row {rows.start + int(odd[0])} has a NaN, an infinite score, or no cluster that is "
                "allowed",
                code="not_finite",
            )
    if cluster_marginal is None:
        wanted = torch.ones(clusters, dtype=torch.float64, device=log_scores.device)
    else:
        wanted = cluster_marginal.double().to(log_scores.device)
        fits = wanted.shape == (clusters,) and bool((wanted >= 0).all()) and 0 < float(wanted.sum()) < torch.inf
        if not fits:
            raise UserError(
                f"cluster_marginal must be {clusters} non-negative masses that do not all vanish", code="out_of_range"
            )
    wanted = wanted / wanted.sum()
    if warm_start is not None and warm_start.shape != (clusters,):
        raise UserError(
            f"warm_start must be {clusters} potentials, got shape {tuple(warm_start.shape)}", code="wrong_shape"
        )
    potentials = torch.zeros_like(wanted)
    if warm_start is not None:
        given = warm_start.double().to(log_scores.device)
        potentials = given.where(given.isfinite(), potentials)  # a cluster that had no mass then may have some now
    potentials[wanted == 0] = -torch.inf
    return wanted, potentials


def _sum_over_processes(tensor: Tensor) -> None:
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
