"""Whether what is kept is what was written."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mlops_assets.cli.project import load_definitions, open_home, open_store
from mlops_assets.terminal import print_json, say

if TYPE_CHECKING:
    from mlops_assets.lake.verification import Verification
    from mlops_assets.monitored_model.versions import VersionCheck


@click.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of lines.")
def verify(model: str | None, as_json: bool) -> None:
    """Compare every byte of lake and trained versions with the hash it was written with, of MODEL or of all models.

    Exits with 1 when something is damaged. Each damaged partition or version is named with what to do; the result for
    the lake is kept, and `mlops-assets status` shows it. Versions that were trained before hashes were kept get
    theirs now.

    \b
    Examples:
      mlops-assets verify
      mlops-assets verify green_taxi --json
    """
    from mlops_assets.lake.store import Lake
    from mlops_assets.lake.verification import verify as read_all
    from mlops_assets.monitored_model.versions import verify_models

    home = open_home()
    lake = Lake(home.lake_url)
    models = lake.models()
    if model is not None and model not in models:
        raise click.ClickException(f"there is nothing of {model!r}; the lake holds {', '.join(models) or 'nothing'}")
    wanted = [model] if model is not None else models
    found = [read_all(lake, name) for name in wanted]
    checks = verify_models(lake, open_store(), home, declared_pickles(), models=wanted) if wanted else []
    versions = {name: [check for check in checks if check.model == name] for name in wanted}
    if as_json:
        print_json([asdict(result) | {"versions": _plain(versions[result.model])} for result in found])
    for result in [] if as_json else found:
        say(f"{result.model}: {summary(result)}; {versions_summary(versions[result.model])}")
        for damage in result.damaged:
            say(f"  {damage.why}")
        for check in versions[result.model]:
            if check.problem is not None:
                say(f"  {check.period}: {check.problem}")
    sys.exit(1 if any(result.damaged for result in found) or any(check.problem for check in checks) else 0)


def declared_pickles() -> dict[str, frozenset[str]]:
    """The estimators that each model declares with `pickle: true`.

    Whether the lake is intact has to be answered when a declaration is wrong, too: then no pickle is allowed.
    """
    from mlops_assets.monitored_model.backfill import models, spec_of

    try:
        definitions = load_definitions()
    except click.ClickException as error:
        say(f"No pickle is adopted, as the declarations can't be read: {error.format_message()}", err=True)
        return {}
    return {name: spec_of(definitions, name).pickled_estimators for name in models(definitions)}


def _plain(checks: list[VersionCheck]) -> list[dict[str, Any]]:
    return [{name: value for name, value in asdict(check).items() if name != "model"} for check in checks]


def summary(last: Verification) -> str:
    """A verification in one line."""
    damaged = f"{len(last.damaged)} damaged" if last.damaged else "none damaged"
    at = datetime.fromisoformat(last.at)
    return f"verified {at:%Y-%m-%d %H:%M} UTC: {last.partitions:,} partitions, {last.bytes / 1e6:,.1f} MB, {damaged}"


def versions_summary(checks: list[VersionCheck]) -> str:
    """The check of a model's trained versions in a few words."""
    counted = {state: sum(check.state == state for check in checks) for state in ("adopted", "failed")}
    said = [f"{len(checks):,} trained version{'' if len(checks) == 1 else 's'}"]
    said += [f"{counted['adopted']} adopted (trained before hashes were kept)"] if counted["adopted"] else []
    return ", ".join([*said, f"{counted['failed']} failed" if counted["failed"] else "none failed"])
