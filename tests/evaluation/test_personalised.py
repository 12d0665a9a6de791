"""Protocol ``personalised`` against a naive loop, who is left out, and what is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.linear_model import LogisticRegression

from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.evaluation import Representation, Task, evaluate_model
from regrain.evaluation.personalised import personalised
from regrain.model import Model
from regrain.papers.datasets import dialysis_records


def subjects(count: int = 6, records: int = 20) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Embeddings whose classes lie elsewhere for every subject; rows of the subjects are interleaved."""
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(count * records) % count
    labels = torch.randint(0, 3, (count * records,), generator=generator)
    centres = torch.randn(count, 3, 8, generator=generator)
    embeddings = centres[owner, labels] + 0.8 * torch.randn(count * records, 8, generator=generator)
    return embeddings, labels, np.array([f"s{o}" for o in owner.tolist()])


def setting(labels: torch.Tensor, groups: np.ndarray | None) -> Task:
    return Task("fine", ("a", "b", "c"), labels, None, groups=groups)


def test_against_a_naive_loop_with_unknown_labels() -> None:
    embeddings, labels, groups = subjects()
    labels[::7] = -1
    at = setting(labels, groups)
    score = personalised(Representation("model", embeddings), at)["personalised"]
    accuracies = []
    for subject in sorted(set(groups)):
        rows = [i for i in range(len(labels)) if groups[i] == subject and labels[i] >= 0]
        first, rest = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        unit = [(embeddings[i] / embeddings[i].norm()).numpy() for i in range(len(labels))]
        if not {int(labels[i]) for i in rest} <= {int(labels[i]) for i in first}:
            continue
        fitted = LogisticRegression(C=1.0, max_iter=1000).fit([unit[i] for i in first], [int(labels[i]) for i in first])
        predicted = fitted.predict([unit[i] for i in rest])
        accuracies.append(np.mean([p == int(labels[i]) for p, i in zip(predicted, rest, strict=True)]))
    assert score.value == pytest.approx(np.mean(accuracies))
    mean = np.mean(accuracies)
    scale = stats.sem(accuracies) / (mean * (1 - mean))
    low, high = special.expit(stats.t.interval(0.95, len(accuracies) - 1, special.logit(mean), scale))
    assert (score.low, score.high) == (pytest.approx(low), pytest.approx(high))
    assert score.over == "subjects"
    assert score.value > 0.6  # each subject has its own centres: one classifier for all could not


def test_who_is_left_out_is_counted() -> None:
    embeddings = torch.randn(18, 4, generator=torch.Generator().manual_seed(0))
    groups = np.array(["both"] * 4 + ["one class"] * 4 + ["news"] * 4 + ["single"] + ["pair"] * 4 + ["no label"])
    labels = torch.tensor([0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 2, 0, 0, 1, 0, 0, 1, -1])
    at = setting(labels, groups)
    note = personalised(Representation("model", embeddings), at)["personalised"].note
    assert note == (
        "2 of 5 subjects; left out: 1 with fewer than two labelled samples, 1 with one class in the support, 1 with "
        "query classes not in the support. Always a subject's most frequent class of the support: 50.00"
    )
    alone = setting(labels[:4], groups[:4])
    score = personalised(Representation("model", embeddings[:4]), alone)["personalised"]
    assert score.low is None  # one subject has no interval
    with pytest.raises(UserError, match="can judge none of the 1 subjects: 1 with one class in the support"):
        personalised(Representation("model", embeddings[4:8]), setting(labels[4:8], groups[4:8]))
    with pytest.raises(UserError, match=r"the data have no groups: name the column of subjects \(--group-column\)"):
        personalised(Representation("model", embeddings), setting(labels, None))


def test_it_runs_when_asked_for_and_tells_once() -> None:
    data = dialysis_records(subjects=8, sessions=30)
    encoder = build_encoder("mlp", modality="series", sample_shape=(5, 40), static_width=28, seed=0)
    model = Model.build("simclr", {}, [], encoder, {"modality": "series", "shape": [5, 40], "static": 28})
    test, train = data.split("test"), data.split("train")
    plain = evaluate_model(model, test, train, levels=["event"], baselines=False)
    assert not [key for key in plain.flat() if "personalised" in key]
    asked = evaluate_model(model, test, train, protocols=["personalised"])
    assert {key.split("/")[1] for key in asked.flat()} == {"event", "subtype"}
    told = [note for note in asked.notes if note.startswith("personalised at level 'event'")]
    assert len(told) == 1  # although model, raw inputs and random weights were judged
