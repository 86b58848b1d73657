"""`mlops-assets`: the same work without a browser.

A module per group of commands. Commands import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import click

from mlops_assets.cli import (
    champion,
    check,
    data,
    home,
    incidents,
    log,
    periods,
    query,
    relocation,
    servers,
    verification,
)
from mlops_assets.cli.errors import Commands, set_debug


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mlops-assets")
@click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=set_debug,
    help="Show the traceback of an error (also MLOPS_DEBUG=1).",
)
def main() -> None:
    """Models you can leave running.

    Each model turns the raw records of a period (a month or a week) into features, a trained challenger, a champion,
    predictions, a drift report and served predictions. Everything is kept in MLOPS_HOME (default: .mlops/).

    \b
    First steps:
      mlops-assets demo       eight months of NYC green taxi, from raw file to served predictions
      mlops-assets status     what happened in each period
      mlops-assets dev        open it all in Dagster's and MLflow's pages
    """


for command in (
    periods.backfill,
    periods.status,
    periods.demo,
    check.check,
    data.simulate,
    query.sql,
    verification.verify,
    servers.dev,
    home.reset,
    relocation.relocate,
    incidents.incidents,
    champion.champion,
    champion.retrain,
    log.log,
):
    main.add_command(command)
