"""Protocols: their declaration, their inputs and their results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.checks import hyperparameters
from regrain.errors import UserError
from regrain.labels import Taxonomy
from regrain.metrics import bootstrap_interval, mean_interval

LACKING = "a class that these data lack"
"""How tables call what a classifier predicts where the data have no such class."""

Need = Literal["train", "augmented", "augment_train", "partitions", "probabilities"]
"""A part of a :class:`Representation` that is computed only for protocols that declare it."""


@dataclass(frozen=True)
class Score:
    """A figure, with the ends of its 95% interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None
    over: str = ""
    """Units of the interval: ``queries``, ``seeds``, ``episodes``, ``subjects``; empty without one."""
    note: str = ""
    """A caveat for the reader of the figure."""
    count: bool = False
    """Whether the value is a number of things, or a mean number of them, not a share."""
    detail: bool = False
    """Whether it is one of many, for files and not for a table on a screen."""
    values: Tensor | None = field(default=None, repr=False, compare=False)
    """(n,) or None: what the value is the mean of, sample by sample, where two representations are compared on the same
    samples.
    """

    @classmethod
    def of_samples(cls, values: Tensor, task: Task, note: str = "") -> Score:
        """Mean of (n,) values, one a sample, with its interval bootstrapped over the samples where there are two."""
        values = values.double()
        if len(values) < 2:
            return cls(float(values.mean()), note=note, values=values)
        mean, low, high = bootstrap_interval(values, seed=task.seed)
        return cls(mean, low, high, "queries", note, values=values)

    @classmethod
    def mean(cls, values: ArrayLike, over: str, note: str = "", *, count: bool = False) -> Score:
        """Mean of one share, or number of things, or several independent ones: then with its 95% interval.

        Examples
        --------
        >>> Score.mean([0.5], "seeds").low is None, round(Score.mean([0.4, 0.6], "seeds").value, 3)
        (True, 0.5)
        """
        numbers = np.asarray(values, dtype=float)
        if len(numbers) == 1:
            return cls(float(numbers[0]), note=note, count=count)
        return cls(*mean_interval(numbers, share=not count), over, note, count)


@dataclass(frozen=True)
class Representation:
    """One way to see the samples: the trained embedding, or a baseline.

    All but ``name`` and ``test`` are None (``probabilities`` is empty) unless a protocol of the evaluation declares
    that it needs them, and where there is nothing to compute them from.
    """

    name: str
    """``model``, ``raw``, ``random`` ..."""
    test: Tensor
    """(N, d)."""
    train: Tensor | None = None
    """(M, d) or None: of the training split."""
    augmented: Callable[[int], Tensor] | None = None
    """Number of copies -> (copies, N, d) of augmented views of the test samples."""
    augment_train: Callable[[int], Tensor] | None = None
    """Number of an epoch -> (M, d) of augmented views of the training split."""
    partitions: Tensor | None = None
    """LongTensor (N, P) or None: the cluster of each test sample in each of P partitions that the method made of its
    own.
    """
    train_partitions: Tensor | None = None
    """LongTensor (M, P) or None: of the training split; comes with ``partitions``."""
    probabilities: Mapping[str, Tensor] = field(default_factory=dict)
    """Level -> Tensor (N, classes): of the test samples by the method's own classifiers, level by level."""


@dataclass(frozen=True)
class Task:
    """The labels of one level."""

    level: str
    classes: tuple[str, ...]
    test_labels: Tensor
    """LongTensor (N,): -1 unknown: such samples are left out."""
    train_labels: Tensor | None
    """LongTensor (M,) or None."""
    seed: int = 0
    superclasses: Tensor | None = None
    """LongTensor (N,) or None: the test samples' classes one level up; None at the coarsest level, and where levels do
    not nest.
    """
    groups: np.ndarray | None = None
    """Array of str (N,) or None: the subject of each test sample; rows of a subject are in time order."""
    taxonomy: Taxonomy | None = None
    """How the classes of this level lie under those of others."""
    finer: Mapping[str, tuple[tuple[str, ...], Tensor]] = field(default_factory=dict)
    """Level -> (tuple of str, LongTensor (N,)): class names and codes of the test samples at the finer levels that have
    labels.
    """

    def known(self) -> Tensor:
        """BoolTensor (N,): the test samples labelled at this level; a UserError where there are fewer than two."""
        known = self.test_labels >= 0
        if int(known.sum()) < 2:
            raise UserError(
                f"level '{self.level}' has fewer than two labelled samples in this split: nothing to evaluate by"
            )
        return known


@dataclass(frozen=True)
class Protocol:
    """A function that gives figures of a representation, and what it declares; made by :func:`protocol`."""

    function: Callable[..., Any]
    """(Representation, Task, **options) -> metric -> Score; where ``levels`` is ``together``, (Representation, sequence
    of Task, **options) -> level -> metric -> Score.
    """
    needs: frozenset[str]
    levels: Literal["each", "together", "finest", "read"]
    default: bool
    classifies: bool
    other_data: bool
    """``needs``, ``levels``, ``default``, ``classifies``, ``other_data``: see :func:`protocol`."""

    def __call__(self, *given: Any, **options: Any) -> Any:
        return self.function(*given, **options)

    @property
    def name(self) -> str:
        """Name of the protocol as users write it."""
        return self.function.__name__.replace("_", "-")

    @cached_property
    def options(self) -> dict[str, inspect.Parameter]:
        """Its options: the function's keyword-only parameters."""
        return hyperparameters(self.function)

    def groups(self, tasks: Sequence[Task], *, chosen: bool, read: Sequence[str]) -> list[list[Task]]:
        """The tasks of each call.

        Parameters
        ----------
        tasks : sequence of Task
            Coarse to fine.
        chosen : bool
            Whether the user chose the levels: then the protocol works at each of them.
        read : sequence of str
            The levels that the method reads.
        """
        if self.levels == "together":
            return [list(tasks)]
        if not chosen and self.levels == "finest":
            tasks = tasks[-1:]
        if not chosen and self.levels == "read":
            tasks = [task for task in tasks if task.level in read] or tasks[:1]
        return [[task] for task in tasks]

    def figures(
        self, representation: Representation, tasks: Sequence[Task], options: Mapping[str, Any]
    ) -> dict[str, dict[str, Score]]:
        """Level -> metric -> Score, of one of the :meth:`groups`."""
        if self.levels == "together":
            return self.function(representation, tasks, **options)
        return {task.level: self.function(representation, task, **options) for task in tasks}


def protocol(
    *needs: Need,
    levels: Literal["each", "together", "finest", "read"] = "each",
    default: bool = False,
    classifies: bool = False,
    other_data: bool = False,
) -> Callable[[Callable[..., Any]], Protocol]:
    """Declare a function as a protocol.

    Its name with dashes is the protocol's, the first line of its docstring the summary, and its keyword-only parameters
    are the options: each with a type of builtins, ``typing`` or :mod:`regrain.checks`, a literal default, and its text
    in the section Parameters. So the command line can read them without importing the file.

    Parameters
    ----------
    *needs
        The parts of a :class:`Representation` that it uses besides ``test``.
    levels
        Where it works when the user chose no levels: at ``each`` alone, at the ``finest`` alone, at those that the
        method ``read`` (else the coarsest); or it gets all levels ``together``.
    default
        Whether it runs when the user asks for no protocol.
    classifies
        Whether its figures are shown next to those of a guess at the majority class.
    other_data
        Whether it works on data that the model was not trained on only.
    """

    def declare(function: Callable[..., Any]) -> Protocol:
        return Protocol(function, frozenset(needs), levels, default, classifies, other_data)

    return declare
