"""First of all a frozen encoder: its features are computed once and cached; judge them, then train an adapter on them.

With weights at hand (``--encoder facebook/dinov2-small``, or ``--pretrained`` with a model of timm's) this is the first
thing to do with your own photos. To run anywhere, the example stands in a small encoder with random weights.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import regrain


def main(data: str = "digits", encoder: str = "conv4") -> dict[str, float]:
    """Recall@1 of the finest classes: the frozen features as they are, and with an adapter trained on coarse labels."""
    warnings.simplefilter("ignore", regrain.RegrainWarning)  # that the stand-in's weights are random
    with tempfile.TemporaryDirectory() as folder:
        run = regrain.fit(
            "maskcon",
            data,
            encoder=encoder,
            frozen=True,
            out=Path(folder) / "run",
            settings=["epochs=10"],
            device="cpu",
        )
        figures = regrain.evaluate(run, protocols=["recall"])
    finest = figures.rows[-1].level
    scores = {row.representation: row.score for row in figures.rows if (row.level, row.metric) == (finest, "recall@1")}
    found = {"frozen": scores["raw"].value, "adapter": scores["model"].value}  # raw: what the frozen encoder gives
    print(f"recall@1 of {finest}:", ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
