"""Every kind of bad input through the whole graph: one clear finding, an empty hand for consumers, and life goes on."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mlops_assets.home import Home
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.backfill import PeriodRunResult
from mlops_assets_tests import rides_graph, tiny_model
from mlops_assets_tests.monitored_model.conftest import use_home
from mlops_assets_tests.rides_graph import TABLES

GOOD = ["2021-01", "2021-02", "2021-03"]
LAST = "2022-06"


def declaration() -> dict[str, Any]:
    declared = copy.deepcopy(tiny_model.SPEC)
    declared["end"] = LAST
    # Nothing listens there, as on a machine without network.
    declared["source"]["url"] = "http://127.0.0.1:9/rides/{period}.parquet"
    declared["columns"]["fare"] = {"gt": 0, "le": 1000, "tolerance": 0.01}
    declared["columns"]["fee"] = {"ge": 0, "nullable": False}
    return declared


def write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path)


def missing(path: Path, rides: pa.Table) -> None:
    assert not path.exists()


def truncated(path: Path, rides: pa.Table) -> None:
    write(path, rides)
    path.write_bytes(path.read_bytes()[:-900])


def text_named_parquet(path: Path, rides: pa.Table) -> None:
    path.write_text("<html><body>404 Not Found</body></html>")


def missing_column(path: Path, rides: pa.Table) -> None:
    write(path, rides.drop_columns(["payment"]))


def renamed_column(path: Path, rides: pa.Table) -> None:
    write(path, rides.rename_columns(["started_at", "fare", "fees", "zone", "payment"]))


def wrong_type(path: Path, rides: pa.Table) -> None:
    fares = [f"{fare} $" for fare in rides["fare"].to_pylist()]
    write(path, rides.set_column(1, "fare", pa.array(fares)))


def no_rows(path: Path, rides: pa.Table) -> None:
    write(path, rides.slice(0, 0))


def another_month(path: Path, rides: pa.Table) -> None:
    write(path, tiny_model.rides("2020-05"))


def another_months_file(path: Path, rides: pa.Table) -> None:
    shutil.copy(path.with_name("2021-03.parquet"), path)


def doubled(path: Path, rides: pa.Table) -> None:
    write(path, pa.concat_tables([rides, rides]))


def not_a_number(path: Path, rides: pa.Table) -> None:
    fees = np.where(np.arange(rides.num_rows) % 50 == 0, np.nan, rides["fee"].to_numpy())
    write(path, rides.set_column(2, "fee", pa.array(fees)))


def negative(path: Path, rides: pa.Table) -> None:
    write(path, rides.set_column(2, "fee", pc.negate(pc.add(rides["fee"], 1))))


def absurd(path: Path, rides: pa.Table) -> None:
    fares = np.where(np.arange(rides.num_rows) % 20 == 0, 1e7, rides["fare"].to_numpy())
    write(path, rides.set_column(1, "fare", pa.array(fares)))


@dataclass(frozen=True)
class Fault:
    """A bad month: how it is made, which check fails and what this says (found, expected, to do), what fails too."""

    make: Any
    check: str
    said: tuple[str, ...]
    too: tuple[str, ...] = ()


FAULTS = {
    "2021-04": Fault(missing, "volume", ("no file", "could not be fetched", "put the file there, or fetch")),
    "2021-05": Fault(truncated, "source_schema", ("truncated Parquet file", "ends with b'PAR1'", "Fetch the file")),
    "2021-06": Fault(text_named_parquet, "source_schema", ("a web page, not data", "begins with b'PAR1'", "Fetch")),
    "2021-07": Fault(missing_column, "source_schema", ("column payment: found no such column", "BIGINT", "Ask the")),
    "2021-08": Fault(renamed_column, "source_schema", ("column fee:", "undeclared 'fees'", "Probably renamed")),
    "2021-09": Fault(wrong_type, "source_schema", ("column fare:", "600 rows", "values that fit DOUBLE", "Correct")),
    "2021-10": Fault(no_rows, "volume", ("no rows for 2021-10", "at least one is expected")),
    "2021-11": Fault(another_month, "in_period", ("600 of 600 rows", "from 2020-05-01", "expected", "Replace it")),
    "2021-12": Fault(
        another_months_file,
        "volume",
        ("as the one of 2021-03", "2021-12 is expected", "Fetch it"),
        ("in_period",),
    ),
    "2022-01": Fault(doubled, "volume", ("600 of 1,200 rows are copies", "Replace the file")),
    "2022-02": Fault(not_a_number, "feature_schema", ("fee breaks not null in 12 rows", "tolerance", "Repair the")),
    "2022-03": Fault(negative, "feature_schema", ("fee breaks >= 0 in", "Repair the source")),
    "2022-04": Fault(absurd, "feature_schema", ("fare breaks <= 1000 in 30 rows (5.00%, tolerance 1.00%)", "Repair")),
}


@dataclass(frozen=True)
class BadMonths:
    lake: Lake
    data: Path
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    results: dict[str, PeriodRunResult]

    def failed_checks(self, period: str) -> dict[str, Any]:
        """The evaluations of severity ERROR that failed in the period's run, by check name."""
        found = {}
        for entry in self.instance.all_logs(self.results[period].run_id):
            event = entry.dagster_event
            if event is not None and event.event_type_value == "ASSET_CHECK_EVALUATION":
                evaluation = event.asset_check_evaluation_data
                if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
                    found[evaluation.check_name] = evaluation
        return found


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadMonths]:
    """Three good months, every bad one, and two good ones."""
    root = tmp_path_factory.mktemp("bad_input")
    data, home = root / "data", Home(root / "home")
    tiny_model.write_rides(data, [*GOOD, "2022-05", "2022-06"])
    for period, fault in FAULTS.items():
        fault.make(data / "rides" / f"{period}.parquet", tiny_model.rides(period))
    spec = tiny_model.ModelSpec.model_validate(declaration())
    definitions = rides_graph.definitions(spec)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        use_home(patch, home, data)
        periods = [*GOOD, *FAULTS, "2022-05", "2022-06"]
        results = {result.period: result for result in rides_graph.run(definitions, periods, instance)}
        yield BadMonths(Lake(home.root / "lake"), data, definitions, instance, results)


@pytest.mark.parametrize("period", FAULTS, ids=lambda period: FAULTS[period].make.__name__)
def test_bad_input_fails_one_check_that_says_what_was_found_what_was_expected_and_what_to_do(
    months: BadMonths, period: str
) -> None:
    failed = months.failed_checks(period)
    fault = FAULTS[period]
    assert set(failed) == {fault.check, "served_complete", *fault.too}
    for part in fault.said:
        assert part in failed[fault.check].description
    assert fault.said[0] in failed["served_complete"].description


@pytest.mark.parametrize("period", FAULTS, ids=lambda period: FAULTS[period].make.__name__)
def test_bad_input_withholds_its_period_and_fails_no_run(months: BadMonths, period: str) -> None:
    assert months.results[period].outcome == "withheld"
    reasons = {}
    for table in TABLES:
        partition = months.lake.partition("rides", table, period)
        reasons[table] = partition.reason or partition.facts.get("quality_failure")
        if table not in ("raw_rides", "features", "champion"):
            assert partition.rows == 0, f"{table} holds rows of a quarantined period"
    said = FAULTS[period].said[0]
    for table in ("features", "profile", "challenger", "predictions", "drift_report", "served_predictions"):
        assert said in str(reasons[table]), f"{table} does not carry the reason on: {reasons[table]}"
    champion = months.lake.partition("rides", "champion", period).facts
    assert (champion["decision"], champion["version"]) == ("retained", "1")
    assert said in champion["reason"]


def test_nothing_half_written_stays(months: BadMonths) -> None:
    left = [path for path in Path(months.lake.url).rglob("*") if path.suffix == ".tmp"]
    left += [path for path in Path(months.lake.url).parent.rglob("downloads/**/*") if path.is_file()]
    assert left == []


def test_the_months_after_go_on(months: BadMonths) -> None:
    served = months.lake.partition("rides", "served_predictions", "2022-05")
    assert (served.rows, served.facts["gate"]) == (600, "champion")
    assert months.results["2022-05"].outcome == months.results["2022-06"].outcome == "success"


def test_a_window_without_any_usable_period_trains_nothing_and_names_why(months: BadMonths) -> None:
    reason = months.lake.partition("rides", "challenger", "2022-05").reason
    assert reason is not None
    assert reason.startswith("no usable period to train on: 2022-03 quarantined: feature_schema: fee breaks >= 0")


def test_a_repaired_file_makes_its_month_usable(months: BadMonths, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(monkeypatch, Home(Path(months.lake.url).parent), months.data)
    tiny_model.write_rides(months.data, ["2021-04"])
    (result,) = rides_graph.run(months.definitions, ["2021-04"], months.instance)
    assert result.outcome == "success"
    assert months.lake.partition("rides", "served_predictions", "2021-04").rows == 600


def test_a_month_whose_file_was_delivered_again_for_another_stays_usable_when_made_again(
    months: BadMonths, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_home(monkeypatch, Home(Path(months.lake.url).parent), months.data)
    before = months.lake.partition("rides", "features", "2021-03")
    (result,) = rides_graph.run(months.definitions, ["2021-03"], months.instance)
    after = months.lake.partition("rides", "features", "2021-03")
    assert result.outcome == "success"
    assert (after.digest, after.facts["quality_failure"]) == (before.digest, None)
