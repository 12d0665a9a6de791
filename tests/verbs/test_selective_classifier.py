"""Answers at the most specific sure level: the rule against a naive one, calibration, ragged levels, whole runs."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support import raises
from torch import Tensor

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import RegrainWarning, UserError, in_python
from regrain.labels import Labels, Taxonomy
from regrain.metrics import confidence_error, guaranteed_threshold, root_threshold
from regrain.runs.calibration import fit_selective_classifier
from regrain.runs.selective import Counts, SelectiveClassifier, known_classes, taxonomy_of
from regrain.runs.selective_report import evaluate_answers, share_of_misses
from regrain.storage.files import Folder

pytestmark = pytest.mark.usefixtures("own_cache")

TREE = Taxonomy.from_paths(["a/x/1", "a/x/2", "a/y/3", "b/z/4", "b/z/5", "c"], ["top", "mid", "low"])
"""Three levels; class c has no children."""


def random_case(seed: int, count: int = 400) -> tuple[dict[str, Tensor], Tensor]:
    """Probabilities of every level, drawn apart, so that levels contradict each other; and labels with gaps."""
    generator = torch.Generator().manual_seed(seed)
    probabilities, truth = {}, []
    for level, names in zip(TREE.levels, TREE.classes, strict=True):
        values = (2.5 * torch.randn(count, len(names), generator=generator)).softmax(dim=1)
        probabilities[level] = values
        drawn = torch.multinomial(values, 1, generator=generator)[:, 0]
        hidden = torch.rand(count, generator=generator)
        truth.append(drawn.masked_fill(hidden < 0.2, -1).masked_fill(hidden > 0.97, -2))
    return probabilities, torch.stack(truth, dim=1)


def ancestor(level: int, code: int, above: int) -> int:
    """The class over one, step by step."""
    while level > above:
        parents = TREE.parents[level][code]
        level, code = level - 1, next(iter(parents))
    return code


def naive_path(probabilities: dict[str, Tensor], row: int) -> list[int]:
    """The path of the largest mean probability, -1 where it has no class."""
    found = []
    for level, names in enumerate(TREE.classes):
        for code in range(len(names)):
            if level < 2 and any(ancestor(level + 1, c, level) == code for c in range(len(TREE.classes[level + 1]))):
                continue
            path = [ancestor(level, code, above) for above in range(level + 1)]
            mean = np.mean([float(probabilities[TREE.levels[at]][row, c]) for at, c in enumerate(path)])
            found.append((mean, path + [-1] * (2 - level)))
    return max(found)[1]


def naive_masses(answers: SelectiveClassifier, probabilities: dict[str, Tensor], row: int) -> list[tuple[int, float]]:
    """The path, and what the thresholds see: nothing where there is no class, or another is surer there or above."""
    path = naive_path(probabilities, row)
    scales = [(1.0, 0.0)] * 3 if answers.keeps_promise else list(zip(answers.temperatures, answers.shifts, strict=True))

    def scaled(level: int, p: float) -> float:
        temperature, shift = scales[level]
        return float(1 / (1 + np.exp(-np.log(p / (1 - p)) / temperature - shift)))

    values = [[float(v) for v in probabilities[level][row].double()] for level in answers.levels]
    sure = [scaled(at, values[at][code]) if code >= 0 else -1.0 for at, code in enumerate(path)]
    sure = [max(sure[at:]) if path[at] >= 0 else -1.0 for at in range(3)]
    others = [scaled(at, max(v)) if code >= 0 and max(v) > v[code] else 0.0
              for at, (code, v) in enumerate(zip(path, values, strict=True))]  # fmt: skip
    return [(code, -1.0 if max(others[: at + 1]) > sure[at] else sure[at]) for at, code in enumerate(path)]


@pytest.mark.parametrize("confidence", [None, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_rule_is_that_of_a_naive_loop(seed: int, confidence: float | None) -> None:
    probabilities, _ = random_case(seed)
    answers = SelectiveClassifier(
        TREE.levels, (0.7, 1.0, 2.0), (0.1, 0.0, -0.2), (0.6, None, 0.7), 0.9, "", (0, 0, 0), (0, 0, 0), confidence
    )
    answered = answers.predict(probabilities, TREE)
    for row in range(400):
        found = naive_masses(answers, probabilities, row)
        expected = next((at for at in (2, 0) if found[at][1] >= (answers.thresholds[at] or 2)), -1)
        assert int(answered.level[row]) == expected
        path = [code for code, _ in found[: expected + 1]]
        assert answered.codes[row].tolist() == path + [-1] * (2 - expected)
        if confidence is None and expected >= 0:
            assert float(answered.confidence[row]) == pytest.approx(found[expected][1], abs=1e-6)
    assert {-1, 0, 2} == set(answered.level.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_are_the_smallest_above_a_half_that_reach_the_precision(seed: int) -> None:
    probabilities, truth = random_case(seed)
    answers = fit_selective_classifier(probabilities, truth, TREE, precision=0.8)
    codes, _, mass = answers.level_predictions(probabilities, TREE)
    left = set(range(400))
    for index in (2, 1, 0):
        rows = [row for row in left if truth[row, index] != -1 and not mass[row, index].isnan()]
        sure = {row: float(mass[row, index]) for row in rows}
        right = {row: bool(codes[row, index] == truth[row, index]) for row in rows}
        fit = [t for t in sure.values() if t >= 0.5 and np.mean([right[r] for r in rows if sure[r] >= t]) >= 0.8]
        threshold = min(fit, default=None)
        assert answers.thresholds[index] == threshold
        assert answers.support[index] == (0 if threshold is None else sum(s >= threshold for s in sure.values()))
        left = {row for row in left if threshold is None or not float(mass[row, index]) >= threshold}
    figures = evaluate_answers(answers, probabilities, truth, TREE, split="val")
    for level in figures.levels:
        assert level.precision is None or level.precision >= 0.8
    assert figures.precision is not None
    assert figures.precision >= 0.8
    assert figures.answered + figures.abstained == pytest.approx(1)
    assert figures.answered == pytest.approx(sum(level.answered for level in figures.levels))
    assert figures.levels[0].named == pytest.approx(figures.answered)
    assert figures.levels[2].named == figures.levels[2].answered
    assert sum(level.judged for level in figures.levels) == figures.judged
    below = torch.bincount(TREE.ancestors("low", "top"), minlength=3).clamp(min=1).double()
    says = {0: 1 - below.log() / np.log(6), 1: 1 - torch.tensor([2.0, 1.0, 2.0]).log() / np.log(6), 2: torch.ones(5)}
    answered = answers.predict(probabilities, TREE)
    told = [
        float(says[at][answered.codes[row, at]]) if at >= 0 else 0.0 for row, at in enumerate(answered.level.tolist())
    ]
    assert figures.information == pytest.approx(np.mean(told))


PAIRS = Taxonomy.from_edges([(f"c{i}", f"p{i // 2}") for i in range(6)], ["pair", "class"])


def drawn(count: int, seed: int, power: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
    """Leaf probabilities and their sums, too sure by a power, and labels drawn from the honest ones."""
    generator = torch.Generator().manual_seed(seed)
    honest = (3 * torch.randn(count, 6, generator=generator)).softmax(dim=1)
    fine = torch.multinomial(honest, 1, generator=generator)[:, 0]
    said = (honest**power / (honest**power).sum(dim=1, keepdim=True)).double()
    return {"pair": said.reshape(count, 3, 2).sum(dim=2), "class": said}, torch.stack([fine // 2, fine], dim=1)


def test_a_promise_is_kept_by_probabilities_and_one_threshold() -> None:
    seen, truth = drawn(1000, 0, 2.0)
    promised = fit_selective_classifier(seen, truth, PAIRS, precision=0.9, confidence=0.9)
    codes, _, mass = promised.level_predictions(seen, PAIRS)
    known = (codes == truth).long()
    assert promised.thresholds == (guaranteed_threshold(mass, known, precision=0.9),) * 2
    roots = fit_selective_classifier(seen, truth, PAIRS, precision=0.9, confidence=0.9, counts="roots")
    assert roots.thresholds == (root_threshold(mass, known, precision=0.9),) * 2
    in_the_mean = fit_selective_classifier(seen, truth, PAIRS, precision=0.9, counts="roots")
    assert in_the_mean.thresholds[0] == root_threshold(mass, known, precision=0.9, confidence=None)
    future, later = drawn(50_000, 1, 2.0)
    figures = evaluate_answers(promised, future, later, PAIRS, split="later")
    assert figures.precision is not None
    assert figures.precision >= 0.9
    aimed = fit_selective_classifier(seen, truth, PAIRS, precision=0.9)
    assert figures.information < evaluate_answers(aimed, future, later, PAIRS, split="later").information
    others = drawn(2000, 2, 2.0)
    kept, missed = (share_of_misses(c, (seen, truth), others, PAIRS) for c in (promised, aimed))
    assert kept <= 0.2 < missed
    assert share_of_misses(roots, (seen, truth), others, PAIRS) <= 0.2


def test_labels_known_only_above_the_answer_count_neither_way() -> None:
    seen, truth = drawn(600, 3)
    coarse = truth.clone()
    coarse[:300, 1] = -1
    found = fit_selective_classifier(seen, coarse, PAIRS, precision=0.85, confidence=0.8)
    at = found.predict(seen, PAIRS).level
    assert found.support[1] == int((at[300:] == 1).sum())
    assert found.support[0] == int((at == 0).sum())


@pytest.mark.parametrize("counts", ["answers", "roots"])
def test_what_the_samples_cannot_show_is_refused_with_what_they_can(counts: Counts) -> None:
    seen, truth = drawn(20, 0)
    asked = partial(fit_selective_classifier, taxonomy=PAIRS, counts=counts)
    with pytest.warns(RegrainWarning), raises("too_few", "needs 22 labelled samples, all right; there are 20") as few:
        asked(seen, truth, precision=0.9, confidence=0.9)
    assert "precision=0.891 with confidence=0.9, or 0.9 with 0.878" in in_python(str(few.value))
    many, labels = drawn(300, 0)
    if counts == "answers":
        with raises("too_few", "0.99 of the answers are right with confidence 0.9: --precision 0.[89]"):
            asked(many, torch.where(torch.arange(300)[:, None] % 20 == 0, -2, labels), precision=0.99, confidence=0.9)
        with raises("too_few", "they show no such share at all"):
            asked(many, torch.full((300, 2), -2), precision=0.9, confidence=0.9)
    with raises("out_of_range"):
        asked(many, labels, precision=1.0, confidence=0.9)
    with raises("out_of_range"):
        asked(many, labels, precision=0.9, confidence=1.0)


def test_a_level_that_no_threshold_helps_is_never_answered() -> None:
    one = Taxonomy.from_codes(torch.empty(0, 1), ["kind"], [["a", "b"]])
    sure = torch.linspace(0.5, 0.99, 100)
    probabilities = {"kind": torch.stack([sure, 1 - sure], dim=1)}
    answers = fit_selective_classifier(probabilities, torch.ones(100, 1, dtype=torch.long), one)
    assert answers.thresholds == (None,)
    answered = answers.predict(probabilities, one)
    assert set(answered.level.tolist()) == {-1}
    assert torch.equal(answered.confidence, answers.level_predictions(probabilities, one)[1][:, 0])
    figures = evaluate_answers(answers, probabilities, torch.ones(100, 1, dtype=torch.long), one, split="val")
    assert (figures.answered, figures.precision, figures.calibration_error) == (0, None, None)


def test_a_coarse_level_counts_all_samples_where_the_finer_ones_answer_all() -> None:
    probabilities = {
        level: torch.eye(len(names))[[0] * 60] for level, names in zip(TREE.levels, TREE.classes, strict=True)
    }
    answers = fit_selective_classifier(probabilities, torch.zeros(60, 3, dtype=torch.long), TREE)
    assert None not in answers.thresholds
    assert answers.support == (60, 60, 60)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_over_and_underconfident_probabilities_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    true = 3 * torch.rand(50_000, generator=generator)  # logits of being right
    wrong = torch.rand(50_000, generator=generator) > true.sigmoid()
    said = (true * temperature).sigmoid()
    probabilities = {"kind": torch.stack([said, 1 - said], dim=1)}
    one = Taxonomy.from_codes(torch.empty(0, 1), ["kind"], [["a", "b"]])
    answers = fit_selective_classifier(probabilities, wrong.long()[:, None], one)
    assert answers.temperatures[0] == pytest.approx(temperature, rel=0.05)
    assert answers.shifts[0] == pytest.approx(0, abs=0.05)
    figures = evaluate_answers(answers, probabilities, wrong.long()[:, None], one, split="val")
    assert figures.levels[0].calibration_error is not None
    assert figures.levels[0].calibration_error < 0.02


@pytest.mark.parametrize(("low", "high", "right"), [(0.1, 0.45, 0.9), (0.55, 0.95, 0.35)])
def test_confidences_cross_one_half_where_they_must(low: float, high: float, right: float) -> None:
    """Of many classes the best one may be below one half and mostly right, or above it and mostly wrong."""
    generator = torch.Generator().manual_seed(0)
    classes, count = 80, 5000
    best = low + (high - low) * torch.rand(count, generator=generator)
    said = ((1 - best) / (classes - 1))[:, None].repeat(1, classes)
    said[:, 0] = best
    truth = (torch.rand(count, generator=generator) > right).long()[:, None]
    one = Taxonomy.from_codes(torch.empty(0, 1), ["kind"], [[str(c) for c in range(classes)]])
    for part in (slice(0, None, 2), slice(1, None, 2)):  # fitted on one half, judged on the other too
        if part.start == 0:
            answers = fit_selective_classifier({"kind": said[part]}, truth[part], one)
        judged = evaluate_answers(answers, {"kind": said[part]}, truth[part], one, split="val").levels[0]
        assert judged.calibration_error is not None
        assert judged.calibration_error < 0.05
        assert (float(answers.level_predictions({"kind": said[part]}, one)[1].mean()) > 0.5) == (right > 0.5)


def test_a_level_without_errors_keeps_its_order_and_a_useless_one_is_said() -> None:
    one = Taxonomy.from_codes(torch.empty(0, 1), ["kind"], [["a", "b", "c"]])
    best = torch.linspace(0.34, 0.999, 60)
    said = {"kind": torch.stack([best, (1 - best) / 2, (1 - best) / 2], dim=1)}
    answers = fit_selective_classifier(said, torch.zeros(60, 1, dtype=torch.long), one)
    assert answers.shifts == (0.0,)
    confidence = answers.level_predictions(said, one)[1][:, 0]
    assert (float(confidence[0]) < 0.5, float(confidence[-1]) > 0.95) == (True, True)
    assert answers.notes() == []
    upside_down = fit_selective_classifier(said, (best > 0.7).long()[:, None], one)
    assert "what the run is surer of is not right more often" in " ".join(upside_down.notes())


def test_few_samples_give_no_certainty_and_are_warned_of() -> None:
    one = Taxonomy.from_codes(torch.empty(0, 1), ["kind"], [["a", "b"]])
    probabilities = {"kind": torch.tensor([[0.999999, 0.000001]] * 5)}
    with pytest.warns(RegrainWarning, match="5 samples are labelled at level 'kind'"):
        answers = fit_selective_classifier(probabilities, torch.zeros(5, 1, dtype=torch.long), one)
    assert float(answers.predict(probabilities, one).confidence[0]) == pytest.approx(6 / 7, abs=0.01)
    with pytest.raises(UserError, match="none of the 5 samples has a label of kind"):
        fit_selective_classifier(probabilities, torch.full((5, 1), -1), one)
    with pytest.raises(UserError, match="above 0 and at most 1; got 95"):
        fit_selective_classifier(probabilities, torch.zeros(5, 1, dtype=torch.long), one, precision=95)


def test_a_class_without_children_is_answered_at_its_own_level() -> None:
    leaf = TREE.classes[0].index("c")
    top = torch.tensor([[0.02, 0.01, 0.97]]).repeat(100, 1)
    rest = {level: torch.full((100, len(TREE.classes[i + 1])), 0.01) for i, level in enumerate(TREE.levels[1:])}
    probabilities = {"top": top} | rest
    own = Labels(torch.empty(0, 3, dtype=torch.long), TREE.levels, TREE.classes, TREE)
    truth = known_classes(Labels.from_columns({"top": ["c"] * 100}), own)
    assert truth.unique(dim=0).tolist() == [[leaf, -2, -2]]
    answers = fit_selective_classifier(probabilities, truth, TREE)
    assert answers.thresholds[1:] == (None, None)  # nothing that could be said there would be right
    answered = answers.predict(probabilities, TREE)
    assert answered.level.unique().tolist() == [0]
    assert answered.codes.unique(dim=0).tolist() == [[leaf, -1, -1]]


def test_answers_are_kept_as_json(tmp_path: Path) -> None:
    probabilities, truth = random_case(0)
    answers = fit_selective_classifier(probabilities, truth, TREE, precision=0.99, calibrated_on="val of x")
    answers.save(Folder(tmp_path))
    own = Labels(torch.empty(0, 3, dtype=torch.long), TREE.levels, TREE.classes, TREE)
    assert SelectiveClassifier.load(Folder(tmp_path), own) == answers
    content = json.loads((tmp_path / "answers.json").read_text())
    (tmp_path / "answers.json").write_text(json.dumps(content | {"schema": 99}))
    with pytest.raises(UserError, match="schema 99"):
        SelectiveClassifier.load(Folder(tmp_path, verify=False), own)
    with pytest.raises(UserError, match=r"answers\.json is damaged"):
        SelectiveClassifier.load(Folder(tmp_path), own)
    del content["shifts"]
    (tmp_path / "answers.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="shifts: Field required"):
        SelectiveClassifier.load(Folder(tmp_path, verify=False), own)
    answers.save(Folder(tmp_path))
    with pytest.raises(UserError, match="is not of this run's levels"):
        SelectiveClassifier.load(Folder(tmp_path), own.keep(own.levels[:1]))
    (tmp_path / "answers.json").unlink()
    with pytest.raises(UserError, match=r"answers\.json is missing, and manifest\.json lists it"):
        SelectiveClassifier.load(Folder(tmp_path), own)
    assert SelectiveClassifier.load(Folder(tmp_path / "nowhere"), own) is None


def overconfident(count: int, classes: int, power: float, seed: int) -> tuple[Tensor, Tensor]:
    """Probabilities that are too sure by a power, and classes drawn from the honest ones."""
    generator = torch.Generator().manual_seed(seed)
    honest = (1.5 * torch.randn(count, classes, generator=generator)).softmax(dim=1)
    truth = torch.multinomial(honest, 1, generator=generator)[:, 0]
    return (honest**power / (honest**power).sum(dim=1, keepdim=True)), truth


def test_aspects_are_calibrated_one_by_one() -> None:
    aspects = Labels.from_columns({"rooms": ["1", "2"], "place": ["n", "s"]}, relation="aspects")
    assert taxonomy_of(aspects) is None
    alone = taxonomy_of(aspects.keep(["place"]))
    assert alone is not None
    assert alone.levels == ("place",)

    parts = {"rooms": overconfident(2000, 2, 3.0, 0), "place": overconfident(2000, 3, 1.0, 1)}
    probabilities = {name: found for name, (found, _) in parts.items()}
    truth = torch.stack([found for _, found in parts.values()], dim=1)
    truth[::5, 1] = -1
    half, rest = slice(1000), slice(1000, None)
    answers = fit_selective_classifier({n: p[half] for n, p in probabilities.items()}, truth[half], None, precision=0.9)
    assert not answers.nested
    assert answers.temperatures[0] > 2
    assert answers.temperatures[1] == pytest.approx(1, rel=0.2)
    judged = evaluate_answers(answers, {n: p[rest] for n, p in probabilities.items()}, truth[rest], None, split="rest")
    raw = [confidence_error(p[rest].max(dim=1).values[known], (p[rest].argmax(dim=1) == t)[known]) for p, t, known in
           ((probabilities[n], truth[rest, i], truth[rest, i] >= 0) for i, n in enumerate(probabilities))]  # fmt: skip
    assert raw[0] > 0.1
    assert all(figures.calibration_error < 0.04 for figures in judged.levels)
    assert all(figures.precision > 0.86 for figures in judged.levels)
    assert judged.judged == sum(figures.judged for figures in judged.levels)
    for index, name in enumerate(probabilities):
        single = Taxonomy.from_codes(truth[:0, :1], [name], [["a", "b", "c"][: probabilities[name].shape[1]]])
        own = fit_selective_classifier(
            {name: probabilities[name][half]}, truth[half][:, [index]], single, precision=0.9
        )
        assert own == replace(answers.of_aspect(index), calibrated_on="")


def test_a_run_of_aspects_is_calibrated_and_answers_each(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    signs = random.integers(0, 2, size=(300, 2))
    x = random.normal(size=(300, 4)) + np.repeat(1.2 * signs, 2, axis=1)
    table = pd.DataFrame(x, columns=list("abcd")).assign(
        service=[f"s{v}" for v in signs[:, 0]], price=[f"p{v}" for v in signs[:, 1]],
        split=["train"] * 100 + ["val"] * 100 + ["test"] * 100)  # fmt: skip
    table.loc[100:120, "price"] = None
    reader = {"levels": ["service", "price"], "relation": "aspects", "columns": list("abcd")}
    run = regrain.fit("multi-ce", table, out=tmp_path / "run", epochs=5, device="cpu", **reader)
    made = regrain.calibrate(run, precision=0.9, judge="test")
    assert made.to_frame()[["split", "level"]].drop_duplicates().shape[0] == 2 * len(made.figures.levels)
    assert [figures.samples for figures in made.figures.levels] == [100, 79]
    found = regrain.predict(regrain.Run.open(run.path, device="cpu"), table, split="test")
    assert {"service_answer", "service_answer_probability", "price_answer"} <= set(found.columns)
    assert "answer" not in found
    sure = found["price_answer"].notna()
    assert made.judged is not None
    assert sure.mean() == pytest.approx(made.judged.levels[1].answered)
    assert (found["price_answer"][sure] == found["price"][sure]).all()


def test_confidence_error_has_nothing_to_hide() -> None:
    assert confidence_error([0.5, 0.5, 1.0], [True, False, True]) == 0
    for wrong, expected in (
        (([0.5], [True, False]), "one entry a sample; got 1 and 2"),
        (([], []), "one entry a sample; got 0 and 0"),
    ):
        with pytest.raises(UserError, match=expected):
            confidence_error(*wrong)
    with pytest.raises(UserError, match="bins is at least 1"):
        confidence_error([0.5], [True], bins=0)


def vectors(count: int = 400, seed: int = 0) -> Dataset:
    """Four subclasses of two classes, the subclasses of the second hard to tell, and a class without any."""
    generator = np.random.default_rng(seed)
    fine = np.arange(count) % 5
    centres = np.array([[4, 0, 0], [0, 4, 0], [-4, 0.2, 0], [-4, -0.2, 0], [0, 0, 5]])
    x = (centres[fine] + generator.normal(size=(count, 3))).astype(np.float32)
    paths = [("k0/s0", "k0/s1", "k1/s2", "k1/s3", "k2")[f] for f in fine]
    splits = np.array(["train", "train", "val", "test"])[np.arange(count) // 5 % 4]
    ids = np.array([f"r{i}" for i in range(count)])
    return Dataset(
        TensorSamples(torch.from_numpy(x), "vector"), Labels.from_paths(paths, ["kind", "sub"]), ids, "vectors", splits
    )


def test_a_run_of_ragged_levels_falls_back_to_the_parent(tmp_path: Path) -> None:
    data = vectors()
    settings = ["epochs=4", "batch_size=32"]
    run = regrain.fit("mixed", data, out=tmp_path / "run", settings=settings, device="cpu")
    made = regrain.calibrate(run, precision=0.9, judge="test")
    kind, sub = made.figures.levels
    assert made.answers.calibrated_on == f"val of {run.path.name}"
    assert made.answers.samples == (100, 100)
    assert min(kind.precision or 1, sub.precision or 0) >= 0.9
    assert made.judged is not None
    assert made.judged.precision is not None
    assert made.judged.precision > 0.8
    assert json.loads((run.path / "answers.json").read_text())["answers"]["precision"] == 0.9
    columns = regrain.predict(regrain.Run.open(run.path, device="cpu"), data, tmp_path / "p.parquet", split="test")
    written = pd.read_parquet(tmp_path / "p.parquet")
    assert list(written)[-3:] == ["answer", "answer_level", "answer_probability"]
    level = np.array(columns["answer_level"], dtype=object)
    fine = np.arange(400)[data.splits == "test"] % 5
    assert np.mean(level[fine < 2] == "sub") > 0.8
    assert np.mean(level[(fine == 2) | (fine == 3)] == "kind") > 0.5
    assert np.mean(level[fine == 4] == "kind") > 0.8
    assert set(written["answer"][fine == 4][level[fine == 4] == "kind"]) == {"k2"}
    assert (level == "sub").mean() == pytest.approx(made.judged.levels[1].answered, abs=0.021)


def test_levels_that_contradict_each_other_and_methods_of_one_level(tmp_path: Path) -> None:
    data = vectors()
    settings = ["epochs=2", "batch_size=32"]
    several = regrain.fit("multi-ce", data, out=tmp_path / "multi", settings=settings, device="cpu")
    regrain.calibrate(several, precision=0.9)
    assert several.selective is not None
    assert several.selective.levels == ("kind", "sub")
    one = regrain.fit("sup-ce", data, out=tmp_path / "one", settings=settings, device="cpu")
    table = pd.DataFrame({"x": [4.0, 0.0], "y": [0.0, 4.0], "z": [0.0, 0.0], "kind": ["k0", "strange"]})
    with pytest.warns(RegrainWarning, match="2 samples are labelled at level 'kind'"):
        made = regrain.calibrate(one, table, columns=["x", "y", "z"], judge="test")
    assert made.figures.levels[0].samples == 2
    assert (made.figures.levels[0].accuracy or 0) <= 0.5  # a class that the run does not know is wrong
    assert any("all 2 samples" in note for note in made.notes)
    assert made.judged is not None
    assert made.judged.samples == 100
    support = pd.DataFrame({"id": ["r0", "r1", "r2", "r3"], "mine": ["a", "a", "b", "b"]})
    adapted = regrain.adapt(one, support, tmp_path / "adapted")
    assert adapted.selective is None
    with pytest.raises(UserError, match="calibrate the run it came from"):
        regrain.calibrate(adapted, data)
    embeds = regrain.fit("selfcon", data, out=tmp_path / "embeds", settings=["epochs=1"], device="cpu")
    with pytest.raises(UserError, match="has no classifier whose probabilities"):
        regrain.calibrate(embeds)


def test_mixed_labels_of_digits(tmp_path: Path) -> None:
    hidden = {"group": 0.35, "digit": 0.95}
    run = regrain.fit(
        "mixed", "digits", encoder="conv4", out=tmp_path / "r", settings=["epochs=2"], hide_labels=hidden, device="cpu"
    )
    with pytest.raises(UserError, match=r"has no split 'val' \(there are train, test\): give such samples as data="):
        regrain.calibrate(run)
    with pytest.raises(UserError, match="training has seen the split 'train'"):
        regrain.calibrate(run, split="train")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RegrainWarning)
        made = regrain.calibrate(run, split="test", precision=0.97)
    assert any("flatters" in note for note in made.notes)
    group, digit = made.figures.levels
    for figures in (group, digit):
        assert figures.precision is None or figures.precision >= 0.97
    assert group.named >= digit.answered > 0.3
    assert group.named_precision is not None
    assert group.named_precision >= 0.97
    columns = regrain.predict(run, "digits", tmp_path / "p.csv", split="test")
    assert np.mean([level == "digit" for level in columns["answer_level"]]) == pytest.approx(digit.answered, abs=0.01)
    with pytest.raises(UserError, match="not judged on what they were calibrated on"):
        regrain.calibrate(run, split="test", judge="test")
