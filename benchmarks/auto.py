"""`regrain auto` with default settings, judged by labels that it does not see; and its criterion beside the truth.

    python benchmarks/auto.py --root DATA --out runs/auto
    python benchmarks/auto.py --root DATA --out runs/auto --data grocery clinc150 --methods

Each data set goes through `regrain auto DATA --coarse LEVEL` (TripAdvisor's aspects: no level is hidden, its test
samples are). The run that it ends with and the untouched features are then compared on the test split: by recall@1 of
the finest level, or by the share of aspects that logistic regressions on the embedding name; with the 95% bootstrap
interval of the paired difference. With ``--methods`` all methods that were compared are trained on the whole training
split too, and shown by what the choice saw (merged classes told apart on held-out training samples) and by the truth.

CIFAR-100 is drawn from: 40 training and 20 test images of each of the 100 classes, by seed 0.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import regrain
from regrain.automatic import FEATURES, Auto, probed
from regrain.data.corruption import limit_per_class
from regrain.data.dataset import Dataset
from regrain.metrics import bootstrap_interval, nearest_neighbours

COARSE = {"clinc150": "domain", "grocery": "coarse", "cifar100": "superclass", "hapt": "coarse", "tripadvisor": None}


def loaded(name: str, root: str | None) -> Dataset:
    """A data set; of CIFAR-100 a sample."""
    data = regrain.load(name, root=root)
    if name != "cifar100":
        return data
    train, test = limit_per_class(data.split("train"), 40), limit_per_class(data.split("test"), 20)
    kept = set(train.ids.tolist()) | set(test.ids.tolist())
    return data.select(torch.tensor([sample in kept for sample in data.ids.tolist()]))


def hits(run: regrain.Run, data: Dataset) -> np.ndarray:
    """Of each test sample, in [0, 1]."""
    test = data.split("test")
    vectors = functional.normalize(run.embed(test), dim=1)
    if test.labels.taxonomy is None:
        train = data.split("train")
        return probed(run.embed(train), train.labels.codes, vectors, test.labels.codes)
    finest = test.labels.codes[:, -1]
    vectors, finest = vectors[finest >= 0], finest[finest >= 0]
    nearest = nearest_neighbours(vectors, vectors, 1, exclude_self=True)[1][:, 0]
    return (finest[nearest] == finest).double().numpy()


def compared(own: np.ndarray, raw: np.ndarray) -> str:
    """The mean, that of the features, and the interval of the difference, in points."""
    mean, low, high = bootstrap_interval(own - raw, seed=0)
    return (
        f"{100 * own.mean():.1f} | {100 * raw.mean():.1f} | {100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    )


def features_of(chosen: Auto, data: Dataset) -> regrain.Run:
    """The untouched features that the choice compared with."""
    tried = sorted((chosen.folder / "tried").glob(f"{FEATURES}*"))[-1]
    return regrain.Run(regrain.Run.open(tried).folder, data)


def judged(name: str, options: argparse.Namespace) -> None:
    """Print the rows of one data set."""
    data, coarse, started = loaded(name, options.root), COARSE[name], time.monotonic()
    chosen = regrain.auto(data, coarse=coarse, out=options.out / name, budget=options.budget, seed=options.seed)
    minutes = (time.monotonic() - started) / 60
    raw = hits(features_of(chosen, data), data)
    print(f"| {name} | {chosen.method} | {compared(hits(chosen.run, data), raw)} | {minutes:.0f} |", flush=True)
    for contender in chosen.contenders if options.methods else ():
        truth = raw
        if contender.method != FEATURES:
            place = options.out / f"{name}-{contender.name}"
            if (place / "model" / "config.json").exists():
                run = regrain.Run(regrain.Run.open(place).folder, data)
            else:
                settings = {"encoder.frozen": False} if contender.fine_tuned else {}
                run = regrain.fit(
                    contender.method,
                    data,
                    out=place,
                    coarse=coarse,
                    seed=options.seed,
                    overwrite=True,
                    settings=settings,
                )
            truth = hits(run, data)
        seen = "" if contender.score is None else f"{100 * contender.score:.1f}"
        print(f"|   | {contender.name} | seen {seen} | truth {100 * truth.mean():.1f} |", flush=True)


def main() -> None:
    """Print a row for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root")
    parser.add_argument("--out", type=Path, default=Path("runs/auto"))
    parser.add_argument("--data", nargs="+", choices=list(COARSE), default=list(COARSE))
    parser.add_argument("--budget", type=float, default=30.0, help="minutes, as of regrain auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", action="store_true")
    options = parser.parse_args()
    print("| data | taken | the run | the features | difference (95%) | minutes |", flush=True)
    for name in options.data:
        judged(name, options)


if __name__ == "__main__":
    main()
