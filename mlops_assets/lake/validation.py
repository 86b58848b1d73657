"""Judging feature rows against the rules of their columns, batch by batch, with pandera.

Here: which rules are broken, by how many rows, and by which. Whether the share of missing values is unusual
(`max_null`) is a question of completeness, and asked elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.frames import exact_frame
from mlops_assets.lake.repeats import Repeats
from mlops_assets.lake.store import identifier

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandera.pandas as pandera
    import pyarrow as pa

    from mlops_assets.lake.columns import Column

EXAMPLES = 5
_KEY_HASH = "__key_hash"
_NUMBERS = {
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("FLOAT", "DOUBLE"),
}


@dataclass(frozen=True)
class Violation:
    """A rule that some rows break.

    Attributes:
        column: the column, or the keys for `unique`.
        rule: as declared, e.g. `> 0`; `not null`, `finite`, `type …`, `present` or `unique`.
        rows, share: how many rows break it, and their share of all rows.
        tolerance: the share that may.
        examples: up to five offending rows, as "key: value".
    """

    column: str
    rule: str
    rows: int
    share: float
    tolerance: float
    examples: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether more rows break the rule than are tolerated."""
        return self.share > self.tolerance


def validate(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    columns: Mapping[str, Column],
    keys: Sequence[str] = ("record_id",),
) -> list[Violation]:
    """The rules that the rows of a query break, in the order of the columns; an empty list when all is well.

    Every column has to be present and, when numeric, of a number type and finite; every key has to occur
    once. Tolerance applies to ranges, lists of values and finiteness. The query is streamed: memory is
    bounded.

    Args:
        sql: a SELECT statement whose columns include those of `columns` and `keys`.
        keys: the columns that identify a row.
    """
    types = {name: str(kind) for name, kind, *_ in con.sql(f"DESCRIBE {sql}").fetchall()}
    lost = [key for key in keys if key not in types]
    if lost:
        raise ValueError(f"the query has no key column {', '.join(lost)}; it has {', '.join(types)}")
    judged = {name: column for name, column in columns.items() if name in types}
    usable = {name: column for name, column in judged.items() if not _wrong_type(column, types[name])}
    schema = _schema(usable, types)
    wanted = ", ".join(_selected(name, types, usable) for name in dict.fromkeys([*keys, *schema.columns]))
    key_hash = f"hash({', '.join(map(identifier, keys))}) AS {_KEY_HASH}"
    counts: dict[tuple[str, str], int] = {}
    examples: dict[tuple[str, str], list[str]] = {}
    rows = 0
    with Repeats(con) as hashes:
        for batch in query_batches(con, f"SELECT {wanted}, {key_hash} FROM ({sql})"):
            rows += batch.num_rows
            hashes.add(batch.column(batch.num_columns - 1).to_numpy())
            for column, rule, broken in _broken(schema, batch):
                at = (column, rule)
                counts[at] = counts.get(at, 0) + int(broken.sum())
                shown = examples.setdefault(at, [])
                if len(shown) < EXAMPLES:
                    shown.extend(_examples(batch, broken, column, keys, EXAMPLES - len(shown)))
        repeats, repeated = hashes.count(EXAMPLES)
    found = [
        Violation(
            column,
            rule,
            count,
            count / rows,
            _tolerance(columns[column], rule),
            tuple(examples[column, rule]),
        )
        for (column, rule), count in counts.items()
    ]
    found += _unusable(columns, types, rows)
    found.sort(key=lambda violation: list(columns).index(violation.column))
    return found + (_repeated_keys(con, sql, keys, repeats, repeated, rows) if repeats else [])


def _wrong_type(column: Column, kind: str) -> bool:
    return column.kind == "numeric" and kind not in _NUMBERS and not _is_wide(kind)


def _is_wide(kind: str) -> bool:
    # What DuckDB gives for literals like 1.0 and for sum(): numbers, but objects for numpy.
    return kind in {"HUGEINT", "UHUGEINT"} or kind.startswith("DECIMAL")


def _selected(name: str, types: Mapping[str, str], judged: Mapping[str, Column]) -> str:
    """A number as a double, as its limits are; a key or category as it is."""
    column = identifier(name)
    rules = judged.get(name)
    number = rules is not None and (rules.kind == "numeric" or any(isinstance(v, float) for v in rules.isin or []))
    return f"{column}::DOUBLE AS {column}" if number and _is_wide(types[name]) else column


def _unusable(columns: Mapping[str, Column], types: Mapping[str, str], rows: int) -> list[Violation]:
    found = []
    for name, column in columns.items():
        if name not in types:
            found.append(Violation(name, "present", rows, 1.0, 0.0))
        elif _wrong_type(column, types[name]):
            rule = f"type number, found {types[name]} (cast it to BIGINT or DOUBLE, or declare it categorical)"
            found.append(Violation(name, rule, rows, 1.0, 0.0))
    return found


def _schema(columns: Mapping[str, Column], types: Mapping[str, str]) -> pandera.DataFrameSchema:
    """The pandera schema of the columns that have anything to check; made once for all batches."""
    import pandera.pandas as pandera

    with_checks = {name: _checks(column, types[name]) for name, column in columns.items()}
    return pandera.DataFrameSchema(
        {
            # Missing values are a check of ours: pandera's own lists every row that fails.
            name: pandera.Column(checks=checks, nullable=True, required=True)
            for name, checks in with_checks.items()
            if checks
        }
    )


def _checks(column: Column, kind: str) -> list[pandera.Check]:
    import numpy as np
    import pandera.pandas as pandera

    checks = []
    if column.gt is not None:
        checks.append(pandera.Check.gt(column.gt, name=f"> {column.gt:g}", n_failure_cases=1))
    if column.ge is not None:
        checks.append(pandera.Check.ge(column.ge, name=f">= {column.ge:g}", n_failure_cases=1))
    if column.lt is not None:
        checks.append(pandera.Check.lt(column.lt, name=f"< {column.lt:g}", n_failure_cases=1))
    if column.le is not None:
        checks.append(pandera.Check.le(column.le, name=f"<= {column.le:g}", n_failure_cases=1))
    if column.isin is not None:
        checks.append(pandera.Check.isin(column.isin, name=f"in {column.isin}", n_failure_cases=1))
    if kind in {"FLOAT", "DOUBLE"}:
        checks.append(pandera.Check(lambda values: ~np.isinf(values), name="finite", n_failure_cases=1))
    if not column.nullable:
        checks.append(pandera.Check(lambda values: values.notna(), name="not null", ignore_na=False, n_failure_cases=1))
    return checks


def _tolerance(column: Column, rule: str) -> float:
    return 0.0 if rule == "not null" else column.tolerance


def _broken(schema: pandera.DataFrameSchema, batch: pa.RecordBatch) -> Iterator[tuple[str, str, np.ndarray]]:
    """For each rule that the batch breaks: column, rule, and which rows (bool, one per row)."""
    from pandera.errors import SchemaErrors

    if not schema.columns:
        return
    frame = exact_frame(batch.select(list(schema.columns)))
    try:
        with warnings.catch_warnings():
            # pandera joins its lists of failures in a way that pandas will change; they aren't used here.
            warnings.filterwarnings("ignore", category=FutureWarning, module="pandera")
            schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        for error in errors.schema_errors:
            if not hasattr(error.check, "name") or error.check_output is None:
                raise
            passed = error.check_output.reindex(frame.index, fill_value=True)
            yield str(error.schema.name), str(error.check.name), ~passed.to_numpy(dtype=bool)


def _examples(batch: pa.RecordBatch, broken: np.ndarray, column: str, keys: Sequence[str], wanted: int) -> list[str]:
    names = batch.schema.names

    def value(name: str, row: int) -> Any:
        return batch.column(names.index(name))[row].as_py()

    rows = broken.nonzero()[0][:wanted].tolist()
    return [f"{', '.join(str(value(key, row)) for key in keys)}: {value(column, row)}" for row in rows]


def _repeated_keys(
    con: duckdb.DuckDBPyConnection, sql: str, keys: Sequence[str], repeats: int, repeated: Sequence[int], rows: int
) -> list[Violation]:
    listed = ", ".join(map(identifier, keys))
    few = ", ".join(map(str, repeated))
    query = f"SELECT {listed}, count(*) FROM ({sql}) WHERE hash({listed}) IN ({few}) GROUP BY ALL ORDER BY ALL"
    examples = tuple(f"{', '.join(map(str, found[:-1]))}: {found[-1]} rows" for found in con.sql(query).fetchall())
    return [Violation(", ".join(keys), "unique", repeats, repeats / rows, 0.0, examples)]
