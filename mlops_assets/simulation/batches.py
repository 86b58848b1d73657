"""Simulated periods as the files that a model's source reads.

Drawn from the generative model in the model's folder, or from a real table without dates; written as Parquet, whole
or not at all, where `sources.location.locate` finds them. Every file says what it is: in a column, and in its metadata.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.lake.periods import Calendar
from mlops_assets.lake.store import identifier
from mlops_assets.simulation.generative_model import FILE, GenerativeModel, SimulationError, read_generative_model
from mlops_assets.simulation.real_table import RealTable, read_table
from mlops_assets.simulation.sampling import ActiveDrift, Records, draw, draw_times, stream
from mlops_assets.sources.connection import source_database
from mlops_assets.sources.declaration import Source
from mlops_assets.sources.location import Arriving

if TYPE_CHECKING:
    from mlops_assets.simulation.generative_model import Drift

MARK = b"mlops_assets.simulation"
SYNTHETIC = "synthetic"
REAL_ROWS = "real row, simulated time"


@dataclass(frozen=True)
class SimulatedModel:
    """A model that can be simulated: its source, its periods, and the generative model beside its declaration."""

    name: str
    source: Source
    calendar: Calendar
    start: str
    end: str | None
    lead: int
    folder: Path

    @cached_property
    def generative(self) -> GenerativeModel:
        """The declared generative model, checked against the source. Raises SimulationError."""
        path = self.folder / FILE
        declared = read_generative_model(path)
        if self.source.kind_of_file != "parquet" or not self.source.per_period or "://" in self.source.path:
            raise SimulationError(
                f"the source of {self.name} is {self.source.path!r}; simulated periods are Parquet files on this "
                "machine, one for each period, so a path like name/name_{period}.parquet is expected"
            )
        drawn = {declared.time.column, declared.origin, *declared.written}
        lacking = [name for name in self.source.schema if name not in drawn]
        if lacking:
            raise SimulationError(f"{path} draws no {', '.join(lacking)}, which the source's schema declares; add them")
        for name, drift in declared.drifts.items():
            try:
                self.calendar.validate(drift.start)
            except ValueError as error:
                raise SimulationError(f"{path}: start of the drift {name!r}: {error}") from error
        return declared

    @property
    def digest(self) -> str:
        """Hash of the generative model's file."""
        return hashlib.sha256((self.folder / FILE).read_bytes()).hexdigest()

    @property
    def table_columns(self) -> dict[str, str]:
        """The columns, with their types, that a real table has to bring."""
        own = (self.generative.time.column, self.generative.origin)
        return {name: kind for name, kind in self.source.schema.items() if name not in own}

    def periods(self, text: str) -> list[str]:
        """The periods of `12` (so many from the first on), of `FROM..TO`, or of a single one; they need not be over.

        Raises SimulationError when the text is none of these, or names periods outside of the model's.
        """
        if re.fullmatch(r"\d{1,3}", text):
            if int(text) < 1:
                raise SimulationError(f"{text} periods leave nothing to draw; at least 1 is expected")
            wanted = [self.calendar.shift(self.start, number) for number in range(int(text))]
        else:
            try:
                wanted = self.calendar.parse_range(text)
            except ValueError as error:
                raise SimulationError(f"{error}; or give a number: 12 is the first twelve periods") from error
        outside = [p for p in wanted if p < self.start or (self.end is not None and p > self.end)]
        if outside:
            own = f"are {self.start} to {self.end}" if self.end is not None else f"begin with {self.start}"
            raise SimulationError(
                f"{self.name} has no period {', '.join(outside)}; its periods {own} (start and end in defs.yaml)"
            )
        return wanted

    def can_be_made_from(self, period: str) -> datetime:
        """The moment (UTC, naive) from which Dagster has the period's partition: when it is over, or `lead` earlier."""
        return self.calendar.end(self.calendar.shift(period, -self.lead))

    def drift(self, text: str) -> StartingDrift:
        """The drift of `NAME`, `NAME:PERIOD` or `NAME:PERIOD:STRENGTH`. Raises SimulationError."""
        name, _, rest = text.partition(":")
        start, _, strength = rest.partition(":")
        declared = self.generative.drifts.get(name)
        if declared is None:
            kinds = "; ".join(f"{known}: {drift.about.strip()}" for known, drift in self.generative.drifts.items())
            raise SimulationError(f"{self.name} has no drift {name!r}. It has {kinds or 'none'}")
        try:
            self.calendar.validate(start or declared.start)
        except ValueError as error:
            raise SimulationError(f"drift {text!r}: {error}. Expected is NAME:PERIOD:STRENGTH") from error
        try:
            number = float(strength) if strength else 1.0
        except ValueError:
            number = -1.0
        if not 0 < number <= 10:
            raise SimulationError(
                f"drift {text!r}: the strength is {strength!r}; a number above 0, up to 10, is expected"
            )
        return StartingDrift(name, start or declared.start, number, declared)


@dataclass(frozen=True)
class StartingDrift:
    """A drift with the period from which it is at work."""

    name: str
    start: str
    strength: float
    declared: Drift

    def __str__(self) -> str:
        return f"{self.name}:{self.start}:{self.strength:g}"


@dataclass(frozen=True)
class Batch:
    """A period's file: what is in it, and whether a file that was there before was replaced or the very same."""

    period: str
    path: Path
    rows: int
    positive_share: float
    drifts: tuple[str, ...]
    before: str | None


def simulated_model(folder: Path) -> SimulatedModel:
    """The model that a folder with defs.yaml and simulation.yaml declares. Raises SimulationError."""
    from pydantic import ValidationError

    from mlops_assets.declaration.yaml_documents import DeclarationError, read_documents

    # Only what a simulation needs is asked for, so that data can be drawn before the model is declared to its end.
    path = folder / "defs.yaml"
    try:
        documents = read_documents(path)
    except DeclarationError as error:
        raise SimulationError(str(error)) from error
    if len(documents) != 1:
        raise SimulationError(f"{path}: found {len(documents)} YAML documents, expected one to simulate")
    try:
        declared = documents[0].value["attributes"]
        calendar = Calendar(declared.get("cadence", "monthly"))
        source = Source.model_validate(declared["source"])
        name, start, end = declared["name"], calendar.validate(str(declared["start"])), declared.get("end")
        lead = int(declared.get("lead", 0))
    except (KeyError, ValueError, TypeError, AttributeError, ValidationError) as error:
        raise SimulationError(f"{path} declares no model that could be simulated: {error}") from error
    return SimulatedModel(name, source, calendar, start, None if end is None else str(end), lead, folder)


def find_model(name: str, folders: Sequence[Path]) -> SimulatedModel:
    """The model of this name among folders. Raises SimulationError, with those that can be simulated."""
    known = {folder.name: folder for folder in folders if (folder / FILE).is_file()}
    if name in known:
        return simulated_model(known[name])
    reason = "is not declared" if name not in {folder.name for folder in folders} else f"has no {FILE} in its folder"
    raise SimulationError(f"{name!r} {reason}; models that can be simulated: {', '.join(sorted(known)) or 'none'}")


def simulate(
    model: SimulatedModel,
    periods: Sequence[str],
    folder: Path,
    *,
    rows: int | None = None,
    seed: int = 42,
    drifts: Sequence[StartingDrift] = (),
    table: Path | None = None,
) -> Iterator[Batch]:
    """Write a file for each of the periods below a folder, yielding each when it is there.

    The same arguments give the same bytes, whichever other periods are drawn. A file that is there already is
    replaced when it is a simulated one.

    Args:
        rows: records of a period; by default those of the generative model.
        drifts: for records of the generative model only.
        table: CSV file of real rows to draw from, instead of the generative model.

    Raises:
        SimulationError: at the call, unless it concerns the records of a period.
    """
    if table is not None and drifts:
        raise SimulationError(
            f"the drifts {', '.join(map(str, drifts))} are those of the generative model; rows of a real table are "
            "drawn as they are, so leave out --drift or --table"
        )
    number = model.generative.rows if rows is None else rows
    real = None if table is None else read_table(table, model.table_columns, model.generative.missing_in_table)
    targets = {period: folder / model.source.path.replace("{period}", period) for period in periods}
    for path in targets.values():
        _refuse_other_files(path)
    return _written(model, targets, number, seed, drifts, real)


def _written(
    model: SimulatedModel,
    targets: Mapping[str, Path],
    number: int,
    seed: int,
    drifts: Sequence[StartingDrift],
    real: RealTable | None,
) -> Iterator[Batch]:
    for period, path in targets.items():
        at_work = [drift for drift in drifts if drift.start <= period]
        content = (
            _from_table(model, period, number, seed, real) if real else _drawn(model, period, number, seed, at_work)
        )
        content = _typed(model, content)
        before = path.read_bytes() if path.is_file() else None
        with Arriving(path) as temporary:
            pq.write_table(content, temporary, compression="zstd")
        after = path.read_bytes()
        same = "the same" if before == after else "replaced"
        outcome = content.column(model.generative.outcome.column).to_numpy(zero_copy_only=False)
        yield Batch(
            period,
            path,
            content.num_rows,
            float(np.mean([_is(value, model.generative.outcome.positive) for value in outcome])),
            tuple(str(drift) for drift in at_work),
            None if before is None else same,
        )


def _is(value: Any, positive: str | int) -> bool:
    """Whether an outcome is the positive one; a real table may write it in capitals."""
    return str(value).strip().lower() == str(positive).lower()


def _refuse_other_files(path: Path) -> None:
    if path.is_file() and MARK not in (_metadata(path) or {}):
        raise SimulationError(
            f"{path} is there and was not simulated, so it is not replaced; move it away, or write elsewhere with --to"
        )


def _metadata(path: Path) -> dict[bytes, bytes] | None:
    try:
        metadata: dict[bytes, bytes] | None = pq.read_schema(path).metadata
    except pa.ArrowException:
        return None
    return metadata


def _drawn(model: SimulatedModel, period: str, rows: int, seed: int, drifts: Sequence[StartingDrift]) -> pa.Table:
    declared, calendar = model.generative, model.calendar
    records = draw(
        declared,
        model.name,
        period,
        rows,
        first=calendar.start(period),
        end=calendar.end(period),
        seed=seed,
        drifts=[ActiveDrift(drift.name, drift.strength) for drift in drifts],
    )
    mark = {
        "synthetic": True,
        "about": "drawn from a generative model: no row is a record of anything that has happened",
        "generative_model": model.digest,
        "drifts": [str(drift) for drift in drifts],
    }
    return _marked(model, period, seed, SYNTHETIC, _columns(records), records.time, mark)


def _columns(records: Records) -> dict[str, pa.Array]:
    return {name: pa.array(values, mask=records.missing[name]) for name, values in records.values.items()}


def _from_table(model: SimulatedModel, period: str, rows: int, seed: int, table: RealTable) -> pa.Table:
    random = stream(model.name, period, seed, "(rows of a table)")
    drawn = table.drawn(rows, random)
    calendar, streamed = model.calendar, stream(model.name, period, seed, "(time)")
    times = draw_times(model.generative, calendar.start(period), calendar.end(period), rows, streamed)
    mark = {
        "synthetic": False,
        "about": "rows of a real table without dates, drawn at random; the time of each is simulated",
        "table": table.name,
        "table_sha256": table.sha256,
    }
    columns = {name: drawn.column(name).combine_chunks() for name in drawn.column_names}
    return _marked(model, period, seed, REAL_ROWS, columns, times, mark)


def _marked(
    model: SimulatedModel,
    period: str,
    seed: int,
    origin: str,
    columns: dict[str, pa.Array],
    times: Any,
    mark: dict[str, Any],
) -> pa.Table:
    declared = model.generative
    own = {
        declared.time.column: pa.array(times.astype("datetime64[us]")),
        declared.origin: pa.array([origin] * len(times)),
    }
    told = {"model": model.name, "period": period, "seed": seed, "rows": len(times), **mark}
    return pa.table(own | columns).replace_schema_metadata({MARK: json.dumps(told, sort_keys=True).encode()})


def _typed(model: SimulatedModel, content: pa.Table) -> pa.Table:
    """The columns of the source's schema, in its order and types."""
    import duckdb

    listed = ", ".join(
        f"CAST({identifier(name)} AS {kind}) AS {identifier(name)}" for name, kind in model.source.schema.items()
    )
    with source_database(model.source.timezone) as con:
        con.register("content", content)
        try:
            typed = con.sql(f"SELECT {listed} FROM content").to_arrow_table()
        except duckdb.ConversionException as error:
            raise SimulationError(f"a value does not fit the source's schema: {str(error).splitlines()[0]}") from error
    return typed.replace_schema_metadata(content.schema.metadata)
