"""Whether what is kept is what was written."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from mlops_assets.cli.project import open_home
from mlops_assets.terminal import print_json, say

if TYPE_CHECKING:
    from mlops_assets.lake.verification import Verification


@click.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of lines.")
def verify(model: str | None, as_json: bool) -> None:
    """Read every byte of the lake and compare it with the hash it was written with, of MODEL or of all models.

    Exits with 1 when something is damaged. Each damaged partition is named with what to do; the result is kept, and
    `mlops-assets status` shows it.

    \b
    Examples:
      mlops-assets verify
      mlops-assets verify green_taxi --json
    """
    from mlops_assets.lake.store import Lake
    from mlops_assets.lake.verification import verify as read_all

    lake = Lake(open_home().lake_url)
    models = lake.models()
    if model is not None and model not in models:
        raise click.ClickException(f"there is nothing of {model!r}; the lake holds {', '.join(models) or 'nothing'}")
    found = [read_all(lake, name) for name in ([model] if model is not None else models)]
    if as_json:
        print_json([asdict(result) for result in found])
    for result in [] if as_json else found:
        say(f"{result.model}: {summary(result)}")
        for damage in result.damaged:
            say(f"  {damage.why}")
    sys.exit(1 if any(result.damaged for result in found) else 0)


def summary(last: Verification) -> str:
    """A verification in one line."""
    damaged = f"{len(last.damaged)} damaged" if last.damaged else "none damaged"
    at = datetime.fromisoformat(last.at)
    return f"verified {at:%Y-%m-%d %H:%M} UTC: {last.partitions:,} partitions, {last.bytes / 1e6:,.1f} MB, {damaged}"
