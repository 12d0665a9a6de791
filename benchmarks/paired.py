"""The difference in recall@1 between two runs over the same test images, with its paired bootstrap interval.

python benchmarks/paired.py RUN_A RUN_B [--level label]
"""

from __future__ import annotations

import argparse

from regrain.api import Run
from regrain.metrics import bootstrap_interval, retrieval_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2)
    parser.add_argument("--level", default="label")
    options = parser.parse_args()
    hits = []
    for path in options.runs:
        run = Run.open(path)
        test = run.parts()["test"]
        found = retrieval_metrics(run.embed(test), test.labels.level(options.level), ks=[1])
        hits.append(found.hits[1].double())
    mean, low, high = bootstrap_interval(hits[0] - hits[1], seed=0)
    print(f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}) over {len(hits[0])} test samples")


if __name__ == "__main__":
    main()
