"""Pages to look at: the report of one run, the comparison of several. A face over :mod:`regrain.verbs`."""

from __future__ import annotations

from regrain.report.compare import Comparison, compare, write_comparison
from regrain.report.report import report

__all__ = ["Comparison", "compare", "report", "write_comparison"]
