"""A whole month against one training of the model that system A trains."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.backfill import finished
from benchmarks.measurement import Measurement
from benchmarks.process import worker

TITLE = "A whole month"
METHOD = """\
All ten assets of green_taxi with the shipped declaration (8 trials and a final fit) as one run of the period's job, in
a process that has made the earlier months, against one training of system A's model on the same three months: reading
and cleaning the files, an Explainable Boosting Machine with 16 bins, 14 outer bags and no interactions (everything
else is the library's default, `n_jobs` included, which is all cores but one), one trial, and accuracy, precision,
recall and F1 on validation and test. The two take turns over three months; the ratio is the median of
the months' ratios and the times are medians of their own, so they don't divide exactly."""
FIRST = ["2021-01", "2021-02", "2021-03"]
MONTHS = ["2021-04", "2021-05", "2021-06"]


def run(quick: bool) -> list[Measurement]:
    months = MONTHS[:1] if quick else MONTHS
    with (
        tempfile.TemporaryDirectory(prefix="mlops_bench_") as scratch,
        worker("benchmarks.backfill:runs", Path(scratch) / "ours", periods=FIRST + months) as ours,
        worker("benchmarks.month:system_a", Path(scratch) / "system_a", periods=months) as theirs,
    ):
        for _ in ["ready", *FIRST]:
            next(ours)
        next(theirs)
        trainings, runs = [], []
        for _ in months:
            trainings.append(float(next(theirs)))
            runs.append(finished(next(ours))["seconds"])
    ratios = [one / other for one, other in zip(runs, trainings, strict=True)]
    return [
        Measurement("whole month ÷ one training of system A's model", statistics.median(ratios), "×", 0.5),
        Measurement("whole month, ten assets", statistics.median(runs), "s"),
        Measurement("one training of system A's model", statistics.median(trainings), "s"),
    ]


def system_a(periods: Sequence[str]) -> Iterator[Any]:
    """Worker: train system A's model for each period; its first answer says that the libraries are imported."""
    import duckdb
    from interpret.glassbox import ExplainableBoostingClassifier
    from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

    from benchmarks.steps import declaration
    from mlops_assets.home import data_dir

    spec, sql = declaration()
    columns = list(spec.columns)
    scores = (accuracy_score, precision_score, recall_score, f1_score)

    def rows(period: str) -> tuple[Any, Any]:
        path = data_dir() / spec.source.path.format(period=period)
        raw = f"(SELECT *, file_row_number AS record_id FROM read_parquet('{path}', file_row_number = true))"
        frame = duckdb.execute(sql.replace("FROM raw_trips", f"FROM {raw}")).df()
        frame = frame[frame["is_cash"].notna()]
        return frame[columns], frame["is_cash"].astype(int)

    yield "ready"
    for period in periods:
        started = time.perf_counter()
        train, validation, test = (rows(spec.calendar.shift(period, offset)) for offset in (-2, -1, 0))
        model = ExplainableBoostingClassifier(max_bins=16, outer_bags=14, interactions=0, random_state=spec.seed)
        model.fit(*train)
        for features, truth in (validation, test):
            predicted = model.predict(features)
            for score in scores:
                score(truth, predicted)
        yield time.perf_counter() - started
