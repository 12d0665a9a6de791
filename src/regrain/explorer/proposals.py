"""Proposals: a few-shot classifier of the confirmed samples, refitted in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor

from regrain.explorer.state import Group
from regrain.runs.classifier import FewShotClassifier, fit_classifier

_MOST_PER_CLASS = 50
"""Most support samples per class; more cost time and change little."""

_CHUNK = 20_000


@dataclass(frozen=True)
class Evidence:
    """Input of the classifier: the state after an event."""

    seq: int  # number of the last action that is included
    groups: tuple[Group, ...]  # groups with names
    group: np.ndarray  # int array (N,)
    support: np.ndarray  # bool array (N,): samples to learn from; samples in groups without a name are skipped


@dataclass(frozen=True)
class Proposals:
    """The classifier's proposals for N samples."""

    seq: int  # number of the event after which they were made
    time: str  # when they were made, ISO 8601
    group: np.ndarray  # int32 array (N,): the first group of the proposed class; -1 for none
    confidence: np.ndarray  # float32 array (N,): the calibrated probability of that class among all of them
    notices: tuple[str, ...] = ()  # sentences for the user


def propose(
    embeddings: Tensor, evidence: Evidence, superclass: Sequence[str | None], given: np.ndarray, *, seed: int = 0
) -> Proposals:
    """Fit the classifier of :func:`regrain.runs.classifier.fit_classifier`, and apply it to all samples.

    A sample with a labelled superclass gets a proposal from that superclass only; the confidence stays the probability
    among all classes.

    ``embeddings``: (N, d). ``superclass``: sequence of str or None (N,). ``given``: bool array (N,); whether the
    superclass is a label. ``seed``: seed of the folds.
    """
    count = len(embeddings)
    keys = {(g.superclass, g.name): g.number for g in sorted(evidence.groups, key=lambda g: -g.number)}
    of_group = {g.number: (g.superclass, g.name) for g in evidence.groups}
    rows = np.flatnonzero(evidence.support & np.isin(evidence.group, list(of_group)))
    taught = sorted({of_group[n] for n in np.unique(evidence.group[rows]).tolist()}, key=lambda key: keys[key])
    if len(taught) < 2:
        notice = f"proposals need two classes with confirmed training samples; there {'is' if taught else 'are'} "
        return no_proposals(evidence, count, notice + ("one so far" if taught else "none so far"))
    place = {key: code for code, key in enumerate(taught)}
    codes = np.array([place[of_group[n]] for n in evidence.group[rows].tolist()])
    rows, codes = _limited(rows, codes, len(taught), seed)
    classifier = fit_classifier(
        embeddings[rows],
        torch.from_numpy(codes),
        level="proposal",
        classes=tuple(f"{above} / {name}" for above, name in taught),
        abstain=0.0,
        seed=seed,
    )
    best, confidence = _most_probable(classifier, embeddings, [above for above, _ in taught], superclass, given)
    numbers = np.array([*(keys[key] for key in taught), -1], dtype=np.int32)
    return Proposals(
        evidence.seq, _now(), numbers[best], confidence, (f"from {len(rows)} samples of {len(taught)} classes",)
    )


def _limited(rows: np.ndarray, codes: np.ndarray, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw at most :data:`_MOST_PER_CLASS` rows of every class by seed."""
    drawn = np.random.default_rng(seed).permutation(len(rows))
    kept = np.sort(np.concatenate([drawn[codes[drawn] == code][:_MOST_PER_CLASS] for code in range(classes)]))
    return rows[kept], codes[kept]


def _most_probable(
    classifier: FewShotClassifier,
    embeddings: Tensor,
    owners: Sequence[str | None],
    superclass: Sequence[str | None],
    given: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Find each sample's most probable allowed class (N,), -1 if there is none, and its probability."""
    names = {name: code for code, name in enumerate(dict.fromkeys([*owners, *superclass]))}
    owner = torch.tensor([names[name] for name in owners])
    above = torch.tensor([names[name] for name in superclass])
    free = torch.from_numpy(~given)
    best, confidence = [], []
    for at in range(0, len(embeddings), _CHUNK):
        chunk = slice(at, at + _CHUNK)
        allowed = (owner == above[chunk, None]) | free[chunk, None]
        top, code = classifier.probabilities(embeddings[chunk]).masked_fill(~allowed, -1.0).max(dim=1)
        best.append(torch.where(top >= 0, code, -1))
        confidence.append(top.clamp(min=0).float())
    return torch.cat(best).numpy(), torch.cat(confidence).numpy()


def no_proposals(evidence: Evidence, count: int, notice: str) -> Proposals:
    """Make empty proposals for ``count`` samples, with the reason."""
    return Proposals(
        evidence.seq, _now(), np.full(count, -1, dtype=np.int32), np.zeros(count, dtype=np.float32), (notice,)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Proposer:
    """Make proposals in a separate thread, on request and always from the newest evidence.

    ``make``: makes proposals from the newest evidence. ``done``: called with them, in the thread.
    """

    def __init__(self, make: Callable[[], Proposals], done: Callable[[Proposals], None]) -> None:
        self._make, self._done = make, done
        self._asked = threading.Condition()
        self._wanted, self._stopped = False, False
        self._thread = threading.Thread(target=self._work, name="proposals", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Request new proposals."""
        with self._asked:
            self._wanted = True
            self._asked.notify_all()

    def stop(self) -> None:
        """End the thread after the proposals in progress."""
        with self._asked:
            self._stopped = True
            self._asked.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._asked:
                self._asked.wait_for(lambda: self._wanted or self._stopped)
                if self._stopped:
                    return
                self._wanted = False
            self._done(self._make())
