"""The report: one self-contained HTML page over one or more runs of claims.

It is made from what the runs stored, so it can be made again without the claims' code.
"""

from __future__ import annotations

from posterhall.report.page import render, write

__all__ = ["render", "write"]
