"""A home that was moved or copied."""

from __future__ import annotations

import click

from mlops_assets.cli.project import open_home
from mlops_assets.terminal import say


@click.command()
def relocate() -> None:
    """Let MLflow's database lead to the artifacts in MLOPS_HOME, after that folder was moved or copied.

    mlops-assets itself finds the models of a moved home without it; MLflow's own pages and programs don't. It may be
    run again at any time: locations that are right, or outside of any home, stay. Stop `mlops-assets dev` before.

    \b
    Example:
      mlops-assets relocate
    """
    from mlops_assets.training.artifacts import relocate as rewrite

    home = open_home()
    try:
        done = rewrite(home.tracking_uri, home.artifacts)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    for table in done:
        say(f"{table.table}: {table.rows:,} location{'' if table.rows == 1 else 's'} rewritten")
    say(f"MLflow's locations lead to {home.artifacts}" + ("." if done else " already; nothing was changed."))
