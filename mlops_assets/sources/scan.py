"""A file that DuckDB can read, by the names that the file itself gives its columns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mlops_assets.lake.store import identifier


@dataclass(frozen=True)
class FileColumn:
    """A column of a file.

    Attributes:
        name: as the file spells it; several columns may have the same.
        alias: as DuckDB calls it, which never repeats a name, whatever its case: the second of KM and km is km_1.
        kind: its DuckDB type.
    """

    name: str
    alias: str
    kind: str

    @property
    def sql(self) -> str:
        return identifier(self.alias)


@dataclass(frozen=True)
class BadLine:
    """A line of a CSV file that is no row of it: its number, its text and why."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """A FROM expression with the columns of a file and `__row`, the row's number from 0.

    Attributes:
        rows: number of rows, None when it is not known before counting.
        bad_lines, bad_rows: the lines that can't be read, within the source's tolerance, and how many rows they are.
        open_end: whether the file's last line has no end, as a file has whose transfer was interrupted.
    """

    sql: str
    columns: tuple[FileColumn, ...]
    rows: int | None
    bad_lines: tuple[BadLine, ...] = ()
    bad_rows: int = 0
    open_end: bool = False

    @property
    def variant(self) -> str:
        """Which schema the file has, as a short name; files of the same schema share it."""
        spelled = ", ".join(f"{column.alias} {column.kind}" for column in self.columns)
        return f"{len(self.columns)} columns, {hashlib.blake2b(spelled.encode(), digest_size=4).hexdigest()}"


class AmbiguousColumn(LookupError):
    """Several columns of a file that a declared name could mean; `found` are their names."""

    def __init__(self, name: str, found: list[str]) -> None:
        super().__init__(f"{name}: {found}")
        self.name, self.found = name, found


def find_column(name: str, columns: tuple[FileColumn, ...]) -> FileColumn | None:
    """The file's column of a declared name: spelled exactly so, else differing in case only.

    Raises AmbiguousColumn when several could be meant.
    """
    for same in (
        [column for column in columns if column.name == name],
        [column for column in columns if column.name.lower() == name.lower()],
        [column for column in columns if column.alias == name],
    ):
        if len(same) > 1:
            raise AmbiguousColumn(name, [column.name for column in same])
        if same:
            return same[0]
    return None


def other_delimiter(columns: tuple[FileColumn, ...]) -> str | None:
    """What to do about a CSV file whose header is one single column; None when it is not that."""
    only, *others = columns
    split = next((mark for mark in (";", "\t", "|", ",") if mark in only.name), None)
    if others or split is None:
        return None
    return f"The file is separated by {split!r}: set csv: {{delim: {split!r}}}."
