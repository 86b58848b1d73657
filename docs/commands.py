"""Write the commands of docs/cli.md anew from the commands themselves.

    python docs/commands.py            # writes
    python docs/commands.py --check    # exits with 1 when the page is out of date

What stands between `<!-- commands -->` and `<!-- /commands -->` is replaced; the rest of the page is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click

from mlops_assets.cli import main as program

PAGE = Path(__file__).with_name("cli.md")
NAME = "mlops-assets"
BEGIN, END = "<!-- commands -->\n", "<!-- /commands -->"
VERBATIM = "\b"  # click's mark before a paragraph whose lines stay as they are


def reference() -> str:
    """All commands in Markdown: an overview, then a section for each with its usage, text, options and examples."""
    commands = list(every_command(program, NAME))
    overview = ["| command | what it does |", "| --- | --- |"]
    overview += [f"| [`{name}`](#{_anchor(name)}) | {cell(_first_line(command))} |" for name, command in commands]
    return "\n".join(overview) + "\n\n" + "\n".join(_section(name, command) for name, command in commands)


def every_command(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """The commands below a group by their whole names, in the order in which `--help` lists them."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    for below in command.list_commands(click.Context(command)):
        yield from every_command(command.commands[below], f"{name} {below}")


def examples(command: click.Command) -> list[str]:
    """The command lines that a command's help gives as examples, each on one line."""
    found: list[str] = []
    for line in _verbatim(command):
        if line.strip().startswith(f"{NAME} "):
            found.append(line.strip())
        elif found and found[-1].count('"') % 2:  # a quoted query that goes on
            found[-1] += f" {line.strip()}"
    return found


def page(text: str) -> str:
    """The page with its commands as they are now."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        sys.exit(f"{PAGE} has no place for the commands: {BEGIN.strip()} … {END}")
    return f"{before}{BEGIN}{reference()}{END}{after}"


def cell(text: str) -> str:
    """Text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"### {name.removeprefix(f'{NAME} ')}", "", "```", usage, "```", "", *_prose(command)]
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        lines += ["| option | meaning |", "| --- | --- |"]
        lines += [f"| `{cell(_spelling(option, context))}` | {cell(_meaning(option, context))} |" for option in options]
        lines.append("")
    if block := _verbatim(command):
        lines += ["```", *block, "```", ""]
    return "\n".join(lines) + "\n"


def _paragraphs(command: click.Command) -> list[str]:
    return cleandoc(command.help or "").split("\n\n")


def _prose(command: click.Command) -> list[str]:
    return [line for text in _paragraphs(command) if not text.startswith(VERBATIM) for line in (text, "")]


def _verbatim(command: click.Command) -> list[str]:
    blocks = [text.removeprefix(VERBATIM).strip("\n") for text in _paragraphs(command) if text.startswith(VERBATIM)]
    return [line for block in blocks for line in block.split("\n")]


def _first_line(command: click.Command) -> str:
    return command.get_short_help_str(limit=400)


def _spelling(option: click.Option, context: click.Context) -> str:
    """The option's name with what it takes: `--rows INTEGER`."""
    names = ", ".join(option.opts)
    return names if option.is_flag else f"{names} {option.make_metavar(context).removesuffix(' RANGE')}"


def _meaning(option: click.Option, context: click.Context) -> str:
    said = [option.help or ""]
    if isinstance(option.type, click.IntRange) and option.type.min is not None:
        said.append(f"At least {option.type.min}.")
    if option.required:
        said.append("Required.")
    default: Any = option.get_default(context)
    if option.show_default:
        said.append(f"Default: {default}.")
    return " ".join(text for text in said if text)


def _anchor(name: str) -> str:
    return name.removeprefix(f"{NAME} ").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the page is out of date")
    check = parser.parse_args().check
    now = PAGE.read_text()
    wanted = page(now)
    if check and now != wanted:
        sys.exit(f"{PAGE} is out of date: python docs/commands.py")
    if not check:
        PAGE.write_text(wanted)


if __name__ == "__main__":
    main()
