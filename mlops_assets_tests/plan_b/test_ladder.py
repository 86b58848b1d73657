"""Plan B serves every record once, from the first rung that can, and says why the earlier ones could not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.plan_b.ladder import RUNGS, NoPlanB, PlanBInputs, PreviousChampion, Served, serve

SOURCE = pa.schema([("zone", pa.int64()), ("kind", pa.string()), ("score", pa.float64()), ("outcome", pa.int64())])
RECORDS = pa.schema([("record_id", pa.int64()), ("zone", pa.int64()), ("kind", pa.string())])
CUT = 0.4

kinds = st.sampled_from(["a", "b", "O'Hare", ""]) | st.none()
source_rows = st.lists(
    st.tuples(
        st.integers(0, 3) | st.none(),
        kinds,
        st.floats(0, 1) | st.sampled_from([None, math.nan]),
        st.sampled_from([None, 0, 1]),
    ),
    max_size=40,
)
usable_source_rows = source_rows.filter(lambda rows: any(value_of(row) is not None for row in rows))
# Zones 4 and 5 never occur in the source.
record_rows = st.lists(st.tuples(st.integers(0, 5) | st.none(), kinds), max_size=20)
segment_lists = st.sampled_from([["zone"], ["kind"], ["zone", "kind"], ["kind", "zone"]])
shrinkages = st.sampled_from([0.0, 0.5, 50.0, 1e6])


@pytest.fixture(scope="module")
def con() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def value_of(row: Sequence[Any]) -> float | None:
    """What a source row contributes: its outcome, else its score."""
    score, outcome = row[2], row[3]
    if outcome is not None:
        return float(outcome)
    return None if score is None or math.isnan(score) else score


def inputs(
    con: duckdb.DuckDBPyConnection,
    source: Sequence[Sequence[Any]] | None,
    records: Sequence[Sequence[Any]],
    /,
    **changes: Any,
) -> PlanBInputs:
    con.register("records", rows_of([(i, *record) for i, record in enumerate(records)], RECORDS))
    if source is not None:
        con.register("source", rows_of(source, SOURCE))
    given_inputs: dict[str, Any] = {
        "con": con,
        "records": "records",
        "keys": ["record_id"],
        "task": "classification",
        "cut": CUT,
        "segments": ["zone", "kind"],
        "source": None if source is None else "source",
        "source_period": None if source is None else "2022-11",
    }
    return PlanBInputs(**given_inputs | changes)


def rows_of(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    columns: list[Any] = list(zip(*rows, strict=True)) or [[]] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def scores(served: Served) -> list[float]:
    return served.batches.read_all().column("score").to_pylist()


def plain_rates(
    source: Sequence[Sequence[Any]], records: Sequence[Sequence[Any]], segments: Sequence[str], k: float
) -> list[float]:
    """The formula of the documentation, record by record in pandas."""
    frame = pd.DataFrame(source, columns=SOURCE.names, dtype=object)
    frame["y"] = np.array([value_of(row) for row in source], dtype=float)
    frame = frame[frame["y"].notna()]
    found = []
    for record in records:
        wanted = dict(zip(["zone", "kind"], record, strict=True))
        rate, inside = frame["y"].mean(), frame
        for name in segments:
            value = wanted[name]
            inside = inside[inside[name].isna() if value is None else inside[name] == value]
            if len(inside):
                rate = (inside["y"].sum() + k * rate) / (len(inside) + k)
        found.append(rate)
    return found


# -- properties -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(usable_source_rows, record_rows, segment_lists, shrinkages, st.sampled_from(["segment_rate", "global_rate"]))
def test_every_record_gets_one_prediction_in_its_place_within_what_the_source_saw(
    con: duckdb.DuckDBPyConnection,
    source: list[Any],
    records: list[Any],
    segments: list[str],
    shrinkage: float,
    rung: str,
) -> None:
    served = serve([rung], inputs(con, source, records, segments=segments, shrinkage=shrinkage)).batches.read_all()
    assert served.column_names == ["record_id", "score", "prediction"]
    assert served["record_id"].to_pylist() == list(range(len(records)))
    values = [value for row in source if (value := value_of(row)) is not None]
    assert all(min(values) <= score <= max(values) for score in served["score"].to_pylist())
    assert served["prediction"].to_pylist() == [float(score >= CUT) for score in served["score"].to_pylist()]


@settings(max_examples=40, deadline=None)
@given(usable_source_rows, record_rows, segment_lists, shrinkages)
def test_segment_rates_are_those_of_the_plain_formula(
    con: duckdb.DuckDBPyConnection, source: list[Any], records: list[Any], segments: list[str], shrinkage: float
) -> None:
    served = serve(["segment_rate"], inputs(con, source, records, segments=segments, shrinkage=shrinkage))
    assert scores(served) == pytest.approx(plain_rates(source, records, segments, shrinkage), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(usable_source_rows, record_rows)
def test_no_shrinkage_gives_raw_means_and_endless_shrinkage_the_overall_mean(
    con: duckdb.DuckDBPyConnection, source: list[Any], records: list[Any]
) -> None:
    overall = scores(serve(["global_rate"], inputs(con, source, records)))
    endless = serve(["segment_rate"], inputs(con, source, records, shrinkage=1e15))
    assert scores(endless) == pytest.approx(overall, abs=1e-12)
    seen = [row[:2] for row in source if value_of(row) is not None]
    raw = scores(serve(["segment_rate"], inputs(con, source, seen, shrinkage=0)))
    for segment, score in zip(seen, raw, strict=True):
        inside = [value for row in source if row[:2] == segment and (value := value_of(row)) is not None]
        assert score == pytest.approx(np.mean(inside), abs=1e-12)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_source_rows_changes_no_bit_of_the_scores(con: duckdb.DuckDBPyConnection, seed: int) -> None:
    random = np.random.default_rng(seed)
    # Floating-point sums of this many scores depend on the order of their terms.
    source = [(i % 3, "a", score, None) for i, score in enumerate(random.random(5_000).tolist())]
    shuffled = [source[i] for i in random.permutation(len(source))]
    for rung in ("segment_rate", "global_rate"):
        records = [(0, "a"), (1, "a"), (2, "b"), (3, None)]
        first = scores(serve([rung], inputs(con, source, records)))
        assert scores(serve([rung], inputs(con, shuffled, records))) == first


@settings(max_examples=20, deadline=None)
@given(usable_source_rows, record_rows, st.randoms(use_true_random=False))
def test_records_are_scored_for_themselves_whatever_their_order(
    con: duckdb.DuckDBPyConnection, source: list[Any], records: list[Any], random: Any
) -> None:
    order = random.sample(range(len(records)), len(records))
    first = scores(serve(["segment_rate"], inputs(con, source, records)))
    again = scores(serve(["segment_rate"], inputs(con, source, [records[i] for i in order])))
    assert again == [first[i] for i in order]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(RUNGS), unique=True, min_size=1),
    st.none() | source_rows,
    st.booleans(),
    st.booleans(),
)
def test_the_first_rung_that_can_serve_is_used_and_named(
    con: duckdb.DuckDBPyConnection, ladder: list[str], source: list[Any] | None, has_segments: bool, has_previous: bool
) -> None:
    has_source = source is not None and any(value_of(row) is not None for row in source)
    usable = {
        "segment_rate": has_source and has_segments,
        "previous_champion": has_previous,
        "global_rate": has_source,
    }
    given_inputs = inputs(
        con,
        source,
        [(1, "a"), (None, None)],
        segments=["zone"] if has_segments else [],
        previous=previous_champion() if has_previous else None,
    )
    first = next((rung for rung in ladder if usable[rung]), None)
    if first is None:
        with pytest.raises(NoPlanB) as caught:
            serve(ladder, given_inputs)
        assert list(caught.value.reasons) == ladder
        assert all(f"{rung}: {reason}" in str(caught.value) for rung, reason in caught.value.reasons.items())
        return
    served = serve(ladder, given_inputs)
    assert served.rung == first
    assert list(served.skipped) == ladder[: ladder.index(first)]
    assert all(served.skipped.values())
    assert served.batches.read_all().num_rows == 2


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["x", "y"]), st.floats(-1e9, 1e9)), min_size=1, max_size=30),
)
def test_regression_serves_mean_amounts_without_a_cut(
    con: duckdb.DuckDBPyConnection, amounts: list[tuple[str, float]]
) -> None:
    con.register("sales", pa.table({"shop": [s for s, _ in amounts], "outcome": [a for _, a in amounts]}))
    con.register("shops", pa.table({"shop": ["x", "y", "z"]}))
    given_inputs = PlanBInputs(
        con=con,
        records="shops",
        keys=["shop"],
        task="regression",
        segments=["shop"],
        source="(SELECT *, NULL AS score FROM sales)",
        source_period="2014-01-06",
        shrinkage=0,
    )
    served = serve(["segment_rate"], given_inputs)
    found = served.batches.read_all()
    overall = float(np.mean([amount for _, amount in amounts]))
    means = pd.DataFrame(amounts, columns=["shop", "y"]).groupby("shop")["y"].mean()
    size = max(abs(amount) for _, amount in amounts)
    expected = [means.get(shop, overall) for shop in ("x", "y", "z")]
    assert found["score"].to_pylist() == pytest.approx(expected, abs=1e-9 * size + 1e-300)
    assert found["prediction"].equals(found["score"])
    assert served.cut is None


# -- examples -------------------------------------------------------------------------------------------------


def previous_champion(give: Callable[[pd.DataFrame], Any] | None = None, **changes: Any) -> PreviousChampion:
    scoring = give or (lambda frame: np.where(frame["zone"].fillna(0) > 0, 0.45, 0.42))
    return PreviousChampion(**{"version": "7", "scores": scoring, "cut": 0.45} | changes)


def test_an_unseen_segment_takes_its_parents_rate_and_an_unseen_parent_the_overall_one(
    con: duckdb.DuckDBPyConnection,
) -> None:
    source = [(1, "a", None, 1), (1, "a", None, 1), (1, "b", None, 0), (2, "a", None, 0)]
    served = serve(["segment_rate"], inputs(con, source, [(1, "a"), (1, "new"), (9, "a")], shrinkage=2))
    zone_1 = (2 + 2 * 0.5) / (3 + 2)
    assert scores(served) == pytest.approx([(2 + 2 * zone_1) / (2 + 2), zone_1, 0.5])
    assert served.facts == {"source_rows": 4, "known_outcomes": 4, "overall_rate": 0.5}
    assert (served.source_period, served.model_version, served.cut, served.skipped) == ("2022-11", None, CUT, {})


@pytest.mark.parametrize("shrinkage", [0.0, 0.5, 3.0, 50.0])
@pytest.mark.parametrize("score", [0.1, 0.3, 0.7, 0.9, 0.95])
def test_where_every_score_was_the_cut_every_record_is_positive(
    con: duckdb.DuckDBPyConnection, score: float, shrinkage: float
) -> None:
    source = [(rows, "a", score, None) for rows in range(1, 12) for _ in range(rows)]
    records = [(rows, "a") for rows in range(1, 12)]
    served = serve(["segment_rate"], inputs(con, source, records, cut=score, shrinkage=shrinkage))
    found = served.batches.read_all()
    assert set(found["score"].to_pylist()) == {score}
    assert set(found["prediction"].to_pylist()) == {1.0}


def test_outcomes_count_where_they_are_known_and_the_champions_scores_elsewhere(con: duckdb.DuckDBPyConnection) -> None:
    source = [(1, "a", 0.9, 0), (1, "a", 0.25, None), (1, "a", None, None), (1, "a", math.nan, None)]
    served = serve(["segment_rate"], inputs(con, source, [(1, "a")], shrinkage=0))
    assert scores(served) == [0.125]
    assert (served.facts["source_rows"], served.facts["known_outcomes"]) == (2, 1)


def test_missing_segments_are_a_segment_of_their_own(con: duckdb.DuckDBPyConnection) -> None:
    source = [(None, "a", None, 1), (None, None, None, 0), (1, "a", None, 0)]
    served = serve(["segment_rate"], inputs(con, source, [(None, "a"), (None, None), (1, None)], shrinkage=0))
    assert scores(served) == [1.0, 0.0, 0.0]


def test_the_previous_champion_is_judged_with_its_own_cut(con: duckdb.DuckDBPyConnection) -> None:
    given_inputs = inputs(con, None, [(1, "a"), (0, "a"), (None, None)], previous=previous_champion())
    served = serve(["segment_rate", "previous_champion"], given_inputs)
    found = served.batches.read_all()
    assert found["score"].to_pylist() == [0.45, 0.42, 0.42]
    assert found["prediction"].to_pylist() == [1.0, 0.0, 0.0]
    assert (served.model_version, served.cut, served.source_period) == ("7", 0.45, None)
    assert served.skipped == {"segment_rate": "there is no earlier healthy period"}


def test_columns_may_have_any_name_and_keys_may_be_segments(con: duckdb.DuckDBPyConnection) -> None:
    names = ["y", "known", "scored", "units", "position", 'a "quoted" one', "n", "rate", "select", "s0", "k0"]
    table = pa.table({name: [1, 2] for name in names})
    con.register("odd", table)
    con.register("odd_source", table.append_column("score", pa.array([0.0, 1.0])))
    given_inputs = PlanBInputs(
        con=con,
        records="odd",
        keys=names,
        task="classification",
        cut=0.5,
        segments=names,
        source="(SELECT *, NULL AS outcome FROM odd_source)",
        source_period="2022-11",
        shrinkage=0,
    )
    for rung, expected in (("segment_rate", [0.0, 1.0]), ("global_rate", [0.5, 0.5])):
        found = serve([rung], given_inputs).batches.read_all()
        assert found.column_names == [*names, "score", "prediction"]
        assert found["score"].to_pylist() == expected


def test_many_records_stream_in_the_order_of_the_records(con: duckdb.DuckDBPyConnection) -> None:
    rows = 400_000
    con.execute("SET threads = 2")
    con.execute(f"CREATE TEMP TABLE many AS SELECT hash(i) AS id, hash(i) % 97 AS zone FROM range({rows}) t(i)")
    con.execute("CREATE TEMP TABLE before AS SELECT i AS zone, 0.5 AS score, NULL AS outcome FROM range(90) t(i)")
    ids = con.execute("SELECT id FROM many").fetchnumpy()["id"]
    given_inputs = PlanBInputs(
        con=con,
        records="many",
        keys=["id"],
        task="classification",
        cut=CUT,
        segments=["zone"],
        source="before",
        source_period="2022-11",
        previous=previous_champion(),
    )
    for rung in RUNGS:
        batches = list(serve([rung], given_inputs).batches)
        assert max(batch.num_rows for batch in batches) < rows / 2
        assert np.array_equal(np.concatenate([batch.column("id").to_numpy() for batch in batches]), ids)


# -- what can't serve -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rung", "change", "reason"),
    [
        ("segment_rate", {"source": None, "source_period": None}, "no earlier healthy period"),
        ("global_rate", {"source": None, "source_period": None}, "no earlier healthy period"),
        ("segment_rate", {"source": "(FROM source LIMIT 0)"}, "2022-11 has no record with a known outcome or a score"),
        ("global_rate", {"source": "(SELECT * REPLACE (NULL AS outcome) FROM source)"}, "2022-11 has no record with"),
        ("segment_rate", {"segments": []}, "declares no segments"),
        (
            "segment_rate",
            {"source": "(SELECT * EXCLUDE (zone) FROM source)"},
            r"2022-11 has no segment columns .'zone'",
        ),
        (
            "segment_rate",
            {"source": "(SELECT * REPLACE (zone::VARCHAR AS zone) FROM source)"},
            "zone is VARCHAR in 2022-11 but BIGINT in the records",
        ),
        ("previous_champion", {}, "no version was in force before"),
        (
            "previous_champion",
            {"previous": previous_champion(columns=["zone", "fare"])},
            r"version 7 needs the columns \['fare'\]",
        ),
    ],
)
def test_a_rung_that_cannot_serve_says_why(
    con: duckdb.DuckDBPyConnection, rung: str, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NoPlanB, match=f"{rung}: .*{reason}"):
        serve([rung], inputs(con, [(1, "a", None, 1)], [(1, "a")], **change))


def test_a_new_number_type_of_a_segment_is_still_the_same_segment(con: duckdb.DuckDBPyConnection) -> None:
    source = "(SELECT * REPLACE (zone::DOUBLE AS zone) FROM source)"
    rows = [(1, "a", None, 1), (2, "a", None, 0)]
    assert scores(serve(["segment_rate"], inputs(con, rows, [(1, "a")], source=source, shrinkage=0))) == [1.0]


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        ([], "ladder of plan B is empty"),
        (["magic"], r"names \['magic'\]; the rungs are \['segment_rate', 'previous_champion', 'global_rate'\]"),
        (["global_rate", "global_rate"], "lists a rung twice"),
    ],
)
def test_a_wrong_ladder_is_an_error(con: duckdb.DuckDBPyConnection, ladder: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        serve(ladder, inputs(con, [(1, "a", None, 1)], [(1, "a")]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": ["zone", "nowhere"]}, r"segment columns \['nowhere'\] are not among the features"),
        ({"keys": ["id"]}, r"key columns \['id'\] are not among the features"),
        ({"segments": ["zone", "zone"]}, "segments lists a column twice"),
        ({"keys": []}, "keys is empty"),
        ({"keys": ["Score"]}, r"keys names \['Score'\], which plan B uses itself"),
        ({"cut": None}, "cut is None; a score is expected"),
        ({"task": "regression"}, "cut is 0.4, but a regression"),
        ({"previous": previous_champion(cut=None)}, "the cut of version 7 is None"),
        ({"source": None}, "give both, or neither"),
        ({"shrinkage": -1.0}, "shrinkage is -1.0"),
        ({"shrinkage": math.nan}, "shrinkage is nan"),
        ({"source": "(SELECT * EXCLUDE (score) FROM source)"}, r"the source relation has no column \['score'\]"),
        ({"source": "(SELECT * REPLACE (2 AS outcome) FROM source)"}, "lie between 2 and 2; a classification"),
    ],
)
def test_inputs_that_do_not_fit_together_are_an_error(
    con: duckdb.DuckDBPyConnection, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        serve(["segment_rate"], inputs(con, [(1, "a", None, 1)], [(1, "a")], **change))


@pytest.mark.parametrize("wrong", [[0.5], [0.5, math.nan], [[0.5, 0.5]]])
def test_scores_that_are_no_scores_are_never_served(con: duckdb.DuckDBPyConnection, wrong: list[Any]) -> None:
    previous = previous_champion(lambda frame: np.array(wrong))
    served = serve(["previous_champion"], inputs(con, None, [(1, "a"), (2, "b")], previous=previous))
    with pytest.raises(ValueError, match="version 7 gave scores of shape"):
        served.batches.read_all()
