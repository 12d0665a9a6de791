"""HTML pages: the report of one run, the comparison of several. Built on :mod:`regrain.verbs`."""

from __future__ import annotations

from regrain.report.run_comparison import Comparison, compare, write_comparison
from regrain.report.run_report import report

__all__ = ["Comparison", "compare", "report", "write_comparison"]
