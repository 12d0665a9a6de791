"""FALCON: hidden classes and their relations are recovered, also under two groupings that contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import Command, raises, weights
from torch import Tensor
from torch.nn import functional

import regrain
from regrain.data.dataset import Batch
from regrain.encoders import build_encoder
from regrain.methods.clustering import cluster_within
from regrain.methods.falcon import FALCON
from regrain.methods.neighbourhood import Neighbourhood
from regrain.metrics import clustering_metrics

WIDTH, HIDDEN, COUNT = 16, 12, 600
BY_THREE, BY_FOUR = torch.arange(HIDDEN) % 3, torch.arange(HIDDEN) // 3
"""Two groupings of the hidden classes: every class of one holds some of every class of the other."""


def mixture(shares: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Unit vectors around twelve directions, and which it is."""
    generator = torch.Generator().manual_seed(1)
    means = functional.normalize(torch.randn(HIDDEN, WIDTH, generator=generator), dim=1)
    hidden = torch.arange(COUNT) % HIDDEN
    if shares is not None:
        hidden = torch.multinomial(shares, COUNT, replacement=True, generator=generator)
    x = means[hidden] + 0.1 * torch.randn(COUNT, WIDTH, generator=generator)
    return functional.normalize(x, dim=1), hidden


def build(*classes: int, **settings: Any) -> FALCON:
    torch.manual_seed(0)
    encoder = build_encoder("identity", modality="vector", sample_shape=(WIDTH,), seed=0)
    return FALCON(encoder, classes, **settings)


def train(method: FALCON, x: Tensor, labels: Tensor, *, epochs: int = 15, rate: float = 0.5) -> None:
    ids = 1000 + torch.arange(len(x))
    optimizer = torch.optim.SGD(method.parameters(), lr=rate, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        method.before_epoch(lambda: [(x, labels, ids)])
        for rows in torch.randperm(len(x), generator=generator).split(100):
            optimizer.zero_grad()
            method.losses(Batch((x[rows], x[rows]), labels[rows], ids[rows]))["loss"].backward()
            optimizer.step()
            method.after_step()


def found(method: FALCON, x: Tensor) -> Tensor:
    with torch.no_grad():
        return method.subclass_proba(x).argmax(dim=1)


def agreement(truth: Tensor, codes: Tensor) -> float:
    return clustering_metrics(truth, codes)["ari"]


def wrong_relations(method: FALCON, codes: Tensor, hidden: Tensor, *groupings: Tensor) -> int:
    """Hidden classes that are related to another class than most of their samples are of."""
    wrong = 0
    for related, grouping in zip(method.relations.split(method.classes, dim=1), groupings, strict=True):
        for z in codes.unique().tolist():
            wrong += int(related[z].int().argmax() != grouping[hidden[codes == z]].mode().values)
    return wrong


@pytest.mark.parametrize(
    "settings", [{}, {"initial_means": "random", "size_weight": 0.1}, {"balanced": False}, {"relations_period": 1}]
)
def test_hidden_classes_and_their_relations_are_recovered(settings: dict[str, Any]) -> None:
    x, hidden = mixture()
    coarse = BY_THREE[hidden]
    method = build(3, subclasses=HIDDEN, **settings)
    train(method, x, coarse[:, None], epochs=60 if "initial_means" in settings else 15)
    codes = found(method, x)
    assert agreement(hidden, codes) > (0.8 if "initial_means" in settings else 0.95)
    assert wrong_relations(method, codes, hidden, BY_THREE) == 0
    with torch.no_grad():
        p, given, upper = method.subclass_proba(x), method.subclass_proba(x, coarse), method.class_proba(x)["coarse"]
    torch.testing.assert_close(p @ method.relations.float(), upper)
    assert (upper.argmax(dim=1) == coarse).float().mean() > 0.97
    assert method.relations[given.argmax(dim=1), coarse].all()


@pytest.mark.parametrize("known", ["both", "one each"])
def test_groupings_that_contradict_each_other_find_the_classes_together(known: str) -> None:
    x, hidden = mixture()
    labels = torch.stack([BY_THREE[hidden], BY_FOUR[hidden]], dim=1)
    if known == "one each":
        first = torch.arange(COUNT) % 24 < 12
        labels[first, 1] = -1
        labels[~first, 0] = -1
    method = build(3, 4, subclasses=HIDDEN)
    train(method, x, labels)
    codes = found(method, x)
    assert agreement(hidden, codes) > 0.95
    assert wrong_relations(method, codes, hidden, BY_THREE, BY_FOUR) == 0
    with torch.no_grad():
        assert [p.shape[1] for p in method.class_proba(x).values()] == [3, 4]
        assert list(method.class_proba(x)) == ["coarse", "coarse2"]


def test_unequal_classes_keep_their_sizes_where_that_is_asked_for() -> None:
    x, hidden = mixture(torch.tensor([8.0, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1]))
    method = build(3, subclasses=HIDDEN, class_sizes="start")
    train(method, x, BY_THREE[hidden][:, None])
    assert agreement(hidden, found(method, x)) > 0.9
    assert float(method.shares.max()) > 4 * float(method.shares.min())
    equal = build(3, subclasses=HIDDEN)
    equal.before_epoch(lambda: [(x, BY_THREE[hidden][:, None], torch.arange(COUNT))])
    torch.testing.assert_close(equal.shares, torch.full((HIDDEN,), 1 / HIDDEN))


def test_the_silhouette_chooses_the_number_of_classes() -> None:
    x, hidden = mixture()
    method = build(3, largest=7)
    train(method, x, BY_THREE[hidden][:, None], epochs=5)
    assert int(method.relations.any(dim=1).sum()) == HIDDEN
    assert method.relations.sum(dim=0).tolist() == [4, 4, 4]
    codes = found(method, x)
    assert agreement(hidden, codes) > 0.95
    assert method.relations[codes].any(dim=1).all()  # no sample is in a place without a class


def test_what_a_sample_may_be() -> None:
    method = build(2, 2, subclasses=4)
    method.relations.copy_(torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1]]).bool())
    labels = torch.tensor([[0, 0], [0, -1], [-1, 1], [-1, -1], [1, 0]])
    assert method.allowed(labels).int().tolist() == [
        [1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1],
        [1, 0, 1, 1],  # no class is under both: those under either
    ]  # fmt: skip


def test_relations_of_a_coarse_class_that_was_not_met_stay() -> None:
    method = build(3, subclasses=4)
    before = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]).bool()
    together = torch.tensor([[0.1, 0.9, 0], [0.8, 0.2, 0], [0.5, 0.1, 0], [0.2, 0.9, 0]])
    after = method._related_by(together, before, balance=0.0)
    assert after.int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_targets_harden_and_the_average_warms_up() -> None:
    x, hidden = mixture()
    method = build(3, subclasses=HIDDEN, soft_epochs=4)
    seen = []
    for _ in range(6):
        method.before_epoch(lambda: [(x, BY_THREE[hidden][:, None], torch.arange(COUNT))])
        seen.append(method.hardness)
    assert seen == pytest.approx([(1 - np.cos(np.pi * min(e, 4) / 4)) / 2 for e in range(6)])
    assert build(3, subclasses=HIDDEN, soft_epochs=0).hardness == 1
    for step in range(1, 4):
        method.after_step()
        assert method.twin.momentum == (1 + step) / (10 + step)


def test_neighbours_are_of_the_own_group() -> None:
    features = torch.tensor([[1.0, 0], [0.9, 0.1], [0.99, 0.01], [0, 1.0], [0.1, 0.9], [0.95, 0.05], [0.5, 0.5]])
    groups = torch.tensor([0, 0, 1, 1, 1, -1, 2])
    mined = Neighbourhood(3, seed=0)
    mined.take(torch.arange(7), features, groups)
    for row in range(5):
        nearest = mined.neighbours[row]
        assert row not in nearest.tolist()
        assert (groups[nearest] == groups[row]).all()
    assert mined.neighbours[0].tolist() == [1, 1, 1]  # the only other one, again and again
    assert 5 not in mined.neighbours[5].tolist()
    assert mined.neighbours[6].tolist() == [6, 6, 6]
    drawn = mined.draw_several(torch.tensor([2, 0]), 5)
    assert drawn.shape == (2, 5, 2)
    assert torch.equal(drawn[1], features[1].expand(5, 2))
    assert torch.equal(drawn[:, 0], mined.draw(torch.tensor([2, 0])))


def test_equal_sizes_are_chosen_where_they_cost_little() -> None:
    x, hidden = mixture()
    kept = hidden < 4
    x, hidden = x[kept], hidden[kept]
    coarse = torch.zeros(len(x), dtype=torch.long)
    equal = cluster_within(x, coarse, total=4, balanced=True)
    assert torch.equal(cluster_within(x, coarse, total=4, balanced=None).codes, equal.codes)
    tail = torch.cat([(hidden == z).nonzero()[: 48 // 2**z, 0] for z in range(4)])
    plain = cluster_within(x[tail], coarse[tail], total=4)
    assert sorted(torch.bincount(plain.codes).tolist()) == [6, 12, 24, 48]
    assert torch.equal(cluster_within(x[tail], coarse[tail], total=4, balanced=None).codes, plain.codes)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with raises("out_of_range", match="fewer than the 4 coarse classes"):
        build(3, 4, subclasses=3)
    with raises("conflicting_options", match="largest lets the silhouette"):
        build(3, subclasses=12, largest=5)
    with raises("conflicting_options"):
        build(3, largest=5, initial_means="random")


def plants(shuffled: bool = False) -> pd.DataFrame:
    x, hidden = mixture()
    table = pd.DataFrame(x.numpy(), columns=[f"x{i}" for i in range(WIDTH)])
    table["family"] = ["f" + str(int(c)) for c in BY_THREE[hidden]]
    table["habitat"] = ["h" + str(int(c)) for c in BY_FOUR[hidden]]
    table["species"] = ["s" + str(int(c)) for c in (hidden.flip(0) if shuffled else hidden)]
    return table


QUICK: dict[str, Any] = {"columns": ["x*"], "relation": "aspects", "epochs": 2, "encoder": "identity", "device": "cpu"}


def test_several_coarse_levels_of_a_table(tmp_path: Path) -> None:
    runs = [
        regrain.fit(
            "falcon", plants(shuffled), levels=["family", "habitat", "species"], coarse=["family", "habitat"],
            fine="species", subclasses=HIDDEN, out=tmp_path / str(shuffled), **QUICK,
        )
        for shuffled in (False, True)
    ]  # fmt: skip
    one, other = map(weights, runs)
    assert all(torch.equal(one[name], other[name]) for name in one)  # the species are never seen
    run = runs[0]
    assert run.recipe["data"]["roles"] == {"coarse": "family", "coarse2": "habitat"}
    assert "s7" not in (run.folder.model_folder / "config.json").read_text()
    predicted = run.predict(plants())
    assert (predicted["family"] == plants()["family"]).mean() > 0.9
    assert (predicted["habitat"] == plants()["habitat"]).mean() > 0.9
    discovered = regrain.discover(run)
    assert discovered.level == "family"
    assert discovered.figures["test/species/acc"] > 0.9
    again = regrain.fit("falcon", plants(), recipe=run.path / "recipe.yaml", out=tmp_path / "again", device="cpu")
    assert again.recipe["data"]["roles"] == run.recipe["data"]["roles"]
    narrowed = regrain.fit("falcon", plants(), recipe=run.path / "recipe.yaml", coarse="habitat",
                           out=tmp_path / "narrowed", device="cpu")  # fmt: skip
    assert narrowed.recipe["data"]["roles"] == {"coarse": "habitat"}


def test_other_methods_read_one_coarse_level(tmp_path: Path, regrain: Command) -> None:
    plants().to_csv(tmp_path / "plants.csv")
    reading = ("plants.csv", "--columns", "x*", "--relation", "aspects", "-l", "family", "-l", "habitat")
    status, _, err = regrain("fit", "scgm", *reading, "--coarse", "family", "--coarse", "habitat")
    assert status == 2
    assert "scgm reads one coarse level; got --coarse family --coarse habitat: falcon reads several" in err
    status, _, err = regrain("fit", "falcon", *reading, "--coarse", "family", "--coarse", "family")
    assert status == 2
    assert "--coarse family is given twice" in err
