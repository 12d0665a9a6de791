"""A classifier from a few labelled samples, with calibrated probabilities and abstention from what is unlike them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from typing_extensions import TypedDict

from regrain.data.dataset import Dataset
from regrain.errors import RegrainWarning, UserError, nearest
from regrain.evaluation import apply_model, embed
from regrain.labels import Labels
from regrain.metrics import fit_logistic_regressions, guaranteed_threshold
from regrain.model import Model
from regrain.runs.calibration import LEAST_SURE, require_enough, threshold_reaching
from regrain.storage.files import Finite, Folder, json_writer, save_tensors

_FOLDS = 5
_INVERSE_PENALTIES = (1.0, 10.0, 100.0)
_FEWEST_FOR_CHOICE = 3
"""With fewer samples in a class, held-out ones say too little to choose C by."""

_LOG_TEMPERATURES = (-5.0, 3.0)
_WEIGHTS, _CONFIG = "classifier.safetensors", "classifier.json"


class _ClassifierForm(TypedDict):
    level: str
    classes: list[str]
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    threshold: Finite | None
    least_probability: Finite | None
    abstain: Finite
    precision: Finite | None
    confidence: Finite | None
    inverse_penalty: Finite
    notices: list[str]


class Named(NamedTuple):
    """Predictions of a classifier for N samples."""

    codes: Tensor
    """LongTensor (N,): into ``FewShotClassifier.classes``."""
    probabilities: Tensor
    """(N,): calibrated, of that class."""
    typicality: Tensor
    """(N,): cosine to the nearest class mean."""
    abstained: Tensor
    """BoolTensor (N,): whether the sample is less like any class than nearly all support samples were, or its class not
    sure enough.
    """


@dataclass(frozen=True)
class FewShotClassifier:
    """Logistic regression on unit-length embeddings, and the class means."""

    level: str
    """Level of the classes."""
    classes: tuple[str, ...]
    """K names."""
    weights: Tensor = field(repr=False)
    """(K, d)."""
    intercepts: Tensor = field(repr=False)
    """(K,)."""
    means: Tensor = field(repr=False)
    """(K, d): unit length."""
    temperature: float = 1.0
    """Logits are divided by it."""
    threshold: float | None = None
    """Samples of smaller typicality are abstained from; None: the support could not tell, and none is."""
    least_probability: float | None = None
    """Samples whose class is less probable are abstained from; None: as above."""
    abstain: float = 0.05
    """The share of held-out support samples that lies below the threshold."""
    precision: float | None = None
    """The share of right ones among the held-out samples that are sure enough; None: none was asked for, and the least
    probability is one half.
    """
    confidence: float | None = None
    """The probability with which that share is reached; None: it is aimed at."""
    inverse_penalty: float = 1.0
    """C."""
    notices: tuple[str, ...] = field(default=())
    """How these were chosen."""

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """(N, K) calibrated class probabilities of embeddings (N, d)."""
        if embeddings.shape[1] != self.weights.shape[1]:
            raise UserError(
                f"the classifier is of embeddings of width {self.weights.shape[1]}, and the run's have width "
                f"{embeddings.shape[1]}: adapt the run again"
            )
        logits = _unit(embeddings) @ self.weights.double().T + self.intercepts.double()
        return (logits / self.temperature).softmax(dim=1)

    def name(self, embeddings: Tensor) -> Named:
        """The class of each embedding (N, d), how sure that is, and whether to abstain."""
        probabilities, codes = self.probabilities(embeddings).max(dim=1)
        typicality = _typicality(_unit(embeddings), self.means.double())
        abstained = torch.zeros_like(codes, dtype=torch.bool)
        for values, least in ((typicality, self.threshold), (probabilities, self.least_probability)):
            if least is not None:
                abstained = abstained | (values < least)
        return Named(codes, probabilities, typicality, abstained)

    def save(self, folder: Folder) -> None:
        """Write two files into a run's ``model`` folder."""
        content = asdict(self)
        tensors = {key: content.pop(key) for key in ("weights", "intercepts", "means")}
        folder.write({_WEIGHTS: lambda file: save_tensors(file, tensors), _CONFIG: json_writer(content)})

    @classmethod
    def load(cls, folder: Folder) -> FewShotClassifier | None:
        """The classifier in a run's ``model`` folder; None where the run was not adapted.

        Raises a UserError if one of its files is missing or damaged, of a newer schema, or does not fit the others.
        """
        if not folder.has(_CONFIG) and not folder.has(_WEIGHTS):
            return None
        found = folder.read_json(_CONFIG, _ClassifierForm)
        content = {name: found[name] for name in _ClassifierForm.__annotations__}
        for key in ("classes", "notices"):
            content[key] = tuple(content[key])
        count = len(content["classes"])
        tensors = folder.read_tensors(
            _WEIGHTS, {"weights": (count, None), "intercepts": (count,), "means": (count, None)}
        )
        floats = all(tensor.is_floating_point() for tensor in tensors.values())
        if not floats or tensors["weights"].shape != tensors["means"].shape:
            raise UserError(
                f"{folder.path / _WEIGHTS} is damaged: weights and means do not fit together", code="damaged_file"
            )
        return cls(**(content | tensors))


def predicted_classes(labels: Labels | None, classifier: FewShotClassifier | None) -> dict[str, tuple[str, ...]]:
    """Level -> names of its classes, in the order of their probabilities.

    Parameters
    ----------
    labels : Labels or None
        Those of the method's classifier; None where it has none.
    classifier : FewShotClassifier or None
        Of an adapted run; it answers at its level.
    """
    own = {} if labels is None else dict(zip(labels.levels, labels.classes, strict=True))
    return own if classifier is None else own | {classifier.level: classifier.classes}


def level_proba(
    model: Model, labels: Labels, dataset: Dataset, level: str, classifier: FewShotClassifier | None = None
) -> Tensor:
    """Class probabilities (N, classes) at one label level, by the method's classifier or that of an adapted run.

    Classes are in the order of ``classifier.classes`` where it answers, else of ``labels.names(level)``.

    Raises a UserError if nothing predicts that level.
    """
    if classifier is not None and level == classifier.level:
        return classifier.probabilities(embed(model, dataset)).float()
    if level not in labels.levels:
        known = dict.fromkeys([*labels.levels, *([classifier.level] if classifier is not None else [])])
        hint = nearest(level, known) if known else "the method reads no labels"
        raise UserError(f"the model was trained on no level '{level}': {hint}", code="unknown_level")
    if not model.method.has_classifier:
        raise UserError(
            f"{model.method.name} learns embeddings and has no classifier of '{level}': `regrain adapt RUN --support "
            "FILE --out RUN2` makes one from a few labelled samples",
            code="not_supported",
        )
    role = model.method.roles[labels.level_index(level)]
    return apply_model(model, dataset, lambda x: model.method.predict_proba(x, role))


def fit_classifier(
    embeddings: Tensor,
    labels: Tensor,
    *,
    level: str,
    classes: tuple[str, ...],
    abstain: float = 0.05,
    precision: float | None = None,
    confidence: float | None = None,
    inverse_penalty: float | None = None,
    seed: int = 0,
) -> FewShotClassifier:
    """Fit a classifier on the embeddings of a few labelled samples.

    Everything but the weights is decided on held-out support: each sample of a class that has another one is
    judged by a classifier that was fitted without it (5 folds). C is the one of 1, 10, 100 with the lowest held-out
    calibrated cross entropy, where every class has three samples at least, else 1. The temperature minimises the
    held-out cross entropy, with targets a little below one (Platt's), so that a support without any error does not give
    certainty.

    Two things are abstained from. *Unlike*: a typicality, the cosine to the nearest class mean, below the ``abstain``
    quantile of the held-out samples' (on CLINC150 it told out-of-scope texts better than the calibrated probability
    did, ``benchmarks/abstention.py``). *Unsure*: a probability below one half; or with ``precision`` below the smallest
    probability from which on the held-out samples are right so often, never less than one half; or with ``confidence``
    below :func:`regrain.metrics.guaranteed_threshold` of them. That promise is for samples such as the support, and as
    good as cross-validation is: classifiers that have seen four fifths of the support stand for the one that is kept.

    Raises a UserError if there is one class only, a number lies outside its range, or the held-out support cannot show
    the precision.

    Parameters
    ----------
    embeddings : Tensor (S, d)
    labels : LongTensor (S,)
        Into ``classes``; every class occurs.
    abstain, precision, confidence, inverse_penalty, seed
        As of :func:`regrain.adapt`: abstain in [0, 1), precision in (0, 1], confidence in (0, 1).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> labels = torch.arange(30) % 3
    >>> support = torch.eye(3, 8)[labels] + 0.1 * torch.randn(30, 8, generator=generator)
    >>> classifier = fit_classifier(support, labels, level="kind", classes=("a", "b", "c"))
    >>> named = classifier.name(torch.stack([torch.eye(8)[1], torch.eye(8)[7]]))
    >>> classifier.classes[named.codes[0]], named.abstained.tolist()
    ('b', [False, True])
    """
    _require_options(classes, abstain, precision, confidence)
    x = _unit(embeddings)
    held = _folds(labels, len(classes), seed)
    notices: list[str] = []
    candidates = _candidates(inverse_penalty, labels, classes, notices)
    judged = held >= 0
    if not bool(judged.any()):
        if precision is not None:
            raise UserError(
                f"every class of the support has one sample: none could be held out to show --precision {precision:g}",
                code="too_few",
            )
        notices.append(
            "probabilities are not calibrated and nothing is abstained from: every class has one sample, so that none "
            "could be held out"
        )
        penalty, temperature, threshold, least = candidates[0], 1.0, None, None
    else:
        penalty, temperature, logits = _chosen(x, labels, held, len(classes), candidates)
        notices.append(
            f"C = {penalty:g} and temperature {temperature:.3g} by {int(judged.sum())} held-out support samples"
        )
        threshold = _typicality_threshold(x, labels, held, len(classes), abstain, notices)
        least = None
        if abstain > 0 or precision is not None:
            sure, codes = (logits / temperature).softmax(dim=1).max(dim=1)
            least = _least_probability(sure, codes == labels[judged], precision, confidence, notices)
    weights, intercepts = _fit(x, labels, len(classes), penalty)
    return FewShotClassifier(
        level=level,
        classes=classes,
        weights=weights.float(),
        intercepts=intercepts.float(),
        means=_means(x, labels, len(classes)).float(),
        temperature=temperature,
        threshold=threshold,
        least_probability=least,
        abstain=abstain,
        precision=precision,
        confidence=confidence,
        inverse_penalty=penalty,
        notices=tuple(notices),
    )


def _require_options(classes: Sequence[str], abstain: float, precision: float | None, confidence: float | None) -> None:
    if len(classes) < 2:
        names = f": '{classes[0]}'" if classes else ""
        raise UserError(f"the support labels {len(classes)} class{names}; a classifier needs two to tell apart")
    if not 0 <= abstain < 1:
        raise UserError(
            f"abstain is a share of the support, at least 0 and below 1; got {abstain}", code="out_of_range"
        )
    if precision is not None and not 0 < precision <= 1:
        raise UserError(
            f"precision is a share of right ones, above 0 and at most 1; got {precision}", code="out_of_range"
        )
    if confidence is not None and precision is None:
        raise UserError(
            "--confidence says how surely --precision is reached: give that too", code="conflicting_options"
        )


def _candidates(
    inverse_penalty: float | None, labels: Tensor, classes: Sequence[str], notices: list[str]
) -> Sequence[float]:
    """The values of C to choose from: what the user gave, or 1 where a class has too few samples for a choice."""
    counts = labels.bincount(minlength=len(classes))
    if inverse_penalty is not None:
        return [inverse_penalty]
    if int(counts.min()) >= _FEWEST_FOR_CHOICE:
        return _INVERSE_PENALTIES
    fewest = f"class '{classes[int(counts.argmin())]}' has {int(counts.min())}"
    notices.append(f"C = 1: {fewest} of the {_FEWEST_FOR_CHOICE} samples that choosing needs")
    return [1.0]


def _chosen(
    x: Tensor, labels: Tensor, held: Tensor, classes: int, candidates: Sequence[float]
) -> tuple[float, float, Tensor]:
    """C of the lowest held-out cross entropy, the temperature that gives it, and the held-out logits (H, K)."""
    best: tuple[float, float, float, Tensor] | None = None
    for penalty in candidates:
        logits = _held_out_logits(x, labels, held, classes, penalty)
        temperature, entropy = _calibrated(logits, labels[held >= 0])
        if best is None or entropy < best[0]:
            best = (entropy, penalty, temperature, logits)
    assert best is not None
    return best[1:]


def _typicality_threshold(
    x: Tensor, labels: Tensor, held: Tensor, classes: int, abstain: float, notices: list[str]
) -> float | None:
    """The typicality that a share ``abstain`` of the held-out samples falls short of; None without a share."""
    if abstain == 0:
        return None
    threshold = float(np.quantile(_held_out_typicality(x, labels, held, classes).numpy(), abstain))
    notices.append(f"abstains below a cosine of {threshold:.3f} to every class mean: {abstain:.0%} of held-out support")
    return threshold


def _least_probability(
    sure: Tensor, right: Tensor, precision: float | None, confidence: float | None, notices: list[str]
) -> float:
    """Of held-out samples, from which on the share of right ones is as asked for."""
    found: float | None = LEAST_SURE
    if confidence is not None and precision is not None:
        require_enough(len(sure), precision, confidence)
        found = guaranteed_threshold(sure[:, None], right[:, None], precision=precision, confidence=confidence)
    elif precision is not None:
        found = threshold_reaching(sure, right, precision)
    if found is None:
        with_confidence = "" if confidence is None else f" with confidence {confidence:g}"
        raise UserError(
            f"{len(sure)} held-out support samples, {_percent(right)} of them right, show no probability from which on "
            f"{precision:g} are right{with_confidence}: ask for less, or label more",
            code="too_few",
        )
    kept = sure >= found
    notices.append(
        f"abstains below a probability of {found:.3f}: {float((~kept).double().mean()):.0%} of held-out support; "
        f"{_percent(right[kept])} of the rest are right, {_percent(right)} of all"
    )
    return found


def _percent(right: Tensor) -> str:
    return f"{float(right.double().mean()):.0%}" if len(right) else "none"


def _unit(embeddings: Tensor) -> Tensor:
    return functional.normalize(embeddings.double(), dim=1)


def _means(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    sums = x.new_zeros(classes, x.shape[1]).index_add_(0, labels, x)
    return functional.normalize(sums, dim=1)


def _typicality(x: Tensor, means: Tensor) -> Tensor:
    return (x @ means.T).max(dim=1).values


def _folds(labels: Tensor, classes: int, seed: int) -> Tensor:
    """The fold (S,) that holds each sample out; -1 for a class's only sample, which is always fitted on."""
    generator = np.random.default_rng(seed)
    folds = torch.full_like(labels, -1)
    for code in range(classes):
        rows = (labels == code).nonzero()[:, 0]
        if len(rows) > 1:
            order = torch.from_numpy(generator.permutation(len(rows)))
            folds[rows[order]] = (torch.arange(len(rows)) + int(generator.integers(_FOLDS))) % _FOLDS
    return folds


def _fit(x: Tensor, labels: Tensor, classes: int, inverse_penalty: float) -> tuple[Tensor, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)  # far more exact than a few samples can tell
        found = fit_logistic_regressions(
            x[None], labels[None], classes=classes, inverse_penalty=inverse_penalty, tolerance=1e-4
        )
    return found.weights[0], found.intercepts[0]


def _held_out_logits(x: Tensor, labels: Tensor, held: Tensor, classes: int, inverse_penalty: float) -> Tensor:
    """(H, K) logits of the samples that are held out by any fold, each by a classifier fitted without its fold."""
    logits = x.new_zeros(len(x), classes)
    for fold in held[held >= 0].unique():
        weights, intercepts = _fit(x[held != fold], labels[held != fold], classes, inverse_penalty)
        logits[held == fold] = x[held == fold] @ weights.T + intercepts
    return logits[held >= 0]


def _held_out_typicality(x: Tensor, labels: Tensor, held: Tensor, classes: int) -> Tensor:
    """(H,) typicality of the held-out samples, by class means without their fold."""
    values = x.new_zeros(len(x))
    for fold in held[held >= 0].unique():
        values[held == fold] = _typicality(x[held == fold], _means(x[held != fold], labels[held != fold], classes))
    return values[held >= 0]


def _calibrated(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The temperature of the lowest cross entropy, and that."""
    from scipy import optimize

    smoothing = 1 / (len(labels) + 2)

    def entropy(log_temperature: Any) -> float:
        return float(functional.cross_entropy(logits / np.exp(log_temperature), labels, label_smoothing=smoothing))

    found = optimize.minimize_scalar(entropy, bounds=_LOG_TEMPERATURES, method="bounded")
    return float(np.exp(found.x)), float(found.fun)
