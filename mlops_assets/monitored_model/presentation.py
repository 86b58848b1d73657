"""What a step only shows: pictures, pages, entries in MLflow. It comes last, and its failure changes no result.

A step computes, writes its partition and records its findings (verdict, incident, decision) first. When a picture can't
be drawn or MLflow can't be reached after that, the period's result stands, and the run says what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Presentation:
    """The metadata of an outcome, collected entry by entry, and what could not be shown."""

    metadata: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, what: str, show: Callable[[], Mapping[str, Any] | None]) -> None:
        """Call `show` and take over the metadata that it returns; where it raises, note that `what` is missing."""
        try:
            shown = show()
        except Exception as error:
            logging.getLogger(__name__).warning("%s could not be shown", what, exc_info=True)
            self.warnings.append(f"{what} could not be shown: {type(error).__name__}: {error}")
        else:
            self.metadata |= shown or {}
