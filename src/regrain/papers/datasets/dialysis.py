"""Synthetic dialysis-like records from a seeded generator, without real patients.

SCGM's case study (section 4.3) has one year of 673 hemodialysis patients: 40 temporal features of every session, 28
static ones, windows of five sessions, and whether an event follows, of one of two subtypes. The real data are private.
The generated records share only their form: figures on them say nothing about patients and do not compare with the
paper's.
"""

from __future__ import annotations

import numpy as np

from regrain.data.dataset import Dataset
from regrain.data.rows import Rows, missing_message
from regrain.errors import UserError

TEMPORAL, STATIC = 40, 28
SUBTYPES = {"event": ("sudden", "gradual"), "none": ("steady", "rebound")}

_CARRIERS = 8
"""Channels that carry each hidden course."""

_LABORATORY = 6
"""Channels that are measured only at every third session."""


def dialysis_records(
    *,
    subjects: int = 160,
    sessions: int = 45,
    window: int = 5,
    stride: int = 1,
    missing: float = 0.04,
    test_share: float = 0.5,
    seed: int = 0,
) -> Dataset:
    """Synthetic records in the form of SCGM's dialysis data; **no real patients**.

    Every subject has a hidden course that drifts from session to session and a hidden mode that switches now and then.
    In one mode an event (subtype ``sudden``) follows a high course, in the other (``gradual``) a low one; sessions
    without an event have the subtypes ``steady`` and ``rebound``, by the mode as well. A rising course and some static
    features add to the risk. Course and mode each show in the levels of some channels, the mode also in how pairs of
    channels vary together; the subjects' own levels and noise are added. A model that predicts events therefore needs
    the unlabelled mode, and a linear model cannot use it.

    Parameters
    ----------
    subjects, sessions : int
        Number of subjects, and of sessions per subject; the first ``window`` sessions have no label.
    window, stride : int
        Width of a sample and distance between samples, in sessions; the label is that of the session after the window.
    missing : float in [0, 1)
        Share of the values that are missing at random; besides, laboratory values are there at every third session
        only, and a session in a hundred is lost.
    test_share : float in (0, 1)
        Share of the subjects in the split ``test``.
    seed : int

    Returns
    -------
    Dataset
        Series (N, window, 40) with 28 static features; levels ``event`` (event, none) and ``subtype``; groups are
        subjects, whose rows are in time order.

    Notes
    -----
    Area under the ROC curve for ``event`` on the test subjects, measured on seed 0: 0.54 for logistic regression on the
    flattened standardised values, 0.70 and 0.76 for the classifier ``sup-ce`` with the encoders ``mlp`` and ``dccn``
    after 15 epochs. ``personalised`` accuracy for ``subtype``, mean of ten splits of the subjects into halves: 0.35 on
    raw values, 0.34 on those of an untrained ``dccn``, 0.49 on the embeddings of that trained for ``event``.

    Examples
    --------
    >>> data = dialysis_records(subjects=4, sessions=12)
    >>> data.samples.shape, data.samples.static_width, data.labels.levels, len(data)
    ((5, 40), 28, ('event', 'subtype'), 28)
    """
    return dialysis_rows(
        subjects=subjects,
        sessions=sessions,
        window=window,
        stride=stride,
        missing=missing,
        test_share=test_share,
        seed=seed,
    ).dataset()


def dialysis_rows(
    *,
    subjects: int = 160,
    sessions: int = 45,
    window: int = 5,
    stride: int = 1,
    missing: float = 0.04,
    test_share: float = 0.5,
    seed: int = 0,
) -> Rows:
    """The rows of :func:`dialysis_records`."""
    if subjects < 2 or window < 2 or stride < 1 or sessions <= window:
        raise UserError(
            "dialysis records need 2 subjects or more, windows of 2 sessions or more, a stride of 1 or more, and more "
            f"sessions than a window; got {subjects} subjects, {sessions} sessions, window {window}, stride {stride}"
        )
    if not 0 <= missing < 1 or not 0 < test_share < 1:
        raise UserError(f"missing lies in [0, 1) and test_share in (0, 1); got {missing} and {test_share}")
    world = np.random.default_rng(20220425)  # the channels' meaning is the same for every seed
    loading = world.uniform(0.6, 1.2, size=(2, _CARRIERS)) * world.choice([-1, 1], size=(2, _CARRIERS))
    level_of = world.normal(size=(STATIC, TEMPORAL)) / np.sqrt(STATIC)
    direction = world.normal(size=STATIC) / np.sqrt(STATIC)
    offset = 10 ** world.uniform(0, 2.3, size=TEMPORAL)
    static_offset, static_scale = 10 ** world.uniform(0, 2, size=(2, STATIC))

    random = np.random.default_rng(seed)
    features = random.normal(size=(subjects, STATIC))
    course = _drift(random, subjects, sessions)
    mode = _switching(random, subjects, sessions)
    rise = np.zeros_like(course)
    rise[:, window - 1 :] = course[:, window - 1 :] - course[:, : sessions - window + 1]
    risk = 3.0 * course * mode + 0.5 * rise + 0.8 * (features @ direction)[:, None] - 1.8
    happens = random.random((subjects, sessions)) < 1 / (1 + np.exp(-risk))

    values = random.normal(size=(subjects, sessions, TEMPORAL))
    values += 0.5 * (features @ level_of)[:, None] + 0.5 * random.normal(size=(subjects, 1, TEMPORAL))
    carriers = np.split(values[:, :, : 4 * _CARRIERS], 4, axis=2)  # parts of the array, not copies
    carriers[0] += course[:, :, None] * loading[0]
    carriers[1] += 0.6 * mode[:, :, None] * loading[1]
    together = random.normal(size=(subjects, sessions, _CARRIERS))
    carriers[2] += together
    carriers[3] += together * mode[:, :, None]
    values = offset * (1 + 0.1 * values)
    features = static_offset + static_scale * features
    _lose(random, values, missing)
    features[random.random(features.shape) < missing / 2] = np.nan

    starts = np.arange(0, sessions - window, stride)
    steps = starts[:, None] + np.arange(window)  # (windows, window)
    last = steps[:, -1]
    series = values[:, steps].reshape(-1, window, TEMPORAL).astype(np.float32)
    event = np.where(happens[:, last], "event", "none").ravel()
    subtype = [SUBTYPES[e][int(m < 0)] for e, m in zip(event, mode[:, last].ravel(), strict=True)]
    held_out = np.zeros(subjects, dtype=bool)
    held_out[random.permutation(subjects)[: min(subjects - 1, max(1, round(test_share * subjects)))]] = True
    names = [f"s{subject:03d}" for subject in range(subjects)]
    groups = [name for name in names for _ in starts]
    ids = [f"{name}:{start}" for name in names for start in starts.tolist()]
    static = features.repeat(len(starts), axis=0).astype(np.float32)
    return Rows(
        where="the generator of dialysis-like records",
        name="dialysis",
        modality="series",
        values=series,
        labels={"event": event.tolist(), "subtype": subtype},
        ids=ids,
        describe_row=lambda row: f"record {ids[row]}",
        splits=["test" if held_out[subject] else "train" for subject in range(subjects) for _ in starts],
        groups=groups,
        notes={"source": f"synthetic, seed {seed}", "messages": missing_message(series, static)},
        static=static,
    )


def _drift(random: np.random.Generator, subjects: int, sessions: int) -> np.ndarray:
    """(subjects, sessions): autoregressive of first order, variance 1."""
    course = random.normal(size=(subjects, sessions))
    for step in range(1, sessions):
        course[:, step] = 0.85 * course[:, step - 1] + np.sqrt(1 - 0.85**2) * course[:, step]
    return course


def _switching(random: np.random.Generator, subjects: int, sessions: int) -> np.ndarray:
    """(subjects, sessions) of -1 and 1: a mode that lasts eight sessions on average."""
    switches = random.random((subjects, sessions)) < 1 / 8
    begins = random.integers(0, 2, size=(subjects, 1))
    return 1 - 2 * ((begins + switches.cumsum(axis=1)) % 2)


def _lose(random: np.random.Generator, values: np.ndarray, share: float) -> None:
    """Remove values in place: at random, laboratory values outside every third session, and whole sessions."""
    if share == 0:
        return
    values[random.random(values.shape) < share] = np.nan
    sessions = np.arange(values.shape[1])
    values[:, sessions % 3 != 0, -_LABORATORY:] = np.nan
    values[random.random(values.shape[:2]) < 0.01] = np.nan
