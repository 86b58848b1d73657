"""What plan B is worth on the shipped months in which the fares changed."""

from __future__ import annotations

import duckdb
import pytest

from mlops_assets.plan_b.ladder import PlanBInputs, serve
from mlops_assets_tests.end_to_end.green_taxi import SQL, path

CUT = 0.35


def test_segment_rates_of_november_stand_in_for_the_champion_in_december() -> None:
    from sklearn.metrics import f1_score, roc_auc_score

    with duckdb.connect() as con:
        for name, period in (("before", "2022-11"), ("now", "2022-12")):
            con.execute(
                "CREATE OR REPLACE VIEW raw_trips AS SELECT *, file_row_number AS record_id "
                f"FROM read_parquet('{path(period)}', file_row_number = true)"
            )
            con.execute(f"CREATE TABLE {name} AS SELECT * FROM ({SQL}) WHERE is_cash IS NOT NULL")
        inputs = PlanBInputs(
            con=con,
            records="(SELECT * EXCLUDE (is_cash) FROM now)",
            keys=["record_id", "lpep_pickup_datetime"],
            task="classification",
            cut=CUT,
            segments=["PULocationID", "DOLocationID"],
            source="(SELECT *, is_cash AS outcome, NULL AS score FROM before)",
            source_period="2022-11",
        )
        served = serve(["segment_rate", "global_rate"], inputs)
        found = served.batches.read_all()
        truth = con.execute("SELECT record_id, is_cash FROM now").fetchnumpy()
    assert served.rung == "segment_rate"
    assert (found["record_id"].to_numpy() == truth["record_id"]).all()
    assert roc_auc_score(truth["is_cash"], found["score"].to_numpy()) == pytest.approx(0.712, abs=0.005)
    assert f1_score(truth["is_cash"], found["prediction"].to_numpy()) == pytest.approx(0.565, abs=0.01)
