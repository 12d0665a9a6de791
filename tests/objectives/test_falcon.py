"""FALCON's terms against published values and loops, and its relations against all there are."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support import raises
from torch import Tensor

from regrain.objectives import falcon_losses, falcon_relations

COARSE = torch.tensor([0, 0, 1, 1, -1, 1])
BELOW = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0], [0, 1]]).bool()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    average = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    near = torch.randn(6, 3, 5, generator=generator, dtype=torch.float64)
    return own, average, near


def golden(shared: Path) -> dict[str, Tensor]:
    with np.load(shared / "golden" / "rivals.npz") as file:
        return {name.removeprefix("falcon/"): torch.tensor(file[name]) for name in file.files if "falcon" in name}


@pytest.mark.parametrize(("hardness", "name"), [(0.0, "fine_soft"), (1.0, "fine_hard"), (0.7, "fine_tau0.3")])
def test_published_values(shared: Path, hardness: float, name: str) -> None:
    value = golden(shared)
    tolerance = 1e-7 if 0 < hardness < 1 else 1e-9
    for names, key in ((("neighbours", "confidence"), name), (("coarse",), "coarse"), (("balance",), "reg")):
        logits = value["logits"].clone().requires_grad_()
        average = value["ema_logits"]
        terms = falcon_losses(
            logits, average, average[value["neighbours"]], value["M"], value["coarse"], hardness=hardness
        )
        loss = torch.stack([terms[n] for n in names]).sum()
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(value[f"loss_{key}"]), abs=tolerance)
        torch.testing.assert_close(logits.grad, value[f"grad_{key}"], atol=tolerance, rtol=0)


def test_the_total_adds_up(shared: Path) -> None:
    value = golden(shared)
    average = value["ema_logits"]
    terms = falcon_losses(
        value["logits"], average, average[value["neighbours"]], value["M"], value["coarse"], hardness=0.7
    )
    total = 0.5 * terms["coarse"] + 0.5 * (terms["neighbours"] + terms["confidence"]) + 2 * terms["balance"]
    assert float(total) == pytest.approx(float(value["loss_total_tau0.3"]), abs=1e-7)


def test_against_loops() -> None:
    own, average, near = inputs()
    found = falcon_losses(own, average, near, BELOW, COARSE, target_temperature=0.7, hardness=0.4)
    p, coarse, neighbours, confidence = own.softmax(1), [], [], []
    for i, label in enumerate(COARSE.tolist()):
        allowed = [f for f in range(5) if label < 0 or BELOW[f, label]]
        if label >= 0:
            coarse.append(-math.log(sum(float(p[i, f]) for f in allowed)))
        weights = {f: math.exp(float(average[i, f]) / 0.7) for f in allowed}
        q = {f: w / sum(weights.values()) for f, w in weights.items()}
        best = max(q, key=lambda f: q[f])
        target = {f: 0.6 * share + 0.4 * (f == best) for f, share in q.items()}
        confidence.append(-sum(t * math.log(float(p[i, f])) for f, t in target.items()))
        neighbours += [-math.log(float(p[i] @ near[i, k].softmax(0))) for k in range(3)]
    mean = p.mean(0)
    expected = {
        "coarse": np.mean(coarse),
        "neighbours": np.mean(neighbours),
        "confidence": np.mean(confidence),
        "balance": math.log(5) + float((mean * mean.log()).sum()),
    }
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, abs=1e-12)


def test_shares_are_what_the_mean_should_be() -> None:
    own, average, near = inputs()

    def balance(shares: Tensor | None, logits: Tensor = own) -> float:
        found = falcon_losses(logits, average, near, BELOW, COARSE, hardness=1.0, shares=shares)
        return float(found["balance"])

    mean = own.softmax(1).mean(0)
    assert balance(torch.full((5,), 0.2, dtype=torch.float64)) == pytest.approx(balance(None), abs=1e-12)
    assert balance(mean) == pytest.approx(0, abs=1e-12)
    shares = torch.tensor([0.5, 0.2, 0.2, 0.05, 0.05], dtype=torch.float64)
    assert balance(shares) == pytest.approx(float((mean * (mean / shares).log()).sum()), abs=1e-12)
    assert math.isfinite(balance(torch.tensor([1.0, 0, 0, 0, 0])))
    unused = own.clone()
    unused[:, 3:] = -1e4
    assert balance(torch.tensor([0.5, 0.25, 0.25, 0, 0], dtype=torch.float64), unused) < 1


def test_gradients_and_limits() -> None:
    own, average, near = inputs()

    def total(x: Tensor) -> Tensor:
        shares = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0], dtype=x.dtype)
        terms = [falcon_losses(x, average, near, BELOW, COARSE, hardness=0.4, shares=s) for s in (None, shares)]
        return torch.stack([value for of in terms for value in of.values()]).sum()

    assert torch.autograd.gradcheck(total, own.requires_grad_())
    far = (own.detach() * 1000).requires_grad_()
    loss = total(far)
    loss.backward()
    assert loss.isfinite()
    assert far.grad is not None
    assert far.grad.isfinite().all()
    nobody = falcon_losses(own, average, near, BELOW, torch.full((6,), -1), hardness=1.0)
    assert float(nobody["coarse"].detach()) == 0
    everywhere = falcon_losses(
        own, average, near, torch.ones(5, 1).bool(), torch.zeros(6, dtype=torch.long), hardness=1.0
    )
    assert float(everywhere["coarse"].detach()) == pytest.approx(0, abs=1e-12)  # one coarse class: nothing to tell


def test_what_does_not_fit_is_named() -> None:
    own, average, near = inputs()
    with raises("wrong_shape"):
        falcon_losses(own, average, near[:, :, :4], BELOW, COARSE, hardness=0.0)
    with raises("wrong_shape"):
        falcon_losses(own, average, near, BELOW[:4], COARSE, hardness=0.0)
    with raises("out_of_range"):
        falcon_losses(own, average, near, BELOW, COARSE, hardness=1.5)
    with raises("out_of_range"):
        falcon_losses(own, average, near, BELOW, COARSE + BELOW.shape[1], hardness=0.0)
    with raises("wrong_shape"):
        falcon_losses(own, average, near, BELOW, COARSE[:-1], hardness=0.0)
    childless = torch.cat([BELOW, torch.zeros(5, 1).bool()], dim=1)
    with raises("out_of_range", match=f"no fine class under coarse class {BELOW.shape[1]}"):
        falcon_losses(own, average, near, childless, torch.full((6,), BELOW.shape[1]), hardness=0.0)
    falcon_losses(own, average, near, childless, COARSE, hardness=0.0)  # no sample has it
    with raises("wrong_shape"):
        falcon_relations(torch.zeros(2, 3), balance=0.0)
    with raises("out_of_range"):
        falcon_relations(torch.tensor([[float("nan")]]), balance=0.0)


def test_relations_equal_the_published_optimum(shared: Path) -> None:
    with np.load(shared / "golden" / "rivals.npz") as file:
        numbers = {name.removeprefix("falcon_relations/"): file[name] for name in file.files if "relations" in name}
    for i in range(sum(name.startswith("cost") for name in numbers)):
        cost, beta = torch.tensor(numbers[f"cost{i}"]), float(numbers[f"beta{i}"])
        found = falcon_relations(cost, balance=beta)
        assert np.array_equal(found.numpy(), numbers[f"M{i}"].astype(bool))


@pytest.mark.parametrize("balance", [0.0, 0.05, 1.0])
def test_relations_are_the_best_of_all(balance: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        cost = torch.randn(6, 3, generator=generator, dtype=torch.float64)

        def value(places: tuple[int, ...], cost: Tensor = cost) -> float:
            sizes = np.bincount(places, minlength=3)
            return float(sum(cost[f, c] for f, c in enumerate(places))) - balance * float((sizes**2).sum()) / 3

        every = (p for p in itertools.product(range(3), repeat=6) if len(set(p)) == 3)
        found = falcon_relations(cost, balance=balance)
        assert found.sum(dim=1).eq(1).all()
        assert value(tuple(found.int().argmax(dim=1).tolist())) == pytest.approx(max(map(value, every)))
