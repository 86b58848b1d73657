"""The champion: which version is in force, and how to change it by hand."""

from __future__ import annotations

import click

from mlops_assets.cli.deciding import decide
from mlops_assets.cli.project import current_user
from mlops_assets.terminal import print_table


@click.group()
def champion() -> None:
    """The version in force: what it is, how it came, and how to change it by hand."""


@champion.command("show")
@click.argument("model")
def show_champion(model: str) -> None:
    """Show the champion of MODEL after its newest period."""
    _print_champions(model, newest_only=True)


@champion.command("history")
@click.argument("model")
def champion_history(model: str) -> None:
    """Show the decision of each period of MODEL."""
    _print_champions(model, newest_only=False)


@champion.command("rollback")
@click.argument("model")
@click.option("--to", "version", default=None, help="The version; by default the one before.")
@click.option("--why", required=True, help="Why.")
@click.option("--by", default=None, help="Who decides; by default the one who is logged in.")
def rollback_champion(model: str, version: str | None, why: str, by: str | None) -> None:
    """Put the version that was champion of MODEL before back in force."""
    from mlops_assets.monitored_model import decisions

    decide(model, lambda lake, store: decisions.rollback(model, lake, store, version, by or current_user(), why))
    _print_champions(model, newest_only=True)


@champion.command("promote")
@click.argument("model")
@click.argument("version")
@click.option("--why", required=True, help="Why.")
@click.option("--by", default=None, help="Who decides; by default the one who is logged in.")
def promote_champion(model: str, version: str, why: str, by: str | None) -> None:
    """Put VERSION of MODEL in force by hand."""
    from mlops_assets.monitored_model import decisions

    decide(model, lambda lake, store: decisions.promote(model, lake, store, version, by or current_user(), why))
    _print_champions(model, newest_only=True)


@click.command()
@click.argument("model")
@click.option("--why", required=True, help="Why the model should be trained again.")
@click.option("--by", default=None, help="Who asks; by default the one who is logged in.")
def retrain(model: str, why: str, by: str | None) -> None:
    """Train the newest period of MODEL again, for a reason that is kept with the version."""
    from mlops_assets.monitored_model import decisions

    decide(model, lambda lake, store: decisions.retrain(model, lake, store, by or current_user(), why))
    _print_champions(model, newest_only=True)


def _print_champions(model: str, *, newest_only: bool) -> None:
    from mlops_assets.home import Home
    from mlops_assets.lake.store import Lake

    lake = Lake(Home.from_env().lake_url)
    periods = lake.periods(model, "champion")
    if not periods:
        raise click.ClickException(f"{model} has no decision yet. Try: mlops-assets backfill {model} FROM..TO")
    rows = []
    for period in periods[-1:] if newest_only else periods:
        decision = lake.find(model, "champion", period)
        if decision is None or decision.damaged:
            rows.append([period, "damaged", None, None, None if decision is None else decision.damaged])
            continue
        facts = decision.facts
        rows.append([period, facts["decision"], facts["version"], facts["previous_version"], facts["reason"]])
    print_table(["period", "decision", "version", "version before", "reason"], rows, note="reason")
