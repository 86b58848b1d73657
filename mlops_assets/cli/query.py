"""The results in SQL."""

from __future__ import annotations

import sys

import click

from mlops_assets.cli.project import open_home
from mlops_assets.terminal import print_csv, print_table, say


@click.command()
@click.argument("query")
def sql(query: str) -> None:
    """Ask the results in SQL (DuckDB): a table on a terminal, CSV when piped.

    One SELECT (or EXPLAIN of one) over the views; no other file is opened, nothing is written.

    \b
    Views, each with a column `period`:
      <model>.champions, challengers, drift, performance, predictions, served_predictions,
      fallback_predictions, features, profile, raw_<records>;
      monitoring.periods, monitoring.incidents, monitoring.alerts, monitoring.decisions
    Examples:
      mlops-assets sql "select period, verdict, gate from monitoring.periods"
      mlops-assets sql "select period, metric, value from green_taxi.performance where source = 'served'
                        and metric = 'auc' and segment is null order by period" > auc.csv
    """
    import warnings

    import duckdb

    from mlops_assets.lake.connection import DamagedWarning
    from mlops_assets.lake.statements import StatementRefused, named_tables, require_select
    from mlops_assets.monitoring import connect

    open_home()
    try:
        with duckdb.connect(config={"threads": 1}) as parser:
            statement = require_select(parser, query, "the query", explain=True)
            named = named_tables(parser, statement, "the query")
        with warnings.catch_warnings(record=True) as left_out:
            warnings.simplefilter("always", DamagedWarning)
            con = connect(verify=named)
        for warning in left_out:
            say(f"Warning: {warning.message}", err=True)
        with con:
            result = con.sql(statement)
            columns, rows = list(result.columns), result.fetchall()
    except (duckdb.Error, StatementRefused) as error:
        raise click.ClickException(str(error)) from error
    if sys.stdout.isatty():
        print_table(columns, rows)
    else:
        print_csv(columns, rows)
