"""Doubtful labels found by confident learning as `regrain clean` does it, and by cleanlab on the same probabilities.

    pip install cleanlab
    python benchmarks/clean.py --root DATA --seeds 0 1 2

5% of the training labels of the finest level are replaced: by a sibling, another class of the same superclass, or by
any other class. Probabilities are those of `regrain clean`: a logistic regression on the frozen features, five folds.
The score is judged by its average precision at ranking the replaced labels first (cleanlab's three scores are shown
too), the labels that are called wrong by precision and recall (so are cleanlab's two usual filters).
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from torch.nn import functional

import regrain
from regrain.metrics import label_quality
from regrain.metrics.logistic import probe_probabilities

SUPERCLASS = {"clinc150": "domain", "grocery": "coarse"}
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FILTERS = ("prune_by_noise_rate", "confident_learning")


def flipped(fine: np.ndarray, coarse: np.ndarray, to: str, generator: np.random.Generator) -> np.ndarray:
    """Labels (N,) of which 5% are replaced, among those that have something to be replaced by."""
    owner = dict(zip(fine.tolist(), coarse.tolist(), strict=True))
    classes = np.unique(fine)
    others = {
        c: [d for d in classes.tolist() if d != c and (to == "any class" or owner[d] == owner[c])]
        for c in classes.tolist()
    }
    able = np.flatnonzero([bool(others[c]) for c in fine.tolist()])
    result = fine.copy()
    for row in generator.choice(able, round(0.05 * len(fine)), replace=False):
        result[row] = generator.choice(others[int(fine[row])])
    return result


def probabilities(vectors: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """(N, C) of five folds."""
    found = np.zeros((len(given), int(given.max()) + 1))
    x, y = torch.from_numpy(vectors), torch.from_numpy(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes of fewer samples than folds
        parts = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(vectors, given))
    for others, held in parts:
        found[held] = probe_probabilities(x[others], y[others], x[held], inverse_penalty=10.0).numpy()
    return found


def marked(name: str, doubtful: np.ndarray, wrong: np.ndarray) -> str:
    """Precision and recall of the labels that are called wrong."""
    hits = (doubtful & wrong).sum()
    return f"{name} {100 * hits / max(doubtful.sum(), 1):.0f} / {100 * hits / wrong.sum():.0f}"


def main() -> None:
    """Print a row for each data set, kind of noise and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root")
    parser.add_argument("--data", nargs="+", choices=list(SUPERCLASS), default=list(SUPERCLASS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--each", type=int, help="training samples of a fine class; default all")
    options = parser.parse_args()
    for name in options.data:
        data = regrain.load(name, root=options.root)
        corruption = {} if options.each is None else {"limit_per_class": options.each}
        with tempfile.TemporaryDirectory() as folder:
            run = regrain.fit("features", data, out=Path(folder) / "run", **corruption)
            train = run.splits()["train"]
            vectors = functional.normalize(run.embed(train), dim=1).numpy()
        codes = torch.stack([train.labels.level(SUPERCLASS[name]), train.labels.codes[:, -1]], dim=1).numpy()
        coarse, fine = codes[:, 0], np.unique(codes[:, 1], return_inverse=True)[1]
        kept = np.bincount(fine)[fine] > 1
        vectors, coarse, fine = vectors[kept], coarse[kept], np.unique(fine[kept], return_inverse=True)[1]
        for to in ("siblings", "any class"):
            for seed in options.seeds:
                given = flipped(fine, coarse, to, np.random.default_rng(seed))
                wrong, proba = given != fine, probabilities(vectors, given, seed)
                quality = label_quality(proba, given)
                scores = {"regrain": 1 - quality.score.numpy()}
                scores |= {f"cleanlab {s}": 1 - get_label_quality_scores(given, proba, method=s) for s in SCORES}
                ranked = ", ".join(f"{n} {average_precision_score(wrong, s):.3f}" for n, s in scores.items())
                calls = [marked("regrain", quality.doubtful.numpy(), wrong)]
                for way in FILTERS:
                    calls.append(marked(f"cleanlab {way}", find_label_issues(given, proba, filter_by=way), wrong))
                print(f"{name}, {len(fine)} labels, to {to}, seed {seed}: average precision {ranked}", flush=True)
                print(f"    precision / recall of those called wrong: {', '.join(calls)}", flush=True)


if __name__ == "__main__":
    main()
