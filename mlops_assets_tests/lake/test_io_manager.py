from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from mlops_assets.lake.io_manager import LakeIOManager
from mlops_assets.lake.store import Lake, MissingPartition

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2021-01", end_date="2021-04", fmt="%Y-%m")
PERIODS = ["2021-01", "2021-02", "2021-03"]
TRIPS = dg.AssetSpec(["taxi", "trips"], partitions_def=MONTHS)


def upstream(low: int, high: int) -> dg.AssetIn:
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=low, end_offset=high, allow_nonexistent_upstream_partitions=True
    )
    return dg.AssetIn(["taxi", "trips"], partition_mapping=mapping)


def run(lake: Lake, asset: dg.AssetsDefinition, period: str | None = None) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [asset, TRIPS],
        selection=[asset],
        partition_key=period,
        resources={"io_manager": LakeIOManager(url=lake.url)},
        instance=dg.DagsterInstance.ephemeral(),
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    for n, period in enumerate(PERIODS):
        lake.write("taxi", "trips", period, pa.table({"fare": [float(n)] * (n + 1)}))
    return lake


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.Table, duckdb.DuckDBPyRelation, Any])
@pytest.mark.parametrize(
    ("window", "expected"),
    [((-9, -8), []), ((0, 0), ["2021-03"]), ((-1, 0), ["2021-02", "2021-03"])],
)
def test_no_one_and_many_partitions_give_the_same_type_with_a_period_column(
    lake: Lake, kind: Any, window: tuple[int, int], expected: list[str]
) -> None:
    seen: list[Any] = []

    @dg.asset(partitions_def=MONTHS, key_prefix="taxi", ins={"trips": upstream(*window)})
    def looked_at(trips: kind) -> None:  # type: ignore[valid-type]
        relation = isinstance(trips, duckdb.DuckDBPyRelation)
        seen.append(type(trips))
        frame = trips.df() if relation else trips.to_pandas() if isinstance(trips, pa.Table) else trips
        seen.append((list(frame.columns), sorted(set(frame["period"]))))

    assert run(lake, looked_at, "2021-03").success
    assert seen[0] is (pd.DataFrame if kind is Any else kind)
    assert seen[1] == (["period", "fare"], expected)


@pytest.mark.parametrize("shape", ["frame", "table", "reader", "relation"])
def test_every_kind_of_output_is_written_with_its_row_count(lake: Lake, shape: str) -> None:
    table = pa.table({"n": [1, 2]})

    @dg.asset(partitions_def=MONTHS, key_prefix="taxi")
    def made() -> Any:
        return {
            "frame": table.to_pandas(),
            "table": table,
            "reader": table.to_reader(),
            "relation": duckdb.connect().sql("SELECT unnest([1::BIGINT, 2]) AS n"),
        }[shape]

    result = run(lake, made, "2021-02")
    (event,) = result.asset_materializations_for_node("taxi__made")
    assert event.metadata["dagster/row_count"].value == 2
    assert lake.periods("taxi", "made") == ["2021-02"]
    found = duckdb.sql(f"SELECT period, n FROM {lake.scan('taxi', 'made')} ORDER BY n").fetchall()
    assert found == [("2021-02", 1), ("2021-02", 2)]


def test_an_asset_without_partitions_reads_all_periods_and_keeps_their_names(lake: Lake) -> None:
    @dg.asset(key_prefix="taxi", ins={"trips": dg.AssetIn(["taxi", "trips"])})
    def by_month(trips: pd.DataFrame) -> pd.DataFrame:
        return trips.groupby("period", as_index=False).agg(trips=("fare", "size"))

    assert run(lake, by_month).success
    assert lake.periods("taxi", "by_month") == ["all"]
    found = duckdb.sql(f"SELECT * FROM {lake.scan('taxi', 'by_month')} ORDER BY ALL").fetchall()
    assert found == [("2021-01", 1), ("2021-02", 2), ("2021-03", 3)]


def test_a_named_index_becomes_columns(lake: Lake) -> None:
    @dg.asset(key_prefix="taxi", ins={"trips": dg.AssetIn(["taxi", "trips"])})
    def mean_fares(trips: pd.DataFrame) -> pd.DataFrame:
        return trips.groupby("period")[["fare"]].mean()

    assert run(lake, mean_fares).success
    assert set(lake.schema("taxi", "mean_fares").names) == {"fare", "period"}


def test_a_frame_that_was_loaded_can_be_written_back_as_it_is(lake: Lake) -> None:
    @dg.asset(partitions_def=MONTHS, key_prefix="taxi", ins={"trips": upstream(0, 0)})
    def copied(trips: pd.DataFrame) -> pd.DataFrame:
        return trips

    assert run(lake, copied, "2021-03").success
    assert lake.schema("taxi", "copied").names == ["fare"]


def test_a_partition_that_nobody_wrote_is_an_error_unless_it_may_be_missing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write("taxi", "trips", "2021-01", pa.table({"fare": [1.0]}))
    seen: list[list[str]] = []

    def asset(**options: Any) -> dg.AssetsDefinition:
        @dg.asset(key_prefix="taxi", ins={"trips": dg.AssetIn(["taxi", "trips"], **options)})
        def looked_at(trips: pd.DataFrame) -> None:
            seen.append(sorted(set(trips["period"])))

        return looked_at

    with pytest.raises(MissingPartition, match="taxi/trips has no 2021-02, 2021-03"):
        run(lake, asset())
    run(lake, asset(metadata={"allow_missing_partitions": True}))
    assert seen == [["2021-01"]]


def test_an_asset_that_wrote_its_partition_itself_may_return_none(lake: Lake) -> None:
    @dg.asset(partitions_def=MONTHS, key_prefix="taxi")
    def own(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
        lake.write("taxi", "own", context.partition_key, pa.table({"n": [1]}))

    assert run(lake, own, "2021-01").success
    assert lake.partition("taxi", "own", "2021-01").rows == 1


def test_an_output_or_a_key_that_the_lake_can_not_hold_is_refused(lake: Lake) -> None:
    @dg.asset(key_prefix="taxi")
    def number() -> int:
        return 42

    with pytest.raises(TypeError, match=r"returned a builtins\.int; expected a pandas\.DataFrame"):
        run(lake, number)

    @dg.asset
    def lonely() -> pd.DataFrame:
        return pd.DataFrame({"n": [1]})

    with pytest.raises(dg.DagsterInvariantViolationError, match=r"named \[model, table\]"):
        run(lake, lonely)
