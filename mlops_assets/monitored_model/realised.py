"""How right the scores of a period were, from the rows whose outcome is known: metrics, and where they are weakest.

Up to `max_rows` rows are taken at once, more are read in batches; the numbers are exact in both cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_assets.lake.categories import text_of_each
from mlops_assets.lake.connection import query_batches
from mlops_assets.lake.frames import exact_frame
from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.scoring import SCORE, kept_scores
from mlops_assets.monitored_model.tables import FEATURES, PREDICTIONS
from mlops_assets.monitored_model.workbench import Workbench

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mlops_assets.training.metrics import CalibrationCurve, Metrics
    from mlops_assets.training.registry import LoadedModel

# More segments than a person reads; of a column with so many values the largest are kept.
SEGMENTS_KEPT = 200
SEGMENT_MIN_ROWS = 100


@dataclass(frozen=True)
class Realised:
    """What the outcomes say of a version's scores.

    Attributes
    ----------
    rows
        Records whose outcome is known; without any, everything else is empty.
    right
        How many predictions were right; of a regression, how many were within the MAE of the version's test rows.
    weakest
        The segments where the share of right predictions is lowest, worst first; see `metrics.weakest_segments`.
    by_segment
        All metrics of a regression in each segment, the largest first; a classification has its weakest segments only.
    calibration
        None for a regression.
    """

    rows: int
    metrics: Metrics
    right: int = 0
    weakest: list[dict[str, Any]] = field(default_factory=list)
    by_segment: list[dict[str, Any]] = field(default_factory=list)
    calibration: CalibrationCurve | None = None


def realised(bench: Workbench, period: str, model: LoadedModel) -> Realised:
    """How right the champion's scores of a period were."""
    from mlops_assets.training.metrics import Metrics, SegmentCounts
    from mlops_assets.training.search import encode_target

    spec = bench.spec
    counts, errors, right = SegmentCounts(), _SegmentErrors(), 0
    by_segment = model.cut is None and bool(spec.segments)
    with kept_scores(bench) as scored:
        for frame in _labelled(bench, period, PREDICTIONS, spec.segments, in_order=by_segment):
            truth, scores = encode_target(frame["outcome"], spec.target), frame[SCORE].to_numpy()
            correct = _correct(truth, scores, model)
            scored.add(truth, scores)
            right += int(correct.sum())
            if spec.segments:
                counts.add(frame[spec.segments], correct)
            if by_segment:
                errors.add(frame[spec.segments], truth, scores)
        if not scored.rows:
            return Realised(0, Metrics({}))
        weakest = counts.weakest(min_rows=SEGMENT_MIN_ROWS) if spec.segments else None
        return Realised(
            scored.rows,
            scored.metrics(model.cut),
            right,
            []
            if weakest is None
            else [{str(name): v for name, v in row.items()} for row in weakest.to_dict("records")],
            errors.metrics(),
            scored.calibration_curve() if model.cut is not None else None,
        )


def served_metrics(bench: Workbench, period: str, table: str, cut: float | None) -> Metrics:
    """The metrics of what a table has served for a period, judged with its own cut."""
    from mlops_assets.training.search import encode_target

    with kept_scores(bench) as scored:
        for frame in _labelled(bench, period, table, []):
            scored.add(encode_target(frame["outcome"], bench.spec.target), frame[SCORE].to_numpy())
        return scored.metrics(cut)


def _correct(truth: NDArray[Any], scores: NDArray[np.float64], model: LoadedModel) -> NDArray[np.bool_]:
    """For each record whether the prediction was right (regression: within the champion's test MAE)."""
    import numpy as np

    if model.cut is None:
        return np.asarray(np.abs(scores - truth) <= float(model.metrics["test"]["mae"] or 0.0))
    return np.asarray((scores >= model.cut) == (truth == 1))


def _labelled(
    bench: Workbench, period: str, scored: str, segments: list[str], *, in_order: bool = False
) -> Iterator[pd.DataFrame]:
    """Score, outcome and segments of the records whose outcome is known.

    In one piece, ordered by the record's key; in batches where there are more than `max_rows`, ordered if asked for.
    """
    spec = bench.spec
    target = identifier(spec.target.column)
    keys = bench.columns_sql(spec.record_keys)
    shown = "".join(f", f.{identifier(name)}" for name in segments)
    columns = bench.columns_sql(dict.fromkeys([*spec.record_keys, spec.target.column, *segments]))
    relation = bench.records(scored, [period]) if scored == PREDICTIONS else bench.scan(scored, [period])
    sql = (
        f"SELECT p.{SCORE}, f.{target} AS outcome{shown} FROM {relation} p "
        f"JOIN (SELECT {columns} FROM {bench.records(FEATURES, [period])}) f USING ({keys}) "
        f"WHERE f.{target} IS NOT NULL"
    )
    if bench.partition(scored, period).rows <= spec.max_rows:
        yield exact_frame(bench.con.sql(f"{sql} ORDER BY {keys}").to_arrow_table())
        return
    for batch in query_batches(bench.con.cursor(), f"{sql} ORDER BY {keys}" if in_order else sql):
        yield exact_frame(batch)


class _SegmentErrors:
    """The metrics of a regression in each segment, from rows that are added in one piece or in batches."""

    def __init__(self) -> None:
        from mlops_assets.training.scored_rows import RegressionSums

        self._sums: dict[tuple[str, str], RegressionSums] = {}
        self._first: dict[tuple[str, str], tuple[NDArray[Any], NDArray[np.float64]]] = {}
        self._batches = 0

    def add(self, segments: pd.DataFrame, truth: NDArray[Any], scores: NDArray[np.float64]) -> None:
        import pandas as pd

        found = {}
        for column in segments.columns:
            names = pd.Series(["null" if text is None else text for text in text_of_each(segments[column])])
            for segment, places in names.groupby(names).indices.items():
                found[str(column), str(segment)] = truth[places], scores[places]
        self._batches += 1
        if self._batches == 1:
            self._first = found
            return
        for part in (self._first, found):
            self._add(part)
        self._first = {}

    def _add(self, part: dict[tuple[str, str], tuple[NDArray[Any], NDArray[np.float64]]]) -> None:
        from mlops_assets.training.scored_rows import RegressionSums

        for key, (truth, scores) in part.items():
            self._sums.setdefault(key, RegressionSums()).add(truth, scores)

    def metrics(self) -> list[dict[str, Any]]:
        """Column, segment, rows and metrics; the largest segments of each column first."""
        from mlops_assets.training.metrics import regression_metrics

        all_metrics = {key: sums.metrics() for key, sums in self._sums.items()} | {
            key: regression_metrics(*rows) for key, rows in self._first.items()
        }
        found: list[dict[str, Any]] = []
        for (column, segment), metrics in all_metrics.items():
            numbers = {name: value for name, value in metrics.items() if name != "rows"}
            found.append({"column": column, "segment": segment, "rows": int(metrics["rows"]), **numbers})
        return sorted(found, key=lambda row: (row["column"], -row["rows"], row["segment"]))[:SEGMENTS_KEPT]
