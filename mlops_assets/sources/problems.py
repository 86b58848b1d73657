"""What a source may have wrong: found, expected, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something about the source that differs from what was declared.

    Attributes:
        code: `unreadable`, `missing_column`, `wrong_type`, `wrong_value` or `duplicate_key`.
        rows: how many rows it touches, where that can be counted.
        examples: up to three offending values.
        fix: what to do about it.
    """

    code: str
    column: str | None
    found: str
    expected: str
    rows: int | None = None
    examples: tuple[str, ...] = ()
    fix: str = ""

    def __str__(self) -> str:
        where = f"column {self.column}: " if self.column else ""
        rows = f" ({self.rows} rows)" if self.rows is not None else ""
        return f"{where}found {self.found}{rows}, expected {self.expected}. {self.fix}".rstrip()
