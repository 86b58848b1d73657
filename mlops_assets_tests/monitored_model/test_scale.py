"""Parts with more rows than `max_rows`: fits learn from a sample, metrics are those of all rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlops_assets.monitored_model.learning_plan import Part, PartRows, load_split
from mlops_assets.monitored_model.realised import realised
from mlops_assets.monitored_model.scoring import load_version
from mlops_assets.monitored_model.steps import challenger, champion, features, performance, predictions, profile, raw
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training import registry
from mlops_assets.training.pipeline import scores
from mlops_assets.training.search import measure
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03"]
SCORED = "2021-04"
LIMIT = 200  # of 600 rides a month
FORECAST: dict[str, Any] = {
    "target": {"column": "is_cash", "task": "regression"},
    "baseline": "fee",
    "metric": "mae",
    "candidates": [{"estimator": "sklearn.linear_model.LinearRegression"}],
    "plan_b": ["global_rate"],
}


@pytest.fixture(scope="module", params=["classification", "regression"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """Three months of which each has more rows than may be in memory; a challenger and a champion of the third."""
    changes = FORECAST if request.param == "regression" else {}
    spec = tiny_model.spec(max_rows=LIMIT, **changes)
    root = tmp_path_factory.mktemp("scale")
    with tiny_model.ingested(root, spec, MONTHS) as made:
        tiny_model.write_rides(root / "data", [SCORED], rows=900)
        challenger.make(made, MONTHS[-1])
        champion.make(made, MONTHS[-1])
        yield made


def whole(bench: Workbench) -> Workbench:
    """The same with a limit that no month reaches."""
    return replace(bench, spec=bench.spec.model_copy(update={"max_rows": 1_000_000}))


def stored(bench: Workbench, table: str) -> dict[str, Any]:
    columns = bench.con.execute(f"FROM {bench.scan(table, MONTHS[-1:])}")
    return dict(zip([name for name, *_ in columns.description], columns.fetchall()[0], strict=True))


def test_a_model_is_fitted_on_a_sample_and_says_so(bench):
    made, row = bench.partition("challenger", MONTHS[-1]), stored(bench, "challenger")
    assert (row["train_rows"], row["validation_rows"]) == (LIMIT, LIMIT)
    there = bench.partition("features", MONTHS[0]).rows
    assert made.facts["sampled"]["train"] == {"rows": LIMIT, "of": there}
    version = bench.run_required().client.get_model_version("rides", made.facts["version"])
    assert version.tags["train_sample"] == f"200 of {there} rows"
    assert load_version(bench, made).tags["train_rows"] == str(there)


def test_test_metrics_are_those_of_all_rows(bench):
    model = load_version(bench, bench.partition("challenger", MONTHS[-1]))
    test = load_split(bench, Part([MONTHS[-1]]))
    expected = measure(test.target, scores(model.pipeline, test.features, bench.spec.target), model.cut)
    found = json.loads(stored(bench, "challenger")["test_metrics"])
    assert found["rows"] == len(test.target) > LIMIT
    assert found == pytest.approx(dict(expected), rel=1e-12, nan_ok=True)


def test_champion_and_challenger_are_compared_on_all_test_rows(bench, monkeypatch):
    before = bench.partition("champion", MONTHS[-1])
    monkeypatch.setattr(Workbench, "champion_before", lambda *_: before)
    compared, *_ = champion._compared(bench, MONTHS[-1], bench.partition("challenger", MONTHS[-1]), before)
    expected, *_ = champion._compared(whole(bench), MONTHS[-1], bench.partition("challenger", MONTHS[-1]), before)
    assert compared["test_rows"] == expected["test_rows"] > LIMIT
    found, wanted = (json.loads(row["champion_metrics"]) for row in (compared, expected))
    assert found == pytest.approx(wanted, rel=1e-12, nan_ok=True)


def test_what_monitoring_compares_with_is_that_of_all_test_rows(bench):
    model = load_version(bench, bench.partition("challenger", MONTHS[-1]))
    test = load_split(bench, Part([MONTHS[-1]]))
    scored = np.round(scores(model.pipeline, test.features, bench.spec.target), 4)
    reference = pq.read_table(model.score_reference)
    assert sum(reference["count"].to_pylist()) == len(scored)
    np.testing.assert_array_equal(sorted(set(reference["number"].to_pylist())), np.unique(scored))


def test_a_naive_forecast_is_compared_on_all_test_rows(bench):
    if bench.spec.baseline is None:
        pytest.skip("a classification has no naive forecast")
    made = bench.partition("challenger", MONTHS[-1])
    plan = challenger.learning_plan(bench, MONTHS[-1])
    model = load_version(bench, made)
    expected = challenger._against_baseline(whole(bench), plan, model)
    assert expected is not None
    for name, value in expected.items():
        found = made.facts["baseline"][name]
        assert found == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value)


def test_performance_is_that_of_all_records(bench):
    for step in (raw, features, profile, predictions):
        if bench.find("predictions", SCORED) is None:
            step.make(bench, SCORED)
    model = load_version(bench, bench.partition("predictions", SCORED))
    found, expected = realised(bench, SCORED, model), realised(whole(bench), SCORED, model)
    assert found.rows == expected.rows > LIMIT
    assert (found.right, found.weakest) == (expected.right, expected.weakest)
    assert dict(found.metrics) == pytest.approx(dict(expected.metrics), rel=1e-12)
    assert len(found.by_segment) == len(expected.by_segment) == (5 if model.cut is None else 0)
    for row, wanted in zip(found.by_segment, expected.by_segment, strict=True):
        assert (row.pop("column"), row.pop("segment")) == (wanted.pop("column"), wanted.pop("segment"))
        assert row == pytest.approx(wanted, rel=1e-12)
    made = performance.make(bench, SCORED)
    assert made.partition.facts["value"] == pytest.approx(expected.metrics[bench.spec.metric], rel=1e-12)
    assert not made.warnings


def test_batches_have_all_rows_of_a_part(bench):
    part = Part([MONTHS[1]])
    rows, all_at_once = PartRows(bench, part), load_split(bench, part)
    for _ in range(2):
        parts = list(rows)
        found = np.sort(np.concatenate([split.features["fare"].to_numpy() for split in parts]))
        np.testing.assert_array_equal(found, np.sort(all_at_once.features["fare"].to_numpy()))
        assert sum(split.target.sum() for split in parts) == all_at_once.target.sum()


def test_a_sample_has_the_order_and_the_rows_of_the_whole(bench):
    part = Part([MONTHS[0]])
    sample, all_rows = load_split(bench, part, LIMIT), load_split(bench, part, None)
    assert len(sample.target) == LIMIT
    if bench.spec.target.task == "classification":
        assert sample.target.mean() == pytest.approx(all_rows.target.mean(), abs=1 / LIMIT)
    # Fares with their cents are nearly unique: the sample's are a subsequence of all.
    remaining = iter(zip(all_rows.features["fare"], all_rows.features["hour"], strict=True))
    assert all(row in remaining for row in zip(sample.features["fare"], sample.features["hour"], strict=True))


def test_a_limit_that_no_part_reaches_changes_no_version(tmp_path: Path) -> None:
    with tiny_model.ingested(tmp_path, tiny_model.spec(), MONTHS) as made:
        plan = challenger.learning_plan(made, MONTHS[-1])
        prints = {}
        for limit in (LIMIT, 1_000, 1_000_000):
            other = replace(made, spec=made.spec.model_copy(update={"max_rows": limit}))
            parts = challenger._fingerprint_parts(other, plan, [], challenger.samples(other, plan))
            prints[limit] = registry.fingerprint(parts)
    assert prints[1_000] == prints[1_000_000] != prints[LIMIT]
