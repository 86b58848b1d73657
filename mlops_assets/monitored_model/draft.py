"""A first declaration of a model, drafted from a file of its records: a start to be corrected, valid as it is.

Here: what a file's columns look like, and what that suggests. No Dagster. What was guessed can be wrong (a number that
is a name, a column that tells the answer), so every guess is a line of the draft that a person sees.
"""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from string import Template
from typing import Any, Literal

import duckdb
import yaml

from mlops_assets.lake.periods import Calendar
from mlops_assets.lake.store import identifier, quoted
from mlops_assets.sources.casting import moment_sql
from mlops_assets.sources.connection import source_database

PLATFORM_MAKES = ("record_id", "period")
TIMES = ("DATE", "TIMESTAMP")
# Tried in this order on a CSV's text. "01234" is a name, not a number.
CSV_TYPES = ("BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP")
LARGEST_SEGMENTATION = 20
# More classes than a person would list.
MOST_CLASSES = 20

DEFS_YAML = Template("""\
type: $type_name

# Check what you write with `dg check yaml $folder` and `dg check defs`;
# then: mlops-assets backfill $name $start..$until
attributes:
  name: $name
  records: $records  # what one row is, in the plural
  description: What does this model predict?
  cadence: monthly  # or weekly; a weekly period is named by its Monday
  start: "$start"  # first period
$end

  source:
    path: $path  # below MLOPS_DATA_DIR; {period} where each period has its own file
$csv    time_column: $time_column  # picks a row's period
    keys: $keys  # columns that name a record; [] when none do: then its row number does
    schema:  # the columns that features.sql reads, with their DuckDB types
$schema

  target: $target

  columns:  # the feature columns, in order, with what they may hold
$columns

  segments: $segments  # columns to break results down by
  window: {train: [-2, -2], validation: [-1, -1], test: [0, 0]}  # periods, relative to the one that trains

  candidates:  # any estimator with scikit-learn's interface; several compete
    - estimator: sklearn.ensemble.HistGradientBoosting$kind
      params: {max_iter: 100, learning_rate: 0.1}
      search: {learning_rate: {float: [0.03, 0.3], log: true}, max_leaf_nodes: {int: [4, 31]}}
  trials: 8
  metric: $metric

  drift: {warning: 0.1, severe: 0.25, share: 0.1, important_share: 0.2, novelty: 0.5}  # PSI, and shares
""")

FEATURES_SQL = Template("""\
-- One row per record: its key, the source's time column, the features, the target (NULL while it is not known).
-- Never filter on the target: the same query serves records whose outcome is still to come.
SELECT
$selected
FROM raw_$records
""")


class DraftError(ValueError):
    """Nothing can be drafted from this file, or not with this target."""


@dataclass(frozen=True)
class Draft:
    """What is known, or guessed, of a model before anybody has edited its declaration.

    `features` are the rules of each feature column, `target` the value of the YAML key, `delimiter` that of a CSV file.
    """

    records: str
    path: str
    start: str
    time_column: str | None
    schema: dict[str, str]
    target: dict[str, Any]
    features: dict[str, dict[str, Any]]
    end: str | None = None
    keys: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    delimiter: str = ","
    target_expression: str | None = None

    def defs_yaml(self, name: str, type_name: str, folder: str) -> str:
        """The text of defs.yaml for a model of this name, in this folder of the project."""
        classification = self.target["task"] == "classification"
        end = f'  end: "{self.end}"  # last period; without it the partitions follow the calendar'
        text = DEFS_YAML.substitute(
            type_name=type_name,
            name=name,
            folder=folder,
            records=self.records,
            start=self.start,
            end=end if self.end else '  # end: "2024-12"  # without it the partitions follow the calendar',
            until=self.end or "TO",
            path=_flow(self.path),
            csv=f"    csv: {_flow({'delim': self.delimiter})}\n" if self.delimiter != "," else "",
            time_column=_flow(self.time_column),
            keys=_flow(self.keys),
            schema=_block(self.schema, 6),
            target=_flow(self.target) + ("  # isin: the classes seen" if "isin" in self.target else ""),
            columns=_block(self.features, 4),
            segments=_flow(self.segments),
            kind="Classifier" if classification else "Regressor",
            metric="f1  # the cut between the classes is tuned" if classification else "mae",
        )
        return _aligned(text)

    def features_sql(self) -> str:
        """The text of features.sql: the columns of the file as they are."""
        target = _in_sql(self.target["column"])
        if self.target_expression:
            target = f"{self.target_expression} AS {target}"
        key = self.keys or ["record_id"]
        time = [self.time_column] if self.time_column else []
        columns = [_in_sql(name) for name in dict.fromkeys([*key, *time, *self.features])]
        return FEATURES_SQL.substitute(
            selected=",\n".join(f"    {column}" for column in [*columns, target]), records=self.records
        )


def example() -> Draft:
    """A draft of nothing in particular, for those who have no file yet."""
    return Draft(
        records="records",
        path="records/records-{period}.csv",
        start="2024-01",
        time_column="happened_at",
        schema={"happened_at": "TIMESTAMP", "amount": "DOUBLE", "kind": "VARCHAR", "outcome": "BIGINT"},
        target={"column": "target", "task": "classification", "positive": 1, "isin": [0, 1]},
        features={"amount": {"ge": 0}, "kind": {"categorical": True}},
        segments=["kind"],
        target_expression="outcome",
    )


def drafted(source: str, target: str | None, data_dir: Path, working_dir: Path) -> Draft:
    """A draft from a CSV or Parquet file, or from a file per period when `{period}` is in its path.

    Parameters
    ----------
    source
        Path of the file, from the working directory or from the data folder, which it has to lie in.
    target
        The column to predict.

    Raises
    ------
    DraftError
        The file is not there, not in the data folder or can't be read; or it has no such column, or no time column.
    """
    path = _below(source, data_dir, working_dir)
    files = sorted(data_dir.glob(path.replace("{period}", "*")))
    if not files:
        raise DraftError(f"there is no file {data_dir / path}; put it there, or say where it is below {data_dir}")
    with source_database() as con:
        try:
            table, delimiter = _table(files[-1], con)
            con.execute(f"CREATE TEMP TABLE records AS FROM {table}")
            schema = _types(con, typed=delimiter is None)
            return _draft(path, files, delimiter, schema, target, con)
        except duckdb.Error as error:
            raise DraftError(f"{files[-1]} can't be read: {str(error).splitlines()[0]}") from error


def _below(source: str, data_dir: Path, working_dir: Path) -> str:
    given = working_dir / source
    if given.exists() or given.parent.is_dir():
        if given.resolve().is_relative_to(data_dir):
            return given.resolve().relative_to(data_dir).as_posix()
        if not (data_dir / source).exists() and given.exists():
            raise DraftError(f"{source} is not below the data folder {data_dir}; move it there, or set MLOPS_DATA_DIR")
    return source


def _table(path: Path, con: duckdb.DuckDBPyConnection) -> tuple[str, str | None]:
    """The FROM expression of a file, and the delimiter when it is text."""
    if path.suffix in {".parquet", ".pq"}:
        return f"read_parquet({quoted(str(path))})", None
    (delimiter,) = con.execute(f"SELECT Delimiter FROM sniff_csv({quoted(str(path))})").fetchall()[0]
    spelled = f"header = true, all_varchar = true, delim = {quoted(delimiter)}"
    return f"read_csv({quoted(str(path))}, {spelled})", delimiter


def _types(con: duckdb.DuckDBPyConnection, *, typed: bool) -> dict[str, str]:
    """Each column's type. That of text is the first which all values can be cast to, as the platform casts them."""
    found = {row[0]: str(row[1]) for row in con.execute("DESCRIBE records").fetchall()}
    found = {name: kind for name, kind in found.items() if name.lower() not in PLATFORM_MAKES}
    return found if typed else {name: _type_of_text(name, con) for name in found}


def _type_of_text(name: str, con: duckdb.DuckDBPyConnection) -> str:
    column = f"nullif({identifier(name)}, '')"
    casts = ", ".join(f"count(TRY_CAST({column} AS {kind}))" for kind in CSV_TYPES)
    days = f"count(*) FILTER (TRY_CAST({column} AS TIMESTAMP) = TRY_CAST({column} AS DATE) AND length({column}) <= 10)"
    names = f"count(*) FILTER (regexp_matches({column}, '^0[0-9]'))"
    fractions = f"count(*) FILTER (NOT regexp_full_match({column}, '[+-]?[0-9]+'))"
    words = f"count(*) FILTER (NOT regexp_full_match(lower({column}), 'true|false'))"
    query = f"SELECT count({column}), {names}, {fractions}, {words}, {days}, {casts} FROM records"
    known, with_zero, no_integer, no_boolean, whole_days, *fitting = con.execute(query).fetchall()[0]
    # DuckDB casts more than fits: 1.5 to 2, "yes" to true.
    ruled_out = {"BIGINT": with_zero or no_integer, "DOUBLE": with_zero, "BOOLEAN": no_boolean}
    for kind, count in zip(CSV_TYPES, fitting, strict=True):
        if known and count == known and not ruled_out.get(kind):
            return "DATE" if kind == "TIMESTAMP" and whole_days == known else kind
    return "VARCHAR"


def _draft(
    path: str,
    files: list[Path],
    delimiter: str | None,
    schema: dict[str, str],
    target: str | None,
    con: duckdb.DuckDBPyConnection,
) -> Draft:
    if target not in schema:
        close = difflib.get_close_matches(target or "", schema, 1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        asked = f"there is no column {target!r}{hint}" if target else "--target has to name the column to predict."
        raise DraftError(f"{asked} {files[-1].name} has {', '.join(schema)}")
    time_column = next((name for name, kind in schema.items() if kind.startswith(TIMES)), None)
    if time_column is None:
        raise DraftError(
            f"{files[-1].name} has no column of dates or times, which tell a row's period; found {schema}. Dates are "
            "expected as 2025-01-31, times as 2025-01-31 23:59"
        )
    start, end = _range(path, files, time_column, con)
    shown = {name: kind for name, kind in schema.items() if name not in {target, time_column}}
    keys = [name for name, kind in shown.items() if kind in {"VARCHAR", "BIGINT"} and _is_unique(name, con)][:1]
    features = {
        name: _rules(name, kind, con)
        for name, kind in shown.items()
        if name not in keys and not kind.startswith((*TIMES, "TIME"))
    }
    if not features:
        raise DraftError(f"{files[-1].name} has no column to predict {target} from; found {schema}")
    stem = re.sub(r"[^a-z0-9]+", "_", Path(path.replace("{period}", "")).stem.lower()).strip("_")
    return Draft(
        records=stem if re.match(r"[a-z]", stem) else "records",
        path=path,
        start=start,
        end=end,
        time_column=time_column,
        keys=keys,
        schema=schema,
        target=_target(target, schema[target], con),
        features=features,
        segments=[name for name, rules in features.items() if "categorical" in rules and _is_short(name, con)][:1],
        delimiter=delimiter or ",",
    )


def _range(path: str, files: list[Path], time_column: str, con: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    calendar = Calendar("monthly")
    if "{period}" in path:
        before, after = (re.escape(part) for part in path.split("{period}", 1))
        named = [re.search(before + r"(\d{4}-\d{2})" + after, file.as_posix()) for file in files]
        periods = sorted(match[1] for match in named if match)
        if not periods:
            raise DraftError(f"no file is called {path} with a month like 2025-01 for {{period}}; found {files[-1]}")
        return periods[0], periods[-1]
    kinds = {row[0]: str(row[1]) for row in con.execute("DESCRIBE records").fetchall()}
    times = moment_sql(identifier(time_column), kinds[time_column])
    first, last = con.execute(f"SELECT min({times})::DATE, max({times})::DATE FROM records").fetchall()[0]
    if not isinstance(first, date):
        raise DraftError(f"the column {time_column!r} is empty, so no row's period is known")
    return calendar.of(first), calendar.of(last)


def _is_unique(name: str, con: duckdb.DuckDBPyConnection) -> bool:
    return bool(con.execute(f"SELECT count(DISTINCT {identifier(name)}) = count(*) FROM records").fetchall()[0][0])


def _is_short(name: str, con: duckdb.DuckDBPyConnection) -> bool:
    found = con.execute(f"SELECT count(DISTINCT {identifier(name)}) FROM records").fetchall()
    return bool(found[0][0] <= LARGEST_SEGMENTATION)


def _rules(name: str, kind: str, con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    numeric = re.search(r"INT|DOUBLE|FLOAT|DECIMAL|BOOLEAN", kind) and "[" not in kind
    if not numeric:
        return {"categorical": True}
    if kind == "BOOLEAN":
        return {}
    least = con.execute(f"SELECT min({identifier(name)}::DOUBLE) FROM records").fetchall()[0][0]
    return {"ge": 0} if least is not None and least >= 0 else {}


def _target(name: str, kind: str, con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Two values, or names, are classes, the rarest being the event unless one says 1 or true; else it is an amount.

    The classes seen are all that may occur: another one would count as "not the event" without a word.
    """
    column = f"TRY_CAST({identifier(name)} AS {kind})"
    values = con.execute(
        f"SELECT {column} AS value, count(*) FROM records WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2, 1"
    ).fetchall()
    classes: list[Any] = [value for value, _ in values]
    if len(classes) < 2:
        raise DraftError(f"{name!r} has fewer than two values: {classes}; there is nothing to predict")
    task: Literal["classification", "regression"]
    task = "classification" if len(classes) == 2 or kind in {"VARCHAR", "BOOLEAN"} else "regression"
    if task == "regression":
        return {"column": name, "task": task}
    positive = next((value for value in classes if value in (1, True)), classes[0])
    listed = {"isin": sorted(classes)} if len(classes) <= MOST_CLASSES else {}
    return {"column": name, "task": task, "positive": positive, **listed}


@functools.cache
def reserved_words() -> frozenset[str]:
    """The words that DuckDB does not take for a column's name."""
    with duckdb.connect(config={"threads": 1}) as con:
        found = con.execute("SELECT upper(keyword_name) FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'")
        return frozenset(word for (word,) in found.fetchall())


def _in_sql(name: str) -> str:
    """A column's name as a person would write it: in quotes where SQL wants them."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.upper() not in reserved_words()
    return name if plain else identifier(name)


def _aligned(text: str) -> str:
    """The text with the remarks behind its lines below each other, where the lines are short enough."""
    parts = [re.fullmatch(r"(\s*[^\s#].*?) +(# .*)", line) or line for line in text.splitlines()]
    return "".join(f"{part if isinstance(part, str) else f'{part[1]:<32}  {part[2]}'}\n" for part in parts)


def _flow(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _block(entries: dict[str, Any], indent: int) -> str:
    return "\n".join(f"{' ' * indent}{_flow(name)}: {_flow(value)}" for name, value in entries.items())
