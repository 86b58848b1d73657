"""Periods: make them, and see what came of them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from mlops_assets.cli.champion import moved_aliases
from mlops_assets.cli.deciding import OUTCOME_STYLE, print_period
from mlops_assets.cli.period_report import print_period_report
from mlops_assets.cli.project import load_definitions, open_home, open_store
from mlops_assets.cli.verification import summary
from mlops_assets.terminal import heading, print_json, print_progress, print_table, say, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlops_assets.lake.store import Lake
    from mlops_assets.monitored_model.backfill import PeriodRunResult
    from mlops_assets.monitoring import PeriodStatus

DEMO_MODEL = "green_taxi"
DEMO_PERIODS = "2022-08..2023-03"
VERDICT_STYLE = {"ok": "green", "warning": "yellow", "severe": "bold red", "damaged": "bold red"}
IN_WORDS = {
    ("verdict", "none"): "nothing to compare with yet",
    ("decision", "none"): "none yet",
    ("served by", "none"): "no champion yet",
    ("served by", "plan_b"): "plan B",
}


@click.command()
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


@click.command()
@click.argument("model", required=False)
@click.argument("period", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of a table.")
def status(model: str | None, period: str | None, as_json: bool) -> None:
    """Show what happened in each period: verdict, decision, champion, rows served.

    This is the view monitoring.periods. MODEL limits it to one model; with a PERIOD it explains that period: verdict,
    what is served by whom and why, champion before and after, metrics, incidents, and what to do next.

    \b
    Examples:
      mlops-assets status
      mlops-assets status green_taxi
      mlops-assets status green_taxi 2022-12
    """
    from mlops_assets.lake.store import Lake
    from mlops_assets.monitoring import periods

    lake = Lake(open_home().lake_url)
    if model is not None and model not in lake.models():
        known = ", ".join(lake.models()) or "nothing yet"
        raise click.ClickException(f"there is nothing of {model!r}; the lake holds {known}. Try: mlops-assets backfill")
    if model is not None and period is not None and not as_json:
        print_period_report(lake, model, period)
        return
    found = [line for line in periods(lake, model) if period in (None, line.period)]
    if as_json:
        print_json([line.as_dict() for line in found])
    elif not found:
        say("No period has been made yet. Try: mlops-assets demo")
    else:
        _print_statuses(found)
        models = sorted({line.model for line in found})
        for line in [*_last_verifications(lake, models), *_moved_aliases(models)]:
            say(line)


def _moved_aliases(models: Sequence[str]) -> Iterator[str]:
    """Of which models somebody has moved MLflow's aliases; asked of MLflow where they were pointed at all.

    Without the incident store the periods are shown all the same, which the lake alone knows.
    """
    from mlops_assets.incidents.store import StoreUnavailable

    try:
        store = open_store()
    except StoreUnavailable as error:
        yield f"Whether aliases were moved by hand is not known: {error}"
        return
    for name in models:
        if store.decisions(name, subject="alias"):
            state = moved_aliases(name, store)
            if state is not None:
                yield f"{name}: {state}. See: mlops-assets champion show {name}"


def _last_verifications(lake: Lake, models: Sequence[str]) -> Iterator[str]:
    from mlops_assets.lake.verification import last_verification

    for name in models:
        try:
            last = last_verification(lake, name)
        except ValueError as error:
            yield str(error)
            continue
        if last is None:
            yield f"{name}: its files were never verified as a whole. Try: mlops-assets verify {name}"
        else:
            yield f"{name}: {summary(last)}"


@click.command()
def demo() -> None:
    """Make eight months of NYC green taxi, 2022-08 to 2023-03, from the shipped files.

    They hold a real break: on 2022-12-19 the city changed its fares. Exits with 1 when a month failed.
    """
    from mlops_assets.home import Addresses, Home

    say(
        ("Green taxi, 2022-08 to 2023-03:", "bold"),
        " will this trip be paid in cash?\n"
        "Each month is ingested, scored by the champion of the month before, compared with what that champion was\n"
        "trained on, and used to train a challenger. A few seconds to half a minute a month.\n",
    )
    alerts = Home.from_env().root / "alerts.jsonl"
    os.environ.setdefault("MLOPS_ALERT_URLS", alerts.as_uri())
    results = _backfill(DEMO_MODEL, DEMO_PERIODS, None)
    addresses = Addresses.from_env()
    say(("\nWhat next", "bold"))
    say(
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
        f"  Everything is in {Home.from_env().root}"
    )
    sys.exit(1 if any(result.outcome == "failed" for result in results) else 0)


def _backfill(model: str, periods: str, trials: int | None) -> list[PeriodRunResult]:
    """Run the periods with a progress display, then print what came of them."""
    from mlops_assets.home import Home

    with waiting("Loading the models' definitions ..."):
        # Before Dagster is imported: it reads DAGSTER_HOME.
        open_home().prepare_dagster()
        from mlops_assets.lake.store import Lake
        from mlops_assets.monitored_model.backfill import PeriodOutsideModel, UnknownModel, parse_periods
        from mlops_assets.monitored_model.backfill import backfill as run_periods
        from mlops_assets.monitoring import periods as statuses
        from mlops_assets.ownership import in_use

        definitions = load_definitions()
        try:
            wanted = parse_periods(definitions, model, periods)
        except (UnknownModel, PeriodOutsideModel, ValueError) as error:
            raise click.ClickException(str(error)) from error
    results = []
    with in_use(open_home()), print_progress() as progress:
        task = progress.add_task(f"{model} {wanted[0]}", total=len(wanted))
        for result in run_periods(definitions, model, wanted, trials=trials):
            results.append(result)
            progress.update(task, advance=1, description=_next(model, wanted, len(results)))
            print_period(result, console=progress.console, why=False)
            for followed in result.served_after:
                print_period(followed, "  then", progress.console)
    made = {status.period: status for status in statuses(Lake(Home.from_env().lake_url), model)}
    _print_results(results, made)
    return results


def _next(model: str, wanted: Sequence[str], done: int) -> str:
    return f"{model} {wanted[done]}" if done < len(wanted) else f"{model} done"


def _print_results(results: Sequence[PeriodRunResult], made: dict[str, PeriodStatus]) -> None:
    metric = next((status.metric for status in made.values() if status.metric), "metric")
    columns = ["period", "run", "verdict", "decision", "in force after", metric, "rows", "served", "served by"]
    rows: list[list[object]] = []
    for result in results:
        status = made.get(result.period)
        if status is None:
            rows.append([result.period, result.outcome, *[None] * 7])
            continue
        rows.append(
            [
                *(result.period, result.outcome, status.verdict, status.decision, status.champion_version),
                *(None if status.metric_value is None else f"{status.metric_value:.3f}", status.rows),
                *(status.served_rows, _who_serves(status)),
            ]
        )
    styles = {"run": OUTCOME_STYLE, "verdict": VERDICT_STYLE}
    print_table(columns, [in_words(columns, row) for row in rows], styles=styles)
    _print_what_went_wrong(results, made)
    still_open = len(open_store().incidents(state="open"))
    if still_open:
        told = "1 incident is" if still_open == 1 else f"{still_open} incidents are"
        say(f"{told} open: mlops-assets incidents list")


def _who_serves(status: PeriodStatus) -> str | None:
    """What a period is served with and, where that has one, the number of the version: `champion 3`."""
    if status.served_source is None:
        return None
    source = IN_WORDS.get(("served by", status.served_source), status.served_source)
    return source if status.served_version is None else f"{source} {status.served_version}"


def _print_what_went_wrong(results: Sequence[PeriodRunResult], made: dict[str, PeriodStatus]) -> None:
    """Below the table, in full: why a period failed, or has no rows. Above the table the same has scrolled away."""
    for result in results:
        status = made.get(result.period)
        if result.outcome == "failed":
            for step, message in result.errors.items():
                say((result.period, "bold"), f" failed in {step}: {message}")
        elif status is not None and status.reason and (status.rows == 0 or result.outcome == "withheld"):
            say((result.period, "bold"), f": {status.reason}")


def _print_statuses(found: Sequence[PeriodStatus]) -> None:
    """A table for each model, narrow enough for a terminal of 80 columns; `--json` has all there is."""
    from mlops_assets.monitored_model.tables import NO_CHAMPION
    from mlops_assets.monitoring import DAMAGED

    def reason(line: PeriodStatus) -> str | None:
        why = None if line.reason == NO_CHAMPION else line.reason  # `served by` says that
        return why if line.stale is None else f"{f'{why}; ' if why else ''}stale: {line.stale}"

    columns = ["period", "verdict", "decision", "in force after", "rows", "served", "served by", "reason"]
    for model in dict.fromkeys(line.model for line in found):
        rows = [
            [
                *(line.period, DAMAGED if line.gate == DAMAGED else line.verdict, line.decision, line.champion_version),
                *(line.rows, line.served_rows, _who_serves(line), reason(line)),
            ]
            for line in found
            if line.model == model
        ]
        heading(model)
        shown = [in_words(columns, row) for row in rows]
        print_table(columns, shown, note="reason", named_by=["period"], styles={"verdict": VERDICT_STYLE})


def in_words(columns: Sequence[str], row: Sequence[object]) -> list[object]:
    """A row for people: `none` says what there is none of."""
    pairs = zip(columns, row, strict=True)
    return [IN_WORDS.get((name, value), value) if isinstance(value, str) else value for name, value in pairs]
