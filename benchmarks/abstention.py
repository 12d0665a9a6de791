"""How well a classifier of a few shots tells CLINC150's out-of-scope texts from those of its 150 intents.

    python benchmarks/abstention.py RUN --root DATA         # RUN: any run on texts with a frozen encoder

For 5 and 10 training texts an intent: accuracy on the test split, the area under the ROC curve of in-scope against the
1000 out-of-scope test texts by typicality (what abstention goes by) and by the calibrated probability, the shares
abstained from, in all and as unlike the support alone, and calibration. Means over support draws.
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
from regrain.evaluation import embed
from regrain.model import Model
from regrain.runs.classifier import fit_classifier

LEVEL = "intent"


def features(model: Model, data: Dataset, *, frozen: bool) -> torch.Tensor:
    """The frozen encoder's features, or the run's embeddings on top of them."""
    if not frozen:
        return embed(model, data)
    table = model.featurised(data)
    return table.samples.take(torch.arange(len(table)))


def main() -> None:
    """Print one line a number of shots and representation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--root", type=Path, required=True, help="the folder with clinc150/")
    parser.add_argument("--shots", type=int, nargs="*", default=[5, 10])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--abstain", type=float, default=0.05)
    parser.add_argument("--precision", type=float)
    parser.add_argument("--confidence", type=float)
    parser.add_argument("--frozen-only", action="store_true")
    arguments = parser.parse_args()
    model = Run.open(arguments.run).model
    data = load("clinc150", root=arguments.root)
    strange = pd.read_parquet(arguments.root / "clinc150" / "oos.parquet")
    parts = {
        "train": data.split("train"),
        "test": data.split("test"),
        "strange": load(strange[strange["split"] == "test"]["text"].tolist()),
    }
    labels = {name: parts[name].labels.level(LEVEL) for name in ("train", "test")}
    for frozen in (True,) if arguments.frozen_only else (True, False):
        vectors = {name: features(model, part, frozen=frozen) for name, part in parts.items()}
        for shots in arguments.shots:
            figures = []
            for draw in range(arguments.draws):
                random = np.random.default_rng(draw)
                classes = data.labels.names(LEVEL)
                rows = np.concatenate(
                    [random.choice((labels["train"] == c).nonzero()[:, 0], shots, False) for c in range(len(classes))]
                )
                classifier = fit_classifier(
                    vectors["train"][rows],
                    labels["train"][rows],
                    level=LEVEL,
                    classes=classes,
                    abstain=arguments.abstain,
                    precision=arguments.precision,
                    confidence=arguments.confidence,
                )
                inside, outside = classifier.name(vectors["test"]), classifier.name(vectors["strange"])
                right, least = inside.codes == labels["test"], classifier.threshold or -1.0
                scope = np.repeat([1, 0], [len(right), len(outside.codes)])
                figures.append(
                    {
                        "accuracy": float(right.double().mean()),
                        "accuracy where not abstained": float(right[~inside.abstained].double().mean()),
                        "mean probability": float(inside.probabilities.mean()),
                        "AUROC by typicality": roc_auc_score(scope, torch.cat([inside[2], outside[2]]).numpy()),
                        "AUROC by probability": roc_auc_score(scope, torch.cat([inside[1], outside[1]]).numpy()),
                        "abstained in scope": float(inside.abstained.double().mean()),
                        "abstained out of scope": float(outside.abstained.double().mean()),
                        "of these unlike, in scope": float((inside.typicality < least).double().mean()),
                        "of these unlike, out of scope": float((outside.typicality < least).double().mean()),
                        "accuracy where not unlike": float(right[inside.typicality >= least].double().mean()),
                        "C": classifier.inverse_penalty,
                    }
                )
            means = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
            print(f"{'frozen features' if frozen else 'run'}, {shots} shots, {arguments.draws} draws", flush=True)
            for name, value in means.items():
                print(f"  {name:<30}{value:.3f}", flush=True)


if __name__ == "__main__":
    main()
