"""Opening a CSV file: every cell as text, in a table with the rows' numbers, and the lines that are no rows."""

from __future__ import annotations

import collections
import csv
import io
import itertools
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlops_assets.lake.store import identifier
from mlops_assets.sources.csv_options import csv_options, literal
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.failures import is_of_the_file
from mlops_assets.sources.problems import Problem, cut_short, tolerated_rows, unreadable
from mlops_assets.sources.scan import BadLine, FileColumn, Scan

if TYPE_CHECKING:
    import duckdb

SHOWN_CHARACTERS = 1_000
_ONE_CHARACTER = "\x1f"  # stands for a delimiter of several characters, which Python's reader does not know


def open_csv(source: Source, path: Path, literal_path: str, con: duckdb.DuckDBPyConnection) -> Scan | Problem:
    """The rows of a CSV file as a temporary table of `con`.

    Lines that can't be read are left out and listed, as long as they are within the source's tolerance.

    Raises duckdb.Error when DuckDB can't read the file at all.
    """
    import duckdb

    options, names = _reader_options(source, path)
    if not names:
        return Problem(
            "unreadable",
            None,
            f"{path.name}: no line with column names",
            "a CSV file with a header line",
            fix="Fetch the file again, or set csv: {skip: …} to the number of lines before the header.",
        )
    if any("\0" in name for name in names):
        return Problem(
            "unreadable",
            None,
            f"{path.name}: zero bytes between the characters of its header, as UTF-16 has them",
            f"a CSV file in {options.get('encoding', 'utf-8')}",
            fix="Set the source's csv options to what the file has, e.g. {encoding: utf-16}, or convert it to UTF-8.",
        )
    table = identifier(f"lines of {uuid.uuid4().hex}")
    columns = tuple(
        FileColumn(name or alias, alias, "VARCHAR") for name, alias in zip(names, options["columns"], strict=True)
    )
    try:
        rows = _create_table(table, literal_path, options, con)
    except duckdb.Error as error:
        if not is_of_the_file(error) or not source.tolerance:
            raise
        return _without_bad_lines(source, path, literal_path, Scan(table, columns, None), options, error, con)
    lines = _lost_lines(path, options, Scan(table, columns, rows), rows, con) if not rows else 0
    if lines > 0:
        found = f"{path.name}: {lines:,} lines after the header, and no row in them"
        return Problem("unreadable", None, found, "rows", fix="Set the source's csv options to what the file has.")
    return Scan(table, columns, rows, open_end=_has_open_end(path, options))


def _create_table(name: str, literal_path: str, options: dict[str, Any], con: duckdb.DuckDBPyConnection) -> int:
    # As a table, because DuckDB would push a TRY_CAST into read_csv, where it raises; beyond the memory limit it
    # spills to disk.
    spelled = ", ".join(f"{option} = {literal(value)}" for option, value in options.items())
    made = con.execute(
        f"CREATE TEMP TABLE {name} AS SELECT *, row_number() OVER () - 1 AS __row "
        f"FROM read_csv({literal_path}, {spelled})"
    )
    return int(made.fetchall()[0][0])


def _reader_options(source: Source, path: Path) -> tuple[dict[str, Any], list[str]]:
    """What read_csv gets, and the names of the columns as the file or the declaration spells them."""
    # RFC 4180 unless said otherwise, and nothing is guessed: DuckDB's sniffer takes half a second for 200 columns,
    # again for every query, and steps over the lines at the top that don't fit its guess.
    given = csv_options(source.csv)
    names = given.names
    delimiter = "\t" if ".tsv" in source.path.lower() else ","
    options: dict[str, Any] = {
        "header": names is None,
        "delim": delimiter,
        "quote": '"',
        "escape": '"',
        "skip": 0,
        **given.reader,
    }
    first = _first_record(path, options)
    if names is None:
        names, options["skip"] = first.cells, first.before
    if first.line_end is not None:
        options["new_line"] = first.line_end
    columns = dict.fromkeys(_distinct(names), "VARCHAR")
    return options | {"auto_detect": False, "columns": columns, "hive_partitioning": False}, names


@contextmanager
def _text(path: Path, options: dict[str, Any]) -> Iterator[io.TextIOWrapper]:
    compression = options.get("compression", "auto")
    known = {"auto": "detect", "none": None}.get(compression, compression)
    encoding = str(options.get("encoding", "utf-8"))
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in {"utf-8", "utf8"} else encoding
    with (
        pa.input_stream(str(path), compression=known) as content,
        io.TextIOWrapper(content, encoding=encoding, errors="replace", newline="") as text,
    ):
        yield text


@dataclass(frozen=True)
class _Record:
    """The first record of a file: its cells, and what read_csv has to know to find it.

    Attributes:
        cells: none for a file without a record.
        before: number of lines before it, comments aside, as read_csv's `skip` counts them.
        line_end: how its line ends, where another kind of line end is within it: DuckDB takes the first it sees for
            that of all lines, and then finds no row at all.
    """

    cells: list[str]
    before: int
    line_end: str | None


def _first_record(path: Path, options: dict[str, Any]) -> _Record:
    delimiter, quote, escape = (str(options[name]) for name in ("delim", "quote", "escape"))
    before = 0
    taken: list[str] = []

    def lines(text: Iterator[str]) -> Iterator[str]:
        nonlocal before
        for line in text:
            if not taken and (before < int(options["skip"]) or not line.strip("\r\n")):
                before += 1
                continue
            taken.append(line)
            yield line.replace(delimiter, _ONE_CHARACTER) if len(delimiter) > 1 else line

    with _text(path, options) as text:
        reader = csv.reader(
            lines(_without_comments(text, options)),
            delimiter=delimiter if len(delimiter) == 1 else _ONE_CHARACTER,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            doublequote=escape in ("", quote),
            escapechar=escape if escape not in ("", quote) else None,
        )
        try:
            cells = next(reader, [])
        except csv.Error:  # a cell without end
            cells = []
    names = [cell.replace(_ONE_CHARACTER, delimiter).strip() for cell in cells]
    ends = [line[len(line.rstrip("\r\n")) :] for line in taken]
    within = any(mark in line.rstrip("\r\n") for line in taken for mark in "\r\n") or len(taken) > 1
    return _Record(names, before, {"\r\n": r"\r\n", "\n": r"\n", "\r": r"\r"}.get(ends[-1]) if within else None)


def _without_comments(lines: Iterable[str], options: dict[str, Any]) -> Iterator[str]:
    comment = options.get("comment")
    return (line for line in lines if not (comment and line.startswith(comment)))


def _distinct(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    distinct = []
    for n, given in enumerate(names):
        name = given or f"column{n}"
        while name.lower() in seen:
            name += "_"
        seen.add(name.lower())
        distinct.append(name)
    return distinct


def _without_bad_lines(
    source: Source,
    path: Path,
    literal_path: str,
    scan: Scan,
    options: dict[str, Any],
    error: duckdb.Error,
    con: duckdb.DuckDBPyConnection,
) -> Scan | Problem:
    import duckdb

    suffix = uuid.uuid4().hex
    rejects, scans = f"rejects_{suffix}", f"scans_{suffix}"
    lenient = options | {"store_rejects": True, "rejects_table": rejects, "rejects_scan": scans}
    try:
        rows = _create_table(scan.sql, literal_path, lenient, con)
    except duckdb.Error as again:
        if not is_of_the_file(again):
            raise
        raise error from again
    found = con.execute(
        f"SELECT line::BIGINT, arg_min(csv_line, column_idx), arg_min(error_message, column_idx) FROM {rejects} "
        "GROUP BY line ORDER BY line"
    ).fetchall()
    for table in (rejects, scans):
        con.execute(f"DROP TABLE {table}")
    open_end = _has_open_end(path, options)
    if found and open_end and _last_line(path, options) == str(found[-1][1]).rstrip("\r\n").rpartition("\n")[2]:
        con.execute(f"DROP TABLE {scan.sql}")
        return cut_short(path.name, str(found[-1][1]))
    bad = max(len(found), _lost_lines(path, options, scan, rows, con))
    if bad > tolerated_rows(source.tolerance, rows + bad):
        con.execute(f"DROP TABLE {scan.sql}")
        return unreadable("csv", path, error)
    lines = tuple(
        BadLine(line, str(text or "")[:SHOWN_CHARACTERS], " ".join(str(reason).split())) for line, text, reason in found
    )
    return Scan(scan.sql, scan.columns, rows, lines, bad, open_end)


def _has_open_end(path: Path, options: dict[str, Any]) -> bool:
    """Whether a file does not end with a line end; False for a compressed one, which says itself that it is cut."""
    if path.suffix in (".gz", ".zst") or options.get("compression") in ("gzip", "zstd"):
        return False
    width = 2 if str(options.get("encoding", "")).lower().startswith("utf-16") else 1
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - width, 0))
        return not set(file.read()) & set(b"\r\n")


def _last_line(path: Path, options: dict[str, Any]) -> str:
    with _text(path, options) as text:
        last = collections.deque(text, maxlen=1)
    return last[0].rstrip("\r\n")


def _lost_lines(path: Path, options: dict[str, Any], scan: Scan, rows: int, con: duckdb.DuckDBPyConnection) -> int:
    """How many lines of the file are in none of the rows.

    A quote that is never closed makes one single error of all lines after it, so errors alone say too little.
    """
    with _text(path, options) as text:
        after = itertools.islice(_without_comments(text, options), int(options["skip"]), None)
        lines = sum(1 for line in after if line.strip("\r\n"))
    breaks = " + ".join(
        f"coalesce(length({column.sql}) - length(replace({column.sql}, chr(10), '')), 0)" for column in scan.columns
    )
    ((within,),) = con.execute(f"SELECT coalesce(sum({breaks}), 0) FROM {scan.sql}").fetchall()
    return lines - int(bool(options["header"])) - rows - int(within)
