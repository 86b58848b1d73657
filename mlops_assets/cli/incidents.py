"""Incidents: what is open, and what people decide about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlops_assets.cli.deciding import decide
from mlops_assets.cli.period_report import print_period_report
from mlops_assets.cli.project import current_user, open_home, open_store
from mlops_assets.terminal import print_table, say, say_command

if TYPE_CHECKING:
    from mlops_assets.incidents.store import Incident, Store
    from mlops_assets.lake.store import Lake


@click.group()
def incidents() -> None:
    """What went wrong, what is still open, and what people decided."""


@incidents.command("list")
@click.argument("model", required=False)
@click.option("--all", "everything", is_flag=True, help="Resolved ones too.")
def list_incidents(model: str | None, everything: bool) -> None:
    """List the open incidents, of one MODEL or of all."""
    store = open_store()
    known = store.incidents(model=model)
    found = [incident for incident in known if everything or incident.state == "open"]
    resolved = sum(incident.state == "resolved" for incident in known)
    if found:
        columns = ["id", "model", "period", "kind", "verdict", "since", "state", "opened", "reason"]
        print_table(columns, [_row(incident) for incident in found], note="reason")
    else:
        say("No incident." if everything else "No open incident.")
    if resolved:
        all_of_them = "" if everything else ": mlops-assets incidents list --all"
        say(f"{resolved} resolved{all_of_them}")


def _row(incident: Incident) -> list[object]:
    reasons = [str(reason["sentence"]) for reason in incident.reasons if reason.get("sentence")]
    more = f" (and {len(reasons) - 1} more: mlops-assets incidents show {incident.id})" if len(reasons) > 1 else ""
    return [
        *(str(incident.id), incident.model, incident.period, incident.kind, incident.verdict, incident.since),
        *(incident.state, f"{incident.opened_at:%Y-%m-%d %H:%M}", f"{reasons[0]}{more}" if reasons else ""),
    ]


@incidents.command("show")
@click.argument("what", metavar="NUMBER | MODEL PERIOD", nargs=-1, required=True)
def show_incident(what: tuple[str, ...]) -> None:
    """Show incident NUMBER with its reasons and history, or all about a PERIOD of MODEL with its incidents.

    \b
    Examples:
      mlops-assets incidents show 3
      mlops-assets incidents show green_taxi 2022-12
    """
    store = open_store()
    if len(what) == 1 and what[0].isdecimal():
        _print_incident(store, int(what[0]))
        return
    if len(what) != 2:
        raise click.UsageError(f"found {' '.join(what)!r}; expected the number of an incident, or a model and a period")
    from mlops_assets.lake.store import Lake

    model, period = what
    found = store.incidents(model=model, period=period)
    lake = Lake(open_home().lake_url)
    report = lake.find(model, "drift_report", period)
    said = None
    if period in lake.periods(model, "features"):
        print_period_report(lake, model, period)
        said = None if report is None or report.damaged else report.facts.get("report_digest")
    elif not found:
        raise click.ClickException(
            f"{model} {period} has no incident, and nothing was made of it. Try: mlops-assets incidents list --all"
        )
    for incident in found:
        _print_incident(store, incident.id, reasons=said is None or incident.evidence != said)


def _print_incident(store: Store, number: int, *, reasons: bool = True) -> None:
    from mlops_assets.incidents.store import UnknownIncident
    from mlops_assets.lake.store import Lake
    from mlops_assets.monitored_model.situation import situation

    try:
        incident = store.incident(number)
    except UnknownIncident as error:
        raise click.ClickException(str(error)) from error
    say(f"Incident {incident.id}: {incident.kind} in {incident.model} {incident.period}, {incident.state}")
    say(f"verdict {incident.verdict}" + (f", since {incident.since}" if incident.since else ""))
    for reason in incident.reasons if reasons else ():
        say(f"  - {reason['sentence']}")
    say("now:")
    for line in situation(Lake(open_home().lake_url), store, incident):
        said, colon, command = line.partition(": mlops-assets ")
        say(f"  {said}{':' if colon else ''}")
        if colon:
            say_command(f"mlops-assets {command}", indent=4)
    say("history:")
    for event in incident.history:
        who = f" by {event.by}: {event.why}" if event.by else ""
        say(f"  {event.at:%Y-%m-%d %H:%M:%S} UTC  {event.event}{who}")


@incidents.command("resolve")
@click.argument("number", type=int)
@click.option("--why", required=True, help="What was found and done.")
@click.option("--by", default=None, help="Who resolves it; by default the one who is logged in.")
def resolve_incident(number: int, why: str, by: str | None) -> None:
    """Close incident NUMBER. It does not change what is served."""
    from mlops_assets.incidents.store import AlreadyResolved, UnknownIncident

    try:
        closed = open_store().resolve(number, by or current_user(), why)
    except (UnknownIncident, AlreadyResolved, ValueError) as error:
        raise click.ClickException(str(error)) from error
    say(f"Incident {closed.id} is resolved.")


@incidents.command("accept")
@click.argument("model")
@click.argument("period")
@click.option("--digest", required=True, help="Digest of the very drift report, as `incidents show` prints it.")
@click.option("--why", required=True, help="Why the champion can be trusted all the same.")
@click.option("--by", default=None, help="Who accepts it; by default the one who is logged in.")
def accept_period(model: str, period: str, digest: str, why: str, by: str | None) -> None:
    """Let the champion serve a severe PERIOD of MODEL, in spite of its drift report."""
    from mlops_assets.monitored_model import decisions

    def accept(lake: Lake, store: Store) -> object:
        return decisions.accept(model, lake, store, period, digest, by or current_user(), why)

    decide(model, accept, period=period, done="accepted")


@incidents.command("withdraw")
@click.argument("model")
@click.argument("period")
@click.option("--why", required=True, help="Why the champion can't be trusted after all.")
@click.option("--by", default=None, help="Who withdraws it; by default the one who is logged in.")
def withdraw_accept(model: str, period: str, why: str, by: str | None) -> None:
    """Take the accept of PERIOD of MODEL back: the verdict counts again, and plan B serves."""
    from mlops_assets.monitored_model import decisions

    def withdraw(lake: Lake, store: Store) -> object:
        return decisions.withdraw(model, lake, store, period, by or current_user(), why)

    decide(model, withdraw, period=period, done="no longer accepted")
