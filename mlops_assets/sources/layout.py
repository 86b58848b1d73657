"""How a CSV file is laid out: its encoding, its delimiter and the lines before its header, as `csv` options.

A guess for whoever declares a source, from the whole file (encoding) and its first lines. Reading guesses nothing.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

DELIMITERS = (",", ";", "\t", "|")
LINES = 300
CHUNK = 1 << 20


class LayoutError(ValueError):
    """A file that is not laid out as CSV, as far as can be told."""


def csv_layout(path: Path) -> dict[str, Any]:
    """The `csv` options that a file needs: `encoding`, `delim`, `skip`; those at their default are left out."""
    encoding = _encoding(path)
    with _bytes(path) as content:
        text = io.TextIOWrapper(content, encoding=encoding or "utf-8-sig", errors="replace", newline="")
        head = "".join(line for line, _ in zip(text, range(LINES), strict=False))
    if not head.strip():
        raise LayoutError(f"{path.name} is empty; expected a CSV file with a header line")
    default = "\t" if ".tsv" in path.name.lower() else ","
    found = {mark: _records(head, mark) for mark in dict.fromkeys((default, *DELIMITERS))}
    # A delimiter that splits the header too, before one that splits only what is below it, as a decimal comma would.
    best = max(found, key=lambda mark: (found[mark][0] > 1, -found[mark][1], found[mark][0]))
    width, skip = found[best]
    options = {"encoding": encoding, "delim": best if best != default and width > 1 else None, "skip": skip or None}
    return {name: value for name, value in options.items() if value is not None}


def _bytes(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression="detect")


def _encoding(path: Path) -> str | None:
    """`utf-16` by its mark, None for UTF-8, else `latin-1`, which every file can be read as."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _bytes(path) as content:
        chunk = content.read(CHUNK)
        if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        try:
            while chunk:
                decoder.decode(chunk)
                chunk = content.read(CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return None


def _records(head: str, delimiter: str) -> tuple[int, int]:
    """How many cells most records have, when almost all have as many (else 1); and the lines before the first such."""
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
    widths, lines = [], []
    before = 0
    try:
        for cells in reader:
            if cells:
                widths.append(len(cells))
                lines.append(before)
            before = reader.line_num
    except csv.Error:
        return 1, 0
    if not widths:
        return 1, 0
    ((width, count),) = Counter(widths).most_common(1)
    first = widths.index(width)
    # The last record may be cut off.
    if width == 1 or count < 0.9 * (len(widths) - first - 1):
        return 1, 0
    return width, lines[first]
