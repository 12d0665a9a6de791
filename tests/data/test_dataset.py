"""Data sets: identities, splits, and hashes of content."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regrain.data.corruption import hide_labels, limit_per_class
from regrain.data.dataset import Dataset
from regrain.data.images import ImageForm, decode_image, decode_images
from regrain.data.samples import ImageSamples, Samples, TensorSamples, TextSamples
from regrain.errors import UserError
from regrain.labels import Labels


def made(count: int = 40, groups: int | None = None) -> Dataset:
    rng = np.random.default_rng(0)
    fine = np.arange(count) % 4
    return Dataset(
        TensorSamples(torch.from_numpy(rng.normal(size=(count, 3)).astype(np.float32)), "vector"),
        Labels.from_columns({"coarse": [f"c{f // 2}" for f in fine], "fine": [f"f{f}" for f in fine]}),
        np.array([f"id{i}" for i in range(count)], dtype=object),
        splits=np.array(["train" if i % 5 else "test" for i in range(count)]),
        groups=None if groups is None else np.array([f"g{i % groups}" for i in range(count)]),
    )


def png(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG", **options)
    return stream.getvalue()


# Identities


def test_keys_belong_to_ids_whatever_the_order() -> None:
    data = made()
    order = np.random.default_rng(1).permutation(len(data))
    assert torch.equal(data.select(order).keys, data.keys[torch.from_numpy(order)])
    assert torch.equal(data.select([7, 3]).keys, data.keys[[7, 3]])
    assert len(set(data.keys.tolist())) == len(data)


def test_keys_do_not_change_between_versions() -> None:
    data = made(1)
    # blake2b of "id0", 8 bytes, little-endian: every stored draw and cache hangs on this number.
    import hashlib

    expected = int.from_bytes(hashlib.blake2b(b"id0", digest_size=8).digest(), "little", signed=True)
    assert data.keys.tolist() == [expected]


def test_one_sample_by_position() -> None:
    data = made()
    value, names, identity = data[-1]
    assert torch.equal(value, data.samples.take(torch.tensor([39]))[0])
    assert (names, identity) == ({"coarse": "c1", "fine": "f3"}, "id39")
    with pytest.raises(IndexError):
        data[40]


def test_select_keeps_everything_in_step() -> None:
    data = made(groups=5)
    mask = np.arange(40) % 3 == 0
    part = data.select(mask)
    assert part.ids.tolist() == [f"id{i}" for i in range(0, 40, 3)]
    assert torch.equal(part.labels.codes, data.labels.codes[::3])
    assert part.splits is not None
    assert part.groups is not None
    assert part.splits.tolist() == ["train" if i % 5 else "test" for i in range(0, 40, 3)]
    assert part.groups.tolist() == [f"g{i % 5}" for i in range(0, 40, 3)]


def test_parts_that_differ_in_length_are_refused() -> None:
    with pytest.raises(UserError, match=r"'samples': 2, 'labels': 3"):
        Dataset(TextSamples(("a", "b")), Labels.empty(3), np.array(["1", "2"]))


def test_splits_by_name() -> None:
    data = made()
    assert set(data.split_names) == {"train", "test"}
    assert len(data.split("test")) == 8
    with pytest.raises(UserError, match="no split 'tset': did you mean 'test'"):
        data.split("tset")
    with pytest.raises(UserError, match="the data have no splits"):
        Dataset(TextSamples(("a",)), Labels.empty(1), np.array(["1"])).split("test")


# Splitting


def test_a_split_by_group_does_not_leak() -> None:
    data = made(60, groups=12)
    for seed in range(5):
        rest, held = data.hold_out(0.25, seed=seed)
        assert rest.groups is not None
        assert held.groups is not None
        assert not set(rest.groups) & set(held.groups)
        assert len(rest) + len(held) == 60
        assert len(held) == 15


def test_groups_of_very_different_sizes_still_leave_both_sides_filled() -> None:
    data = made(40)
    data = Dataset(data.samples, data.labels, data.ids, groups=np.array(["big"] * 38 + ["a", "b"]))
    for seed in range(10):
        rest, held = data.hold_out(0.1, seed=seed)
        assert len(rest) > 0
        assert len(held) > 0


def test_stratified_shares() -> None:
    data = made(200)
    rest, held = data.hold_out(0.3, stratify="fine", seed=3)
    assert Counter(held.labels.level("fine").tolist()) == dict.fromkeys(range(4), 15)
    assert not set(rest.ids) & set(held.ids)


def test_a_split_hangs_on_ids_and_seed_alone() -> None:
    data = made(50)
    shuffled = data.select(np.random.default_rng(2).permutation(50))
    for level in (None, "fine"):
        one, other = (d.hold_out(0.2, seed=1, stratify=level)[1] for d in (data, shuffled))
        assert set(one.ids) == set(other.ids)
    assert set(data.hold_out(0.2, seed=1)[1].ids) != set(data.hold_out(0.2, seed=2)[1].ids)


def test_splits_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        made().hold_out(1.5)
    with pytest.raises(UserError, match="leaves one side empty"):
        made(4).hold_out(0.01)
    with pytest.raises(UserError, match="needs a group column"):
        made().hold_out(0.5, by="group")


def test_limit_per_class() -> None:
    data = made(40)
    small = limit_per_class(data, 3)
    assert Counter(small.labels.level("fine").tolist()) == dict.fromkeys(range(4), 3)
    positions = [int(i[2:]) for i in small.ids]
    assert positions == sorted(positions)
    assert Counter(limit_per_class(data, 3, level="coarse").labels.level("coarse").tolist()) == {0: 3, 1: 3}
    assert set(limit_per_class(data, 3, seed=1).ids) != set(small.ids)
    shuffled = data.select(np.random.default_rng(2).permutation(40))
    assert set(limit_per_class(shuffled, 3).ids) == set(small.ids)
    with pytest.raises(UserError, match="at least 1"):
        limit_per_class(data, 0)


def test_limit_of_data_without_labels() -> None:
    data = Dataset(TextSamples(tuple("abcdef")), Labels.empty(6), np.array(list("abcdef")))
    assert len(limit_per_class(data, 2)) == 2


def hidden_ids(data: Dataset, share: float, **options: int) -> set[str]:
    codes = hide_labels(data, share, **options).labels.codes
    return set(data.ids[(codes == -1).all(dim=1).numpy()])


def test_hiding_takes_a_share_of_every_class() -> None:
    data = made(40)
    hidden = hide_labels(data, 0.25)
    assert Counter(hidden.labels.level("coarse").tolist()) == {-1: 10, 0: 15, 1: 15}
    gone = hidden.labels.codes == -1
    assert torch.equal(gone[:, 0], gone[:, 1])
    assert torch.equal(hidden.labels.codes[~gone], data.labels.codes[~gone])
    assert (data.labels.codes >= 0).all()  # the data themselves are as they were
    assert hidden.fingerprint() == data.fingerprint()
    assert hidden.labels.classes == data.labels.classes


def test_a_larger_share_hides_all_that_a_smaller_one_hides() -> None:
    data, before = made(40), set()
    for share in (0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.99):
        now = hidden_ids(data, share)
        assert before <= now
        assert len(now) == min(38, 2 * round(20 * share))
        before = now
    assert Counter(hide_labels(data, 0.99).labels.level("coarse").tolist()) == {-1: 38, 0: 1, 1: 1}


def test_what_is_hidden_hangs_on_ids_and_seed_alone() -> None:
    data = made(40)
    shuffled = data.select(np.random.default_rng(2).permutation(40))
    assert hidden_ids(shuffled, 0.5) == hidden_ids(data, 0.5)
    assert hidden_ids(data, 0.5, seed=1) != hidden_ids(data, 0.5)


def test_hiding_where_labels_are_unknown_or_filled_in() -> None:
    fine = [f"f{i % 4}" if i % 3 else None for i in range(24)]
    coarse = [None if f is None or i < 12 else f"c{int(f[1]) // 2}" for i, f in enumerate(fine)]
    data = Dataset(TextSamples(("x",) * 24), Labels.from_columns({"c": coarse, "f": fine}), np.arange(24).astype(str))
    assert data.labels.filled == {"c": 8, "f": 0}
    assert data.labels.known == {"c": 16, "f": 16}
    hidden = hide_labels(data, 0.5).labels
    assert hidden.known == {"c": 8, "f": 8}
    assert 0 < hidden.filled["c"] < 8


def test_labels_that_cannot_be_hidden() -> None:
    for share in (1, 1.5, -0.1, float("nan")):
        with pytest.raises(UserError, match=r"the share of labels to hide lies in \[0, 1\)"):
            hide_labels(made(), share)
    with pytest.raises(UserError, match="no labels to hide"):
        hide_labels(Dataset(TextSamples(tuple("abcdef")), Labels.empty(6), np.array(list("abcdef"))), 0.5)


# Labels that are hard to tell


def told(count: int = 80) -> Dataset:
    """Two coarse classes on two sides of 0, and four fine ones; every second sample of a class is near the border."""
    fine = np.arange(count) % 4
    hard = (np.arange(count) // 4) % 2 == 0
    generator = np.random.default_rng(0)
    x = np.stack([np.where(fine < 2, -1, 1), np.where(fine % 2, -1, 1)], axis=1) * np.where(hard, 0.1, 1.0)[:, None]
    x = x + 0.02 * generator.normal(size=x.shape)
    return Dataset(
        TensorSamples(torch.from_numpy(x.astype(np.float32)), "vector"),
        Labels.from_columns({"coarse": [f"c{f // 2}" for f in fine], "fine": [f"f{f}" for f in fine]}),
        np.array([f"id{i}{'-hard' * bool(h)}" for i, h in enumerate(hard)], dtype=object),
    )


def raw(data: Dataset) -> torch.Tensor:
    assert isinstance(data.samples, TensorSamples)
    return data.samples.tensor


def lost(data: Dataset, share: str | dict[str, float | str], level: str = "fine", **options: int) -> set[str]:
    codes = hide_labels(data, share, features=raw, **options).labels.level(level)
    return set(data.ids[(codes < 0).numpy()])


@pytest.mark.usefixtures("own_cache")
def test_hard_and_easy_labels_go_first() -> None:
    data = told()
    half = {mode: lost(data, {"fine": f"0.5:{mode}"}) for mode in ("hard", "easy")}
    assert half["hard"] == {i for i in data.ids if i.endswith("-hard")}
    assert half["easy"] == {i for i in data.ids if not i.endswith("-hard")}
    before: set[str] = set()
    for share in (0, 0.1, 0.3, 0.6, 0.9):
        now = lost(data, {"fine": f"{share}:hard"})
        assert before <= now
        assert len(now) == round(share * len(data))
        before = now
    shuffled = data.select(np.random.default_rng(2).permutation(len(data)))
    assert lost(shuffled, {"fine": "0.3:hard"}) == lost(data, {"fine": "0.3:hard"})
    codes = hide_labels(data, "0.99:hard", features=raw).labels.level("coarse")
    assert sorted(codes[codes >= 0].tolist()) == [0, 1]  # each coarsest class keeps a label


@pytest.mark.usefixtures("own_cache")
def test_labels_are_lost_from_the_coarse_end() -> None:
    data = told()
    coarse, fine = (lost(data, "0.4:hard", level) for level in ("coarse", "fine"))
    assert coarse == fine
    mixed = {"coarse": 0.5, "fine": "0.75:hard"}
    by_chance, fine = (lost(data, mixed, level) for level in ("coarse", "fine"))
    assert by_chance < fine
    assert len(fine) == 60
    left = fine - by_chance
    assert len({i for i in left if i.endswith("-hard")}) >= len(left) - 2


def test_shares_that_say_nothing() -> None:
    for share in ("0.5:heavy", "much", "0.5:", ":hard"):
        with pytest.raises(UserError, match=r"to hide is a number such as 0\.8, 0\.8:hard"):
            hide_labels(told(), share, features=raw)
    with pytest.raises(UserError, match=r"lies in \[0, 1\)"):
        hide_labels(told(), "1:hard", features=raw)
    with pytest.raises(UserError, match="labels that are hard to tell are known by features"):
        hide_labels(told(), "0.5:hard")
    one = told().select([0, 4, 8])
    with pytest.raises(UserError, match="fewer than two classes"):
        hide_labels(one, "0.5:hard", features=raw)


# Fingerprints


def test_fingerprint_follows_content_and_ids() -> None:
    data = made()
    assert data.fingerprint() == made().fingerprint()
    other = data.samples.tensor.clone()  # type: ignore[attr-defined]
    other[3, 1] += 1e-6
    changed = Dataset(TensorSamples(other, "vector"), data.labels, data.ids)
    renamed = Dataset(data.samples, data.labels, np.array([f"x{i}" for i in range(40)]))
    assert len({data.fingerprint(), changed.fingerprint(), renamed.fingerprint()}) == 3
    assert data.select(range(39)).fingerprint() != data.fingerprint()


def test_texts_do_not_run_into_each_other() -> None:
    assert TextSamples(("ab", "c")).digest() != TextSamples(("a", "bc")).digest()


def test_image_files_are_known_by_size_and_time(tmp_path: Path) -> None:
    import os

    file = tmp_path / "a.png"
    file.write_bytes(png(np.zeros((4, 4), np.uint8)))
    samples = ImageSamples((str(file),), 4)
    before = samples.digest()
    assert before == ImageSamples((str(file),), 4).digest()
    os.utime(file, ns=(1, 1))
    assert samples.digest() != before
    assert ImageSamples((str(file),), 8).digest() != samples.digest()


# Samples


def test_samples_follow_their_protocol() -> None:
    for samples in (made().samples, TextSamples(("a",)), ImageSamples((b"",), 4)):
        assert isinstance(samples, Samples)


def test_tensors_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(UserError, match=r"image samples are uint8 \(N, C, H, W\); got torch.float32"):
        TensorSamples(torch.zeros(2, 3, 4, 4), "image")
    with pytest.raises(UserError, match=r"vector samples are float \(N, D\)"):
        TensorSamples(torch.zeros(2, 3, 4), "vector")


def test_decoding_matches_pillow() -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(png(colour), 3), colour.transpose(2, 0, 1))
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    assert np.array_equal(decode_image(png(colour), 1), grey[None])
    assert decode_image(png(colour), 4).shape == (4, 7, 5)


def test_the_shorter_side_is_resized_and_the_centre_cut_out() -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255  # the middle third is white
    assert decode_image(png(wide), 3, 8).min() == 255
    assert decode_image(png(wide), 3, 4).shape == (3, 4, 4)
    assert decode_image(png(wide), 3, (8, 24)).shape == (3, 8, 24)


def test_images_stand_upright() -> None:
    array = np.zeros((4, 6), np.uint8)
    array[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    upright = decode_image(png(array, exif=exif.tobytes()), 1)[0]
    assert np.array_equal(upright, np.rot90(array, k=-1))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    array = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    assert decode_image(png(array), 1)[0].tolist() == [[0, 1, 100, 255]]


def test_whatever_is_wrong_with_an_image_is_an_oserror(tmp_path: Path) -> None:
    whole = png(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8))
    for damaged in (b"", b"not an image", whole[:60], whole[: len(whole) // 2], b"\xff\xd8\xff\xe0"):
        with pytest.raises(OSError):  # noqa: PT011
            decode_image(damaged, 3)
    floating = tmp_path / "f.tiff"
    Image.fromarray(np.zeros((2, 2), np.float32)).save(floating)
    with pytest.raises(OSError, match="8 or 16 bits"):
        decode_image(floating, 1)


def test_failures_are_told_by_position() -> None:
    good = png(np.full((4, 4), 9, np.uint8))
    for threads in (1, 3):
        sources = [good, b"bad", good, "/no/such/file.png"]
        images, failures = decode_images(sources, ImageForm((1, 4, 4)), threads=threads)
        assert images[[0, 2]].min() == 9
        assert images[[1, 3]].max() == 0
        assert failures == {1: "is not an image in a known format", 3: "does not exist"}


def test_encoded_images_are_taken_and_loaded_alike(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    samples = ImageSamples(tuple(png(a) for a in arrays), 8)
    expected = torch.from_numpy(arrays.transpose(0, 3, 1, 2).copy())
    assert torch.equal(samples.take(torch.tensor([3, 1])), expected[[3, 1]])
    assert torch.equal(samples.load(threads=2).tensor, expected)
    assert torch.equal(samples.select(torch.tensor([4])).take(torch.tensor([0])), expected[4:])


def test_an_image_that_fails_late_is_named() -> None:
    good = png(np.zeros((4, 4), np.uint8))
    samples = ImageSamples((good, b"bad"), 4, names=("a.parquet row 0", "a.parquet row 1"))
    with pytest.raises(UserError, match=r"image a\.parquet row 1 is not an image.*--skip-unreadable"):
        samples.select(torch.tensor([1])).take(torch.tensor([0]))
    with pytest.raises(UserError, match=r"image /nowhere/x\.png does not exist"):
        ImageSamples(("/nowhere/x.png",), 4).take(torch.tensor([0]))


def test_held_out_groups_come_near_the_share_asked_for() -> None:
    sizes = [200, 40, 30, 25, 20, 15, 10, 10]
    groups = np.repeat(np.arange(8), sizes).astype(str)
    samples = TensorSamples(torch.zeros(350, 1), "vector")
    data = Dataset(samples, Labels.empty(350), np.arange(350).astype(str), groups=groups)
    for seed in range(20):
        train, test = data.hold_out(0.2, seed=seed)
        assert not set(train.groups) & set(test.groups)
        assert 0.12 <= len(test) / 350 <= 0.2
    pair = Dataset(TensorSamples(torch.zeros(10, 1), "vector"), Labels.empty(10), np.arange(10).astype(str),
                   groups=np.array(["large"] * 9 + ["small"]))  # fmt: skip
    assert {len(pair.hold_out(0.05, seed=seed)[1]) for seed in range(4)} == {1}
