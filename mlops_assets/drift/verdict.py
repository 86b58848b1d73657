"""The verdict on a period: what drifted, how badly, since when, in words a person on call understands.

Verdicts rest on effect sizes (PSI on the reference's bins, null being one of them), never on p-values, and a
PSI that so few rows may show by chance is none. The other distances, Evidently's default score among them,
stand beside it as numbers.

Belongs here: thresholds, the comparison, the report. Does not: distances (`drift.distances`), what a severe
period leads to (the gate).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlops_assets.drift import distances
from mlops_assets.drift.break_day import Break, column_breaks, common_break
from mlops_assets.drift.distances import EvidentlyScore, Novelty
from mlops_assets.drift.profile import ColumnProfile, Profile, on_one_grid
from mlops_assets.neutral_text import neutral_markdown

if TYPE_CHECKING:
    from mlops_assets.lake.columns import Kind

Unseen = tuple[float, tuple[tuple[str, float], ...]]
_NOTED_SHARE = 0.001
"""Unseen values below this share stand in the rows of the report, but are not worth a sentence."""

Verdict = Literal["ok", "warning", "severe", "none"]
NOTHING_YET = "nothing to compare with yet"


def in_words(verdict: str) -> str:
    """A verdict as people read it: the stored `none` says that there is nothing to compare with."""
    return NOTHING_YET if verdict == "none" else verdict


SCORES = "(scores)"
PERIOD = "(period)"
_RANK = {"severe": 0, "warning": 1, "ok": 2, "none": 3}

ROWS_SCHEMA = pa.schema(
    [
        ("column", pa.string()),
        ("method", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("noise_floor", pa.float64()),
        ("verdict", pa.string()),
        ("direction", pa.string()),
        ("importance", pa.float64()),
        ("since", pa.date32()),
    ]
)
"""The stored report: one row per column and method. Methods without a say in the verdict have none."""


class ColumnThresholds(BaseModel):
    """PSI limits of one column; what is left out is that of the model.

    A column that follows the calendar (a season, a day of the month) differs in every period by its nature. With
    `judged: false` its change is shown, and has no say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    warning: float | None = Field(default=None, gt=0, description="PSI from which the column is at warning.")
    severe: float | None = Field(default=None, gt=0, description="PSI from which the column is severe.")
    judged: bool = Field(
        default=True, description="False: the column changes by its nature; shown, with no say in the verdict."
    )

    @model_validator(mode="after")
    def _limits_are_used(self) -> Self:
        if not self.judged and (self.warning is not None or self.severe is not None):
            raise ValueError("judged is false, so warning and severe would have no effect; remove one or the other")
        return self


class DriftThresholds(BaseModel):
    """When a column, and when a period, is at warning or severe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warning: float = Field(default=0.1, gt=0, description="PSI from which a column is at warning.")
    severe: float = Field(default=0.25, gt=0, description="PSI from which a column is severe.")
    share: float = Field(default=0.1, gt=0, le=1, description="Share of severe columns that makes a period severe.")
    important_share: float = Field(
        default=0.2, gt=0, le=1, description="Share of the importances in severe columns that does so."
    )
    novelty: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of rows with a value that the reference never had, in any column of few values, "
        "that does so.",
    )
    predictions: float | None = Field(
        default=None,
        gt=0,
        description="Evidently's drift score of the champion's scores above which the period is severe; no such "
        "rule by default.",
    )
    columns: dict[str, ColumnThresholds] = Field(
        default_factory=dict, description="Other PSI limits for single columns, and for `(scores)`."
    )

    @model_validator(mode="after")
    def _severe_is_not_below_warning(self) -> Self:
        for name in ["", *self.columns]:
            warning, severe = self.limits(name)
            if severe < warning:
                where = f"columns.{name}: " if name else ""
                raise ValueError(
                    f"{where}severe ({severe:g}) is below warning ({warning:g}); "
                    "a column is at warning first, so give severe at least the value of warning"
                )
        return self

    def limits(self, column: str) -> tuple[float, float]:
        """PSI from which `column` is at warning, and severe."""
        own = self.columns.get(column, ColumnThresholds())
        return (
            self.warning if own.warning is None else own.warning,
            self.severe if own.severe is None else own.severe,
        )

    def judged(self, column: str) -> bool:
        """Whether `column` has a say in the verdict."""
        return self.columns.get(column, ColumnThresholds()).judged


@dataclass(frozen=True)
class ColumnDrift:
    """One column, or the scores, of the period against the reference.

    Attributes:
        name: column, or `(scores)`.
        kind: `numeric` or `categorical`.
        verdict: `ok`, `warning` or `severe`; `none` for a column without a say (`judged: false`).
        psi, noise_floor: PSI, and what chance alone may show with so few rows.
        threshold: the PSI limit that the verdict is about: of severe when severe, else of warning.
        kolmogorov_smirnov, wasserstein, jensen_shannon, evidently, novelty: the same change by other
            measures, None where not defined; nulls have a part in `jensen_shannon` only.
        unseen: share of the period's values that the reference lacks, and the most frequent of them; None for
            columns of many numbers.
        null_shares: share of nulls in the reference and in the period.
        direction: the change in words.
        importance: share of the champion's importances, None when not known.
        since: the day from which it stays severe, None when it does not or can't be told.
        notes: what a person should know: all null, constant, new, vanished, unseen values.
    """

    name: str
    kind: Kind
    verdict: Verdict
    psi: float | None
    noise_floor: float | None
    threshold: float
    kolmogorov_smirnov: float | None
    wasserstein: float | None
    jensen_shannon: float | None
    evidently: EvidentlyScore | None
    novelty: Novelty | None
    unseen: Unseen | None
    null_shares: tuple[float, float]
    direction: str
    importance: float | None = None
    since: date | None = None
    notes: tuple[str, ...] = ()

    @property
    def change(self) -> str:
        """The change as people read it; `direction` is its short form."""
        return distances.direction_in_words(self.direction, self.kind)

    def sentence(self, *, short: bool = False) -> str:
        """The column's part of the reasons; `short` as the report's digest has it."""
        change = self.direction if short else self.change
        label = "scores" if self.name == SCORES else self.name
        if self.psi is None:
            return f"{label}: {'; '.join(self.notes) or change}"
        sign = "≥" if self.psi >= self.threshold else "<"
        since = f" since {self.since}" if self.since else ""
        parts = [
            f"{label}: PSI {self.psi:.2f} {sign} {self.threshold:g} ({self.verdict}){since}",
            change,
            *self.notes,
        ]
        return "; ".join(parts)


@dataclass(frozen=True)
class DriftReport:
    """The verdict on a period, and all that it rests on.

    Attributes:
        verdict: `ok`, `warning`, `severe`, or `none` when there is nothing to compare with.
        reasons: sentences, the weightiest first; never empty unless `ok`.
        columns: every feature column of either side, in the features' order.
        scores: the drift of the champion's scores, None when there are none.
        since: the first day from which all severe columns stay severe until the period's end; None when the
            period is not severe or there is no such day.
        reference_rows, current_rows: rows compared.
        thresholds: the limits in force.
        severe_share: share of the judged feature columns that are severe, and `important_share` their share of the
            importances (None without importances).
        prediction_drift: Evidently's drift score of the champion's scores, as the rule `predictions` of the
            thresholds takes it (`distances.evidently_distance`); None without that rule or without scores.
    """

    verdict: Verdict
    reasons: list[str]
    columns: list[ColumnDrift] = field(default_factory=list)
    scores: ColumnDrift | None = None
    since: date | None = None
    reference_rows: int = 0
    current_rows: int = 0
    thresholds: DriftThresholds = field(default_factory=DriftThresholds)
    severe_share: float | None = None
    important_share: float | None = None
    prediction_drift: EvidentlyScore | None = None

    @classmethod
    def none(cls, reason: str) -> DriftReport:
        """The report of a period that can't be compared, and why."""
        return cls("none", [reason])

    @property
    def severe_columns(self) -> list[str]:
        """Names of the severe feature columns, worst first."""
        return [c.name for c in self._worst_first() if c.verdict == "severe"]

    @property
    def warning_columns(self) -> list[str]:
        """Names of the feature columns at warning, worst first."""
        return [c.name for c in self._worst_first() if c.verdict == "warning"]

    def _worst_first(self) -> list[ColumnDrift]:
        return sorted(self.columns, key=_badness)

    def rows(self) -> pa.Table:
        """The report in long format, columns as in `ROWS_SCHEMA`; `(scores)` and `(period)` come last."""
        return self._rows()

    def _compared(self) -> list[ColumnDrift]:
        return [*self.columns, *([self.scores] if self.scores else [])]

    def _rows(self, *, short: bool = False) -> pa.Table:
        rows = [row for column in self._compared() for row in _rows_of(column, short=short)]
        return pa.Table.from_pylist(rows + self._period_rows(short=short), schema=ROWS_SCHEMA)

    def _period_rows(self, *, short: bool) -> list[dict[str, Any]]:
        def row(method: str, value: float | None, threshold: float | None = None) -> dict[str, Any]:
            return {
                "column": PERIOD,
                "method": method,
                "value": value,
                "threshold": threshold,
                "verdict": self.verdict,
                "since": self.since,
            }

        judged = [c for c in self.columns if c.verdict != "none"]
        novelty = max((c.novelty.share for c in judged if c.novelty), default=None)
        first = row("share_of_severe_columns", self.severe_share, self.thresholds.share)
        shortened = {column.sentence(): column.sentence(short=True) for column in self._compared()} if short else {}
        first["direction"] = " | ".join(shortened.get(reason, reason) for reason in self.reasons)
        return [
            first,
            row("importance_of_severe_columns", self.important_share, self.thresholds.important_share),
            row("largest_novelty", novelty, self.thresholds.novelty),
            *self._prediction_drift_row(row),
            row("reference_rows", self.reference_rows),
            row("current_rows", self.current_rows),
        ]

    def _prediction_drift_row(self, row: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
        """Where the rule is declared only: the reports of models without it, and their digests, stay as they are."""
        found, limit = self.prediction_drift, self.thresholds.predictions
        if found is None or limit is None:
            return []
        drifted = "severe" if found.value > limit else "ok"
        return [row("prediction_drift", found.value, limit) | {"verdict": drifted, "direction": found.display_name}]

    def digest(self) -> str:
        """Hash of all that the report says, changes in their short form; the same for the same content, on any machine.

        Accepts, incidents and decisions name a report by it, so it does not depend on how a sentence is worded.
        """
        content = [[_stable(value) for value in row.values()] for row in self._rows(short=True).to_pylist()]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def markdown(self, limit: int = 20) -> str:
        """The verdict, its reasons and a table of the columns, worst first, at most `limit` of them."""
        since = f", since {self.since}" if self.since else ""
        lines = [f"**{in_words(self.verdict)}**{since}", ""]
        # The columns at fault are in the table; the list keeps to what is about the whole period.
        listed = self.reasons[:8]
        lines += [f"- {neutral_markdown(reason)}" for reason in listed]
        if len(self.reasons) > len(listed):
            lines.append(f"- … and {len(self.reasons) - len(listed)} more")
        shown = ([self.scores] if self.scores else []) + self._worst_first()
        if shown:
            lines += [
                "",
                "| column | verdict | PSI | limit | Evidently | change | importance | since |",
                "| --- | --- | ---: | ---: | ---: | --- | ---: | --- |",
                *(_markdown_row(column) for column in shown[:limit]),
            ]
        if len(shown) > limit:
            lines.append(f"\n… and {len(shown) - limit} more columns.")
        return "\n".join(lines)


def _badness(column: ColumnDrift) -> tuple[int, float]:
    return _RANK[column.verdict], -(column.psi if column.psi is not None else np.inf)


def _markdown_row(column: ColumnDrift) -> str:
    name = neutral_markdown(column.name)
    cells = [
        f"**{name}**" if column.verdict == "severe" else name,
        {"severe": "**severe**", "none": "not judged"}.get(column.verdict, column.verdict),
        "" if column.psi is None else f"{column.psi:.3f}",
        f"{column.threshold:g}",
        "" if column.evidently is None else f"{column.evidently.value:.3g}",
        neutral_markdown("; ".join([column.change, *column.notes])),
        "" if column.importance is None else f"{column.importance:.1%}".replace("%", " %"),
        "" if column.since is None else str(column.since),
    ]
    return "| " + " | ".join(cells) + " |"


def _rows_of(column: ColumnDrift, *, short: bool) -> list[dict[str, Any]]:
    def row(method: str, value: float | None, **other: Any) -> dict[str, Any]:
        return {
            "column": column.name,
            "method": method,
            "value": value,
            "importance": column.importance,
        } | other

    rows = [
        row(
            "psi",
            column.psi,
            threshold=column.threshold,
            noise_floor=column.noise_floor,
            verdict=column.verdict,
            direction="; ".join([column.direction if short else column.change, *column.notes]),
            since=column.since,
        ),
        row("ks", column.kolmogorov_smirnov),
        row("wasserstein", column.wasserstein),
        row("jensen_shannon", column.jensen_shannon),
        row(
            "null_share",
            column.null_shares[1],
            direction=f"{column.null_shares[0]:.1%} → {column.null_shares[1]:.1%}".replace("%", " %"),
        ),
    ]
    if column.evidently:
        said = f"{column.evidently.display_name}: {'drifted' if column.evidently.drifted else 'not drifted'}"
        rows.append(row("evidently", column.evidently.value, threshold=column.evidently.threshold, direction=said))
    if column.novelty:
        rows.append(
            row(
                "novelty",
                column.novelty.share,
                noise_floor=column.novelty.noise_floor,
                direction=_listed(column.novelty.unseen) or None,
            )
        )
    elif column.unseen:
        rows.append(row("unseen_share", column.unseen[0], direction=_listed(column.unseen[1]) or None))
    return [r for r in rows if r["value"] is not None or r["method"] == "psi"]


def _listed(unseen: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{value} ({distances.format_percent(share)})" for value, share in unseen)


def _stable(value: object) -> object:
    """A JSON value that hides differences in the last bits, which another processor may compute otherwise."""
    return f"{value:.10g}" if isinstance(value, float) else str(value) if isinstance(value, date) else value


def compare(
    reference: Profile,
    current: Profile,
    kinds: Mapping[str, Kind],
    thresholds: DriftThresholds,
    *,
    importances: Mapping[str, float] | None = None,
    scores: tuple[ColumnProfile, ColumnProfile] | None = None,
    first_day: date,
    last_day: date,
) -> DriftReport:
    """Compare a period's rows, and its scores, with the champion's reference.

    Args:
        reference: profile of the rows that the champion was trained on.
        current: profile of the period's rows.
        kinds: the feature columns; columns of either profile that are not among them get a line too.
        thresholds: limits.
        importances: the champion's importance of each column, any scale; None when not known.
        scores: profiles of the champion's scores on its test rows, and on the period's rows.
        first_day, last_day: the period's days, both included; only these can be the day since when.

    Odd columns (all null, constant, new, vanished, with unseen values, of another kind) and empty sides are
    lines and reasons of the report, never errors.
    """
    if not reference.rows:
        return DriftReport.none("the reference has no rows, nothing to compare with")
    if not current.rows:
        return DriftReport("none", ["the period has no rows"], reference_rows=reference.rows, thresholds=thresholds)
    names = list(dict.fromkeys([*kinds, *reference.columns, *current.columns]))
    shares = _normalised(importances)
    columns = [_column_drift(n, kinds, reference, current, thresholds, shares) for n in names]
    columns = [c if thresholds.judged(c.name) else replace(c, verdict="none") for c in columns]
    columns, breaks = _with_since(columns, reference, current, thresholds, first_day, last_day)
    scored = None if scores is None else _score_drift(*scores, thresholds)
    predictions = None if scores is None or thresholds.predictions is None else distances.evidently_distance(*scores)
    judged = [n for n in kinds if thresholds.judged(n)]
    severe = [c for c in columns if c.verdict == "severe" and c.name in judged]
    important = sum(shares.get(c.name, 0.0) for c in severe) if shares else None
    severe_share = len(severe) / max(len(judged), 1)
    why = _why_predictions(predictions, thresholds)
    why += _why_severe(severe, severe_share, important, columns, scored, thresholds, len(judged))
    noticed = [c for c in [*columns, *([scored] if scored else [])] if c.verdict in ("severe", "warning")]
    return DriftReport(
        "severe" if why else "warning" if noticed else "ok",
        why + [c.sentence() for c in sorted(noticed, key=_badness)],
        columns,
        scored,
        common_break(breaks[c.name] for c in severe if c.name in breaks) if why else None,
        reference.rows,
        current.rows,
        thresholds,
        severe_share,
        important,
        predictions,
    )


def _normalised(importances: Mapping[str, float] | None) -> dict[str, float]:
    total = sum(importances.values()) if importances else 0.0
    return {name: value / total for name, value in importances.items()} if importances and total > 0 else {}


def _column_drift(
    name: str,
    kinds: Mapping[str, Kind],
    reference: Profile,
    current: Profile,
    thresholds: DriftThresholds,
    importances: Mapping[str, float],
) -> ColumnDrift:
    old, new = _column_of(name, reference), _column_of(name, current)
    importance = importances.get(name, 0.0) if importances else None
    warning, severe = thresholds.limits(name)
    if old is None:
        return _new_column(name, kinds.get(name, new.kind if new else "numeric"), new, warning, importance)
    notes: list[str] = []
    if new is None:
        notes.append("vanished: the period's data has no such column")
    elif new.kind != old.kind:
        notes.append(f"was {old.kind}, is {new.kind}: not comparable, all rows count as null")
    if new is None or new.kind != old.kind:
        new = ColumnProfile(name, old.kind, old.values[:0], old.counts[:0], current.rows)
    return _measured(name, old, new, (warning, severe), importance, notes)


def _column_of(name: str, profile: Profile) -> ColumnProfile | None:
    return profile.column(name) if name in profile.columns else None


def _new_column(
    name: str, kind: Kind, new: ColumnProfile | None, warning: float, importance: float | None
) -> ColumnDrift:
    if new is None:
        note = "neither the reference nor the period has this column"
    else:
        note = "new: the reference has no such column, nothing to compare with"
    return ColumnDrift(
        name=name,
        kind=kind,
        verdict="warning",
        psi=None,
        noise_floor=None,
        threshold=warning,
        kolmogorov_smirnov=None,
        wasserstein=None,
        jensen_shannon=None,
        evidently=None,
        novelty=None,
        unseen=None,
        null_shares=(1.0, new.null_share if new else 1.0),
        direction="new column" if new else "missing column",
        importance=importance,
        notes=(note,),
    )


def _measured(
    name: str,
    old: ColumnProfile,
    new: ColumnProfile,
    limits: tuple[float, float],
    importance: float | None,
    notes: Sequence[str],
) -> ColumnDrift:
    """A column that both sides have rows of."""
    old, new = on_one_grid(old, new)
    partition = distances.reference_bins(old)
    before, after = partition.counts(old), partition.counts(new)
    psi = float(distances.psi_of_counts(before, after))
    in_use = int(((before > 0) | (after > 0)).sum())
    floor = float(distances.psi_noise_floor(in_use, old.rows, new.rows))
    novelty = distances.novelty(old, new)
    tells = novelty is not None or old.kind == "categorical"
    unseen = distances.unseen_values(old, new) if tells and old.filled else None
    verdict = _psi_verdict(psi, floor, limits)
    return ColumnDrift(
        name=name,
        kind=old.kind,
        verdict=verdict,
        psi=psi,
        noise_floor=floor,
        threshold=limits[1] if verdict == "severe" else limits[0],
        kolmogorov_smirnov=distances.kolmogorov_smirnov(old, new),
        wasserstein=distances.wasserstein_normed(old, new),
        jensen_shannon=distances.jensen_shannon(old, new),
        evidently=distances.evidently_score(old, new),
        novelty=novelty,
        unseen=unseen,
        null_shares=(old.null_share, new.null_share),
        direction=distances.direction(old, new),
        importance=importance,
        notes=(*notes, *_notes(old, new, unseen)),
    )


def _psi_verdict(psi: float, noise_floor: float, limits: tuple[float, float]) -> Verdict:
    if psi <= noise_floor:
        return "ok"
    return "severe" if psi >= limits[1] else "warning" if psi >= limits[0] else "ok"


def _notes(old: ColumnProfile, new: ColumnProfile, unseen: Unseen | None) -> list[str]:
    notes = []
    for side, profile in (("the reference", old), ("the period", new)):
        if not profile.filled:
            notes.append(f"all null in {side}")
        elif profile.distinct == 1:
            notes.append(f"constant in {side} ({distances.format_value(profile.values[0])})")
    if unseen and unseen[0] >= _NOTED_SHARE:
        worth_naming = [(value, share) for value, share in unseen[1] if share >= _NOTED_SHARE]
        listed = _listed(worth_naming) or distances.format_percent(unseen[0])
        notes.append(f"not in the reference: {listed}")
    return notes


def _score_drift(reference: ColumnProfile, current: ColumnProfile, thresholds: DriftThresholds) -> ColumnDrift | None:
    if not reference.rows or not current.rows:
        return None
    return _measured(SCORES, reference, current, thresholds.limits(SCORES), None, ())


def _with_since(
    columns: Sequence[ColumnDrift],
    reference: Profile,
    current: Profile,
    thresholds: DriftThresholds,
    first_day: date,
    last_day: date,
) -> tuple[list[ColumnDrift], dict[str, Break]]:
    """The columns with their day since when; one at warning has it only when it jumped in the period."""
    both = set(reference.columns) & set(current.columns)
    suspects = [c for c in columns if c.verdict in ("severe", "warning") and c.name in both]
    limits = {
        c.name: thresholds.limits(c.name)[1] for c in suspects if current.kinds[c.name] == reference.kinds[c.name]
    }
    breaks = column_breaks(reference, current, limits, first_day=first_day, last_day=last_day)
    dated = []
    for column in columns:
        found = breaks.get(column.name)
        known = found is not None and (column.verdict == "severe" or found.is_jump)
        dated.append(replace(column, since=found.since if found is not None and known else None))
    return dated, breaks


def _why_predictions(found: EvidentlyScore | None, thresholds: DriftThresholds) -> list[str]:
    """The rule on Evidently's drift score of the predictions, in words; empty when it does not hold."""
    limit = thresholds.predictions
    if found is None or limit is None or found.value <= limit:
        return []
    return [f"prediction drift {found.value:.2f} > {limit:g} ({found.display_name} of the champion's scores)"]


def _why_severe(
    severe: Sequence[ColumnDrift],
    severe_share: float,
    important: float | None,
    columns: Sequence[ColumnDrift],
    scores: ColumnDrift | None,
    thresholds: DriftThresholds,
    number: int,
) -> list[str]:
    """The rules that make the period severe, in words; empty when none does."""
    percent = distances.format_percent
    why = []
    if severe and severe_share >= thresholds.share:
        why.append(
            f"{len(severe)} of {number} columns are severe ({percent(severe_share)} ≥ {percent(thresholds.share)})"
        )
    if severe and important is not None and important >= thresholds.important_share:
        why.append(
            f"severe columns hold {percent(important)} of the champion's importance "
            f"(≥ {percent(thresholds.important_share)})"
        )
    if scores is not None and scores.verdict == "severe":
        why.append(f"the champion's scores are severe (PSI {scores.psi:.2f} ≥ {scores.threshold:g})")
    for column in columns:
        new = column.novelty if column.verdict != "none" else None
        if new and new.share >= thresholds.novelty and new.share > new.noise_floor:
            why.append(
                f"{column.name}: {percent(new.share)} of its values are ones that the reference never had "
                f"(≥ {percent(thresholds.novelty)}): {_listed(new.unseen)}"
            )
    return why
