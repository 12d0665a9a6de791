"""What was chosen for the user is told by every command that trains, once, and kept in the card."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Command

QUICK = ("--encoder", "conv4", "--epochs", "1", "--batch-size", "32", "--device", "cpu")
SMALL = ("--limit-per-class", "20", *QUICK)


@pytest.mark.parametrize(
    ("asked", "notice"),
    [
        (("low-data", "maskcon", "digits", "--sizes", "100", "--seeds", "2", "-p", "recall", *QUICK), "queue of 50"),
        (("isotropy", "maskcon", "digits", "--subclass", "8", "--to", "straight", *SMALL), "queue of 100"),
        (("tune", "maskcon", "digits", "--range", "weight=0.2,1", "--trials", "2", *SMALL), "queue of 80"),
        (
            ("reproduce", "maskcon/table2/maskcon", "--scale", "tiny", "--seeds", "2", "--device", "cpu"),
            "26 groups of byte-identical images",
        ),
    ],
    ids=["low-data", "isotropy", "tune", "reproduce"],
)
def test_notices_of_two_trainings_are_told_once(
    regrain: Command, tmp_path: Path, asked: tuple[str, ...], notice: str
) -> None:
    code, _, err = regrain(*asked, "--out", "out")
    assert code == 0, err
    assert err.count(f"note      {notice}") == 1
    cards = [file.read_text() for file in (tmp_path / "out").rglob("card.md")]
    assert len(cards) == 2
    assert all(f"- note: {notice}" in card for card in cards)
