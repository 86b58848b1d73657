"""Fixtures of the fuzz suite."""

from mlops_assets_tests.end_to_end.browser import chromium, page

__all__ = ["chromium", "page"]
