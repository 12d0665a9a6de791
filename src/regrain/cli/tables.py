"""Tables on the terminal; separate from :mod:`regrain.cli.terminal` because importing rich is slow."""

from __future__ import annotations

from typing import Any

import rich.table
from rich.console import Console
from rich.text import Text

from regrain.spelling import shown


class Right(str):
    """Header of a right-aligned column; may have several lines."""


class Whole(str):
    """Header of a column whose texts are never wrapped, so that they can be copied."""


class ScreenTable(rich.table.Table):
    """A table of plain texts: markup and control characters are escaped, long texts are wrapped."""

    def __init__(self, title: str, *columns: str) -> None:
        super().__init__(title=_text(title), title_justify="left")
        for column in columns:
            lines = column.split("\n") if isinstance(column, Right) else [column]
            header = Text("\n").join(map(_text, lines))
            justify: Any = "right" if isinstance(column, Right) else "left"
            self.add_column(header, justify=justify, overflow="fold", no_wrap=isinstance(column, Whole))

    def row(self, *cells: object) -> None:
        """Add a row."""
        self.add_row(*map(_text, cells))

    def show(self) -> None:
        """Print it on standard output."""
        Console().print(self)


def _text(cell: Any) -> Text:
    return Text(shown(cell))
