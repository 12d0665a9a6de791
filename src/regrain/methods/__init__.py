"""The methods, by name. A method is imported when it is first used: names are checked without torch."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from regrain.errors import UserError, nearest

if TYPE_CHECKING:
    from regrain.methods.ancor import ANCOR
    from regrain.methods.base import Method, Needs
    from regrain.methods.baselines import CoarsePlus, FinePlus, SupCE, SupFINE
    from regrain.methods.coins import CoIns
    from regrain.methods.falcon import FALCON
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
    from regrain.methods.taxon_ssl import TaxonSSL
    from regrain.methods.tsc import TSC
    from regrain.methods.turtle import Turtle

__all__ = ["ALIASES", "ANCOR", "FALCON", "GEORGE", "METHODS", "MLCL", "NNCLR", "SCAN", "SCGM", "SCGMA", "SCLRE", "TSC",
           "CoIns", "CoarsePlus", "Features", "FinePlus", "Grafit", "Guided", "HiMulConE", "KMeans", "MaskCon",
           "Method", "Mixed", "MultiCE", "Needs", "SeLa", "SelfClassifier", "SelfCon", "SimCLR", "SupCE", "SupCon",
           "SupConQueue", "SupFINE", "TaxonSSL", "Turtle", "method_class", "method_name"]  # fmt: skip

_HOMES = {
    "maskcon": "maskcon:MaskCon",
    "grafit": "grafit:Grafit",
    "coins": "coins:CoIns",
    "supcon": "supcon:SupCon",
    "supcon-queue": "supcon:SupConQueue",
    "selfcon": "selfcon:SelfCon",
    "simclr": "selfcon:SimCLR",
    "nnclr": "nnclr:NNCLR",
    "scgm": "scgm:SCGM",
    "scgm-a": "scgm:SCGMA",
    "ancor": "ancor:ANCOR",
    "george": "george:GEORGE",
    "falcon": "falcon:FALCON",
    "sela": "sela:SeLa",
    "sclre": "sclre:SCLRE",
    "tsc": "tsc:TSC",
    "mixed": "mixed:Mixed",
    "mlcl": "multilevel:MLCL",
    "himulcone": "multilevel:HiMulConE",
    "guided": "guided:Guided",
    "multi-ce": "multilevel:MultiCE",
    "taxon-ssl": "taxon_ssl:TaxonSSL",
    "self-classifier": "self_classifier:SelfClassifier",
    "features": "features:Features",
    "kmeans": "kmeans:KMeans",
    "scan": "scan:SCAN",
    "turtle": "turtle:Turtle",
    "sup-ce": "baselines:SupCE",
    "coarse+": "baselines:CoarsePlus",
    "sup-fine": "baselines:SupFINE",
    "fine+": "baselines:FinePlus",
}
"""Name on the command line -> module and class."""

ALIASES = {"coarse": "sup-ce", "fine": "sup-fine"}
"""Name of a method in other papers -> its name here."""


class _Methods(MutableMapping[str, "type[Method]"]):
    """Name -> class; a class of this package is imported on first access."""

    def __init__(self) -> None:
        self._known: dict[str, str | type[Method]] = dict(_HOMES)

    def __getitem__(self, name: str) -> type[Method]:
        found = self._known[name]
        if isinstance(found, str):
            module, cls = found.split(":")
            found = self._known[name] = getattr(import_module(f"regrain.methods.{module}"), cls)
        return found

    def __setitem__(self, name: str, method: type[Method]) -> None:
        self._known[name] = method

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


METHODS: MutableMapping[str, type[Method]] = _Methods()
"""Name on the command line -> class; add an entry to register a method of your own."""


def method_name(name: str) -> str:
    """Return the name of a method, given its name or an alias; for an unknown one, a UserError names the nearest.

    Examples
    --------
    >>> method_name("coarse")
    'sup-ce'
    """
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise UserError(
            f"no method '{name}': {nearest(name, METHODS)} (`regrain methods` describes them)", code="unknown_name"
        )
    return name


def method_class(name: str) -> type[Method]:
    """Return the class of a method by name; for an unknown name, a UserError names the nearest.

    Examples
    --------
    >>> method_class("maskcon").__name__, method_class("coarse").__name__
    ('MaskCon', 'SupCE')
    """
    return METHODS[method_name(name)]


def __getattr__(name: str) -> Any:
    homes = {cls: module for module, cls in (place.split(":") for place in _HOMES.values())}
    if name not in {*homes, "Method", "Needs"}:
        raise AttributeError(f"module 'regrain.methods' has no attribute '{name}'")
    return getattr(import_module(f"regrain.methods.{homes.get(name, 'base')}"), name)
