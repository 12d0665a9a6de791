"""How the criteria of `regrain tune` rank against the truth: judges every trial of a search on the test split.

    python benchmarks/criteria.py TUNE_FOLDER DATA LEVEL [--root ../shared/data] [--metric recall@1] [--protocol recall]

This looks at the hidden labels, after the search, to judge the criteria; `regrain tune` itself never does. Prints, per
criterion, Spearman's rank correlation with the truth over the trials, the truth of the trial that the criterion
chooses, and beside it the best, the median and the worst trial.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from scipy import stats

import regrain
from regrain.evaluation import CRITERIA


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("data")
    parser.add_argument("level")
    parser.add_argument("--root", default="../shared/data")
    parser.add_argument("--metric", default="recall@1")
    parser.add_argument("--protocol", default="recall")
    options = parser.parse_args()
    with (options.folder / "trials.csv").open(newline="", encoding="utf-8") as file:
        trials = [row for row in csv.DictReader(file) if not row["problem"]]
    test = regrain.load(options.data, root=options.root).split("test")
    truths = []
    for trial in trials:
        judged = regrain.evaluate(
            options.folder / "trials" / f"{int(trial['trial']):03d}",
            test,
            levels=[options.level],
            protocols=[options.protocol],
            options={"cluster_seeds": 1},
            baselines=False,
            write=False,
        )
        truths.append(judged.flat()[f"test/{options.level}/{options.metric}"])
    settings = [name for name in trials[0] if name not in (*CRITERIA, "trial", "problem")]
    for truth, trial in sorted(zip(truths, trials, strict=True), key=lambda pair: -pair[0]):
        told = " ".join(f"{name}={trial[name]}" for name in settings)
        values = ", ".join(f"{c} {float(trial[c]):.3f}" for c in CRITERIA if trial[c])
        print(f"{options.metric} {100 * truth:.2f}  {told}  ({values})")
    print(
        f"\n{len(trials)} trials: best {100 * max(truths):.1f}, median {100 * statistics.median(truths):.1f}, "
        f"worst {100 * min(truths):.1f}"
    )
    for name in CRITERIA:
        if not trials[0][name]:
            continue
        values = [float(trial[name]) for trial in trials]
        correlation = stats.spearmanr(values, truths).statistic
        chosen = truths[values.index(max(values))]
        print(f"{name:12} rank correlation {correlation:+.2f}; chooses a trial of {100 * chosen:.1f}")


if __name__ == "__main__":
    main()
