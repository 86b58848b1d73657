"""The log of decisions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mlops_assets.cli.champion import IN_WORDS, moved_aliases
from mlops_assets.cli.project import open_store
from mlops_assets.terminal import print_json, say

if TYPE_CHECKING:
    from mlops_assets.incidents.store import Decision


@click.command()
@click.argument("model", required=False)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    metavar="WHEN",
    help="From this day or moment (UTC) on: 2026-01-31, 2026-01-31T12:30.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of lines.")
def log(model: str | None, since: datetime | None, as_json: bool) -> None:
    """Show every decision: when (UTC), what, before and after, by whom, why.

    Those of the platform and those of people; MODEL limits them to one model. The log is append only. This is the view
    monitoring.decisions.

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
        if store.decisions(name, subject="alias"):
            moved_aliases(name, store)
    found = store.decisions(model, since=None if since is None else since.replace(tzinfo=UTC))
    if as_json:
        print_json([_as_object(decision) for decision in found])
    elif not found:
        say("Nothing was decided" + ("." if since is None else f" since {since:%Y-%m-%d %H:%M} UTC."))
    else:
        for decision in found:
            _print_decision(decision)
        if any(decision.reconstructed for decision in found):
            say("* added afterwards, from what the lake and the incident store still knew")


def _as_object(decision: Decision) -> dict[str, object]:
    return {**asdict(decision), "at": decision.at.isoformat()}


def _print_decision(decision: Decision) -> None:
    """Two lines: what was decided when, and by whom and why."""
    mark = " *" if decision.reconstructed else ""
    action = IN_WORDS.get(decision.action, decision.action)
    if (decision.subject, decision.action) == ("served", "none"):
        action = "nothing yet"
    change = " → ".join(one for one in (decision.before, decision.after) if one is not None)
    say(
        (f"{decision.at:%Y-%m-%d %H:%M:%S}{mark}", "bold"),
        f"  {decision.model} {decision.period}  {decision.subject} {action}",
        f": {change}" if change else "",
    )
    say(f"by {decision.actor}: {decision.why}", indent=4)
