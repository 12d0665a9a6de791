"""The figures of docs/results.csv by table, row and metric."""

from __future__ import annotations

from tables import Row, Table

_COUNTS = ("-clusters", "tree-distance")
"""Endings of the metrics that are numbers of things, not shares; baselines' names come behind them."""


class Figures:
    """The CSV's values by table, row, metric and seed."""

    def __init__(self, lines: list[dict[str, str]]) -> None:
        self.values: dict[tuple[str, str, str], dict[int, float]] = {}
        self.seconds: dict[tuple[str, str], list[float]] = {}
        for line in lines:
            key = line["table"], line["row"], line["metric"]
            scale = 1 if line["metric"].split(".")[0].endswith(_COUNTS) else 100
            self.values.setdefault(key, {})[int(line["seed"])] = scale * float(line["value"])
            self.seconds.setdefault(key[:2], []).append(float(line["seconds"]))

    def of(self, table: Table, row: Row, metric: str) -> dict[int, float]:
        """Per cent, or a count, by seed; those of the row whose runs serve, where there is one."""
        owner = tuple(row.same_as.split("/", 1)) if row.same_as else (table.name, row.label)
        return self.values.get((*owner, metric), {})

    def minutes(self, table: Table, row: Row) -> str:
        """Of one training, in the mean."""
        owner = tuple(row.same_as.split("/", 1)) if row.same_as else (table.name, row.label)
        spent = self.seconds[owner[0], owner[1]]
        return f"{sum(spent) / len(spent) / 60:.1f}"
