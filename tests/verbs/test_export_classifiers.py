"""ONNX graphs with classifiers say what ``predict`` says; their script reads image files without Regrain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.runs.export import Export

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install 'regrain[onnx]')")

pytestmark = pytest.mark.usefixtures("own_cache")


def records(relation: str = "tree", count: int = 240) -> Dataset:
    """Four classes within two, so far apart that some samples are sure."""
    generator = np.random.default_rng(0)
    fine = np.arange(count) % 4
    x = generator.normal(size=(count, 6)).astype(np.float32) + 3 * np.eye(6, dtype=np.float32)[fine]
    columns = {"kind": [f"k{f // 2}" for f in fine], "sort": [f"s{f}" for f in fine]}
    labels = Labels.from_columns(columns, relation=relation)
    splits = np.array(["val", "train", "train", "test"])[np.arange(count) // 4 % 4]
    return Dataset(TensorSamples(torch.from_numpy(x), "vector"), labels, np.arange(count).astype(str), "it", splits)


def fitted(folder: Path, method: str, data: Dataset, *levels: str) -> regrain.Run:
    settings = ["epochs=4", "batch_size=16"]
    return regrain.fit(method, data, levels=levels or None, out=folder / "run", settings=settings, device="cpu")


def outputs_of(made: Export, data: Dataset) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The graph's outputs by name, and what lies beside it."""
    about = json.loads(made.beside[0].read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(made.path)
    kept = session.get_modelmeta().custom_metadata_map
    assert all(json.loads(kept[key]) == about[key] for key in ("levels", "abstains_below", "answers") if key in about)
    samples = data.samples.take(torch.arange(len(data))).numpy()
    found = session.run(about["outputs"], {about["inputs"][0]: samples})
    return dict(zip(about["outputs"], found, strict=True)), about


def assert_predicts_alike(made: Export, run: regrain.Run, data: Dataset) -> dict[str, np.ndarray]:
    found, about = outputs_of(made, data)
    table = run.predict(data)
    assert list(about["levels"]) == list(run.classes)
    np.testing.assert_allclose(found["embedding"], run.embed(data).numpy(), rtol=0, atol=1e-4)
    for level, told in about["levels"].items():
        probabilities = found[told["output"]]
        assert tuple(told["classes"]) == run.classes[level]
        np.testing.assert_allclose(probabilities, run.predict_proba(data, level).numpy(), rtol=0, atol=1e-4)
        assert [told["classes"][code] for code in probabilities.argmax(axis=1)] == table[level].tolist()
    return found


@pytest.mark.parametrize(
    ("method", "relation", "levels"),
    [
        ("sup-ce", "tree", ("kind",)),
        ("george", "tree", ("kind",)),  # its classifier changes with its stage
        ("mixed", "tree", ("kind", "sort")),
        ("mlcl", "tree", ("kind", "sort")),
        ("mlcl", "aspects", ("kind", "sort")),
    ],
)
def test_a_graph_predicts_as_the_run(method: str, relation: str, levels: tuple[str, ...], tmp_path: Path) -> None:
    data = records(relation)
    run = fitted(tmp_path, method, data, *levels)
    made = run.export(tmp_path / "it.onnx", format="onnx")
    assert made.beside == (tmp_path / "it.json",)  # vectors need no reading
    found = assert_predicts_alike(made, run, data)
    assert set(found) == {"embedding", *(f"{level}_probabilities" for level in levels)}

    run.calibrate(data, split="val", precision=0.9)
    assert run.selective is not None
    found, about = outputs_of(run.export(tmp_path / "it.onnx", format="onnx", overwrite=True), data)
    table = run.predict(data)
    assert about["answers"]["levels"] == list(levels)
    names = [[None, *run.classes[level]] for level in levels]
    said = [[names[place][code + 1] for place, code in enumerate(row)] for row in found["answers"].tolist()]
    if relation == "aspects":
        for place, level in enumerate(levels):
            compare([row[place] for row in said], table, f"{level}_answer", f"{level}_answer_probability", about)
        return
    at = found["answer_level"].tolist()
    own = [row[place] if place >= 0 else None for row, place in zip(said, at, strict=True)]
    clear = compare(own, table, "answer", "answer_probability", about)
    named = [levels[place] if place >= 0 else None for place in at]
    compare(named, table, "answer_level", "answer_probability", about)
    assert len(set(at)) > 1 or levels == ("kind",)
    confidence = table["answer_probability"].to_numpy()
    np.testing.assert_allclose(found["answer_probability"][clear], confidence[clear], rtol=0, atol=1e-4)


def compare(said: list[Any], table: pd.DataFrame, column: str, sure: str, about: dict[str, Any]) -> np.ndarray:
    """All but the samples that lie on a threshold, as one does that it was calibrated on: rounding decides there."""
    limits = np.array([limit for limit in about["answers"]["thresholds"] if limit is not None])
    clear = (np.abs(table[sure].to_numpy()[:, None] - limits) > 1e-5).all(axis=1)
    assert clear.mean() > 0.95
    wanted = [None if pd.isna(value) else value for value in table[column]]
    assert np.array(said, dtype=object)[clear].tolist() == np.array(wanted, dtype=object)[clear].tolist()
    return clear


def adapted(run: regrain.Run, data: Dataset, level: str, out: Path) -> regrain.Run:
    train = data.split("train")
    names, codes = train.labels.names(level), train.labels.level(level).tolist()
    support = pd.DataFrame({"id": [str(i) for i in train.ids], f"my {level}": [names[code] for code in codes]})
    support.to_csv(out.with_suffix(".csv"), index=False)
    return run.adapt(out.with_suffix(".csv"), out, abstain=0.3)


@pytest.mark.parametrize("method", ["sup-ce", "simclr"])
def test_an_adapted_run_keeps_its_classifier(method: str, tmp_path: Path) -> None:
    data = records()
    run = adapted(fitted(tmp_path, method, data, *(["kind"] * (method == "sup-ce"))), data, "sort", tmp_path / "mine")
    made = run.export(tmp_path / "it.onnx", format="onnx")
    assert all("not in it" not in notice for notice in made.notices)
    found = assert_predicts_alike(made, run, data)
    assert set(run.classes) == ({"kind", "my sort"} if method == "sup-ce" else {"my sort"})
    abstained = run.predict(data)["abstained"]
    assert found["abstained"].dtype == bool
    assert 0 < abstained.mean() < 1
    about = outputs_of(made, data)[1]
    far = np.abs(found["typicality"] - about["abstains_below"]) > 1e-5
    assert (found["abstained"] == abstained.to_numpy())[far].all()
    assert far.mean() > 0.9
    (notice,) = [n for n in run.export(tmp_path / "w.safetensors", format="safetensors").notices if "my sort" in n]
    assert "is not in it: the formats onnx and hub hold" in notice


def test_what_lies_where_the_description_goes_is_kept(tmp_path: Path) -> None:
    run = fitted(tmp_path, "sup-ce", records(), "kind")
    (tmp_path / "it.json").write_text("mine")
    with pytest.raises(UserError, match=r"it\.json exists"):
        run.export(tmp_path / "it.onnx", format="onnx")
    assert (tmp_path / "it.json").read_text() == "mine"
    assert not (tmp_path / "it.onnx").exists()


def photos(folder: Path) -> list[str]:
    """Files of every kind that people have: depths, palettes, transparency, rotation by EXIF, large JPEG."""
    generator = np.random.default_rng(1)
    folder.mkdir()
    files = []
    for mode, size, ending in [
        ("RGB", (40, 30), "png"),
        ("L", (24, 20), "png"),
        ("L", (300, 200), "jpg"),
        ("RGB", (333, 500), "jpg"),
        ("I;16", (40, 44), "png"),
        ("P", (19, 19), "png"),
        ("RGBA", (50, 50), "png"),
        ("LA", (31, 28), "png"),
        ("1", (30, 30), "png"),
        ("CMYK", (100, 60), "jpg"),
    ]:
        noise = Image.fromarray(generator.integers(0, 256, (7, 5, 3)).astype(np.uint8)).resize(size)
        image = noise.convert("I").point(lambda v: 200 * v).convert(mode) if mode == "I;16" else noise.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        files.append(str(folder / f"{len(files)}-{mode.replace(';', '')}.{ending}"))
        image.save(files[-1], **({"exif": exif} if ending == "jpg" else {}))
    return files


@pytest.mark.parametrize(("channels", "form", "size"), [(3, (20, 24), 16), (1, (12, 12), 20)])
def test_a_script_without_regrain_reads_photos_as_the_run(
    channels: int, form: tuple[int, int], size: int, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, channels, *form)).astype(np.uint8)
    pixels[::2] //= 3
    data = regrain.load(pixels, labels={"kind": ["dark", "light"] * 20})
    run = regrain.fit(
        "sup-ce",
        data,
        encoder="conv4",
        out=tmp_path / "run",
        settings=["epochs=2", f"views.size={size}", "precision=float32"],
        device="cpu",
    )
    made = adapted(run, data_with_splits(data), "kind", tmp_path / "mine").export(
        tmp_path / "my it.onnx", format="onnx"
    )
    script = made.beside[1]
    assert script == tmp_path / "my_it_preprocess.py"
    files = photos(tmp_path / "photos")
    block = "import sys; sys.modules['regrain'] = sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-I", "-c", block + "runpy.run_path(sys.argv[0], run_name='__main__')", script, *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    found = pd.DataFrame([json.loads(line) for line in done.stdout.splitlines()])
    wanted = regrain.Run.load(tmp_path / "mine").predict(files)
    assert list(found) == list(wanted)
    for name in wanted:
        if name.endswith("_probability"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-4)
        else:
            assert found[name].tolist() == wanted[name].tolist(), name


def data_with_splits(data: Dataset) -> Dataset:
    """The samples that the run was trained on are its split ``train``."""
    _, test = data.hold_out(0.2, stratify="kind")
    ids = set(test.ids.tolist())
    splits = np.array(["test" if i in ids else "train" for i in data.ids.tolist()])
    return Dataset(data.samples, data.labels, data.ids, data.name, splits)
