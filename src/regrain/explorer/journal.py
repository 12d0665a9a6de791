"""The journal: every action as one JSON line, written to disk before it is confirmed.

A line holds a sequence number, the time, the event, and a checksum over these and the line before. A torn, altered or
missing line is therefore detected.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from regrain.errors import UserError
from regrain.storage.files import sync


class JournalEntry(NamedTuple):
    """One line: its sequence number from 1, its time (ISO 8601, UTC), and its event."""

    seq: int
    time: str
    event: dict[str, Any]


class Journal:
    """An append-only file that one process at a time may write.

    Raises a UserError if another process holds the journal, or a line before the last one is damaged.

    ``path``: created if absent; its folder must exist. ``entries``: all entries of the file, in order. ``notices``:
    messages on lines set aside at opening.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> journal = Journal(Path(folder.name, "journal.jsonl"))
    >>> journal.append({"kind": "undo"}).seq
    1
    >>> journal.close()
    >>> journal = Journal(Path(folder.name, "journal.jsonl"))
    >>> [entry.event for entry in journal.entries]
    [{'kind': 'undo'}]
    >>> journal.close()
    >>> folder.cleanup()
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[JournalEntry] = []
        self.notices: list[str] = []
        self._sum = ""
        self._broken: str | None = None
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            self._lock()
            self._length = self._read()
            sync(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, event: Mapping[str, Any]) -> JournalEntry:
        """Write an event and wait until it is on disk.

        Raises a UserError if the event cannot be written; the journal then holds no part of it.
        """
        if self._broken is not None:
            raise UserError(
                f"{self.path} could not be written ({self._broken}): stop the explorer and open it again",
                code="not_writable",
            )
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = JournalEntry(len(self.entries) + 1, now, dict(event))
        line, checksum = _line(entry, self._sum)
        try:
            _write_all(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            self._take_back(error)
            raise UserError(
                f"{self.path} could not be written: {error.strerror or error}; nothing was done", code="not_writable"
            ) from None
        self._length += len(line)
        self._sum = checksum
        self.entries.append(entry)
        return entry

    def close(self) -> None:
        """Let another process write."""
        os.close(self._file)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:
            raise UserError(
                "the explorer locks its journal by flock, which this operating system lacks", code="not_supported"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(
                    f"{self.path} cannot be locked ({error.strerror or error}): copy the run to a file system that "
                    "supports flock, such as a local disk",
                    code="not_supported",
                ) from None
            raise UserError(
                f"{self.path} is in use: another `regrain explore` works on this run. Open its page (several browsers "
                "may), or stop it first",
                code="not_writable",
            ) from None

    def _read(self) -> int:
        """Read the lines, set a damaged end aside, and return the length of the sound part.

        A last line that lacks only its newline is complete, as its checksum shows.
        """
        content = self.path.read_bytes()
        sound, at = 0, 0
        while at < len(content):
            end = content.find(b"\n", at) + 1 or len(content)
            if not self._take(content[at:end]):
                last = content[at:end].rstrip(b"\0")
                if self._take(last + b"\n"):
                    return self._end_line(at + len(last))
                if content[end:].strip(b"\0"):
                    raise UserError(
                        f"{self.path}: line {len(self.entries) + 1} is damaged, and it is not the last one: bring an "
                        "older copy of the file back, or cut the file before that line to go on from there",
                        code="damaged_file",
                    )
                self._set_aside(content[at:], sound)
                break
            sound = at = end
        return sound

    def _take(self, line: bytes) -> bool:
        """Accept a line if it is complete and follows the one before."""
        if not line.endswith(b"\n"):
            return False
        try:
            found = json.loads(line)
            entry = JournalEntry(found["seq"], found["time"], found["event"])
        except (ValueError, KeyError, TypeError):
            return False
        expected, checksum = _line(entry, self._sum)
        if line != expected or entry.seq != len(self.entries) + 1:
            return False
        self.entries.append(entry)
        self._sum = checksum
        return True

    def _end_line(self, length: int) -> int:
        """Truncate the file there, add the last line's missing newline, and return the new length."""
        os.ftruncate(self._file, length)
        _write_all(self._file, b"\n")
        os.fsync(self._file)
        self.notices.append(
            f"the last line of {self.path} was whole except for its newline, which was added: it is kept"
        )
        return length + 1

    def _set_aside(self, rest: bytes, sound: int) -> None:
        for number in range(1, 10_000):
            aside = self.path.with_name(f"{self.path.stem}-damaged-{number}.txt")
            try:
                file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                break
            except FileExistsError:
                continue
        else:
            raise UserError(
                f"{self.path.parent} holds thousands of damaged lines set aside: look at the disk first",
                code="damaged_file",
            )
        _write_all(file, rest)
        os.fsync(file)
        os.close(file)
        os.ftruncate(self._file, sound)
        os.fsync(self._file)
        shown = "may have been" if b"\n" in rest else "was not yet"
        self.notices.append(
            f"the last line of {self.path} was damaged ({len(rest)} bytes, an action that {shown} shown as done): "
            f"it was set aside in {aside.name}"
        )

    def _take_back(self, error: OSError) -> None:
        """Remove a half-written line, so that it does not precede the next one."""
        try:
            os.ftruncate(self._file, self._length)
            os.fsync(self._file)
        except OSError:
            self._broken = error.strerror or str(error)


def _line(entry: JournalEntry, before: str) -> tuple[bytes, str]:
    """Make a line's bytes and its checksum over its content and the checksum of the line before."""
    content = json.dumps(entry._asdict(), separators=(",", ":"), sort_keys=True)
    checksum = hashlib.blake2b(f"{before}|{content}".encode(), digest_size=12).hexdigest()
    return f'{content[:-1]},"sum":"{checksum}"}}\n'.encode(), checksum


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
