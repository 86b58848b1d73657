"""What a period's performance says of a champion whose own test rows could not tell everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.monitored_model.steps import challenger as challenger_step
from mlops_assets.monitored_model.steps import champion as champion_step
from mlops_assets.monitored_model.steps import drift_report as drift_report_step
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import performance as performance_step
from mlops_assets.monitored_model.steps import predictions as predictions_step
from mlops_assets.monitored_model.steps import profile as profile_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets_tests import tiny_model

JANUARY, FEBRUARY, MARCH, APRIL = "2021-01", "2021-02", "2021-03", "2021-04"
CARD, CASH = 1, 2
# As the source says it of trips whose payment is still to come.
LATE_SQL = tiny_model.SQL.replace("(payment = 2)::INTEGER", "(nullif(payment, 0) = 2)::INTEGER")


def write(data: Path, period: str, payment: int) -> None:
    """A month whose rides are all paid in the same way."""
    rides = tiny_model.rides(period)
    column = rides.schema.get_field_index("payment")
    paid = rides.set_column(column, "payment", pa.array([payment] * rides.num_rows))
    pq.write_table(paid, data / "rides" / f"{period}.parquet")


def sources(performance: pa.Table) -> set[str]:
    return set(performance["source"].to_pylist())


@pytest.mark.parametrize("outcomes", ["known", "unknown"])
@pytest.mark.parametrize("payment", [CARD, CASH])
def test_a_champion_tested_on_one_class_is_measured_without_an_estimate(
    payment: int, outcomes: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    tiny_model.write_rides(data, [JANUARY, FEBRUARY, APRIL])
    write(data, MARCH, payment)
    spec = tiny_model.spec(target={"column": "is_cash", "required": False})
    if outcomes == "unknown":
        write(data, APRIL, 0)
    with tiny_model.workbench(tmp_path / "home", data, spec, LATE_SQL) as bench:
        for period in (JANUARY, FEBRUARY, MARCH, APRIL):
            for step in (raw_step.make, features_step.make, profile_step.make):
                step(bench, period)
        challenger_step.make(bench, MARCH)
        assert champion_step.make(bench, MARCH).partition.facts["decision"] == "first"
        predictions_step.make(bench, APRIL)
        drift_report_step.make(bench, APRIL)
        outcome = performance_step.make(bench, APRIL)
        rows: Any = bench.con.sql(f"SELECT * FROM {bench.scan('performance', [APRIL])}").to_arrow_table()
    positives = 600 if payment == CASH else 0
    assert f"{positives} of the 600 test rows" in outcome.metadata["estimate"]
    assert "estimate" not in sources(rows)
    assert ("champion" in sources(rows)) == (outcomes == "known")
    (limits,) = outcome.checks
    if outcomes == "unknown":
        assert limits.passed
        assert limits.description == "No outcome is known yet; there is no estimate either."
    elif payment == CARD:
        assert limits.description == "f1 is not defined on the champion's test rows."
