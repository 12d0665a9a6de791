"""The estimated number of classes, and pictures of discovered ones, read back pixel by pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import silhouette_score
from torch import Tensor

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.model import Model
from regrain.runs.class_count import class_count_of, coding_length, estimate_class_count, merge_by_coding_length
from regrain.runs.discovery import Discovery, Subclass
from regrain.runs.grids import write_grids

# How many classes


def blobs(classes: int, each: int = 40, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(classes).repeat_interleave(each)
    centres = torch.nn.functional.normalize(torch.randn(classes, 16, generator=generator), dim=1)
    return centres[truth] + noise / 4 * torch.randn(len(truth), 16, generator=generator), truth


@pytest.mark.parametrize("classes", [2, 5, 12, 26])
def test_compact_classes_are_counted(classes: int) -> None:
    x, truth = blobs(classes)
    codes = 5 * truth + torch.arange(len(truth)) % 4  # four clusters of each class, and numbers that no sample has
    found = estimate_class_count(x, codes)
    assert abs(found.estimate - classes) <= (0 if classes <= 20 else 1)  # beyond 20 not every number is tried
    assert found.low <= found.estimate <= found.high
    assert found.clusters == 4 * classes
    assert max(found.silhouettes, key=found.silhouettes.get) == found.estimate
    assert set(range(2, min(20, 4 * classes) + 1)) <= found.silhouettes.keys()
    assert max(found.silhouettes) == 4 * classes
    assert f"about {found.estimate} classes" in found.describe()
    assert "train with more" not in found.describe()
    assert estimate_class_count(4 * x, codes) == found  # by cosine; and the same seed


def test_the_silhouette_is_scikit_learns() -> None:
    x, _ = blobs(6, noise=1.0)
    codes = torch.randint(0, 8, (len(x),), generator=torch.Generator().manual_seed(0))
    unit = x / x.norm(dim=1, keepdim=True)
    expected = silhouette_score(unit.numpy(), codes.numpy(), metric="cosine")
    assert estimate_class_count(x, codes).silhouettes[8] == pytest.approx(expected, rel=1e-5)  # nothing to merge


def test_coding_length_against_eigenvalues() -> None:
    z = torch.nn.functional.normalize(torch.randn(30, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    values = torch.linalg.svdvals(z.double()).square()
    expected = (30 + 5) / 2 * torch.log2(1 + 8 / 30 * values).sum()
    assert coding_length(z) == pytest.approx(float(expected))


@pytest.mark.parametrize("threshold", [0.9, 1.2, 3.0])
def test_merging_against_a_naive_loop_over_all_pairs(threshold: float) -> None:
    x, truth = blobs(3, each=30, noise=1.2)
    codes = 3 * truth + torch.arange(len(truth)) % 3  # nine clusters: each is compared with all others
    x = torch.nn.functional.normalize(x, dim=1)
    groups = [frozenset({code}) for code in range(9)]

    def members(group: frozenset[int]) -> Tensor:
        return x[torch.isin(codes, torch.tensor(sorted(group)))]

    def bits(group: frozenset[int]) -> float:
        return coding_length(members(group))

    def most(group: frozenset[int]) -> float:
        return bits(group) / (1 + len(members(group)) / 16)

    while len(groups) > 1:
        found = {}
        for i, a in enumerate(groups):
            for b in groups[i + 1 :]:
                saved = bits(a) + bits(b) - bits(a | b)
                if saved > 0:
                    found[a, b] = min(most(a), most(b)) / saved
        if not found or min(found.values()) >= threshold:
            break
        a, b = min(found, key=lambda pair: found[pair])
        groups = [g for g in groups if g not in (a, b)] + [a | b]
    merged = merge_by_coding_length(4 * x, codes, threshold=threshold)
    assert {frozenset(codes[merged == code].unique().tolist()) for code in merged.unique()} == set(groups)


@pytest.mark.parametrize("classes", [2, 5, 12])
def test_compact_classes_are_counted_by_their_coding_length(classes: int) -> None:
    x, truth = blobs(classes)
    found = estimate_class_count(x, 5 * truth + torch.arange(len(truth)) % 4)
    assert found.by_coding_length == classes
    assert f"; {classes} by coding length" in found.describe()


def test_few_clusters_are_warned_about() -> None:
    x, truth = blobs(6)
    found = estimate_class_count(x, truth)
    assert (found.estimate, found.clusters) == (6, 6)
    assert "near the number of clusters itself: train with more of them" in found.describe()


def test_clusters_that_overlap_are_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, truth = blobs(6)
    monkeypatch.setattr("sklearn.metrics.silhouette_score", lambda _, labels, **__: -0.1 - len(np.unique(labels)) / 100)
    found = estimate_class_count(x, truth)
    assert (found.low, found.estimate, found.high) == (2, 2, 2)


def test_what_cannot_be_counted_is_said() -> None:
    x, truth = blobs(2)
    with pytest.raises(UserError, match="and 2 have samples: train with more"):
        estimate_class_count(x, 7 * truth)
    with pytest.raises(UserError, match="all samples are embedded alike"):
        estimate_class_count(torch.ones(40, 3), torch.arange(40) % 4)


def model_and_data(method: str, x: Tensor, **settings: Any) -> tuple[Model, Dataset]:
    encoder = build_encoder("identity", modality="vector", sample_shape=(16,), seed=0)
    classes = [2] if method == "sup-ce" else []
    model = Model.build(method, settings, classes, encoder, {"modality": "vector", "shape": [16]})
    ids = np.array([str(i) for i in range(len(x))])
    return model, Dataset(TensorSamples(x, "vector"), Labels.empty(len(x)), ids)


def test_classes_of_a_model() -> None:
    x, _ = blobs(5)
    own, data = model_and_data("kmeans", x, subclasses=20)
    own.method.before_epoch(lambda: [(x, torch.empty(len(x), 0), torch.arange(len(x)))])
    without, _ = model_and_data("sup-ce", x)
    assert class_count_of(own, data).estimate == class_count_of(without, data).estimate == 5
    assert class_count_of(own, data).clusters == 20
    assert class_count_of(without, data).clusters == 20  # one for ten samples
    with pytest.raises(UserError, match="29 samples are too few"):
        class_count_of(without, data.select(np.arange(29)))
    fine = own.method.subclass_proba
    own.method.partitions = lambda x: (fine(x)[:, :4], fine(x), fine(x)[:, :3])
    assert class_count_of(own, data).clusters == 20  # of the finest partition


# Pictures


def discovered(
    subclass: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    splits: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    channels: int = 3,
    size: tuple[int, int] = (8, 8),
) -> tuple[Discovery, dict[str, Dataset]]:
    """Images whose grey is ten times the number of their subclass, and a little more where they are of the test split.

    Samples come part by part, as in a discovery of a run.
    """
    count = len(subclass)
    splits = np.full(count, "train") if splits is None else splits
    grey = (10 * subclass + 3 * (splits == "test")).astype(np.uint8)
    images = torch.from_numpy(grey)[:, None, None, None].repeat(1, channels, *size)
    ids = np.array([f"r{i}" for i in range(count)])
    known = Labels.empty(count) if labels is None else Labels.from_codes(labels, ["kind"])
    parts = {
        str(name): Dataset(
            TensorSamples(images[splits == name], "image"), known.select(splits == name), ids[splits == name]
        )
        for name in dict.fromkeys(splits.tolist())
    }
    found = [
        Subclass(int(z), f"subclass {z}", None, 0.0, int((subclass == z).sum()), {}, {}, [], [], [])
        for z in np.unique(subclass)
    ]
    given = probability if probability is not None else np.ones(count)
    nothing = np.zeros(count)
    discovery = Discovery(None, ids, splits, subclass, given, [None] * count, nothing.astype(bool), nothing, found)
    return discovery, parts


def rows_of(file: Path) -> list[list[int]]:
    """The greys in the middles of the tiles, row by row; 255 where there is no tile."""
    with Image.open(file) as page:
        pixels = np.asarray(page.convert("RGB")).astype(int)
    assert pixels.shape[1] == 684
    rows, rest = divmod(pixels.shape[0] - 4, 90)
    assert rest == 0
    middles = pixels[4 + 22 + 32 :: 90, 4 + 32 :: 68]
    assert middles.shape == (rows, 10, 3)
    assert (middles == middles[:, :, :1]).all()
    return middles[:, :, 0].tolist()


def numbers_of(file: Path) -> list[int]:
    return [row[0] // 10 for row in rows_of(file)]


def test_subclasses_are_sorted_by_purity_weighed_against_chance(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sizes = random.permutation([2, 3, 5, 8, 12, 20, 30, 40, 50, 60, 70, 80, 90])
    subclass = np.repeat(np.arange(13), sizes)
    labels = np.where(
        random.random(len(subclass)) < 0.1 + 0.06 * subclass, subclass, random.integers(13, size=len(subclass))
    )
    labels[::11] = -1
    discovery, parts = discovered(subclass, labels=labels)
    written = write_grids(discovery, parts, tmp_path / "made" / "here")
    assert [file.name for file in written] == ["best.png", "worst.png", "random.png"]
    assert set((tmp_path / "made" / "here").iterdir()) == set(written)
    lower_ends = []
    for number in range(13):
        own = labels[(subclass == number) & (labels >= 0)]
        hits = np.bincount(own).max()
        lower_ends.append(binomtest(int(hits), len(own)).proportion_ci(0.95, method="wilson").low)
    order = sorted(range(13), key=lambda number: -lower_ends[number])
    assert numbers_of(written[0]) == order[:10]
    assert numbers_of(written[1]) == order[::-1][:10]
    drawn = numbers_of(written[2])
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 10
    for file in written:
        for row in rows_of(file):
            tiles = [grey for grey in row if grey < 255]
            assert len(set(tiles)) == 1
            assert len(tiles) == min(10, sizes[tiles[0] // 10])


def test_tiny_subclasses_do_not_lead(tmp_path: Path) -> None:
    subclass = np.repeat([0, 1, 2], [2, 60, 60])
    labels = np.repeat([0, 1, 0, 2, 0], [2, 55, 5, 40, 20])  # pure, 92% and 67%
    best, worst, _ = write_grids(*discovered(subclass, labels=labels), tmp_path)
    assert numbers_of(best) == [1, 2, 0]
    assert numbers_of(worst) == [0, 2, 1]


def test_without_labels_the_surest_lead(tmp_path: Path) -> None:
    subclass = np.arange(60) % 3
    probability = np.array([0.6, 0.9, 0.7])[subclass]
    best, _, _ = write_grids(*discovered(subclass, probability=probability), tmp_path)
    assert numbers_of(best) == [1, 2, 0]


def test_labels_of_the_superclass_alone_say_nothing_of_its_subclasses(tmp_path: Path) -> None:
    subclass = np.arange(60) % 3
    probability = np.array([0.6, 0.9, 0.7])[subclass]
    discovery, parts = discovered(subclass, probability=probability, labels=subclass // 2)
    level = next(iter(parts.values())).labels.levels[-1]
    best, _, _ = write_grids(replace(discovery, level=level), parts, tmp_path)
    assert numbers_of(best) == [1, 2, 0]


def test_only_samples_of_the_split_are_shown_and_judged(tmp_path: Path) -> None:
    splits = np.repeat(["train", "test"], [60, 30])
    subclass = np.concatenate([np.arange(60) % 4, np.arange(30) % 3])  # the last one has no test sample
    labels = np.where(splits == "test", np.where(subclass == 0, np.arange(90) % 5, 5), 6)
    discovery, parts = discovered(subclass, labels=labels, splits=splits)
    best, worst, _ = write_grids(discovery, parts, tmp_path, split="test")
    for row in rows_of(best):
        assert {grey % 10 for grey in row} == {3}
    assert numbers_of(best) == [1, 2, 0]
    assert numbers_of(worst)[0] == 0
    best, _, _ = write_grids(discovery, parts, tmp_path)
    assert {grey % 10 for row in rows_of(best) for grey in row} == {0, 3}
    with pytest.raises(UserError, match="no split 'val': there are train, test; name one with split="):
        write_grids(discovery, parts, tmp_path, split="val")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (100, 100)])
def test_images_of_any_channels_and_sizes(channels: int, size: tuple[int, int], tmp_path: Path) -> None:
    best, _, _ = write_grids(*discovered(np.arange(40) % 2, channels=channels, size=size), tmp_path)
    assert rows_of(best) == [[0] * 10, [10] * 10]


def test_wide_images_keep_their_shape(tmp_path: Path) -> None:
    best, _, _ = write_grids(*discovered(np.zeros(12, int), size=(10, 40)), tmp_path)
    with Image.open(best) as page:
        tile = np.asarray(page)[4 + 22 : 4 + 22 + 64, 4 : 4 + 64, 0]
    assert (tile[:16] == 0).all()
    assert (tile[16:] == 255).all()


def test_colours_stay_colours(tmp_path: Path) -> None:
    discovery, parts = discovered(np.zeros(12, int))
    colour = torch.tensor([200, 30, 90], dtype=torch.uint8)[:, None, None]
    images = TensorSamples(colour.expand(12, 3, 8, 8).clone(), "image")
    parts = {"train": Dataset(images, parts["train"].labels, parts["train"].ids)}
    best, _, _ = write_grids(discovery, parts, tmp_path)
    with Image.open(best) as page:
        assert page.getpixel((4 + 32, 4 + 22 + 32)) == (200, 30, 90)


def test_the_same_seed_draws_the_same_picture(tmp_path: Path) -> None:
    found = discovered(np.arange(400) % 20)
    pictures = [write_grids(*found, tmp_path / str(i), seed=seed)[2].read_bytes() for i, seed in enumerate((0, 0, 1))]
    assert pictures[0] == pictures[1] != pictures[2]


def test_grids_are_of_images(tmp_path: Path) -> None:
    discovery, _ = discovered(np.zeros(12, int))
    _, data = model_and_data("kmeans", torch.zeros(12, 16))
    with pytest.raises(UserError, match=r"grids show images, and .* holds vector samples"):
        write_grids(discovery, {"": data}, tmp_path)


# Through the public verb


def test_discovery_with_pictures_and_a_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (160, 12, 12, 3), dtype=np.uint8)
    data = regrain.load(images, labels={"kind": (np.arange(160) % 4).tolist()})
    run = regrain.fit("kmeans", data, out=tmp_path / "run", encoder="conv4", settings=["subclasses=12"], device="cpu")
    found = regrain.discover(run, grids=tmp_path / "grids", estimate_classes=True)
    assert found.class_count == class_count_of(run.model, run.splits()["train"])
    assert found.class_count.clusters == 12
    assert found.notes[-1] == found.class_count.describe()
    assert sorted(file.name for file in (tmp_path / "grids").iterdir()) == ["best.png", "random.png", "worst.png"]
    assert regrain.discover(run).class_count is None
    some = data.select(np.arange(80))
    elsewhere = regrain.discover(run, some, estimate_classes=True)
    assert elsewhere.class_count == class_count_of(run.model, some)
