"""SCAN's and TURTLE's objectives against plain loops in probabilities, their limits, gradients and precision."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise

import pytest
import torch
from support import raises
from torch import Tensor

from regrain.errors import UserError
from regrain.objectives import scan_loss, self_labelling_loss, turtle_inner, turtle_loss

B, C, D = 7, 4, 5


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def entropy_of_mean(probabilities: Tensor) -> float:
    return -sum(p * math.log(p) for p in probabilities.mean(dim=0).tolist())


# SCAN: neighbours share a class


@pytest.mark.parametrize("weight", [0.0, 1.0, 5.0])
def test_scan_is_the_equation(weight: float) -> None:
    logits, neighbour = drawn(B, C), drawn(B, C, seed=1)
    found = scan_loss(logits, neighbour, entropy_weight=weight)
    p, q = logits.softmax(dim=1).tolist(), neighbour.softmax(dim=1).tolist()
    consistency = -sum(math.log(sum(a * b for a, b in zip(p[i], q[i], strict=True))) for i in range(B)) / B
    entropy = entropy_of_mean(logits.softmax(dim=1))
    assert float(found["consistency"]) == pytest.approx(consistency)
    assert float(found["entropy"]) == pytest.approx(entropy)
    assert float(found["loss"]) == pytest.approx(consistency - weight * entropy)


def test_scan_in_its_limits() -> None:
    perfect = 1000 * torch.eye(C).repeat(2, 1)
    for logits, consistency, entropy in (
        (perfect, 0, math.log(C)),
        (perfect[:1].expand(8, -1), 0, 0),  # all samples in one class
        (torch.zeros(8, C), math.log(C), math.log(C)),  # no decision
        (-perfect[:1].expand(8, -1), math.log(C - 1), math.log(C - 1)),  # one class is empty
    ):
        found = scan_loss(logits, logits, entropy_weight=2.0)
        assert float(found["consistency"]) == pytest.approx(consistency, abs=1e-6)
        assert float(found["entropy"]) == pytest.approx(entropy, abs=1e-6)
        assert float(found["loss"]) == pytest.approx(consistency - 2 * entropy, abs=1e-6)


# SCAN: self-labelling


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9])
def test_self_labelling_is_the_mean_over_classes_of_their_mean_cross_entropy(threshold: float) -> None:
    weak, strong = drawn(30, C), drawn(30, C, seed=1)
    losses = defaultdict(list)
    for row, other in zip(weak.softmax(dim=1).tolist(), strong.softmax(dim=1).tolist(), strict=True):
        if max(row) > threshold:
            losses[row.index(max(row))].append(-math.log(other[row.index(max(row))]))
    expected = sum(sum(own) / len(own) for own in losses.values()) / len(losses)
    found = self_labelling_loss(weak, strong, threshold=threshold)
    assert float(found["loss"]) == pytest.approx(expected)
    assert float(found["confident"]) == pytest.approx(sum(map(len, losses.values())) / 30)


def test_nobody_sure_teaches_nothing() -> None:
    strong = drawn(B, C).requires_grad_()
    found = self_labelling_loss(torch.zeros(B, C), strong)
    found["loss"].backward()
    assert (float(found["loss"].detach()), float(found["confident"])) == (0, 0)
    assert not strong.grad.any()


def test_the_weak_view_gets_no_gradient() -> None:
    weak = (10 * drawn(B, C)).requires_grad_()
    loss = self_labelling_loss(weak, drawn(B, C, seed=1).requires_grad_())["loss"]
    assert float(loss.detach()) > 0
    assert torch.autograd.grad(loss, weak, allow_unused=True) == (None,)


# TURTLE


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_turtle_is_the_equation(weight: float) -> None:
    labelling, classifier = drawn(B, C), drawn(B, C, seed=1).requires_grad_()
    tau, learnt = labelling.softmax(dim=1).tolist(), classifier.softmax(dim=1).tolist()
    cross = -sum(tau[i][c] * math.log(learnt[i][c]) for i in range(B) for c in range(C)) / B
    loss = turtle_loss(labelling.requires_grad_(), classifier, entropy_weight=weight)
    expected = cross - weight * entropy_of_mean(labelling.detach().softmax(dim=1))
    assert float(loss.detach()) == pytest.approx(expected)
    assert torch.autograd.grad(loss, classifier, allow_unused=True) == (None,)


def test_turtle_in_its_limits() -> None:
    perfect = 1000 * torch.eye(C).repeat(2, 1)
    collapsed = perfect[:1].expand(8, -1)
    assert float(turtle_loss(perfect, perfect, entropy_weight=2.0)) == pytest.approx(-2 * math.log(C))
    assert float(turtle_loss(collapsed, collapsed, entropy_weight=2.0)) == pytest.approx(0)
    assert float(turtle_loss(perfect, torch.zeros(8, C), entropy_weight=2.0)) == pytest.approx(-math.log(C))


def cross_entropy(weight: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    return -(labels * (features @ weight.T).log_softmax(dim=1)).sum(dim=1).mean()


@pytest.mark.parametrize(("samples", "scale"), [(3, 1.0), (40, 1.0), (40, 100.0), (40, 1e-3)])
def test_inner_steps_never_raise_the_cross_entropy(samples: int, scale: float) -> None:
    features, labels = drawn(samples, D, scale=scale), drawn(samples, C, seed=1, scale=9).softmax(dim=1)
    weight = drawn(C, D, seed=2, scale=5 / scale)
    values = [cross_entropy(weight, features, labels)]
    for _ in range(30):
        weight = turtle_inner(weight, features, labels, steps=1)
        values.append(cross_entropy(weight, features, labels))
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(values))
    assert values[-1] < values[0]


@pytest.mark.parametrize("samples", [3, 40])
def test_inner_steps_are_gradient_descent(samples: int) -> None:
    features, labels = drawn(samples, D), drawn(samples, C, seed=1).softmax(dim=1)
    weight = drawn(C, D, seed=2)
    step = 2 * samples / float(torch.linalg.svdvals(features)[0] ** 2)
    expected = weight.clone()
    for _ in range(4):
        expected.requires_grad_()
        gradient = torch.autograd.grad(cross_entropy(expected, features, labels), expected)[0]
        expected = expected.detach() - step * gradient
    torch.testing.assert_close(turtle_inner(weight, features, labels, steps=4), expected)
    assert torch.equal(turtle_inner(weight, features, labels, steps=0), weight)
    assert torch.equal(turtle_inner(weight, 0 * features, labels, steps=3), weight)


# All of them

LOSSES = {
    "scan": lambda x, y: scan_loss(x, y)["loss"],
    "scan-neighbours": lambda x, y: scan_loss(y, x)["loss"],
    "self-labelling": lambda x, y: self_labelling_loss(y, x, threshold=0.4)["loss"],
    "turtle": lambda x, y: turtle_loss(x, y),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


@each_loss
def test_gradients(name: str) -> None:
    other = drawn(B, C, seed=1)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, other), drawn(B, C).requires_grad_())


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_float_type_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    inputs = [drawn(B, C, seed=seed).to(dtype) for seed in (0, 1)]
    value = LOSSES[name](*inputs)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(LOSSES[name](*(x.double() for x in inputs))), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LOSSES[name](*inputs), value)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_extreme_logits_are_finite(name: str, dtype: torch.dtype) -> None:
    inputs = [drawn(B, C, seed=seed, scale=1e4).to(dtype).requires_grad_() for seed in (0, 1)]
    value = LOSSES[name](*inputs)
    assert value.isfinite()
    assert torch.autograd.grad(value, inputs[0])[0].isfinite().all()


@each_loss
def test_the_order_of_samples_and_classes_is_irrelevant(name: str) -> None:
    inputs = [drawn(B, C), drawn(B, C, seed=1)]
    rows, columns = torch.tensor([3, 0, 6, 1, 5, 2, 4]), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(LOSSES[name](*(x[rows][:, columns] for x in inputs)), LOSSES[name](*inputs))


def test_inner_steps_in_half_precision() -> None:
    features, labels, weight = drawn(40, D), drawn(40, C, seed=1).softmax(dim=1), drawn(C, D, seed=2)
    found = turtle_inner(weight.bfloat16(), features.bfloat16(), labels.bfloat16(), steps=3)
    exact = [x.bfloat16().double() for x in (weight, features, labels)]
    torch.testing.assert_close(found.double(), turtle_inner(*exact, steps=3), rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32


def test_what_cannot_be_asked_is_said() -> None:
    x = torch.zeros(3, 2)
    for loss, name in ((scan_loss, "neighbour_logits"), (self_labelling_loss, "strong_logits"),
                       (turtle_loss, "classifier_logits")):  # fmt: skip
        for wrong in (torch.zeros(2, 2), torch.zeros(3, 3)):
            with pytest.raises(UserError, match=rf"{name} must be floats of shape \(3, 2\)"):
                loss(x, wrong)
        with raises("wrong_shape"):
            loss(torch.zeros(3), torch.zeros(3))
    for loss in (scan_loss, turtle_loss):
        for weight in (-1.0, float("nan")):
            with raises("out_of_range"):
                loss(x, x, entropy_weight=weight)
    for threshold in (0.0, 1.0, float("nan")):
        with raises("out_of_range"):
            self_labelling_loss(x, x, threshold=threshold)
