"""What commands open: the project's definitions, its Dagster instance, the incident store; and who runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import dagster as dg

    from mlops_assets.incidents.store import Store


def open_project() -> tuple[dg.Definitions, dg.DagsterInstance]:
    """The project's definitions and Dagster instance; DAGSTER_HOME is set before Dagster reads it."""
    from mlops_assets.home import Home

    Home.from_env().prepare_dagster()
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


def open_store() -> Store:
    from mlops_assets.home import Home
    from mlops_assets.incidents.store import Store

    return Store(Home.from_env().store_url)


def current_user() -> str:
    import getpass

    return getpass.getuser()
