"""What commands open: the project's definitions, its Dagster instance, the incident store; and who runs them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import dagster as dg

    from mlops_assets.home import Home
    from mlops_assets.incidents.store import Store


def open_project() -> tuple[dg.Definitions, dg.DagsterInstance]:
    """The project's definitions and Dagster instance; DAGSTER_HOME is set before Dagster reads it."""
    open_home().prepare_dagster()
    from mlops_assets.monitored_model.backfill import open_instance

    return load_definitions(), open_instance()


def load_definitions() -> dg.Definitions:
    """The project's definitions. A wrong declaration is shown with its file and line, without a stack."""
    from mlops_assets.declaration.yaml_documents import DeclarationError
    from mlops_assets.definitions import defs
    from mlops_assets.monitored_model.dagster_internals import why_not_loaded

    try:
        return defs()
    except DeclarationError as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:
        why = why_not_loaded(error)
        if why is None:
            raise
        raise click.ClickException(why) from error


def open_home() -> Home:
    """MLOPS_HOME, which may not be there yet; a file, or a folder that can't be read, is refused."""
    from mlops_assets.home import Home

    home = Home.from_env()
    if home.root.exists() and not home.root.is_dir():
        raise click.ClickException(f"MLOPS_HOME is {home.root}, which is a file; set it to a folder")
    if home.root.exists() and not os.access(home.root, os.R_OK | os.X_OK):
        raise click.ClickException(
            f"MLOPS_HOME is {home.root}, which {current_user()} may not read; give the right, or set another folder"
        )
    return home


def open_store() -> Store:
    from mlops_assets.incidents.store import Store

    return Store(open_home().store_url)


def current_user() -> str:
    import getpass

    return getpass.getuser()
