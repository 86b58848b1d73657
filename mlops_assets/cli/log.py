"""The log of decisions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mlops_assets.cli.project import open_store
from mlops_assets.terminal import print_json, print_table, say

if TYPE_CHECKING:
    from mlops_assets.incidents.store import Decision, Store


@click.command()
@click.argument("model", required=False)
@click.option("--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]), help="UTC.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of a table.")
def log(model: str | None, since: datetime | None, as_json: bool) -> None:
    """Show every decision, by the platform or by a person: when, who, what, why, before and after.

    The log is append only. This is the view monitoring.decisions. MODEL limits it to one model.

    \b
    Examples:
      mlops-assets log green_taxi
      mlops-assets log green_taxi --since 2026-01-31 --json
    """
    from mlops_assets.home import Home
    from mlops_assets.lake.store import Lake
    from mlops_assets.monitored_model.decision_log import catch_up

    lake, store = Lake(Home.from_env().lake_url), open_store()
    models = lake.models()
    if model is not None and model not in models and not store.decisions(model):
        known = ", ".join(models) or "nothing yet"
        raise click.ClickException(f"nothing was decided about {model!r}; there are decisions about {known}")
    for name in models if model is None else {model} & set(models):
        catch_up(lake, store, name)
        _notice_aliases(store, name)
    found = store.decisions(model, since=None if since is None else since.replace(tzinfo=UTC))
    if as_json:
        print_json([_as_object(decision) for decision in found])
    elif not found:
        say("Nothing was decided" + ("." if since is None else f" since {since:%Y-%m-%d %H:%M} UTC."))
    else:
        columns = ["at (UTC)", "model", "period", "what", "before", "after", "who", "why"]
        print_table(columns, [_row(decision) for decision in found], note="why")


def _notice_aliases(store: Store, model: str) -> None:
    from mlops_assets.home import Home
    from mlops_assets.monitored_model.aliases import notice
    from mlops_assets.training import tracking

    home = Home.from_env()
    if store.decisions(model, subject="alias"):
        tracking.initialise(home.tracking_uri, home.artifacts)
        notice(store, tracking.client(home.tracking_uri), model)


def _as_object(decision: Decision) -> dict[str, object]:
    return {**asdict(decision), "at": decision.at.isoformat()}


def _row(decision: Decision) -> list[object]:
    what = f"{decision.subject} {decision.action}" + (" (reconstructed)" if decision.reconstructed else "")
    return [
        f"{decision.at:%Y-%m-%d %H:%M:%S}",
        decision.model,
        decision.period,
        what,
        decision.before,
        decision.after,
        decision.actor,
        decision.why,
    ]
