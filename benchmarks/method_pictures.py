"""The pictures of the method pages: which samples of a toy each method brings together.

    python benchmarks/method_pictures.py            # writes docs/images/methods-*.png; a minute or two

Vectors of 12 numbers, three superclasses of three hidden subclasses each. Every method trains the same small network
with its default settings and one seed. A panel has a row and a column for each test sample, in the order of the
classes; the lighter a point, the more alike the embeddings of the two samples (cosine).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image
from torch.nn import functional

import regrain

matplotlib.use("Agg")
from matplotlib import pyplot

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
FAMILIES = {
    "contrast": ("maskcon", "grafit", "coins", "supcon", "supcon-queue", "selfcon", "simclr", "nnclr"),
    "subclasses": ("scgm", "scgm-a", "ancor", "george", "falcon", "sela"),
    "superclasses": ("sclre", "tsc", "sup-ce"),
    "levels": ("mixed", "mlcl", "himulcone", "guided", "taxon-ssl", "multi-ce"),
    "without-labels": ("self-classifier", "scan", "turtle", "simclr"),
    "classifiers": ("sup-ce", "coarse+", "sup-fine", "fine+"),
}
SUPERCLASSES, EACH, WIDTH, TRAIN, TEST = 3, 3, 12, 60, 14


def toy() -> pd.DataFrame:
    """Superclasses that differ much, subclasses that differ less, and noise."""
    generator = np.random.default_rng(0)
    coarse = 2.2 * generator.normal(size=(SUPERCLASSES, 1, WIDTH)) / np.sqrt(WIDTH) * 2
    fine = coarse + 1.6 * generator.normal(size=(SUPERCLASSES, EACH, WIDTH)) / np.sqrt(WIDTH) * 2
    rows = []
    for above in range(SUPERCLASSES):
        for sub in range(EACH):
            for number in range(TRAIN + TEST):
                values = fine[above, sub] + 0.8 * generator.normal(size=WIDTH)
                named = {f"x{i}": value for i, value in enumerate(values)}
                split = "train" if number < TRAIN else "test"
                rows.append({"split": split, "coarse": f"c{above}", "fine": f"c{above}s{sub}", **named})
    return pd.DataFrame(rows)


def likeness(method: str, data: pd.DataFrame, folder: str) -> np.ndarray:
    """Cosines of the test samples' embeddings: (n, n)."""
    run = regrain.fit(
        method,
        data,
        levels=["coarse", "fine"],
        encoder="mlp",
        epochs=40,
        batch_size=64,
        out=f"{folder}/{method.replace('+', '-plus')}",
        device="cpu",
    )
    unit = functional.normalize(run.embed(run.splits()["test"]), dim=1)
    return (unit @ unit.T).numpy()


def draw(panels: dict[str, np.ndarray], out: Path) -> None:
    lines = -(-len(panels) // 5)
    columns = -(-len(panels) // lines)  # as many in each line as may be: few empty places
    figure, boxes = pyplot.subplots(lines, columns, figsize=(1.75 * columns, 2.0 * lines), squeeze=False)
    for box in boxes.flat:
        box.set_axis_off()
    for box, (name, found) in zip(boxes.flat, panels.items(), strict=False):
        box.imshow(found, vmin=-0.2, vmax=1, cmap="viridis", interpolation="nearest")
        box.set_title(name, fontsize=9)
        for border in range(1, SUPERCLASSES * EACH):
            thick = 0.9 if border % EACH == 0 else 0.25
            for line in (box.axhline, box.axvline):
                line(border * TEST - 0.5, color="white", linewidth=thick)
    figure.tight_layout(pad=0.4)
    # tight_layout leaves out the titles of images whose height follows from their width
    figure.savefig(out, dpi=110, facecolor="white", bbox_inches="tight", pad_inches=0.06, metadata={"Software": None})
    pyplot.close(figure)
    _fewer_colours(out)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def _fewer_colours(picture: Path) -> None:
    """A third of the bytes, and the eye sees no difference."""
    Image.open(picture).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(picture, optimize=True)


def main() -> None:
    data = toy()
    found: dict[str, np.ndarray] = {}
    test = data[data["split"] == "test"].filter(like="x").to_numpy()
    unit = test / np.linalg.norm(test, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        for family, methods in FAMILIES.items():
            for method in methods:
                if method not in found:
                    found[method] = likeness(method, data, folder)
            draw({"input": unit @ unit.T} | {m: found[m] for m in methods}, IMAGES / f"methods-{family}.png")


if __name__ == "__main__":
    main()
