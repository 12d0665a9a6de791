"""Data sets by name: their sources, contents, and readers for the common layouts.

Nothing is downloaded unless the user asks for it. Groupings of classes into coarser ones come from the papers and are
kept with their sources in ``groupings/*.json``; :mod:`regrain.data.taxonomies` reads them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regrain.papers.datasets.listing import Entry, entries

if TYPE_CHECKING:
    from regrain.data.options import CatalogOptions
    from regrain.papers.datasets.dialysis import dialysis_records
    from regrain.papers.datasets.loading import rows

__all__ = ["CatalogOptions", "Entry", "dialysis_records", "entries", "rows"]

_HOMES = {"CatalogOptions": "regrain.data.options", "dialysis_records": "regrain.papers.datasets.dialysis"}


def __getattr__(name: str) -> Any:  # the names of the data sets are looked up without torch
    if name not in __all__:
        raise AttributeError(f"module 'regrain.papers.datasets' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "regrain.papers.datasets.loading")), name)
