"""Decisions made by hand: they are stored, then followed at once, as the sensors would."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from mlops_assets.cli.project import open_home, open_project
from mlops_assets.terminal import say, waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlops_assets.incidents.store import Store
    from mlops_assets.lake.store import Lake
    from mlops_assets.monitored_model.backfill import PeriodRunResult

OUTCOME_STYLE = {"success": "green", "withheld": "yellow", "failed": "bold red"}


def decide(model: str, decision: Callable[[Lake, Store], object], *, period: str | None = None, done: str = "") -> None:
    """Store a person's decision, then do what it makes due, as the sensors would; what still waits is printed.

    Args:
        period: the period whose serving the decision changes, with what was `done` to it: what is served is printed.
    """
    from mlops_assets.monitored_model.decisions import Refused

    with waiting("Loading the models' definitions ..."):
        definitions, instance = open_project()
        from mlops_assets.monitored_model.backfill import (
            UnknownModel,
            finish_what_broke_off,
            how_it_is_served,
            reconcile,
            shared,
            spec_of,
            what_waits,
        )

        try:
            spec_of(definitions, model)
            finish_what_broke_off(definitions, model, instance)
            decision(*shared(definitions))
        except (UnknownModel, Refused, ValueError) as error:
            raise click.ClickException(str(error)) from error
    from mlops_assets.ownership import in_use

    with in_use(open_home()), waiting("Following the decision ..."):
        results = reconcile(definitions, model, instance)
    for result in results:
        print_period(result, "done:")
    if period is not None:
        as_decided, told = how_it_is_served(definitions, model, period, instance)
        say(f"{model} {period} is {done} {'and' if as_decided else 'but'} {told}.")
    for line in what_waits(definitions, model, instance):
        say(line)
    if any(result.outcome == "failed" for result in results):
        sys.exit(1)


def print_period(result: PeriodRunResult, then: str = "", console: Any = None, *, why: bool = True) -> None:
    """How a run ended, in a line; of a failed one also where and, if wanted, why."""
    what = f"{then} {result.job} {result.period}" if then else result.period
    say(
        f"{what}  ",
        (f"{result.outcome:<8}", OUTCOME_STYLE[result.outcome]),
        f"  {result.seconds:5.1f} s",
        console=console,
    )
    if why and result.outcome == "failed":
        for step, message in result.errors.items():
            say(f"  in {step}:", console=console)
            say(message, indent=4, console=console)
