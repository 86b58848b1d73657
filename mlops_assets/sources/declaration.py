"""The `source` of a model's YAML, typed and checked before anything runs."""

from __future__ import annotations

import re
import warnings
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.lake.statements import named_tables, require_select, require_tables
from mlops_assets.sources.connection import DEFAULT_TIMEZONE, pin_timezone
from mlops_assets.sources.csv_options import check_csv_options, check_formats_have_columns
from mlops_assets.sources.problems import did_you_mean

Format = Literal["parquet", "csv"]

RECORD_ID = "record_id"
_RESERVED = {RECORD_ID, "period"}


with warnings.catch_warnings():
    # `schema` is the word of the YAML, and Dagster looks each YAML key up as an attribute to report its line.
    # What it shadows is a deprecated method of pydantic's that nobody calls here.
    warnings.filterwarnings("ignore", message='Field name "schema"')

    class Source(BaseModel):
        """Where a model's records come from, and which columns they have."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: str = Field(
            description="The file below the data folder, or an fsspec URL. With {period} in it there is "
            "a file per period; without it one file holds all periods."
        )
        url: str | None = Field(
            default=None,
            description="Where the file is fetched from when it is not there; may contain {period}.",
        )
        advice: str | None = Field(
            default=None, description="What to do when a file is nowhere to be had and there is no url: told then."
        )
        format: Format | None = Field(default=None, description="Default: by the path's ending.")
        schema: dict[str, str] = Field(  # type: ignore[assignment]
            description="The columns that are read, in this order, each with its DuckDB type."
        )
        time_column: str | None = Field(default=None, description="When the record happened; picks its period.")
        keys: list[str] = Field(
            default=[], description="Columns that identify a record. Default: the row's number in the source."
        )
        query: str | None = Field(
            default=None,
            description="SQL that makes records of the file's rows, when they are shaped otherwise: a SELECT from "
            "`source`, e.g. an UNPIVOT of a wide table. The macros period(), period_start() and period_end() work.",
        )
        max_missing_days: int | None = Field(
            default=None,
            ge=0,
            description="How many days of a period may be without any record; with more, the period is incomplete. "
            "Default: days are not counted.",
        )
        timezone: str = Field(
            default=DEFAULT_TIMEZONE,
            description="The zone of the model's clock, e.g. Europe/Berlin. A time with a zone or an offset is "
            "converted to it; one without is taken as it is.",
        )
        tolerance: float = Field(
            default=0.001,
            ge=0,
            le=1,
            description="Share of a period's rows that may be unreadable or hold a value that does not fit its type: "
            "they are set aside in rejected_<records>, and with more the period is quarantined. A single row of a "
            "hundred or more is always within it, unless it is 0.",
        )
        csv: dict[str, Any] = Field(
            default={},
            description="Options of DuckDB's read_csv, e.g. {delim: ';', nullstr: 'NA'}; `names` for no header.",
        )

        @field_validator("csv")
        @classmethod
        def _csv_options_work(cls, given: dict[str, Any]) -> dict[str, Any]:
            if given:
                check_csv_options(given)
            return given

        @field_validator("timezone")
        @classmethod
        def _timezone_is_known(cls, name: str) -> str:
            _check_timezone(name)
            return name

        @model_validator(mode="after")
        def _is_consistent(self) -> Self:
            if not self.schema:
                raise ValueError("schema names no column; list each column with its DuckDB type")
            reserved = sorted(name for name in self.schema if name.lower() in _RESERVED)
            if reserved:
                raise ValueError(f"schema column {reserved[0]!r} is made by the platform; leave it out")
            for name, kind in self.schema.items():
                _check_type(name, kind)
            for role, names in (
                ("time_column", [self.time_column] if self.time_column else []),
                ("keys", self.keys),
            ):
                for name in names:
                    if name not in self.schema:
                        raise ValueError(f"{role} {name!r} is not in schema" + did_you_mean(name, self.schema))
            if self.time_column and not re.match(r"(?i)timestamp|date", self.schema[self.time_column]):
                found = self.schema[self.time_column]
                raise ValueError(f"time_column {self.time_column!r} is declared {found}; expected DATE or TIMESTAMP")
            if not self.per_period and not self.time_column:
                raise ValueError(
                    f"path {self.path!r} holds all periods, so time_column has to say which row is in which; "
                    "or put {period} into the path"
                )
            _check_template("path", self.path)
            _check_template("url", self.url or "")
            if "://" not in self.path:
                parts = PurePosixPath(self.path)
                if parts.is_absolute() or ".." in parts.parts:
                    raise ValueError(f"path {self.path!r} has to lie below the data folder, or be a URL")
            if self.kind_of_file != "csv" and self.csv:
                raise ValueError("csv options are given, but the format is parquet")
            check_formats_have_columns(self.csv, self.schema)
            if self.query is not None:
                _check_query(self.query)
            if self.max_missing_days is not None and not self.time_column:
                raise ValueError("max_missing_days counts days by the time_column; declare one")
            return self

        @property
        def per_period(self) -> bool:
            """Whether each period has a file of its own."""
            return "{period}" in self.path

        @property
        def kind_of_file(self) -> Format:
            """The format, declared or by the path's ending."""
            if self.format:
                return self.format
            name = self.path.lower()
            if name.endswith((".parquet", ".pq")):
                return "parquet"
            if name.endswith((".csv", ".csv.gz", ".tsv", ".txt", ".csv.zst")):
                return "csv"
            raise ValueError(f"can't tell the format of {self.path!r} by its ending; set format: parquet or csv")


def _check_type(name: str, kind: str) -> None:
    import duckdb

    try:
        # Parsed as a type by DuckDB itself, so that also DECIMAL(10, 2) and INTEGER[] are known.
        duckdb.sqltype(kind)
    except duckdb.Error as error:
        raise ValueError(
            f"schema column {name!r} has the type {kind!r}, which DuckDB does not know; "
            "expected e.g. BIGINT, DOUBLE, VARCHAR, BOOLEAN, DATE or TIMESTAMP"
        ) from error


def _check_timezone(name: str) -> None:
    import duckdb

    if name == DEFAULT_TIMEZONE:
        return
    with duckdb.connect(config={"threads": 1}) as con:
        try:
            pin_timezone(con, name)
        except duckdb.Error as error:
            known = [zone for (zone,) in con.execute("SELECT name FROM pg_timezone_names()").fetchall()]
            raise ValueError(
                f"timezone {name!r} is not known; expected a name such as 'UTC' or 'Europe/Berlin'"
                + did_you_mean(name, known)
            ) from error


def _check_query(query: str) -> None:
    import duckdb

    with duckdb.connect(config={"threads": 1}) as con:
        try:
            statement = require_select(con, query, "source.query")
            require_tables(con, statement, "source.query", ["source"])
            reads = ".source" in named_tables(con, statement, "source.query")
        except duckdb.ParserException as error:
            raise ValueError(f"source.query can't be parsed: {str(error).splitlines()[0]}") from error
    if not reads:
        raise ValueError(
            "source.query has to be one SELECT that reads `source`, the rows of the file, "
            "e.g. SELECT *, make_date(year, month, day) AS date FROM source"
        )


def _check_template(role: str, text: str) -> None:
    unknown = set(re.findall(r"\{([^}]*)\}", text)) - {"period"}
    if unknown:
        raise ValueError(f"{role} {text!r} has the placeholder {{{unknown.pop()}}}; only {{period}} is known")
