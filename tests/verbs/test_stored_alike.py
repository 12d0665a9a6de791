"""A run fixes how its images are stored: what a sample is read with, and from, changes nothing of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import regrain
from regrain.errors import UserError
from regrain.hub import from_pretrained, save_to_directory
from regrain.runs.run import Run

Save = Callable[[Path, int], None]


def picture(seed: int, height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Smooth random colours, so that another size is another picture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)).resize((width, height))
    if mode == "I;16":
        return Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 16)  # a camera of 12 bits
    if mode == "RGBA":
        small.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
    return small.convert(mode)


def folder_of(place: Path, mode: str, size: tuple[int, int] = (40, 40), count: int = 6) -> Path:
    for kind in ("cat", "dog"):
        (place / kind).mkdir(parents=True)
        for index in range(count):
            seed = index + (100 if kind == "dog" else 0)
            picture(seed, *size, mode).save(place / kind / f"{index}.png")
    return place


def trained(place: Path, mode: str) -> Run:
    data = folder_of(place / "photos", mode)
    return regrain.fit(
        "sup-ce", data, out=place / "run", encoder="conv4", holdout=0, settings=["epochs=1", "batch_size=4"], seed=1
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return {mode: trained(tmp_path_factory.mktemp("trained"), mode) for mode in ("RGB", "L", "I;16")}


def embedded(run: Run, data: Any, tmp_path: Path) -> dict[str, np.ndarray]:
    """Embeddings by id, as `regrain embed --data` writes them."""
    out = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
    regrain.export_embeddings(run, out, data)
    table = pd.read_parquet(out)
    return dict(zip(table["id"], map(np.array, table["embedding"]), strict=True))


SIZES = ((200, 260), (20, 20), (28, 24), (64, 10), (18, 22))


@pytest.mark.parametrize("trained_on", ["RGB", "L", "I;16"])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "RGBA"])
def test_alone_in_company_from_folders_tables_and_arrays(
    runs: dict[str, Run], trained_on: str, mode: str, tmp_path: Path
) -> None:
    run = runs[trained_on]
    company, alone = tmp_path / "company", tmp_path / "alone"
    company.mkdir()
    alone.mkdir()
    for index, size in enumerate(SIZES):
        picture(index, *size, mode).save(company / f"{index}.png")
    (alone / "0.png").write_bytes((company / "0.png").read_bytes())

    expected = embedded(run, company, tmp_path)["0.png"]
    assert np.isfinite(expected).all()
    rows = [{"id": "0.png", "image": str(company / "0.png")}]
    encoded = [{"id": "0.png", "image": (company / "0.png").read_bytes()}]
    pd.DataFrame(rows).to_csv(tmp_path / "one.csv", index=False)
    pd.DataFrame(encoded).to_parquet(tmp_path / "one.parquet")
    forms: dict[str, Any] = {
        "a folder": alone,
        "a CSV": tmp_path / "one.csv",
        "a Parquet": tmp_path / "one.parquet",
        "a DataFrame": pd.DataFrame(encoded),
        "a data set read by itself": regrain.load(alone),
        "one read at another size": regrain.load(company, image_size=12, channels=1),
        "one in the cache": regrain.load(company, image_size=(9, 30), cache=True),
    }
    for name, data in forms.items():
        found = embedded(run, data, tmp_path)["0.png"]
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), name
    if mode in ("RGB", "L", "I;16"):
        pixels = np.asarray(Image.open(company / "0.png"))
        array = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
        samples = regrain.load(array[None], white=run.model.config["inputs"]["white"])
        found = run.embed(samples)[0].numpy()
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_predictions_and_what_is_shared_read_alike(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["RGB"]
    company, alone = folder_of(tmp_path / "company", "RGB", (160, 30), 2), tmp_path / "alone"
    alone.mkdir()
    picture(100, 200, 260).save(company / "dog" / "odd.png")
    picture(100, 200, 260).save(alone / "odd.png")
    many = regrain.predict(run, company, tmp_path / "many.parquet")
    one = regrain.predict(run, alone, tmp_path / "one.parquet")
    place = list(many["id"]).index("dog/odd.png")
    assert many["label"][place] == one["label"][0]
    assert many["label_probability"][place] == pytest.approx(one["label_probability"][0], abs=1e-5)

    shared = from_pretrained(save_to_directory(run, tmp_path / "shared"))
    assert torch.allclose(shared.embed(regrain.load(alone)), run.embed(regrain.load(alone)))
    assert torch.allclose(shared.embed(regrain.load(alone))[0], run.embed(regrain.load(company))[place], atol=1e-5)


def test_a_support_and_judged_samples_are_stored_alike(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["L"]
    data = folder_of(tmp_path / "colour", "RGB", (90, 70), 3)
    adapted = regrain.adapt(run, data, tmp_path / "adapted")
    assert adapted.classifier is not None
    judged = regrain.evaluate(run, data, split="all", protocols=["recall"], options={"ks": [1]}, baselines=False)
    assert all(np.isfinite(row.score.value) for row in judged.rows)
    found, _ = run.splits_of(regrain.load(data), "all", [])
    assert found["all"].samples.shape == (1, 40, 40)


def test_the_runs_own_data_stay_its_own(runs: dict[str, Run]) -> None:
    run = runs["I;16"]
    again = Run.open(run.path)
    own = again.splits()["train"]
    assert torch.equal(again.embed(own), run.embed(split="train"))
    assert "train" in run.splits_of(regrain.load(run.recipe["data"]["source"]), "all", [])[0]


def test_options_that_would_store_them_otherwise_are_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    run, source = runs["RGB"], runs["RGB"].recipe["data"]["source"]
    for option in ({"image_size": 20}, {"channels": 1}, {"white": 255}):
        name = next(iter(option))
        with pytest.raises(UserError, match=f"stores images at 40 x 40 pixels with 3 channels.*leave out {name}"):
            regrain.predict(run, source, tmp_path / "out.csv", **option)
    regrain.predict(run, source, tmp_path / "out.csv", image_size=40, channels=3)


def test_deep_pixels_are_scaled_by_the_run_not_by_their_own_maximum(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["I;16"]
    assert run.model.config["inputs"]["white"] == 4095
    assert any("is stored as 255" in notice and "4095" in notice for notice in run.notices)
    (tmp_path / "dim").mkdir()
    Image.fromarray(np.full((40, 40), 200, np.uint16)).save(tmp_path / "dim" / "0.png")
    data = regrain.load(tmp_path / "dim")
    assert data.samples.take(torch.tensor([0])).max() == 200  # of its own it is taken for one of 8 bits
    assert run.fitting(data).samples.take(torch.tensor([0])).max() == round(200 * 255 / 4095)
    with pytest.raises(UserError, match="was read with white=255; read it with white=4095"):
        run.embed(regrain.load(np.full((2, 1, 40, 40), 200, np.uint16)))


def test_what_is_dropped_is_told(tmp_path: Path) -> None:
    clear, moving = tmp_path / "clear", tmp_path / "moving"
    for place in (clear, moving):
        place.mkdir()
    picture(0, 30, 30, "RGBA").save(clear / "0.png")
    picture(1, 30, 30).save(clear / "1.png")
    told = " ".join(regrain.load(clear).notes["messages"])
    assert "1 of 2 images looked at have transparent pixels, which are stored as opaque; --channels 4" in told
    assert "transparent" not in " ".join(regrain.load(clear, channels=4).notes["messages"])
    assert "2 of 2 images looked at are not grey" in " ".join(regrain.load(clear, channels=1).notes["messages"])
    frames = [picture(index, 30, 30) for index in range(3)]
    frames[0].save(moving / "0.gif", save_all=True, append_images=frames[1:])
    assert "1 of 1 images looked at have several frames" in " ".join(regrain.load(moving).notes["messages"])


def test_the_cache_holds_each_form_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))
    data = folder_of(tmp_path / "deep", "I;16", count=1)
    found = {
        white: regrain.load(data, cache=True, white=white).samples.take(torch.tensor([0])).float().mean().item()
        for white in (4095, 65535, 1023)
    }
    assert found[65535] < found[4095] < found[1023]


def test_a_photograph_as_a_file_and_as_an_array(runs: dict[str, Run], tmp_path: Path) -> None:
    """JPEG decodes at a reduced scale: close to the whole picture resized, and the same whatever it is read with."""
    (tmp_path / "photo").mkdir()
    picture(5, 900, 1200).save(tmp_path / "photo" / "0.jpg", quality=95)
    from_file = runs["RGB"].embed(regrain.load(tmp_path / "photo"))
    array = np.asarray(Image.open(tmp_path / "photo" / "0.jpg"))
    from_array = runs["RGB"].embed(regrain.load(array[None]))
    assert torch.nn.functional.cosine_similarity(from_file, from_array).item() > 0.9999


def test_frozen_features_are_those_of_the_form(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "photos", "RGB")
    run = regrain.fit(
        "sup-ce", data, out=tmp_path / "run", encoder="conv4", frozen=True, settings=["epochs=1"], holdout=0
    )
    (tmp_path / "alone").mkdir()
    stream = io.BytesIO()
    picture(3, 70, 90).save(stream, "PNG")
    (tmp_path / "alone" / "0.png").write_bytes(stream.getvalue())
    (data / "cat" / "odd.png").write_bytes(stream.getvalue())
    company = regrain.load(data)
    place = company.ids.tolist().index("cat/odd.png")
    assert torch.allclose(run.embed(company)[place], run.embed(regrain.load(tmp_path / "alone"))[0], atol=1e-5)


def test_a_file_that_ends_like_an_image_and_is_none_is_called_so(runs: dict[str, Run], tmp_path: Path) -> None:
    for content in (b"", b"a text"):
        (tmp_path / "1.jpg").write_bytes(content)
        with pytest.raises(UserError, match=r"1\.jpg, is not an image in a known format"):
            next(iter(runs.values())).embed(tmp_path / "1.jpg")
