"""How well a classifier of a few shots knows what it does not know: texts out of scope, photos of other shops.

    python benchmarks/abstention.py RUN --root DATA                  # RUN: any run on texts with a frozen encoder
    python benchmarks/abstention.py RUN --root DATA --data grocery   # RUN: any run on images with a frozen encoder

CLINC150: for 5 and 10 training texts an intent, accuracy on the test split, the area under the ROC curve of in-scope
against the 1000 out-of-scope test texts by typicality and by the calibrated probability, the shares abstained from,
in all and as unlike the support alone, and calibration. Grocery: the support is of training photos; accuracy, the
share abstained from and the share right of the answers on the other training photos, of the same shops, and on the
test photos, of others. Classes with fewer training samples than shots and one more are left out. Means over support
draws; --precision and --confidence as for `regrain adapt`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from regrain import Run, load
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import embed
from regrain.model import Model
from regrain.runs.classifier import FewShotClassifier, Named, fit_classifier

LEVELS = {"clinc150": "intent", "grocery": "fine"}


def features(model: Model, data: Dataset, *, frozen: bool) -> torch.Tensor:
    """The frozen encoder's features, or the run's embeddings on top of them."""
    if not frozen:
        return embed(model, data)
    table = model.featurised(data)
    return table.samples.take(torch.arange(len(table)))


def drawn(labels: torch.Tensor, shots: int, draw: int) -> tuple[np.ndarray, torch.Tensor]:
    """Rows of so many samples of every class that has one more, and which classes these are."""
    random, counts = np.random.default_rng(draw), torch.bincount(labels[labels >= 0])
    classes = (counts > shots).nonzero()[:, 0]
    rows = [random.choice((labels == c).nonzero()[:, 0], shots, False) for c in classes.tolist()]
    return np.concatenate(rows), classes


def of_scope(classifier: FewShotClassifier, inside: Named, outside: Named, labels: torch.Tensor) -> dict[str, float]:
    """Figures of samples of the classes and of samples of none."""
    right, least = inside.codes == labels, classifier.threshold or -1.0
    scope = np.repeat([1, 0], [len(right), len(outside.codes)])
    return {
        "accuracy": float(right.double().mean()),
        "accuracy where not abstained": float(right[~inside.abstained].double().mean()),
        "mean probability": float(inside.probabilities.mean()),
        "AUROC by typicality": float(roc_auc_score(scope, torch.cat([inside[2], outside[2]]).numpy())),
        "AUROC by probability": float(roc_auc_score(scope, torch.cat([inside[1], outside[1]]).numpy())),
        "abstained in scope": float(inside.abstained.double().mean()),
        "abstained out of scope": float(outside.abstained.double().mean()),
        "of these unlike, in scope": float((inside.typicality < least).double().mean()),
        "of these unlike, out of scope": float((outside.typicality < least).double().mean()),
        "accuracy where not unlike": float(right[inside.typicality >= least].double().mean()),
        "C": classifier.inverse_penalty,
    }


def of_shift(named: Named, labels: torch.Tensor, where: str) -> dict[str, float]:
    """Figures of samples of the classes."""
    right, said = named.codes == labels, ~named.abstained
    return {
        f"accuracy, {where}": float(right.double().mean()),
        f"abstained, {where}": float(named.abstained.double().mean()),
        f"right of the answers, {where}": float(right[said].double().mean()),
        f"mean probability, {where}": float(named.probabilities.mean()),
    }


def main() -> None:
    """Print the figures of every number of shots and representation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--root", type=Path, required=True, help="the folder with clinc150/ and grocery/")
    parser.add_argument("--data", choices=tuple(LEVELS), default="clinc150")
    parser.add_argument("--shots", type=int, nargs="*", default=[5, 10])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--abstain", type=float, default=0.05)
    parser.add_argument("--precision", type=float)
    parser.add_argument("--confidence", type=float)
    parser.add_argument("--frozen-only", action="store_true")
    arguments = parser.parse_args()
    model, level = Run.open(arguments.run).model, LEVELS[arguments.data]
    data = load(arguments.data, root=arguments.root)
    parts = {"train": data.split("train"), "test": data.split("test")}
    if arguments.data == "clinc150":
        strange = pd.read_parquet(arguments.root / "clinc150" / "oos.parquet")
        parts["strange"] = load(strange[strange["split"] == "test"]["text"].tolist())
    else:
        parts = {name: model.fitting(part, arguments.run) for name, part in parts.items()}
    labels = {name: parts[name].labels.level(level) for name in ("train", "test")}
    for frozen in (True,) if arguments.frozen_only else (True, False):
        vectors = {name: features(model, part, frozen=frozen) for name, part in parts.items()}
        for shots in arguments.shots:
            figures: list[dict[str, float]] = []
            for draw in range(arguments.draws):
                rows, classes = drawn(labels["train"], shots, draw)
                place = torch.full((len(data.labels.names(level)) + 1,), -1)
                place[classes] = torch.arange(len(classes))
                codes = {name: place[own] for name, own in labels.items()}
                try:
                    classifier = fit_classifier(
                        vectors["train"][rows],
                        codes["train"][rows],
                        level=level,
                        classes=tuple(data.labels.names(level)[c] for c in classes.tolist()),
                        abstain=arguments.abstain,
                        precision=arguments.precision,
                        confidence=arguments.confidence,
                    )
                except UserError as error:
                    print(f"{shots} shots, draw {draw}: {error}", flush=True)
                    continue
                tested = codes["test"] >= 0
                named = classifier.name(vectors["test"][tested])
                if "strange" in vectors:
                    outside = classifier.name(vectors["strange"])
                    figures.append(of_scope(classifier, named, outside, codes["test"][tested]))
                    continue
                kept = codes["train"] >= 0
                kept[rows] = False
                same = classifier.name(vectors["train"][kept])
                figures.append(
                    {"classes": float(len(classes))}
                    | of_shift(same, codes["train"][kept], "same shops")
                    | of_shift(named, codes["test"][tested], "other shops")
                )
            if figures:
                means = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
                print(f"{'frozen features' if frozen else 'run'}, {shots} shots, {len(figures)} draws", flush=True)
                for name, value in means.items():
                    print(f"  {name:<36}{value:.3f}", flush=True)


if __name__ == "__main__":
    main()
