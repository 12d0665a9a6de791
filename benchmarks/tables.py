"""The tables of the results, row by row, as commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regrain.papers.rows import published


@dataclass(frozen=True)
class Row:
    """A line: one command.

    Attributes
    ----------
    label : str
    fit : str
        Arguments of ``regrain fit`` without root, seed and out; empty where another row's run serves (``same_as``).
        ``{seed}`` stands for the seed, where samples are drawn by it too.
    paper : dict
        Metric title -> the published figure.
    same_as : str
        ``table/label`` whose runs are also this row's: it reads no label that differs.
    baselines : bool
        Whether raw inputs and random weights are judged beside it, as lines of their own.
    projection : bool
        Whether the output of its projection head is judged too, where it would not be.
    run_of : str
        ``table/label`` whose trained runs are judged here, in place of ``fit``.
    discover : str
        Arguments of ``regrain discover``, where subclasses are judged too.
    """

    label: str
    fit: str = ""
    paper: dict[str, str] = field(default_factory=dict)
    same_as: str = ""
    baselines: bool = False
    projection: bool = False
    run_of: str = ""
    discover: str = ""

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.label.lower())


@dataclass(frozen=True)
class Metric:
    """A column: title, and the key of ``regrain evaluate --json``."""

    title: str
    key: str


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes
    ----------
    name, title : str
    evaluate : str
        Arguments of ``regrain evaluate RUN``, or of another ``verb``.
    metrics : tuple of Metric
    rows : tuple of Row
    seeds : int
    compare : str
        The row that the paired differences are from.
    verb : str
        ``evaluate`` or ``calibrate``; the figures of the latter are those of the split that it judges.
    """

    name: str
    title: str
    evaluate: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    seeds: int = 3
    compare: str = ""
    verb: str = "evaluate"


def _recall(level: str, *more: Metric) -> tuple[Metric, ...]:
    return (Metric("recall@1", f"test/{level}/recall@1"), *more)


_START = "--weights {runs}/start/cifar-100-fine-labels-s0/model/model.safetensors"
_TOY = f"--encoder resnet18-w16 {_START} --limit-per-class 1250 --epochs 5 --set learning_rate=0.065"
_TOY_PAPER = {split: published("maskcon/table1", split) for split in ("good", "bad")}
_TOY_METHODS = {
    "SupCE": "sup-ce", "SupCon": "supcon-queue", "SelfCon": "selfcon", "Grafit": "grafit", "CoIns": "coins",
    "MaskCon": "maskcon", "NNCLR": "nnclr", "SupFINE": "sup-fine",
}  # fmt: skip
_TOY_WEIGHTS = {
    "Grafit": " --set weight=0.5",
    "CoIns": " --set weight=0.5",
    "MaskCon": " --set weight=0.5 --set soft_temperature=0.156",
}
_UNMASKED = ("SelfCon", "NNCLR", "SupFINE")


def _toy_rows(split: str) -> tuple[Row, ...]:
    rows = []
    for label, method in _TOY_METHODS.items():
        shared = split == "bad" and label in _UNMASKED
        paper = {"recall@1": _TOY_PAPER[split][label]} if label in _TOY_PAPER[split] else {}
        command = "" if shared else f"{method} cifartoy-{split} {_TOY}{_TOY_WEIGHTS.get(label, '')}"
        rows.append(Row(label, command, paper, f"toy-good/{label}" if shared else "", baselines=label == "MaskCon"))
    return tuple(rows)


_MAIN_FOUR = {"SupCE": "sup-ce", "SupCon": "supcon-queue", "SelfCon": "selfcon", "MaskCon": "maskcon"}
_IMAGENET = "--encoder lite --frozen --set views.size=96"
_UPDATED = "--set encoder.freeze_statistics=false"
"""Of rows that were run before fine-tuning kept the batch statistics of the start."""
_IMAGENET_64 = f"--encoder lite --set views.size=64 {_UPDATED}"
_DCCN = "--encoder dccn --set encoder.attention=true --epochs 4"
_CLUSTERS = (
    Metric("k-means ACC", "test/intent/kmeans-acc"),
    Metric("ARI", "test/intent/kmeans-ari"),
    Metric("NMI", "test/intent/kmeans-nmi"),
)


def _four_rows(
    data: str,
    *,
    paper: Mapping[str, str] | None = None,
    maskcon: str = "",
    fine: bool = False,
    shared: str = "",
    projection: bool = False,
) -> tuple[Row, ...]:
    """SupCE, SupCon, SelfCon and MaskCon (and SupFINE) with the same options; ``shared`` names a table of the same data
    with other coarse labels, whose runs serve where the method reads none."""
    methods = _MAIN_FOUR | ({"SupFINE": "sup-fine"} if fine else {})
    paper = paper or {}
    serve = _UNMASKED if shared else ()
    return tuple(
        Row(
            label,
            "" if label in serve else f"{method} {data}" + (maskcon if label == "MaskCon" else ""),
            {"recall@1": paper[label]} if label in paper else {},
            f"{shared}/{label}" if label in serve else "",
            baselines=label == "MaskCon",
            projection=projection and not label.startswith("SupCE"),
        )
        for label, method in methods.items()
    )


_BY_WEIGHT = {
    "SelfCon": "selfcon {}",
    "MaskCon": "maskcon {}",
    "MaskCon, w = 1": "maskcon {} --set weight=1",
    "Grafit": "grafit {}",
    "Grafit, w = 0.8": "grafit {} --set weight=0.8",
    "CoIns": "coins {}",
    "CoIns, w = 0.8": "coins {} --set weight=0.8",
}
"""From random weights: the defaults, which trust labels half, and a trust that pretrained starts bear."""


def _by_weight(data: str, *, ends: bool = True) -> tuple[Row, ...]:
    """Methods that mix labels with the relation to oneself, by their weight; ``ends`` adds those that know
    labels alone, and the fine labels."""
    rows = {"SupCE": "sup-ce {}", "SupCon": "supcon-queue {}"} if ends else {}
    rows |= _BY_WEIGHT | ({"SupFINE": "sup-fine {}"} if ends else {})
    return tuple(Row(label, command.format(data), baselines=label == "MaskCon") for label, command in rows.items())


def _whole_network() -> Table:
    """Every method on a whole pretrained network: the same data and steps, rates as they are without a word."""
    data = "cifar100-20 --encoder lite --set views.size=64 --set precision=float32 --limit-per-class 40"
    tuned = f"{data} --epochs 4 --batch-size 128 --set schedule=cosine"
    methods = _TOY_METHODS | {"SCGM-G": "scgm"}
    order = ("SupCE", "SupCon", "SelfCon", "Grafit", "CoIns", "MaskCon", "SCGM-G", "SupFINE")
    paper = published("maskcon/table2")
    clusters = "--subclasses 100 --ignore-coarse-labels"
    start = Row(
        "untouched start", f"selfcon {data} --frozen --set encoder.adapter=identity --epochs 1", discover=clusters
    )
    rows = (
        Row(
            label,
            f"{methods[label]} {tuned}" + (" --set subclasses=100" if label == "SCGM-G" else ""),
            {"recall@1": paper[label]} if label in paper else {},
            discover="--ignore-coarse-labels" if label == "SCGM-G" else clusters,
        )
        for label in order
    )
    metrics = _recall(
        "label",
        Metric("all way 1 shot", "test/label/all-way-1-shot"),
        Metric("all way 5 shot", "test/label/all-way-5-shot"),
        Metric("subclasses, NMI", "discover/test/label/nmi"),
        Metric("subclasses, ACC", "discover/test/label/acc"),
    )
    judge = "-p recall -p few-shot -l label --ways all --shots 1,5 --queries rest --copies 0 --episodes 100"
    title = "CIFAR-100, 20 superclasses, 100 classes to find: ImageNet weights fine-tuned end to end"
    return Table("cifar100-tuned", title, judge, metrics, (start, *rows), seeds=1, compare=start.label)


_PUBLISHED_MEANS = " --set initial_means=random --set assignment_period=5"
"""How SCGM's paper starts, and how often its subclasses are assigned."""


def _subclass_table(
    name: str,
    title: str,
    data: str,
    level: str,
    subclasses: int,
    *,
    raw: str,
    of: str,
    fine: bool = True,
) -> Table:
    """Few-shot accuracy and discovered subclasses, one seed; ``of`` names the table whose runs serve, ``fine`` says
    whether SupFINE is among them. On features as they are, FALCON and SCAN beside them."""
    mixture = f" --set subclasses={subclasses}"
    features = data.partition(" --epochs")[0]
    clusters = f"--subclasses {subclasses} --ignore-coarse-labels"
    few = [f"{way}-way-{shot}-shot" for way in ("5", "all") for shot in (1, 5)] + ["1-shot-intra"]
    metrics = [Metric(key.replace("-", " "), f"test/{level}/{key}") for key in few]
    metrics += [Metric("recall@1", f"test/{level}/recall@1")]
    agreement = {"NMI": "nmi", "purity": "purity", "ACC": "acc"}
    metrics += [Metric(f"subclasses, {words}", f"discover/test/{level}/{key}") for words, key in agreement.items()]
    rows = (
        Row("raw input, k-means", f"selfcon {raw} --epochs 1", discover=clusters),
        Row("raw input, balanced k-means", run_of=f"{name}/raw input, k-means", discover=f"{clusters} --balanced"),
        Row("Coarse", run_of=f"{of}/SupCE", discover=clusters),
        Row("Coarse+", f"coarse+ {data}", discover=clusters),
        Row("ANCOR", f"ancor {data} --set momentum=0.99", discover=clusters),
        Row("SCGM-G", f"scgm {data}{mixture}", discover="--ignore-coarse-labels"),
        Row("SCGM-G as published", f"scgm {data}{mixture}{_PUBLISHED_MEANS}", discover="--ignore-coarse-labels"),
        Row("SCGM-A", f"scgm-a {data}{mixture}", discover="--ignore-coarse-labels"),
        *(
            Row(label, f"{method} {on}{mixture}", discover="--ignore-coarse-labels")
            for label, method, on in (("FALCON", "falcon", features), ("SCAN", "scan", f"{features} --epochs 50"))
            if "--frozen" in raw
        ),
        Row("MaskCon", run_of=f"{of}/MaskCon", discover=clusters),
        Row("MaskCon, balanced k-means", run_of=f"{of}/MaskCon", discover=f"{clusters} --balanced"),
        Row("SeLa", f"sela {data} --set subclasses={subclasses}", discover="--ignore-coarse-labels"),
        Row("GEORGE", f"george {data}", discover="--ignore-coarse-labels"),
        *([Row("Fine", run_of=f"{of}/SupFINE", discover=clusters)] if fine else []),
    )
    judge = "--ways 5,all --shots 1,5 --queries rest --intra-class --copies 0 --episodes 300"
    judge = f"-p recall -p few-shot -l {level} {judge}"
    return Table(name, title, judge, tuple(metrics), rows)


def _unbalanced_table(name: str, title: str, data: str, level: str, subclasses: int) -> Table:
    """Subclasses of unequal size: one has ten times the training samples of another."""
    found = {"NMI": "nmi", "purity": "purity", "ACC": "acc"}
    metrics = [
        Metric(f"{split} {words}", f"discover/{split}/{level}/{key}")
        for split in ("train", "test")
        for words, key in found.items()
    ]
    tail = f"{data} --imbalance 10 --draw {{seed}}"
    on_features = tail.replace(data, data.partition(" --epochs")[0])
    mixture = f" --set subclasses={subclasses}"
    clusters = f"--subclasses {subclasses} --ignore-coarse-labels"
    rows = (
        Row("k-means", f"features {tail}", discover=clusters),
        Row("balanced k-means", run_of=f"{name}/k-means", discover=f"{clusters} --balanced"),
        Row("SCGM-G", f"scgm {tail}{mixture}", discover="--ignore-coarse-labels"),
        Row("FALCON", f"falcon {on_features}{mixture}", discover="--ignore-coarse-labels"),
    )
    return Table(name, title, f"-p recall -l {level}", tuple(metrics), rows, compare="k-means")


def _found_classes(level: str, upper: str = "") -> tuple[Metric, ...]:
    """Figures of the classes that a method found by itself, and of k-means on its embeddings."""
    titles = {"ACC": "acc", "NMI": "nmi", "AMI": "ami", "ARI": "ari"}
    own = [Metric(title, f"test/{level}/head1-{key}") for title, key in titles.items()]
    own += [Metric("matched on train", f"test/{level}/head1-acc-by-train")]
    if upper:
        own += [
            Metric(f"ACC at {upper}", f"test/{level}/acc@{upper}"),
            Metric(f"ARI at {upper}", f"test/{level}/ari@{upper}"),
        ]
    own += [Metric("classes in use", f"test/{level}/head1-clusters")]
    return (*own, Metric("k-means ACC", f"test/{level}/kmeans-acc"), Metric("Ward ACC", f"test/{level}/ward-acc"))


def _unlabelled(
    name: str,
    title: str,
    data: str,
    level: str,
    upper: str,
    classes: int,
    methods: Mapping[str, str],
    raw: str,
    seeds: int,
) -> Table:
    """Classes without any label: k-means on the raw input, and ``methods``, label -> name and options.

    The row of k-means is fitted on the training split, from ten starts; its last columns are of test embeddings alone.
    """
    judge = f"-p clustering{' -p hierarchy' if upper else ''} -l {level} --cluster-seeds 1"
    rows = [Row("raw input, k-means", " ".join(f"kmeans {data} {raw} --set subclasses={classes}".split()))]
    rows += [
        Row(label, f"{command.split(' ', 1)[0]} {data} {command.split(' ', 1)[1]}")
        for label, command in methods.items()
    ]
    return Table(name, title, judge, _found_classes(level, upper), tuple(rows), seeds=seeds)


def _on_features(classes: int) -> dict[str, str]:
    """Methods without labels on frozen features."""
    return {
        "TURTLE": f"turtle --set subclasses={classes}",
        "SCAN": f"scan --set subclasses={classes} --epochs 50",
        "SeLa": f"sela --set subclasses={classes} --epochs 50",
        "Self-Classifier": f"self-classifier --set class_counts=[{classes}]",
    }


_SUPERCLASS_METHODS = {
    "SupCE": "sup-ce",
    "SupCE at unit length": "sup-ce --set normalise_classifier=true",
    "SupCon": "supcon",
    "SimCLR": "simclr",
    "TSC": "tsc",
    "GEORGE": "george",
    "SCLRE": "sclre",
    "SCLRE as published": "sclre --set form=published --set attention=batch",
    "SCLRE without attention": "sclre --set attention=none",
    "SCLRE without contrast": "sclre --set contrastive_weight=0",
    "SCLRE without targets": "sclre --set target_weight=0",
}
_SUPPLEMENT = {"SupCE": "Baseline", "GEORGE": "GEORGE", "SCLRE as published": "SCLRE"}
_SUPERCLASS_PAPER = {
    "SupCon": {3: "78.1", 4: "80.1", 7: "72.7"},  # the main paper's
    "SimCLR": {3: "79.0", 4: "80.6", 7: "73.9"},
    **{
        label: {count: published("sclre/table3", f"c{count}")[row] for count in (3, 4, 7)}
        for label, row in _SUPPLEMENT.items()
    },
}


def _superclass_table(
    name: str,
    title: str,
    data: str,
    level: str,
    finest: str,
    methods: Mapping[str, str],
    paper: Mapping[str, str] | None = None,
    seeds: int = 3,
) -> Table:
    """Classifiers of superclasses; ``methods``: label -> method and its options."""
    titles = {"accuracy": "accuracy", "macro": "macro", "worst hidden class": f"worst@{finest}"}
    titles["calibration error"] = "calibration-error"
    rows = []
    for label, command in methods.items():
        method, _, options = command.partition(" ")
        published = {"accuracy": paper[label]} if paper and label in paper else {}
        rows.append(Row(label, f"{method} {data} {options}".rstrip(), published, baselines=label.startswith("SupCE")))
    metrics = tuple(Metric(title, f"test/{level}/{key}") for title, key in titles.items())
    compare = "SupCE" if "SupCE" in methods else ""
    return Table(name, title, f"-p superclass -l {level}", metrics, tuple(rows), seeds=seeds, compare=compare)


def _superclasses(count: int) -> Table:
    """CIFAR100-3, -4, -7 on frozen features: classifiers of superclasses, and what of SCLRE it takes."""
    return _superclass_table(
        f"superclass-{count}",
        f"CIFAR100-{count}: {count} superclasses of classes that look nothing alike, on frozen ImageNet features",
        f"cifar100-{count} {_IMAGENET} --limit-per-class 100 --epochs 20",
        f"superclass{count}",
        "label",
        _SUPERCLASS_METHODS,
        {label: by_count[count] for label, by_count in _SUPERCLASS_PAPER.items()},
    )


def _with_options(method: str, arguments: str) -> str:
    """A method's name, the arguments, then the method's own options."""
    name, _, options = method.partition(" ")
    return f"{name} {arguments} {options}".rstrip()


def _mixture_table(name: str, title: str, data: str, coarse: str, fine: str, *, seeds: int) -> Table:
    """5% of the training samples labelled to the fine class, 60% to the coarse one alone, 35% not at all."""
    hidden = f"--hide-labels {coarse}=0.35 --hide-labels {fine}=0.95"
    methods = {
        "mixed": "mixed",
        "MaskCon": "maskcon",
        "SCGM-G": "scgm",
        "MLCL": "mlcl",
        "multi-CE": "multi-ce",
        "SupFINE (fine labels alone)": "sup-fine",
        "SupCE (coarse labels alone)": "sup-ce",
        "SelfCon (no labels)": "selfcon",
    }
    metrics = [
        Metric(f"{words}, {level}", f"test/{level}/{key}")
        for level in (fine, coarse)
        for words, key in (("accuracy", "accuracy"), ("calibration error", "calibration-error"))
    ]
    rows = tuple(
        Row(label, _with_options(method, f"{data} {hidden}"), baselines=label == "mixed")
        for label, method in methods.items()
    )
    judge = f"-p superclass -l {fine} -l {coarse}"
    return Table(name, title, judge, tuple(metrics), rows, seeds=seeds, compare="mixed")


def _free_grained_table(name: str, title: str, data: str, coarse: str, fine: str, *, seeds: int) -> Table:
    """The same shares of labels as in a mixture, the fine ones missing by chance or where a probe finds them hard."""
    methods = {
        "mixed": "mixed",
        "mixed without balance": "mixed --set balance=0",
        "multi-CE": "multi-ce",
        "Guided": "guided",
        "Taxon-SSL": "taxon-ssl",
    }
    levels = (f"accuracy, {fine}", f"test/{fine}/accuracy"), (f"accuracy, {coarse}", f"test/{coarse}/accuracy")
    together = ("FPA", "test/all/fpa"), ("TICE", "test/all/tice"), ("HOPS", "test/all/hops")
    rows = []
    for words, mode in (("by chance", ""), ("where hard", ":hard")):
        hidden = f"--hide-labels {coarse}=0.35 --hide-labels {fine}=0.95{mode}"
        for label, method in methods.items():
            rows.append(Row(f"{label}, {words}", _with_options(method, f"{data} {hidden}")))
    metrics = tuple(Metric(words, key) for words, key in (*levels, *together))
    return Table(name, title, "-p multi-aspect", metrics, tuple(rows), seeds=seeds, compare="mixed, by chance")


def _novel_table(name: str, title: str, data: str, fine: str) -> Table:
    """Half of the fine classes of every superclass labelled, in half of their samples; the others never."""
    hidden = f"--hide-classes {fine}=0.5 --hide-labels {fine}=0.5"
    ages = ("all", "old", "new")
    metrics = [Metric(f"k-means, {age}", f"test/{fine}/novel-{age}") for age in ages]
    metrics += [Metric(f"discover, {age}", f"discover/test/{fine}/novel-{age}") for age in ages]
    methods = {"untouched features": "features", "MaskCon": "maskcon", "mixed": "mixed", "multi-CE": "multi-ce"}
    rows = tuple(
        Row(label, f"{method} {data} {hidden}", discover=f"--known {fine} --ignore-coarse-labels")
        for label, method in methods.items()
    )
    return Table(name, title, f"-p novel -l {fine} --cluster-seeds 1", tuple(metrics), rows, seeds=1)


def _answers_table(name: str, title: str, of: str, coarse: str, fine: str, *, seeds: int) -> Table:
    """What runs of a mixture answer on the test split, calibrated on the validation split."""
    metrics = [
        Metric(words.format(level=level), f"test/{level}/{key}")
        for level in (fine, coarse)
        for words, key in (("answered at {level}", "answered"), ("right of those", "precision"))
    ]
    metrics += [
        Metric("abstained", "test/all/abstained"),
        Metric("right of all answers", "test/all/precision"),
        Metric("calibration error of the answers", "test/all/calibration_error"),
    ]
    labels = ("mixed", "MLCL", "multi-CE", "SupFINE (fine labels alone)", "SupCE (coarse labels alone)")
    rows = tuple(Row(label, run_of=f"{of}/{label}") for label in labels)
    return Table(name, title, "--precision 0.9 --judge test", tuple(metrics), rows, seeds=seeds, verb="calibrate")


_LEVELS = {
    "SupCE": "sup-fine {data} -l {fine}",
    "SupCon": "supcon {data} -l {fine}",
    "HiMulConE": "himulcone {data}",
    "Guided": "guided {data}",
    "MLCL": "mlcl {data}",
}
_LOW_EPOCHS = {1000: 60, 5000: 20, 10_000: 10, 20_000: 5}
_LOW_PAPER = {
    label: {size: published("mlcl/table3", f"n{size}")[row] for size in _LOW_EPOCHS}
    for label, row in (("SupCE", "CE"), ("SupCon", "SupCon"), ("MLCL", "MLCL"))
}
_ORDER = "--set 'orders=[[negative,neutral,positive]]'"
_ASPECTS = {
    "CE": "multi-ce",
    "MLCL without global head": "mlcl --set ce_weight=0.7",
    "MLCL": f"mlcl --set ce_weight=0.7 --set global_weight=0.1 {_ORDER}",
}
_TRIPADVISOR_PAPER = {
    label: {size: published("mlcl/table4", f"tripadvisor n{size}")[label] for size in (30, 60, 180)}
    for label in ("CE", "MLCL")
}
_TOGETHER = tuple(
    Metric(words, f"test/all/{key}")
    for words, key in (("macro F1", "macro-f1"), ("balanced accuracy", "balanced-accuracy"), ("accuracy", "accuracy"))
)


def _low_data_row(label: str, size: int, options: str, name: str, *, baselines: bool) -> Row:
    """A method on so many images of CIFAR-100, judged by the classes."""
    data = f"cifar100 {options} --samples {size} --draw {{seed}}"
    fit = _LEVELS[label].replace("{data}", data).replace("{fine}", "label")
    return Row(name, fit, {"linear": _LOW_PAPER[label][size]} if label in _LOW_PAPER else {}, baselines=baselines)


def _low_data_rows() -> tuple[Row, ...]:
    """CIFAR-100 with few images, on frozen features; about 400 steps for each size, 240 for the smallest."""
    return tuple(
        _low_data_row(
            label,
            size,
            f"{_IMAGENET} --epochs {epochs}",
            f"{label}, {size:,} images",
            baselines=label == "SupCE" and size == 1000,
        )
        for size, epochs in _LOW_EPOCHS.items()
        for label in _LEVELS
    )


def _tripadvisor(name: str, title: str, data: str, epochs: Mapping[int, int], *, seeds: int) -> Table:
    """Six aspects of hotel reviews; ``epochs`` by number of training reviews."""
    rows = []
    for size, count in epochs.items():
        for label, command in _ASPECTS.items():
            method, _, options = command.partition(" ")
            fit = f"{method} tripadvisor {data} --samples {size} --draw {{seed}} --epochs {count} {options}".rstrip()
            paper = {"accuracy": _TRIPADVISOR_PAPER[label][size]} if size in _TRIPADVISOR_PAPER.get(label, {}) else {}
            rows.append(Row(f"{label}, {size} reviews", fit, paper, baselines=label == "CE"))
    return Table(name, title, "-p multi-aspect", _TOGETHER, tuple(rows), seeds=seeds)


_NOISY = {
    "CE": "multi-ce",
    "MLCL": _ASPECTS["MLCL"],
    "MLCL, global head 0.6": f"mlcl --set ce_weight=0.2 --set global_weight=0.6 {_ORDER}",
}
_NOISY |= {f"{label}, unit length": f"{command} --set normalise_classifier=true" for label, command in _NOISY.items()}

_SCRATCH = "cifar10 -l label --limit-per-class 1000"
_W16 = "--encoder resnet18-w16 --epochs 40"
_TINY = "self-classifier digits --encoder conv4 --epochs 40"
_ABLATIONS = {
    "as it is": "",
    "row temperature 0.05": " --set row_temperature=0.05",
    "row temperature 0.2": " --set row_temperature=0.2",
    "column temperature 0.1": " --set column_temperature=0.1",
    "column temperature 0.025": " --set column_temperature=0.025",
    "heads of 10, 20, 40": " --set 'class_counts=[10,20,40]'",
    "four heads of 10": " --set 'class_counts=[10,10,10,10]'",
    "batch 64": " --batch-size 64",
    "batch 128": " --batch-size 128",
    "no further views": " --set local_views=0",
    "six further views": " --set local_views=6",
    "no queue": " --set queue_size=0",
    "queue of 256": " --set queue_size=256",
    "no hidden layer": " --set layers=0",
}

TABLES: tuple[Table, ...] = (
    *(
        Table(
            f"toy-{split}",
            f"CIFARtoy, {split} split: two superclasses, eight classes to find",
            "-p recall -l label",
            _recall("label", Metric("recall@2", "test/label/recall@2"), Metric("recall@10", "test/label/recall@10")),
            _toy_rows(split),
            compare="MaskCon",
        )
        for split in ("good", "bad")
    ),
    *(
        Table(
            name,
            f"CIFARtoy, good split, all 40,000 images{words}",
            "-p recall -l label",
            _recall("label", Metric("recall@2", "test/label/recall@2"), Metric("recall@10", "test/label/recall@10")),
            _four_rows(
                f"cifartoy-good --encoder resnet18-w16 {_START} --epochs {epochs} --set learning_rate=0.065",
                paper=_TOY_PAPER["good"],
                maskcon=_TOY_WEIGHTS["MaskCon"],
            ),
            seeds=1,
            compare="MaskCon",
        )
        for name, epochs, words in (("toy-full", 4, ""), ("toy-long", 12, ", 12 epochs"))
    ),
    Table(
        "toy-imagenet",
        "CIFARtoy, good split, all 40,000 images, on frozen ImageNet features",
        "-p recall -l label",
        _recall("label", Metric("recall@2", "test/label/recall@2"), Metric("recall@10", "test/label/recall@10")),
        _four_rows(f"cifartoy-good {_IMAGENET} --epochs 10", paper=_TOY_PAPER["good"]),
        seeds=1,
        compare="MaskCon",
    ),
    Table(
        "cifar100",
        "CIFAR-100, 20 superclasses, 100 classes to find, on frozen ImageNet features",
        "-p recall -l label",
        _recall("label", Metric("recall@10", "test/label/recall@10")),
        _four_rows(
            f"cifar100-20 {_IMAGENET} --limit-per-class 100 --epochs 10",
            paper=published("maskcon/table2"),
            fine=True,
        ),
        compare="MaskCon",
    ),
    _whole_network(),
    Table(
        "omniglot",
        "Omniglot, 5 alphabets, 136 characters to find",
        "-p recall -l character",
        _recall("character", Metric("recall@10", "test/character/recall@10")),
        _by_weight("omniglot --image-size 28 --encoder conv4 --epochs 15"),
        compare="MaskCon",
    ),
    *(
        Table(
            f"scratch-{name}",
            f"{words}, from random weights: how far to trust labels",
            "-p recall -l label",
            _recall("label", Metric("recall@10", "test/label/recall@10")),
            _by_weight(f"{data} --encoder conv4 --limit-per-class {images} --epochs 15", ends=False),
            compare="MaskCon",
        )
        for name, words, data, images in (
            ("toy", "CIFARtoy, good split, 4,000 images", "cifartoy-good", 500),
            ("cifar100", "CIFAR-100, 20 superclasses, 5,000 images", "cifar100-20", 50),
        )
    ),
    *(
        Table(
            f"grocery-{coarse}",
            f"Grocery, {words}, 81 products to find, on frozen ImageNet features",
            "-p recall -l fine",
            _recall("fine", Metric("recall@10", "test/fine/recall@10")),
            _four_rows(
                f"grocery -l {coarse} -l fine {_IMAGENET} --epochs 20",
                fine=True,
                shared="" if coarse == "category" else "grocery-category",
            ),
            compare="MaskCon",
        )
        for coarse, words in (("category", "3 categories"), ("coarse", "43 coarse classes"))
    ),
    Table(
        "clinc-frozen",
        "CLINC150, 10 domains, 150 intents to find: frozen MiniLM and a trained adapter",
        "-p recall -p clustering -l intent --cluster-seeds 1",
        _recall("intent", *_CLUSTERS),
        _four_rows("clinc150 --encoder minilm --frozen --epochs 10", projection=True),
        compare="MaskCon",
    ),
    Table(
        "clinc-tuned",
        "CLINC150, 10 domains, 150 intents to find: MiniLM fine-tuned end to end",
        "-p recall -p clustering -l intent --cluster-seeds 1",
        _recall("intent", *_CLUSTERS),
        (
            *(
                Row(
                    label,
                    "maskcon clinc150 --encoder minilm --epochs 4 --batch-size 128 --set encoder_learning_rate=0.0001 "
                    f"--set learning_rate=0.002 {chosen}",
                    baselines=label.endswith("agreement"),
                    projection=True,
                )
                for label, chosen in (
                    (
                        "MaskCon, settings by agreement",
                        "--set weight=0.5 --set temperature=0.0689 --set soft_temperature=0.0764",
                    ),
                    ("MaskCon, settings by coarse-knn", "--set temperature=0.0801 --set soft_temperature=0.104"),
                )
            ),
        ),
    ),
    _subclass_table(
        "subclasses-omniglot",
        "Omniglot, 5 alphabets: few-shot and subclasses",
        "omniglot --image-size 28 --encoder conv4 --epochs 15",
        "character",
        136,
        raw="omniglot --image-size 28 --encoder identity",
        of="omniglot",
    ),
    _subclass_table(
        "subclasses-cifar100",
        "CIFAR-100, 20 superclasses, on frozen ImageNet features: few-shot and subclasses",
        f"cifar100-20 {_IMAGENET} --limit-per-class 100 --epochs 10",
        "label",
        100,
        raw=f"cifar100-20 {_IMAGENET} --limit-per-class 100 --set encoder.adapter=identity",
        of="cifar100",
    ),
    _subclass_table(
        "subclasses-grocery",
        "Grocery, 3 categories, on frozen ImageNet features: few-shot and subclasses",
        f"grocery -l category -l fine {_IMAGENET} --epochs 20",
        "fine",
        81,
        raw=f"grocery -l category -l fine {_IMAGENET} --set encoder.adapter=identity",
        of="grocery-category",
    ),
    _subclass_table(
        "subclasses-clinc",
        "CLINC150, 10 domains, frozen MiniLM: few-shot and subclasses",
        "clinc150 --encoder minilm --frozen --epochs 10",
        "intent",
        150,
        raw="clinc150 --encoder minilm --frozen --set encoder.adapter=identity",
        of="clinc-frozen",
        fine=False,
    ),
    _unbalanced_table(
        "unbalanced-clinc",
        "CLINC150, 10 domains, 150 intents of unequal size to find, frozen MiniLM",
        "clinc150 --encoder minilm --frozen --epochs 10",
        "intent",
        150,
    ),
    _unbalanced_table(
        "unbalanced-grocery",
        "Grocery, 3 categories, 81 products of more unequal size to find, on frozen ImageNet features",
        f"grocery -l category -l fine {_IMAGENET} --epochs 20",
        "fine",
        81,
    ),
    Table(
        "hapt",
        "HAPT, 3 coarse activities, 12 fine ones: DCCN on windows of motion, few-shot and personalised",
        "-p few-shot -p personalised -l fine --ways 5,all --shots 1,5 --queries rest --copies 0 --episodes 300",
        (
            Metric("5 way 1 shot", "test/fine/5-way-1-shot"),
            Metric("5 way 5 shot", "test/fine/5-way-5-shot"),
            Metric("all way 1 shot", "test/fine/all-way-1-shot"),
            Metric("personalised", "test/fine/personalised"),
            Metric("subclasses NMI", "discover/test/fine/nmi"),
            Metric("purity", "discover/test/fine/purity"),
        ),
        tuple(
            Row(label, f"{method} hapt {_DCCN}{options}", baselines=label == "Coarse", discover=found)
            for label, method, options, found in (
                ("Coarse", "sup-ce", "", "--subclasses 12 --ignore-coarse-labels"),
                ("SCGM-G", "scgm", " --set subclasses=12", "--ignore-coarse-labels"),
                ("SCGM-G as published", "scgm", f" --set subclasses=12{_PUBLISHED_MEANS}", "--ignore-coarse-labels"),
                ("SCGM-A", "scgm-a", " --set subclasses=12", "--ignore-coarse-labels"),
                ("MaskCon", "maskcon", "", "--subclasses 12 --ignore-coarse-labels"),
                ("MaskCon, w = 0.5", "maskcon", " --set weight=0.5", "--subclasses 12 --ignore-coarse-labels"),
                ("Fine", "sup-fine", "", "--subclasses 12 --ignore-coarse-labels"),
            )
        ),
    ),
    _unlabelled(
        "nolabels-cifar10",
        "CIFAR-10 without labels, 10,000 images, from scratch",
        _SCRATCH,
        "label",
        "",
        10,
        {
            "Self-Classifier": f"self-classifier {_W16} --set 'class_counts=[10,50]'",
            "SCAN": f"scan {_W16} --set subclasses=10 --batch-size 256 --set learning_rate=0.06",
            "SeLa": f"sela {_W16} --set subclasses=10",
        },
        raw="--encoder identity",
        seeds=1,
    ),
    _unlabelled(
        "nolabels-cifar100",
        "CIFAR-100 without labels, on frozen ImageNet features",
        f"cifar100-20 {_IMAGENET} --limit-per-class 100",
        "label",
        "superclass",
        100,
        _on_features(100),
        raw="",
        seeds=3,
    ),
    _unlabelled(
        "nolabels-clinc",
        "CLINC150 without labels, frozen MiniLM",
        "clinc150 --encoder minilm --frozen",
        "intent",
        "domain",
        150,
        _on_features(150),
        raw="",
        seeds=3,
    ),
    _unlabelled(
        "nolabels-grocery",
        "Grocery without labels, 81 products, on frozen ImageNet features",
        f"grocery {_IMAGENET}",
        "fine",
        "coarse",
        81,
        _on_features(81),
        raw="",
        seeds=3,
    ),
    _unlabelled(
        "nolabels-hapt",
        "HAPT without labels, 12 activities of unequal size, on the windows as they are",
        "hapt --encoder identity",
        "fine",
        "coarse",
        12,
        _on_features(12),
        raw="",
        seeds=3,
    ),
    _unlabelled(
        "nolabels-cifar10-features",
        "CIFAR-10 without labels, 10,000 images, on frozen ImageNet features",
        f"cifar10 {_IMAGENET} --limit-per-class 1000",
        "label",
        "",
        10,
        _on_features(10),
        raw="",
        seeds=3,
    ),
    *(_superclasses(count) for count in (4, 7, 3)),
    _superclass_table(
        "superclass-grocery",
        "Grocery, 3 categories of 81 products, on frozen ImageNet features",
        f"grocery -l category -l fine {_IMAGENET} --epochs 20",
        "category",
        "fine",
        _SUPERCLASS_METHODS,
    ),
    _superclass_table(
        "superclass-few",
        "CIFAR100-7 with few labels: the others hidden",
        f"cifar100-7 {_IMAGENET} --limit-per-class 100 --epochs 20",
        "superclass7",
        "label",
        {
            f"{label}, {share}% hidden": f"{command} --hide-labels {share / 100}"
            for share in (60, 80, 95)
            for label, command in (("SupCE", "sup-ce"), ("TSC", "tsc"), ("SCLRE", "sclre"))
        },
        seeds=1,
    ),
    *(
        _superclass_table(
            name,
            f"{title}: half of the training labels drawn anew",
            data,
            level,
            finest,
            {
                label: f"{_SUPERCLASS_METHODS[label]} --label-noise 0.5 --draw {{seed}}"
                for label in (
                    "SupCE",
                    "SupCE at unit length",
                    "SCLRE",
                    "SCLRE as published",
                    "SCLRE without attention",
                )
            },
        )
        for name, title, data, level, finest in (
            (
                "superclass-noise",
                "Wrong labels, Grocery, 3 categories, on frozen ImageNet features",
                f"grocery -l category -l fine {_IMAGENET} --epochs 20",
                "category",
                "fine",
            ),
            (
                "superclass-noise-7",
                "Wrong labels, CIFAR100-7, on frozen ImageNet features",
                f"cifar100-7 {_IMAGENET} --limit-per-class 100 --epochs 20",
                "superclass7",
                "label",
            ),
        )
    ),
    _mixture_table(
        "mixture-clinc",
        "CLINC150, frozen MiniLM: 5% labelled to the intent, 60% to the domain alone, 35% not at all",
        "clinc150 --encoder minilm --frozen --epochs 10",
        "domain",
        "intent",
        seeds=2,
    ),
    _mixture_table(
        "mixture-cifar100",
        "CIFAR-100, frozen ImageNet features: 5% labelled to the class, 60% to the superclass alone, 35% not at all",
        f"cifar100-20 {_IMAGENET} --limit-per-class 100 --epochs 10",
        "superclass",
        "label",
        seeds=1,
    ),
    _mixture_table(
        "mixture-grocery",
        "Grocery, frozen ImageNet features: 5% labelled to the product, 60% to the coarse class alone, 35% not at all",
        f"grocery -l coarse -l fine {_IMAGENET} --epochs 20",
        "coarse",
        "fine",
        seeds=1,
    ),
    _free_grained_table(
        "free-clinc",
        "CLINC150, frozen MiniLM: the intents of 95% missing by chance, or where they are hard",
        "clinc150 --encoder minilm --frozen --epochs 10",
        "domain",
        "intent",
        seeds=1,
    ),
    _free_grained_table(
        "free-grocery",
        "Grocery, frozen ImageNet features: the products of 95% missing by chance, or where they are hard",
        f"grocery -l coarse -l fine {_IMAGENET} --epochs 20",
        "coarse",
        "fine",
        seeds=1,
    ),
    _answers_table(
        "answers-clinc",
        "CLINC150: answers at the most specific level that is sure",
        "mixture-clinc",
        "domain",
        "intent",
        seeds=2,
    ),
    _answers_table(
        "answers-grocery",
        "Grocery: answers at the most specific level that is sure",
        "mixture-grocery",
        "coarse",
        "fine",
        seeds=1,
    ),
    _novel_table(
        "novel-clinc",
        "CLINC150, frozen MiniLM: half of the intents of every domain labelled, the others never",
        "clinc150 --encoder minilm --frozen --epochs 10",
        "intent",
    ),
    _novel_table(
        "novel-grocery",
        "Grocery, frozen ImageNet features: half of the products of every coarse class labelled, the others never",
        f"grocery -l coarse -l fine {_IMAGENET} --epochs 20",
        "fine",
    ),
    Table(
        "low-data-cifar100",
        "CIFAR-100 with few images, labelled at both levels, on frozen ImageNet features: linear classifier",
        "-p linear -l label",
        (Metric("linear", "test/label/linear"),),
        _low_data_rows(),
        seeds=1,
    ),
    Table(
        "low-data-tuned",
        "CIFAR-100, 1,000 images, labelled at both levels: ImageNet weights fine-tuned end to end, linear classifier",
        "-p linear -l label",
        (Metric("linear", "test/label/linear"),),
        tuple(
            _low_data_row(
                label, 1000, f"{_IMAGENET_64} --epochs 15 --batch-size 128", label, baselines=label == "SupCE"
            )
            for label in ("SupCE", "SupCon", "MLCL")
        ),
        seeds=1,
    ),
    Table(
        "transfer-cifar10",
        "From CIFAR-100 to CIFAR-10: a linear classifier of ten classes on what 20,000 images of CIFAR-100 trained",
        "--data cifar10 -l label -p transfer",
        (Metric("linear", "test/label/transfer"),),
        tuple(
            Row(
                label,
                run_of=f"low-data-cifar100/{label}, 20,000 images",
                paper={"linear": published("mlcl/table6", "n20000")[label]} if label in ("SupCon", "MLCL") else {},
                baselines=label == "SupCE",
            )
            for label in _LEVELS
        ),
        seeds=1,
    ),
    _tripadvisor(
        "tripadvisor-frozen",
        "TripAdvisor, six aspects, few reviews: frozen MiniLM and a trained adapter",
        "--encoder minilm --frozen --batch-size 16",
        {30: 40, 60: 20, 180: 10},
        seeds=3,
    ),
    _tripadvisor(
        "tripadvisor-tuned",
        "TripAdvisor, six aspects, few reviews: MiniLM fine-tuned, 128 tokens at most",
        "--encoder minilm --batch-size 16 --set encoder_learning_rate=0.0001 --set learning_rate=0.002",
        {30: 32, 60: 16, 180: 6},
        seeds=3,
    ),
    Table(
        "noise-tripadvisor",
        "TripAdvisor, 400 reviews, labels drawn anew: frozen MiniLM and a trained adapter",
        "-p multi-aspect",
        _TOGETHER,
        tuple(
            Row(
                f"{label}, {share}% noise",
                f"{command.split(' ', 1)[0]} tripadvisor --encoder minilm --frozen --batch-size 16 --epochs 10 "
                f"--label-noise {share / 100} --draw {{seed}} {command.partition(' ')[2]}".rstrip(),
                baselines=label == "CE" and share == 30,
            )
            for share in (30, 50, 80)
            for label, command in _NOISY.items()
        ),
        seeds=3,
    ),
    Table(
        "levels-grocery",
        "Grocery at three levels, on frozen ImageNet features",
        "-p multi-aspect",
        (
            *(Metric(f"accuracy, {level}", f"test/{level}/accuracy") for level in ("fine", "coarse", "category")),
            Metric("path consistency", "test/all/path-consistency"),
            Metric("tree distance", "test/all/tree-distance"),
            Metric("hierarchical F1", "test/all/hierarchical-f1"),
        ),
        tuple(
            Row(label, f"{method} grocery {_IMAGENET} --epochs 20", baselines=label == "multi-CE")
            for label, method in {
                "multi-CE": "multi-ce",
                "Guided": "guided",
                "MLCL": "mlcl",
                "HiMulConE": "himulcone",
                "mixed": "mixed",
                "SupCE (fine labels alone)": "sup-fine",
            }.items()
        ),
        seeds=1,
    ),
    Table(
        "ablation-self-classifier",
        "Self-Classifier on digits: what its parts do",
        "-p clustering -l digit --cluster-seeds 1",
        _found_classes("digit"),
        (
            Row("raw input, k-means", "kmeans digits --encoder identity --set subclasses=10"),
            *(
                Row(label, _TINY + (" --set 'class_counts=[10]'" if "class_counts" not in options else "") + options)
                for label, options in _ABLATIONS.items()
            ),
        ),
        seeds=1,
    ),
    Table(
        "start",
        "The start of the CIFARtoy rows: resnet18-w16 trained on the 100 fine classes of CIFAR-100",
        "-p recall -l label",
        _recall("label"),
        (
            Row(
                "CIFAR-100 fine labels",
                "sup-fine cifar100 --encoder resnet18-w16 --epochs 12 --set learning_rate=0.1 "
                "--set 'views.presets=[weak]'",
                baselines=True,
            ),
        ),
        seeds=1,
    ),
)
"""All tables, in the order of the page."""


def by_name(name: str) -> Table:
    """A table; exits with the names there are."""
    found = {table.name: table for table in TABLES}
    if name not in found:
        raise SystemExit(f"no table '{name}': there are {', '.join(found)}")
    return found[name]
