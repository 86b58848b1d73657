"""Dagster's event log in SQLite, without building a new database engine for every event.

Dagster's own storage makes an SQLAlchemy engine for each of the several hundred times that a run opens its log, and
with it an empty cache of compiled statements. This one keeps the engines, and the connection to the index of all runs.
Same files, same content: an installation can change between the two at any time, in its dagster.yaml.

What a run is going to do, two events for most assets, is written in one transaction; and the file of a new run is the
copy of an empty one, instead of the same forty tables and indices made again.

While a process carries out a run it keeps the run's own file open, and leaves the moment of writing to the disk to
the operating system: an event survives the end of the process at any point, as always, but the newest lines of a run
may be missing after a power cut. What counts (materializations, checks, the states of runs) is in the index as well,
which is on the disk when Dagster goes on. The pages that follow a run watch its file, so each event touches it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import DagsterEventType
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine
from sqlalchemy.event import listen

if TYPE_CHECKING:
    from dagster._config import UserConfigSchema
    from dagster._core.events.log import EventLogEntry

# A process works on a run or two at a time; a page that lists many opens each once.
ENGINES_OF_RUNS = 8
ENDS_OF_A_RUN = (
    DagsterEventType.PIPELINE_SUCCESS,
    DagsterEventType.PIPELINE_FAILURE,
    DagsterEventType.PIPELINE_CANCELED,
)
# Not `.db`, for Dagster takes every such file for a run; by version, as another one may want other tables.
EMPTY = f"empty_run_{dg.__version__}.sqlite"
# Dagster hands over what a run is going to do as one batch when this is not 0, its default.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "100")


class EventLog(SqliteEventLogStorage):
    """Dagster's `SqliteEventLogStorage` with engines that are kept.

    Without `base_dir` it lies where Dagster's own does: `$DAGSTER_HOME/history/runs`.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        # Runs that this process carries out.
        self._under_way: set[str] = set()
        self._tables: set[str] = set()
        self._batch = threading.local()
        super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> EventLog:
        base_dir = config_value.get("base_dir")
        if base_dir is None:
            home = os.environ.get("DAGSTER_HOME")
            if not home:
                raise ValueError(
                    f"{__name__}.{cls.__name__} has no base_dir, and DAGSTER_HOME is not set: set it to the folder of "
                    "the dagster.yaml, or name the base_dir there"
                )
            base_dir = str(Path(home).expanduser() / "history" / "runs")
        return cls(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        of_this_batch: dict[str, Connection] = getattr(self._batch, "connections", {})
        if shard in of_this_batch:
            yield of_this_batch[shard]
            return
        with self._db_lock, self._begin(shard) as connection:
            yield connection

    @contextmanager
    def _begin(self, shard: str) -> Iterator[Connection]:
        engine = self._engine(shard)
        if shard not in self._initialized_dbs:
            self._create(shard, engine)
            self._initialized_dbs.add(shard)
        with engine.begin() as connection:
            yield connection

    def has_table(self, table_name: str) -> bool:
        """Whether the index has this table: Dagster asks for each check and materialization, and a table stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event of a run; from the run's start to its end in a file that is kept open.

        A check's result goes to two tables of the index: in one transaction.
        """
        kind = event.dagster_event.event_type if event.dagster_event else None
        if kind is DagsterEventType.PIPELINE_START:
            self._reopen(event.run_id, under_way=True)
        if kind is DagsterEventType.ASSET_CHECK_EVALUATION:
            with self._in_one_transaction(event.run_id):
                super().store_event(event)
        else:
            super().store_event(event)
        if event.run_id in self._under_way:
            os.utime(self.path_for_shard(event.run_id))
            if kind in ENDS_OF_A_RUN:
                self._reopen(event.run_id, under_way=False)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of a run in one transaction for each of the two files.

        When one of them fails, Dagster tries again event by event.
        """
        (run_id,) = {event.run_id for event in events}
        with self._in_one_transaction(run_id):
            for event in events:
                self.store_event(event)

    @contextmanager
    def _in_one_transaction(self, run_id: str) -> Iterator[None]:
        """What this thread stores meanwhile is one transaction in each file; the run's own is committed first."""
        if getattr(self._batch, "connections", None):
            yield
            return
        with self._db_lock, self._begin(INDEX_SHARD_NAME) as index, self._begin(run_id) as of_run:
            self._batch.connections = {run_id: of_run, INDEX_SHARD_NAME: index}
            try:
                yield
            finally:
                del self._batch.connections

    def _create(self, shard: str, engine: Engine) -> None:
        """Make sure that the file is there with its tables."""
        path, empty = Path(self.path_for_shard(shard)), Path(self._base_dir) / EMPTY
        if shard != INDEX_SHARD_NAME and not path.exists():
            if not empty.exists():
                self._create_empty(empty)
            made = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
            shutil.copyfile(empty, made)
            try:
                os.link(made, path)
            except OSError:  # another process was faster, with whatever it made; or a file system without links
                self._initdb(engine)
            finally:
                made.unlink()
        else:
            self._initdb(engine)

    def _create_empty(self, empty: Path) -> None:
        made = empty.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        self._initdb(create_engine(f"sqlite:///{made}", poolclass=NullPool))
        made.replace(empty)

    def _engine(self, shard: str) -> Engine:
        engine = self._engines.pop(shard, None)
        if engine is None:
            kept = shard == INDEX_SHARD_NAME or shard in self._under_way
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool if kept else NullPool,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            )
            if shard in self._under_way:
                listen(engine, "connect", _do_not_wait_for_the_disk)
        self._engines[shard] = engine
        if len(self._engines) > ENGINES_OF_RUNS:
            oldest = next(name for name in self._engines if name != INDEX_SHARD_NAME)
            self._engines.pop(oldest).dispose()
        return engine

    def _reopen(self, run_id: str, *, under_way: bool) -> None:
        with self._db_lock:
            if under_way:
                self._under_way.add(run_id)
            else:
                self._under_way.discard(run_id)
            engine = self._engines.pop(run_id, None)
            if engine is not None:
                engine.dispose()

    def wipe(self) -> None:
        self._forget()
        super().wipe()

    def dispose(self) -> None:
        super().dispose()
        self._forget()

    def _forget(self) -> None:
        with self._db_lock:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()


def _do_not_wait_for_the_disk(connection: sqlite3.Connection, _: object) -> None:
    # https://sqlite.org/pragma.html#pragma_synchronous: with a write-ahead log the file stays whole at any cut.
    connection.execute("PRAGMA synchronous=NORMAL")
