"""The results in SQL."""

from __future__ import annotations

import sys

import click

from mlops_assets.cli.project import open_home
from mlops_assets.terminal import print_csv, print_table


@click.command()
@click.argument("query")
def sql(query: str) -> None:
    """Ask the results in SQL (DuckDB): a table on a terminal, CSV when piped.

    \b
    Views, each with a column `period`:
      <model>.champions, challengers, drift, performance, predictions, served_predictions,
      fallback_predictions, features, profile, raw_<records>;
      monitoring.periods, monitoring.incidents, monitoring.alerts, monitoring.decisions
    Examples:
      mlops-assets sql "select period, verdict, gate from monitoring.periods"
      mlops-assets sql "select period, value from green_taxi.performance where metric = 'auc'" > auc.csv
    """
    import duckdb

    from mlops_assets.monitoring import connect

    open_home()
    with connect() as con:
        try:
            result = con.sql(query)
            if result is None:
                return
            columns, rows = list(result.columns), result.fetchall()
        except duckdb.Error as error:
            raise click.ClickException(str(error)) from error
    if sys.stdout.isatty():
        print_table(columns, rows)
    else:
        print_csv(columns, rows)
