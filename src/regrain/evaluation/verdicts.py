"""The verdict of an evaluation: whether training helped, in sentences with the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from regrain.evaluation.results import Finding, Row
from regrain.metrics import bootstrap_interval


def verdict(
    rows: Sequence[Row], levels: Sequence[str], raw: str, advice: Mapping[str, str], *, seed: int
) -> list[Finding]:
    """Compare the model with each untrained representation.

    The metric is the first that is known sample by sample of the first protocol that gives one, at the finest level
    where it gives it: recall@1 unless other protocols or K were asked for. So it is fixed before any figure is seen.
    Where the method's own classifier is evaluated too, its accuracy follows.

    ``rows``: in the order of the protocols. ``levels``: all levels of the data, coarse to fine. ``raw``: what the raw
    representation is, in words. ``advice``: representation -> what to do where it is better than the model. ``seed``:
    of the bootstrap.
    """
    paired = [row for row in rows if row.score.values is not None]
    own = [row for row in paired if row.representation == "model" and row.level in levels]
    metrics = dict.fromkeys(
        [*(row.metric for row in own[:1]), *(row.metric for row in own if row.metric == "accuracy")]
    )
    return [finding for metric in metrics for finding in _findings(paired, metric, levels, raw, advice, seed)]


def _findings(
    paired: Sequence[Row], metric: str, levels: Sequence[str], raw: str, advice: Mapping[str, str], seed: int
) -> list[Finding]:
    """By one metric, at the finest level where the model has it."""
    own = [row for row in paired if (row.representation, row.metric) == ("model", metric) and row.level in levels]
    model = max(own, key=lambda row: levels.index(row.level))
    others = {row.representation: row for row in paired if (row.level, row.metric) == (model.level, metric)}
    fitted = "logistic regression on " if metric == "accuracy" else ""
    called = {
        "start": f"{fitted}the pretrained weights that it began from",
        "raw": f"{fitted}raw {raw}",
        "random": f"{fitted}the same network with random weights",
    }
    findings = []
    for name in (name for name in called if name in others):
        mine, theirs = model.score, others[name].score
        assert mine.values is not None
        assert theirs.values is not None
        count = len(mine.values)
        if count < 2:
            continue
        mean, low, high = interval = bootstrap_interval(mine.values - theirs.values, seed=seed)
        outcome: Literal["better", "within noise", "worse"]
        outcome = "better" if low > 0 else "worse" if high < 0 else "within noise"
        figures = (
            f"{metric} at level '{model.level}' is {100 * mine.value:.1f}, against {100 * theirs.value:.1f} of "
            f"{called[name]} (95% interval of the difference {100 * low:+.1f} to {100 * high:+.1f}, over "
            f"{count} {'samples' if mine.over == 'queries' else mine.over})"
        )
        points = f"{abs(100 * mean):.1f} points"
        sentence = {
            "better": f"Training helped by {points}: {figures}.",
            "within noise": f"Training made no difference beyond noise: {figures}.",
            "worse": f"Training cost {points}: {figures}. {'' if fitted else advice.get(name, '')}".rstrip(),
        }[outcome]
        findings.append(
            Finding(sentence, outcome, model.level, metric, name, mine.value, theirs.value, *interval, count)
        )
    return findings
