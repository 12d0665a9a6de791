"""What docs/results.md tells: its tables row by row, and how figures become a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from regrain.metrics import student_interval


@dataclass(frozen=True)
class Row:
    """A line: one command.

    Attributes
    ----------
    label : str
    fit : str
        Arguments of ``regrain fit`` without root, seed and out; empty where another row's run serves (``same_as``).
    paper : dict
        Metric title -> the published figure.
    same_as : str
        ``table/label`` whose runs are also this row's: it reads no label that differs.
    baselines : bool
        Whether raw inputs and random weights are judged beside it, as lines of their own.
    """

    label: str
    fit: str = ""
    paper: dict[str, str] = field(default_factory=dict)
    same_as: str = ""
    baselines: bool = False

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.label.lower())


@dataclass(frozen=True)
class Metric:
    """A column: title, and the key of ``regrain evaluate --json``."""

    title: str
    key: str


@dataclass(frozen=True)
class Table:
    """One table; ``compare`` names the row that the paired differences are from."""

    name: str
    title: str
    evaluate: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    seeds: int = 3
    compare: str = ""
    about: str = ""
    paper_about: str = ""
    findings: str = ""


def _recall(level: str, *more: Metric) -> tuple[Metric, ...]:
    return (Metric("recall@1", f"test/{level}/recall@1"), *more)


_START = "--weights {runs}/start/cifar-100-fine-labels-s0/model/model.safetensors"
_TOY = f"--encoder resnet18-w16 {_START} --limit-per-class 1250 --epochs 5 --set learning_rate=0.065"
_TOY_PAPER = {
    "good": {"SupCE": "76.30", "SupCon": "73.84", "SelfCon": "84.83", "Grafit": "86.61", "CoIns": "86.15",
             "MaskCon": "90.28", "SupFINE": "94.11"},
    "bad": {"SupCE": "87.15", "SupCon": "84.66", "SelfCon": "84.83", "Grafit": "89.96", "CoIns": "90.55",
            "MaskCon": "91.56", "SupFINE": "94.11"},
}  # fmt: skip
_TOY_METHODS = {
    "SupCE": "sup-ce", "SupCon": "supcon-queue", "SelfCon": "selfcon", "Grafit": "grafit", "CoIns": "coins",
    "MaskCon": "maskcon", "NNCLR": "nnclr", "SupFINE": "sup-fine",
}  # fmt: skip
_TOY_WEIGHTS = {
    "Grafit": " --set weight=0.5",
    "CoIns": " --set weight=0.5",
    "MaskCon": " --set weight=0.5 --set soft_temperature=0.156",
}
_UNMASKED = ("SelfCon", "NNCLR", "SupFINE")


def _toy_rows(split: str) -> tuple[Row, ...]:
    rows = []
    for label, method in _TOY_METHODS.items():
        shared = split == "bad" and label in _UNMASKED
        paper = {"recall@1": _TOY_PAPER[split][label]} if label in _TOY_PAPER[split] else {}
        command = "" if shared else f"{method} cifartoy-{split} {_TOY}{_TOY_WEIGHTS.get(label, '')}"
        rows.append(Row(label, command, paper, f"toy-good/{label}" if shared else "", baselines=label == "MaskCon"))
    return tuple(rows)


_MAIN_FOUR = {"SupCE": "sup-ce", "SupCon": "supcon-queue", "SelfCon": "selfcon", "MaskCon": "maskcon"}
_IMAGENET = "--encoder tf_efficientnet_lite0 --weights {runs}/lite0.safetensors --frozen --set views.size=96"
_CLUSTERS = (
    Metric("k-means ACC", "test/intent/kmeans-acc"),
    Metric("ARI", "test/intent/kmeans-ari"),
    Metric("NMI", "test/intent/kmeans-nmi"),
)


def _four_rows(
    data: str, *, paper: Mapping[str, str] | None = None, maskcon: str = "", fine: bool = False
) -> tuple[Row, ...]:
    methods = _MAIN_FOUR | ({"SupFINE": "sup-fine"} if fine else {})
    paper = paper or {}
    return tuple(
        Row(
            label,
            f"{method} {data}" + (maskcon if label == "MaskCon" else ""),
            {"recall@1": paper[label]} if label in paper else {},
            baselines=label == "MaskCon",
        )
        for label, method in methods.items()
    )


TABLES: tuple[Table, ...] = (
    *(
        Table(
            f"toy-{split}",
            f"CIFARtoy, {split} split: two superclasses, eight classes to find",
            "-p recall -l label",
            _recall("label", Metric("recall@2", "test/label/recall@2"), Metric("recall@10", "test/label/recall@10")),
            _toy_rows(split),
            compare="MaskCon",
        )
        for split in ("good", "bad")
    ),
    Table(
        "toy-full",
        "CIFARtoy, good split, all 40,000 images",
        "-p recall -l label",
        _recall("label", Metric("recall@2", "test/label/recall@2"), Metric("recall@10", "test/label/recall@10")),
        _four_rows(
            f"cifartoy-good --encoder resnet18-w16 {_START} --epochs 6 --set learning_rate=0.065",
            paper=_TOY_PAPER["good"],
            maskcon=_TOY_WEIGHTS["MaskCon"],
        ),
        seeds=1,
        compare="MaskCon",
    ),
    Table(
        "toy-imagenet",
        "CIFARtoy, good split, all 40,000 images, on frozen ImageNet features",
        "-p recall -l label",
        _recall("label", Metric("recall@2", "test/label/recall@2"), Metric("recall@10", "test/label/recall@10")),
        _four_rows(f"cifartoy-good {_IMAGENET} --epochs 10", paper=_TOY_PAPER["good"]),
        seeds=1,
        compare="MaskCon",
    ),
    Table(
        "cifar100",
        "CIFAR-100, 20 superclasses, 100 classes to find, on frozen ImageNet features",
        "-p recall -l label",
        _recall("label", Metric("recall@10", "test/label/recall@10")),
        _four_rows(
            f"cifar100-20 {_IMAGENET} --limit-per-class 100 --epochs 20",
            paper={"SupCE": "47.25", "SupCon": "58.65", "SelfCon": "40.50", "MaskCon": "65.52", "SupFINE": "71.13"},
            fine=True,
        ),
        compare="MaskCon",
    ),
    Table(
        "omniglot",
        "Omniglot, 5 alphabets, 136 characters to find",
        "-p recall -l character",
        _recall("character", Metric("recall@10", "test/character/recall@10")),
        _four_rows("omniglot --image-size 28 --encoder conv4 --epochs 30", fine=True),
        compare="MaskCon",
    ),
    *(
        Table(
            f"grocery-{coarse}",
            f"Grocery, {words}, 81 products to find, on frozen ImageNet features",
            "-p recall -l fine",
            _recall("fine", Metric("recall@10", "test/fine/recall@10")),
            _four_rows(f"grocery -l {coarse} -l fine {_IMAGENET} --epochs 30", fine=True),
            compare="MaskCon",
        )
        for coarse, words in (("category", "3 categories"), ("coarse", "43 coarse classes"))
    ),
    Table(
        "clinc-frozen",
        "CLINC150, 10 domains, 150 intents to find: frozen MiniLM and a trained adapter",
        "-p recall -p clustering -l intent --cluster-seeds 1",
        _recall("intent", *_CLUSTERS),
        _four_rows("clinc150 --encoder minilm --frozen --epochs 10"),
        compare="MaskCon",
    ),
    Table(
        "start",
        "The start of the CIFARtoy rows: resnet18-w16 trained on the 100 fine classes of CIFAR-100",
        "-p recall -l label",
        _recall("label"),
        (
            Row(
                "CIFAR-100 fine labels",
                "sup-fine cifar100 --encoder resnet18-w16 --epochs 12 --set learning_rate=0.1 "
                "--set 'views.presets=[weak]'",
                baselines=True,
            ),
        ),
        seeds=1,
    ),
)
"""All tables, in the order of the page."""


def by_name(name: str) -> Table:
    """A table; exits with the names there are."""
    found = {table.name: table for table in TABLES}
    if name not in found:
        raise SystemExit(f"no table '{name}': there are {', '.join(found)}")
    return found[name]


# -- the page ------------------------------------------------------------------------------------------------------

_BASELINES = {"raw": "raw input", "start": "pretrained start", "random": "random weights"}
_Figures = dict[tuple[str, str, str], dict[int, float]]
"""(table, row, key) -> seed -> value."""


def write(lines: list[dict[str, str]], page: Path) -> None:
    """The page from the CSV's lines, between the text that stands above and below the tables."""
    figures: _Figures = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        figures.setdefault((line["table"], line["row"], line["metric"]), {})[int(line["seed"])] = float(line["value"])
        seconds.setdefault((line["table"], line["row"]), []).append(float(line["seconds"]))
    begin, end = "<!-- tables: begin -->", "<!-- tables: end -->"
    above, _, rest = page.read_text(encoding="utf-8").partition(begin)
    below = rest.partition(end)[2]
    parts = [
        _section(table, figures, seconds) for table in TABLES if any(line["table"] == table.name for line in lines)
    ]
    page.write_text(f"{above}{begin}\n\n" + "\n".join(parts) + f"\n{end}{below}", encoding="utf-8")


def _section(table: Table, figures: _Figures, seconds: dict[tuple[str, str], list[float]]) -> str:
    paper = any(row.paper for row in table.rows)
    first = table.metrics[0]
    head = ["what", *(m.title for m in table.metrics)]
    head += [f"{first.title}: difference to {table.compare}"] if table.compare else []
    head += ["paper"] if paper else []
    head += ["minutes a run"]
    body: list[list[str]] = []
    for row in table.rows:
        owner = tuple(row.same_as.split("/", 1)) if row.same_as else (table.name, row.label)
        if (*owner, first.key) not in figures:
            continue
        if row.baselines:
            for suffix, words in _BASELINES.items():
                values = [figures.get((*owner, f"{m.key}.{suffix}")) for m in table.metrics]
                if values[0]:
                    cells = [words, *(_mean(v) if v else "" for v in values)]
                    body.append(cells + [""] * (len(head) - len(cells)))
        cells = [row.label, *(_cell(figures, owner, m.key) for m in table.metrics)]
        if table.compare:
            cells.append(_difference(figures, table, row, owner))
        if paper:
            cells.append("; ".join(row.paper.values()))
        spent = seconds[owner]
        cells.append(f"{sum(spent) / len(spent) / 60:.1f}")
        body.append(cells)
    width = "| " + " | ".join(head) + " |\n|" + " --- |" * len(head) + "\n"
    text = f"## {table.title}\n\n{table.about}\n\n" + width
    text += "".join("| " + " | ".join(cells) + " |\n" for cells in body)
    text += f"\n{table.paper_about}\n" if table.paper_about else ""
    text += f"\n{table.findings}\n" if table.findings else ""
    text += (
        f"\n`python benchmarks/results.py run {table.name}`, or row by row (S = 0 to {table.seeds - 1}):\n\n```text\n"
    )
    for row in table.rows:
        if row.same_as:
            text += f"{row.label}: the runs of {row.same_as}: it reads no label that differs\n"
        else:
            text += f"{row.label}: regrain fit {row.fit.format(runs='runs/results')} --seed S --out RUN\n"
    return text + f"judged by: regrain evaluate RUN {table.evaluate}\n```\n"


def _cell(figures: _Figures, owner: tuple[str, ...], key: str) -> str:
    """A mean over seeds with Student's interval; of one seed, the interval over queries where there is one."""
    by_seed = figures[*owner, key]
    ends = [figures.get((*owner, f"{key}.{end}")) for end in ("low", "high")]
    if len(by_seed) > 1 or not all(ends):
        return _mean(by_seed)
    (value,), (low,), (high,) = (list(v.values()) for v in (by_seed, *ends) if v)
    return f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _mean(by_seed: dict[int, float]) -> str:
    """Per cent, with Student's 95% interval over seeds."""
    values = [100 * v for v in by_seed.values()]
    if len(values) < 2:
        return f"{values[0]:.1f}"
    mean, half = student_interval(values)
    return f"{mean:.1f} ({mean - half:.1f} to {mean + half:.1f})"


def _difference(figures: _Figures, table: Table, row: Row, owner: tuple[str, ...]) -> str:
    """Paired over seeds."""
    if row.label == table.compare:
        return ""
    key = table.metrics[0].key
    other = next(r for r in table.rows if r.label == table.compare)
    reference = figures[table.name, other.label, key]
    own = figures[*owner, key]
    seeds = sorted(set(own) & set(reference))
    values = [100 * (own[s] - reference[s]) for s in seeds]
    if len(values) < 2:
        return f"{values[0]:+.1f}" if values else ""
    mean, half = student_interval(values)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"
