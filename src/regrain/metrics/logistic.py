"""Multinomial logistic regression for many small data sets at once, to the optimum that scikit-learn seeks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import RegrainWarning, UserError

__all__ = ["LogisticRegressions", "fit_logistic_regressions"]

_MEMORY = 10
"""Steps that L-BFGS looks back on."""

_CHUNK_ELEMENTS = 2**22
"""Numbers of support vectors solved at once: 32 MB, about what stays near the processor."""

_SMALLEST_STEP = 2.0**-30


class LogisticRegressions(NamedTuple):
    """The solutions of E problems.

    Attributes
    ----------
    weights : Tensor (E, K, d) float64
    intercepts : Tensor (E, K) float64
        The logits of x are ``weights @ x + intercepts``; with two classes their difference is scikit-learn's logit.
    gradient_norms : Tensor (E,) float64
        An upper bound of the gradient's length at the solution.
    """

    weights: Tensor
    intercepts: Tensor
    gradient_norms: Tensor

    def logits(self, queries: Tensor) -> Tensor:
        """(E, q, d) queries -> (E, q, K) logits, in the precision of the weights."""
        queries = queries.to(self.weights.dtype)
        return torch.baddbmm(self.intercepts[:, None], queries, self.weights.transpose(1, 2))


def fit_logistic_regressions(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    inverse_penalty: float = 1.0,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
) -> LogisticRegressions:
    r"""E logistic regressions of the same size, solved together.

    Each minimises, as scikit-learn's ``LogisticRegression(C=inverse_penalty)`` does,

    .. math:: C \sum_i -\log \mathrm{softmax}(W x_i + b)_{y_i} + \tfrac{1}{2} \lVert W \rVert_F^2

    and with two classes the same with a sigmoid of one weight vector, which penalises half as much. The intercept is
    not penalised.

    Parameters
    ----------
    features : Tensor (E, n, d)
        Floats; the computation is in float64.
    labels : LongTensor (E, n)
        From 0 to ``classes`` - 1. A class may be missing from a problem.
    classes : int
        K, at least 2.
    inverse_penalty : float
        C, positive.
    tolerance : float
        The gradient is no longer than this at the solution. As the penalty makes the objective strongly convex, the
        weights then lie within this distance of the optimum's.
    max_iterations : int
        A RegrainWarning says how many problems have not converged by then.

    Returns
    -------
    LogisticRegressions

    Raises
    ------
    UserError
        If shapes do not fit, a label or a number lies outside its range, or a feature is not finite.

    Notes
    -----
    L-BFGS, preconditioned by the inverse of the Hessian at W = 0, which is a Kronecker product:
    (I - 11^T/K) and I + (C/K) X^T X with X centred (centring changes the intercept alone). Where there are fewer
    vectors than dimensions W = A^T X, and everything happens on A and G A, G = X X^T being the Gram matrix; since
    (I + c G) D = R gives G D = (R - D) / c, an iteration costs one product of an (n, n) with an (n, K) matrix.

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
        _solve(x.double(), y, classes, scale, tolerance, max_iterations)
        for x, y in zip(features.split(size), labels.split(size), strict=True)
    ]
    found = LogisticRegressions(*(torch.cat(p) for p in zip(*parts, strict=True)))
    late = int((~(found.gradient_norms <= tolerance)).sum())
    if late:
        warnings.warn(
            f"{late} of {len(features)} logistic regressions have not converged after {max_iterations} iterations: "
            f"their gradients are up to {float(found.gradient_norms.max()):.2g} long (tolerance {tolerance:g})",
            RegrainWarning,
            stacklevel=2,
        )
    return found


class _Form(NamedTuple):
    """A problem in the coordinates that suit it: vectors (E, m, K), the intercept in the last of the m rows.

    A vector comes with its image, such that <image of u, v> is the inner product of what u and v stand for.
    """

    gradient: Callable[[Tensor, Tensor], Tensor]  # of (point, slope of the loss by logits)
    logits: Callable[[Tensor], Tensor]  # of an image
    precondition: Callable[[Tensor], tuple[Tensor, Tensor]]  # of a vector: another one, and its image
    weights: Callable[[Tensor], Tensor]  # of a point: (E, K, d)
    largest: Tensor  # (E,) an upper bound of the preconditioner's largest eigenvalue
    rows: int


def _solve(x: Tensor, labels: Tensor, classes: int, scale: float, tolerance: float, limit: int) -> LogisticRegressions:
    mean = x.mean(dim=1, keepdim=True)
    form = (_gram_form if x.shape[1] < x.shape[2] else _primal_form)(x, mean, scale, classes)
    target = scale * functional.one_hot(labels, classes).to(x.dtype)

    def slope(image: Tensor) -> Tensor:
        return form.logits(image).softmax(dim=2).mul_(scale).sub_(target)

    point = x.new_zeros(len(x), form.rows, classes)
    image = torch.zeros_like(point)
    gradient = form.gradient(point, slope(image))
    history: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    norms = x.new_full((len(x),), torch.inf)
    for iteration in range(limit + 1):
        direction, direction_image = form.precondition(gradient)
        norms = (_inner(direction_image, gradient).clamp_(min=0) * form.largest).sqrt_()
        running = norms > tolerance
        if iteration == limit or not running.any():
            break
        if history:
            direction, direction_image = _two_loops(form, gradient, history)
        descent = -_inner(direction_image, gradient)
        step = torch.where(running, -1.0, 0.0).to(x.dtype)[:, None, None]  # a solved problem stays where it is
        while True:
            moved = image + step * direction_image
            change = form.gradient(point + step * direction, slope(moved)).sub_(gradient)
            # slope along the step after it: of a convex function it says whether the step went far too far
            after = -_inner(direction_image, change + gradient)
            far = (after > 0.5 * descent.abs()) & (step[:, 0, 0] != 0)
            if not far.any() or float(step.abs().max()) < _SMALLEST_STEP:
                break
            step = torch.where(far[:, None, None], step / 2, step)
        taken, taken_image = step * direction, step * direction_image
        point, image, gradient = point + taken, moved, gradient + change
        curvature = _inner(taken_image, change)
        history.append((taken, taken_image, change, torch.where(curvature > 0, 1 / curvature, 0)))
        del history[:-_MEMORY]
    weights = form.weights(point)
    intercepts = point[:, -1] - (weights @ mean.transpose(1, 2))[:, :, 0]
    return LogisticRegressions(weights, intercepts, norms)


def _two_loops(
    form: _Form, gradient: Tensor, history: list[tuple[Tensor, Tensor, Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """L-BFGS: the inverse Hessian, as far as the last steps tell, times the gradient."""
    rest, factors = gradient.clone(), []
    for _, taken_image, change, weight in reversed(history):
        factors.append(weight * _inner(taken_image, rest))
        rest -= factors[-1][:, None, None] * change
    direction, image = form.precondition(rest)
    for (taken, taken_image, change, weight), factor in zip(history, reversed(factors), strict=True):
        missing = (factor - weight * _inner(image, change))[:, None, None]
        same = direction is image
        direction = direction + missing * taken
        image = direction if same else image + missing * taken_image
    return direction, image


def _gram_form(x: Tensor, mean: Tensor, scale: float, classes: int) -> _Form:
    """On A with W = A^T X, X centred; the image is G A."""
    count, curvature = x.shape[1], scale / classes
    gram = x @ x.transpose(1, 2)
    gram = gram - gram.mean(dim=1, keepdim=True)  # of the centred vectors, without touching those
    gram = gram - gram.mean(dim=2, keepdim=True)
    largest = 1 + curvature * gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    inverse = _inverse(gram.mul_(curvature))

    def gradient(point: Tensor, slope: Tensor) -> Tensor:
        intercept = slope.sum(dim=1, keepdim=True)
        return torch.cat([point[:, :-1] + slope, intercept], dim=1)

    def precondition(vector: Tensor) -> tuple[Tensor, Tensor]:
        above, intercept = vector[:, :-1], vector[:, -1:] / (count * curvature)
        solved = inverse @ above
        return torch.cat([solved, intercept], dim=1), torch.cat([(above - solved) / curvature, intercept], dim=1)

    def weights(point: Tensor) -> Tensor:
        part = point[:, :-1].transpose(1, 2)
        return part @ x - part.sum(dim=2, keepdim=True) * mean

    return _Form(gradient, lambda i: i[:, :-1] + i[:, -1:], precondition, weights, largest, count + 1)


def _primal_form(x: Tensor, mean: Tensor, scale: float, classes: int) -> _Form:
    """On W itself; a vector is its own image."""
    count, curvature = x.shape[1], scale / classes
    x = x - mean
    second = x.transpose(1, 2) @ x
    largest = 1 + curvature * second.diagonal(dim1=1, dim2=2).sum(dim=1)
    inverse = _inverse(second.mul_(curvature))

    def gradient(point: Tensor, slope: Tensor) -> Tensor:
        return torch.cat([point[:, :-1] + x.transpose(1, 2) @ slope, slope.sum(dim=1, keepdim=True)], dim=1)

    def precondition(vector: Tensor) -> tuple[Tensor, Tensor]:
        solved = torch.cat([inverse @ vector[:, :-1], vector[:, -1:] / (count * curvature)], dim=1)
        return solved, solved

    def logits(image: Tensor) -> Tensor:
        return torch.baddbmm(image[:, -1:], x, image[:, :-1])

    return _Form(gradient, logits, precondition, lambda p: p[:, :-1].transpose(1, 2), largest, x.shape[2] + 1)


def _inverse(matrix: Tensor) -> Tensor:
    """(I + matrix)^-1 of symmetric positive matrices (E, m, m); changes the matrix."""
    matrix.diagonal(dim1=1, dim2=2).add_(1)
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))


def _inner(image: Tensor, vector: Tensor) -> Tensor:
    return (image * vector).sum(dim=(1, 2))


def _check(features: Tensor, labels: Tensor, classes: int, inverse_penalty: float, tolerance: float) -> None:
    if features.ndim != 3 or not features.numel() or not features.is_floating_point():
        raise UserError(
            "features are floats of shape (problems, samples, dimensions), none of them 0; got "
            f"{features.dtype} of shape {tuple(features.shape)}"
        )
    if labels.shape != features.shape[:2] or labels.is_floating_point():
        raise UserError(
            f"labels are integers of shape {tuple(features.shape[:2])}, one for each row of features; got "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    if classes < 2:
        raise UserError(f"logistic regression needs at least 2 classes to tell apart; got classes = {classes}")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(
            f"labels lie between 0 and {classes - 1}; got {int(labels.min())} to {int(labels.max())}: leave samples "
            "of unknown class out"
        )
    for name, value in (("inverse_penalty", inverse_penalty), ("tolerance", tolerance)):
        if not value > 0:
            raise UserError(f"{name} must be positive, got {value}")
    if not bool(features.isfinite().all()):
        raise UserError("features must be finite: leave samples with NaN or infinity out")
