"""Strong frozen encoders by their names: structure, view size and normalisation; the weights are random ones."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support import raises
from torch.nn import functional

import regrain
from regrain.encoders import build_encoder, encoder_config
from regrain.errors import RegrainWarning, UserError

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


def write_model(folder: Path, kind: str) -> Path:
    """A tiny model of transformers, as its hub repository would be."""
    transformers: Any = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision, text = SMALL | {"intermediate_size": 32}, {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 20}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1}
    if kind == "clip":
        model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))
    elif kind == "siglip":
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    elif kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**vision))
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}')
    return folder


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m"])
@pytest.mark.parametrize("size", [56, 64])
def test_names_of_timm(name: str, size: int) -> None:
    if size == 56 and "16" in name:
        with raises("wrong_shape"):
            build_encoder(name, modality="image", sample_shape=(3, size, size))
        return
    encoder = build_encoder(name, modality="image", sample_shape=(3, size, size), seed=0)
    assert encoder(torch.zeros(2, 3, size, size)).shape == (2, 384)


def test_weights_of_timm_in_a_file_fit_views_of_another_size(tmp_path: Path) -> None:
    name = "vit_small_patch14_dinov2.lvd142m"
    first = build_encoder(name, modality="image", sample_shape=(3, 56, 56), seed=0)
    save_file({key: value.contiguous() for key, value in first.net.state_dict().items()}, tmp_path / "w.safetensors")
    options: dict[str, Any] = {"modality": "image", "pretrained": str(tmp_path / "w.safetensors"), "seed": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RegrainWarning)
        other = build_encoder(name, sample_shape=(3, 84, 84), **options)
    assert other.net.pos_embed.shape[1] == 6 * 6 + 1
    grids = [encoder.net.pos_embed[:, 1:].unflatten(1, (side, side)) for encoder, side in ((first, 4), (other, 6))]
    resized = functional.interpolate(grids[0].permute(0, 3, 1, 2), (6, 6), mode="bicubic").permute(0, 2, 3, 1)
    assert functional.cosine_similarity(resized.flatten(), grids[1].flatten(), dim=0) > 0.9
    assert torch.equal(other.net.blocks[0].mlp.fc1.weight, first.net.blocks[0].mlp.fc1.weight)
    assert other.mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize("kind", ["dinov2", "clip", "siglip", "vit"])
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 42, 42)])
def test_models_of_transformers(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", kind)
    encoder = build_encoder(str(folder), modality="image", sample_shape=shape).eval()
    mean = (0.1, 0.2, 0.3) if shape[0] == 3 else (pytest.approx(0.2),)
    assert encoder.mean == mean
    assert encoder.origin == f"image model in {folder}"
    x = torch.randn(2, *shape)
    found = encoder(x)
    assert found.shape == (2, encoder.width) == (2, 16)
    encoder.save_extra(tmp_path / "saved")
    again = build_encoder(**encoder_config(encoder), folder=tmp_path / "saved").eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(x), found)
    assert again.mean == encoder.mean
    encoder(x).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_frozen_features_are_cached_and_a_run_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))
    folder = write_model(tmp_path / "model", "dinov2")
    data = regrain.load("digits")
    settings = ["epochs=1", "views.size=28"]
    run = regrain.fit("maskcon", data, encoder=str(folder), frozen=True, out=tmp_path / "run", settings=settings)
    assert list((tmp_path / "cache").rglob("*.npy"))
    before = run.embed(data, split="test")
    (folder / "model.safetensors").unlink()  # the run has all it needs
    again = regrain.Run.open(tmp_path / "run")
    torch.testing.assert_close(again.embed(data, split="test"), before)
    assert "leak notice" in (tmp_path / "run" / "card.md").read_text().lower()


def test_what_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrain.encoders.weights.why_no_download", lambda repository: "no network")
    options: dict[str, Any] = {"modality": "image", "sample_shape": (3, 28, 28)}
    with pytest.raises(UserError, match="could not load the image encoder 'facebook/dinov2-small': no network"):
        build_encoder("facebook/dinov2-small", **options)
    with pytest.raises(UserError, match="could not load the image encoder"):
        build_encoder(str(tmp_path), **options)
    folder = write_model(tmp_path / "model", "dinov2")
    with raises("conflicting_options"):
        build_encoder(str(folder), pretrained="weights.pth", **options)
    with raises("wrong_shape"):
        build_encoder(str(folder), modality="image", sample_shape=(4, 28, 28))


def test_a_folder_without_an_image_processor(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", "dinov2")
    (folder / "preprocessor_config.json").unlink()
    options: dict[str, Any] = {"modality": "image", "sample_shape": (3, 28, 28)}
    assert build_encoder(str(folder), **options).mean is None
    told = build_encoder(str(folder), **options, mean=[0.1, 0.2, 0.3], std=[1, 1, 1])
    assert told.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("saved", [True, False])
def test_code_beside_a_model_is_never_run(
    kind: str, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr("builtins.input", lambda question: "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / f"{kind}_encoder"
    folder.mkdir()
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import ViTConfig as Own, ViTModel as OwnModel\n"
    (folder / "own.py").write_text(code)
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(own))
    (folder / "preprocessor_config.json").write_text("{}")
    wanted: dict[str, Any] = {"modality": kind, "sample_shape": (3, 28, 28) if kind == "image" else ()}
    with pytest.raises(UserError, match="can rebuild" if saved else "could not load the"):
        build_encoder(str(folder), **wanted, **({"folder": tmp_path} if saved else {}))
    assert not (tmp_path / "ran").exists()
