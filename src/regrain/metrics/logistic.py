"""Multinomial logistic regression for many small data sets at once, to the optimum that scikit-learn seeks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError, warn

_MEMORY = 4
_PRIMAL_MEMORY = 16
"""Steps that L-BFGS looks back on; problems in the Gram form need few steps at all."""

_MOST_CURVATURE = 100.0
"""Where the penalty is weaker than this relative to the data (C >= 100), the Gram form would take too many steps."""

_LEAST_CURVATURE = 0.5
"""Where the Hessian's data term is smaller than this relative to the penalty's, there is no preconditioner."""

_CHUNK_ELEMENTS = 2**22
"""Numbers of support vectors solved at once: 32 MB, about what stays near the processor."""

_LONG = 4096
"""Elements from which on inner products are taken problem by problem."""

_SMALLEST_DESCENT = 1e-300


class LogisticRegressions(NamedTuple):
    """The solutions of E problems."""

    weights: Tensor
    """(E, K, d)."""
    intercepts: Tensor
    """(E, K): the logits of x are ``weights @ x + intercepts``; with two classes their difference is scikit-learn's
    logit.
    """
    gradient_norms: Tensor
    """(E,): an upper bound of the gradient's length at the solution."""

    def logits(self, queries: Tensor) -> Tensor:
        """(E, q, d) queries -> (E, q, K) logits, in the precision of the queries."""
        weights, intercepts = self.weights.to(queries.dtype), self.intercepts.to(queries.dtype)
        return torch.baddbmm(intercepts[:, None], queries, weights.transpose(1, 2))


def fit_logistic_regressions(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    inverse_penalty: float = 1.0,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    dtype: torch.dtype = torch.float64,
) -> LogisticRegressions:
    r"""E logistic regressions of the same size, solved together.

    Each minimises, as scikit-learn's ``LogisticRegression(C=inverse_penalty)`` does,

    .. math:: C \sum_i -\log \mathrm{softmax}(W x_i + b)_{y_i} + \tfrac{1}{2} \lVert W \rVert_F^2

    and with two classes the same with a sigmoid of one weight vector, which penalises half as much. The intercept is
    not penalised.

    Parameters
    ----------
    features : Tensor (E, n, d)
        Floats.
    labels : LongTensor (E, n)
        From 0 to ``classes`` - 1. A class may be missing from a problem.
    classes : int
        K, at least 2.
    inverse_penalty : float
        C, positive.
    tolerance : float
        The gradient is no longer than this at the solution. As the penalty makes the objective strongly convex, the
        weights are then within this distance of the optimum's.
    max_iterations : int
        A RegrainWarning says how many problems have not converged by then.
    dtype : torch.dtype
        Solver precision. float32 halves the time of large problems; it reaches a tolerance of about 1e-4 for unit
        vectors and C = 1. The Gram matrix, and weights made of it, have the precision of the features.

    Notes
    -----
    L-BFGS, preconditioned by the inverse of the Hessian at W = 0, which is a Kronecker product:
    (I - 11^T/K) and I + (C/K) X^T X with X centred (centring changes the intercept alone). Where there are fewer
    vectors than dimensions W = A X, and everything happens on A and A G, G = X X^T being the Gram matrix; since
    D (I + c G) = R gives D G = (R - D) / c, an iteration costs one product of a (K, n) with an (n, n) matrix. With many
    classes c is small and the Hessian near I: then there is no preconditioner, nor the time to invert it.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]]])
    >>> found = fit_logistic_regressions(x, torch.tensor([[0, 0, 1, 2]]), classes=3)
    >>> found.logits(x).argmax(dim=2)
    tensor([[0, 0, 1, 2]])
    """
    _check(features, labels, classes, inverse_penalty, tolerance)
    scale = inverse_penalty / 2 if classes == 2 else inverse_penalty  # w = W_1 - W_0, and |w|^2 = 2 |W|^2
    per_problem = max(1, features[0].numel(), features.shape[1] * min(features.shape[1], features.shape[2]))
    size = max(1, _CHUNK_ELEMENTS // per_problem)
    parts = [
        _solve(x, y, classes, scale, tolerance, max_iterations, dtype)
        for x, y in zip(features.split(size), labels.split(size), strict=True)
    ]
    found = LogisticRegressions(*(torch.cat(p) for p in zip(*parts, strict=True)))
    late = int((~(found.gradient_norms <= tolerance)).sum())
    if late:
        warn(
            f"{late} of {len(features)} logistic regressions have not converged after {max_iterations} iterations: "
            f"their gradients are up to {float(found.gradient_norms.max()):.2g} long (tolerance {tolerance:g})"
        )
    return found


def probe_probabilities(vectors: Tensor, codes: Tensor, judged: Tensor, *, inverse_penalty: float = 1.0) -> Tensor:
    """Class probabilities (m, K) of ``judged`` (m, d) by one logistic regression on unit vectors (n, d).

    ``codes`` (n,): classes, of which those that do not occur have probability 0; K is the largest code and one. The
    weights are within 0.1 of the optimum's, and so is each logit of a unit vector, whatever n and K are. (A tolerance
    of the mean loss's gradient would be met by zero weights where classes are many.)

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> probe_probabilities(x, torch.tensor([0, 2]), x, inverse_penalty=10.0).round(decimals=1)
    tensor([[0.8000, 0.0000, 0.2000],
            [0.2000, 0.0000, 0.8000]])
    """
    present, own = codes.unique(return_inverse=True)
    found = torch.zeros(len(judged), int(present[-1]) + 1)
    if len(present) == 1:
        found[:, present] = 1.0
        return found
    fitted = fit_logistic_regressions(
        vectors[None],
        own[None],
        classes=len(present),
        inverse_penalty=inverse_penalty,
        tolerance=0.1,
        dtype=torch.float32,
    )
    found[:, present] = fitted.logits(judged[None])[0].softmax(dim=1)
    return found


class _Form(NamedTuple):
    """A problem in the coordinates that suit it: vectors (E, K, m), the intercept in the last of the m places.

    A vector comes with its image, such that <image of u, v> is the inner product of what u and v stand for.
    """

    image: Callable[[Tensor], Tensor]  # of a vector, afresh
    gradient: Callable[[Tensor, Tensor], Tensor]  # of (point, slope of the loss by logits)
    logits: Callable[[Tensor], Tensor]  # of an image: (E, K, n)
    precondition: Callable[[Tensor], tuple[Tensor, Tensor]]  # of a vector: another one, and its image
    weights: Callable[[Tensor], Tensor]  # of a point: (E, K, d)
    largest: Tensor  # (E,) an upper bound of the preconditioner's largest eigenvalue
    most_trust: float  # how far the preconditioner may be scaled up
    drifts: bool  # whether images are made by differences, which lose precision
    memory: int
    places: int


def _solve(
    x: Tensor, labels: Tensor, classes: int, scale: float, tolerance: float, limit: int, dtype: torch.dtype
) -> LogisticRegressions:
    form = _gram_form(x, dtype, scale, classes) if x.shape[1] < x.shape[2] else None
    if form is None or float(form.largest.max()) > _MOST_CURVATURE:
        form = _primal_form(x.to(dtype), scale, classes)
    target = scale * functional.one_hot(labels, classes).to(dtype).transpose(1, 2).contiguous()

    def gradient_at(point: Tensor, image: Tensor) -> Tensor:
        return form.gradient(point, form.logits(image).softmax(dim=1).mul_(scale).sub_(target))

    point = torch.zeros(len(x), classes, form.places, dtype=dtype, device=x.device)
    image = torch.zeros_like(point)
    gradient = gradient_at(point, image)
    history: list[_Step] = []
    smoothed, smoothed_image = form.precondition(gradient)
    iteration, fresh = 0, True
    while True:
        norms = (_inner(smoothed_image, gradient).clamp_(min=0) * form.largest).sqrt_()
        running = norms > tolerance
        if iteration == limit or not running.any():
            if fresh or not form.drifts:
                break
            image = form.image(point)  # without the rounding errors of all steps: is it true?
            gradient, history, fresh = gradient_at(point, image), [], True
            smoothed, smoothed_image = form.precondition(gradient)
            continue
        iteration, fresh = iteration + 1, False
        direction, direction_image = _two_loops(form, gradient, smoothed, smoothed_image, history)
        step = torch.where(running, -1.0, 0.0).to(dtype)[:, None, None]  # a solved problem stays where it is
        _scale_(step, direction, direction_image)
        descent = _inner(direction_image, gradient)
        while True:
            moved_point = point + direction
            moved = moved_point if direction is direction_image else image + direction_image
            moved_gradient = gradient_at(moved_point, moved)
            # slope along the step at its end: of a convex function it says whether the step went far too far
            far = _inner(direction_image, moved_gradient) > -0.5 * descent
            far &= descent < 0
            if not far.any() or float(descent.min()) > -_SMALLEST_DESCENT:
                break
            shorter = torch.where(far, 0.5, 1.0).to(dtype)
            _scale_(shorter[:, None, None], direction, direction_image)
            descent = descent * shorter
        before, before_image = smoothed, smoothed_image
        smoothed, smoothed_image = form.precondition(moved_gradient)
        history.append(
            _Step.taken(
                (direction, direction_image),
                moved_gradient - gradient,
                _difference(smoothed, smoothed_image, before, before_image),
            )
        )
        del history[: -form.memory]
        point, image, gradient = moved_point, moved, moved_gradient
    weights = form.weights(point)
    shift = (weights @ x.mean(dim=1)[:, :, None].to(weights.dtype))[:, :, 0]  # what centring did
    return LogisticRegressions(weights, point[:, :, -1] - shift, norms)


class _Step(NamedTuple):
    """A past L-BFGS step: direction, its image, gradient difference, the preconditioned difference and its image."""

    way: Tensor
    image: Tensor
    change: Tensor
    smoothed: Tensor
    smoothed_image: Tensor
    weight: Tensor  # (E,) one over the curvature along the way
    trust: Tensor  # (E,) how much shallower the objective is than the preconditioner takes it for

    @classmethod
    def taken(cls, way: tuple[Tensor, Tensor], change: Tensor, smoothed: tuple[Tensor, Tensor]) -> _Step:
        curvature, expected = _inner(way[1], change), _inner(smoothed[1], change)
        weight = torch.where(curvature > 0, 1 / curvature, 0)
        trust = torch.where((curvature > 0) & (expected > 0), curvature / expected, 1)
        return cls(*way, change, *smoothed, weight, trust)


def _two_loops(
    form: _Form, gradient: Tensor, smoothed: Tensor, smoothed_image: Tensor, history: list[_Step]
) -> tuple[Tensor, Tensor]:
    """L-BFGS: the inverse Hessian, as far as the last steps tell, times the gradient; and its image. Both are new.

    As the preconditioner is linear, what it makes of the rest follows from what it made of gradient and changes.
    """
    direction = smoothed.clone()
    image = direction if smoothed_image is smoothed else smoothed_image.clone()
    if not history:
        return direction, image
    rest = gradient.clone()
    factors = []
    for step in reversed(history):
        factors.append(step.weight * _inner(step.image, rest))
        factor = factors[-1][:, None, None]
        rest.addcmul_(factor, step.change, value=-1)
        direction.addcmul_(factor, step.smoothed, value=-1)
        if image is not direction:
            image.addcmul_(factor, step.smoothed_image, value=-1)
    _scale_(history[-1].trust.clamp(max=form.most_trust)[:, None, None], direction, image)
    for step, factor in zip(history, reversed(factors), strict=True):
        missing = (factor - step.weight * _inner(image, step.change))[:, None, None]
        direction.addcmul_(missing, step.way)
        if image is not direction:
            image.addcmul_(missing, step.image)
    return direction, image


def _gram_form(x: Tensor, dtype: torch.dtype, scale: float, classes: int) -> _Form:
    """On A (K, n) with W = A X, X centred; the image is A G."""
    count, curvature = x.shape[1], scale / classes
    gram = (x @ x.transpose(1, 2)).to(dtype)
    gram -= gram.mean(dim=1, keepdim=True)  # of the centred vectors, without touching those
    gram -= gram.mean(dim=2, keepdim=True)
    trace = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    steep = bool((trace * curvature / classes > _LEAST_CURVATURE).any())
    inverse = _inverse(gram, curvature, count) if steep else None

    def image_of(vector: Tensor) -> Tensor:
        return torch.cat([vector[:, :, :-1] @ gram, vector[:, :, -1:]], dim=2)

    def gradient(point: Tensor, slope: Tensor) -> Tensor:
        # what is the same for all samples stands for nothing, X being centred, and would grow unseen
        intercept = slope.sum(dim=2, keepdim=True)
        above = point[:, :, :-1] + slope
        return torch.cat([above.sub_(above.mean(dim=2, keepdim=True)), intercept], dim=2)

    def precondition(vector: Tensor) -> tuple[Tensor, Tensor]:
        if inverse is None:
            solved = _intercept_solved(vector, count * curvature)
            return solved, image_of(solved)
        solved = vector @ inverse
        image = (vector - solved).div_(curvature)
        image[:, :, -1] = solved[:, :, -1]
        return solved, image

    def weights(point: Tensor) -> Tensor:
        part = point[:, :, :-1]
        return (part - part.mean(dim=2, keepdim=True)).to(x.dtype) @ x

    def logits(image: Tensor) -> Tensor:
        return image[:, :, :-1] + image[:, :, -1:]

    largest = 1 + curvature * trace if steep else torch.ones_like(trace)
    # scaled by more than 2, a step would enlarge what A holds of vectors that stand for nothing (equal samples)
    return _Form(image_of, gradient, logits, precondition, weights, largest, 1.5, steep, _MEMORY, count + 1)


def _primal_form(x: Tensor, scale: float, classes: int) -> _Form:
    """On W itself; a vector is its own image."""
    count, curvature = x.shape[1], scale / classes
    x = x - x.mean(dim=1, keepdim=True)
    trace = x.square().sum(dim=(1, 2))
    steep = bool((trace * curvature / classes > _LEAST_CURVATURE).any())
    inverse = _inverse(x.transpose(1, 2) @ x, curvature, count) if steep else None

    def gradient(point: Tensor, slope: Tensor) -> Tensor:
        return torch.cat([point[:, :, :-1] + slope @ x, slope.sum(dim=2, keepdim=True)], dim=2)

    def precondition(vector: Tensor) -> tuple[Tensor, Tensor]:
        solved = _intercept_solved(vector, count * curvature) if inverse is None else vector @ inverse
        return solved, solved

    def logits(image: Tensor) -> Tensor:
        return torch.baddbmm(image[:, :, -1:], image[:, :, :-1], x.transpose(1, 2))

    largest = 1 + curvature * trace if steep else torch.ones_like(trace)
    return _Form(
        lambda v: v,
        gradient,
        logits,
        precondition,
        lambda p: p[:, :, :-1],
        largest,
        torch.inf,
        False,
        _PRIMAL_MEMORY if steep else _MEMORY,
        x.shape[2] + 1,
    )


def _intercept_solved(vector: Tensor, curvature: float) -> Tensor:
    solved = vector.clone()
    solved[:, :, -1] /= curvature
    return solved


def _inverse(matrix: Tensor, curvature: float, count: int) -> Tensor:
    """(E, m + 1, m + 1): (I + curvature * matrix)^-1 of (E, m, m), then that of the intercept."""
    size = matrix.shape[1]
    shifted = matrix * curvature
    shifted.diagonal(dim1=1, dim2=2).add_(1)
    inverse = matrix.new_zeros(len(matrix), size + 1, size + 1)
    inverse[:, :size, :size] = torch.cholesky_inverse(torch.linalg.cholesky(shifted))
    inverse[:, size, size] = 1 / (count * curvature)
    return inverse


def _inner(image: Tensor, vector: Tensor) -> Tensor:
    """(E,) inner products. Torch's own holds all products in memory before it adds them."""
    pairs = image.flatten(1), vector.flatten(1)
    if pairs[0].shape[1] < _LONG:
        return torch.linalg.vecdot(*pairs)
    return torch.stack([torch.dot(one, other) for one, other in zip(*pairs, strict=True)])


def _scale_(factor: Tensor, direction: Tensor, image: Tensor) -> None:
    direction.mul_(factor)
    if image is not direction:
        image.mul_(factor)


def _difference(new: Tensor, new_image: Tensor, old: Tensor, old_image: Tensor) -> tuple[Tensor, Tensor]:
    difference = new - old
    return difference, difference if new_image is new else new_image - old_image


def _check(features: Tensor, labels: Tensor, classes: int, inverse_penalty: float, tolerance: float) -> None:
    if features.ndim != 3 or not features.numel() or not features.is_floating_point():
        raise UserError(
            "features are floats of shape (problems, samples, dimensions), none of them 0; got "
            f"{features.dtype} of shape {tuple(features.shape)}",
            code="wrong_shape",
        )
    if labels.shape != features.shape[:2] or labels.is_floating_point():
        raise UserError(
            f"labels are integers of shape {tuple(features.shape[:2])}, one for each row of features; got "
            f"{labels.dtype} of shape {tuple(labels.shape)}",
            code="wrong_shape",
        )
    if classes < 2:
        raise UserError(
            f"logistic regression needs at least 2 classes to tell apart; got classes = {classes}", code="too_few"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(
            f"labels lie between 0 and {classes - 1}; got {int(labels.min())} to {int(labels.max())}: leave samples "
            "of unknown class out",
            code="out_of_range",
        )
    for name, value in (("inverse_penalty", inverse_penalty), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise UserError(f"{name} must be positive and finite, got {value}", code="out_of_range")
    if not bool(features.sum().isfinite()):  # element by element it would take a third of the whole time
        raise UserError("features must be finite: leave samples with NaN or infinity out", code="not_finite")
