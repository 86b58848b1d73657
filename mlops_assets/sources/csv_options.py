"""The `csv` key of a source: which options of DuckDB's read_csv there are, who applies them, which are refused.

Cells are read as text and cast to the schema afterwards, so that an odd value is a row with a reason and not an
unreadable file. Options about the shape of the file go to read_csv, options about values are applied by the cast, and
an option that could have no effect is refused with what to do instead.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlops_assets.lake.store import quoted
from mlops_assets.sources.problems import did_you_mean

SYNONYMS = {
    "sep": "delim",
    "separator": "delim",
    "delimiter": "delim",
    "null": "nullstr",
    "max_line_size": "maximum_line_size",
    "date_format": "dateformat",
    "timestamp_format": "timestampformat",
    "column_names": "names",
}

OF_THE_READER = {
    *("allow_quoted_nulls", "buffer_size", "comment", "compression", "delim", "encoding", "escape", "force_not_null"),
    *("header", "maximum_line_size", "null_padding", "nullstr", "parallel", "quote", "skip", "strict_mode"),
}
OF_THE_CAST = {"decimal_separator", "thousands", "dateformat", "timestampformat"}

_TYPES = "the types are those of source.schema; declare them there"
_GUESSING = "nothing is guessed: source.schema says the types, and delim, quote, … where the file is not RFC 4180"
_REJECTS = "source.tolerance says which share of the rows may be unreadable; they are kept in rejected_<records>"
_ONE_FILE = "one file is read at a time, and its path holds no column; use source.query with period() for what it says"
REFUSED = {
    **dict.fromkeys(("types", "dtypes", "column_types", "columns", "schema", "all_varchar"), _TYPES),
    **dict.fromkeys(("auto_detect", "auto_type_candidates", "sample_size", "files_to_sniff"), _GUESSING),
    **dict.fromkeys(("ignore_errors", "store_rejects", "rejects_table", "rejects_scan"), _REJECTS),
    **dict.fromkeys(("rejects_limit", "rejects_line_size_limit"), _REJECTS),
    **dict.fromkeys(("filename", "file_row_number", "union_by_name", "path", "paths"), _ONE_FILE),
    **dict.fromkeys(("hive_partitioning", "hive_types", "hive_types_autocast"), _ONE_FILE),
    "allow_empty": "empty lines are skipped, or are a missing value in a file of one column",
    "column_statistics": "the whole file is read",
    "new_line": "lines that end with \\n, \\r\\n or \\r are recognised",
    "normalize_names": "source.schema holds the file's own names; a difference in case doesn't matter",
}


@dataclass(frozen=True)
class CsvOptions:
    """The options, by who applies them.

    Attributes:
        reader: what read_csv gets.
        names: the columns of a file without a header, or instead of it.
        decimal_separator, thousands: how numbers are written.
        date_format, timestamp_format: how dates and times are written, as in strptime.
    """

    reader: Mapping[str, Any] = field(default_factory=dict)
    names: list[str] | None = None
    decimal_separator: str = "."
    thousands: str | None = None
    date_format: str | None = None
    timestamp_format: str | None = None


def csv_options(given: Mapping[str, Any]) -> CsvOptions:
    """The options of a declaration; raises ValueError, saying what to do, for one that has no place here."""
    options: dict[str, Any] = {}
    for spelled, value in given.items():
        name = SYNONYMS.get(spelled.lower(), spelled.lower())
        if name in REFUSED:
            raise ValueError(f"csv option {spelled!r} has no effect here: {REFUSED[name]}")
        if name not in {*OF_THE_READER, *OF_THE_CAST, "names"}:
            known = sorted({*OF_THE_READER, *OF_THE_CAST, *SYNONYMS, *REFUSED, "names"})
            raise ValueError(
                f"csv has the option {spelled!r}, which DuckDB's read_csv does not know{did_you_mean(name, known)}"
            )
        if name in options:
            raise ValueError(f"csv option {name!r} is given twice, once by another name; keep one")
        options[name] = value
    if "nullstr" in options:
        # Alone it would take the place of the empty cell, which is missing in any file.
        listed = options["nullstr"] if isinstance(options["nullstr"], list) else [options["nullstr"]]
        options["nullstr"] = list(dict.fromkeys([*map(str, listed), ""]))
    return CsvOptions(
        reader={name: value for name, value in options.items() if name in OF_THE_READER},
        names=options.get("names"),
        decimal_separator=options.get("decimal_separator", "."),
        thousands=options.get("thousands"),
        date_format=options.get("dateformat"),
        timestamp_format=options.get("timestampformat"),
    )


def check_csv_options(given: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that does not exist, has no effect, or has a value that can't be used."""
    options = csv_options(given)
    names = options.names
    if names is not None and not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
        raise ValueError(f"csv option 'names' is {names!r}; expected a list of the file's columns, e.g. [id, fare]")
    if options.reader.get("header") is False and names is None:
        raise ValueError("csv option 'header' is false, so the columns have no names; list them: csv: {names: [...]}")
    _check_marks(options)
    _check_formats(options)
    _check_reader(options.reader)


def check_formats_have_columns(given: Mapping[str, Any], schema: Mapping[str, str]) -> None:
    """Raise ValueError for a format of values that no declared column has."""
    options = csv_options(given)
    kinds = " ".join(schema.values()).upper()
    for name, wanted, there in (
        ("dateformat", "DATE or TIMESTAMP", options.date_format is None or re.search("DATE|TIMESTAMP", kinds)),
        ("timestampformat", "TIMESTAMP", options.timestamp_format is None or "TIMESTAMP" in kinds),
        ("decimal_separator", "DOUBLE", options.decimal_separator == "." or re.search(_FRACTIONAL, kinds)),
        ("thousands", "BIGINT or DOUBLE", options.thousands is None or re.search(_FRACTIONAL + "|INT", kinds)),
    ):
        if not there:
            raise ValueError(f"csv option {name!r} has no effect here: no column of the schema is a {wanted}")


_FRACTIONAL = "DOUBLE|FLOAT|REAL|DECIMAL|NUMERIC|DEC"


def literal(value: Any) -> str:
    """A value of the YAML as SQL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(str(key))}: {literal(item)}" for key, item in value.items()) + "}"
    return quoted(str(value))


def _check_marks(options: CsvOptions) -> None:
    marks = {"decimal_separator": options.decimal_separator}
    if options.thousands is not None:
        marks["thousands"] = options.thousands
    for name, mark in marks.items():
        if not isinstance(mark, str) or len(mark) != 1 or mark.isalnum() or mark in "+-":
            raise ValueError(f"csv option {name!r} is {mark!r}; expected one character such as ',' or '.'")
    if options.thousands == options.decimal_separator:
        raise ValueError(
            f"csv options 'thousands' and 'decimal_separator' are both {options.thousands!r} (the decimal separator is "
            "'.' by default); set both, e.g. {thousands: '.', decimal_separator: ','}"
        )


def _check_formats(options: CsvOptions) -> None:
    import duckdb

    for name, text in (("dateformat", options.date_format), ("timestampformat", options.timestamp_format)):
        if text is None:
            continue
        with duckdb.connect(config={"threads": 1}) as con:
            try:
                con.execute(f"SELECT try_strptime('', {quoted(str(text))})").fetchall()
            except duckdb.Error as error:
                raise ValueError(
                    f"csv option {name!r} is {text!r}, which is no format of strptime such as '%d/%m/%Y': "
                    f"{str(error).splitlines()[0]}"
                ) from error


def _check_reader(options: Mapping[str, Any]) -> None:
    """Let DuckDB judge the values, over an empty file."""
    import duckdb

    if options.get("compression", "auto") not in ("auto", "none", "gzip", "zstd"):
        raise ValueError(
            f"csv option 'compression' is {options['compression']!r}; expected one of auto, none, gzip and zstd"
        )
    wanted = {name: value for name, value in options.items() if name not in {"compression", "force_not_null"}}
    columns = {"auto_detect": False, "columns": {"a": "VARCHAR", "b": "VARCHAR"}}
    spelled = ", ".join(f"{name} = {literal(value)}" for name, value in (wanted | columns).items())
    with tempfile.NamedTemporaryFile(suffix=".csv") as empty, duckdb.connect(config={"threads": 1}) as con:
        try:
            con.execute(f"SELECT * FROM read_csv({quoted(empty.name)}, {spelled})").fetchall()
        except duckdb.Error as error:
            raise ValueError(f"csv options {dict(wanted)} can't be used: {str(error).splitlines()[0]}") from error
