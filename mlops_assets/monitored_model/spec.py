"""The declaration of a monitored model: what its `defs.yaml` may say, typed, documented and checked.

No Dagster here: the component adds that. The parts come from the packages that act on them (`sources`,
`training.candidates`, `drift.verdict`); this module puts them together and checks what only the whole can tell.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.drift.verdict import SCORES, DriftThresholds
from mlops_assets.lake.columns import Column, Kind, kinds
from mlops_assets.lake.connection import reserved_schemas
from mlops_assets.lake.periods import Calendar, PeriodError
from mlops_assets.plan_b.ladder import check_ladder
from mlops_assets.sources.declaration import Source
from mlops_assets.training.candidates import Candidate, Target
from mlops_assets.training.metrics import CLASSIFICATION_METRICS, HIGHER_IS_BETTER, REGRESSION_METRICS

MONITORING = "monitoring"
PLATFORM_COLUMNS = {"record_id", "period", "score", "prediction", "model_version", "split"}


# Dagster keeps the name as a tag's value, the file system raw_<records> as a folder's name.
LONGEST_NAME = 63
LONGEST_RECORDS = 200


def refused_name(name: str) -> str | None:
    """Why a model can't have this name, None when it can."""
    if why := _refused_text(name, LONGEST_NAME):
        return why
    if name == MONITORING:
        return f"{name!r} is the name of the platform's own views; choose another"
    if name in reserved_schemas():
        return (
            f"{name!r} is the name of one of DuckDB's own schemas or databases, so the model's views could not be "
            f"read, nor those of any other; choose another than {', '.join(sorted(reserved_schemas()))}"
        )
    return None


def _refused_text(name: str, longest: int) -> str | None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return f"{name!r} is not a plain name; use lower-case letters, digits and _, e.g. green_taxi"
    if len(name) > longest:
        return f"found a name of {len(name)} characters, expected at most {longest}; shorten it"
    return None


# More periods than any model looks back at or ahead of; each costs a look into the lake.
MOST_PERIODS = 1_200

# Lists of a fixed length, not tuples: Dagster shows a sample of the YAML, and does not know how to write a tuple.
Offsets = Annotated[list[int], Field(min_length=2, max_length=2)]
Shares = Annotated[list[float], Field(min_length=3, max_length=3)]


class Window(BaseModel):
    """The periods that a period learns from, as offsets `[first, last]` relative to it.

    Periods of the window whose data is missing or quarantined are left out. When less than `min_rows` rows remain in
    one of the parts, a choice or a comparison on them would be chance, and the champion stays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Offsets = Field(default=[-2, -2])
    validation: Offsets = Field(default=[-1, -1])
    test: Offsets = Field(default=[0, 0])
    min_rows: int = Field(
        default=1, gt=0, description="With fewer rows with known target in one of the parts, nothing is trained."
    )

    @model_validator(mode="after")
    def _in_time_order(self) -> Self:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        for name, (first, last) in parts.items():
            if first < -MOST_PERIODS:
                raise ValueError(f"window.{name} is [{first}, {last}]; an offset below -{MOST_PERIODS} is mistyped")
            if first > last:
                raise ValueError(f"window.{name} is [{first}, {last}]; the first offset must not be after the last")
            if last > 0:
                raise ValueError(f"window.{name} is [{first}, {last}]; an offset above 0 would look into the future")
        if not (self.train[1] < self.validation[0] and self.validation[1] < self.test[0]):
            raise ValueError(
                f"window overlaps or is out of order: train {list(self.train)}, validation {list(self.validation)}, "
                f"test {list(self.test)}; each part must end before the next begins, "
                "e.g. train [-2, -2], validation [-1, -1], test [0, 0]"
            )
        if self.test[1] != 0:
            raise ValueError(
                f"window.test is {list(self.test)}; it must end with 0, the period itself: "
                "champions are judged on the newest outcomes"
            )
        return self

    @property
    def first(self) -> int:
        """The offset of the oldest period needed."""
        return self.train[0]


class Scenarios(BaseModel):
    """Several rows for each record, one of which is what was planned; the others answer "what if".

    All are scored. Only the planned ones are served, learned from, watched for drift and measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(description="Column of features.sql that tells a record's scenarios apart.")
    planned: str = Field(description="Boolean column of features.sql: is this row's scenario the planned one?")


class SinceBreak(BaseModel):
    """How a period whose world has changed is split by days, when it trains on its own rows since the break."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: Shares = Field(
        default=[0.6, 0.2, 0.2],
        description="Shares of the rows for train, validation and test, by days that take turns.",
    )
    min_rows: int = Field(
        default=2_000, gt=0, description="With fewer rows since the break, the whole period is taken."
    )

    @field_validator("shares")
    @classmethod
    def _shares_add_up(cls, shares: list[float]) -> list[float]:
        if any(share <= 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(
                f"since_break.shares are {list(shares)}; three positive shares that add up to 1 are expected, "
                "e.g. [0.6, 0.2, 0.2]"
            )
        return shares


class PerformanceLimits(BaseModel):
    """How far the realised metric may fall behind the one of the champion's test period, as a share of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warning: float = Field(default=0.1, gt=0, lt=1)
    severe: float = Field(default=0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.severe < self.warning:
            raise ValueError(
                f"performance.severe ({self.severe}) is below performance.warning ({self.warning}); "
                "the severe limit must be the larger loss"
            )
        return self


class ModelSpec(BaseModel):
    """A monitored model: where its records come from, what it predicts, and how it is trained and watched."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="Name of the model: prefix of its asset keys, its group, its registry name.")
    records: str = Field(description="What one row is, in the plural: the first asset is raw_<records>.")
    description: str = Field(description="The question that the model answers, in one sentence.")
    cadence: Literal["monthly", "weekly"] = Field(default="monthly", description="Length of a period.")
    start: str = Field(description="First period: `2021-01`, or the Monday of a week.")
    end: str | None = Field(default=None, description="Last period; without it the partitions follow the calendar.")
    owners: list[str] = Field(default_factory=list, description="Dagster owners: e-mail addresses or `team:name`.")
    source: Source = Field(description="Where the records are read, and their declared schema.")
    lead: int = Field(default=0, ge=0, le=MOST_PERIODS, description="Periods that are opened before they begin.")
    history: int = Field(
        default=0, ge=0, le=MOST_PERIODS, description="Earlier periods of raw rows that features.sql may look at."
    )
    features: str = Field(default="features.sql", description="SQL file beside defs.yaml that makes the features.")
    target: Target = Field(description="What is predicted.")
    columns: dict[str, Column] = Field(description="The feature columns in order, with their rules.")
    scenarios: Scenarios | None = Field(default=None, description="When features.sql gives several rows a record.")
    segments: list[str] = Field(default_factory=list, description="Columns to break results down by.")
    baseline: str | None = Field(
        default=None,
        description="Feature column of a regression that is itself a naive forecast, e.g. last year's value; a "
        "challenger that is not better on the same test rows is never promoted.",
    )
    window: Window = Field(default_factory=Window, description="Periods for train, validation and test.")
    since_break: SinceBreak = Field(
        default_factory=SinceBreak, description="The split when the window no longer fits the period."
    )
    min_new_data: float = Field(
        default=0.1,
        ge=0,
        description="Rows that are new since the champion's training rows, for each of those; with fewer the check "
        "new_data_size warns. At a tenth, nine in ten rows of a model's world are still the champion's.",
    )
    candidates: list[Candidate] = Field(description="Estimators that compete, each with its search space.")
    trials: int = Field(default=8, ge=1, le=1000, description="Trials of a search, shared by the candidates.")
    search: Literal["together", "compare_then_tune"] = Field(
        default="together",
        description="Tune every candidate; or compare them with default settings and tune the best with the trials "
        "that are left.",
    )
    staging: int = Field(
        default=0,
        ge=0,
        le=9,
        description="How many of a search's best models are registered with the aliases staging-1, staging-2, …",
    )
    seed: int = Field(default=42, ge=0, description="Seed of the search, the estimators and the samples.")
    max_rows: int = Field(
        default=1_000_000,
        ge=100,
        description="Rows that are in memory at once: of more training or validation rows a sample is taken, the same "
        "each time and stratified by the target; more test rows are read in batches, with exact metrics.",
    )
    metric: str = Field(default="f1", description="What candidates and champions are compared by.")
    cut: float | Literal["tuned"] = Field(
        default="tuned", description="Score from which a record is predicted positive; `tuned` on validation."
    )
    drift: DriftThresholds = Field(default_factory=DriftThresholds, description="When drift warns and when it acts.")
    drift_experiment: str | None = Field(
        default=None,
        description="MLflow experiment that gets the drift metrics of all periods, as one run with a step a period.",
    )
    performance: PerformanceLimits = Field(
        default_factory=PerformanceLimits, description="When realised performance warns and when it fails."
    )
    plan_b: list[str] = Field(
        default_factory=lambda: ["segment_rate", "global_rate"],
        description="Ladder of fallbacks, first choice first.",
    )
    on_severe: Literal["fallback", "pause"] = Field(
        default="fallback", description="Serve plan B when drift is severe, or withhold the period."
    )
    retrain: Literal["every_period", "on_alert"] = Field(
        default="every_period", description="Train in every period, or only when there is a cause."
    )
    grace: int = Field(
        default=10, ge=0, description="Days after a period's end from which its missing data is an outage."
    )
    schedule: str | None = Field(default=None, description="Cron line of the period job; by default after its end.")

    @field_validator("name")
    @classmethod
    def _can_name_a_model(cls, value: str) -> str:
        why = refused_name(value)
        if why is not None:
            raise ValueError(why)
        return value

    @field_validator("records")
    @classmethod
    def _can_name_a_table(cls, value: str) -> str:
        why = _refused_text(value, LONGEST_RECORDS)
        if why is not None:
            raise ValueError(why)
        return value

    @field_validator("start", "end", mode="before")
    @classmethod
    def _dates_are_text(cls, value: Any) -> Any:
        # YAML reads an unquoted Monday as a date.
        return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value

    @field_validator("owners")
    @classmethod
    def _owners_are_addresses(cls, owners: list[str]) -> list[str]:
        for owner in owners:
            if "@" not in owner and not owner.startswith("team:"):
                raise ValueError(f"owner {owner!r} is neither an e-mail address nor `team:name`")
        return owners

    @field_validator("plan_b")
    @classmethod
    def _rungs_exist(cls, ladder: list[str]) -> list[str]:
        check_ladder(ladder)
        return ladder

    @field_validator("candidates")
    @classmethod
    def _some_candidate(cls, candidates: list[Candidate]) -> list[Candidate]:
        if not candidates:
            raise ValueError("candidates is empty; name at least one estimator")
        labels = [candidate.label for candidate in candidates]
        if len(set(labels)) != len(labels):
            raise ValueError(f"two candidates are called the same: {labels}; give each its own `name`")
        return candidates

    @field_validator("columns")
    @classmethod
    def _some_column(cls, columns: dict[str, Column]) -> dict[str, Column]:
        if not columns:
            raise ValueError("columns is empty; list the feature columns that features.sql makes")
        reserved = sorted(PLATFORM_COLUMNS & columns.keys())
        if reserved:
            raise ValueError(f"columns {reserved} carry names that the platform uses; rename them in features.sql")
        return columns

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        for name, period in (("start", self.start), ("end", self.end)):
            if period is not None:
                self._is_a_period(name, period)
        if self.end is not None and self.calendar.start(self.end) < self.calendar.start(self.start):
            raise ValueError(f"end ({self.end}) is before start ({self.start})")
        self._names_can_be_told_apart()
        if self.target.column in self.columns:
            raise ValueError(f"the target {self.target.column!r} is among the feature columns: it would leak")
        for segment in self.segments:
            self._known("segments", segment)
        for name in self.drift.columns.keys() - {SCORES}:
            self._known("drift.columns", name)
        self._baseline_is_a_forecast()
        self._scenarios_are_apart()
        if self.lead and self.target.required:
            raise ValueError(
                f"lead is {self.lead}: periods are opened before their outcomes are known, but target.required leaves "
                "out rows without outcome; set target.required to false"
            )
        metrics = CLASSIFICATION_METRICS if self.target.task == "classification" else REGRESSION_METRICS
        if self.metric not in metrics:
            raise ValueError(f"metric {self.metric!r} does not fit {self.target.task}; expected one of {list(metrics)}")
        if isinstance(self.cut, float) and not 0 < self.cut < 1:
            raise ValueError(f"cut is {self.cut}; a score between 0 and 1 or `tuned` is expected")
        return self

    def _is_a_period(self, name: str, period: str) -> None:
        try:
            self.calendar.validate(period)
        except PeriodError as error:
            raise ValueError(f"{name}: {error}") from error

    def _baseline_is_a_forecast(self) -> None:
        if self.baseline is None:
            return
        self._known("baseline", self.baseline)
        if self.target.task != "regression":
            raise ValueError(
                "baseline is a forecast of an amount, but the task is classification; leave it out: challengers are "
                "compared with the base rate anyway"
            )
        if self.kinds[self.baseline] != "numeric":
            raise ValueError(f"baseline {self.baseline!r} is declared categorical; a forecast is a number")

    def _names_can_be_told_apart(self) -> None:
        """SQL takes names for the same that differ in case only, so one column would be read for both."""
        time = [self.source.time_column] if self.source.time_column else []
        for where, names, fix in (
            ("source.schema", list(self.source.schema), "leave one out, or rename it by a source.query"),
            ("features", [*self.row_keys, *time, *self.columns, self.target.column], "rename one in features.sql"),
        ):
            told: dict[str, str] = {}
            for name in names:
                other = told.setdefault(name.lower(), name)
                if other != name:
                    raise ValueError(
                        f"{where}: found {other!r} and {name!r}, expected names that differ in more than their case, "
                        f"because SQL takes these for the same; {fix}"
                    )

    def _scenarios_are_apart(self) -> None:
        if self.scenarios is None:
            return
        for role, name in (("column", self.scenarios.column), ("planned", self.scenarios.planned)):
            taken = {*self.columns, *self.source.keys, self.source.time_column, self.target.column, *PLATFORM_COLUMNS}
            if name in taken:
                raise ValueError(
                    f"scenarios.{role} is {name!r}, which is a key, a feature, the target or the platform's; let "
                    "features.sql return a column of its own, and a feature beside it where the model should know it"
                )
        if self.scenarios.column == self.scenarios.planned:
            raise ValueError("scenarios.column and scenarios.planned are the same column; two are expected")

    def _known(self, where: str, column: str) -> None:
        if column not in self.columns:
            raise ValueError(
                f"{where} names {column!r}, which is not a feature column; columns are {list(self.columns)}"
            )

    @cached_property
    def calendar(self) -> Calendar:
        return Calendar(self.cadence)

    def covers(self, period: str) -> bool:
        """Whether a period lies between `start` and `end`; one of another cadence does not.

        The lake may hold others, made before the declaration was changed: they stay to be looked at, and nothing more
        is done with them.
        """
        try:
            begin = self.calendar.start(period)
        except PeriodError:
            return False
        last = self.calendar.start(self.end) if self.end is not None else begin
        return self.calendar.start(self.start) <= begin <= last

    @property
    def kinds(self) -> dict[str, Kind]:
        return kinds(self.columns)

    @property
    def raw_table(self) -> str:
        return f"raw_{self.records}"

    @property
    def rejected_table(self) -> str:
        """The table of the rows that were set aside; see `sources.rejects`."""
        return f"rejected_{self.records}"

    @property
    def record_keys(self) -> list[str]:
        """Columns that name a record: the declared keys, or the row's number in the source."""
        return list(self.source.keys) or ["record_id"]

    @property
    def row_keys(self) -> list[str]:
        """Columns that name a row of the features: the record, and its scenario where there are several."""
        return [*self.record_keys, *([self.scenarios.column] if self.scenarios else [])]

    @property
    def pickled_estimators(self) -> frozenset[str]:
        """The estimators whose models may be stored and loaded as a pickle."""
        return frozenset(candidate.estimator for candidate in self.candidates if candidate.pickle)

    @property
    def higher_is_better(self) -> bool:
        return HIGHER_IS_BETTER[self.metric]
