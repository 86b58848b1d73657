from __future__ import annotations

import math
from collections.abc import Iterator

import duckdb
import numpy as np
import pytest

from mlops_assets.training import scored_rows
from mlops_assets.training.metrics import calibration_curve, classification_metrics, regression_metrics
from mlops_assets.training.scored_rows import ScoredRows

EXACT = {"rel": 1e-12, "abs": 1e-12, "nan_ok": True}


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 2}) as opened:
        yield opened


def added(con: duckdb.DuckDBPyConnection, outcomes: np.ndarray, scores: np.ndarray, in_memory: int = 10) -> ScoredRows:
    """The rows in batches of uneven size."""
    rows = ScoredRows(con, in_memory)
    for part in np.array_split(np.arange(len(scores)), 7):
        rows.add(outcomes[part], scores[part])
    return rows


def probabilities(rng: np.random.Generator, rows: int, decimals: int | None) -> tuple[np.ndarray, np.ndarray]:
    scores = rng.beta(1.5, 3.0, rows)
    scores = scores if decimals is None else np.round(scores, decimals)
    return (rng.random(rows) < scores**0.8).astype(np.int8), scores


@pytest.mark.parametrize("decimals", [None, 3, 1, 0])
@pytest.mark.parametrize("chunk", [64, 1_000, 1_000_000])
def test_streamed_classification_metrics_equal_those_in_memory(con, rng, monkeypatch, decimals, chunk):
    monkeypatch.setattr(scored_rows, "CHUNK_ROWS", chunk)
    outcomes, scores = probabilities(rng, 5_003, decimals)
    found, expected = added(con, outcomes, scores), classification_metrics(outcomes, scores, 0.4)
    assert found.metrics(0.4) == pytest.approx(expected, **EXACT)
    curve, wanted = found.calibration_curve(), calibration_curve(outcomes, scores)
    np.testing.assert_array_equal(curve.rows, wanted.rows)
    np.testing.assert_allclose(curve.score, wanted.score, rtol=1e-12)
    np.testing.assert_allclose(curve.rate, wanted.rate, rtol=1e-12)


@pytest.mark.parametrize("outcome", [0, 1])
def test_streamed_metrics_of_one_class_are_undefined_for_the_same_reasons(con, rng, outcome):
    scores = np.round(rng.random(400), 2)
    outcomes = np.full(400, outcome, np.int8)
    found, expected = added(con, outcomes, scores).metrics(1.5), classification_metrics(outcomes, scores, 1.5)
    assert found.undefined == expected.undefined
    assert found == pytest.approx(expected, **EXACT)


def test_streamed_metrics_of_certain_scores_and_of_one_single_score(con):
    outcomes = np.tile([0, 1, 1], 50).astype(np.int8)
    for scores in (np.tile([0.0, 1.0, 0.0], 50), np.full(150, 0.25)):
        expected = classification_metrics(outcomes, scores, 0.25)
        assert added(con, outcomes, scores).metrics(0.25) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("chunk", [64, 1_000_000])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_streamed_regression_metrics_equal_those_in_memory(con, rng, monkeypatch, chunk, shift):
    monkeypatch.setattr(scored_rows, "CHUNK_ROWS", chunk)
    amounts = rng.gamma(2.0, 10.0, 5_003) + shift
    predicted = amounts + rng.normal(0.5, 4.0, len(amounts))
    found, expected = added(con, amounts, predicted).metrics(None), regression_metrics(amounts, predicted)
    # R² of amounts far from 0: both ways round the distances from the mean.
    assert found == pytest.approx(expected, rel=1e-12 if not shift else 1e-9)


@pytest.mark.parametrize("amount", [0.0, 0.1])
def test_streamed_metrics_of_equal_amounts_are_undefined(con, amount):
    found = added(con, np.full(100, amount), np.linspace(0, 1, 100)).metrics(None)
    assert "r2" in found.undefined
    assert math.isnan(found["r2"])
    assert ("wmape" in found.undefined) == (amount == 0)


def test_rows_in_any_order_and_batches_give_the_same_bits(con, rng):
    outcomes, scores = probabilities(rng, 4_000, 3)
    shuffled = rng.permutation(4_000)
    one, other = added(con, outcomes, scores), added(con, outcomes[shuffled], scores[shuffled], in_memory=2_500)
    assert dict(one.metrics(0.3)) == dict(other.metrics(0.3))
    np.testing.assert_array_equal(one.draw(np.random.default_rng(7), 100), other.draw(np.random.default_rng(7), 100))


def test_few_rows_stay_in_memory_in_their_order(con, rng):
    outcomes, scores = probabilities(rng, 50, None)
    found = added(con, outcomes, scores, in_memory=50)
    np.testing.assert_array_equal(found.arrays()[1], scores)
    assert dict(found.metrics(0.5)) == dict(classification_metrics(outcomes, scores, 0.5))
    assert con.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]


def test_drawn_scores_are_scores_of_the_rows_and_a_relation_has_them_all(con, rng):
    outcomes, scores = probabilities(rng, 3_000, None)
    found = added(con, outcomes, scores)
    assert set(found.draw(rng, 500)) <= set(scores)
    with found.relation(con) as relation:
        total = con.execute(f"SELECT count(*), sum(outcome) FROM {relation}").fetchall()[0]
    assert total == (3_000, outcomes.sum())


def test_closed_rows_leave_no_table(con, rng):
    outcomes, scores = probabilities(rng, 300, None)
    with added(con, outcomes, scores) as found:
        found.metrics(0.5)
    assert con.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("outcome", "score", "message"), [(2, 0.5, "labels must be 0 or 1"), (1, 1.5, "probabilities"), (1, np.nan, "prob")]
)
def test_what_can_not_be_measured_is_refused_when_streamed_too(con, outcome, score, message):
    rows = added(con, np.r_[np.zeros(20), outcome], np.r_[np.full(20, 0.5), score])
    with pytest.raises(ValueError, match=message):
        rows.metrics(0.5)
