"""HAPT, smartphone motion of people who move, rest and change posture: raw recordings cut into labelled windows."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regrain.data.records import cut
from regrain.data.rows import Rows
from regrain.errors import UserError
from regrain.papers.datasets.originals import complete_text, first_folder, found_rows

_PLACES = ("RawData", "HAPT Data Set/RawData", "HAPT/RawData", "hapt/RawData", "hapt", ".")
_LEVELS = ("coarse", "fine")
_WINDOW = 128
_STRIDE = 64
_TESTED = (2, 4, 9, 10, 12, 13, 18, 20, 24)
_ACTIVITIES = (  # numbered from 1
    ("dynamic", "WALKING"),
    ("dynamic", "WALKING_UPSTAIRS"),
    ("dynamic", "WALKING_DOWNSTAIRS"),
    ("static", "SITTING"),
    ("static", "STANDING"),
    ("static", "LAYING"),
    ("transition", "STAND_TO_SIT"),
    ("transition", "SIT_TO_STAND"),
    ("transition", "SIT_TO_LIE"),
    ("transition", "LIE_TO_SIT"),
    ("transition", "STAND_TO_LIE"),
    ("transition", "LIE_TO_STAND"),
)


class _Segment(NamedTuple):
    """A line of ``labels.txt``: numbers as in the file, steps counted from 1, the last one included."""

    experiment: int
    subject: int
    activity: int
    first: int
    last: int

    @property
    def recording(self) -> str:
        return f"exp{self.experiment:02}_user{self.subject:02}"

    @property
    def name(self) -> str:
        return f"{self.experiment:02}:{self.first - 1}"


def hapt(root: Path) -> Rows | None:
    """``RawData`` of UCI's HAPT: ``acc_expNN_userNN.txt``, ``gyro_expNN_userNN.txt`` and ``labels.txt``.

    Windows of 128 steps, 64 apart, within a labelled segment; a shorter segment gives one window centred on it, which
    reaches into its neighbours. Other unlabelled steps are left out. Groups are subjects, nine of them for
    testing by the authors' split.
    """
    folder = first_folder(root, _PLACES, "acc_exp*_user*.txt")
    if folder is None:
        return None
    segments = {segment.name: segment for segment in _segments(folder / "labels.txt")}
    signals = {
        recording: _signals(folder, recording)
        for recording in dict.fromkeys(segment.recording for segment in segments.values())
    }
    begins = dict(zip(signals, accumulate(map(len, signals.values()), initial=0), strict=False))
    steps = {}
    for name, segment in segments.items():
        length = len(signals[segment.recording])
        if segment.last > length:
            raise UserError(f"{folder}/labels.txt labels {segment.recording} up to step {segment.last} of {length}")
        steps[name] = begins[segment.recording] + _steps(segment, length)
    remarks: list[str] = []
    windows = cut(steps, width=_WINDOW, stride=_STRIDE, where=str(folder), describe_row=str, messages=remarks)
    owners = [segments[name] for name in windows.records]
    labels = {
        level: [_ACTIVITIES[owner.activity - 1][place] for owner in owners] for place, level in enumerate(_LEVELS)
    }
    splits = ["test" if owner.subject in _TESTED else "train" for owner in owners]
    values = np.concatenate(list(signals.values()))[windows.rows]
    rows = found_rows(folder, "series", values, labels, windows.ids, splits)
    groups = [f"{owner.subject:02}" for owner in owners]
    return replace(rows, groups=groups, notes=rows.notes | {"remarks": remarks})


def _steps(segment: _Segment, length: int) -> np.ndarray:
    """The steps of a segment, counted from 0, and its neighbours where it is shorter than a window."""
    start, stop = segment.first - 1, segment.last
    lacking = _WINDOW - (stop - start)
    if lacking > 0:
        start = max(0, min(start - lacking // 2, length - _WINDOW))
        stop = min(start + _WINDOW, length)
    return np.arange(start, stop)


def _segments(path: Path) -> list[_Segment]:
    segments = []
    for number, line in enumerate(complete_text(path).splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) == 5 and all(map(str.isdecimal, cells)):
            segment = _Segment(*map(int, cells))
            if 1 <= segment.activity <= len(_ACTIVITIES) and 1 <= segment.first <= segment.last:
                segments.append(segment)
                continue
        raise UserError(
            f"{path}, line {number} holds '{line.strip()}'; expected experiment, subject, activity (1 to "
            f"{len(_ACTIVITIES)}), first and last step, such as 1 1 5 250 1232"
        )
    return segments


def _signals(folder: Path, recording: str) -> np.ndarray:
    """Acceleration and angular velocity, float32 (T, 6)."""
    motion, turning = (_signal(folder / f"{kind}_{recording}.txt") for kind in ("acc", "gyro"))
    if len(motion) != len(turning):
        raise UserError(
            f"{folder}: acc_{recording}.txt has {len(motion)} steps, and gyro_{recording}.txt has {len(turning)}"
        )
    return np.hstack([motion, turning])


def _signal(path: Path) -> np.ndarray:
    """Three axes, float32 (T, 3)."""
    try:
        signal = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the data set is not complete") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a signal: {error}") from None
    if signal.shape[1] != 3:
        raise UserError(f"{path} has {signal.shape[1]} numbers in a line; expected three, one for each axis")
    return signal
