"""An encoder's features without training."""

from __future__ import annotations

from regrain.methods.base import Method, Needs


class Features(Method):
    """f(x) without training: the baseline for every training, and the run to keep if no training beats it.

    With a pretrained encoder these are its features; without weights at hand the
    raw input: pixels (``--encoder identity``), or standardised values of tables and
    series (``standardised``). ``discover`` clusters them within each superclass,
    ``adapt`` fits a classifier on them.
    """

    name = "features"
    summary = "no training: the encoder's features as they are"
    needs = Needs(levels=(), views=("weak",))
    trains_encoder = False
    fit_once = True
