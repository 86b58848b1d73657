"""Plan B: predictions for a period whose champion can't be trusted, from what was known before it turned.

A ladder of rungs, first choice first; the first that can serve is used and named, the others say why they could not.

- `segment_rate`: what happened last time in the record's segment, thin segments shrunk towards their parent.
- `previous_champion`: the version that was in force before the champion.
- `global_rate`: what happened last time on average, the same for every record.

Belongs here: making the predictions. Does not: deciding whether they are wanted (`incidents.gate`), finding the last
healthy period, loading models, storing anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from mlops_assets.lake.categories import number_text_sql
from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.frames import exact_frame
from mlops_assets.lake.store import identifier

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    from numpy.typing import NDArray

SHRINKAGE = 20.0
"""Default `PlanBInputs.shrinkage`: a segment of 20 source rows weighs as much as its parent."""

OWN_COLUMNS = ("score", "prediction", "outcome")
"""Names with a meaning of their own in the relations and the result: neither keys nor segments."""

_LARGE = 1e290

_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL.*")


class CannotServe(Exception):
    """A rung can't serve this period; the message says why."""


class NoPlanB(RuntimeError):
    """No rung of the ladder can serve.

    Attributes:
        reasons: why, by rung, in the order of the ladder.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        listed = "; ".join(f"{rung}: {reason}" for rung, reason in self.reasons.items())
        super().__init__(f"no rung of plan B can serve ({listed})")


@dataclass(frozen=True, kw_only=True)
class PreviousChampion:
    """A trained version, as plan B needs it.

    Attributes:
        version: its name in the registry.
        scores: takes a frame with the columns of the records and gives a finite score per row, shape (n_rows,).
        cut: its own decision cut; None for regression.
        columns: the columns that it can't do without.
    """

    version: str
    scores: Callable[[pd.DataFrame], NDArray[np.float64]]
    cut: float | None = None
    columns: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class PlanBInputs:
    """What plan B may use for one period. Relations are SQL for use after FROM, such as `Lake.scan` gives.

    Attributes:
        con: DuckDB that can read both relations.
        records: the period's records: keys, segment columns and whatever the previous champion needs; no target.
        keys: the columns of the records that the result repeats in front of the score.
        task: `classification`: scores are probabilities of the positive class. `regression`: predicted amounts.
        cut: the champion's cut, from which a score is predicted positive; None for regression.
        segments: segment columns from coarse to fine; each prefix of the list is a level of the hierarchy.
        source: the last healthy period's records: segment columns, the champion's `score`, and `outcome` where it is
            known (classification: 1 or 0). A value that is NULL or not finite is not known. None without such a period.
        source_period: the name of that period.
        previous: the version that was in force before the champion, None when there is none; or why it can't be used.
        shrinkage: weight of a segment's parent, in source rows: 0 takes raw means, a large one the overall mean.

    Raises:
        ValueError: parts that don't fit together.
    """

    con: duckdb.DuckDBPyConnection
    records: str
    keys: Sequence[str]
    task: Literal["classification", "regression"]
    cut: float | None = None
    segments: Sequence[str] = ()
    source: str | None = None
    source_period: str | None = None
    previous: PreviousChampion | str | None = None
    shrinkage: float = SHRINKAGE

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("keys is empty; name the columns that tell the records apart, e.g. ['record_id']")
        for what, names in (("keys", self.keys), ("segments", self.segments)):
            taken = [name for name in names if name.lower() in OWN_COLUMNS]
            if taken:
                raise ValueError(f"{what} names {taken}, which plan B uses itself; rename the column in features.sql")
            if len(set(names)) != len(names):
                raise ValueError(f"{what} lists a column twice: {list(names)}")
        self._check_cut("cut", self.cut)
        if isinstance(self.previous, PreviousChampion):
            self._check_cut(f"the cut of version {self.previous.version}", self.previous.cut)
        if (self.source is None) != (self.source_period is None):
            raise ValueError(
                f"source is {self.source!r} and source_period {self.source_period!r}; give both, or neither when "
                "there is no healthy period"
            )
        if not (math.isfinite(self.shrinkage) and self.shrinkage >= 0):
            raise ValueError(f"shrinkage is {self.shrinkage}; a number of rows of 0 or more is expected")

    def _check_cut(self, what: str, cut: float | None) -> None:
        if self.task == "regression" and cut is not None:
            raise ValueError(f"{what} is {cut}, but a regression predicts amounts and has no cut; leave it out")
        if self.task == "classification" and (cut is None or not math.isfinite(cut)):
            raise ValueError(f"{what} is {cut}; a score is expected, from which a record is predicted positive")


@dataclass(frozen=True)
class Served:
    """Plan B's predictions, and who made them.

    Attributes:
        rung: the rung that serves.
        batches: one row per record in the order of the records: the keys, `score`, and `prediction` (1 or 0 by the
            cut; regression: the score). It reads from the inputs' connection, which takes no other query until then.
        source_period: the period that the rates are from; None for `previous_champion`.
        model_version: the version that made the scores; None for rates.
        cut: what the scores were judged with; None for regression.
        skipped: why each earlier rung could not serve.
        facts: JSON-serialisable facts about the rung's source, for the reader. Rates: `source_rows`,
            `known_outcomes` (rows whose outcome is used instead of the score), `overall_rate`.
    """

    rung: str
    batches: pa.RecordBatchReader
    source_period: str | None = None
    model_version: str | None = None
    cut: float | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def serve(ladder: Sequence[str], inputs: PlanBInputs) -> Served:
    """The predictions of the first rung that can serve.

    Raises:
        ValueError: an empty ladder, an unknown or repeated rung; a key or segment column that the records don't have;
            outcomes or scores of a classification that are no probabilities.
        NoPlanB: no rung can serve.
    """
    check_ladder(ladder)
    known = _column_types(inputs.con, inputs.records)
    for what, names in (("key", inputs.keys), ("segment", inputs.segments)):
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"{what} columns {missing} are not among the features of the records: {list(known)}")
    skipped: dict[str, str] = {}
    for rung in ladder:
        try:
            return _RUNGS[rung](inputs, skipped)
        except CannotServe as error:
            skipped[rung] = str(error)
    raise NoPlanB(skipped)


def check_ladder(ladder: Sequence[str]) -> None:
    """Raise ValueError for a ladder that is empty, or names a rung that does not exist or twice."""
    if not ladder:
        raise ValueError(f"the ladder of plan B is empty; name at least one of {list(RUNGS)}")
    unknown = [rung for rung in ladder if rung not in _RUNGS]
    if unknown:
        raise ValueError(f"the ladder of plan B names {unknown}; the rungs are {list(RUNGS)}")
    if len(set(ladder)) != len(ladder):
        raise ValueError(f"the ladder of plan B lists a rung twice: {list(ladder)}")


# -- the rungs ------------------------------------------------------------------------------------------------


def _segment_rate(inputs: PlanBInputs, skipped: Mapping[str, str]) -> Served:
    r"""The mean of the record's segment in the source period, shrunk towards its parent's.

    With n source rows of mean y in a segment, k = `shrinkage` and the parent's rate r, the segment's rate is
    (n·y + k·r) / (n + k): empirical Bayes with a fixed prior weight (Efron and Morris, Data analysis using Stein's
    estimator and its generalizations, JASA 70, 1975), down a hierarchy as in Micci-Barreca, A preprocessing scheme for
    high-cardinality categorical attributes, SIGKDD Explorations 3(1), 2001. The root is the overall mean. A segment
    that the source never had takes its parent's rate. NULL is a segment value like any other.
    """
    if not inputs.segments:
        raise CannotServe("the model declares no segments")
    _check_comparable(inputs)
    source = _Source.of(inputs, _segments(inputs, _source_relation(inputs)))
    return source.served(inputs, "segment_rate", _segment_rate_query(inputs, source), skipped)


def _global_rate(inputs: PlanBInputs, skipped: Mapping[str, str]) -> Served:
    """The overall mean of the source period for every record."""
    source = _Source.of(inputs)
    query = (
        f"SELECT {_named_keys(inputs)}, score, {_prediction(inputs.cut)} AS prediction "
        f"FROM (SELECT {_aliased(inputs.keys, 'k')}, {_double(source.overall)} AS score FROM {inputs.records})"
    )
    return source.served(inputs, "global_rate", query, skipped)


def _previous_champion(inputs: PlanBInputs, skipped: Mapping[str, str]) -> Served:
    """The scores of the version that was in force before the champion, judged with its own cut."""
    previous = inputs.previous
    if previous is None:
        raise CannotServe("no version was in force before the champion")
    if isinstance(previous, str):
        raise CannotServe(previous)
    known = _column_types(inputs.con, inputs.records)
    missing = [name for name in previous.columns if name not in known]
    if missing:
        raise CannotServe(f"version {previous.version} needs the columns {missing}, which the records don't have")
    source = query_batches(inputs.con, f"SELECT * FROM {inputs.records}")
    own = [pa.field("score", pa.float64()), pa.field("prediction", pa.float64())]
    schema = pa.schema([*(source.schema.field(key) for key in inputs.keys), *own])
    batches = pa.RecordBatchReader.from_batches(schema, _scored(source, inputs.keys, previous, schema))
    return Served("previous_champion", batches, None, previous.version, previous.cut, dict(skipped))


_RUNGS: Mapping[str, Callable[[PlanBInputs, Mapping[str, str]], Served]] = {
    "segment_rate": _segment_rate,
    "previous_champion": _previous_champion,
    "global_rate": _global_rate,
}
RUNGS = tuple(_RUNGS)
"""The names that a ladder may list."""


def _scored(
    source: pa.RecordBatchReader, keys: Sequence[str], previous: PreviousChampion, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for batch in source:
        scores = np.asarray(previous.scores(exact_frame(batch)), dtype=np.float64)
        if scores.shape != (batch.num_rows,) or not np.isfinite(scores).all():
            raise ValueError(
                f"version {previous.version} gave scores of shape {scores.shape}, {np.isfinite(scores).sum()} of them "
                f"finite, for {batch.num_rows} records; one finite score each is expected. Take previous_champion off "
                "the ladder, or repair the version"
            )
        predictions = scores if previous.cut is None else (scores >= previous.cut).astype(np.float64)
        columns = [*(batch.column(key) for key in keys), pa.array(scores), pa.array(predictions)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


# -- the source of rates --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """The source period's values: its outcomes where they are known, the champion's scores elsewhere.

    Attributes:
        values: a SELECT of the segment columns as s0, s1, … and `units`, the value as a whole number of units. Whole
            numbers add up to the same sum in any order, so the rates don't depend on threads or the order of rows.
        unit: a power of 2, at most 2^-52 of the largest value.
        rows, known: how many values there are, and how many of them are outcomes.
        lowest, highest, overall: of the values.
    """

    values: str
    unit: float
    rows: int
    known: int
    lowest: float
    highest: float
    overall: float

    @classmethod
    def of(cls, inputs: PlanBInputs, segments: str | None = None) -> _Source:
        relation = _source_relation(inputs)
        types = _column_types(inputs.con, relation)
        missing = [name for name in ("score", "outcome") if name not in types]
        if missing:
            raise ValueError(f"the source relation has no column {missing}; its columns are {list(types)}")
        selected = [*([segments] if segments else []), f"{_finite('outcome')} AS known"]
        known_and_scored = f"SELECT {', '.join(selected)}, {_finite('score')} AS scored FROM {relation}"
        values = f"SELECT *, coalesce(known, scored) AS y FROM ({known_and_scored})"
        rows, known, lowest, highest = inputs.con.execute(
            f"SELECT count(y), count(known), min(y), max(y) FROM ({values})"
        ).fetchall()[0]
        if not rows:
            raise CannotServe(f"{inputs.source_period} has no record with a known outcome or a score")
        if inputs.task == "classification" and not 0 <= lowest <= highest <= 1:
            raise ValueError(
                f"outcomes or scores of {inputs.source_period} lie between {lowest:g} and {highest:g}; "
                "a classification has outcomes 0 and 1 and scores between them"
            )
        # Below 2^53 units every whole number is a double; the floor keeps the unit itself a normal one.
        unit = 2.0 ** max(math.frexp(max(abs(lowest), abs(highest)))[1] - 53, -1022)
        in_units = f"CAST(y / {_double(unit)} AS BIGINT)"
        total = int(inputs.con.execute(f"SELECT sum({in_units}) FROM ({values})").fetchall()[0][0])
        overall = total * unit / rows
        if not math.isfinite(overall):
            overall = total / rows * unit
        return cls(
            values=f"SELECT * EXCLUDE (known, scored, y), {in_units} AS units FROM ({values}) WHERE y IS NOT NULL",
            unit=unit,
            rows=rows,
            known=known,
            lowest=lowest,
            highest=highest,
            overall=min(max(overall, lowest), highest),
        )

    def served(self, inputs: PlanBInputs, rung: str, query: str, skipped: Mapping[str, str]) -> Served:
        facts = {"source_rows": self.rows, "known_outcomes": self.known, "overall_rate": self.overall}
        batches = query_batches(inputs.con, query)
        return Served(rung, batches, inputs.source_period, None, inputs.cut, dict(skipped), facts)


def _segment_rate_query(inputs: PlanBInputs, source: _Source) -> str:
    """A SELECT of keys, score and prediction per record, in the order of the records."""
    depths = range(1, len(inputs.segments) + 1)
    columns = [f"s{i}" for i in range(len(inputs.segments))]
    finest = len(inputs.segments)
    parts = [
        f"level{finest} AS MATERIALIZED (SELECT {', '.join(columns)}, count(*) AS n, sum(units) AS total "
        f"FROM ({source.values}) GROUP BY ALL)"
    ]
    for depth in reversed(depths[:-1]):
        parts.append(
            f"level{depth} AS (SELECT {', '.join(columns[:depth])}, sum(n) AS n, sum(total) AS total "
            f"FROM level{depth + 1} GROUP BY ALL)"
        )
    k = _double(inputs.shrinkage)
    for depth in depths:
        parent = _double(source.overall) if depth == 1 else "parent.rate"
        joined = "" if depth == 1 else f" JOIN rate{depth - 1} AS parent ON {_same('parent', 'own', depth - 1)}"
        rate = f"(own.total * {_double(source.unit)} + {k} * {parent}) / (own.n + {k})"
        if max(abs(source.lowest), abs(source.highest)) > _LARGE:
            # The sum itself may be no double.
            rate = f"own.total / (own.n + {k}) * {_double(source.unit)} + {k} / (own.n + {k}) * {parent}"
        # Rounding may leave a mean one bit outside its values; a probability must not be above 1.
        bounded = f"least(greatest({rate}, {_double(source.lowest)}), {_double(source.highest)})"
        own = ", ".join(f"own.{column}" for column in columns[:depth])
        parts.append(f"rate{depth} AS MATERIALIZED (SELECT {own}, {bounded} AS rate FROM level{depth} AS own{joined})")
    # A join gives rows in any order, so each record keeps its position.
    numbered = (
        f"SELECT row_number() OVER () AS position, {_aliased(inputs.keys, 'k')}, {_segments(inputs, inputs.records)} "
        f"FROM {inputs.records}"
    )
    rates = ", ".join(f"rate{depth}.rate" for depth in reversed(depths))
    joins = " ".join(f"LEFT JOIN rate{depth} ON {_same(f'rate{depth}', 'record', depth)}" for depth in depths)
    scored = (
        f"SELECT record.*, coalesce({rates}, {_double(source.overall)}) AS score FROM ({numbered}) AS record {joins}"
    )
    return (
        f"WITH {', '.join(parts)} SELECT {_named_keys(inputs)}, score, {_prediction(inputs.cut)} AS prediction "
        f"FROM ({scored}) ORDER BY position"
    )


def _source_relation(inputs: PlanBInputs) -> str:
    if inputs.source is None:
        raise CannotServe("there is no earlier healthy period")
    return inputs.source


def _check_comparable(inputs: PlanBInputs) -> None:
    """Raise CannotServe when the records' segments can't be found in the source."""
    there, here = _column_types(inputs.con, _source_relation(inputs)), _column_types(inputs.con, inputs.records)
    missing = [name for name in inputs.segments if name not in there]
    if missing:
        raise CannotServe(f"{inputs.source_period} has no segment columns {missing}")
    for name in inputs.segments:
        both_numbers = _NUMBER.fullmatch(there[name]) and _NUMBER.fullmatch(here[name])
        if there[name] != here[name] and not both_numbers:
            raise CannotServe(
                f"the segment column {name} is {there[name]} in {inputs.source_period} but {here[name]} in the records"
            )


# -- SQL ------------------------------------------------------------------------------------------------------


def _column_types(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {row[0]: str(row[1]) for row in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}


def _aliased(columns: Sequence[str], letter: str) -> str:
    # By position, so that no column of a model can have a name that the queries use themselves.
    return ", ".join(f"{identifier(column)} AS {letter}{i}" for i, column in enumerate(columns))


def _segments(inputs: PlanBInputs, relation: str) -> str:
    """The segment columns of a relation as s0, s1, …: as they are, or where a number has another type in the other
    relation by the text of its category, which is the same for 3 and 3.0 and keeps every digit.
    """
    there, here = _column_types(inputs.con, _source_relation(inputs)), _column_types(inputs.con, inputs.records)
    values = [
        identifier(name) if there[name] == here[name] else number_text_sql(identifier(name)) for name in inputs.segments
    ]
    return ", ".join(f"{value} AS s{i}" for i, value in enumerate(values))


def _named_keys(inputs: PlanBInputs) -> str:
    return ", ".join(f"k{i} AS {identifier(name)}" for i, name in enumerate(inputs.keys))


def _same(left: str, right: str, depth: int) -> str:
    return " AND ".join(f"{left}.s{i} IS NOT DISTINCT FROM {right}.s{i}" for i in range(depth))


def _finite(column: str) -> str:
    value = f"CAST({column} AS DOUBLE)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def _prediction(cut: float | None) -> str:
    return "score" if cut is None else f"CAST(score >= {_double(cut)} AS DOUBLE)"


def _double(value: float) -> str:
    # Through text: a bare literal would be read as a DECIMAL of limited digits.
    return f"'{float(value)!r}'::DOUBLE"
