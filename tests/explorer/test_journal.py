"""The journal keeps what it acknowledged, finds what is damaged, and has one writer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import raises

from regrain.errors import UserError
from regrain.explorer.journal import Journal


def _write(path: Path, count: int) -> list[dict[str, object]]:
    journal = Journal(path)
    events = [{"kind": "confirm", "samples": [n], "name": "Grüße \n \u2028 'x'"} for n in range(count)]
    for event in events:
        journal.append(event)
    journal.close()
    return events


def _events(path: Path) -> tuple[list[dict[str, object]], list[str]]:
    journal = Journal(path)
    journal.close()
    return [entry.event for entry in journal.entries], journal.notices


def test_what_was_appended_is_read_again_in_order(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    events = _write(file, 3)
    assert _events(file) == (events, [])
    journal = Journal(file)
    assert journal.append({"kind": "undo"}).seq == 4
    journal.close()
    assert [entry.seq for entry in journal.entries] == [1, 2, 3, 4]


@pytest.mark.parametrize("cut", [2, 30, 59])
def test_a_torn_last_line_is_set_aside_and_the_rest_stays(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "journal.jsonl"
    events = _write(file, 3)
    whole = file.read_bytes()
    torn = whole[:-cut]
    file.write_bytes(torn)
    found, notices = _events(file)
    assert found == events[:2]
    assert "damaged" in notices[0]
    assert "was not yet shown as done" in notices[0]
    aside = tmp_path / "journal-damaged-1.txt"
    assert file.read_bytes() + aside.read_bytes() == torn
    assert _events(file) == (events[:2], [])
    journal = Journal(file)
    journal.append(events[2])
    journal.close()
    assert _events(file)[0] == events


def test_zeros_behind_the_last_line_as_a_power_cut_leaves_them_are_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    events = _write(file, 2)
    with file.open("ab") as stream:
        stream.write(bytes(100))
    found, notices = _events(file)
    assert (found, len(notices)) == (events, 1)


@pytest.mark.parametrize("behind", [b"", bytes(100)], ids=["nothing", "zeros"])
def test_a_last_line_that_lacks_its_newline_alone_is_kept(tmp_path: Path, behind: bytes) -> None:
    file = tmp_path / "journal.jsonl"
    events = _write(file, 3)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + behind)
    found, notices = _events(file)
    assert (found, len(notices)) == (events, 1)
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [file]
    journal = Journal(file)
    journal.append({"kind": "undo"})
    journal.close()
    assert _events(file) == ([*events, {"kind": "undo"}], [])


def test_a_damaged_last_line_with_its_newline_may_have_been_shown(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    events = _write(file, 3)
    file.write_bytes(file.read_bytes().replace(b"[2]", b"[7]"))
    found, notices = _events(file)
    assert found == events[:2]
    assert "may have been shown as done" in notices[0]


def test_a_damaged_line_before_a_torn_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    _write(file, 4)
    harmed = file.read_bytes().replace(b"[2]", b"[7]")[:-20]
    file.write_bytes(harmed)
    with raises("damaged_file"):
        Journal(file)
    assert file.read_bytes() == harmed


@pytest.mark.parametrize("harm", ["changed", "missing", "swapped"])
def test_damage_before_the_last_line_is_refused_and_nothing_is_touched(tmp_path: Path, harm: str) -> None:
    file = tmp_path / "journal.jsonl"
    _write(file, 4)
    lines = file.read_bytes().splitlines(keepends=True)
    harmed = {
        "changed": [lines[0], lines[1].replace(b"[1]", b"[2]"), *lines[2:]],
        "missing": [lines[0], *lines[2:]],
        "swapped": [lines[0], lines[2], lines[1], lines[3]],
    }[harm]
    file.write_bytes(b"".join(harmed))
    with raises("damaged_file"):
        Journal(file)
    assert file.read_bytes() == b"".join(harmed)
    assert list(tmp_path.iterdir()) == [file]


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    first = Journal(file)
    with raises("not_writable"):
        Journal(file)
    first.close()
    Journal(file).close()


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOLCK, "cannot be locked"), (errno.EACCES, "is in use"), (errno.EAGAIN, "is in use")]
)
def test_a_file_system_without_locks_is_no_second_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(UserError, match=said):
        Journal(tmp_path / "journal.jsonl")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "journal.jsonl"
    events = _write(file, 1)
    journal = Journal(file)
    write = os.write

    def full(target: int, content: bytes) -> int:
        if len(content) > 10:
            return write(target, bytes(content[:10]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", lambda target, content: full(target, content[:11]) if target > 2 else len(content))
    with raises("not_writable"):
        journal.append({"kind": "undo"})
    monkeypatch.undo()
    assert len(journal.entries) == 1
    journal.append({"kind": "redo"})
    journal.close()
    assert _events(file)[0] == [*events, {"kind": "redo"}]


def test_what_was_acknowledged_survives_kill(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    program = (
        "import sys; from pathlib import Path; from regrain.explorer.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(10**6): print(journal.append({'kind': 'confirm', 'samples': [n]}).seq, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(50)][-1]
    process.kill()
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    found, _ = _events(file)
    assert len(found) >= acknowledged
    assert [event["samples"] for event in found] == [[n] for n in range(len(found))]
