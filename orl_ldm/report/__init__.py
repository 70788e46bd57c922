"""From an evaluation folder to tables, figures and one self-contained page."""

from orl_ldm.report.page import build_report
from orl_ldm.report.statistics import paired_intervals, summarise
from orl_ldm.report.tables import print_table, write_tables

__all__ = ["build_report", "paired_intervals", "print_table", "summarise", "write_tables"]
