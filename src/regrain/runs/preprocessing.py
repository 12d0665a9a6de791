"""A script of NumPy and Pillow that reads image files as a model was given them, and predicts by its ONNX graph."""

from __future__ import annotations

import json

from regrain.data.images import MODES
from regrain.model import Model


def preprocessing_script(model: Model, graph: str, description: str) -> str:
    """The text of a script that works where Regrain is not installed.

    ``model``: of images. ``graph``, ``description``: names of the ONNX file and of its JSON, which lie where the script
    will.
    """
    form, inputs = model.storage, model.config["inputs"]
    assert form is not None
    channels, height, width = form.shape
    values = {
        "mode": MODES[channels],
        "stored": (height, width),
        "white": form.white,
        "size": inputs["size"],
        "mean": list(inputs["mean"]),
        "std": list(inputs["std"]),
    }
    lines = "\n".join(f"{name.upper()} = {_quoted(value)}" for name, value in values.items())
    names = f"GRAPH, ABOUT = {_quoted(graph)}, {_quoted(description)}"
    return _SCRIPT.replace("# CONSTANTS", f"{names}\n{lines}", 1)


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


_SCRIPT = '''"""Reads image files as GRAPH takes them, and predicts: python THIS_FILE PHOTO ...

Needs NumPy and Pillow, and onnxruntime to predict.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# CONSTANTS


def preprocess(path):
    """An image file as the graph takes it: float32 (channels, SIZE, SIZE)."""
    with Image.open(path) as image:
        image.draft(MODE, (2 * max(STORED), 2 * max(STORED)))
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError(f"{path}: floating-point pixels have no known range")
        if image.mode.startswith("I"):  # more than 8 bits
            pixels = np.asarray(image).clip(0, WHITE) * (255 / WHITE)
            image = Image.fromarray(pixels.round().astype(np.uint8))
        if image.mode in ("La", "RGBa"):
            image = image.convert(image.mode[:-1] + "A")
        image = image.convert(MODE)
    if image.size != STORED[::-1]:
        image = ImageOps.fit(image, STORED[::-1], Image.Resampling.BILINEAR)
    side = min(STORED)
    top, left = (STORED[0] - side) // 2, (STORED[1] - side) // 2
    image = image.crop((left, top, left + side, top + side))
    channels = [channel.convert("F").resize((SIZE, SIZE), Image.Resampling.BILINEAR) for channel in image.split()]
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (MEAN, STD))
    return (np.stack([np.asarray(channel) for channel in channels]) / np.float32(255) - mean) / std


def predict(paths):
    """The graph's outputs by name, a row an image, and what its JSON says of them."""
    import onnxruntime

    folder = Path(__file__).resolve().parent
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(folder / GRAPH)
    values = session.run(about["outputs"], {"image": np.stack([preprocess(path) for path in paths])})
    return dict(zip(about["outputs"], values)), about


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    found, about = predict(sys.argv[1:])
    for row, path in enumerate(sys.argv[1:]):
        answer = {"id": path}
        for level, made in about.get("levels", {}).items():
            best = int(found[made["output"]][row].argmax())
            answer[level] = made["classes"][best]
            answer[level + "_probability"] = round(float(found[made["output"]][row, best]), 6)
        if "abstained" in found:
            answer["abstained"] = bool(found["abstained"][row])
        print(json.dumps(answer, ensure_ascii=False))
'''
