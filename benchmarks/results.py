"""The tables of the results: runs every row, keeps the figures in docs/results.csv, and writes the pages from them.

    python benchmarks/results.py run TABLE [--root ../shared/data] [--runs runs/results] [--jobs 2] [--only LABEL]
    python benchmarks/results.py write
    python benchmarks/results.py list

A row is one ``regrain fit`` command line, run once a seed, and one ``regrain evaluate``; what has a line in the CSV is
not run again. Nothing here chooses a setting: rows say the published defaults, or what `regrain tune` chose without
hidden labels.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import csv
import fcntl
import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import page
import tables
from tables import TABLES, Row, Table

HERE = Path(__file__).parent
FIGURES = HERE.parent / "docs" / "results.csv"
COLUMNS = ("table", "row", "seed", "metric", "value", "seconds", "versions")


def read_figures() -> list[dict[str, str]]:
    """All lines of the CSV."""
    if not FIGURES.exists():
        return []
    with FIGURES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keep(rows: list[dict[str, str]]) -> None:
    """Add lines, in the order of the tables, so that a difference shows what changed."""
    with (Path(tempfile.gettempdir()) / "regrain-results.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _merge(rows)


def _merge(rows: list[dict[str, str]]) -> None:
    known = {(r["table"], r["row"], r["seed"], r["metric"]): r for r in read_figures()}
    known |= {(r["table"], r["row"], r["seed"], r["metric"]): r for r in rows}
    place = {(t.name, r.label): (i, j) for i, t in enumerate(TABLES) for j, r in enumerate(t.rows)}
    last = (len(TABLES), 0)
    ordered = sorted(known.values(), key=lambda r: (place.get((r["table"], r["row"]), last), r["seed"]))
    temporary = FIGURES.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)
    temporary.replace(FIGURES)


_DETAIL = re.compile(r"accuracy@|share@|predicted@")
"""Figures of every class and every pair of classes: in a run's evaluation.json, too many for the CSV."""


def work(table: Table, row: Row, seed: int, root: str, runs: Path) -> list[dict[str, str]]:
    """Train and judge one row with one seed, in this process; the commands are those of the page."""
    from regrain.cli.main import app

    owner, judged = table.name, row
    if row.run_of:
        owner, label = row.run_of.split("/", 1)
        judged = next(r for r in tables.by_name(owner).rows if r.label == label)
    out = runs / owner / f"{judged.slug}-s{seed}"
    start = time.time()
    given = shlex.split(judged.fit.format(runs=runs, seed=seed))
    if not (out / "model" / "config.json").exists():
        fixed = ["--root", root, "--seed", str(seed), "--out", str(out), "--overwrite", "-q"]
        app(["fit", *given, *fixed], standalone_mode=False)
    (out / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
    seconds = time.time() - start
    judge = [*shlex.split(table.evaluate), "--json"]
    if table.verb == "evaluate" and not row.baselines:
        judge.append("--no-baselines")
    if row.projection:
        judge.append("--projection")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        app([table.verb, str(out), *judge], standalone_mode=False)
    flat = json.loads(printed.getvalue())
    if table.verb == "calibrate":
        flat = _of_answers(flat["judged"])
    if row.discover:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            app(["discover", str(out), *shlex.split(row.discover), "--json"], standalone_mode=False)
        flat |= {f"discover/{key}": value for key, value in json.loads(printed.getvalue())["figures"].items()}
    versions = json.loads((out / "versions.json").read_text())["versions"]
    told = f"torch {versions['torch']}, regrain {versions['regrain']}"
    return [
        dict(zip(COLUMNS, (table.name, row.label, str(seed), m, repr(v), f"{seconds:.0f}", told), strict=True))
        for m, v in flat.items()
        if isinstance(v, float | int) and not _DETAIL.search(m)
    ]


def _of_answers(judged: dict[str, Any]) -> dict[str, float]:
    """Figures by split, level and name; those of all answers under the level ``all``."""
    parts = {"all": judged} | {level["level"]: level for level in judged["levels"]}
    return {
        f"{judged['split']}/{level}/{name}": value
        for level, figures in parts.items()
        for name, value in figures.items()
        if isinstance(value, float)
    }


def run(options: argparse.Namespace) -> None:
    """All rows and seeds of the tables that have no figures yet."""
    done = {(r["table"], r["row"], r["seed"]) for r in read_figures()}
    jobs = [
        (table, row, seed)
        for table in map(tables.by_name, options.table)
        for seed in (options.seeds or range(table.seeds))
        for row in table.rows
        if (row.fit or row.run_of) and (table.name, row.label, str(seed)) not in done
        if options.only is None or row.label in options.only
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "REGRAIN_DATA": options.root}

    def one(job: tuple[Table, Row, int]) -> None:
        table, row, seed = job
        command = [sys.executable, __file__, "one", table.name, row.label, str(seed)]
        command += ["--root", options.root, "--runs", str(options.runs)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        name = f"{table.name} / {row.label} / seed {seed}"
        if done.returncode:
            print(f"{name} FAILED: {done.stderr[-800:]}", flush=True)
            return
        lines = json.loads(done.stdout.splitlines()[-1])
        keep(lines)
        found = {line["metric"]: float(line["value"]) for line in lines}
        told = ", ".join(f"{metric.title} {found.get(metric.key, math.nan):.4f}" for metric in table.metrics)
        print(f"{name}: {told}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, jobs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "one", "write", "list"):
        sub = commands.add_parser(name)
        if name in ("run", "one"):
            sub.add_argument("table", nargs="+" if name == "run" else None)
            sub.add_argument("--root", default=os.environ.get("REGRAIN_DATA", "../shared/data"))
            sub.add_argument("--runs", type=Path, default=Path("runs/results"))
        if name == "run":
            sub.add_argument("--jobs", type=int, default=2)
            sub.add_argument("--threads", type=int, default=1)
            sub.add_argument("--seeds", type=int, nargs="*")
            sub.add_argument("--only", nargs="*")
        if name == "one":
            sub.add_argument("row")
            sub.add_argument("seed", type=int)
    options = parser.parse_args()
    if options.command == "list":
        for table in TABLES:
            print(f"{table.name}: {len(table.rows)} rows, {table.seeds} seeds: {table.title}")
    elif options.command == "write":
        page.write(read_figures(), HERE.parent / "docs")
    elif options.command == "one":
        table = tables.by_name(options.table)
        row = next(r for r in table.rows if r.label == options.row)
        print(json.dumps(work(table, row, options.seed, options.root, options.runs)))
    else:
        run(options)


if __name__ == "__main__":
    main()
