"""Prints the report on one period, for `status MODEL PERIOD` and `incidents show MODEL PERIOD`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlops_assets.cli.project import open_store
from mlops_assets.terminal import heading, say, say_command

if TYPE_CHECKING:
    from mlops_assets.lake.store import Lake

# What to do next ends in a command, which gets a line of its own.
COMMAND = ": mlops-assets "


def print_period_report(lake: Lake, model: str, period: str) -> None:
    """Print one period in words. Raises ClickException for one that nothing was made of."""
    from mlops_assets.period_report import period_report

    try:
        sections = period_report(lake, open_store(), model, period)
    except LookupError as error:
        raise click.ClickException(str(error)) from error
    heading(f"{model} {period}")
    for section in sections:
        say((f"{section.title}", "bold"))
        for line in section.lines:
            what, found, command = line.partition(COMMAND)
            if found:
                say(f"{what}:", indent=2)
                say_command(f"mlops-assets {command}", indent=4)
            else:
                say(line, indent=2)
