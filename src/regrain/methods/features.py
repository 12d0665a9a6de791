"""An encoder's features as they are: nothing is trained."""

from __future__ import annotations

from typing import ClassVar

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

    name: ClassVar[str] = "features"
    summary: ClassVar[str] = "no training: the encoder's features as they are"
    needs: ClassVar[Needs] = Needs(levels=(), views=("weak",))
    trains_encoder: ClassVar[bool] = False
    by_gradient: ClassVar[bool] = False
