"""`mlops-assets`: the same work without a browser.

Commands import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dagster as dg
    from rich.table import Table

    from mlops_assets.incidents.store import Store
    from mlops_assets.lake.store import Lake
    from mlops_assets.monitored_model.backfill import PeriodRunResult
    from mlops_assets.monitoring import PeriodStatus
    from mlops_assets.simulation.batches import Batch, SimulatedModel

DEFS = Path(__file__).parent / "defs"
DEMO_MODEL = "green_taxi"
DEMO_PERIODS = "2022-08..2023-03"
VERDICT_STYLE = {"ok": "green", "warning": "yellow", "severe": "bold red", "none": "dim"}
OUTCOME_STYLE = {"success": "green", "withheld": "yellow", "failed": "bold red"}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mlops-assets")
def main() -> None:
    """Models you can leave running.

    Each model turns the raw records of a period (a month or a week) into features, a trained challenger, a champion,
    predictions, a drift report and served predictions. Everything is kept in MLOPS_HOME (default: .mlops/).

    \b
    First steps:
      mlops-assets demo       eight months of NYC green taxi, from raw file to served predictions
      mlops-assets status     what happened in each period
      mlops-assets dev        open it all in Dagster's and MLflow's pages
    """


@main.command()
@click.argument("model")
@click.argument("periods", metavar="FROM..TO")
@click.option("--trials", type=click.IntRange(min=1), help="Trials of each search, instead of the declaration's.")
def backfill(model: str, periods: str, trials: int | None) -> None:
    """Make the periods FROM..TO of MODEL, in order.

    Each period is a run that Dagster's pages show. A period that already was made is made again; unchanged data reuse
    the registered model. Exits with 1 when a period failed; a withheld period is an outcome, not a failure.

    \b
    Examples:
      mlops-assets backfill green_taxi 2021-01..2021-12
      mlops-assets backfill green_taxi 2021-03
    """
    results = _backfill(model, periods, trials)
    sys.exit(1 if any(result.outcome == "failed" for result in results) else 0)


@main.command()
@click.argument("model")
@click.option("--rows", type=click.IntRange(min=1), help="Records of a month; by default those of simulation.yaml.")
@click.option("--months", default="12", show_default=True, help="How many from the first on, or FROM..TO, or one.")
@click.option("--drift", "drifts", multiple=True, metavar="NAME[:MONTH[:STRENGTH]]", help="May be given repeatedly.")
@click.option("--table", type=click.Path(path_type=Path), help="CSV of the real table, cut into months instead.")
@click.option("--seed", default=42, show_default=True, type=click.IntRange(min=0), help="Another one, other records.")
@click.option("--to", type=click.Path(path_type=Path), help="Folder to write below, instead of MLOPS_HOME.")
def simulate(
    model: str, rows: int | None, months: str, drifts: tuple[str, ...], table: Path | None, seed: int, to: Path | None
) -> None:
    """Draw the periods of a model whose data is simulated, as files that its source reads.

    The records are SYNTHETIC, drawn from the generative model in the model's folder (simulation.yaml); with --table
    they are rows of a real table, drawn at random, and only their time is simulated. The same arguments give the same
    files. A drift is at work from its month on; its strength is 1 as declared, 0.5 half of that.

    \b
    Examples:
      mlops-assets simulate ed_admission
      mlops-assets simulate ed_admission --rows 5000 --months 12 --drift covariate:2025-07
      mlops-assets simulate ed_admission --months 2025-07..2025-12 --drift concept:2025-09:0.5
      mlops-assets simulate ed_admission --table triage.csv --rows 5000
    """
    from mlops_assets.home import Home, data_dir
    from mlops_assets.simulation.batches import find_model
    from mlops_assets.simulation.batches import simulate as draw
    from mlops_assets.simulation.generative_model import SimulationError

    console = _console()
    folder = to or Home.from_env().downloads
    try:
        found = find_model(model, sorted(DEFS.iterdir()))
        wanted = found.periods(months)
        starting = [found.drift(text) for text in drifts]
        batches = []
        for batch in draw(found, wanted, folder, rows=rows, seed=seed, drifts=starting, table=table):
            batches.append(batch)
            console.print(f"{batch.period}  {batch.rows:>7,} rows  {_batch_line(batch)}", highlight=False)
    except SimulationError as error:
        raise click.ClickException(str(error)) from error
    shadowing = [b.period for b in batches if to is None and (data_dir() / b.path.relative_to(folder)).is_file()]
    console.print(_told_of_simulation(found.name, found.generative.about, table), highlight=False)
    console.print(f"Written to {batches[0].path.parent}", highlight=False, soft_wrap=True)
    if shadowing:
        console.print(
            f"[bold red]Not read:[/bold red] {data_dir()} has files of {', '.join(shadowing)}, which come first.",
            highlight=False,
        )
    elif to is None or to.resolve() == data_dir():
        for line in _to_be_made(found, wanted):
            console.print(line, highlight=False)


def _batch_line(batch: Batch) -> str:
    drift = f"  drift {', '.join(batch.drifts)}" if batch.drifts else ""
    before = {None: "", "replaced": "  (replaced)", "the same": "  (was there)"}[batch.before]
    return f"{batch.positive_share:6.1%} positive{drift}{before}"


def _to_be_made(model: SimulatedModel, drawn: Sequence[str]) -> list[str]:
    """How to make the drawn periods that can be made by now, and from when on the others can."""
    from datetime import UTC, datetime

    now = datetime.now(UTC).replace(tzinfo=None)
    ready = [period for period in drawn if model.can_be_made_from(period) <= now]
    later = drawn[len(ready) :]
    lines = [f"Next: mlops-assets backfill {model.name} {ready[0]}..{ready[-1]}"] if ready else []
    if later:
        first = f"{model.can_be_made_from(later[0]):%Y-%m-%d} (UTC) on"
        if len(later) == 1:
            lines.append(f"{later[0]} is not over yet: it can be made from {first}.")
        else:
            lines.append(f"{later[0]}..{later[-1]} are not over yet: they can be made one by one, from {first}.")
    return lines


def _told_of_simulation(model: str, about: str, table: Path | None) -> str:
    if table is None:
        return f"[bold]SYNTHETIC[/bold] {model}: {about.strip()}"
    return f"[bold]Rows of {table.name}[/bold] drawn at random; the time of each is simulated."


@main.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of a table.")
def status(model: str | None, as_json: bool) -> None:
    """Show what happened in each period: verdict, gate, decision, champion, rows served.

    This is the view monitoring.periods. MODEL limits it to one model.
    """
    from mlops_assets.home import Home
    from mlops_assets.lake.store import Lake
    from mlops_assets.monitoring import periods

    lake = Lake(Home.from_env().lake_url)
    if model is not None and model not in lake.models():
        known = ", ".join(lake.models()) or "nothing yet"
        raise click.ClickException(f"there is nothing of {model!r}; the lake holds {known}. Try: mlops-assets backfill")
    found = periods(lake, model)
    if as_json:
        click.echo(json.dumps([line.as_dict() for line in found], indent=1))
    elif not found:
        click.echo("No period has been made yet. Try: mlops-assets demo")
    else:
        _console().print(_status_table(found))


@main.command()
@click.argument("query")
def sql(query: str) -> None:
    """Ask the results in SQL (DuckDB): a table on a terminal, CSV when piped.

    \b
    Views, each with a column `period`:
      <model>.champions, challengers, drift, performance, predictions, served_predictions,
      fallback_predictions, features, profile, raw_<records>;
      monitoring.periods, monitoring.incidents, monitoring.alerts
    Examples:
      mlops-assets sql "select period, verdict, gate from monitoring.periods"
      mlops-assets sql "select period, value from green_taxi.performance where metric = 'auc'" > auc.csv
    """
    import duckdb

    from mlops_assets.monitoring import connect

    with connect() as con:
        try:
            result = con.sql(query)
            if result is None:
                return
            columns, rows = list(result.columns), result.fetchall()
        except duckdb.Error as error:
            raise click.ClickException(str(error)) from error
    if sys.stdout.isatty():
        _console().print(_result_table(columns, rows))
    else:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


@main.command()
def demo() -> None:
    """Make eight months of NYC green taxi, 2022-08 to 2023-03, from the shipped files.

    They hold a real break: on 2022-12-19 the city changed its fares. Exits with 1 when a month failed.
    """
    from mlops_assets.home import Addresses, Home

    console = _console()
    console.print(
        "[bold]Green taxi, 2022-08 to 2023-03:[/bold] will this trip be paid in cash?\n"
        "Each month is ingested, scored by the champion of the month before, compared with what that champion was\n"
        "trained on, and used to train a challenger. A few seconds to half a minute a month.\n"
    )
    alerts = Home.from_env().root / "alerts.jsonl"
    os.environ.setdefault("MLOPS_ALERT_URLS", alerts.as_uri())
    results = _backfill(DEMO_MODEL, DEMO_PERIODS, None)
    addresses = Addresses.from_env()
    console.print(
        "\n[bold]What next[/bold]\n"
        "  make dev                       opens all of it in your browser:\n"
        f"    {addresses.dagster}        Dagster: lineage, partitions, checks, runs\n"
        f"    {addresses.mlflow}/#/experiments?workflowType=machine_learning\n"
        "                                 MLflow: experiments, trials, the model registry\n"
        f"    {addresses.evidently}        Evidently: drift panels over the months\n"
        f"    {addresses.reports}        Evidently's page of each period\n"
        "  .venv/bin/mlops-assets status  what happened in each period, any time\n"
        "  .venv/bin/mlops-assets incidents list --all\n"
        "  .venv/bin/mlops-assets sql \"select * from green_taxi.drift where method = 'psi' and verdict = 'severe'\"\n"
        f"  Alerts went to {os.environ['MLOPS_ALERT_URLS']}\n"
        f"  Everything is in {Home.from_env().root}",
        highlight=False,
    )
    sys.exit(1 if any(result.outcome == "failed" for result in results) else 0)


@main.command()
@click.option("--dagster-port", default=3000, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.option("--evidently-port", default=8000, show_default=True)
@click.option("--reports-port", default=8001, show_default=True)
def dev(dagster_port: int, mlflow_port: int, evidently_port: int, reports_port: int) -> None:
    """Open everything in the browser: Dagster, MLflow, Evidently and the report pages, on this machine only.

    Ctrl-C stops them all.
    """
    from mlops_assets.dev import PortTaken, serve

    try:
        serve(
            {
                "dagster": dagster_port,
                "mlflow": mlflow_port,
                "evidently": evidently_port,
                "reports": reports_port,
            }
        )
    except PortTaken as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
def reset(yes: bool) -> None:
    """Delete everything that was made: lake, models, runs, reports. Sources in data/ stay."""
    from mlops_assets.home import Home

    home = Home.from_env()
    found = home.generated()
    if not found:
        click.echo(f"There is nothing to delete in {home.root}.")
        return
    if not yes:
        listed = ", ".join(path.name for path in found)
        click.confirm(f"Delete {listed} in {home.root}? Models and history can't be brought back.", abort=True)
    home.reset()
    click.echo(f"Deleted. {home.root} is empty again.")


@main.group()
def incidents() -> None:
    """What went wrong, what is still open, and what people decided."""


@incidents.command("list")
@click.argument("model", required=False)
@click.option("--all", "everything", is_flag=True, help="Resolved ones too.")
def list_incidents(model: str | None, everything: bool) -> None:
    """List the open incidents, of one MODEL or of all."""
    found = _store().incidents(model=model, state=None if everything else "open")
    if not found:
        click.echo("No incident." if everything else "No open incident.")
        return
    columns = ["id", "model", "period", "kind", "verdict", "since", "state", "opened", "reason"]
    rows = [
        [
            str(incident.id),
            incident.model,
            incident.period,
            incident.kind,
            incident.verdict,
            incident.since,
            incident.state,
            f"{incident.opened_at:%Y-%m-%d %H:%M}",
            incident.reasons[0]["sentence"] if incident.reasons else "",
        ]
        for incident in found
    ]
    _console().print(_result_table(columns, rows))


@incidents.command("show")
@click.argument("number", type=int)
def show_incident(number: int) -> None:
    """Show incident NUMBER with its reasons and history."""
    from mlops_assets.incidents.store import UnknownIncident

    try:
        incident = _store().incident(number)
    except UnknownIncident as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Incident {incident.id}: {incident.kind} in {incident.model} {incident.period}, {incident.state}")
    click.echo(f"verdict {incident.verdict}" + (f", since {incident.since}" if incident.since else ""))
    for reason in incident.reasons:
        click.echo(f"  - {reason['sentence']}")
    if incident.kind == "drift" and incident.state == "open" and incident.evidence:
        click.echo("to let the champion serve all the same:")
        accept = f"{incident.model} {incident.period} --digest {incident.evidence[:16]}"
        click.echo(f"  mlops-assets incidents accept {accept} --why …")
    click.echo("history:")
    for event in incident.history:
        told = f" by {event.by}: {event.why}" if event.by else ""
        click.echo(f"  {event.at:%Y-%m-%d %H:%M:%S} UTC  {event.event}{told}")


@incidents.command("resolve")
@click.argument("number", type=int)
@click.option("--why", required=True, help="What was found and done.")
@click.option("--by", default=None, help="Who resolves it; by default the one who is logged in.")
def resolve_incident(number: int, why: str, by: str | None) -> None:
    """Close incident NUMBER. It does not change what is served."""
    from mlops_assets.incidents.store import AlreadyResolved, UnknownIncident

    try:
        closed = _store().resolve(number, by or _user(), why)
    except (UnknownIncident, AlreadyResolved, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Incident {closed.id} is resolved.")


@incidents.command("accept")
@click.argument("model")
@click.argument("period")
@click.option("--digest", required=True, help="Digest of the very drift report, as `incidents show` prints it.")
@click.option("--why", required=True, help="Why the champion can be trusted all the same.")
@click.option("--by", default=None, help="Who accepts it; by default the one who is logged in.")
def accept_period(model: str, period: str, digest: str, why: str, by: str | None) -> None:
    """Let the champion serve a severe PERIOD of MODEL, in spite of its drift report."""
    from mlops_assets.monitored_model import decisions

    _decide(model, lambda lake, store: decisions.accept(model, lake, store, period, digest, by or _user(), why))
    click.echo(f"{model} {period} is accepted and served by the champion.")


@main.group()
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

    _decide(model, lambda lake, store: decisions.rollback(model, lake, store, version, by or _user(), why))
    _print_champions(model, newest_only=True)


@champion.command("promote")
@click.argument("model")
@click.argument("version")
@click.option("--why", required=True, help="Why.")
@click.option("--by", default=None, help="Who decides; by default the one who is logged in.")
def promote_champion(model: str, version: str, why: str, by: str | None) -> None:
    """Put VERSION of MODEL in force by hand."""
    from mlops_assets.monitored_model import decisions

    _decide(model, lambda lake, store: decisions.promote(model, lake, store, version, by or _user(), why))
    _print_champions(model, newest_only=True)


@main.command()
@click.argument("model")
@click.option("--why", required=True, help="Why the model should be trained again.")
@click.option("--by", default=None, help="Who asks; by default the one who is logged in.")
def retrain(model: str, why: str, by: str | None) -> None:
    """Train the newest period of MODEL again, for a reason that is kept with the version."""
    from mlops_assets.monitored_model import decisions

    _decide(model, lambda lake, store: decisions.retrain(model, lake, store, by or _user(), why))
    _print_champions(model, newest_only=True)


def _decide(model: str, decision: Callable[[Lake, Store], object]) -> None:
    """Store a person's decision, then do what it makes due, as the sensors would."""
    from mlops_assets.monitored_model.decisions import Refused

    console = _console()
    with console.status("Loading the models' definitions ..."):
        definitions, instance = _definitions()
        from mlops_assets.monitored_model.backfill import UnknownModel, reconcile, shared, spec_of

        try:
            spec_of(definitions, model)
            decision(*shared(definitions))
        except (UnknownModel, Refused, ValueError) as error:
            raise click.ClickException(str(error)) from error
    with console.status("Following the decision ..."):
        results = reconcile(definitions, model, instance)
    for result in results:
        _print_period(console, result, "done:")
    if any(result.outcome == "failed" for result in results):
        sys.exit(1)


def _definitions() -> tuple[dg.Definitions, dg.DagsterInstance]:
    """The project's definitions and Dagster instance; DAGSTER_HOME is set before Dagster reads it."""
    from mlops_assets.home import Home

    Home.from_env().prepare_dagster()
    from mlops_assets.monitored_model.backfill import open_instance

    return _load_definitions(), open_instance()


def _load_definitions() -> dg.Definitions:
    """The project's definitions; a declaration that is wrong is told in its own words, without a stack."""
    from mlops_assets.definitions import defs
    from mlops_assets.monitored_model.dagster_internals import why_not_loaded

    try:
        return defs()
    except Exception as error:
        why = why_not_loaded(error)
        if why is None:
            raise
        raise click.ClickException(why) from error


def _store() -> Store:
    from mlops_assets.home import Home
    from mlops_assets.incidents.store import Store

    return Store(Home.from_env().store_url)


def _user() -> str:
    import getpass

    return getpass.getuser()


def _print_champions(model: str, *, newest_only: bool) -> None:
    from mlops_assets.home import Home
    from mlops_assets.lake.store import Lake

    lake = Lake(Home.from_env().lake_url)
    periods = lake.periods(model, "champion")
    if not periods:
        raise click.ClickException(f"{model} has no decision yet. Try: mlops-assets backfill {model} FROM..TO")
    rows = []
    for period in periods[-1:] if newest_only else periods:
        facts = lake.partition(model, "champion", period).facts
        rows.append([period, facts["decision"], facts["version"], facts["previous_version"], facts["reason"]])
    _console().print(_result_table(["period", "decision", "version", "version before", "reason"], rows))


def _backfill(model: str, periods: str, trials: int | None) -> list[PeriodRunResult]:
    """Run the periods with a progress display, then print what came of them."""
    from mlops_assets.home import Home

    console = _console()
    with console.status("Loading the models' definitions ..."):
        # Before Dagster is imported: it reads DAGSTER_HOME.
        Home.from_env().prepare_dagster()
        from mlops_assets.lake.store import Lake
        from mlops_assets.monitored_model.backfill import PeriodOutsideModel, UnknownModel, parse_periods
        from mlops_assets.monitored_model.backfill import backfill as run_periods
        from mlops_assets.monitoring import periods as statuses

        definitions = _load_definitions()
        try:
            wanted = parse_periods(definitions, model, periods)
        except (UnknownModel, PeriodOutsideModel, ValueError) as error:
            raise click.ClickException(str(error)) from error
    results = []
    with _progress(console) as progress:
        task = progress.add_task(f"{model} {wanted[0]}", total=len(wanted))
        for result in run_periods(definitions, model, wanted, trials=trials):
            results.append(result)
            progress.update(task, advance=1, description=_next(model, wanted, len(results)))
            _print_period(progress.console, result)
            for followed in result.served_after:
                _print_period(progress.console, followed, "  then")
    made = {status.period: status for status in statuses(Lake(Home.from_env().lake_url), model)}
    _print_results(results, made)
    return results


def _print_period(console: Any, result: PeriodRunResult, then: str = "") -> None:
    style = OUTCOME_STYLE[result.outcome]
    what = f"{then} {result.job} {result.period}" if then else result.period
    console.print(f"{what}  [{style}]{result.outcome:<8}[/{style}]  {result.seconds:5.1f} s", highlight=False)
    if result.outcome == "failed":
        for step, message in result.errors.items():
            console.print(f"  in {step}:", highlight=False)
            console.print(message, markup=False, highlight=False)


def _next(model: str, wanted: Sequence[str], done: int) -> str:
    return f"{model} {wanted[done]}" if done < len(wanted) else f"{model} done"


def _print_results(results: Sequence[PeriodRunResult], made: dict[str, PeriodStatus]) -> None:
    from rich.table import Table

    metric = next((status.metric for status in made.values() if status.metric), "metric")
    table = Table(title=None, header_style="bold", row_styles=["", ""])
    for name in ("period", "run", "verdict", "decision"):
        table.add_column(name)
    table.add_column("champion", justify="right")
    table.add_column(metric, justify="right")
    table.add_column("rows", justify="right")
    table.add_column("served", justify="right")
    table.add_column("served by")
    for result in results:
        status = made.get(result.period)
        if status is None:
            table.add_row(result.period, f"[bold red]{result.outcome}[/bold red]")
            continue
        style = OUTCOME_STYLE[result.outcome]
        table.add_row(
            result.period,
            f"[{style}]{result.outcome}[/{style}]",
            f"[{VERDICT_STYLE[status.verdict]}]{status.verdict}[/]",
            status.decision or "",
            status.champion_version or "",
            "" if status.metric_value is None else f"{status.metric_value:.3f}",
            f"{status.rows:,}",
            f"{status.served_rows:,}",
            status.served_source or "",
        )
    _console().print(table)
    quarantined = {period: made[period].reason for period in made if made[period].rows == 0}
    for result in results:
        if quarantined.get(result.period):
            _console().print(f"{result.period}: {_shown(quarantined[result.period])}", highlight=False, markup=False)
    still_open = len(_store().incidents(state="open"))
    if still_open:
        told = "1 incident is" if still_open == 1 else f"{still_open} incidents are"
        _console().print(f"{told} open: mlops-assets incidents list", highlight=False)


def _status_table(found: Sequence[PeriodStatus]) -> Table:
    rows = [line.as_dict() for line in found]
    columns = ["period", "model", "verdict", "gate", "decision", "champion_version", "rows", "served_rows"]
    columns += ["served_source", "reason"]
    return _result_table(columns, [[row[name] for name in columns] for row in rows])


def _result_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    from rich.table import Table

    table = Table(header_style="bold")
    for index, name in enumerate(columns):
        numbers = all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
        table.add_column(name, justify="right" if numbers and rows else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _console() -> Any:
    from rich.console import Console

    # Without a terminal there is no width to respect, and a table is no use when its words are cut.
    return Console() if sys.stdout.isatty() else Console(width=140)


def _progress(console: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    main()
