"""An encoder's features as they are: nothing is trained."""

from __future__ import annotations

from regrain.methods.base import Method, Needs


class Features(Method):
    """f(x), untouched: the run to keep where no training beats it, and the one to compare a training with.

    With a pretrained encoder these are its features; with ``--encoder identity`` the raw input. ``discover`` clusters
    them within each superclass, ``adapt`` fits a classifier on them.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; no label is read.
    """

    name = "features"
    summary = "no training: the encoder's features as they are"
    needs = Needs(levels=(), views=("weak",))
    trains_encoder = False
    fit_once = True
