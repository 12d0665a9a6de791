"""Methods that read labels at several levels or aspects, with gaps: MLCL, HiMulConE, Guided, Mixed and MultiCE."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from support import Soon, quick
from torch import Tensor
from torch.nn import functional

import regrain
from regrain.checks import hyperparameters
from regrain.data.dataset import Batch, Dataset
from regrain.data.samples import TensorSamples
from regrain.encoders import build_encoder
from regrain.errors import RegrainWarning, UserError
from regrain.labels import Labels
from regrain.methods import METHODS, Method, method_class
from regrain.methods.base import EVERY
from regrain.methods.level_classifier import LevelClassifier
from regrain.objectives import hmce_loss, maskcon_loss, supcon_loss, supcon_queue_loss
from regrain.training.loop import Stopped

WIDTH = 8
ABOVE = torch.tensor([0, 0, 1, 1, 1])
"""The coarse class of every fine one."""

NAMES = [name for name, cls in METHODS.items() if cls.needs.levels == (EVERY,)]
TREES = ["guided", "mixed"]


def tree() -> Labels:
    return Labels.from_codes(torch.stack([ABOVE, torch.arange(5)], dim=1), ["kind", "sub"])


def build(name: str, labels: Labels | None = None, *, encoder: str = "mlp", **settings: Any) -> Any:
    """A method for the levels of these labels, by default two coarse classes over five fine ones."""
    labels = tree() if labels is None else labels
    torch.manual_seed(0)
    cls = method_class(name)
    if "queue_size" in hyperparameters(cls):
        settings.setdefault("queue_size", 20)
    sizes = {"hidden": (16,), "width": 6, "norm": "layer"} if encoder == "mlp" else {}
    built = build_encoder(encoder, modality="vector", sample_shape=(WIDTH,), seed=0, **sizes)
    method = cls(built, [labels.counts[level] for level in labels.levels], **settings)
    method.setup(labels)
    return method


def batch_for(method: Method, *, start: int = 0, size: int = 10) -> Batch:
    """Samples known finely, coarsely or not at all."""
    generator = torch.Generator().manual_seed(start)
    views = tuple(torch.randn(size, WIDTH, generator=generator) for _ in method.needs.views)
    fine = torch.arange(size) % 5
    labels = torch.stack([ABOVE[fine], fine], dim=1)
    labels[1::3, 1] = -1
    labels[2::5] = -1
    return Batch(views, labels, torch.arange(start, start + size))


def mixture(count: int, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Five classes that overlap, and the labels (count, 2)."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.arange(count) % 5
    return 2 * torch.eye(WIDTH)[fine] + noise * torch.randn(count, WIDTH, generator=generator), torch.stack(
        [ABOVE[fine], fine], dim=1
    )


def level_means(logits: Tensor, labels: Tensor) -> float:
    """The mean over levels of -log p of the samples known there; the five fine classes are the leaves."""
    fine = logits[:, 2:].softmax(dim=1)
    coarse = torch.stack([fine[:, kind == ABOVE].sum(dim=1) for kind in range(2)], dim=1)
    losses = []
    for level, p in enumerate((coarse, fine)):
        known = labels[:, level] >= 0
        losses.append(-float(p[known, labels[known, level]].log().mean()))
    return sum(losses) / 2


# A gap leaves out one term of a sample


@pytest.mark.parametrize("normalise", [False, True])
def test_cross_entropies_with_gaps(normalise: bool) -> None:
    method = build("multi-ce", normalise_classifier=normalise)
    batch = batch_for(method)
    with torch.no_grad():
        features = method.encoder(batch.views[0])
        features = features / features.norm(dim=1, keepdim=True) if normalise else features
        logits = method.classifier(features)
        expected = level_means(logits, batch.labels)
        assert float(method.losses(batch)["loss"]) == pytest.approx(expected, rel=1e-5)
        coarse, fine = tuple(method.class_proba(batch.views[0]).values())
        torch.testing.assert_close(fine, logits[:, 2:].softmax(dim=1))
        torch.testing.assert_close(coarse[:, 0], fine[:, :2].sum(dim=1))


def test_aspects_have_a_cross_entropy_each() -> None:
    labels = aspects()
    method = build("multi-ce", labels)
    x = torch.randn(60, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parts = method.classifier(method.encoder(x)).split([3, 3], dim=1)
        known = [labels.codes[:, level] >= 0 for level in range(2)]
        assert not all(bool(k.all()) for k in known)
        expected = [
            functional.cross_entropy(part[k], labels.codes[k, level])
            for level, (part, k) in enumerate(zip(parts, known, strict=True))
        ]
        found = method.losses(Batch((x,), labels.codes, torch.arange(60)))["loss"]
        torch.testing.assert_close(found, torch.stack(expected).mean())
        for p, part in zip(tuple(method.class_proba(x).values()), parts, strict=True):
            torch.testing.assert_close(p, part.softmax(dim=1))


@pytest.mark.parametrize(
    ("ce_weight", "options"), [(0.0, {"normalise_heads": False}), (0.4, {"projector_width": (3, 7)})]
)
def test_heads_of_mlcl_with_gaps(ce_weight: float, options: dict[str, Any]) -> None:
    method = build("mlcl", ce_weight=ce_weight, temperatures=(0.5, 0.2), **options)
    batch = batch_for(method)
    losses = method.losses(batch)
    with torch.no_grad():
        features = [method.encoder(view) for view in batch.views]
        contrast = 0.0
        for level, temperature in enumerate((0.5, 0.2)):
            known = batch.labels[:, level] >= 0
            scaled = [view if "normalise_heads" in options else functional.normalize(view, dim=1) for view in features]
            seen = torch.cat([method.heads[level](view[known]) for view in scaled])
            assert seen.shape[1] == options.get("projector_width", (128, 128))[level]
            labels = batch.labels[known, level].repeat(2)
            contrast += (1 - ce_weight) / 2 * float(supcon_loss(seen, labels, temperature=temperature))
        expected = contrast
        if ce_weight:
            expected += ce_weight * level_means(method.classifier(features[0]), batch.labels)
    assert float(losses["loss"].detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("name", "ce_weight"), [("mlcl", 0.0), ("mlcl", 0.5), ("himulcone", None)])
def test_a_classifier_learns_in_steps_where_its_cross_entropy_is_in_the_loss_alone(
    name: str, ce_weight: float | None
) -> None:
    method = build(name, **({} if ce_weight is None else {"ce_weight": ce_weight}))
    losses = method.losses(batch_for(method))
    losses["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in method.encoder.parameters())
    learns = bool(ce_weight)
    assert ("cross_entropy" in losses) == learns
    assert all(p.requires_grad == learns for p in method.classifier.parameters())
    assert (method.classifier.weight.grad is not None) == learns


def test_himulcone_with_gaps() -> None:
    method = build("himulcone", temperature=0.2, level_weights=(0.3, 1.0))
    batch = batch_for(method)
    with torch.no_grad():
        seen = torch.cat([method.projector(method.encoder(view)) for view in batch.views])
        labels = torch.cat([batch.labels, batch.labels])
        contrast = hmce_loss(seen, labels, temperature=0.2, level_weights=[0.3, 1.0])
        assert float(method.losses(batch)["loss"]) == pytest.approx(float(contrast), rel=1e-5)
        torch.testing.assert_close(method.embed_projected(batch.views[0]), seen[:10])


def test_guided_knows_of_a_coarse_sample_that_it_is_one_of_the_classes_below() -> None:
    method = build("guided", distortion_weight=0.5)
    batch = batch_for(method)
    with torch.no_grad():
        losses = method.losses(batch)
        vectors = method.embedder(method.encoder(batch.views[0]))
        fine: list[float] = []
        coarse: list[float] = []
        for z, (kind, sub) in zip(vectors, batch.labels.tolist(), strict=True):
            likelihood = [math.exp(-math.dist(z.tolist(), p.tolist())) for p in method.prototypes]
            if sub >= 0:
                fine.append(-math.log(likelihood[sub] / sum(likelihood)))
            elif kind >= 0:
                below = sum(p for p, above in zip(likelihood, ABOVE.tolist(), strict=True) if above == kind)
                coarse.append(-math.log(below / sum(likelihood)))
    assert fine
    assert coarse
    assert float(losses["data"]) == pytest.approx(sum(fine) / len(fine), rel=1e-4)
    assert float(losses["partly_known"]) == pytest.approx(sum(coarse) / len(coarse), rel=1e-4)
    expected = losses["data"] + losses["partly_known"] + 0.5 * losses["distortion"]
    torch.testing.assert_close(losses["loss"], expected)
    certain = Batch(batch.views, torch.tensor([[0, -1]]).repeat(10, 1), batch.ids)
    method.above.zero_()  # where all classes are below, nothing is left to learn
    assert float(method.losses(certain)["partly_known"]) == pytest.approx(0, abs=1e-6)


def test_distances_of_guided_are_edges_of_the_tree() -> None:
    expected = [[0 if k == m else 2 if ABOVE[k] == ABOVE[m] else 4 for m in range(5)] for k in range(5)]
    assert build("guided").class_distances.tolist() == expected


def test_terms_of_mixed() -> None:
    method = build("mixed", soft_temperature=0.1, weight=0.8, temperature=0.2)
    method.losses(batch_for(method, start=0))
    method.after_step()
    batch = batch_for(method, start=5)  # five of its samples have old keys in the queue
    with torch.no_grad():
        projected = method.forward_views(batch)
        keys, queue_labels = method.queue.keys, method.queue.labels
        assert queue_labels.tolist() == batch_for(method).labels.tolist()
        mask = method.queue.candidate_mask(batch.ids)
        assert not mask.all()
        query, key, labels = projected["query"], projected["key"], batch.labels
        columns = labels[:, 0], queue_labels[:, 0]
        numbers = {"temperature": 0.2, "soft_temperature": 0.1, "weight": 0.8}
        soft = maskcon_loss(query, key, keys, *columns, **numbers, candidate_mask=mask)
        known = labels[:, 1] >= 0
        there = queue_labels[:, 1] >= 0
        finer = supcon_queue_loss(
            query[known],
            key[known],
            keys[there],
            labels[known, 1],
            queue_labels[there, 1],
            temperature=0.2,
            candidate_mask=mask[known][:, torch.cat([torch.tensor([True]), there])],
        )
        losses = method.losses(batch)
    expected = float(soft) + float(known.float().mean()) * float(finer)
    assert float(losses["loss"]) == pytest.approx(expected, rel=1e-5)


# Probabilities


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_of_every_level_and_a_tree_that_agrees(name: str) -> None:
    x, labels = mixture(60)
    method = build(name).eval()
    method.after_training(lambda: [(x, labels, torch.arange(60))])
    with torch.no_grad():
        coarse, fine = (method.predict_proba(x, role) for role in ("level1", "level2"))
    assert (coarse.shape, fine.shape) == ((60, 2), (60, 5))
    torch.testing.assert_close(coarse.sum(dim=1), torch.ones(60))
    torch.testing.assert_close(fine.sum(dim=1), torch.ones(60))
    if name != "taxon-ssl":  # whose heads know no tree
        summed = torch.zeros_like(coarse).index_add_(1, ABOVE, fine)
        torch.testing.assert_close(summed, coarse)
    with pytest.raises(UserError, match="no classifier for the level3 level"):
        method.predict_proba(x, "level3")


def ragged() -> Labels:
    return Labels.from_paths(["a/x/1", "a/x/2", "a/y", "b", "c/z"])


RAGGED = ["mixed", "mlcl", "himulcone", "multi-ce"]


@pytest.mark.parametrize("name", RAGGED)
@pytest.mark.parametrize("trained", [False, True])
def test_a_class_has_the_sum_of_its_childrens_probabilities(name: str, trained: bool) -> None:
    """Over a ragged tree and one with a level left out, before training and after it."""
    for labels in (ragged(), ragged().keep(["level1", "level3"])):
        method = build(name, labels).eval()
        x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(0))
        codes = labels.codes.repeat(10, 1)
        codes[::7, -1] = -1
        if trained:
            method.after_training(lambda x=x, codes=codes: [(x, codes, torch.arange(50))])
        with torch.no_grad():
            levels = tuple(method.class_proba(x).values())
        taxonomy = labels.taxonomy
        assert taxonomy is not None
        torch.testing.assert_close(levels[0].sum(dim=1), torch.ones(50))
        for upper in range(len(levels) - 1):
            coarse, fine = labels.levels[upper], labels.levels[upper + 1]
            above, has_children = taxonomy.ancestors(fine, coarse), taxonomy.has_children(coarse)
            for code in has_children.nonzero()[:, 0].tolist():
                below = levels[upper + 1][:, above == code].sum(dim=1)
                nested_deeper = taxonomy.levels[upper + 2 :]
                for deeper in nested_deeper:  # a class whose parent is one level further up
                    skipped = (taxonomy.ancestors(deeper, coarse) == code) & (taxonomy.ancestors(deeper, fine) < 0)
                    below = below + levels[labels.level_index(deeper)][:, skipped].sum(dim=1)
                torch.testing.assert_close(levels[upper][:, code], below)


@pytest.mark.parametrize("name", RAGGED)
def test_a_class_without_finer_ones_is_a_leaf(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.eye(WIDTH)[torch.arange(100) % 5] + 0.1 * torch.randn(100, WIDTH, generator=generator)
    labels = ragged()
    method = build(name, labels, encoder="identity").eval()
    leaves = [
        name for name, leaf in zip(sum(labels.classes, ()), method.classifier.is_leaf.tolist(), strict=True) if leaf
    ]
    assert leaves == ["b", "a/y", "c/z", "a/x/1", "a/x/2"]
    if name == "multi-ce":  # learns in steps
        optimizer = torch.optim.AdamW(method.parameters(), lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            method.losses(Batch((x,), labels.codes.repeat(20, 1), torch.arange(100)))["loss"].backward()
            optimizer.step()
    method.after_training(lambda: [(x, labels.codes.repeat(20, 1), torch.arange(100))])
    with torch.no_grad():
        by_level = [method.predict_proba(x[:5], role) for role in ("level1", "level2", "level3")]
    torch.testing.assert_close(by_level[0].sum(dim=1), torch.ones(5))
    torch.testing.assert_close(by_level[1].sum(dim=1), 1 - by_level[0][:, 1])  # b has nothing below
    for level, row in ((0, 0), (0, 3), (1, 2), (1, 4), (2, 1)):
        assert by_level[level][row, labels.codes[row, level]] > 0.9
    assert float(by_level[2][3].sum()) < 0.1


def test_a_level_left_out_is_stepped_over() -> None:
    labels = Labels.from_paths(["a/x/1", "a/x/2", "a/y/3", "b/z/4"]).keep(["level1", "level3"])
    mixed, guided = build("mixed", labels), build("guided", labels)
    assert mixed.classifier.above.tolist() == [[0, 1, 0, 0, 0, 1], [-1, -1, 0, 1, 2, 3]]
    assert mixed.classifier.is_leaf.tolist() == [False, False, True, True, True, True]
    assert guided.above.tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def test_guided_refuses_a_class_without_finer_ones() -> None:
    with pytest.raises(UserError, match=r"every class of 'level3', and level1 'b' has none below it: mixed takes"):
        build("guided", ragged())


# The logistic regression of mixed


def fitted(x: Tensor, labels: Tensor, name: str = "mixed", **settings: Any) -> Any:
    method = build(name, encoder="identity", **settings).eval()
    ids = torch.arange(len(x))
    method.after_training(lambda: [(x[rows], labels[rows], ids[rows]) for rows in ids.split(64)])
    return method


def standardised(x: Tensor) -> np.ndarray:
    return np.asarray((x - x.mean(dim=0)) / x.std(dim=0) / math.sqrt(WIDTH), dtype=np.float64)


@pytest.mark.parametrize("inverse_penalty", [0.1, 10.0])
def test_with_every_leaf_known_it_is_scikit_learns(inverse_penalty: float) -> None:
    x, labels = mixture(200)
    x = x * torch.arange(1, WIDTH + 1) + 7
    method = fitted(x, labels, inverse_penalty=inverse_penalty)
    reference = LogisticRegression(C=inverse_penalty, tol=1e-10, max_iter=10_000)
    reference.fit(standardised(x), labels[:, 1].numpy())
    expected = torch.tensor(reference.predict_proba(standardised(x)), dtype=torch.float32)
    torch.testing.assert_close(method.predict_proba(x, "level2"), expected, rtol=0, atol=1e-3)


def test_coarse_samples_help_to_tell_leaves_apart() -> None:
    x, labels = mixture(400, noise=1.2)
    few = torch.arange(400) < 10  # two of every leaf
    gaps = labels.clone()
    gaps[~few, 1] = -1
    new, truth = mixture(2000, noise=1.2, seed=1)
    with_coarse, without = fitted(x, gaps), fitted(x[few], labels[few])
    found = [m.predict_proba(new, "level2").argmax(dim=1) for m in (with_coarse, without)]
    right = [float((codes == truth[:, 1]).float().mean()) for codes in found]
    assert right[0] > right[1] + 0.1
    gaps[~few] = -1
    torch.testing.assert_close(fitted(x, gaps).classifier.weight, without.classifier.weight)  # no label, no part


def test_it_is_a_minimum_with_coarse_samples_too() -> None:
    """No small step in any direction lowers the objective, written out sample by sample."""
    x, labels = mixture(100)
    labels[::2, 1] = -1
    method = fitted(x, labels, inverse_penalty=2.0, balance=0.0)
    z = torch.tensor(standardised(x))
    factor = x.std(dim=0).double() * math.sqrt(WIDTH)
    leaves = slice(2, 7)
    weight = method.classifier.weight.double()[leaves] * factor
    bias = method.classifier.bias.double()[leaves] + method.classifier.weight.double()[leaves] @ x.double().mean(dim=0)

    def objective(w: Tensor, b: Tensor) -> float:
        p = (z @ w.T + b).softmax(dim=1)
        total = 0.0
        for row, (kind, sub) in zip(p, labels.tolist(), strict=True):
            total -= math.log(row[sub] if sub >= 0 else row[kind == ABOVE].sum())
        return 2.0 * total + 0.5 * float(w.square().sum())

    best = objective(weight, bias)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = 0.05 * torch.randn(5, WIDTH + 1, generator=generator, dtype=torch.float64)
        assert objective(weight + step[:, 1:], bias + step[:, 0]) > best


@pytest.mark.parametrize("name", ["mlcl", "himulcone"])
@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_a_solved_classifier_is_a_logistic_regressions_within_a_point(name: str, noise: float) -> None:
    """On f(x), for both levels."""
    x, labels = mixture(500, noise=noise)
    new, truth = mixture(4000, noise=noise, seed=1)
    method = fitted(x, labels, name)
    found = tuple(method.class_proba(new).values())
    mean, spread = x.mean(dim=0), x.std(dim=0) * math.sqrt(WIDTH)
    for level in range(2):
        reference = LogisticRegression(C=10.0, max_iter=1000)
        reference.fit(((x - mean) / spread).numpy(), labels[:, level].numpy())
        best = reference.score(((new - mean) / spread).numpy(), truth[:, level].numpy())
        own = float((found[level].argmax(dim=1) == truth[:, level]).float().mean())
        assert own > best - 0.01


def test_every_aspect_has_its_own_logistic_regression() -> None:
    """That of scikit-learn on the samples known there, with the one C that was chosen for all."""
    labels = aspects(200)
    x = vectors_with(labels).samples.take(torch.arange(200))
    method = build("mlcl", labels, encoder="identity").eval()
    chosen = []
    choose = LevelClassifier._chosen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LevelClassifier, "_chosen", lambda *given: chosen.append(choose(*given)) or chosen[-1])
        method.after_training(lambda: [(x, labels.codes, torch.arange(200))])
    z = standardised(x)
    for level, found in enumerate(method.class_proba(x).values()):
        known = (labels.codes[:, level] >= 0).numpy()
        reference = LogisticRegression(C=chosen[0][0], tol=1e-10, max_iter=10_000)
        reference.fit(z[known], labels.codes[known, level].numpy())
        expected = torch.tensor(reference.predict_proba(z), dtype=torch.float32)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_few_samples_leave_no_choice_of_the_penalty() -> None:
    x, labels = mixture(5)
    method = fitted(x, labels, "mlcl")
    alone = fitted(x, labels, "mixed", inverse_penalty=10.0)
    torch.testing.assert_close(method.classifier.weight, alone.classifier.weight)


def test_wrong_labels_ask_for_a_stronger_penalty() -> None:
    chosen = {}
    choose = LevelClassifier._chosen
    for wrong in (0.0, 0.6):
        x, labels = mixture(600, noise=0.3)
        shuffled = torch.rand(600, generator=torch.Generator().manual_seed(0)) < wrong
        labels[shuffled] = labels[shuffled][torch.randperm(int(shuffled.sum()))]
        with pytest.MonkeyPatch.context() as patch:

            def spy(*given: Any, wrong: float = wrong) -> tuple[float, float]:
                chosen[wrong] = choose(*given)
                return chosen[wrong]

            patch.setattr(LevelClassifier, "_chosen", spy)
            fitted(x, labels, "mlcl")
    assert chosen[0.6][0] < chosen[0.0][0]


def test_the_order_of_the_data_is_irrelevant() -> None:
    x, labels = mixture(100)
    labels[::2, 1] = -1
    ids = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    one, other = (build("mixed", encoder="identity").eval() for _ in range(2))
    one.after_training(lambda: [(x, labels, torch.arange(100))])
    other.after_training(lambda: [(x[rows], labels[rows], rows) for rows in ids.split(30)])
    assert torch.equal(one.classifier.weight, other.classifier.weight)
    assert one.classifier.weight.any()


# Aspects and their orders


def aspects(count: int = 60) -> Labels:
    columns = {
        "price": [("low", "high", "middle", None)[i % 4] for i in range(count)],
        "stars": [("1", "10", "9")[i // 3 % 3] for i in range(count)],
    }
    return Labels.from_columns(columns, relation="aspects")


def vectors_with(labels: Labels) -> Dataset:
    count = len(labels)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, WIDTH, generator=generator) + 3 * torch.eye(WIDTH)[labels.codes[:, -1].clamp(min=0)]
    splits = np.where(np.arange(count) % 5 == 0, "test", "train")
    return Dataset(TensorSamples(x, "vector"), labels, np.array([f"r{i}" for i in range(count)]), "vectors", splits)


@pytest.mark.parametrize("name", ["mlcl", "multi-ce"])
def test_aspects_are_learnt_and_judged(name: str, tmp_path: Path) -> None:
    data = vectors_with(aspects())
    orders = "orders=[[low, middle, high], ['1', '9', '10']]"
    more = ("global_weight=0.1", orders) if name == "mlcl" else ()
    run = quick(name, data, tmp_path / "run", *more)
    assert run.recipe["data"]["roles"] == {"level1": "price", "level2": "stars"}
    for level, classes in (("price", 3), ("stars", 3)):
        probabilities = run.predict_proba(data, level)
        assert probabilities.shape == (60, classes)
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(60))
    flat = regrain.evaluate(run, protocols=["recall"], options={"ks": [1]}).flat()
    assert {"test/price/recall@1", "test/stars/recall@1"} <= set(flat)
    if name == "mlcl":
        assert "overlap" in run.folder.read_metrics()[0]


@pytest.mark.parametrize("name", TREES)
def test_aspects_are_refused_where_levels_must_nest(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{name} .*nest"):
        quick(name, vectors_with(aspects()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mlcl reads the labels of every level, and the data have none"):
        quick("mlcl", vectors_with(aspects()).with_levels([]), tmp_path / "run")


def test_orders_of_the_global_head() -> None:
    labels = aspects()
    codes = {level: {n: c for c, n in enumerate(labels.names(level))} for level in labels.levels}
    method = build("mlcl", labels, global_weight=0.1, orders=(("low", "middle", "high"), ("1", "9", "10")))
    rows = [("low", "1"), ("middle", "9"), ("high", "10")]
    given = torch.tensor([[codes["price"][a], codes["stars"][b]] for a, b in rows] + [[-1, -1]])
    assert method._ordinals(given).tolist() == [[1, 1], [2, 2], [3, 3], [0, 0]]


def test_numbers_have_their_order_and_names_need_one() -> None:
    stars = Labels.from_columns({"stars": ["-2", "1e3", "30", "0.5"]}, relation="aspects")
    ranks = build("mlcl", stars, global_weight=0.1)._ordinals(torch.arange(4)[:, None])[:, 0]
    by_name = dict(zip(stars.names("stars"), ranks.tolist(), strict=True))
    assert by_name == {"-2": 1, "0.5": 2, "30": 3, "1e3": 4}
    years = Labels.from_columns({"code": ["16777217", "16777216"]}, relation="aspects")
    assert build("mlcl", years, global_weight=0.1)._ordinals(torch.tensor([[0], [1]])).tolist() == [[1], [2]]
    for names in (["low", "high"], ["1", "nan "], ["1", "inf"]):
        labels = Labels.from_columns({"price": names}, relation="aspects")
        with pytest.raises(UserError, match="have no order of their own: declare one, --set 'orders="):
            build("mlcl", labels, global_weight=0.1)
        assert build("mlcl", labels, global_weight=0.0).global_weight == 0


def test_aspects_have_one_temperature_by_default() -> None:
    assert set(build("mlcl", aspects()).temperatures) == {0.1}
    assert build("mlcl", aspects(), temperatures=(0.5, 0.2)).temperatures == (0.5, 0.2)
    assert build("mlcl").temperatures == pytest.approx((0.5, 0.1))
    assert set(build("mlcl", global_weight=0.1, orders=None).temperatures) == {0.1}


def test_one_order_is_for_all_aspects() -> None:
    labels = Labels.from_columns({"food": ["good", "bad", "fair"], "room": ["bad", "fair", "bad"]}, relation="aspects")
    one = build("mlcl", labels, global_weight=0.1, orders=(("bad", "fair", "good"),))
    each = build("mlcl", replace(labels), global_weight=0.1, orders=(("bad", "fair", "good"),) * 2)
    assert torch.equal(one._ordinals(labels.codes), each._ordinals(labels.codes))


@pytest.mark.parametrize("name", ["mlcl", "multi-ce", "himulcone", "guided", "mixed"])
def test_levels_are_predicted_together_as_one_by_one(name: str) -> None:
    method = build(name).eval()
    x = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(0))
    together = tuple(method.class_proba(x).values())
    assert [tuple(part.shape) for part in together] == [(7, count) for count in method.classes]
    for role, part in zip(method.roles, together, strict=True):
        assert torch.equal(part, method.predict_proba(x, role))
        torch.testing.assert_close(part.sum(dim=1), torch.ones(7))


def test_settings_of_mlcl() -> None:
    for settings, message in (
        ({"global_weight": 0.1, "orders": (("low", "high"), ("1", "9", "10"))}, "orders leave out the class 'middle'"),
        (
            {"global_weight": 0.1, "orders": (("1", "9", "10"),) * 3},
            "orders list the classes of 2 levels, or one list for all; got 3 lists",
        ),
        ({"global_weight": 0.6, "ce_weight": 0.5}, "are shares of 1"),
        ({"threshold": 1.0}, "threshold"),
        ({"temperatures": (0.1,)}, "temperatures are 2 numbers, one for every level"),
        ({"weights": (0.1, 0.2, 0.3)}, "weights are 2 numbers, one for every level"),
        ({"projector_width": (8,)}, "projector_width is one number, or 2, one for every head"),
        ({"projector_width": (8, 0)}, "projector_width must be a whole number of at least 1 or a list of"),
    ):
        with pytest.raises(UserError, match=message):
            build("mlcl", aspects(), **settings)
    with pytest.raises(UserError, match="level_weights are 2 numbers"):
        build("himulcone", level_weights=(1.0,))
    default = build("mlcl", Labels.from_paths(["a/b/c", "a/b/d", "a/e/f", "g/h/i"]))
    assert default.temperatures == pytest.approx((0.5, 0.05**0.5, 0.1))
    assert default.weights == pytest.approx((1 / 3,) * 3)


# Through the public verbs


def tree_data(count: int = 200) -> Dataset:
    x, codes = mixture(count, noise=0.5)
    columns = {"group": [f"g{c}" for c in codes[:, 0]], "digit": [f"d{c}" for c in codes[:, 1]]}
    splits = np.where(np.arange(count) // 5 % 4 == 0, "test", "train")
    ids = np.array([f"r{i}" for i in range(count)])
    return Dataset(TensorSamples(x, "vector"), Labels.from_columns(columns), ids, "tree", splits)


def hidden(run: regrain.Run) -> Tensor:
    """The training labels (samples, 2) of a run."""
    return run.splits()["train"].labels.codes


def test_labels_are_hidden_level_by_level(tmp_path: Path) -> None:
    data = tree_data()
    shares = {"group": 0.35, "digit": 0.95}
    run = quick("mixed", data, tmp_path / "run", hide_labels=shares)
    unknown = hidden(run) < 0
    assert len(unknown) == 150
    assert unknown.float().mean(dim=0).tolist() == pytest.approx([0.35, 0.95], abs=0.01)
    assert unknown[unknown[:, 0], 1].all()  # who has no group has no digit either
    assert run.recipe["data"]["hide_labels"] == shares
    assert (run.splits()["test"].labels.codes >= 0).all()
    repeated = regrain.fit("mixed", data, out=tmp_path / "again", recipe=run.path / "recipe.yaml", device="cpu")
    assert torch.equal(hidden(repeated), hidden(run))
    for name, value in load_file(run.folder.model_folder / "model.safetensors").items():
        assert torch.equal(value, load_file(repeated.folder.model_folder / "model.safetensors")[name]), name
    alike = quick("multi-ce", data, tmp_path / "alike", hide_labels=0.4)
    unknown = hidden(alike) < 0
    assert torch.equal(unknown[:, 0], unknown[:, 1])
    for wrong, message in (({"digitt": 0.5}, "did you mean 'digit'"), ({"digit": 1.0}, r"lies in \[0, 1\)")):
        with pytest.raises(UserError, match=message):
            quick("mixed", data, tmp_path / "wrong", hide_labels=wrong)


def test_labels_are_hidden_where_they_are_hard(tmp_path: Path) -> None:
    """Digits of the group that the probe tells worst go first, the run says so, and so does its evaluation."""
    data = tree_data(400)
    run = quick("mixed", data, tmp_path / "run", hide_labels={"digit": "0.8:hard"}, encoder="identity")
    again = regrain.Run.open(run.path, device="cpu")
    again.data = data
    assert torch.equal(hidden(again), hidden(run))
    assert run.recipe["data"]["hide_labels"] == {"digit": "0.8:hard"}
    assert int((hidden(run)[:, 1] < 0).sum()) == round(0.8 * len(hidden(run)))
    assert (hidden(run)[:, 0] >= 0).all()
    easy = quick("multi-ce", data, tmp_path / "easy", hide_labels={"digit": "0.2:easy"}, encoder="identity")
    assert not ((hidden(easy)[:, 1] < 0) & (hidden(run)[:, 1] < 0)).any()


def test_labels_that_are_missing_for_a_reason_are_said(tmp_path: Path) -> None:
    data = tree_data(400)
    codes = data.labels.codes.clone()
    values = data.samples.take(torch.arange(len(data)))
    far = values[:, 0] > values[:, 0].median()
    codes[far, 1] = -1
    partly = replace(data, labels=replace(data.labels, codes=codes))
    with pytest.warns(RegrainWarning, match="level 'digit': the .* samples with a label are not like"):
        run = quick("multi-ce", partly, tmp_path / "run", encoder="identity")
    with pytest.warns(RegrainWarning, match="missing for a reason"):
        found = regrain.evaluate(run, protocols=["multi-aspect"], baselines=False)
    assert sum("are not like" in note for note in found.notes) == 2  # of the test split, and of the training samples
    assert "are not like" in run.folder.read_card()


def test_balance_gives_samples_to_classes_that_few_labels_name() -> None:
    """Two leaves below one class, one of them with a single label at its far end."""
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(200, WIDTH, generator=generator) + shift for shift in (0.0, 3.0)])
    fine = torch.arange(400) // 200
    labels = torch.stack([torch.zeros(400).long(), fine], dim=1)
    labels[10:, 1] = -1
    labels[-1, 1] = 1
    tree = Labels.from_codes(torch.tensor([[0, 0], [0, 1]]), ["kind", "sub"])
    found = {}
    for balance in (0.0, 1.0):
        classifier = LevelClassifier(WIDTH, [1, 2])
        classifier.setup(tree)
        classifier.double()
        pass_over = lambda: [(x, labels, torch.arange(400))]  # noqa: E731
        method = build("multi-ce", encoder="mlp")
        classifier.solve(method, pass_over, lambda view: view, [10.0], [0.3], balance)
        sizes = classifier.predict(x.double())[1].detach().sum(dim=0)
        found[balance] = sizes / sizes.sum()
    assert abs(float(found[1.0][0]) - 0.5) < 0.05
    assert abs(float(found[1.0][0]) - 0.5) <= abs(float(found[0.0][0]) - 0.5)


def test_coarse_labels_and_few_fine_ones_make_a_classifier_that_is_saved(tmp_path: Path) -> None:
    data = tree_data()
    run = quick("mixed", data, tmp_path / "run", hide_labels={"digit": 0.9}, encoder="identity")
    test = data.split("test")
    found = run.predict_proba(test, "digit")
    assert (found.argmax(dim=1) == test.labels.level("digit")).float().mean() > 0.8
    opened = regrain.Run.open(run.path, device="cpu")
    assert torch.equal(opened.predict_proba(test, "digit"), found)


@pytest.mark.parametrize("name", ["maskcon", "scgm", "mlcl", "mixed"])
def test_few_fine_more_coarse_and_no_labels_train_together(name: str, tmp_path: Path) -> None:
    data = tree_data(400)
    run = quick(name, data, tmp_path / "run", "epochs=6", hide_labels={"group": 0.35, "digit": 0.95})
    flat = regrain.evaluate(run, protocols=["recall"], options={"ks": [1]}).flat()
    assert flat["test/digit/recall@1"] > 0.85


def test_a_batch_without_labels_is_said_once(tmp_path: Path) -> None:
    with pytest.warns(RegrainWarning, match=r"a batch of \d holds no known label: multi-ce learns") as said:
        quick("multi-ce", tree_data(100), tmp_path / "run", "batch_size=2", hide_labels=0.9)
    assert sum("holds no known label" in str(one.message) for one in said) == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_goes_on_exactly(name: str, tmp_path: Path) -> None:
    data = tree_data(100)
    more: dict[str, Any] = {"hide_labels": {"group": 0.2, "digit": 0.6}}
    whole = quick(name, data, tmp_path / "whole", **more)
    with pytest.raises(Stopped):
        quick(name, data, tmp_path / "cut", interrupt=Soon(6), **more)
    resumed = regrain.resume(tmp_path / "cut", data, device="cpu")
    first, second = (load_file(run.folder.model_folder / "model.safetensors") for run in (whole, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_have_a_column_for_every_level(name: str, tmp_path: Path) -> None:
    data = tree_data(100)
    run = quick(name, data, tmp_path / "run")
    test = data.split("test")
    columns = regrain.predict(
        regrain.Run.open(run.path), replace(test, labels=Labels.empty(len(test))), tmp_path / "p.csv"
    )
    assert [c for c in columns if c not in ("id", "split")] == [
        "group",
        "group_probability",
        "digit",
        "digit_probability",
    ]
    assert set(columns["group"]) <= {"g0", "g1"}
    above = {
        data.labels.names("digit")[fine]: data.labels.names("group")[coarse]
        for coarse, fine in data.labels.codes.tolist()
        if coarse >= 0 and fine >= 0
    }
    assert [above[digit] for digit in columns["digit"]] == list(columns["group"])  # one path
    for level in ("group", "digit"):
        probabilities, names = run.predict_proba(test, level), list(data.labels.names(level))
        codes = torch.tensor([names.index(name) for name in columns[level]])
        own = probabilities.gather(1, codes[:, None])[:, 0]
        np.testing.assert_allclose(np.asarray(columns[f"{level}_probability"], dtype=float), own, atol=1e-5)
        if name not in ("guided", "taxon-ssl"):  # whose classifiers of the levels do not agree
            assert torch.equal(codes, probabilities.argmax(dim=1))
