"""The lake as a Dagster IO manager, for the assets that users hang below the platform's.

    @dg.asset(key_prefix="green_taxi", partitions_def=months)
    def revenue(served_predictions: pd.DataFrame) -> pd.DataFrame: ...

An asset key `[model, table]` is the table of that name. An input is one object with a `period` column,
whether it comes from no, one or many partitions; the parameter's annotation says which: `pandas.DataFrame`
(the default), `pyarrow.Table` or `duckdb.DuckDBPyRelation`, which reads nothing before it is asked. An output may
be any of these or a `pyarrow.RecordBatchReader`. An asset without partitions is kept as the partition "all".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from mlops_assets.home import Home
from mlops_assets.lake.connection import connect
from mlops_assets.lake.frames import exact_frame
from mlops_assets.lake.store import ROW_GROUP_ROWS, UNPARTITIONED, Lake
from mlops_assets.redaction import errors_redacted

if TYPE_CHECKING:
    import duckdb

ALLOW_MISSING = "allow_missing_partitions"


class LakeIOManager(dg.ConfigurableIOManager):
    """Reads and writes assets as tables of the lake.

    A partition that the input maps to but nobody has written is an error, unless the input's or the upstream
    asset's metadata says `allow_missing_partitions: true`.
    """

    url: str | None = Field(
        default=None, description="A folder or fsspec URL; by default MLOPS_LAKE_URL or MLOPS_HOME/lake."
    )

    def lake(self) -> Lake:
        """The store that this reads and writes."""
        return Lake(self.url or Home.from_env().lake_url)

    @errors_redacted()
    def load_input(self, context: dg.InputContext) -> Any:
        lake = self.lake()
        model, table = _table(context.asset_key)
        wanted = _periods(context)
        if _allows_missing(context):
            known = set(lake.periods(model, table))
            wanted = [period for period in wanted if period in known]
        con = connect(lake, read_views=False)
        rows = _rows(lake, model, table, wanted, con)
        kind = context.dagster_type.typing_type
        if kind is pa.Table:
            return rows.to_arrow_table()
        if getattr(kind, "__name__", "") == "DuckDBPyRelation":
            return rows
        return exact_frame(rows.to_arrow_table())

    @errors_redacted()
    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        if obj is None:  # the asset wrote its partition itself
            return
        model, table = _table(context.asset_key)
        periods = list(context.asset_partition_keys) if context.has_asset_partitions else [UNPARTITIONED]
        if len(periods) != 1:
            raise dg.DagsterInvariantViolationError(
                f"{model}/{table} is written for {len(periods)} partitions at once; the lake takes one "
                "per run: remove the asset's backfill_policy"
            )
        partition = self.lake().write(model, table, periods[0], _arrow(obj, f"{model}/{table}"))
        context.add_output_metadata(
            {
                "dagster/row_count": partition.rows,
                "file": dg.MetadataValue.path(partition.url),
                "bytes": partition.bytes,
                "digest": partition.digest,
            }
        )


def _table(key: dg.AssetKey) -> tuple[str, str]:
    if len(key.path) != 2:
        raise dg.DagsterInvariantViolationError(
            f"the asset key {key.to_user_string()} has {len(key.path)} parts, but a table of the lake is "
            "named [model, table]; give the asset a key_prefix, or another IO manager"
        )
    return key.path[0], key.path[1]


def _periods(context: dg.InputContext) -> list[str]:
    return list(context.asset_partition_keys) if context.has_asset_partitions else [UNPARTITIONED]


def _allows_missing(context: dg.InputContext) -> bool:
    upstream = context.upstream_output
    declared = [context.definition_metadata or {}, upstream.definition_metadata or {} if upstream else {}]
    return any(bool(metadata.get(ALLOW_MISSING, False)) for metadata in declared)


def _rows(
    lake: Lake, model: str, table: str, periods: Sequence[str], con: duckdb.DuckDBPyConnection
) -> duckdb.DuckDBPyRelation:
    if periods:
        return con.sql(f"SELECT period, * EXCLUDE (period) FROM {lake.scan(model, table, periods)}")
    known, _ = lake.sound(model, table)
    if not known:
        # Without any partition the columns are unknown; `period` is all that can be promised.
        return con.sql("SELECT NULL::VARCHAR AS period LIMIT 0")
    return con.sql(f"SELECT period, * EXCLUDE (period) FROM {lake.scan(model, table, known[-1:])} LIMIT 0")


def _arrow(obj: Any, what: str) -> pa.RecordBatchReader | pa.Table:
    if isinstance(obj, (pa.Table, pa.RecordBatchReader)):
        return obj
    import duckdb
    import pandas as pd

    if isinstance(obj, duckdb.DuckDBPyRelation):
        return obj.to_arrow_reader(ROW_GROUP_ROWS)
    if isinstance(obj, pd.DataFrame):
        # A default index only numbers the rows; any other was made on purpose and is kept as columns.
        return pa.Table.from_pandas(obj, preserve_index=None if _is_named(obj) else False)
    raise TypeError(
        f"{what} returned a {type(obj).__module__}.{type(obj).__name__}; expected a pandas.DataFrame, "
        "a pyarrow.Table or RecordBatchReader, or a duckdb relation"
    )


def _is_named(frame: Any) -> bool:
    return any(name is not None for name in frame.index.names)
