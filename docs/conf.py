"""Sphinx: pages in MyST; the references under reference/ are written from the code before each build."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import bas  # noqa: E402 (found by the path above)

project = "bas"
author = copyright = "the authors of bas"
version = release = bas.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "reference"]
html_theme = "furo"
html_title = f"bas {release}"
exclude_patterns = ["_ext"]
myst_heading_anchors = 3
# A report of benchmarks/, included, skips levels of headings.
suppress_warnings = ["myst.header"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # torch has its own markup
