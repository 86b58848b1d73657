"""The folder that holds everything generated."""

from __future__ import annotations

import click

from mlops_assets.terminal import say


@click.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
def reset(yes: bool) -> None:
    """Delete everything that was made: lake, models, runs, reports. Sources in data/ stay."""
    from mlops_assets.home import Home

    home = Home.from_env()
    found = home.generated()
    if not found:
        say(f"There is nothing to delete in {home.root}.")
        return
    if not yes:
        listed = ", ".join(path.name for path in found)
        click.confirm(f"Delete {listed} in {home.root}? Models and history can't be brought back.", abort=True)
    home.reset()
    say(f"Deleted. {home.root} is empty again.")
