"""What ``balance`` of mixed does to its classifier: accuracy and mean probability on the test split.

    python benchmarks/balance.py clinc150 domain intent --encoder minilm --root ../shared/data [--long-tailed]

The classifier sees 96 principal components of a frozen encoder's features. Of the training samples 5% are known to the
fine class, 60% to the coarse one alone; the fine labels are missing by chance, or where they are hard. With
--long-tailed the classes, of the test split too, have from 1 to 0.1 of their samples.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import regrain
from regrain.data.corruption import hide_labels
from regrain.data.dataset import Dataset
from regrain.methods.features import Features
from regrain.methods.level_classifier import LevelClassifier

COMPONENTS = 96


def long_tailed(data: Dataset, level: str) -> Dataset:
    """Classes of 1 to 0.1 of their samples, in an order of their own."""
    generator = np.random.default_rng(5)
    rows = data.rows_by_class(level, generator)
    shares = 0.1 ** generator.permutation(np.linspace(0, 1, len(data.labels.names(level))))
    codes = data.labels.level(level)
    kept = [own[: max(1, round(shares[int(codes[own[0]])] * len(own)))] for own in rows]
    return data.select(np.sort(np.concatenate(kept)))


def judged(classifier: LevelClassifier, x: Tensor, test: Dataset, level: str) -> tuple[float, float]:
    p = classifier.predict(x)[-1].detach()
    sure, found = p.max(dim=1)
    return float((found == test.labels.level(level)).float().mean()), float(sure.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("coarse")
    parser.add_argument("fine")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--size", type=int)
    parser.add_argument("--limit-per-class", type=int)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--long-tailed", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    levels = [options.coarse, options.fine]
    views = {"views.size": options.size} if options.size else {}
    with tempfile.TemporaryDirectory() as folder:
        run = regrain.fit(
            "features", options.data, encoder=options.encoder, frozen=True, root=options.root, out=f"{folder}/run",
            levels=levels, limit_per_class=options.limit_per_class, settings=views, progress=False,
        )  # fmt: skip
        parts = {name: run.splits()[name].with_levels(levels) for name in ("train", "test")}
        vectors = {name: run.embed(part) for name, part in parts.items()}
    centre = vectors["train"].mean(dim=0)
    axes = torch.linalg.svd(vectors["train"] - centre, full_matrices=False)[2][:COMPONENTS].T
    for name, part in parts.items():
        kept = part if not options.long_tailed else long_tailed(part, options.fine)
        rows = torch.from_numpy(np.flatnonzero(np.isin(part.ids, kept.ids)))
        parts[name], vectors[name] = kept, (vectors[name][rows] - centre) @ axes
    train, test = parts["train"], parts["test"]
    for seed in range(options.seeds):
        for mode in ("", ":hard"):
            shares = {options.coarse: 0.35, options.fine: f"0.95{mode}"}
            labels = hide_labels(train, shares, seed=seed, features=lambda _: vectors["train"]).labels
            present, every = len(labels.present(options.fine)), len(labels.names(options.fine))
            for balance in (0.0, 0.5, 1.0):
                classifier = LevelClassifier(COMPONENTS, [labels.counts[level] for level in levels])
                classifier.setup(labels)
                method = Features(torch.nn.Identity(), [])
                seen = [(vectors["train"], labels.codes, torch.arange(len(train)))]
                classifier.solve(method, lambda seen=seen: seen, lambda x: x, [100.0], [0.3], balance)
                right, sure = judged(classifier, vectors["test"], test, options.fine)
                print(
                    f"{options.data}{' long-tailed' * options.long_tailed}, seed {seed}, missing "
                    f"{'where hard' if mode else 'by chance'} ({present} of {every} classes have a label), balance "
                    f"{balance:g}: right {100 * right:.1f}, mean probability {100 * sure:.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
