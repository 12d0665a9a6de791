"""Data sets by name: where they come from, what they hold, and how to read them in the layouts people have.

Nothing is downloaded unless it is asked for. Groupings of classes into coarser ones are facts of the papers, kept with
their sources in ``groupings/*.json``; :mod:`regrain.data.taxonomies` reads them.
"""

from regrain.papers.datasets.dialysis import dialysis_records
from regrain.papers.datasets.listing import Entry, entries
from regrain.papers.datasets.loading import CatalogOptions, load, rows

__all__ = ["CatalogOptions", "Entry", "dialysis_records", "entries", "load", "rows"]
