"""The methods, by name."""

from __future__ import annotations

from regrain.errors import UserError, nearest
from regrain.methods.ancor import ANCOR
from regrain.methods.base import Method, Needs
from regrain.methods.baselines import CoarsePlus, FinePlus, SupCE, SupFINE
from regrain.methods.coins import CoIns
from regrain.methods.features import Features
from regrain.methods.george import GEORGE
from regrain.methods.grafit import Grafit
from regrain.methods.guided import Guided
from regrain.methods.kmeans import KMeans
from regrain.methods.maskcon import MaskCon
from regrain.methods.mixed import Mixed
from regrain.methods.multilevel import MLCL, HiMulConE, MultiCE
from regrain.methods.nnclr import NNCLR
from regrain.methods.scan import SCAN
from regrain.methods.scgm import SCGM, SCGMA
from regrain.methods.sclre import SCLRE
from regrain.methods.sela import SeLa
from regrain.methods.self_classifier import SelfClassifier
from regrain.methods.selfcon import SelfCon, SimCLR
from regrain.methods.supcon import SupCon, SupConQueue
from regrain.methods.tsc import TSC
from regrain.methods.turtle import Turtle

__all__ = ["ALIASES", "ANCOR", "GEORGE", "METHODS", "MLCL", "NNCLR", "SCAN", "SCGM", "SCGMA", "SCLRE", "TSC", "CoIns",
           "CoarsePlus", "Features", "FinePlus", "Grafit", "Guided", "HiMulConE", "KMeans", "MaskCon", "Method",
           "Mixed", "MultiCE", "Needs", "SeLa", "SelfClassifier", "SelfCon", "SimCLR", "SupCE", "SupCon", "SupConQueue",
           "SupFINE", "Turtle", "method_class"]  # fmt: skip

_METHODS = (MaskCon, Grafit, CoIns, SupCon, SupConQueue, SelfCon, SimCLR, NNCLR, SCGM, SCGMA, ANCOR, GEORGE, SeLa,
            SCLRE, TSC, Mixed, MLCL, HiMulConE, Guided, MultiCE, SelfClassifier, Features, KMeans, SCAN, Turtle,
            SupCE, CoarsePlus, SupFINE, FinePlus)  # fmt: skip

METHODS: dict[str, type[Method]] = {cls.name: cls for cls in _METHODS}
"""Name on the command line -> class."""

ALIASES = {"coarse": "sup-ce", "fine": "sup-fine"}
"""What other papers call a method -> its name."""


def method_class(name: str) -> type[Method]:
    """The class of a method by name; a UserError names the nearest one.

    Examples
    --------
    >>> method_class("maskcon").__name__, method_class("coarse").__name__
    ('MaskCon', 'SupCE')
    """
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise UserError(
            f"no method '{name}': {nearest(name, METHODS)} (`regrain methods` describes them)", code="unknown_name"
        )
    return METHODS[name]
