"""``export`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from support import Command

from regrain.cli.build import parameters_of
from regrain.runs.export import FORMATS


def test_export_says_how_the_file_is_loaded(regrain: Command, tmp_path: Path) -> None:
    fit = ["fit", "maskcon", "digits", "--encoder", "resnet18", "--out", "run", "--limit-per-class", "2", "-q"]
    code, _, err = regrain(*fit, "--epochs", "1", "--set", "views.size=16", "--device", "cpu")
    assert code == 0, err

    code, out, err = regrain("export", "run", "--format", "timm")
    assert code == 0, err
    file = tmp_path / "run" / "export" / "run-timm.safetensors"
    assert f"tensors written to {file.relative_to(tmp_path)}" in out
    assert "grey images (B, 1, 16, 16)" in out
    assert "    net.maxpool = torch.nn.Identity()" in out
    net = timm.create_model("resnet18", num_classes=0, in_chans=1)
    net.conv1 = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)
    net.load_state_dict(load_file(file))

    code, out, err = regrain("export", "run", "-f", "onnx", "--out", "digits.onnx", "--json")
    assert code == 0, err
    kept = json.loads(out)
    assert (kept["out"], kept["format"]) == ("digits.onnx", "onnx")
    assert "largest difference" in kept["notices"][0]
    assert (tmp_path / "digits.onnx").exists()

    for arguments, expected in (
        (("run", "-f", "timm"), "--overwrite"),
        (("run", "-f", "torchvision"), "formats that fit this run: timm or safetensors or onnx"),
        (("run", "-f", "detectron2"), "small_stem=false"),
        (("run", "-f", "timm", "--out", "x.bin"), ".safetensors, .pth"),
        (("run", "-f", "keras"), "keras"),
        (("nowhere", "-f", "timm"), "nowhere"),
    ):
        code, _, err = regrain("export", *arguments)
        assert (code, expected in err) == (2, True), (arguments, err)


def test_every_format_can_be_asked_for() -> None:
    assert set(parameters_of("regrain.verbs.export:export")["format"].choices) == {*FORMATS, "hub"}
