"""The pages of Dagster, MLflow and Evidently."""

from __future__ import annotations

import click

from mlops_assets.cli.project import open_home


@click.command()
@click.option("--dagster-port", help="Dagster's port.", default=3000, show_default=True)
@click.option("--mlflow-port", help="MLflow's port.", default=5000, show_default=True)
@click.option("--evidently-port", help="Evidently's port.", default=8000, show_default=True)
@click.option("--reports-port", help="The report pages' port.", default=8001, show_default=True)
def dev(dagster_port: int, mlflow_port: int, evidently_port: int, reports_port: int) -> None:
    """Open everything in the browser: Dagster, MLflow, Evidently and the report pages, on this machine only.

    Ctrl-C stops them all.
    """
    from mlops_assets.ownership import in_use
    from mlops_assets.servers.dev import serve

    with in_use(open_home()):
        serve({"dagster": dagster_port, "mlflow": mlflow_port, "evidently": evidently_port, "reports": reports_port})
