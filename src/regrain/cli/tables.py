"""Tables on the terminal; apart from :mod:`regrain.cli.terminal` since rich takes its time to be imported."""

from __future__ import annotations

from typing import Any, Literal

import rich.table
from rich.console import Console
from rich.text import Text

from regrain.spelling import shown


class Table(rich.table.Table):
    """A table of plain texts: nothing in them is markup or steers the terminal, and long ones are folded."""

    def __init__(self, title: str) -> None:
        super().__init__(title=_text(title), title_justify="left")

    def column(self, *header: str, justify: Literal["left", "right"] = "left", no_wrap: bool = False) -> None:
        """A column, whose header has a line for every text."""
        super().add_column(Text("\n").join(map(_text, header)), justify=justify, overflow="fold", no_wrap=no_wrap)

    def row(self, *cells: object) -> None:
        """A row."""
        super().add_row(*map(_text, cells))

    def show(self) -> None:
        """Print it on standard output."""
        Console().print(self)


def _text(cell: Any) -> Text:
    return Text(shown(cell))
