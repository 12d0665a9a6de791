"""How often the answers of `regrain calibrate` fall short of the share that was asked for, over draws of its samples.

    python benchmarks/guarantees.py RUN                     # RUN: of a method that classifies, with splits val and test

Calibration samples are drawn from the validation split, and what they settle is judged on the whole test split: by the
rule without --confidence, with it, and with --counts roots (hierarchical selective classification) in the mean and with
it. Prints a table in Markdown; means over draws.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import torch

from regrain import Run
from regrain.errors import RegrainWarning, UserError
from regrain.evaluation import level_probabilities
from regrain.runs.calibration import fit_selective_classifier
from regrain.runs.selective import known_classes, taxonomy_of
from regrain.runs.selective_report import class_information

RULES: dict[str, dict[str, Any]] = {
    "calibrate": {},
    "calibrate --confidence 0.9": {"confidence": 0.9},
    "calibrate --counts roots": {"counts": "roots"},
    "calibrate --counts roots --confidence 0.9": {"counts": "roots", "confidence": 0.9},
}
FIGURES = ("right of answers", "answers fall short", "right or none", "those fall short", "at the finest level")
FIGURES += ("answered", "information")


def main() -> None:
    """Print one line a rule and number of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--samples", type=int, nargs="*", default=[50, 200, 500, 1500])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--precision", type=float, default=0.9)
    options = parser.parse_args()
    warnings.simplefilter("ignore", RegrainWarning)  # few samples are the point
    run = Run.open(options.run)
    taxonomy, parts = taxonomy_of(run.labels), {}
    if taxonomy is None:
        raise UserError(f"{run.path} has aspects; this script judges levels that nest")
    for name in ("val", "test"):
        part = run.fitting(run.splits()[name])
        parts[name] = level_probabilities(run.model, run.labels, part), known_classes(part.labels, run.labels)
    (seen, labels), (new, truth) = parts.values()
    print("| rule | samples | " + " | ".join(FIGURES) + " | refused |")
    print("| --- " * (len(FIGURES) + 3) + "|")
    for rule, asked in RULES.items():
        for count in options.samples:
            found: list[list[float]] = []
            for draw in range(options.draws):
                rows = torch.from_numpy(np.random.default_rng(draw).permutation(len(labels))[:count])
                drawn = {level: values[rows] for level, values in seen.items()}
                try:
                    fitted = fit_selective_classifier(
                        drawn, labels[rows], taxonomy, precision=options.precision, **asked
                    )
                except UserError:
                    continue
                level, codes, _ = fitted.predict(new, taxonomy)
                at = level.clamp(min=0)[:, None]
                none, right = level < 0, (codes.gather(1, at) == truth.gather(1, at))[:, 0]
                share, kept = right[~none].double().mean(), (right | none).double().mean()
                says = class_information(codes, taxonomy).gather(1, at)[:, 0].masked_fill(none, 0)
                finest = level == len(taxonomy.levels) - 1
                short = (share < options.precision, kept < options.precision)
                found.append(
                    [*map(float, (share, short[0], kept, short[1], finest.double().mean(), 1 - none.double().mean()))]
                )
                found[-1].append(float(says.mean()))
            means = np.nanmean(found, axis=0) if found else np.full(len(FIGURES), np.nan)
            cells = [f"{100 * value:.1f}" for value in means[:-1]] + [f"{means[-1]:.2f}"]
            refused = options.draws - len(found)
            print(f"| `{rule}` | {count} | " + " | ".join(cells) + f" | {refused} |", flush=True)


if __name__ == "__main__":
    main()
