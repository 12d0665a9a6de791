"""Proposed names of subclasses: keywords against a naive loop, columns, nouns by a tiny CLIP; where they are shown."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.data.taxonomies import nouns
from regrain.encoders import build_encoder
from regrain.labels import Labels
from regrain.model import Model
from regrain.runs.naming import keywords, proposed_names

TEXTS = {
    "account": [
        "transfer money to savings",
        "transfer the money",
        "what is my savings balance",
        "savings transfer fee",
    ],
    "weather": ["will it rain tomorrow", "rain or sun tomorrow", "is sun expected", "how much rain is expected"],
}


def test_keywords_against_a_naive_loop() -> None:
    texts, classes = [t for own in TEXTS.values() for t in own], np.repeat([7, 3], 4)
    stop = {"to", "the", "what", "is", "my", "will", "it", "or", "how", "much"}
    counts = {
        c: Counter(w for t, k in zip(texts, classes, strict=True) if k == c for w in t.split() if w not in stop)
        for c in (3, 7)
    }
    total = counts[3] + counts[7]
    mean = sum(total.values()) / 2
    found = keywords(texts, classes, count=4)
    for c, own in counts.items():
        weights = {w: n / sum(own.values()) * np.log(1 + mean / total[w]) for w, n in own.items()}
        assert set(found[c]) <= set(weights)
        best = sorted(weights.values(), reverse=True)[: len(found[c])]
        assert sorted((weights[w] for w in found[c]), reverse=True) == pytest.approx(best)
    assert found[7][:2] in (["savings", "transfer"], ["transfer", "savings"])
    assert keywords(["transfers transfer", "rain"], np.array([0, 1]))[0] in (["transfer"], ["transfers"])
    assert keywords(["12 34", "!"], np.array([0, 1])) == {}
    assert keywords(["", "rain", ""], np.array([0, 1, 2])) == {0: [], 1: ["rain"], 2: []}


def test_texts_are_given_keywords_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    rows = [
        {"text": " ".join(generator.permutation(own[i % 4].split())), "kind": "talk"}
        for i in range(40)
        for own in TEXTS.values()
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    run = regrain.fit(
        "kmeans", tmp_path / "t.csv", levels=[], encoder="hash-text", out=tmp_path / "run", settings=["subclasses=2"]
    )
    found = regrain.discover(run)
    words = {s.number: s.proposed_name for s in found.subclasses}
    assert {name for name in words.values() if "rain" in name}
    assert {name for name in words.values() if "savings" in name}
    told = json.loads((run.path / "discovery" / "discovery.json").read_text())["subclasses"]
    assert {s["number"]: s["proposed_name"] for s in told} == words
    table = pd.read_parquet(run.path / "discovery" / "samples.parquet")
    assert table["proposed_name"].tolist() == [words[z] for z in table["subclass"]]
    from regrain.cli.main import app

    app(["discover", str(run.path)], standalone_mode=False)
    assert "proposed name" in capsys.readouterr().out


def columns_model(width: int) -> Model:
    encoder = build_encoder("identity", modality="vector", sample_shape=(width,), seed=0)
    return Model.build("features", {}, [], encoder, {"modality": "vector", "shape": [width]})


def test_records_are_told_by_the_columns_that_deviate_from_siblings() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, 4))
    codes = np.arange(120) % 4
    x[:, 0] += 10 * (codes >= 2)  # what the superclasses differ in says nothing
    x[:, 1] += 3 * (codes == 0)
    x[:, 2] -= 2 * (codes == 2)
    x[::7, 1] = np.nan
    x[:, 3] = 1.0
    data = Dataset(
        TensorSamples(torch.from_numpy(x).float(), "vector"),
        Labels.empty(120),
        np.arange(120).astype(str),
        notes={"columns": ["height", "weight", "age", "constant"]},
    )
    above: dict[int, str | None] = {0: "a", 1: "a", 2: "b", 3: "b"}
    found = proposed_names(
        columns_model(4), [data.select(np.arange(50)), data.select(np.arange(50, 120))], codes, above, {}
    )
    own, other = x[codes == 0, 1], x[codes == 1, 1]
    apart = (np.nanmean(own) - np.nanmean(other)) / np.nanstd(np.concatenate([own, other]))
    assert found[0].startswith(f"weight {apart:+.1f} sd")
    assert found[1].startswith(f"weight {-apart:+.1f} sd")
    assert found[2].startswith("age -")
    assert "height" not in " ".join(found.values())
    assert "constant" not in " ".join(found.values())
    assert proposed_names(columns_model(4), [replace(data, notes={})], codes, above, {}) == {}


def tiny_clip(folder: Path) -> Any:
    transformers: Any = pytest.importorskip("transformers")
    torch.manual_seed(0)
    letters = [chr(c) for c in range(97, 123)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: code for code, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(folder)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ids = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = small | ids | {"vocab_size": len(words), "max_position_embeddings": 40}
    vision = small | {"image_size": 28, "patch_size": 14}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}')
    return model.eval(), tokenizer


def test_images_are_named_by_the_nearest_noun_of_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, tokenizer = tiny_clip(tmp_path / "clip")
    words = ("cat", "dog", "heron", "teapot")
    monkeypatch.setattr("regrain.runs.naming.nouns", lambda: words)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 28, 28), dtype=torch.uint8, generator=generator)
    images[12:] //= 8
    data = regrain.load(images.numpy(), layout="NCHW")
    run = regrain.fit(
        "kmeans", data, encoder=str(tmp_path / "clip"), frozen=True, out=tmp_path / "run", settings=["subclasses=2"],
        holdout=0,
    )  # fmt: skip
    found = regrain.discover(run)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    with torch.no_grad():
        pixels = whole.visual_projection(whole.vision_model(pixel_values=(images / 255 - mean) / std).pooler_output)
        tokens = tokenizer([f"a photo of a {w}" for w in words], padding=True, return_tensors="pt")
        texts = whole.text_projection(whole.text_model(**tokens).pooler_output)
    unit = torch.nn.functional.normalize
    for s in found.subclasses:
        rows = [int(i) for i in s.exemplars]
        mean_image = unit(pixels[rows], dim=1).mean(dim=0)
        assert s.proposed_name == words[int((unit(texts, dim=1) @ mean_image).argmax())]
    (tmp_path / "clip" / "model.safetensors").unlink()  # without the other tower there is no proposal
    assert {s.proposed_name for s in regrain.discover(run).subclasses} == {""}


def test_nouns_are_many_and_differ() -> None:
    found = nouns()
    assert len(found) == len(set(found)) > 1000
    assert not any(name.startswith("dummy") or "," in name for name in found)
