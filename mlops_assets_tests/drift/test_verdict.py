"""The report says what drifted, how badly, since when, and never raises over an odd column."""

from __future__ import annotations

from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pydantic import ValidationError

from mlops_assets.drift.profile import ColumnProfile, Profile, profile
from mlops_assets.drift.verdict import ROWS_SCHEMA, ColumnThresholds, DriftReport, DriftThresholds, compare

FIRST, LAST = date(2022, 12, 1), date(2022, 12, 31)
LIMITS = DriftThresholds()


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def table(con: duckdb.DuckDBPyConnection, kinds: dict[str, Any], rows: int = 4000, **columns: str) -> Profile:
    """`rows` rows over the period's 31 days; each column is an SQL expression of n, the row's number."""
    shown = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    sql = f"(SELECT DATE '{FIRST}' + CAST(n % 31 AS INTEGER) AS at, {shown} FROM range({rows}) numbers(n))"
    return profile(con, sql, kinds, "at")


KINDS: dict[str, Any] = {f"x{i}": "numeric" for i in range(9)} | {"city": "categorical"}
STABLE = {f"x{i}": f"(n * {i + 3}) % 97" for i in range(9)} | {"city": "['a', 'b', 'c'][1 + n % 3]"}


def against_stable(con: duckdb.DuckDBPyConnection, kinds: Any = None, **changes: Any) -> DriftReport:
    options = {k: changes.pop(k) for k in ("importances", "scores", "thresholds") if k in changes}
    thresholds = options.pop("thresholds", LIMITS)
    reference = table(con, KINDS, **STABLE)
    current = table(con, kinds or KINDS, **{**STABLE, **changes})
    return compare(reference, current, KINDS, thresholds, first_day=FIRST, last_day=LAST, **options)


def drift_of(report: DriftReport, name: str) -> Any:
    return next(c for c in report.columns if c.name == name)


def test_the_same_data_is_ok(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con)
    assert (report.verdict, report.reasons, report.since) == ("ok", [], None)
    assert (report.severe_columns, report.warning_columns) == ([], [])


def test_one_severe_column_of_ten_reaches_the_share(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con, x3="(n * 6) % 97 + 60")
    assert report.verdict == "severe"
    assert report.severe_columns == ["x3"]
    assert report.reasons[0] == "1 of 10 columns are severe (10 % ≥ 10 %)"
    assert report.reasons[1].startswith("x3: PSI ")
    assert "≥ 0.25 (severe) since 2022-12-01; median 48 → 108, +125 %" in report.reasons[1]


def test_below_the_share_a_severe_column_is_a_warning_of_the_period(con: duckdb.DuckDBPyConnection) -> None:
    limits = DriftThresholds(share=0.2)
    report = against_stable(con, x3="(n * 6) % 97 + 60", thresholds=limits)
    assert (report.verdict, report.severe_columns, report.since) == ("warning", ["x3"], None)


@pytest.mark.parametrize(("importance", "verdict"), [(30.0, "severe"), (10.0, "warning")])
def test_an_important_severe_column_is_enough(con: duckdb.DuckDBPyConnection, importance: float, verdict: str) -> None:
    limits = DriftThresholds(share=0.2)
    importances = {"x3": importance, "city": 100 - importance}
    report = against_stable(con, x3="(n * 6) % 97 + 60", thresholds=limits, importances=importances)
    assert report.verdict == verdict
    assert report.important_share == pytest.approx(importance / 100)
    assert any("of the champion's importance" in r for r in report.reasons) == (verdict == "severe")


def test_drifting_scores_are_enough(con: duckdb.DuckDBPyConnection) -> None:
    old = ColumnProfile.of("score", "numeric", [i / 1000 for i in range(1000)])
    new = ColumnProfile.of("score", "numeric", [0.4 + i / 2000 for i in range(1000)])
    report = against_stable(con, scores=(old, new))
    assert report.verdict == "severe"
    assert report.scores is not None
    assert report.scores.verdict == "severe"
    assert report.reasons[0].startswith("the champion's scores are severe (PSI ")
    assert against_stable(con, scores=(old, old)).verdict == "ok"
    assert against_stable(con, scores=(old, ColumnProfile.of("score", "numeric", []))).scores is None


def test_a_constant_column_that_moves_is_severe_by_novelty(con: duckdb.DuckDBPyConnection) -> None:
    kinds: dict[str, Any] = {**KINDS, "fee": "numeric"}
    reference = table(con, kinds, **STABLE, fee="0.3")
    current = table(con, kinds, **STABLE, fee="CASE WHEN n % 10 < 6 THEN 1.0 ELSE 0.3 END")
    limits = DriftThresholds(share=1)
    report = compare(reference, current, kinds, limits, importances={"x0": 1}, first_day=FIRST, last_day=LAST)
    assert report.verdict == "severe"
    assert report.reasons[0] == ("fee: 60 % of its values are ones that the reference never had (≥ 50 %): 1 (60 %)")
    assert "constant in the reference (0.3)" in report.reasons[1]


def test_a_column_that_is_not_judged_is_shown_and_has_no_say(con: duckdb.DuckDBPyConnection) -> None:
    own = {"city": ColumnThresholds(judged=False)}
    moved = {"city": "'z'"}
    assert against_stable(con, **moved).verdict == "severe"
    report = against_stable(con, **moved, thresholds=DriftThresholds(columns=own), importances={"city": 1})
    assert (report.verdict, report.reasons, report.severe_share) == ("ok", [], 0)
    shown = drift_of(report, "city")
    assert (shown.verdict, shown.novelty.share) == ("none", 1)
    assert shown.psi > LIMITS.severe
    assert "not in the reference: z" in report.markdown()


def test_the_share_of_severe_columns_is_one_of_the_judged_columns(con: duckdb.DuckDBPyConnection) -> None:
    own = {name: ColumnThresholds(judged=False) for name in ("x0", "x1", "x2", "x4", "x5")}
    report = against_stable(con, x3="(n * 6) % 97 + 60", thresholds=DriftThresholds(columns=own, share=0.2))
    assert report.reasons[0] == "1 of 5 columns are severe (20 % ≥ 20 %)"


def test_limits_of_a_column_that_is_not_judged_are_refused() -> None:
    with pytest.raises(ValidationError, match="judged is false, so warning and severe would have no effect"):
        ColumnThresholds(judged=False, severe=1.0)


def test_a_column_has_its_own_limits(con: duckdb.DuckDBPyConnection) -> None:
    change = {"x3": "(n * 6) % 97 + 20"}
    psi = drift_of(against_stable(con, **change), "x3").psi
    own = DriftThresholds(columns={"x3": ColumnThresholds(warning=psi + 1, severe=psi + 2)})
    assert against_stable(con, **change).verdict == "severe"
    assert against_stable(con, **change, thresholds=own).verdict == "ok"


def test_noise_of_few_rows_is_ok(con: duckdb.DuckDBPyConnection) -> None:
    reference = table(con, KINDS, **STABLE)
    drawn = {name: sql.replace("n", "(hash(n) % 4000)::BIGINT") for name, sql in STABLE.items()}
    few = table(con, KINDS, 12, **drawn)
    report = compare(reference, few, KINDS, LIMITS, first_day=FIRST, last_day=LAST)
    assert max(c.psi for c in report.columns if c.psi is not None) > LIMITS.warning
    assert report.verdict == "ok"


def test_an_all_null_column_is_a_line(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con, x1="NULL")
    found = drift_of(report, "x1")
    assert found.verdict == "severe"
    assert found.direction == "null share 0 % → 100 %"
    assert "all null in the period" in found.notes
    assert found.evidently is None


def test_a_column_null_on_both_sides_is_ok(con: duckdb.DuckDBPyConnection) -> None:
    kinds: dict[str, Any] = {"gone": "numeric", "none": "categorical"}
    nothing = table(con, kinds, gone="NULL", none="NULL")
    report = compare(nothing, nothing, kinds, LIMITS, first_day=FIRST, last_day=LAST)
    assert report.verdict == "ok"
    filled = table(con, kinds, gone="n", none="'x'")
    assert compare(nothing, filled, kinds, LIMITS, first_day=FIRST, last_day=LAST).verdict == "severe"


def test_a_vanished_column_is_a_line(con: duckdb.DuckDBPyConnection) -> None:
    current = table(con, KINDS, **STABLE).only([f"x{i}" for i in range(9)])
    report = compare(table(con, KINDS, **STABLE), current, KINDS, LIMITS, first_day=FIRST, last_day=LAST)
    assert drift_of(report, "city").verdict == "severe"
    assert any("city" in r and "vanished" in r for r in report.reasons)


def test_a_new_column_is_a_line(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con, {**KINDS, "fresh": "numeric"}, fresh="n")
    assert drift_of(report, "fresh").notes == ("new: the reference has no such column, nothing to compare with",)
    assert report.verdict == "warning"
    assert report.severe_share == 0


def test_a_column_of_another_kind_is_a_line(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con, {**KINDS, "city": "numeric"}, city="n")
    assert "was categorical, is numeric: not comparable" in drift_of(report, "city").notes[0]
    assert report.verdict == "severe"


def test_unseen_categories_are_named_with_their_share(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con, city="CASE WHEN n % 50 = 0 THEN 'new' ELSE ['a', 'b', 'c'][1 + n % 3] END")
    found = drift_of(report, "city")
    assert found.notes == ("not in the reference: new (2 %)",)
    many: dict[str, Any] = {"zone": "categorical"}
    reference = table(con, many, zone="n % 200")
    current = table(con, many, zone="CASE WHEN n % 50 = 0 THEN 999 ELSE n % 200 END")
    report = compare(reference, current, many, LIMITS, first_day=FIRST, last_day=LAST)
    rows = report.rows().to_pylist()
    assert [(r["value"], r["direction"]) for r in rows if r["method"] == "unseen_share"] == [(0.02, "999 (2 %)")]


def test_a_column_at_warning_says_since_when_it_jumped(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con, x3="(n * 6) % 97 + CASE WHEN n % 31 >= 25 THEN 97 ELSE 0 END")
    found = drift_of(report, "x3")
    assert (found.verdict, found.since) == ("warning", date(2022, 12, 26))
    assert (report.verdict, report.since) == ("warning", None)


def test_rounded_and_exact_values_of_one_population_are_equal(con: duckdb.DuckDBPyConnection) -> None:
    kinds: dict[str, Any] = {"score": "numeric"}
    score = "0.1 + 0.9 * (hash(n) / 18446744073709551616)"
    sql = f"(SELECT DATE '{FIRST}' AS at, {score} AS score FROM range(40000) numbers(n))"
    exact, rounded = profile(con, sql, kinds, "at"), profile(con, sql, kinds, "at", quantise_above=20_000)
    assert (exact.column("score").digits, rounded.column("score").digits) == (None, 4)
    found = drift_of(compare(exact, rounded, kinds, LIMITS, first_day=FIRST, last_day=LAST), "score")
    assert found.psi == pytest.approx(0, abs=1e-9)
    assert found.kolmogorov_smirnov == pytest.approx(0, abs=1e-3)


def test_nothing_to_compare_is_none_with_its_reason(con: duckdb.DuckDBPyConnection) -> None:
    some, nothing = table(con, KINDS, **STABLE), Profile.empty(KINDS)
    empty = compare(some, nothing, KINDS, LIMITS, first_day=FIRST, last_day=LAST)
    assert (empty.verdict, empty.reasons) == ("none", ["the period has no rows"])
    report = compare(nothing, some, KINDS, LIMITS, first_day=FIRST, last_day=LAST)
    assert (report.verdict, report.reasons) == (
        "none",
        ["the reference has no rows, nothing to compare with"],
    )
    for made in (empty, report, DriftReport.none("no champion yet")):
        assert made.rows().schema == ROWS_SCHEMA
        assert made.reasons[0] in made.markdown()


def shifted_scores(by: float, rows: int = 4000) -> tuple[ColumnProfile, ColumnProfile]:
    """Evenly spread scores, and the same moved by a share of their standard deviation."""
    old = [round(i / rows, 4) for i in range(rows)]
    return (
        ColumnProfile.of("score", "numeric", old),
        ColumnProfile.of("score", "numeric", [round(value + by / 12**0.5, 4) for value in old]),
    )


TOLERANT = {"(scores)": ColumnThresholds(warning=90, severe=99)}


@pytest.mark.parametrize("rows", [4000, 400])
def test_prediction_drift_above_its_threshold_is_severe_whatever_the_columns_do(
    con: duckdb.DuckDBPyConnection, rows: int
) -> None:
    limits = DriftThresholds(predictions=0.6, columns=TOLERANT)
    report = against_stable(con, scores=shifted_scores(0.7, rows), thresholds=limits)
    assert (report.verdict, report.severe_columns) == ("severe", [])
    assert report.reasons[0] == ("prediction drift 0.70 > 0.6 (Wasserstein distance (normed) of the champion's scores)")
    (row,) = [row for row in report.rows().to_pylist() if row["method"] == "prediction_drift"]
    assert (row["column"], row["threshold"], row["verdict"]) == ("(period)", 0.6, "severe")
    assert row["value"] == pytest.approx(0.7, abs=0.01)
    below = against_stable(con, scores=shifted_scores(0.5, rows), thresholds=limits)
    assert below.verdict == "ok"
    (row,) = [row for row in below.rows().to_pylist() if row["method"] == "prediction_drift"]
    assert row["verdict"] == "ok"


def test_without_its_threshold_prediction_drift_has_no_say_and_no_row(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con, scores=shifted_scores(0.7), thresholds=DriftThresholds(columns=TOLERANT))
    assert (report.verdict, report.prediction_drift) == ("ok", None)
    assert "prediction_drift" not in {row["method"] for row in report.rows().to_pylist()}
    unscored = against_stable(con, thresholds=DriftThresholds(predictions=0.6))
    assert (unscored.verdict, unscored.prediction_drift) == ("ok", None)


def test_the_scores_may_have_psi_limits_of_their_own(con: duckdb.DuckDBPyConnection) -> None:
    scores = shifted_scores(0.7)
    assert against_stable(con, scores=scores).verdict == "severe"
    assert against_stable(con, scores=scores, thresholds=DriftThresholds(columns=TOLERANT)).verdict == "ok"


def test_the_digest_follows_the_content_only(con: duckdb.DuckDBPyConnection) -> None:
    drifted = {"x3": "(n * 6) % 97 + 60"}
    assert against_stable(con, **drifted).digest() == against_stable(con, **drifted).digest()
    others = [
        against_stable(con),
        against_stable(con, **drifted, thresholds=DriftThresholds(severe=0.3)),
        against_stable(con, **drifted, importances={"x3": 1.0}),
        DriftReport.none("no champion yet"),
        DriftReport.none("no full window yet"),
    ]
    digests = {report.digest() for report in [*others, against_stable(con, **drifted)]}
    assert len(digests) == len(others) + 1


def test_the_rows_hold_every_method_for_every_column(con: duckdb.DuckDBPyConnection) -> None:
    old = ColumnProfile.of("score", "numeric", [i / 1000 for i in range(1000)])
    rows = against_stable(con, x3="(n * 6) % 97 + 60", scores=(old, old), importances={"x3": 1}).rows()
    assert isinstance(rows, pa.Table)
    assert rows.schema == ROWS_SCHEMA
    listed = rows.to_pylist()
    methods = {r["method"] for r in listed if r["column"] == "x3"}
    assert methods == {"psi", "ks", "wasserstein", "jensen_shannon", "evidently", "null_share"}
    psi = next(r for r in listed if (r["column"], r["method"]) == ("x3", "psi"))
    assert (psi["verdict"], psi["threshold"], psi["importance"], psi["since"]) == ("severe", 0.25, 1.0, FIRST)
    assert [r["column"] for r in listed if r["method"] == "share_of_severe_columns"] == ["(period)"]
    assert "(scores)" in {r["column"] for r in listed}


def test_markdown_shows_the_worst_column_first_and_escapes_bars(con: duckdb.DuckDBPyConnection) -> None:
    report = against_stable(con, x3="(n * 6) % 97 + 60", city="'x|y'")
    lines = report.markdown(limit=3).splitlines()
    assert lines[0] == "**severe**, since 2022-12-01"
    table_lines = [line for line in lines if line.startswith("| ") and "| --- |" not in line][1:]
    assert len(table_lines) == 3
    assert table_lines[0].startswith("| **city** | **severe** |")
    assert "x\\|y" in table_lines[0]
    assert lines[-1] == "… and 7 more columns."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"severe": 0.05}, r"severe \(0.05\) is below warning \(0.1\)"),
        ({"columns": {"a": {"severe": 0.05}}}, r"columns.a: severe \(0.05\) is below warning \(0.1\)"),
        ({"share": 0}, "greater than 0"),
        ({"predictions": 0}, "greater than 0"),
        ({"novelty": 1.5}, "less than or equal to 1"),
        ({"sever": 0.3}, "Extra inputs are not permitted"),
        ({"columns": {"a": {"psi": 0.3}}}, "Extra inputs are not permitted"),
        ({"warning": float("nan")}, "greater than 0|finite"),
    ],
)
def test_wrong_thresholds_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DriftThresholds.model_validate(given)
