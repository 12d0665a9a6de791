"""From the figures of docs/results.csv to the tables of the results' pages; the prose between them stays."""

from __future__ import annotations

import re
from pathlib import Path

import summary
from figures import Figures
from tables import TABLES, Row, Table

from regrain.methods import METHODS
from regrain.papers.reproducing import BASELINES, over_seeds

_DATA = re.compile(r"CIFARtoy|CIFAR-100|CIFAR-10|CIFAR100-\d|Omniglot|Grocery|CLINC150|HAPT|TripAdvisor")
"""The data sets, as the titles of tables name them."""


def write(lines: list[dict[str, str]], docs: Path) -> None:
    """Fill the places between ``<!-- NAME -->`` and ``<!-- /NAME -->`` of all pages, and draw the pictures."""
    figures = Figures(lines)
    filled = {line["table"] for line in lines}
    blocks = {table.name: _table(table, figures) for table in TABLES if table.name in filled}
    for face in summary.FACES:
        blocks[f"summary {face.name}"] = summary.table_of(face, figures)
        summary.draw(face, figures, docs / "images" / f"results-{face.name}.svg")
    for page in (docs / "results.md", *sorted((docs / "results").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        for name in [name for name in blocks if f"<!-- {name} -->\n" in text]:
            above, begin, rest = text.partition(f"<!-- {name} -->\n")
            end = f"<!-- /{name} -->"
            text = above + begin + blocks.pop(name) + end + rest.partition(end)[2]
        page.write_text(text, encoding="utf-8")
    for name in blocks:
        print(f"{name}: no place on a page")
    for page in (docs / "methods").glob("*.md"):
        page.write_text(_with_measurements(page.read_text(encoding="utf-8"), lines, docs), encoding="utf-8")


def _with_measurements(text: str, lines: list[dict[str, str]], docs: Path) -> str:
    """A page of methods whose sections end by what each was measured on, with the pages that show it."""
    measured = {(line["table"], line["row"]) for line in lines}
    whole = {page: page.read_text(encoding="utf-8") for page in sorted((docs / "results").glob("*.md"))}
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    for at, part in enumerate(parts):
        name = part.removeprefix("## ").partition("\n")[0]
        if name not in METHODS:
            continue
        shown = {}
        for page, content in whole.items():
            titles = [t.title for t in TABLES if f"<!-- {t.name} -->" in content and _has(t, name, measured)]
            data = dict.fromkeys(found for title in titles for found in _DATA.findall(title))
            if data:
                heading = content.partition("\n")[0].removeprefix("# ")
                shown[page] = f"{', '.join(data)} ([{heading}](../results/{page.name}))"
        words = "; ".join(shown.values()) or "no table of the results yet; its tests use generated data"
        parts[at] = re.sub(r"^- \*\*Measured on\*\*: .*\n", f"- **Measured on**: {words}.\n", part, flags=re.MULTILINE)
    return "".join(parts)


def _has(table: Table, method: str, measured: set[tuple[str, str]]) -> bool:
    """Whether a row of the table has figures of runs of the method."""
    every = {f"{t.name}/{row.label}": row for t in TABLES for row in t.rows}
    return any(
        every[row.same_as or row.run_of or f"{table.name}/{row.label}"].fit.split()[:1] == [method]
        and {(table.name, row.label), tuple(row.same_as.split("/", 1))} & measured
        for row in table.rows
    )


def _table(table: Table, figures: Figures) -> str:
    first = table.metrics[0]
    head = ["what", *(m.title for m in table.metrics)]
    head += [f"{first.title}: difference to {table.compare}"] if table.compare else []
    head += ["paper"] if any(row.paper for row in table.rows) else []
    head += ["minutes a run"]
    several = sum(row.baselines for row in table.rows) > 1
    baselines: list[list[str]] = []
    body: list[list[str]] = []
    for row in table.rows:
        if not any(figures.of(table, row, m.key) for m in table.metrics):
            continue
        for suffix, words in BASELINES.items() if row.baselines else ():
            found = [figures.of(table, row, f"{m.key}.{suffix}") for m in table.metrics]
            if found[0]:
                of = f" ({row.label})" if several else ""
                baselines.append([words + of, *(f"{_mean(values):.1f}" if values else "" for values in found)])
        cells = [row.label, *(_cell(figures, table, row, m.key) for m in table.metrics)]
        cells += [_difference(figures, table, row)] if table.compare else []
        cells += [_published(row, first.title)] if "paper" in head else []
        body.append([*cells, "" if row.run_of else figures.minutes(table, row)])
        inner = [figures.of(table, row, f"{m.key}.projection") for m in table.metrics]
        if inner[0]:
            body.append([f"{row.label}, by its projection", *(over_seeds(list(values.values())) for values in inner)])
    waiting = [
        row.label
        for row in table.rows
        if (row.fit or row.run_of) and not any(figures.of(table, row, metric.key) for metric in table.metrics)
    ]
    lines = [head, ["---"] * len(head), *(line + [""] * (len(head) - len(line)) for line in baselines + body)]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    if waiting:
        text += f"\nWaiting to be run: {', '.join(waiting)}.\n"
    last = max(seed for row in table.rows for seed in figures.of(table, row, first.key))
    seeds = f"S = 0 to {last}" if last else "S = 0"
    text += (
        f'\n<details markdown="1"><summary>Commands: <code>python benchmarks/results.py run {table.name}</code>, '
        f"or row by row ({seeds})</summary>\n\n```text\n"
    )
    for row in table.rows:
        if row.same_as:
            text += f"{row.label}: the runs of {row.same_as}: it reads no label that differs\n"
        elif row.run_of:
            text += f"{row.label}: the runs of {row.run_of}{_discovery(row)}\n"
        else:
            text += (
                f"{row.label}: regrain fit {row.fit.format(runs='runs/results', seed='S')} --seed S --out RUN"
                f"{_discovery(row)}\n"
            )
    return text + f"judged by: regrain {table.verb} RUN {table.evaluate}\n```\n\n</details>\n"


def _discovery(row: Row) -> str:
    return f"; regrain discover RUN {row.discover}" if row.discover else ""


def _published(row: Row, first: str) -> str:
    """The paper's figures; those of other columns than the first with their names."""
    return ", ".join(value if title == first else f"{title} {value}" for title, value in row.paper.items())


def _mean(by_seed: dict[int, float]) -> float:
    return sum(by_seed.values()) / len(by_seed)


def _cell(figures: Figures, table: Table, row: Row, key: str) -> str:
    """The mean over seeds with its interval; where seeds change nothing the interval over test samples or episodes."""
    by_seed, low, high = (figures.of(table, row, key + end) for end in ("", ".low", ".high"))
    values = list(by_seed.values())
    if len(set(values)) == 1:
        return f"{values[0]:.1f} ({_mean(low):.1f} to {_mean(high):.1f})" if low and high else f"{values[0]:.1f}"
    return over_seeds(values)


def _difference(figures: Figures, table: Table, row: Row) -> str:
    """Paired over seeds."""
    if row.label == table.compare:
        return ""
    key = table.metrics[0].key
    reference = figures.of(table, next(r for r in table.rows if r.label == table.compare), key)
    own = figures.of(table, row, key)
    return over_seeds([own[seed] - reference[seed] for seed in sorted(set(own) & set(reference))], "+")
