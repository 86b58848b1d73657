"""A first declaration of a model, drafted from a file of its records: a start to be corrected, valid as it is.

Here: what a file's columns look like, and what that suggests. No Dagster. What was guessed can be wrong (a number that
is a name, a column that tells the answer), so every guess is a line of the draft that a person sees.
"""

from __future__ import annotations

import difflib
import functools
import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Literal

import duckdb
import yaml

from mlops_assets.lake.periods import Cadence, Calendar, PeriodError
from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.features_sql import check_features_sql
from mlops_assets.monitored_model.spec import PLATFORM_COLUMNS, ModelSpec
from mlops_assets.neutral_text import visible
from mlops_assets.sources.connection import source_database
from mlops_assets.sources.declaration import Format, Source
from mlops_assets.sources.inference import FILE, RECORDS, InferenceError, Inferred, infer

TIMES = ("DATE", "TIMESTAMP")
# Files are looked at whole; of more bytes than this, the first, the last and some in between.
MOST_BYTES = 500_000_000
# What the event of two classes is called where it has a name of its own; otherwise it is the rarer one.
AFFIRMATIVE = {"1", "1.0", "true", "t", "yes", "y"}
# What a record can be named by.
EXACT = re.compile(r"VARCHAR|BIGINT|UBIGINT|HUGEINT|UHUGEINT|DECIMAL\(\d+,0\)")
# Rows so few and so far from all others are mistyped.
MISTYPED, FAR_DAYS = 0.001, 366
LARGEST_SEGMENTATION = 20
# More classes than a person would list.
MOST_CLASSES = 20

# Stands before a remark, because values may hold the "#" of YAML.
REMARK = "\x00"

DEFS_YAML = Template(
    """\
type: $type_name

# Check what you write with `mlops-assets check $name` and `dg check defs`;
# then: mlops-assets backfill $name $start..$until
attributes:
  name: $name
  records: $records ~what one row is, in the plural
  description: What does this model predict?
  cadence: $cadence
  start: "$start" ~first period
$end

  source:
    path: $path ~below MLOPS_DATA_DIR; {period} where each period has its own file
$csv    time_column: $time_column ~picks a row's period
    keys: $keys ~columns that name a record; [] when none do: then its row number does
    schema: ~the columns that features.sql reads, with their DuckDB types
$schema
$notes
  target: $target

  columns: ~the feature columns, in order, with what they may hold
$columns

  segments: $segments ~columns to break results down by
  window: {train: [-2, -2], validation: [-1, -1], test: [0, 0]} ~periods, relative to the one that trains

  candidates: ~any estimator with scikit-learn's interface; several compete
    - estimator: sklearn.ensemble.HistGradientBoosting$kind
      params: {max_iter: 100, learning_rate: 0.1}
      search: {learning_rate: {float: [0.03, 0.3], log: true}, max_leaf_nodes: {int: [4, 31]}}
  trials: 8
  metric: $metric

  drift: {warning: 0.1, severe: 0.25, share: 0.1, important_share: 0.2, novelty: 0.5} ~PSI, and shares
""".replace(" ~", f" {REMARK}")
)

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

    `features` are the rules of each feature column, `target` the value of the YAML key, `csv` the options of CSV files.
    `expressions` says of which column of the file a feature or the target is made, where the names differ; `notes` are
    remarks for whoever corrects the draft.
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
    csv: dict[str, Any] = field(default_factory=dict)
    cadence: Cadence = "monthly"
    expressions: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def defs_yaml(self, name: str, type_name: str) -> str:
        """The text of defs.yaml for a model of this name."""
        classification = self.target["task"] == "classification"
        monthly = f"monthly {REMARK}or weekly; a weekly period is named by its Monday"
        end = f'  end: "{self.end}" {REMARK}last period; without it the partitions follow the calendar'
        text = DEFS_YAML.substitute(
            type_name=type_name,
            name=name,
            records=self.records,
            cadence=monthly if self.cadence == "monthly" else f"weekly {REMARK}a period is named by its Monday",
            start=self.start,
            end=end if self.end else '  # end: "2024-12"  # without it the partitions follow the calendar',
            until=self.end or "TO",
            path=_flow(self.path),
            csv=f"    csv: {_flow(self.csv)}\n" if self.csv else "",
            time_column=_flow(self.time_column),
            keys=_flow(self.keys),
            schema=_block(self.schema, 6),
            notes="".join(f"    # {visible(note)}\n" for note in self.notes),
            target=_flow(self.target) + (f" {REMARK}isin: the classes seen" if "isin" in self.target else ""),
            columns=_block(self.features, 4),
            segments=_flow(self.segments),
            kind="Classifier" if classification else "Regressor",
            metric=f"f1 {REMARK}the cut between the classes is tuned" if classification else "mae",
        )
        return _aligned(text)

    def features_sql(self) -> str:
        """The text of features.sql: the columns of the file as they are."""
        key = self.keys or ["record_id"]
        time = [self.time_column] if self.time_column else []
        names = dict.fromkeys([*key, *time, *self.features, self.target["column"]])
        return FEATURES_SQL.substitute(
            selected=",\n".join(f"    {self._selected(name)}" for name in names), records=self.records
        )

    def _selected(self, name: str) -> str:
        made_of = self.expressions.get(name)
        return _in_sql(name) if made_of is None else f"{_in_sql(made_of)} AS {_in_sql(name)}"


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
        expressions={"target": "outcome"},
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
    path = _below(source, data_dir.resolve(), working_dir)
    files = _files(path, data_dir.resolve())
    with source_database() as con:
        try:
            found = infer([file for file, _ in files], _format(path), con)
            draft = _draft(path, files, found, target, con)
        except InferenceError as error:
            raise DraftError(str(error)) from error
        except duckdb.Error as error:
            raise DraftError(f"{files[-1][0]} can't be read: {str(error).splitlines()[0]}") from error
    _check(draft)
    return draft


def _below(source: str, data_dir: Path, working_dir: Path) -> str:
    """The source's path below the data folder, given from there or from the working directory."""
    if "://" in source:
        raise DraftError(f"{source} is an address; draft from a file below {data_dir}, then set source.path to it")
    if "\x00" in source or not source.strip():
        raise DraftError(f"found {source!r} as --source, expected the name of a file below {data_dir}")
    parts = Path(source).parts
    named = next((number for number, part in enumerate(parts) if "{period}" in part), len(parts) - 1)
    folder = working_dir.joinpath(*parts[:named])
    place = folder.resolve().joinpath(*parts[named:])
    if folder.is_dir() and place.is_relative_to(data_dir) and place != data_dir:
        return place.relative_to(data_dir).as_posix()
    leads_out = Path(source).is_absolute() or ".." in parts
    if leads_out or (place.exists() and not (data_dir / source).exists()):
        raise DraftError(f"{source} is not below the data folder {data_dir}; move it there, or set MLOPS_DATA_DIR")
    return source


def _files(path: str, data_dir: Path) -> list[tuple[Path, str | None]]:
    """The files to look at, each with the period that its name says."""
    pattern = glob.escape(path).replace(glob.escape("{period}"), "*")
    files = [file for file in sorted(data_dir.glob(pattern)) if file.is_file()]
    if not files:
        raise DraftError(f"there is no file {data_dir / path}; put it there, or say where it is below {data_dir}")
    if "{period}" not in path:
        return [(files[0], None)]
    named = [(file, _period_of(file.relative_to(data_dir).as_posix(), path)) for file in files]
    known = [(file, period) for file, period in named if period is not None]
    if not known:
        raise DraftError(
            f"no file is called {path} with a month like 2025-01, or a Monday like 2025-01-06, for {{period}}; found "
            f"{files[-1].name}"
        )
    cadences = {len(period) for _, period in known}
    if len(cadences) > 1:
        raise DraftError(f"some files of {path} are called by months and others by weeks; a model has one cadence")
    return _looked_at(known)


def _period_of(file: str, path: str) -> str | None:
    pattern = r"(?P<period>\d{4}-\d{2}(-\d{2})?)"
    before, *after = (re.escape(part) for part in path.split("{period}"))
    found = re.fullmatch(before + pattern + "(?P=period)".join(after), file)
    if found is None:
        return None
    calendar = Calendar("monthly" if len(found["period"]) == 7 else "weekly")
    try:
        return calendar.validate(found["period"])
    except PeriodError:
        return None


def _looked_at(files: Sequence[tuple[Path, str]]) -> list[tuple[Path, str | None]]:
    """All files, or so many of them, evenly spread with the first and the last, as are not too large together."""
    total = sum(file.stat().st_size for file, _ in files)
    if total <= MOST_BYTES:
        return list(files)
    wanted = max(2, int(len(files) * MOST_BYTES / total))
    step = (len(files) - 1) / (wanted - 1)
    return [files[round(number * step)] for number in range(wanted)]


def _format(path: str) -> Format:
    try:
        return Source(path=f"{{period}}/{Path(path).name}", schema={"any": "VARCHAR"}).kind_of_file
    except ValueError as error:
        raise DraftError(f"{path}: expected a file that ends with .csv, .tsv, .txt or .parquet") from error


def _draft(
    path: str,
    files: Sequence[tuple[Path, str | None]],
    found: Inferred,
    target: str | None,
    con: duckdb.DuckDBPyConnection,
) -> Draft:
    schema, last = found.schema, files[-1][0].name
    if target not in schema:
        close = difflib.get_close_matches(target or "", schema, 1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        asked = f"there is no column {target!r}{hint}" if target else "--target has to name the column to predict."
        left_out = "".join(f" ({note})" for note in found.notes if target and note.startswith(f"left out: {target!r}"))
        raise DraftError(f"{asked} {last} has {', '.join(schema)}{left_out}")
    cadence: Cadence = "weekly" if len(files[0][1] or "") == 10 else "monthly"
    calendar = Calendar(cadence)
    time_column = _time_column(schema, target, files, calendar, con)
    if time_column is None:
        raise DraftError(
            f"{last} has no column of dates or times, which tell a row's period; found {schema}. Dates are "
            "expected as 2025-01-31 or in another common order, times as 2025-01-31 23:59"
        )
    periods = [period for _, period in files if period is not None]
    start, end = (periods[0], periods[-1]) if periods else _range(time_column, con)
    shown = {name: kind for name, kind in schema.items() if name not in {target, time_column}}
    keys = [name for name, kind in shown.items() if EXACT.fullmatch(kind) and _is_unique(name, con)][:1]
    usable = [name for name, kind in shown.items() if not kind.startswith((*TIMES, "TIME"))]
    if usable == keys:
        keys = []  # the only column that could tell anything
    made_of = {_own_name(name, schema): name for name in usable if name not in keys}
    if not made_of:
        raise DraftError(f"{last} has no column to predict {target} from; found {schema}")
    features = {own: _rules(name, schema[name], con) for own, name in made_of.items()}
    own_target = _own_name(target, schema)
    stem = re.sub(r"[^a-z0-9]+", "_", Path(path.replace("{period}", "")).name.partition(".")[0].lower()).strip("_")
    short = [own for own, name in made_of.items() if "categorical" in features[own] and _is_short(name, con)]
    return Draft(
        records=stem[:60] if re.match(r"[a-z]", stem) else "records",
        path=path,
        start=start,
        end=end,
        time_column=time_column,
        keys=keys,
        schema=schema,
        target=_target(target, schema[target], con) | {"column": own_target},
        features=features,
        segments=short[:1],
        csv=found.csv,
        cadence=cadence,
        expressions={own: name for own, name in [*made_of.items(), (own_target, target)] if own != name},
        notes=found.notes,
    )


def _own_name(name: str, schema: Mapping[str, str]) -> str:
    """What a feature made of a column is called: another name where the platform has that column itself."""
    own = name
    while own.lower() in PLATFORM_COLUMNS or (own != name and own in schema):
        own += "_"
    return own


def _time_column(
    schema: Mapping[str, str],
    target: str,
    files: Sequence[tuple[Path, str | None]],
    calendar: Calendar,
    con: duckdb.DuckDBPyConnection,
) -> str | None:
    """Of the columns of times that in which most rows have one, within the period that their file is named for."""
    names = [name for name, kind in schema.items() if kind.startswith(TIMES) and name != target]
    shares = {}
    for name in names:
        column = f"{identifier(name)}::TIMESTAMP"
        fitting = "true"
        if files[0][1] is not None:
            periods = " ".join(
                f"WHEN {number} THEN {column} >= '{calendar.start(period)}' AND {column} < '{calendar.end(period)}'"
                for number, (_, period) in enumerate(files)
                if period is not None
            )
            fitting = f"CASE {FILE} {periods} END"
        query = f"SELECT count(*) FILTER ({column} IS NOT NULL AND {fitting}), count({column}) FROM {RECORDS}"
        shares[name] = con.execute(query).fetchall()[0]
    return max(names, key=lambda name: shares[name], default=None)


def _range(time_column: str, con: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    """The first and the last month with rows; a few rows far away from all others are mistyped, and left out."""
    month = f"date_trunc('month', {identifier(time_column)}::TIMESTAMP)::DATE"
    query = f"SELECT {month} AS month, count(*) FROM {RECORDS} WHERE month IS NOT NULL GROUP BY 1 ORDER BY 1"
    counts = con.execute(query).fetchall()
    if not counts:
        raise DraftError(f"the column {time_column!r} is empty, so no row's period is known")
    few = max(1, int(MISTYPED * sum(rows for _, rows in counts)))
    while len(counts) > 1 and counts[-1][1] <= few and (counts[-1][0] - counts[-2][0]).days > FAR_DAYS:
        counts.pop()
    while len(counts) > 1 and counts[0][1] <= few and (counts[1][0] - counts[0][0]).days > FAR_DAYS:
        counts.pop(0)
    calendar = Calendar("monthly")
    return calendar.of(counts[0][0]), calendar.of(counts[-1][0])


def _check(draft: Draft) -> None:
    """Refuse a draft that would not load: nothing is written then."""
    (document,) = yaml.safe_load_all(draft.defs_yaml("drafted", "mlops_assets.MonitoredModel"))
    try:
        spec = ModelSpec.model_validate(document["attributes"])
        check_features_sql(spec, draft.features_sql(), Path("features.sql"))
    except ValueError as error:
        raise DraftError(f"no draft of {draft.path} would load: {error}") from error


def _is_unique(name: str, con: duckdb.DuckDBPyConnection) -> bool:
    # Keys name a record within its period: two files may use the same again.
    query = f"SELECT count(DISTINCT ({FILE}, {identifier(name)})) = count(*) AND count({identifier(name)}) = count(*)"
    return bool(con.execute(f"{query} FROM {RECORDS}").fetchall()[0][0])


def _is_short(name: str, con: duckdb.DuckDBPyConnection) -> bool:
    found = con.execute(f"SELECT count(DISTINCT {identifier(name)}) FROM {RECORDS}").fetchall()
    return bool(found[0][0] <= LARGEST_SEGMENTATION)


def _rules(name: str, kind: str, con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    numeric = re.search(r"INT|DOUBLE|FLOAT|DECIMAL|BOOLEAN", kind) and "[" not in kind
    if not numeric:
        return {"categorical": True}
    if kind == "BOOLEAN":
        return {}
    least = con.execute(f"SELECT min({identifier(name)}::DOUBLE) FROM {RECORDS}").fetchall()[0][0]
    return {"ge": 0} if least is not None and least >= 0 else {}


def _target(name: str, kind: str, con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Two values, or names, are classes, the rarest being the event unless one says 1 or true; else it is an amount.

    The classes seen are all that may occur: another one would count as "not the event" without a word.
    """
    column = identifier(name)
    values = con.execute(
        f"SELECT {column} AS value, count(*) FROM {RECORDS} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2, 1"
    ).fetchall()
    classes: list[Any] = [value for value, _ in values]
    if len(classes) < 2:
        raise DraftError(f"{name!r} has fewer than two values: {classes}; there is nothing to predict")
    task: Literal["classification", "regression"]
    task = "classification" if len(classes) == 2 or kind in {"VARCHAR", "BOOLEAN"} else "regression"
    if task == "regression":
        return {"column": name, "task": task}
    positive = next((value for value in classes if str(value).casefold() in AFFIRMATIVE), classes[0])
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
    lines = []
    for line in text.splitlines():
        said, mark, remark = line.partition(f" {REMARK}")
        lines.append(f"{said:<32}  # {remark}" if mark else said)
    return "".join(f"{line}\n" for line in lines)


def _flow(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    text = yaml.dump(
        value, Dumper=_OneLine, default_flow_style=True, sort_keys=False, width=10_000_000, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


class _OneLine(yaml.SafeDumper):
    """Writes text with signs that end a line, or that no editor shows, with escapes."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_OneLine.add_representer(str, _text)


def _block(entries: dict[str, Any], indent: int) -> str:
    return "\n".join(f"{' ' * indent}{_flow(name)}: {_flow(value)}" for name, value in entries.items())
