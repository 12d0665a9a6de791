"""Show the verbs' results: tables and notes, or JSON.

``COMMAND(result, given)`` shows a result. ``COMMAND_json(result, given)`` returns the output of ``--json`` if it
differs from ``result.to_json()``. ``given`` holds the typed arguments.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import isinf
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import typer

from regrain.cli.tables import Right, ScreenTable
from regrain.cli.terminal import say
from regrain.spelling import command, counted

if TYPE_CHECKING:
    import pandas as pd

    from regrain.data.dataset import Dataset
    from regrain.evaluation import Evaluation, Score
    from regrain.papers.curve import Curve
    from regrain.papers.swapping import Isotropy
    from regrain.report import Comparison
    from regrain.runs.run import Run
    from regrain.runs.selective_report import SelectiveReport

Given = Mapping[str, Any]

_MANY = 40


def stoppable(work: Callable[[], Any], go_on: str | None = None) -> Any:
    """Run a training; after Ctrl-C, say how to continue (default: `regrain resume` the run) and exit with 130."""
    from regrain.errors import Stopped
    from regrain.processes import is_first_process

    try:
        return work()
    except Stopped as stopped:
        if is_first_process():
            again = go_on or f"`{command('resume', stopped.args[0])}`"
            say(f"stopped; go on with {again}", err=True)
        raise typer.Exit(130) from None


def callbacks(names: tuple[str, ...]) -> dict[str, Callable[..., None]]:
    """Callbacks for the verbs, by parameter."""
    notices = notice_teller()

    def trained(run: Run) -> None:
        say(f"trained   {run.path}", err=True)
        notices(run)

    def trial(done: Any) -> None:
        values = ", ".join(f"{name} {value:.4f}" for name, value in done.criteria.items())
        settings = " ".join(f"{name}={value}" for name, value in done.settings.items())
        say(f"trial {done.number + 1}: {settings}: {values or done.problem}", err=True)

    known: dict[str, Callable[..., None]] = {
        "on_start": lambda run, training: _start(run, training, notices),
        "on_run": notices if "on_trial" in names else trained,
        "on_trial": trial,
        "on_method": lambda name: say(f"training {name} ...", err=True),
        "on_step": lambda step: say(f"... {step}", err=True),
        "say": lambda step: say(f"... {step}", err=True),
    }
    return {name: known[name] for name in names}


def notice_teller() -> Callable[[Run], None]:
    """Make a callback that reports each run's automatic choices, each of them once."""
    shown: set[str] = set()

    def tell(run: Run) -> None:
        _notes(notice for notice in dict.fromkeys(run.notices) if notice not in shown)
        shown.update(run.notices)

    return tell


def _notes(notices: Any) -> None:
    for notice in notices:
        say(f"note      {notice}", err=True)


def _start(run: Run, training: Dataset, notices: Callable[[Run], None]) -> None:
    recipe, labels = run.recipe, training.labels
    levels = ", ".join(
        f"{level} ({count} classes, {labels.known[level]} of {len(training)} labelled)"
        for level, count in labels.counts.items()
    )
    roles = ", ".join(f"{level} as {role}" for role, level in recipe["data"]["roles"].items()) or "none"
    say(f"data      {training.name}: {len(training)} training samples; levels: {levels or 'none'}", err=True)
    filled = ", ".join(f"{count} at {level}" for level, count in labels.filled.items() if count)
    if filled:
        say(f"          labels filled in from finer ones: {filled}", err=True)
    say(f"method    {recipe['method']['name']}; labels it sees: {roles}", err=True)
    size = f", views of {recipe['views']['size']} px" if "size" in recipe["views"] else ""
    frozen = ", frozen" if recipe["encoder"].get("frozen") else ""
    say(f"encoder   {recipe['encoder']['name']}{frozen}{size}", err=True)
    notices(run)
    say(f"run       {run.path}", err=True)


def demo(found: Any, given: Given) -> None:
    say(f"{found.data}.")
    title = "recall@1 of the hidden characters, by people who drew none of the training samples"
    table = ScreenTable(title, "representation", "labels seen", Right("recall@1"), Right("95% interval"), "run folder")
    for row in found.figures:
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        table.row(row.name, row.labels, f"{100 * row.recall:.1f}", interval, row.run)
    table.show()
    say(found.verdict)
    say(f"Picture: {found.picture}. {found.credit}.")
    say(f"Next: `{command('evaluate', given['out'] / 'maskcon')}`; with your own data `regrain auto photos/`")


def fit(run: Run, given: Given) -> None:
    metrics = run.folder.read_metrics()
    last = metrics[-1] if metrics else {}
    loss = f", last loss {last['loss']:.4f}" if "loss" in last else ""
    speed = f", {last['samples_per_second']:.0f} samples/s" if "samples_per_second" in last else ""
    epochs = counted(len(metrics), "epoch")
    say(f"finished {epochs}{loss}{speed}; evaluate it with `{command('evaluate', run.path)}`", err=True)


resume = fit


def tune_json(found: Any, given: Given) -> Any:
    rows = [{"trial": t.number, **t.settings, **t.criteria, "problem": t.problem} for t in found.ranked()]
    return {"criterion": found.plan.criterion, "best": str(found.path / "best.yaml"), "trials": rows}


def tune(found: Any, given: Given) -> None:
    from regrain.evaluation import CRITERIA

    names = [r.name for r in found.plan.ranges]
    table = ScreenTable(f"best first by {found.plan.criterion}", *map(Right, ("trial", *names, *CRITERIA)))
    for trial in found.ranked():
        values = [f"{trial.criteria[c]:.4f}" if c in trial.criteria else "-" for c in CRITERIA]
        table.row(trial.number + 1, *(trial.settings[n] for n in names), *values)
    table.show()
    say(f"use it with `{command('fit', given['method'], given['data'], '--recipe', found.path / 'best.yaml')}`")


def evaluate_json(evaluation: Evaluation, given: Given) -> Any:
    return evaluation.flat() | {"verdict": evaluation.to_json()["verdict"]}


def evaluate(evaluation: Evaluation, given: Given) -> None:
    """Show the verdict, then a table with a row per metric and a column per representation."""
    from regrain.evaluation.results import figure_text

    for finding in evaluation.verdict:
        say(finding.sentence)
    every = dict.fromkeys((row.level, row.metric) for row in evaluation.rows if not row.score.detail)
    brief = {(row.level, row.metric) for row in evaluation.rows if row.brief}
    metrics = [place for place in every if given.get("every") or place in brief]
    names = list(dict.fromkeys(row.representation for row in evaluation.rows))
    scores = {(row.representation, row.level, row.metric): row.score for row in evaluation.rows}
    title = f"{evaluation.split}: {evaluation.samples} samples"
    table = ScreenTable(title, "level", "metric", *map(Right, (*names, "95% interval")))
    for level, metric in metrics:
        score = scores[next(name for name in names if (name, level, metric) in scores), level, metric]
        interval = "" if score.low is None else f"{100 * score.low:.2f} to {100 * (score.high or 0):.2f}, {score.over}"
        cells = [scores.get((name, level, metric)) for name in names]
        texts = ["" if cell is None else figure_text(cell.value, count=cell.count) for cell in cells]
        table.row(level, metric, *texts, interval)
    table.show()
    if len(metrics) < len(every):
        say(f"{len(every) - len(metrics)} more metrics: --all")
    _lines(evaluation.notes)


def _lines(notes: Any) -> None:
    for note in notes:
        say(f"- {note}")


def mean_cell(score: Score) -> str:
    """Format a mean over seeds with its interval; shares in per cent."""
    scale, digits = (1, 2) if score.count else (100, 1)
    ends = [score.low, score.high] if score.low is not None and score.high is not None else []
    spread = " to ".join(f"{scale * end:.{digits}f}" for end in ends)
    return f"{scale * score.value:.{digits}f}{f' ({spread})' if spread else ''}"


def embed(size: tuple[int, int], given: Given) -> None:
    say(f"{size[0]} embeddings of width {size[1]} written to {given['out']}")


def discover_json(found: Any, given: Given) -> Any:
    count = {} if found.class_count is None else {"class_count": asdict(found.class_count)}
    rows = [s.to_json() for s in found.subclasses]
    return {"figures": found.figures, "notes": found.notes, **count, "subclasses": rows}


def discover(found: Any, given: Given) -> None:
    levels = list(dict.fromkeys(level for s in found.subclasses for level in s.purity))
    mostly = [f"mostly, by {level}" for level in levels]
    title = f"{len(found.subclasses)} subclasses of {len(found.ids)} samples"
    kept = ["known"] if found.known_level is not None else []
    proposed = ["proposed name"] if any(s.proposed_name for s in found.subclasses) else []
    table = ScreenTable(
        title, Right("number"), "name", *kept, *proposed, Right("samples"), *mostly, "nearest to its mean"
    )
    for s in found.subclasses[:_MANY]:
        purity = [
            f"{s.purity[level]['class']} {100 * s.purity[level]['share']:.0f}%" if level in s.purity else ""
            for level in levels
        ]
        said = shorten(s.texts[0], _MANY, placeholder="…") if s.texts else ""
        known, named = ["yes" if s.known is not None else ""] * len(kept), [s.proposed_name] * len(proposed)
        shown = f"“{said}”" if said else ", ".join(s.exemplars[:3])
        table.row(s.number, s.name, *known, *named, s.size, *purity, shown)
    table.show()
    if len(found.subclasses) > _MANY:
        say(f"... and {len(found.subclasses) - _MANY} more, all in --json and in the run's discovery.json")
    for key, value in found.figures.items():
        say(f"{key}: {100 * value:.2f}")
    _lines(found.notes)
    if found.file is not None:
        say(f"samples in {found.file}")
    if given["grids"] is not None:
        say(f"pictures in {given['grids']}: best.png, worst.png, random.png")


def attend(found: Any, given: Given) -> None:
    title = f"attention to {found.bank_size} training samples"
    table = ScreenTable(title, "sample", found.level, "predicted", f"attends to, by {found.level}", "most of all to")
    for s in found.samples:
        shares = [f"{name} {100 * share:.0f}%" for name, share in list(s.shares.items())[:3]]
        most = [f"{r.id} {100 * r.weight:.2f}%" for r in s.references[:3]]
        table.row(s.id, s.superclass or "", s.predicted, ", ".join(shares), ", ".join(most))
    table.show()
    _lines(found.notes)
    if given["out"] is not None:
        say(f"written to {given['out']}")


def adapt_json(made: Run, given: Given) -> Any:
    classifier: Any = made.classifier
    kept = ("level", "classes", "inverse_penalty", "temperature", "threshold", "least_probability")
    return {"run": str(made.path), **{name: getattr(classifier, name) for name in kept}, "notices": made.notices}


def adapt(made: Run, given: Given) -> None:
    classifier: Any = made.classifier
    _notes(made.notices)
    use = f"`{command('predict', made.path, 'DATA', '--out', 'FILE')}`"
    say(f"{len(classifier.classes)} classes of '{classifier.level}' learned; use it with {use}")


def predict_json(table: pd.DataFrame, given: Given) -> Any:
    levels, counted = _predicted(table)
    return {"out": str(given["out"]), "samples": len(table), "levels": levels, **counted}


def predict(table: pd.DataFrame, given: Given) -> None:
    levels, counts = _predicted(table)
    answered = "".join(f", {count} answered at {level}" for level, count in counts.get("answered", {}).items())
    without = f", {counts['abstained']} abstained from" if "abstained" in counts else ""
    say(f"{counted(len(table), 'prediction')} of {' and '.join(levels)} written to {given['out']}{answered}{without}")


def _predicted(table: pd.DataFrame) -> tuple[list[str], dict[str, Any]]:
    """List the predicted levels, and count answers and abstentions."""
    ends = [name.removesuffix("_probability") for name in map(str, table) if name.endswith("_probability")]
    levels = [name for name in ends if name != "answer" and not name.endswith("_answer")]
    aspects = [level for level in levels if f"{level}_answer" in ends]
    if "abstained" in table:
        return levels, {"abstained": int(table["abstained"].sum())}
    if aspects:
        return levels, {"answered": {level: int(table[f"{level}_answer"].notna().sum()) for level in aspects}}
    if "answer" not in table:
        return levels, {}
    at = Counter(table["answer_level"].dropna())
    answered = {level: at[level] for level in levels if level in at}
    return levels, {"answered": answered, "abstained": len(table) - at.total()}


def auto(found: Any, given: Given) -> None:
    table = ScreenTable("on held-out training samples", "method", Right("hits"), Right("above the features"))
    for contender in found.contenders:
        score = "" if contender.score is None else f"{100 * contender.score:.1f}"
        ends = "" if contender.low is None else f" ({100 * contender.low:.1f} to {100 * contender.high:.1f})"
        above = "" if contender.difference is None else f"{100 * contender.difference:+.1f}{ends}"
        table.row(contender.name, score, contender.problem or above)
    table.show()
    for line in found.verdict:
        say(line)
    for line in found.commands:
        say(f"  {line}")


def clean(found: Any, given: Given) -> None:
    table = ScreenTable("doubtful labels", "split", "level", Right("labels"), Right("doubtful"))
    for row in found.counts.to_dict("records"):
        table.row(row["split"], row["level"], row["labels"], row["doubtful"])
    table.show()
    _lines(found.notes)
    where = given["out"]
    say(f"the doubtful samples, each with a proposed class, are in {where}" if where else "--out FILE lists them")


def calibrate(made: Any, given: Given) -> None:
    answers = made.answers
    _notes(made.notes)
    settled = {
        "temperature": [f"{temperature:.3g}" for temperature in answers.temperatures],
        "shift": [f"{shift:+.3g}" for shift in answers.shifts],
        "threshold": ["never" if t is None else f"{t:.3f}" for t in answers.thresholds],
        "answers that it rests on": [str(support) for support in answers.support],
    }
    promise = "" if answers.confidence is None else f" with confidence {answers.confidence:g}"
    share = "answers" if answers.counts == "answers" else "samples (no answer counts as right)"
    if answers.keeps_promise:
        settled["threshold (of the probability)"] = settled.pop("threshold")
        say(f"{answers.precision:g} of the {share} are right{promise}")
    _show_answers(made.figures, f"calibrated on {answers.calibrated_on}", settled)
    if made.judged is not None:
        _show_answers(made.judged, f"judged on {made.judged.split}", {})
    say(f"`{command('predict', given['run'], 'DATA', '--out', 'FILE')}` adds the answers")


def _show_answers(judged: SelectiveReport, title: str, settled: Mapping[str, list[str]]) -> None:
    """Show a row per figure, a column per level, and a column for all answers."""
    levels = judged.levels
    table = ScreenTable(
        f"{title}: {judged.samples} samples", "", *(Right(f.level) for f in levels), Right("all answers")
    )

    def line(name: str, cells: Any, overall: str = "") -> None:
        table.row(name, *cells, overall)

    def right(share: float | None, judged: int) -> str:
        return "-" if share is None else f"{_percent(share)} of {judged}"

    line("labelled samples", (f.samples for f in levels))
    line("accuracy", (_percent(f.accuracy) for f in levels))
    errors = (_percent(f.calibration_error) for f in levels)
    line("calibration error", errors, _percent(judged.calibration_error))
    for name, cells in settled.items():
        line(name, cells)
    line("answered here", (_percent(f.answered) for f in levels), _percent(judged.answered))
    line("right of those", (right(f.precision, f.judged) for f in levels), right(judged.precision, judged.judged))
    line("answered here or finer", (_percent(f.named) for f in levels))
    line("right of those at this level", (_percent(f.named_precision) for f in levels))
    none = ["" for _ in levels]
    line("abstained", none, _percent(judged.abstained))
    line("information (0: nothing, 1: a finest class)", none, f"{judged.information:.3f}")
    if judged.risk_coverage_area is not None:
        line("hAURC (lower is better)", none, f"{judged.risk_coverage_area:.4f}")
    if judged.misses is not None:
        line("redraws that fall short of the share", none, _percent(judged.misses))
    table.show()


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def export_json(made: Any, given: Given) -> Any:
    if made.format == "hub":
        return {"out": str(made.path), "format": "hub", "files": _files(made.path)}
    kept = {"tensors": made.keys, "input": made.input, "loading": made.loading, "notices": made.notices}
    kept |= {"beside": [str(file) for file in made.beside]} if made.beside else {}
    return {"out": str(made.path), "format": made.format, **kept}


def export(made: Any, given: Given) -> None:
    if made.format == "hub":
        say(f"{', '.join(_files(made.path))} written to {made.path}")
        say(f"share it with `hf upload OWNER/NAME {shlex.quote(str(made.path))}`; load it with")
        lines = ["from regrain.hub import from_pretrained", f"model = from_pretrained({str(made.path)!r})"]
    else:
        _notes(made.notices)
        say(f"{made.keys} tensors written to {made.path}")
        for file in made.beside:
            say(f"{file} goes with it")
        say(f"input     {made.input}")
        say("load it with")
        lines = made.loading
    say()
    for line in lines:
        say(f"    {line}")


def _files(place: Path) -> list[str]:
    return sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())


def regroup_json(made: Any, given: Given) -> Any:
    superclasses = {
        name: {"classes": made.classes[name], "samples": made.counts[name], "shares": made.shares[name]}
        for name in made.counts
    }
    imbalance = {split: None if isinf(times) else times for split, times in made.imbalance.items()}
    about = {"dropped": made.dropped, "warnings": made.warnings, "notices": made.notices}
    sizes = {"samples": len(made.columns["id"]), "level": made.level, "superclasses": superclasses}
    return {"out": str(given["out"]), **sizes, "imbalance": imbalance, **about}


def regroup(made: Any, given: Given) -> None:
    """Show a row per superclass and a column per split."""
    _notes(made.notices)
    table = ScreenTable(
        f"samples of every superclass, of {made.level}", "superclass", *map(Right, ("classes", *made.imbalance))
    )
    for name, count in made.counts.items():
        table.row(name, made.classes[name], *(f"{n} ({made.shares[name][split]:.1%})" for split, n in count.items()))
    table.show()
    for warning in made.warnings:
        say(f"warning: {warning}", err=True)
    say(f"{len(made.columns['id'])} samples under {len(made.counts)} superclasses written to {given['out']}")


def convert_json(made: Any, given: Given) -> Any:
    return {"out": made.out, "samples": made.samples, "files": list(made.files), "notices": list(made.notices)}


def convert(made: Any, given: Given) -> None:
    _notes(made.notices)
    say(f"{made.samples} samples written to {made.out}, in {counted(len(made.files), 'shard')}")


def report(place: Path, given: Given) -> None:
    say(f"page in {place}" + (f", figures in {given['figures']}" if given["figures"] is not None else ""))


def compare(found: Comparison, given: Given) -> None:
    from regrain.report.run_comparison import COSTS

    table = ScreenTable(f"differences are to {found.reference}", "", *(Right(row.name) for row in found.rows))
    for key in found.headlines:
        table.row(key, *(row.figures[key].text() if key in row.figures else "" for row in found.rows))
        if any(key in row.differences for row in found.rows):
            signed = [row.differences[key].text(sign=True) if key in row.differences else "" for row in found.rows]
            table.row("  difference", *signed)
    table.add_section()
    for key, words in COSTS.items():
        table.row(words, *(f"{row.cost[key]:,.1f}" if key in row.cost else "" for row in found.rows))
    table.add_section()
    for key in found.settings:
        table.row(key, *("" if row.settings[key] is None else row.settings[key] for row in found.rows))
    table.show()
    _lines(found.notes)
    if given["out"] is not None:
        say(f"page in {given['out']}")


def low_data(found: Curve, given: Given) -> None:
    what = "training samples" if found.corruption == "samples" else "share of labels replaced at random"
    table = ScreenTable(f"{found.method}, by {what}", "figure", *(Right(f"{value:g}") for value in found.values))
    for key, scores in found.scores().items():
        table.row(key, *map(mean_cell, scores))
    table.show()
    _over_seeds(found)
    _lines(found.notes)
    say(f"all of it in {given['out'] / 'curve.json'}")


label_noise = low_data


def isotropy(found: Isotropy, given: Given) -> None:
    move, figures = found.move, found.figures()
    title = f"{found.samples} test samples of '{move.subclass}', by {found.method}'s {found.judged_by}"
    table = ScreenTable(title, "share predicted as", Right("labels as they are"), Right(f"moved to '{move.target}'"))
    for name, words in (
        ("own", f"its own superclass '{move.origin}'"),
        ("new", f"'{move.target}'"),
        ("others", "others"),
        ("accuracy", f"accuracy of the {found.others} other samples"),
    ):
        table.row(words, *(mean_cell(figures[labelling][name]) for labelling in ("given", "moved")))
    table.show()
    _over_seeds(found)
    say(f"all of it in {given['out'] / 'isotropy.json'}")


def _over_seeds(found: Curve | Isotropy) -> None:
    if len(found.seeds) > 1:
        say(f"mean and 95% interval over {len(found.seeds)} seeds")
