"""Protocol ``superclass``: figures against loops, whose classifier it is, and hidden subclasses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import regrain
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import Representation, Task
from regrain.evaluation.protocols import LACKING
from regrain.evaluation.superclass import superclass
from regrain.labels import Labels
from regrain.metrics import calibration_error

NAMES = ("bottle", "flower", "bird")
HIDDEN = ("red", "green", "blue", "pale")


def judged(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (60, 3), labels and hidden subclasses, some unknown."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(60, 3, generator=generator).softmax(dim=1)
    labels = torch.randint(-1, 3, (60,), generator=generator)
    return probabilities, labels, torch.randint(-1, 4, (60,), generator=generator)


def own(probabilities: Tensor) -> Representation:
    return Representation("model", torch.zeros(len(probabilities), 2), probabilities={"kind": probabilities})


def test_figures_are_those_of_loops() -> None:
    probabilities, labels, hidden = judged()
    found = superclass(own(probabilities), Task("kind", NAMES, labels, None, finer={"colour": (HIDDEN, hidden)}))
    known = [i for i in range(60) if labels[i] >= 0]
    right = {i: bool(probabilities[i].argmax() == labels[i]) for i in known}
    assert found["accuracy"].value == pytest.approx(np.mean(list(right.values())))
    assert found["accuracy"].low < found["accuracy"].value < found["accuracy"].high
    by_class = {c: [right[i] for i in known if labels[i] == c] for c in range(3)}
    assert found["macro"].value == pytest.approx(np.mean([np.mean(hits) for hits in by_class.values()]))
    for c, name in enumerate(NAMES):
        assert found[f"accuracy@{name}"].value == pytest.approx(np.mean(by_class[c]))
        assert found[f"share@{name}"].value == pytest.approx(len(by_class[c]) / len(known))
        row = [found[f"accuracy@{name}"].value]
        row += [score.value for key, score in found.items() if key.startswith(f"predicted@{name}>")]
        assert sum(row) == pytest.approx(1)
    by_hidden = {z: [right[i] for i in known if hidden[i] == z] for z in range(4)}
    for z, name in enumerate(HIDDEN):
        assert found[f"accuracy@colour/{name}"].value == pytest.approx(np.mean(by_hidden[z]))
    worst = min((z for z in range(4) if len(by_hidden[z]) >= 5), key=lambda z: np.mean(by_hidden[z]))
    assert found["worst@colour"].value == pytest.approx(np.mean(by_hidden[worst]))
    assert HIDDEN[worst] in found["worst@colour"].note


def test_calibration_error_against_a_loop() -> None:
    probabilities, labels, _ = judged(1)
    total, known = 0.0, int((labels >= 0).sum())
    for b in range(15):
        inside = [i for i in range(60) if labels[i] >= 0 and min(int(float(probabilities[i].max()) * 15), 14) == b]
        if inside:
            confidence = np.mean([float(probabilities[i].max()) for i in inside])
            accuracy = np.mean([bool(probabilities[i].argmax() == labels[i]) for i in inside])
            total += len(inside) / known * abs(accuracy - confidence)
    assert calibration_error(probabilities, labels) == pytest.approx(total, abs=1e-6)
    assert calibration_error([[1.0, 0.0]], [0]) == 0
    assert calibration_error([[1.0, 0.0]], [1]) == 1
    with pytest.raises(UserError, match="bins"):
        calibration_error(probabilities, labels, bins=0)


def test_without_a_classifier_a_probe_is_fitted_on_the_training_split() -> None:
    labels = torch.arange(80) % 3
    generator = torch.Generator().manual_seed(0)
    vectors = torch.eye(3)[labels] + 0.05 * torch.randn(80, 3, generator=generator)
    setting = Task("kind", (*NAMES, "never seen"), labels, labels)
    found = superclass(Representation("model", vectors, vectors), setting)
    assert found["accuracy"].value == 1
    assert "logistic regression" in found["accuracy"].note
    with pytest.raises(UserError, match="kind"):
        superclass(Representation("model", vectors), Task("kind", NAMES, labels, None))


def test_a_run_is_judged_by_its_own_classifier_at_the_level_it_reads(tmp_path: Path) -> None:
    run = regrain.fit("sup-ce", "digits", encoder="conv4", settings=["epochs=3"], out=tmp_path / "run")
    evaluation = regrain.evaluate(run, protocols=["superclass"])
    assert {row.level for row in evaluation.rows} == {"group"}
    test = run.splits()["test"]
    predicted = run.predict_proba(test, "group").argmax(dim=1)
    accuracy = float((predicted == test.labels.level("group")).float().mean())
    assert evaluation.flat()["test/group/accuracy"] == pytest.approx(accuracy)
    assert evaluation.flat()["test/group/worst@digit"] <= accuracy
    digits = regrain.evaluate(run, protocols=["superclass"], levels=["digit"], baselines=False)
    assert any("logistic regression" in note for note in digits.notes)


def renamed(data: Dataset, names: dict[str, str], kept: list[int] | None = None) -> Dataset:
    """The data with classes of the level digit under other names; ``kept``: samples of these digits alone."""
    codes = data.labels.level("digit")
    if kept is not None:
        data = data.select(torch.isin(codes, torch.tensor(kept)))
        codes = data.labels.level("digit")
    own = [names.get(name, name) for name in np.array(data.labels.names("digit"))[codes].tolist()]
    return replace(data, labels=Labels.from_columns({"digit": own}))


def test_predictions_of_classes_that_the_data_lack_are_wrong(tmp_path: Path) -> None:
    run = regrain.fit(
        "multi-ce", "digits", encoder="conv4", settings=["epochs=2"], out=tmp_path / "run", levels=["digit"]
    )
    test = run.splits()["test"]
    codes = test.labels.level("digit")
    predicted = run.predict_proba(test, "digit").argmax(dim=1)
    two = torch.isin(codes, torch.tensor([3, 8]))
    asked = {"protocols": ["superclass", "multi-aspect"], "levels": ["digit"], "baselines": False, "write": False}

    def judged(data: Dataset) -> dict[str, float]:
        return regrain.evaluate(run, replace(data, splits=None), **asked).flat()

    found = judged(renamed(test, {}, [3, 8]))
    right = (predicted == codes)[two].double()
    assert found["test/digit/accuracy"] == pytest.approx(float(right.mean()))
    lacking = (~torch.isin(predicted[two & (codes == 3)], torch.tensor([3, 8]))).double().mean()
    assert found.get(f"test/digit/predicted@3>{LACKING}", 0.0) == pytest.approx(float(lacking))
    assert found["test/all/all-right"] == pytest.approx(float(right.mean()))
    eight = judged(renamed(test, {"8": "eight"}, [3, 8]))  # nobody predicts a class of that name
    assert eight["test/digit/accuracy"] == pytest.approx(float((right * (codes[two] == 3)).mean()))
    with pytest.raises(UserError, match="training"):  # the run knows none of them: a probe, which needs a split
        judged(renamed(test, {str(d): f"d{d}" for d in range(10)}))


def test_by_default_every_level_that_a_method_reads_is_judged(tmp_path: Path) -> None:
    run = regrain.fit("multi-ce", "digits", encoder="conv4", settings=["epochs=1"], out=tmp_path / "run")
    found = regrain.evaluate(run, protocols=["superclass"], baselines=False)
    assert {row.level for row in found.rows} == {"group", "digit"}
