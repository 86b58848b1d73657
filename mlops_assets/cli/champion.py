"""The champion: which version is in force, and how to change it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlops_assets.cli.deciding import decide
from mlops_assets.cli.project import current_user, open_home, open_store
from mlops_assets.terminal import print_table, say, say_lines

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlops_assets.incidents.store import Store
    from mlops_assets.lake.store import Lake, Partition

# What a decision is called where people read it and its name in the lake and the log says too little.
IN_WORDS = {
    "none": "none yet",
    "plan_b": "plan B",
    "rolled_back": "rolled back",
    "promoted_by_hand": "promoted by hand",
    "moved_by_hand": "moved by hand",
}


@click.group()
def champion() -> None:
    """The version in force: what it is, how it came, and how to change it by hand."""


@champion.command("show")
@click.argument("model")
def show_champion(model: str) -> None:
    """Show the champion of MODEL after its newest period, and whether MLflow's aliases agree."""
    _print_champion(model)


@champion.command("history")
@click.argument("model")
def champion_history(model: str) -> None:
    """Show every decision about the champion of MODEL, by period; those that were replaced later too."""
    _print_history(model)


@champion.command("rollback")
@click.argument("model")
@click.option("--to", "version", default=None, help="The version; by default the one before.")
@click.option("--why", required=True, help="Why.")
@click.option("--by", default=None, help="Who decides; by default the one who is logged in.")
def rollback_champion(model: str, version: str | None, why: str, by: str | None) -> None:
    """Put the version that was champion of MODEL before back in force."""
    from mlops_assets.monitored_model import decisions

    decide(model, lambda lake, store: decisions.rollback(model, lake, store, version, by or current_user(), why))
    _print_champion(model)


@champion.command("promote")
@click.argument("model")
@click.argument("version")
@click.option("--why", required=True, help="Why.")
@click.option("--by", default=None, help="Who decides; by default the one who is logged in.")
def promote_champion(model: str, version: str, why: str, by: str | None) -> None:
    """Put VERSION of MODEL in force by hand."""
    from mlops_assets.monitored_model import decisions

    decide(model, lambda lake, store: decisions.promote(model, lake, store, version, by or current_user(), why))
    _print_champion(model)


@champion.command("repair")
@click.argument("model")
@click.option("--why", required=True, help="Why the aliases are put back.")
@click.option("--by", default=None, help="Who puts them back; by default the one who is logged in.")
def repair_aliases(model: str, why: str, by: str | None) -> None:
    """Put MLflow's aliases and status tags of MODEL back to what was decided.

    What is served does not depend on them; whoever loads models:/MODEL@champion does.
    """
    from mlops_assets.monitored_model.aliases import restore
    from mlops_assets.training import registry

    _, store = _opened(model)
    decide(model, lambda lake, store: None)  # finishes a decision that broke off
    try:
        state = restore(store, _mlflow(), model, by or current_user(), why)
    except registry.RegistryError as error:
        raise click.ClickException(f"the aliases of {model} can't be put back: {error}") from error
    for change in () if state is None else state.changes:
        say(f"Put back: {change}.")
    _print_champion(model)


@click.command()
@click.argument("model")
@click.option("--why", required=True, help="Why the model should be trained again.")
@click.option("--by", default=None, help="Who asks; by default the one who is logged in.")
def retrain(model: str, why: str, by: str | None) -> None:
    """Train the newest period of MODEL again, for a reason that is kept with the version."""
    from mlops_assets.monitored_model import decisions

    decide(model, lambda lake, store: decisions.retrain(model, lake, store, by or current_user(), why))
    from mlops_assets.monitored_model.gates import newest_to_train
    from mlops_assets.period_report import challenger_in_words

    lake, _ = _opened(model)
    trained = newest_to_train(lake, model)
    if trained is not None:
        say_lines(challenger_in_words(lake, model, trained))
    _print_champion(model)


def _print_champion(model: str) -> None:
    """The newest decision, and whether MLflow's aliases say the same."""
    lake, store = _opened(model)
    period = lake.periods(model, "champion")[-1]
    decision = lake.find(model, "champion", period)
    if decision is None or decision.damaged:
        raise click.ClickException(f"the decision of {model} {period} can't be read: {decision and decision.damaged}")
    facts = decision.facts
    columns = ["period", "decision", "version", "before", "reason"]
    decided = IN_WORDS.get(facts["decision"], facts["decision"])
    row = [period, decided, facts["version"], facts["previous_version"], facts["reason"]]
    print_table(columns, [row], note="reason")
    say(_aliases(lake, store, decision))


def _aliases(lake: Lake, store: Store, decision: Partition) -> str:
    """What MLflow's aliases say, and what to do where that is not what was decided."""
    from mlops_assets.monitored_model.aliases import alias_state, notice
    from mlops_assets.monitored_model.versions import Versions, as_known
    from mlops_assets.training import registry

    model = decision.model
    repair = f"mlops-assets champion repair {model} --why …"
    client = _mlflow()
    in_force = as_known(lake, decision)
    version = None if in_force is None else Versions.of_home(model, lake, store, open_home()).number(in_force)
    if in_force is not None and version is None:
        return f"MLflow's registry does not hold version {in_force.number}, which is in force. {registry.TRAIN_AGAIN}."
    try:
        state = alias_state(store, client, model)
    except registry.RegistryError as error:
        return f"MLflow's aliases can't be compared: {error}"
    if state is None:
        return _unlogged_aliases(client, model, version, repair)
    if state.pointed.champion != version:
        return f"MLflow's aliases still say {state.since.after}: the decision broke off; to finish it: {repair}"
    if not state.changes:
        return f"MLflow's aliases say the same: {state.since.after}."
    notice(store, client, model)
    return (
        f"{state}.\nPredictions follow the decision, not the alias. To put the aliases back: {repair}\n"
        f"To decide as the alias says: mlops-assets champion promote {model} VERSION --why …"
    )


def _unlogged_aliases(client: MlflowClient, model: str, version: str | None, repair: str) -> str:
    """The same for a home of an earlier version, which kept no log, or where the first decision broke off."""
    from mlops_assets.training import aliases, registry

    found = aliases.aliases_of(client, model)
    if version is None:
        return "There is no champion yet."
    if found.get(registry.CHAMPION) == version:
        return f"MLflow's aliases say the same: {aliases.as_text(found)}."
    return f"MLflow's alias `champion` is {found.get(registry.CHAMPION, 'not set')}; to point it: {repair}"


def moved_aliases(model: str, store: Store) -> str | None:
    """In what MLflow's aliases are not where the platform has left them; None when they are. It is written down.

    Of a tracking server, which may not answer for minutes, it is what was noticed last.
    """
    from mlops_assets.home import Home
    from mlops_assets.monitored_model.aliases import alias_state, known_move, notice

    if not Home.from_env().tracking_uri.startswith("sqlite:"):
        move = known_move(store, model)
        return None if move is None else f"moved by hand in MLflow: {move.after}, decided is {move.before}"
    from mlops_assets.training import registry

    client = _mlflow()
    try:
        state = alias_state(store, client, model)
    except registry.RegistryError as error:
        return f"MLflow's aliases can't be compared: {error}"
    if state is None or not state.changes:
        return None
    notice(store, client, model)
    return str(state)


def _print_history(model: str) -> None:
    """Every decision about the champion, those that were replaced too."""
    from mlops_assets.monitored_model.decision_log import catch_up

    lake, store = _opened(model)
    catch_up(lake, store, model)
    lines = sorted(store.decisions(model, subject="champion"), key=lambda line: (line.period, line.id))
    newest = {line.period: line.id for line in lines}
    rows = [
        [
            line.period,
            IN_WORDS.get(line.action, line.action),
            line.after,
            line.before,
            f"{line.at:%Y-%m-%d %H:%M}",
            line.actor,
            "" if newest[line.period] == line.id else "replaced",
            line.why,
        ]
        for line in lines
    ]
    columns = ["period", "decision", "version", "before", "decided (UTC)", "by", "since then", "reason"]
    if len(lines) == len(newest):  # nothing was replaced
        columns, rows = columns[:6] + columns[7:], [row[:6] + row[7:] for row in rows]
    print_table(columns, rows, note="reason")


def _opened(model: str) -> tuple[Lake, Store]:
    from mlops_assets.home import Home
    from mlops_assets.lake.store import Lake

    lake = Lake(Home.from_env().lake_url)
    if not lake.periods(model, "champion"):
        raise click.ClickException(f"{model} has no decision yet. Try: mlops-assets backfill {model} FROM..TO")
    return lake, open_store()


def _mlflow() -> MlflowClient:
    from mlops_assets.home import Home
    from mlops_assets.training import tracking

    home = Home.from_env()
    tracking.initialise(home.tracking_uri, home.artifacts)
    return tracking.client(home.tracking_uri)
