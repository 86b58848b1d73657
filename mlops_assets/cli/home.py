"""The folder that holds everything generated."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import click

from mlops_assets.terminal import say

if TYPE_CHECKING:
    from mlops_assets.home import Home
    from mlops_assets.ownership import Inventory

SHOWN_OTHERS = 20
_BESIDE = re.compile(r"^\.|-(wal|shm|journal)$|\.lock$")


@click.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
def reset(yes: bool) -> None:
    """Delete everything that was made: lake, models, runs, reports. Sources in data/ stay.

    Only files that mlops-assets wrote in MLOPS_HOME are deleted; what else is there stays, and is listed. While a run
    or `mlops-assets dev` uses the folder, nothing is deleted. What MLOPS_LAKE_URL, MLOPS_STORE_URL,
    MLFLOW_TRACKING_URI and DAGSTER_HOME keep elsewhere stays, too.
    """
    from mlops_assets.cli.project import open_home
    from mlops_assets.ownership import LOCK, MARKER, delete, inventory, not_in_use

    home = open_home()
    found = inventory(home)
    entries = [name for name in found.own if name not in (MARKER, LOCK)]
    if not entries:
        say(f"There is nothing to delete in {home.root}.")
        return
    with contextlib.ExitStack() as held:
        held.enter_context(not_in_use(home))
        leases = held.enter_context(contextlib.ExitStack())
        _hold_leases(home, leases)
        if not yes:
            # The files that SQLite and locks keep beside others go with them.
            listed = ", ".join([name for name in entries if not _BESIDE.search(name)] or entries)
            say(f"Delete {listed} in {home.root}? Models and history can't be brought back.")
            click.confirm("Delete", abort=True)
        found = inventory(home)
        deleted = [f"  {name}: {_size(found, name)}" for name in found.own if name not in (MARKER, LOCK)]
        leases.close()  # they are kept in the store, which is deleted next
        delete(home, found)
    say(f"Deleted in {home.root}:")
    for line in deleted:
        say(line)
    _say_what_stays(home, found.others)


def _size(found: Inventory, entry: str) -> str:
    files = len(found.own[entry])
    return f"{files:,} file{'s' if files > 1 else ''}, {found.bytes(entry) / 1e6:,.1f} MB"


def _hold_leases(home: Home, held: contextlib.ExitStack) -> None:
    """Refuse while anything uses the home, and keep every model's lease meanwhile."""
    from mlops_assets.incidents.lease import Lease, LeaseHeld, holders
    from mlops_assets.incidents.store import Store, StoreUnavailable
    from mlops_assets.lake.store import Lake

    if not _keeps_store(home):
        return
    try:
        store = Store(home.store_url)
    except StoreUnavailable as error:
        if "locked" in str(error):
            raise
        say(f"The incident store can't be read, so nobody knows whether runs go on: {error}", err=True)
        return
    alive = [holder for holder in holders(store, "") if holder.gone is None]
    if alive:
        listed = "\n".join(f"  {holder.model}: {holder}" for holder in alive)
        raise click.ClickException(
            f"{home.root} is in use, so nothing is deleted. Wait for these, or stop them:\n{listed}"
        )
    for model in Lake(home.lake_url).models():
        try:
            held.enter_context(Lease(store, model, what="mlops-assets reset", wait=0.0))
        except LeaseHeld as error:
            raise click.ClickException(f"nothing is deleted: {error}") from error


def _keeps_store(home: Home) -> bool:
    """Whether there is a store to ask: opening one would make it."""
    from pathlib import Path

    path = home.store_url.removeprefix("sqlite:///")
    return path == home.store_url or Path(path).is_file()


def _say_what_stays(home: Home, others: list[str]) -> None:
    places = {
        "the lake": home.lake_url,
        "the incident store": home.store_url.removeprefix("sqlite:///"),
        "MLflow": home.tracking_uri.removeprefix("sqlite:///"),
        "Dagster's home": str(home.dagster),
    }
    elsewhere = [f"{what} at {place}" for what, place in places.items() if not place.startswith(f"{home.root}/")]
    stays = [*others[:SHOWN_OTHERS], *elsewhere]
    if len(others) > SHOWN_OTHERS:
        stays.insert(SHOWN_OTHERS, f"and {len(others) - SHOWN_OTHERS:,} more files")
    if stays:
        say("Stays, as it was not written here by mlops-assets:")
        for line in stays:
            say(f"  {line}")
    if not any(home.root.iterdir()):
        say(f"{home.root} is empty now.")
