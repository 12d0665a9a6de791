"""The commands: the verb that each one calls, and details that a signature cannot express."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

READER = "regrain.data.options:ReaderOptions"
CORRUPTION = "regrain.data.corruption:Corruption"
FIT = "regrain.verbs.fit:fit"
SHORT = "regrain.cli.commands:ShortOptions"
RAY = "regrain.cli.commands:RayOptions"


class ShortOptions(TypedDict, total=False):
    """Short forms of values that a verb takes elsewhere."""

    epochs: Annotated[int | None, "Passes over the training samples."]
    batch_size: Annotated[int | None, "Samples of a batch."]
    weights: Annotated[Path | None, "Start from a weights file, a run, or a Hub folder."]


class RayOptions(TypedDict, total=False):
    """As Ray calls the devices of its cluster."""

    workers: Annotated[int | None, "With --engine ray: the same as --devices."]


@dataclass(frozen=True)
class Command:
    """A command."""

    target: str  # ``module:function``: the verb
    also: tuple[str, ...] = ()  # other functions and TypedDicts whose parameters the verb accepts through ``**``
    examples: tuple[str, ...] = ()
    opens: bool = False  # open the run on ``--device``; the verb itself has no such parameter
    json: bool = True  # whether the command has ``--json``
    required: tuple[str, ...] = ()  # parameters that the command line requires and Python does not
    without: tuple[str, ...] = ()  # parameters that the command line does not offer
    panel: str | None = None  # where ``regrain --help`` lists it
    processes: bool = False  # whether several processes may run it together
    calls: tuple[str, ...] = ()  # callbacks of the verb; see :func:`regrain.cli.show.callbacks`
    protocols: bool = False  # whether the command takes the options of protocols
    goes_on: str | None = None  # how to continue after an interrupt; default `regrain resume`


FLAGS = {
    "levels": "--level -l",
    "level": "--level -l",
    "settings": "--set",
    "protocols": "--protocol -p",
    "ranges": "--range",
    "format": "--format -f",
    "progress": "--quiet -q",
    "map_kind": "--map",
    "as_json": "--json",
    "run_precision": "--precision",
    "every": "--all",
    "most_hours": "--hours",
    "ks": "--k",
    "options": "--option -o",
}
"""Flags that differ from the parameter's name."""

HELP = {"progress": "Show no progress."}
"""Help of flags that mean the opposite of their parameter."""

METAVARS = {
    "mapping": "MAPPING",
    "levels": "LEVEL",
    "settings": "KEY=VALUE",
    "ranges": "NAME=RANGE",
    "path": "RUN",
    "recipes": "[RECIPE|TABLE|PAPER]",
}

OPTIONS = {"out", "support"}
"""Parameters that are always options on the command line, even if positional in Python."""

ARGUMENTS = {"name", "recipes"}
"""Optional parameters that are arguments, not options, on the command line."""

PROTOCOL_OPTIONS = (
    *("ks", "neighbours", "cluster_seeds", "taxonomy", "linear_epochs", "new_classes"),
    *("shots", "ways", "queries", "episodes", "classifier", "intra_class", "copies"),
)
"""Options of protocols with a flag of their own; the others are given as ``-o key=value``."""

PANELS = {READER: "Your data", CORRUPTION: "Experiments with the training split"}
PANEL_OF = {
    **dict.fromkeys(
        ("weights", "frozen", "batch_size", "holdout", "recipe", "devices", "engine", "workers", "tensorboard",
         "overwrite", "progress", "coarse", "fine", "continue_"),
        "More on training",
    ),
}  # fmt: skip

_AGAIN = "the same command"


def _curve(target: str, examples: tuple[str, ...]) -> Command:
    """A command that trains at several amounts of a corruption of the training split."""
    return Command(
        target,
        also=("regrain.papers.curve:_curve", FIT, SHORT, CORRUPTION, READER),
        without=(
            "corruption",
            "values",
            "place",
            "overwrite",
            "progress",
            "devices",
            "engine",
            "tensorboard",
            "continue_",
        ),
        panel="Experiments of papers",
        calls=("on_run",),
        goes_on=_AGAIN,
        examples=examples,
    )


COMMANDS: dict[str, Command] = {
    "demo": Command("regrain.verbs.demo:demo", calls=("on_method",)),
    "auto": Command(
        "regrain.automatic:auto",
        also=(READER,),
        calls=("on_step",),
        goes_on=_AGAIN,
        examples=("`regrain auto photos/`", "`regrain auto questions.csv --text question --level domain --budget 10`"),
    ),
    "fit": Command(
        FIT,
        also=(SHORT, RAY, CORRUPTION, READER),
        calls=("on_start",),
        json=False,
        processes=True,
        examples=(
            "`regrain fit maskcon digits --epochs 20`",
            "`regrain fit maskcon photos/ --encoder resnet18 --pretrained`  (folders super/sub/.../image)",
            "`regrain fit supcon table.csv --text question --level domain --level intent`",
            "`regrain fit maskcon cifar100-20 --root data --set weight=1.0 --set soft_temperature=0.05`",
        ),
    ),
    "resume": Command(
        "regrain.verbs.resume:resume",
        also=(READER,),
        json=False,
        processes=True,
        examples=(
            "`regrain resume runs/maskcon-digits-s0`",
            "`regrain resume runs/maskcon-photos-s0 --data /mnt/photos`",
        ),
    ),
    "tune": Command(
        "regrain.verbs.tune:tune",
        also=(FIT, SHORT, CORRUPTION, READER),
        without=("overwrite", "progress", "devices", "engine", "tensorboard"),
        calls=("on_run", "on_trial"),
        goes_on=_AGAIN,
        examples=(
            "`regrain tune maskcon digits --encoder conv4 --epochs 10 --trials 8`",
            "`regrain tune maskcon photos/ --range weight=0.5,0.8,1 --range learning_rate=0.005:0.1:log "
            "--criterion coarse-knn`",
            "`regrain fit maskcon photos/ --recipe runs/tune-maskcon-photos/best.yaml`  (with what was found)",
        ),
    ),
    "evaluate": Command(
        "regrain.verbs.evaluate:evaluate",
        also=(READER,),
        opens=True,
        without=("write",),
        protocols=True,
        processes=True,
        examples=(
            "`regrain evaluate runs/maskcon-digits-s0`",
            "`regrain evaluate runs/x --protocol recall --k 1 --k 10 --json`",
            "`regrain evaluate runs/x -p few-shot --ways 5,all --shots 1,5 --intra-class`",
            "`regrain evaluate runs/sup-ce-dialysis-s0 --protocol personalised`",
            "`regrain evaluate runs/self-classifier-cifar100-s0 -p clustering -p hierarchy -p linear "
            "--linear-epochs 10`",
        ),
    ),
    "embed": Command(
        "regrain.verbs.embed:export_embeddings",
        also=(RAY, READER),
        opens=True,
        json=False,
        processes=True,
        examples=("`regrain embed runs/maskcon-digits-s0 --data digits --out digits.parquet`",),
    ),
    "discover": Command(
        "regrain.verbs.discover:discover",
        also=(READER,),
        opens=True,
        without=("write",),
        examples=(
            "`regrain discover runs/scgm-photos-s0`",
            "`regrain discover runs/maskcon-photos-s0 --each 5 --balanced --out subclasses.csv`",
            "`regrain discover runs/maskcon-photos-s0 --each 3-20 --refine 1`",
            "`regrain discover runs/scgm-photos-s0 --names names.json`",
            "`regrain discover runs/self-classifier-photos-s0 --grids pictures/ --estimate-classes`",
        ),
    ),
    "attend": Command(
        "regrain.verbs.attend:attend",
        also=(READER,),
        opens=True,
        examples=(
            "`regrain attend runs/sclre-photos-s0 --out attention.png`",
            "`regrain attend runs/sclre-questions-s0 --data new.csv --samples 50 --out attention.csv`",
        ),
    ),
    "adapt": Command(
        "regrain.verbs.adapt:adapt",
        also=(READER,),
        opens=True,
        examples=(
            "`regrain adapt runs/maskcon-digits-s0 --support labelled.csv --out runs/digits-adapted`",
            "`regrain adapt runs/x --support new.csv --text question --level intent --out runs/y --precision 0.9`",
        ),
    ),
    "clean": Command(
        "regrain.verbs.clean:clean",
        also=(READER,),
        opens=True,
        examples=("`regrain clean runs/maskcon-photos-s0 --out doubtful.csv`",),
    ),
    "calibrate": Command(
        "regrain.verbs.calibrate:calibrate",
        also=(READER,),
        opens=True,
        examples=(
            "`regrain calibrate runs/mixed-photos-s0 --judge test`",
            "`regrain calibrate runs/x --data labelled.csv --precision 0.9 --confidence 0.9`",
        ),
    ),
    "predict": Command(
        "regrain.verbs.predict:predict",
        also=(RAY, READER),
        opens=True,
        required=("out",),
        examples=(
            "`regrain predict runs/digits-adapted digits --split test --out predicted.csv`",
            "`regrain predict runs/y new.csv --text question --out predicted.parquet`",
        ),
    ),
    "export": Command(
        "regrain.verbs.export:export",
        examples=(
            "`regrain export runs/photos --format timm`",
            "`regrain export runs/photos --format detectron2 --out backbone.pth`",
            "`regrain export runs/photos --format onnx --out photos.onnx --json`",
        ),
    ),
    "explore": Command(
        "regrain.cli.explore:explore",
        also=(READER,),
        examples=("`regrain explore runs/scgm-photos-s0 --open`", "`regrain explore runs/scgm-photos-s0 --export csv`"),
    ),
    "report": Command(
        "regrain.report.run_report:report",
        also=(READER,),
        calls=("say",),
        opens=True,
        json=False,
        examples=(
            "`regrain report runs/maskcon-digits-s0`",
            "`regrain report runs/photos --data new-photos/ --out new.html --figures figures/`",
        ),
    ),
    "compare": Command(
        "regrain.report.run_comparison:compare",
        also=(READER,),
        opens=True,
        calls=("say",),
        examples=(
            "`regrain compare runs/maskcon-digits-s0 runs/grafit-digits-s0 --out compared.html`",
            "`regrain compare runs/* --sort digit/recall@1 --json`",
        ),
    ),
    "check": Command(
        "regrain.cli.lists:check",
        also=(RAY, READER),
        examples=(
            "`regrain check photos/`",
            "`regrain check table.csv --text question --level domain --level intent`",
            "`regrain check sessions.csv --record patient --time day --window 5 --stride 1 --static age --level event`",
        ),
    ),
    "regroup": Command(
        "regrain.verbs.regroup:regroup",
        also=(READER,),
        examples=(
            "`regrain regroup cifar100 cifar100_4 --out cifar100-4.parquet`",
            "`regrain regroup photos/ waste.csv --out waste-photos.csv --drop-unknown`",
            "`regrain regroup questions.csv domains.json --text question --level intent --out domains.csv`",
        ),
    ),
    "convert": Command(
        "regrain.verbs.convert:convert",
        also=(READER,),
        examples=(
            "`regrain convert photos/ --out photos-shards`",
            "`regrain convert table.parquet --level kind --out s3://bucket/table`",
        ),
    ),
    "plan": Command(
        "regrain.cli.plan:plan",
        examples=(
            "`regrain plan --samples 1e8 --gpus 64`",
            "`regrain plan --samples 1e6 --sample-bytes 200 --samples-per-second 20000 --json`",
        ),
    ),
    "datasets": Command("regrain.cli.lists:datasets", examples=("`regrain datasets`", "`regrain datasets cars196`")),
    "methods": Command("regrain.cli.lists:methods", examples=("`regrain methods`", "`regrain methods maskcon`")),
    "taxonomies": Command(
        "regrain.cli.lists:taxonomies",
        examples=(
            "`regrain taxonomies`",
            "`regrain taxonomies imagenet_levels --level level3`",
            "`regrain taxonomies animals.csv --json`",
        ),
    ),
    "recipes": Command(
        "regrain.cli.reproduce:recipes",
        panel="Experiments of papers",
        examples=(
            "`regrain recipes`",
            "`regrain recipes scgm --scale small`",
            "`regrain recipes maskcon/table2/maskcon`",
        ),
    ),
    "reproduce": Command(
        "regrain.cli.reproduce:reproduce",
        panel="Experiments of papers",
        examples=(
            "`regrain reproduce maskcon/table1/maskcon-good maskcon/table1/supce-good --scale tiny`",
            "`regrain reproduce maskcon/table2 --root data --seeds 3 --append docs/results.md`",
            "`regrain reproduce scgm/table2 --scale paper --set precision=bf16`",
        ),
    ),
    "low-data": _curve(
        "regrain.papers.curve:low_data",
        examples=(
            "`regrain low-data mlcl cifar100 --sizes 1000,5000 --encoder resnet18 --out runs/low`",
            "`regrain low-data multi-ce reviews.csv --relation aspects --sizes 30,60 -p multi-aspect --seeds 5 "
            "--out runs/few`",
        ),
    ),
    "label-noise": _curve(
        "regrain.papers.curve:label_noise",
        examples=(
            "`regrain label-noise mlcl cifar100 --rates 0,0.3,0.5 --encoder resnet18 --out runs/noise`",
            "`regrain label-noise sup-fine photos/ --rates 0.3 --noise-within level1 --out runs/siblings`",
        ),
    ),
    "isotropy": Command(
        "regrain.papers.swapping:isotropy",
        also=(FIT, SHORT, CORRUPTION, READER),
        without=("coarse", "fine", "overwrite", "progress", "devices", "engine", "tensorboard"),
        panel="Experiments of papers",
        calls=("on_run",),
        goes_on=_AGAIN,
        examples=(
            "`regrain isotropy sup-ce digits --subclass 8 --to straight --encoder conv4 --epochs 10 --out runs/eight`",
            "`regrain isotropy simclr photos/ --subclass flowers/tulip --to bottles --seeds 3 --out runs/tulip`",
        ),
    ),
}
