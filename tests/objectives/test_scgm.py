"""SCGM's posteriors and terms, against loops from the equations, the golden values and the limits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import raises
from torch import Tensor

from regrain.objectives import angular_info_nce_loss, scgm_log_joint, scgm_losses, scgm_posterior

VARIANCE = 0.1


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in np.load(shared / "golden" / "objectives.npz").items()}


def drawn(samples: int = 6, subclasses: int = 5, superclasses: int = 3, width: int = 4) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    sizes = (samples, subclasses, superclasses)
    return tuple(torch.randn(size, width, generator=generator, dtype=torch.float64) for size in sizes)


def naive_posterior(
    v: list[float], subclasses: list[list[float]], superclasses: list[list[float]], y: int, prior: list[float]
) -> list[float]:
    """Eq. 2 and 3 of methods.md, one sample, plain numbers; y = -1: averaged over the superclasses."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * z for x, z in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    weights = []
    for mean in superclasses:
        exps = [math.exp(cosine(sub, mean)) for sub in subclasses]
        weights.append([e / sum(exps) for e in exps])
    mixture = (
        weights[y]
        if y >= 0
        else [sum(p * w[z] for p, w in zip(prior, weights, strict=True)) for z in range(len(subclasses))]
    )
    joint = [math.exp(cosine(v, sub) / VARIANCE) * w for sub, w in zip(subclasses, mixture, strict=True)]
    return [j / sum(joint) for j in joint]


@pytest.mark.parametrize("prior", [[1 / 3, 1 / 3, 1 / 3], [0.7, 0.2, 0.1]])
def test_posterior_and_terms_against_a_loop(prior: list[float]) -> None:
    embedding, subclasses, superclasses = drawn()
    coarse = torch.tensor([0, 1, 2, -1, 1, -1])
    settings: dict[str, Any] = {"variance": VARIANCE, "superclass_prior": torch.tensor(prior, dtype=torch.float64)}
    found = scgm_posterior(embedding, subclasses, superclasses, coarse, **settings)
    expected = [
        naive_posterior(v, subclasses.tolist(), superclasses.tolist(), y, prior)
        for v, y in zip(embedding.tolist(), coarse.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    unlabelled = scgm_posterior(embedding, subclasses, superclasses, **settings)
    torch.testing.assert_close(unlabelled[3], found[3])

    assignment = torch.tensor([4, 0, 2, 1, -1, 3])
    losses = scgm_losses(embedding, coarse, assignment, subclasses, superclasses, **settings)
    rows = [0, 1, 2, 3, 5]
    of_subclass = -sum(math.log(expected[i][int(assignment[i])]) for i in rows) / len(rows)
    assert losses["subclass"].item() == pytest.approx(of_subclass)
    log_joint = scgm_log_joint(embedding, coarse, subclasses, superclasses, **settings)
    of_superclass = [log_joint[i, assignment[i]] - found[i, assignment[i]].log() for i in (0, 1, 2)]
    assert losses["superclass"].item() == pytest.approx(-sum(map(float, of_superclass)) / 3)
    torch.testing.assert_close(log_joint[3], found[3].log())  # without a label p(y | z) drops out


@pytest.mark.parametrize("mixture", ["uniform", "superclass"])
def test_golden(golden: dict[str, Tensor], mixture: Any) -> None:
    names = ("query", "scgm_subclass_means", "scgm_superclass_means")
    embedding, subclasses, superclasses = (golden[name].clone().requires_grad_() for name in names)
    coarse, assignment = golden["coarse"], golden["scgm_assignment"]
    settings: dict[str, Any] = {"variance": VARIANCE, "mixture": mixture}
    losses = scgm_losses(embedding, coarse, assignment, subclasses, superclasses, **settings)
    joint = scgm_log_joint(embedding, coarse, subclasses, superclasses, **settings).exp()
    marginal = scgm_posterior(embedding, subclasses, superclasses, **settings)
    if mixture == "superclass":
        posterior = scgm_posterior(embedding, subclasses, superclasses, coarse, **settings)
        expected = [golden[f"scgm_mix_{name}"] for name in ("posterior", "estep_joint", "predict_subclass")]
        assert losses["subclass"].item() == pytest.approx(float(golden["scgm_mix_term_embedding_subclass"]), rel=1e-9)
        for ours, theirs in zip((posterior, joint, marginal), expected, strict=True):
            np.testing.assert_allclose(ours.detach(), theirs, rtol=1e-6)
        return
    assert losses["subclass"].item() == pytest.approx(float(golden["scgm_term_embedding_subclass"]), rel=1e-9)
    assert losses["superclass"].item() == pytest.approx(float(golden["scgm_term_subclass_superclass"]), rel=1e-9)
    np.testing.assert_allclose(joint.detach(), golden["scgm_estep_joint"], rtol=1e-6)
    np.testing.assert_allclose(marginal.detach(), golden["scgm_pred_subclass"], rtol=1e-6)
    gradients = torch.autograd.grad(losses["subclass"] + losses["superclass"], (embedding, subclasses, superclasses))
    for gradient, name in zip(gradients, ("embedding", "subclass", "superclass"), strict=True):
        np.testing.assert_allclose(gradient, golden[f"scgm_sum12_grad_{name}"], rtol=1e-5, atol=1e-12)


def test_nothing_to_count_gives_zero_with_zero_gradient() -> None:
    embedding, subclasses, superclasses = (t.requires_grad_() for t in drawn())
    none = torch.full((6,), -1)
    losses = scgm_losses(embedding, none, none, subclasses, superclasses, variance=VARIANCE)
    gradient = torch.autograd.grad(sum(losses.values()), subclasses)[0]  # type: ignore[arg-type]
    assert [loss.item() for loss in losses.values()] == [0, 0]
    assert not gradient.any()


def test_far_from_every_mean_stays_finite() -> None:
    embedding = torch.tensor([[-1.0, 0.0], [0.0, 0.0]])
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = scgm_log_joint(embedding, torch.tensor([0, 1]), means, means, variance=1e-3)
    assert found.isfinite().all()


def test_what_does_not_fit_is_named() -> None:
    embedding, subclasses, superclasses = drawn()
    with raises("unknown_name"):
        scgm_posterior(embedding, subclasses, superclasses, variance=0.1, mixture="other")  # type: ignore[arg-type]
    with raises("out_of_range"):
        scgm_posterior(embedding, subclasses, superclasses, variance=0.0)
    with raises("wrong_shape"):
        scgm_posterior(embedding, subclasses[:, :2], superclasses, variance=0.1)
    with raises("out_of_range"):
        scgm_losses(embedding, torch.zeros(6).long(), torch.full((6,), 9), subclasses, superclasses, variance=0.1)
    prior = torch.ones(3, dtype=torch.float64)
    with raises("out_of_range"):
        scgm_posterior(embedding, subclasses, superclasses, variance=0.1, superclass_prior=prior)


def angular_inputs(golden: dict[str, Tensor]) -> tuple[Tensor, ...]:
    queues = golden["angular_queues"].transpose(1, 2)
    return golden["query"], golden["key"], queues, golden["coarse"], golden["scgm_superclass_means"]


def test_angular_golden(golden: dict[str, Tensor]) -> None:
    query, *others = angular_inputs(golden)
    query = query.clone().requires_grad_()
    loss = angular_info_nce_loss(query, *others, temperature=float(golden["angular_temperature"]))
    assert loss.item() == pytest.approx(float(golden["angular_loss"]), rel=1e-6)
    np.testing.assert_allclose(torch.autograd.grad(loss, query)[0], golden["angular_grad"], rtol=1e-5, atol=1e-12)


def test_angular_against_a_loop_with_unknown_labels_and_masked_places() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, queues = (torch.randn(*shape, generator=generator) for shape in ((5, 4), (5, 4), (2, 3, 4)))
    key, queues = (torch.nn.functional.normalize(t, dim=-1) for t in (key, queues))
    means = torch.randn(2, 4, generator=generator)
    coarse = torch.tensor([0, 1, -1, 1, 0])
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[1, 2] = mask[4, 1:] = False
    losses = []
    for i in (0, 1, 3, 4):
        mean = means[coarse[i]] / means[coarse[i]].norm()

        def seen(v: Tensor, mean: Tensor = mean) -> Tensor:
            direction = v / v.norm() - mean
            return direction / direction.norm()

        candidates = [key[i], *queues[coarse[i]]]
        logits = [
            float(seen(query[i]) @ seen(c)) / 0.2 for c, counts in zip(candidates, mask[i], strict=True) if counts
        ]
        losses.append(math.log(sum(math.exp(x) for x in logits)) - logits[0])
    found = angular_info_nce_loss(query, key, queues, coarse, means, temperature=0.2, candidate_mask=mask)
    assert found.item() == pytest.approx(sum(losses) / 4, rel=1e-5)
    nothing = angular_info_nce_loss(query, key, queues, torch.full((5,), -1), means, temperature=0.2)
    assert nothing.item() == 0
    with raises("wrong_shape"):
        angular_info_nce_loss(query, key, queues[0], coarse, means, temperature=0.2)


def test_a_query_at_the_mean_itself_is_finite() -> None:
    means = torch.tensor([[1.0, 0.0]])
    query = means.clone().requires_grad_()
    loss = angular_info_nce_loss(query, means, means[None], torch.tensor([0]), means, temperature=0.2)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, query)[0].isfinite().all()
