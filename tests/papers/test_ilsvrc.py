"""ImageNet and BREEDS, read from tiny folders in the layouts in which people keep ILSVRC 2012."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_files import encode, pixels

from regrain.data import ImageSamples, TensorSamples, read
from regrain.data import read as load
from regrain.data.taxonomies import grouping
from regrain.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

NAMES = ("n01440764", "n01443537", "n02480495", "n02480855", "n02119022", "n02119789", "n03958227", "n04026417")
"""Two fish, two apes and two foxes (living17), two bags (nonliving26)."""


def write(folder: Path, *, names: tuple[str, ...] = NAMES, count: int = 2, side: int = 8) -> None:
    """``train`` with ``count`` images of each class, and ``val`` with one."""
    for index, name in enumerate(names):
        files = {f"train/{name}/{name}_{i}.JPEG": i for i in range(count)} | {
            f"val/{name}/ILSVRC2012_val_{index}.JPEG": 9
        }
        for file, seed in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(encode(pixels(seed, side), "JPEG"))


@pytest.mark.parametrize("place", [".", "imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_in_its_layouts(tmp_path: Path, place: str) -> None:
    write(tmp_path / place)
    data = read("imagenet", root=tmp_path)
    assert isinstance(data.samples, TensorSamples)
    assert data.samples.shape == (3, 8, 8)
    assert data.labels.levels == ("coarse12", "label")
    assert data.labels.names("label") == tuple(sorted(NAMES))
    assert [len(data.split(part)) for part in ("train", "test")] == [16, 8]
    assert data.ids[0] == "train/n01440764/n01440764_0.JPEG"
    assert data[0][1] == {"coarse12": "Reptile/Aquatic vertebrate", "label": "n01440764"}
    assert data.notes["views"] == ["strong", "weak"]
    for part in ("train", "val"):
        assert f"{part} has images of 8 of 1000 classes" in " ".join(data.notes["messages"])


def test_breeds_keeps_the_classes_of_its_task(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train" / "n02119022" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "n02119022" / "._n02119022_0.JPEG").write_bytes(b"no image")
    data = load("living17", root=tmp_path)
    assert data.labels.levels == ("superclass", "label")
    assert data.labels.names("superclass") == ("ape", "fox")
    assert data.labels.names("label") == ("n02119022", "n02119789", "n02480495", "n02480855")
    assert len(data) == 12
    assert data.labels.taxonomy is not None
    assert data.labels.taxonomy.ancestors("label", "superclass").tolist() == [1, 1, 0, 0]
    assert load("nonliving26", root=tmp_path).labels.names("superclass") == ("bag",)
    assert load("living17", root=tmp_path, splits=["test"], levels=["superclass"]).labels.counts == {"superclass": 2}
    for task in ("entity13", "entity30"):
        assert (
            set(load(task, root=tmp_path).labels.names("label"))
            == set(NAMES) & grouping(f"breeds_{task}")["classes"].keys()
        )


def test_nothing_is_said_of_a_whole_copy(tmp_path: Path) -> None:
    write(tmp_path, names=tuple(grouping("breeds_living17")["classes"]), count=1)
    data = load("living17", root=tmp_path)
    assert data.labels.counts == {"superclass": 17, "label": 68}
    assert not [message for message in data.notes["messages"] if str(tmp_path) in message]


def test_large_images_stay_encoded(tmp_path: Path) -> None:
    write(tmp_path, count=1, side=160)
    data = load("living17", root=tmp_path)
    assert isinstance(data.samples, ImageSamples)
    assert data.samples.shape == (3, 160, 160)


def test_a_copy_without_validation_images_has_one_split(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "val").rename(tmp_path / "away")
    data = load("living17", root=tmp_path)
    assert data.split_names == ("train",)
    assert f"{tmp_path} has no folder val, and so the data have one split only" in data.notes["messages"]
    with pytest.raises(UserError, match="living17 has no split 'test'"):
        load("living17", root=tmp_path, splits=["test"])
    (tmp_path / "train").rename(tmp_path / "val")
    assert load("living17", root=tmp_path).split_names == ("test",)


@pytest.mark.parametrize("with_train", [True, False])
def test_validation_images_in_no_folders(tmp_path: Path, with_train: bool) -> None:
    if with_train:
        write(tmp_path)
        (tmp_path / "val").rename(tmp_path / "away")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(encode(pixels(0), "JPEG"))
    with pytest.raises(UserError) as error:
        load("living17", root=tmp_path)
    message = str(error.value)
    assert f"looked for {tmp_path}/val/n01630670/*.JPEG" in message
    assert "found ILSVRC2012_val_00000001.JPEG" in message
    assert "Move every image into the folder of its class" in message
    assert "LOC_val_solution.csv" in message


def test_archives_and_other_classes(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "n01440764.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"found n01440764\.tar\. Unpack every archive"):
        load("imagenet", root=tmp_path)
    write(tmp_path / "other", names=NAMES[:2])
    with pytest.raises(UserError, match=r"train has no images in folders of classes: .*found n01440764; n01443537$"):
        load("living17", root=tmp_path / "other")


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "train" / "cats").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        load("entity30", root=tmp_path)
    assert f"{tmp_path}/ILSVRC/Data/CLS-LOC/train/" in str(error.value)
    assert f"{tmp_path} holds train" in str(error.value)
