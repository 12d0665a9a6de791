"""Hidden subclasses by `regrain discover --refine`, round by round, from frozen features.

    python benchmarks/refinement.py clinc150 --root DATA --seeds 0 1 2
    python benchmarks/refinement.py clinc150 --root DATA --seeds 0 1 2 --unequal
    python benchmarks/refinement.py grocery --root DATA --seeds 0 1 2

The start is k-means within each superclass on the features of a method that reads superclasses alone, or on untouched
features (``--method features``). With ``--unequal`` every domain of CLINC150 keeps 3 to 15 of its intents, how many and
which drawn once with seed 0. Numbers of clusters are given (in all, in proportion to the superclasses' sizes), or
bounded (``3-20``: by silhouette); sizes are free, or equal within a superclass at the start (``+balanced``). No finer
label is read but for the figures, of test samples whose superclass is not looked at: ACC (Hungarian), NMI and
recall@1, after every round, the round that is kept marked.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regrain import Run, discover, fit, load
from regrain.data.dataset import Dataset
from regrain.metrics import recall_at_k
from regrain.verbs.refinement import read_refinement

LEVELS = {"clinc150": ("domain", "intent"), "grocery": ("coarse", "fine")}
WAYS = ("given", "given+balanced", "3-20", "3-20+balanced")


def unequal(data: Dataset) -> Dataset:
    """3 to 15 intents of every domain, drawn once."""
    domain, intent = data.labels.level("domain"), data.labels.level("intent")
    generator = np.random.default_rng(0)
    kept = []
    for code in range(data.labels.counts["domain"]):
        own = intent[domain == code].unique().numpy()
        kept += generator.choice(own, generator.integers(3, 16), replace=False).tolist()
    return data.select(torch.isin(intent, torch.tensor(kept)))


def told(name: str, run: Run, test: Dataset, fine: str) -> None:
    """Print the figures of a run."""
    found = discover(run, ignore_coarse_labels=True, write=False)
    recall = recall_at_k(run.embed(test), test.labels.level(fine), [1])[1]
    acc, nmi = (100 * found.figures[f"test/{fine}/{metric}"] for metric in ("acc", "nmi"))
    count = len({s.number for s in found.subclasses if s.sizes.get("train")})
    print(f"{name}: {count} subclasses, ACC {acc:.1f}, NMI {nmi:.1f}, recall@1 {100 * recall:.1f}", flush=True)


def main() -> None:
    """All seeds and ways to choose the number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(LEVELS))
    parser.add_argument("--root")
    parser.add_argument("--out", type=Path, default=Path("runs/refinement"))
    parser.add_argument("--method", default="maskcon")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--unequal", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--each", type=int, help="training samples of a fine class; default all")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    options = parser.parse_args()
    coarse, fine = LEVELS[options.data]
    data = load(options.data, root=options.root)
    data = unequal(data) if options.unequal else data
    test, count = data.split("test"), len(data.labels.level(fine).unique())
    numbers: dict[str, dict[str, Any]] = {"given": {"subclasses": count}, "3-20": {"each": "3-20"}}
    print(f"{len(data)} samples, {count} classes of {data.labels.counts[coarse]}", flush=True)
    for seed in options.seeds:
        start = options.out / f"{options.data}-{options.method}{'-unequal' if options.unequal else ''}-s{seed}"
        settings: dict[str, Any] = {} if options.each is None else {"limit_per_class": options.each}
        if options.method != "features":
            settings["coarse"] = coarse
        if not (start / "model" / "config.json").exists():
            fit(options.method, data, out=start, seed=seed, overwrite=True, **settings)
        for how in options.ways:
            number, _, balanced = how.partition("+")
            clustering = {**numbers[number], "balanced": bool(balanced)}
            place = start.with_name(f"{start.name}-{how}")
            shutil.copytree(start, place, dirs_exist_ok=True)
            run = Run(Run.open(place).folder, data)
            discover(run, refine=options.rounds, superclass=coarse, seed=seed, **clustering)
            refinement = read_refinement(run, discover(run, write=False))
            assert refinement is not None
            for turn, score in enumerate(refinement.scores):
                mark = ", kept" if turn == refinement.round else ""
                name = f"seed {seed}, {how}, round {turn} (criterion {score:.3f}{mark})"
                of_round = run if turn == 0 else Run(Run.open(place / "refined" / f"round-{turn}").folder, data)
                told(name, of_round, test, fine)


if __name__ == "__main__":
    main()
