"""What a source may have wrong: found, expected, and what to do about it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ONE_ROW_OF = 100  # from so many rows on a single odd one is within any tolerance but 0


@dataclass(frozen=True)
class Problem:
    """Something about the source that differs from what was declared.

    Attributes:
        code: `unreadable`, `unreadable_line`, `missing_column`, `ambiguous_column`, `wrong_type`, `wrong_value` or
            `duplicate_key`.
        rows: how many rows it touches, where that can be counted.
        examples: up to three offending values.
        fix: what to do about it.
        set_aside: whether the rows are so few that they were set aside and the others can be used.
    """

    code: str
    column: str | None
    found: str
    expected: str
    rows: int | None = None
    examples: tuple[str, ...] = ()
    fix: str = ""
    set_aside: bool = False

    def __str__(self) -> str:
        where = f"column {self.column}: " if self.column else ""
        rows = f" ({self.rows} rows)" if self.rows is not None else ""
        return f"{where}found {self.found}{rows}, expected {self.expected}. {self.fix}".rstrip()


def tolerated_rows(tolerance: float, rows: int) -> int:
    """How many of `rows` rows may be set aside: the share, but at least one of a hundred rows unless it is 0."""
    return max(math.floor(tolerance * rows), int(tolerance > 0 and rows >= ONE_ROW_OF))


def unreadable(kind_of_file: str, path: Path, error: Exception) -> Problem:
    """The problem of a file that DuckDB can't read, from its error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = re.split(r"Possible (?:fixes|Solution)", " ".join(lines))[0].strip()[:300]
    fix = "Fetch the file again."
    if kind_of_file == "csv":
        fix = "Set the source's csv options (delim, quote, encoding, …) to what the file has."
        if re.search(r"(?i)invalid unicode|not utf-8", said):
            fix = "The file is not UTF-8: set csv: {encoding: latin-1}, or convert it."
        elif "state machine" in said:
            fix = (
                "Its quotes or line ends don't follow RFC 4180, e.g. it has lines that end with \\n and others with "
                "\\r\\n: correct the file, or set csv: {strict_mode: false}."
            )
    return Problem("unreadable", None, f"{path.name}: {said}", f"a readable {kind_of_file} file", fix=fix)


def cut_short(name: str, last: str) -> Problem:
    """The problem of a text file that ends within a line, which can't be read."""
    return Problem(
        "unreadable",
        None,
        f"{name}: a truncated CSV file, it ends within the line {last[-80:]!r}",
        "a whole file, whose last line has an end",
        fix="Fetch the file again: the transfer was probably interrupted.",
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the closest known name, empty when none is close."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
