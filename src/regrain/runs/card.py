"""The card of a run: what a reader of the shared model must know of data, labels and weights."""

from __future__ import annotations

from collections.abc import Sequence

from regrain.encoders import is_pretrained
from regrain.runs.assemble import Assembly


def card(assembly: Assembly, epochs: int, precision: str, device: str, notices: Sequence[str] = ()) -> str:
    """``card.md`` of a training that has ended; ``notices`` say what was chosen for the user."""
    recipe, labels = assembly.recipe, assembly.dataset.labels
    origin = str((assembly.model.backbone or assembly.model.method.encoder).origin)
    levels = labels.in_words() or "none"
    lines = [
        f"# {recipe['method']['name']} on {assembly.dataset.name}",
        "",
        f"- data: {assembly.dataset.name}, {len(assembly.dataset)} training samples",
        f"- labels read: {levels}",
        f"- encoder: {recipe['encoder']['name']}; initial weights: {origin}",
        f"- trained for {epochs} epochs in {precision} on {device}, seed {recipe['seed']}",
    ]
    for key in ("source", "licence", "license"):
        if assembly.dataset.notes.get(key):
            lines.append(f"- {key} of the data: {assembly.dataset.notes[key]}")
    lines += [f"- note: {notice}" for notice in dict.fromkeys(notices)]
    if is_pretrained(origin):
        lines += [
            "",
            "Leak notice: the initial weights come from other data. Where those had fine labels of these "
            "classes, figures at the fine level are not those of a model that never saw fine labels.",
        ]
    return "\n".join(lines) + "\n"
