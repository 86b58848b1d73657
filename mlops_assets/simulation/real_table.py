"""A real table cut into periods: its rows are real, the time of each is simulated.

For a table whose dates were removed to protect the people in it. A period's rows are drawn without replacement;
another period may draw the same row again, as in sampling with replacement over time.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.store import identifier, quoted
from mlops_assets.simulation.generative_model import SimulationError
from mlops_assets.sources.connection import source_database
from mlops_assets.sources.digests import file_sha256

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RealTable:
    """A table's columns that the source declares, in their types, and where they come from."""

    rows: pa.Table
    name: str
    sha256: str
    ignored: int

    def drawn(self, number: int, random: np.random.Generator) -> pa.Table:
        """`number` rows, none of them twice, in random order. Raises SimulationError when there are not so many."""
        if number > self.rows.num_rows:
            raise SimulationError(
                f"{self.name} has {self.rows.num_rows:,} rows, a period of {number:,} can't be drawn from it without "
                "drawing a row twice; ask for fewer with --rows"
            )
        picked: NDArray[Any] = random.choice(self.rows.num_rows, number, replace=False)
        return self.rows.take(picked)


def read_table(path: Path, columns: Mapping[str, str], missing: list[str]) -> RealTable:
    """Read the columns of a CSV file with a header.

    Args:
        columns: names with their DuckDB types. They are found whatever their case; other columns are ignored.
        missing: texts that stand for a missing value, beside the empty one; blanks around them don't matter.

    Raises:
        SimulationError: the file is not there, is no CSV, lacks columns, or holds values of another type.
    """
    import duckdb

    if not path.is_file():
        raise SimulationError(f"there is no file {path}; give the path of the table as CSV with a header")
    nulls = ", ".join(quoted(text) for text in dict.fromkeys(["", *missing]))
    # Not by read_csv's nullstr: it takes a missing value with blanks around for a text.
    scan = (
        f"(SELECT CASE WHEN trim(COLUMNS(*)) NOT IN ({nulls}) THEN COLUMNS(*) END "
        f"FROM read_csv({quoted(str(path))}, header = true, all_varchar = true))"
    )
    with source_database() as con:
        try:
            names = {name.lower(): name for name, *_ in con.sql(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
            _check_columns(path, names, columns)
            found = {name: names[name.lower()] for name in columns}
            _check_values(con, scan, path, found, columns)
            listed = ", ".join(
                f"CAST({_as_number(found[name], kind)} AS {kind}) AS {identifier(name)}"
                for name, kind in columns.items()
            )
            rows = con.sql(f"SELECT {listed} FROM {scan}").to_arrow_table()
        except duckdb.Error as error:
            raise SimulationError(f"{path} can't be read as CSV: {str(error).splitlines()[0]}") from error
    if not rows.num_rows:
        raise SimulationError(f"{path} has a header but no rows")
    return RealTable(rows, path.name, file_sha256(path), len(names) - len(columns))


def _as_number(column: str, kind: str) -> str:
    """Whole numbers may be written with a point (`3.0`), as a table does whose column has missing values."""
    return f"TRY_CAST({identifier(column)} AS DOUBLE)" if _is_number(kind) else identifier(column)


def _is_number(kind: str) -> bool:
    return _is_whole(kind) or kind.upper() in ("DOUBLE", "FLOAT")


def _is_whole(kind: str) -> bool:
    return kind.upper().endswith(("INT", "INTEGER"))


def _check_columns(path: Path, names: Mapping[str, str], columns: Mapping[str, str]) -> None:
    lacking = [name for name in columns if name.lower() not in names]
    if not lacking:
        return
    spare = sorted(names.keys() - {name.lower() for name in columns})
    told = []
    for name in lacking:
        near = difflib.get_close_matches(name.lower(), spare, n=1, cutoff=0.7)
        told.append(f"{name} (is it called {names[near[0]]}?)" if near else name)
    raise SimulationError(
        f"{path.name} lacks {len(lacking)} of the {len(columns)} columns: {', '.join(told)}. It has {len(names)} "
        f"columns: {', '.join(list(names.values())[:8])}{', …' if len(names) > 8 else ''}. Rename them in its header, "
        "or add them empty where they are not known"
    )


def _check_values(con: Any, scan: str, path: Path, found: Mapping[str, str], columns: Mapping[str, str]) -> None:
    """Refuse values of another type: read as missing or rounded, they would be lost without a word."""
    numbers = {name: f"TRY_CAST({identifier(found[name])} AS DOUBLE)" for name in columns if _is_number(columns[name])}
    # `nan` and `inf` are DOUBLE to DuckDB.
    told = _counted(con, scan, found, {name: f"isfinite({number}) IS NOT TRUE" for name, number in numbers.items()})
    if told:
        raise SimulationError(
            f"{path.name} holds values that are no numbers: {told}. If they mark missing values, list them under "
            "missing_in_table in simulation.yaml"
        )
    whole = {name: number for name, number in numbers.items() if _is_whole(columns[name])}
    told = _counted(con, scan, found, {name: f"{number} <> trunc({number})" for name, number in whole.items()})
    if told:
        raise SimulationError(
            f"{path.name} holds fractions where the source's schema expects whole numbers: {told}. Declare these "
            "columns as DOUBLE, or correct the table"
        )


def _counted(con: Any, scan: str, found: Mapping[str, str], wrong: Mapping[str, str]) -> str:
    """In how many rows the columns have values that meet their conditions, each with an example; empty for none."""
    if not wrong:
        return ""
    counts = ", ".join(
        f"count({column}) FILTER ({condition}), min({column}) FILTER ({condition})"
        for column, condition in ((identifier(found[name]), condition) for name, condition in wrong.items())
    )
    row = con.execute(f"SELECT {counts} FROM {scan}").fetchall()[0]
    told = [(name, row[2 * i], row[2 * i + 1]) for i, name in enumerate(wrong) if row[2 * i]]
    return "; ".join(f"{name}: {count:,} rows, e.g. {example!r}" for name, count, example in told[:5])
