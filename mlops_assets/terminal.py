"""Where text meets the terminal: everything that a command prints passes through here.

Text comes from files, declarations, other people and other programs. `visible` removes its secrets and shows control
characters, escape sequences, bidirectional overrides and zero-width characters as `\\x1b`, `\\u202e`, so that no value
can move the cursor, hide a line or colour the terminal; rich's markup in a value is text like any other.
rich is imported when something is printed, so that `--help` answers at once.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mlops_assets import neutral_text
from mlops_assets.redaction import redact, redacted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

Part = str | tuple[str, str]

# Without a terminal there is no width to respect, and a table is no use when its words are cut.
WIDTH_OF_A_FILE = 200
LONGEST_CELL = 500
LONGEST_NOTE = 4000
# A column of sentences that is narrower than this can't be read; its sentences are printed below the table then.
NARROWEST_NOTE = 40


def visible(text: str, *, lines: bool = True, longest: int | None = None) -> str:
    """The text as it may be shown: without secrets, with characters that can't be seen written out.

    Args:
        lines: whether line breaks stay; else they are shown as `\\n`.
        longest: number of characters after which the text is cut, which is said then.
    """
    shown = neutral_text.visible(redact(text), keep="\n\t" if lines else "")
    if longest is not None and len(shown) > longest:
        return f"{shown[:longest]}… ({len(shown):,} characters)"
    return shown


def say(*parts: Part, indent: int = 0, err: bool = False, console: Console | None = None) -> None:
    """Print one line, or the lines of a text; a part may be (text, style). On a terminal it is wrapped at words.

    Args:
        console: that of a progress display, to print above it.
    """
    from rich.padding import Padding

    text, console = _text(parts), console or open_console(err=err)
    # What is piped is not wrapped: whoever reads it looks for whole lines.
    if not console.is_terminal:
        lines = text.plain.split("\n")
        console.print("\n".join(" " * indent + line for line in lines), soft_wrap=True)
    else:
        console.print(Padding(text, (0, 0, 0, indent), expand=False) if indent else text)


def say_lines(lines: Sequence[str], indent: int = 0) -> None:
    """Print each line on its own."""
    for line in lines:
        say(line, indent=indent)


def say_command(command: str, indent: int = 0) -> None:
    """Print a command that is to be copied: on one line, which the terminal wraps and copies as one."""
    open_console().print(" " * indent + visible(command, lines=False), soft_wrap=True)


def heading(text: str) -> None:
    """Print a line in bold."""
    say((text, "bold"))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    note: str | None = None,
    named_by: Sequence[str] = (),
    styles: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Print a table. Numbers stand right; long cells are folded, and cut with a word about it beyond 500 characters.

    Args:
        note: the column that holds sentences. They are never cut; where the terminal is too narrow for them, they are
            printed below the table, each behind the cells that name its row.
        named_by: the columns whose cells name a row; by default the first two.
        styles: of a column, the style of each of its values.
    """
    shown = [[cell_text(value, is_note=name == note) for name, value in zip(columns, row, strict=True)] for row in rows]
    place = columns.index(note) if note is not None else len(columns)
    below = note is not None and _room_for_notes(columns, shown, place) < NARROWEST_NOTE
    kept = [index for index in range(len(columns)) if not (below and index == place)]
    open_console().print(_table(columns, rows, shown, kept, styles or {}))
    if below:
        names = [columns.index(name) for name in named_by or columns[:2]]
        for row in shown:
            if row[place]:
                say((" ".join(row[index] for index in names if row[index]), "bold"), ": ", row[place])


def result_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """The rows as a table of rich, each value as text that can be shown."""
    shown = [[cell_text(value) for value in row] for row in rows]
    return _table(columns, rows, shown, range(len(columns)), {})


def print_json(value: Any) -> None:
    """Print a value as JSON: ASCII only, so that it holds no control character, and without secrets."""
    click.echo(json.dumps(redacted(value), indent=1).replace("\x7f", "\\u007f"))


def print_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows to standard output as CSV (RFC 4180 with line feeds), every value exactly as it is.

    For programs: no value is escaped, shortened or redacted. A spreadsheet takes a cell that begins with =, +, - or @
    for a formula; import such columns as text.
    """
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)


def open_console(*, err: bool = False) -> Console:
    """rich's console on standard output or standard error, with markup and highlighting off."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    plain: Any = {"stderr": err, "markup": False, "highlight": False}
    return Console(**plain) if stream.isatty() else Console(**plain, width=WIDTH_OF_A_FILE)


def print_progress() -> Progress:
    """A display of progress, whose `console` prints above it; to be used as a context manager."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=open_console(),
    )


def waiting(text: str) -> Any:
    """A context manager that shows what is being waited for, on a terminal."""
    return open_console().status(_text([text]))


def cell_text(value: Any, *, is_note: bool = False) -> str:
    """A value as the cell of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return visible(str(value), lines=is_note, longest=LONGEST_NOTE if is_note else LONGEST_CELL)


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    shown: Sequence[Sequence[str]],
    kept: Sequence[int],
    styles: Mapping[str, Mapping[str, str]],
) -> Table:
    from rich.table import Table

    table = Table(header_style="bold")
    for index in kept:
        numbers = bool(rows) and all(_is_number(row[index]) or row[index] is None for row in rows)
        table.add_column(_text([columns[index]]), justify="right" if numbers else "left", overflow="fold")
    for row in shown:
        table.add_row(*(_text([(row[i], styles.get(columns[i], {}).get(row[i], ""))]) for i in kept))
    return table


def _text(parts: Sequence[Part]) -> Text:
    from rich.text import Text

    text = Text()
    for part in parts:
        content, style = (part, "") if isinstance(part, str) else part
        text.append(visible(content), style=style)
    return text


def _room_for_notes(columns: Sequence[str], rows: Sequence[Sequence[str]], note: int) -> int:
    """How wide the column of sentences could be, with all others as wide as they are; plenty where all fit."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, (name, *(row[i] for row in rows)))) for i, name in enumerate(columns)]
    room = open_console().width - sum(width + 3 for i, width in enumerate(widths) if i != note) - 4
    return NARROWEST_NOTE if widths[note] <= room else room


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
