"""The first page of the results: a table and a picture for each face of the problem, from the figures of the tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tables
from figures import Figures

from regrain.papers.reproducing import over_seeds


@dataclass(frozen=True)
class Column:
    """A column: its title, the table and the metric it comes from, and the baseline that stands above the methods."""

    title: str
    table: str
    metric: str
    baseline: str = "raw"


@dataclass(frozen=True)
class Face:
    """A face of the problem: its columns, and the rows of the tables that it shows, in order."""

    name: str
    before: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...]


_START = "untouched start"
_SUBCLASSES = ("Coarse", "Coarse+", "ANCOR", "GEORGE", "SeLa", "FALCON", "MaskCon", "SCGM-G", "SCGM-A", "Fine")
FACES = (
    Face(
        "embeddings",
        "untouched start, or pixels",
        (
            Column("CIFARtoy, 2 classes, 8 to find", "toy-good", "test/label/recall@1", "start"),
            Column("Omniglot, from random weights", "omniglot", "test/character/recall@1"),
            Column("CIFAR-100, whole network", "cifar100-tuned", "test/label/recall@1"),
            Column("Grocery, frozen", "grocery-category", "test/fine/recall@1"),
            Column("CLINC150, frozen", "clinc-frozen", "test/intent/recall@1"),
        ),
        ("SupCE", "SupCon", "SelfCon", "Grafit", "CoIns", "MaskCon", "SupFINE"),
    ),
    Face(
        "subclasses",
        "",
        tuple(
            Column(f"{data}, {title}", table, metric.format(level))
            for data, table, level in (
                ("CLINC150", "subclasses-clinc", "intent"),
                ("Omniglot", "subclasses-omniglot", "character"),
                ("Grocery", "subclasses-grocery", "fine"),
            )
            for title, metric in (("NMI", "discover/test/{}/nmi"), ("1 shot, all way", "test/{}/all-way-1-shot"))
        ),
        ("raw input, k-means", *_SUBCLASSES),
    ),
    Face(
        "superclasses",
        "logistic regression on the raw features",
        (
            *(Column(f"CIFAR100-{n}", f"superclass-{n}", f"test/superclass{n}/accuracy") for n in (3, 4, 7)),
            Column("Grocery", "superclass-grocery", "test/category/accuracy"),
            Column("Grocery, half of the labels wrong", "superclass-noise", "test/category/accuracy"),
        ),
        ("SupCE", "SupCE at unit length", "SupCon", "SimCLR", "TSC", "GEORGE", "SCLRE", "SCLRE as published"),
    ),
    Face(
        "without-labels",
        "",
        (
            Column("CLINC150", "nolabels-clinc", "test/intent/head1-acc"),
            Column("CIFAR-100", "nolabels-cifar100", "test/label/head1-acc"),
            Column("CIFAR-10", "nolabels-cifar10-features", "test/label/head1-acc"),
            Column("Grocery", "nolabels-grocery", "test/fine/head1-acc"),
            Column("HAPT", "nolabels-hapt", "test/fine/head1-acc"),
        ),
        ("raw input, k-means", "TURTLE", "SCAN", "SeLa", "Self-Classifier"),
    ),
    Face(
        "levels",
        "logistic regression on the raw features",
        (
            Column("CLINC150, intents", "mixture-clinc", "test/intent/accuracy"),
            Column("CIFAR-100, classes", "mixture-cifar100", "test/label/accuracy"),
            Column("Grocery, products", "mixture-grocery", "test/fine/accuracy"),
            Column("Grocery, every label there", "levels-grocery", "test/fine/accuracy"),
        ),
        (
            "SupFINE (fine labels alone)", "SupCE (coarse labels alone)", "MaskCon", "SCGM-G", "MLCL", "HiMulConE",
            "Guided", "multi-CE", "mixed",
        ),
    ),
)  # fmt: skip


def table_of(face: Face, figures: Figures) -> str:
    """The table: a line a method, mean with interval (and the paper's figure) in every column."""
    head = ["method", *(column.title for column in face.columns)]
    lines = [head, ["---"] * len(head)]
    before = [_baseline(column, figures) for column in face.columns]
    if any(before):
        lines.append([face.before, *(f"{value:.1f}" if value is not None else "" for value in before)])
    for label in face.rows:
        cells = [_cell(figures, column, label) for column in face.columns]
        if any(cells):
            lines.append([label, *cells])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def draw(face: Face, figures: Figures, path: Path) -> None:
    """A panel a column: a point with its interval for every method, a line where one starts."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.rcParams |= {"svg.hashsalt": face.name, "font.size": 9, "svg.fonttype": "none"}
    labels = [label for label in face.rows if any(_values(figures, c, label) for c in face.columns)]
    across = min(3, len(face.columns))
    down = -(-len(face.columns) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(10, down * (0.9 + 0.24 * len(labels))), sharey=True, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(face.columns) :]:
        axis.set_visible(False)
    for axis, column in zip(axes.flat, face.columns, strict=False):
        start = _baseline(column, figures)
        if start is not None:
            axis.axvline(start, color="0.6", linestyle="--", linewidth=1)
        for place, label in enumerate(labels):
            interval = _interval(figures, column, label)
            if interval is not None:
                mean, low, high = interval
                axis.plot([low, high], [place, place], color="#00796b", linewidth=2)
                axis.plot(mean, place, "o", color="#00796b", markersize=5)
        axis.set_title(column.title, fontsize=9)
        axis.grid(axis="x", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_yticks(range(len(labels)), labels)
    axes[0, 0].invert_yaxis()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _row(column: Column, label: str) -> tables.Row | None:
    return next((row for row in tables.by_name(column.table).rows if row.label == label), None)


def _values(figures: Figures, column: Column, label: str, end: str = "") -> list[float]:
    row = _row(column, label)
    return list(figures.of(tables.by_name(column.table), row, column.metric + end).values()) if row else []


def _baseline(column: Column, figures: Figures) -> float | None:
    """Of the start, which is a row of its own in some tables and stands beside a row in others."""
    for row in tables.by_name(column.table).rows:
        found = _values(figures, column, row.label, "" if row.label == _START else f".{column.baseline}")
        if found:
            return sum(found) / len(found)
    return None


def _interval(figures: Figures, column: Column, label: str) -> tuple[float, float, float] | None:
    """Mean and 95% interval: over seeds, else over test samples, else the mean alone."""
    values = _values(figures, column, label)
    if not values:
        return None
    mean = sum(values) / len(values)
    if len(set(values)) > 1:
        low, high = (float(end) for end in over_seeds(values).partition("(")[2].rstrip(")").split(" to "))
        return mean, low, high
    low, high = (_values(figures, column, label, end) for end in (".low", ".high"))
    return (mean, low[0], high[0]) if low and high else (mean, mean, mean)


def _cell(figures: Figures, column: Column, label: str) -> str:
    interval = _interval(figures, column, label)
    if interval is None:
        return ""
    mean, low, high = interval
    row = _row(column, label)
    paper = next(iter(row.paper.values()), "") if row else ""
    told = f"{mean:.1f}" + (f" ({low:.1f} to {high:.1f})" if low < high else "")
    return told + (f"; paper {paper}" if paper and column.metric.endswith(("recall@1", "accuracy")) else "")
