"""The methods, by name."""

from __future__ import annotations

from regrain.errors import UserError, nearest
from regrain.methods.base import Method, Needs
from regrain.methods.baselines import SupCE, SupFINE
from regrain.methods.coins import CoIns
from regrain.methods.grafit import Grafit
from regrain.methods.maskcon import MaskCon
from regrain.methods.nnclr import NNCLR
from regrain.methods.selfcon import SelfCon, SimCLR
from regrain.methods.supcon import SupCon, SupConQueue

__all__ = [
    "METHODS",
    "NNCLR",
    "CoIns",
    "Grafit",
    "MaskCon",
    "Method",
    "Needs",
    "SelfCon",
    "SimCLR",
    "SupCE",
    "SupCon",
    "SupConQueue",
    "SupFINE",
    "method_class",
]

METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in (MaskCon, Grafit, CoIns, SupCon, SupConQueue, SelfCon, SimCLR, NNCLR, SupCE, SupFINE)
}
"""Name on the command line -> class."""


def method_class(name: str) -> type[Method]:
    """The class of a method by name; a UserError names the nearest one.

    Examples
    --------
    >>> method_class("maskcon").__name__
    'MaskCon'
    """
    if name not in METHODS:
        raise UserError(f"no method '{name}': {nearest(name, METHODS)} (`regrain methods` describes them)")
    return METHODS[name]
