"""Data: draw the periods of a model whose data is simulated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlops_assets.terminal import say, say_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlops_assets.simulation.batches import Batch, SimulatedModel

DEFS = Path(__file__).parent.parent / "defs"


@click.command()
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
    from mlops_assets.ownership import claim, note_download
    from mlops_assets.simulation.batches import find_model
    from mlops_assets.simulation.batches import simulate as draw
    from mlops_assets.simulation.generative_model import SimulationError

    folder = to or Home.from_env().downloads
    try:
        found = find_model(model, sorted(DEFS.iterdir()))
        wanted = found.periods(months)
        starting = [found.drift(text) for text in drifts]
        drawing = draw(found, wanted, folder, rows=rows, seed=seed, drifts=starting, table=table)
        if to is None:
            claim(Home.from_env())
        batches = []
        for batch in drawing:
            batches.append(batch)
            if to is None:
                note_download(folder, batch.path)
            say(f"{batch.period}  {batch.rows:>7,} rows  {_batch_line(batch)}")
    except SimulationError as error:
        raise click.ClickException(str(error)) from error
    shadowing = [b.period for b in batches if to is None and (data_dir() / b.path.relative_to(folder)).is_file()]
    if table is None:
        say(("SYNTHETIC", "bold"), f" {found.name}: {found.generative.about.strip()}")
    else:
        say((f"Rows of {table.name}", "bold"), " drawn at random; the time of each is simulated.")
    say(f"Written to {batches[0].path.parent}")
    if shadowing:
        say(("Not read:", "bold red"), f" {data_dir()} has files of {', '.join(shadowing)}, which come first.")
    elif to is None or to.resolve() == data_dir():
        say_lines(_to_be_made(found, wanted))


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
