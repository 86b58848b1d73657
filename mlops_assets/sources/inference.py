"""Which schema and `csv` options make a publisher's files readable: a first declaration of a source, from its values.

All values of the given files are looked at, with the casts that read the source later: what is proposed here is read as
it was seen here. A guess that costs information is not made: `00123` stays text, and so does a number of 19 digits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.store import identifier, quoted
from mlops_assets.sources.casting import casts_of
from mlops_assets.sources.declaration import RECORD_ID, Format, Source
from mlops_assets.sources.layout import LayoutError, csv_layout
from mlops_assets.sources.opening import open_scan
from mlops_assets.sources.problems import Problem, tolerated_rows
from mlops_assets.sources.scan import AmbiguousColumn, Scan, find_column

if TYPE_CHECKING:
    import duckdb

RECORDS = "records"
"""The table that `infer` leaves in its connection: the columns of the schema, and the number of the file."""
FILE = "__file"
TOLERANCE = 0.001
SEEN_VALUES = 3_000
LONGEST_NAME = 1_000
PLATFORM_MAKES = (RECORD_ID, "period", FILE)

# How people write that there is no value. Taken for that only where the other values are numbers or times.
MISSING = ("NA", "N/A", "n/a", "#N/A", "NULL", "null", "None", "nan", "NaN", "-", "--", "?", ".")
# Decimal separator and thousands; the first that most columns are written in is taken.
NUMBERS = ((".", None), (",", None), (",", "."), (".", ","), (",", " "), (".", " "), (".", "'"))
DAYS = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d-%b-%Y"),
    *("%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y"),
)
CLOCKS = (" %H:%M:%S", " %H:%M", " %H:%M:%S.%f", "T%H:%M:%S", ", %H:%M", " %I:%M %p", " %I:%M:%S %p")
SWAPPED = {"%d/%m/%Y": "%m/%d/%Y", "%d-%m-%Y": "%m-%d-%Y", "%d/%m/%y": "%m/%d/%y"}

LEADING_ZERO = re.compile(r"\s*[+-]?0[0-9]+\s*")
# A handful of mistyped years in a small file make its times no text; where there is no time at all, half of them.
TIMES_THAT_FIT, LAST_RESORT = 0.9, 0.5

_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_WIDE = {"UBIGINT", "HUGEINT", "UHUGEINT"}
_FLOATS = {"FLOAT", "DOUBLE"}
_UNUSABLE = re.compile(r"\[|^(STRUCT|MAP|UNION|LIST|ARRAY|BLOB|BIT|INTERVAL|VARIANT|GEOMETRY)")


class InferenceError(ValueError):
    """Files that no single declaration can read; the message says why."""


@dataclass(frozen=True)
class Inferred:
    """What a source's declaration may say.

    Attributes
    ----------
    schema
        The columns that all files have and that can be used, with their DuckDB types.
    csv
        The options of CSV files.
    notes
        What a person should know: columns that were left out, values that don't fit, guesses that may be wrong.
    """

    schema: dict[str, str]
    csv: dict[str, Any]
    notes: tuple[str, ...]


def infer(paths: Sequence[Path], kind_of_file: Format, con: duckdb.DuckDBPyConnection) -> Inferred:
    """Schema, options and notes of files that one source reads; their rows are then in the table `records` of `con`.

    Raises InferenceError when a file can't be read, or the files differ in their layout.
    """
    options = _common_layout(paths) if kind_of_file == "csv" else {}
    scans = [_opened(path, kind_of_file, options, con) for path in paths]
    names, notes = _usable_names(scans, paths)
    if kind_of_file == "csv":
        _create_records(con, scans, kind_of_file, options, dict.fromkeys(names, "VARCHAR"))
        schema, options = _of_text(con, names, options, notes)
        con.execute(f"DROP TABLE {RECORDS}")
    else:
        schema = _of_types(con, scans, names, notes)
    _create_records(con, scans, kind_of_file, options, schema)
    for name in _empty(con, list(schema)):
        notes.append(f"left out: {name!r}, which has no value in any row")
        del schema[name]
    return Inferred(schema, options, tuple(notes))


def _empty(con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> list[str]:
    counts = ", ".join(f"count({identifier(name)})" for name in names)
    (found,) = con.execute(f"SELECT {counts} FROM {RECORDS}").fetchall()
    return [name for name, count in zip(names, found, strict=True) if not count]


def _common_layout(paths: Sequence[Path]) -> dict[str, Any]:
    try:
        layouts = [csv_layout(path) for path in paths]
    except LayoutError as error:
        raise InferenceError(str(error)) from error
    # A file in ASCII is in any encoding, and one of a single column separated by anything.
    common: dict[str, Any] = {}
    for path, layout in zip(paths, layouts, strict=True):
        for name, value in layout.items():
            if common.setdefault(name, value) != value:
                raise InferenceError(f"{path.name} has {name} {value!r}, another file {common[name]!r}; convert one")
    return common


def _source(kind_of_file: Format, options: dict[str, Any], schema: dict[str, str]) -> Source:
    return Source(path="{period}", format=kind_of_file, csv=options, schema=schema)


def _opened(path: Path, kind_of_file: Format, options: dict[str, Any], con: duckdb.DuckDBPyConnection) -> Scan:
    scan = open_scan(_source(kind_of_file, options, {"any": "VARCHAR"}), path, con)
    if isinstance(scan, Problem):
        raise InferenceError(str(scan))
    return scan


def _usable_names(scans: Sequence[Scan], paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The columns of the last file that every file has and that can be told apart; and what was left out."""
    names: list[str] = []
    notes = []
    taken: set[str] = set()
    for column in scans[-1].columns:
        name = column.name
        if name.lower() in PLATFORM_MAKES:
            continue
        if not name.strip() or len(name) > LONGEST_NAME:
            notes.append(
                f"left out: a column with {'no name' if not name.strip() else 'a name of too many characters'}"
            )
        elif name.lower() in taken:
            notes.append(f"left out: {name!r}, which SQL can't tell from another column; a source.query can rename it")
        elif (lacking := _lacking(name, scans, paths)) is not None:
            notes.append(f"left out: {name!r}, which {lacking}")
        else:
            taken.add(name.lower())
            names.append(name)
    return names, list(dict.fromkeys(notes))


def _lacking(name: str, scans: Sequence[Scan], paths: Sequence[Path]) -> str | None:
    for scan, path in zip(scans, paths, strict=True):
        try:
            if find_column(name, scan.columns) is None:
                return f"{path.name} does not have"
        except AmbiguousColumn:
            return f"{path.name} has more than once"
    return None


def _create_records(
    con: duckdb.DuckDBPyConnection,
    scans: Sequence[Scan],
    kind_of_file: Format,
    options: dict[str, Any],
    schema: dict[str, str],
) -> None:
    if not schema:
        raise InferenceError("no column is left that could be declared")
    source = _source(kind_of_file, options, schema)
    selects = []
    for number, scan in enumerate(scans):
        columns = ", ".join(f"{cast.value} AS {identifier(cast.name)}" for cast in casts_of(source, scan, con))
        selects.append(f"SELECT {columns}, {number} AS {FILE} FROM {scan.sql}")
    con.execute(f"CREATE TEMP TABLE {RECORDS} AS {' UNION ALL '.join(selects)}")


# -- text -----------------------------------------------------------------------------------------------------


@dataclass
class _Text:
    """A column of text: some of its distinct values, apart from those that may stand for a missing one."""

    name: str
    values: list[str]
    missing: set[str]
    kind: str = "VARCHAR"
    format: str | None = None


def _of_text(
    con: duckdb.DuckDBPyConnection, names: Sequence[str], layout: dict[str, Any], notes: list[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    columns = [_text_column(con, name) for name in names]
    decimal, thousands = _number_format(columns, layout)
    for column in columns:
        column.kind, column.format = _kind_of_text(con, column, decimal, thousands)
    share = TIMES_THAT_FIT
    if not any(column.kind in ("DATE", "TIMESTAMP") for column in columns):
        share = LAST_RESORT
        for column in columns:
            if column.kind == "VARCHAR" and column.values:
                column.kind, column.format = _time_of_text(con, column.values, share)
    dates = _one_format(columns, "DATE", notes)
    times = _one_format(columns, "TIMESTAMP", notes)
    numeric = any(column.kind in ("BIGINT", "DOUBLE") for column in columns)
    fractional = any(column.kind == "DOUBLE" for column in columns)
    missing = {value for column in columns if column.kind != "VARCHAR" for value in column.missing}
    options = layout | {
        "decimal_separator": decimal if decimal != "." and fractional else None,
        "thousands": thousands if numeric else None,
        "dateformat": dates,
        "timestampformat": times,
        "nullstr": sorted(missing) or None,
    }
    options = {name: value for name, value in options.items() if value is not None}
    return _verified(con, columns, options, share, notes), options


def _text_column(con: duckdb.DuckDBPyConnection, name: str) -> _Text:
    column = identifier(name)
    query = f"SELECT DISTINCT {column} FROM {RECORDS} WHERE trim({column}) <> '' LIMIT {SEEN_VALUES}"
    values = {value for (value,) in con.execute(query).fetchall()}
    return _Text(name, sorted(values - set(MISSING)), values & set(MISSING))


def _number_format(columns: Sequence[_Text], layout: dict[str, Any]) -> tuple[str, str | None]:
    candidates = list(NUMBERS)
    if layout.get("delim", ",") == ",":
        # In quotes between commas, 1,234 is rather a thousand than a little more than one.
        candidates.insert(1, candidates.pop(3))

    def written_so(separators: tuple[str, str | None]) -> int:
        pattern = _number_pattern(*separators)
        return sum(_mostly(column.values, pattern) for column in columns)

    return max(candidates, key=written_so)


def _number_pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    whole = "[0-9]+" if thousands is None else f"([0-9]+|[0-9]{{1,3}}({re.escape(thousands)}[0-9]{{3}})+)"
    return re.compile(
        rf"\s*[+-]?({whole}({re.escape(decimal)}[0-9]*)?|{re.escape(decimal)}[0-9]+)([eE][+-]?[0-9]+)?\s*"
    )


def _mostly(values: Sequence[str], pattern: re.Pattern[str]) -> bool:
    return bool(values) and sum(pattern.fullmatch(value) is None for value in values) <= 0.01 * len(values)


def _kind_of_text(
    con: duckdb.DuckDBPyConnection, column: _Text, decimal: str, thousands: str | None
) -> tuple[str, str | None]:
    values = column.values
    if not values or any(LEADING_ZERO.fullmatch(value) for value in values):
        return "VARCHAR", None
    if all(value.lower() in ("true", "false") for value in values):
        return "BOOLEAN", None
    if _mostly(values, _number_pattern(decimal, thousands)):
        whole = [re.sub(rf"[\s{re.escape(thousands or ' ')}]", "", value) for value in values]
        if not any(re.fullmatch(r"[+-]?[0-9]+", value) for value in whole):
            return "DOUBLE", None
        if all(re.fullmatch(r"[+-]?[0-9]+", value) for value in whole):
            return ("BIGINT" if all(len(value.lstrip("+-")) <= 18 for value in whole) else "VARCHAR"), None
        digits = sum(bool(re.fullmatch(r"[+-]?[0-9]+", value)) for value in whole)
        return ("BIGINT" if digits >= 0.99 * len(whole) and len(whole) >= 100 else "DOUBLE"), None
    return _time_of_text(con, values)


def _time_of_text(
    con: duckdb.DuckDBPyConnection, values: Sequence[str], share: float = TIMES_THAT_FIT
) -> tuple[str, str | None]:
    """DATE or TIMESTAMP with the format, None for ISO 8601; else VARCHAR."""
    enough = share * len(values)
    con.execute("CREATE OR REPLACE TEMP TABLE some_values AS SELECT unnest(?) AS value", [list(values)])
    iso = "TRY_CAST(value AS TIMESTAMP)"
    if _parsed(con, iso) >= enough:
        ((days,),) = con.execute("SELECT count(*) FILTER (length(trim(value)) <= 10) FROM some_values").fetchall()
        return ("DATE" if days >= enough else "TIMESTAMP"), None
    for day in DAYS:
        if _parsed(con, f"try_strptime(value, {quoted(day)})") >= enough:
            return "DATE", day
        for clock in CLOCKS:
            if _parsed(con, f"try_strptime(value, {quoted(day + clock)})") >= enough:
                return "TIMESTAMP", day + clock
    return "VARCHAR", None


def _parsed(con: duckdb.DuckDBPyConnection, moment: str) -> int:
    query = (
        f"SELECT count(*) FROM (SELECT {moment} AS moment FROM some_values) WHERE year(moment) BETWEEN 1800 AND 2300"
    )
    ((count,),) = con.execute(query).fetchall()
    return int(count)


def _one_format(columns: Sequence[_Text], kind: str, notes: list[str]) -> str | None:
    """The format of all columns of a kind, that of the first: a file can have one. Others become text."""
    of_kind = [column for column in columns if column.kind == kind]
    if not of_kind:
        return None
    chosen = of_kind[0].format
    for column in of_kind:
        if column.format != chosen:
            column.kind = "VARCHAR"
            notes.append(
                f"{column.name!r} stays text: its times are written otherwise than those of {of_kind[0].name!r}"
            )
    day = next((day for day in SWAPPED if chosen is not None and chosen.startswith(day)), None)
    if day is not None and all(_swaps(value) for column in of_kind for value in column.values):
        notes.append(f"{chosen} is a guess: no value tells days from months; the other way is {SWAPPED[day]}")
    return chosen


def _swaps(value: str) -> bool:
    found = re.match(r"\s*(\d+)\D(\d+)", value)
    return found is not None and int(found[1]) <= 12 and int(found[2]) <= 12


def _verified(
    con: duckdb.DuckDBPyConnection,
    columns: Sequence[_Text],
    options: dict[str, Any],
    times_that_fit: float,
    notes: list[str],
) -> dict[str, str]:
    """The schema, each type held against all rows; a type that too many values don't fit becomes text."""
    from mlops_assets.sources.scan import FileColumn

    scan = Scan(RECORDS, tuple(FileColumn(column.name, column.name, "VARCHAR") for column in columns), None)
    missing = ", ".join(quoted(value) for value in options.get("nullstr", [])) or "''"
    schema = {column.name: column.kind for column in columns}
    casts = casts_of(_source("csv", options, schema), scan, con)
    for cast in casts:
        if cast.misfit is None or cast.kind == "VARCHAR":
            continue
        raw = identifier(cast.name)
        known = f"{raw} <> '' AND {raw} NOT IN ({missing})"
        zeros = f"count(*) FILTER (regexp_full_match({raw}, {quoted(LEADING_ZERO.pattern)}))"
        odd = f"{known} AND ({cast.misfit})"
        query = f"SELECT count(*), count(*) FILTER ({odd}), any_value({raw}) FILTER ({odd}), {zeros} FROM {RECORDS}"
        ((rows, misfits, example, with_zero),) = con.execute(query).fetchall()
        is_time = cast.kind in ("DATE", "TIMESTAMP")
        allowed = (1 - times_that_fit) * rows if is_time else tolerated_rows(TOLERANCE, rows)
        if misfits > allowed or (with_zero and not is_time):
            schema[cast.name] = "VARCHAR"
        elif misfits:
            notes.append(f"{cast.name!r}: {misfits:,} values are no {cast.kind}, e.g. {str(example)[:40]!r}")
    return schema


# -- Parquet --------------------------------------------------------------------------------------------------


def _of_types(
    con: duckdb.DuckDBPyConnection, scans: Sequence[Scan], names: Sequence[str], notes: list[str]
) -> dict[str, str]:
    schema = {}
    for name in names:
        found = [column for scan in scans if (column := find_column(name, scan.columns)) is not None]
        kinds = {column.kind for column in found} - {"NULL"}
        if any(_UNUSABLE.search(kind) for kind in kinds):
            notes.append(
                f"left out: {name!r} of type {sorted(kinds)[0][:60]}; a source.query can take values out of it"
            )
            continue
        if any("TIME ZONE" in kind or "TIMESTAMPTZ" in kind for kind in kinds):
            notes.append(f"{name!r} has a time zone: its times are read as UTC unless source.timezone says otherwise")
        fractions = False
        if kinds & _FLOATS and kinds & _WHOLE:
            fractions = any(
                con.execute(f"SELECT count(*) FROM {scan.sql} WHERE {column.sql} <> floor({column.sql})").fetchall()[0][
                    0
                ]
                for scan, column in zip(scans, found, strict=True)
                if column.kind in _FLOATS
            )
        schema[name] = _type_of(kinds, fractions=fractions)
    if not any(kind.startswith(("DATE", "TIMESTAMP")) for kind in schema.values()):
        _times_in_text(con, scans, schema)
    return schema


def _type_of(kinds: set[str], *, fractions: bool) -> str:
    if not kinds:
        return "DOUBLE"
    if kinds <= _WHOLE:
        return "BIGINT"
    if kinds <= _WHOLE | _WIDE:
        return next(iter(kinds)) if len(kinds) == 1 else "HUGEINT"
    if kinds <= _WHOLE | _FLOATS:
        # Whole numbers with missing values are doubles in files that pandas writes.
        return "BIGINT" if kinds & _WHOLE and not fractions else "DOUBLE"
    if kinds == {"DATE"}:
        return "DATE"
    if all(kind.startswith(("DATE", "TIMESTAMP")) for kind in kinds):
        return "TIMESTAMP"
    if all(kind.startswith("DECIMAL") for kind in kinds):
        return next(iter(kinds)) if len(kinds) == 1 else f"DECIMAL(38,{max(_scale(kind) for kind in kinds)})"
    if kinds in ({"BOOLEAN"}, {"TIME"}):
        return next(iter(kinds))
    return "VARCHAR"


def _scale(kind: str) -> int:
    return int(kind.rstrip(")").rpartition(",")[2])


def _times_in_text(con: duckdb.DuckDBPyConnection, scans: Sequence[Scan], schema: dict[str, str]) -> None:
    """Declare texts that are all times as times, where a file has no other."""
    scan = scans[-1]
    for name in [name for name, kind in schema.items() if kind == "VARCHAR"]:
        column = find_column(name, scan.columns)
        if column is None or column.kind != "VARCHAR":
            continue
        query = f"SELECT DISTINCT {column.sql} FROM {scan.sql} WHERE {column.sql} IS NOT NULL LIMIT {SEEN_VALUES}"
        values = [value for (value,) in con.execute(query).fetchall()]
        kind, written = _time_of_text(con, values) if values else ("VARCHAR", None)
        if written is None:
            schema[name] = kind
