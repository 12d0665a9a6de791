"""Protocols ``multi-aspect`` and ``transfer``, and what the majority class gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

import regrain
from regrain.errors import UserError
from regrain.evaluation import Representation, Task
from regrain.evaluation.multi_aspect import _decided, multi_aspect
from regrain.labels import Taxonomy
from regrain.runs.selective import predicted_codes

CLASSES = {"service": 2, "price": 3}


def judged() -> tuple[Representation, list[Task]]:
    generator = torch.Generator().manual_seed(0)
    labels = {n: torch.randint(-1, c, (80,), generator=generator) for n, c in CLASSES.items()}
    probabilities = {n: torch.rand(80, c, generator=generator) for n, c in CLASSES.items()}
    settings = [Task(n, tuple("abc"[:c]), labels[n], None) for n, c in CLASSES.items()]
    return Representation("model", torch.zeros(80, 1), probabilities=probabilities), settings


def test_figures_are_scikit_learns_over_known_labels() -> None:
    representation, settings = judged()
    found = multi_aspect(representation, settings)
    for setting in settings:
        known = setting.test_labels >= 0
        truth = setting.test_labels[known]
        predicted = representation.probabilities[setting.level].argmax(dim=1)[known]
        figures = {name: score.value for name, score in found[setting.level].items()}
        assert figures == pytest.approx(
            {
                "accuracy": float((truth == predicted).double().mean()),
                "balanced-accuracy": balanced_accuracy_score(truth, predicted),
                "macro-f1": f1_score(truth, predicted, average="macro"),
            }
        )
    for name in ("accuracy", "balanced-accuracy", "macro-f1"):
        assert found["all"][name].value == pytest.approx(np.mean([found[level][name].value for level in CLASSES]))
    right, count = 0, 0
    for i in range(80):
        known = [s for s in settings if s.test_labels[i] >= 0]
        count += bool(known)
        right += bool(known) and all(
            representation.probabilities[s.level][i].argmax() == s.test_labels[i] for s in known
        )
    assert found["all"]["all-right"].value == pytest.approx(right / count)
    assert "tree-distance" not in found["all"]


def test_paths_are_judged_where_levels_nest() -> None:
    tree = Taxonomy.from_codes(torch.tensor([[0, 0], [0, 1], [1, 2]]), ["kind", "sub"], [["x", "y"], ["p", "q", "r"]])
    probabilities = {"kind": torch.eye(2)[[0, 0, 1]], "sub": torch.eye(3)[[0, 2, 2]]}
    settings = [
        Task("kind", ("x", "y"), torch.tensor([0, 0, 1]), None, taxonomy=tree),
        Task("sub", ("p", "q", "r"), torch.tensor([0, 1, 2]), None, taxonomy=tree),
    ]
    found = multi_aspect(Representation("model", torch.zeros(3, 1), probabilities=probabilities), settings)["all"]
    assert found["path-consistency"].value == pytest.approx(2 / 3)  # the second: kind x, and a sub of y
    assert found["tree-distance"].value == pytest.approx((0 + 4 + 0) / 3)
    assert found["hierarchical-f1"].value == pytest.approx(4 / 6)
    assert (found["fpa"].value, found["tice"].value) == pytest.approx((2 / 3, 1 / 3))
    assert found["hops"].value == pytest.approx((1 + 0 + 1) / 3)


def test_paths_are_decided_together_where_asked() -> None:
    """Two siblings of 0.3 each against a stranger of 0.4: least cost takes a sibling, the leaf alone the stranger."""
    tree = Taxonomy.from_codes(torch.tensor([[0, 0], [0, 1], [1, 2]]), ["kind", "sub"], [["x", "y"], ["p", "q", "r"]])
    at_odds = {"kind": torch.tensor([[0.6, 0.4]] * 2), "sub": torch.tensor([[0.31, 0.29, 0.4]] * 2)}
    tasks = [
        Task("kind", ("x", "y"), torch.tensor([0, 1]), None, taxonomy=tree),
        Task("sub", ("p", "q", "r"), torch.tensor([0, 2]), None, taxonomy=tree),
    ]
    seen = Representation("model", torch.zeros(2, 1), probabilities=at_odds)
    paths = {"levels": (0.0, 1.0), "leaf": (0.5, 0.0), "least-cost": (0.5, 0.0)}
    codes = {"levels": (0, 2), "leaf": (1, 2), "least-cost": (0, 0)}
    for decode, (kind, sub) in codes.items():
        found = multi_aspect(seen, tasks, decode=decode)
        assert found["kind"]["accuracy"].value == np.mean([kind == 0, kind == 1])
        assert found["sub"]["accuracy"].value == np.mean([sub == 0, sub == 2])
        figures = found["all"]
        assert (figures["fpa"].value, figures["tice"].value) == paths[decode]
    with pytest.raises(UserError, match="these levels do not nest"):
        multi_aspect(*judged(), decode="leaf")


def test_predict_decides_by_least_cost() -> None:
    codes = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3], [1, 4]])
    tree = Taxonomy.from_codes(codes, ["kind", "sub"], [["x", "y"], ["p", "q", "r", "s", "t"]])
    sub = (2 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))).softmax(dim=1)
    found = {"kind": torch.stack([sub[:, :2].sum(dim=1), sub[:, 2:].sum(dim=1)], dim=1), "sub": sub}
    decided = _decided(found, tree, "least-cost")
    assert torch.equal(torch.stack([decided["kind"], decided["sub"]], dim=1), predicted_codes(found, tree))
    assert not torch.equal(decided["sub"], sub.argmax(dim=1))


def test_the_order_in_which_levels_are_asked_for_changes_no_figure(tmp_path: Path) -> None:
    options = {"encoder": "identity", "device": "cpu", "settings": ["epochs=1"]}
    run = regrain.fit("multi-ce", "digits", out=tmp_path / "run", **options)
    asked = {"protocols": ["multi-aspect"], "baselines": False, "write": False}
    one, other = (
        regrain.evaluate(run, levels=order, **asked).flat() for order in (["group", "digit"], ["digit", "group"])
    )
    assert one == pytest.approx(other)


def test_without_a_training_split_the_model_is_judged_alone(tmp_path: Path) -> None:
    options = {"encoder": "identity", "device": "cpu", "settings": ["epochs=1"]}
    run = regrain.fit("multi-ce", "digits", out=tmp_path / "run", **options)
    for protocol in ("multi-aspect", "superclass"):
        found = regrain.evaluate(run, split="train", protocols=[protocol], write=False)
        assert {row.representation for row in found.rows} == {"model"}
        assert any("baselines were left out" in note for note in found.notes)


def test_the_majority_class_stands_beside_what_classifies(tmp_path: Path) -> None:
    data = regrain.load("digits")
    options = {"encoder": "identity", "device": "cpu", "settings": ["epochs=1"]}
    run = regrain.fit("multi-ce", data, out=tmp_path / "run", samples=300, **options)
    found = regrain.evaluate(run, data, protocols=["multi-aspect", "linear", "recall"], options={"ks": [1]})
    figures = found.flat()
    train, test = run.splits()["train"], run.splits()["test"]
    majority = {}
    for level in ("group", "digit"):
        most = majority[level] = int(torch.bincount(train.labels.level(level)).argmax())
        share = float((test.labels.level(level) == most).double().mean())
        assert figures[f"test/{level}/accuracy.majority"] == pytest.approx(share)
        assert figures[f"test/{level}/linear.majority"] == pytest.approx(share)
        assert figures[f"test/{level}/balanced-accuracy.majority"] == pytest.approx(1 / len(data.labels.names(level)))
        assert f"test/{level}/recall@1.majority" not in figures
    above = int(data.labels.taxonomy.ancestors("digit", "group")[majority["digit"]])
    assert figures["test/all/path-consistency.majority"] == float(above == majority["group"])
    assert figures["test/all/accuracy"] == pytest.approx(
        np.mean([figures[f"test/{level}/accuracy"] for level in ("group", "digit")])
    )


def test_transfer_is_for_other_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.array(["a", "b"] * 40)
    vectors = (rng.normal(size=(80, 6)) + (names == "a")[:, None]).astype(np.float32)
    run = regrain.fit(
        "sup-ce", regrain.load(vectors, labels={"kind": names}), out=tmp_path / "r", device="cpu", settings=["epochs=1"]
    )
    split = np.array(["train"] * 60 + ["test"] * 20)
    other = regrain.load(vectors[::-1].copy(), labels={"shape": names[::-1]}, splits=split)
    figures = regrain.evaluate(run, other, protocols=["transfer"]).flat()
    linear = regrain.evaluate(run, other, protocols=["linear"]).flat()
    assert figures["test/shape/transfer"] == linear["test/shape/linear"]
    assert figures["test/shape/transfer.majority"] == linear["test/shape/linear.majority"]
    for data in (None, run.data):
        with pytest.raises(UserError, match="transfer is for data that the encoder was not trained on"):
            regrain.evaluate(run, data, protocols=["transfer"])
