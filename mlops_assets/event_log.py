"""Dagster's event log in SQLite, without building a new database engine for every event.

Dagster's own storage makes an SQLAlchemy engine for each of the several hundred times that a run opens its log, and
with it an empty cache of compiled statements. This one keeps the engines, and the connection to the index of all runs.
Same files, same content: an installation can change between the two at any time, in its dagster.yaml.

What a run is going to do, two events for most assets, is written in one transaction; and the file of a new run is the
copy of an empty one, instead of the same forty tables and indices made again.

A run's own file is opened and closed for each event, as Dagster does: closing moves the event from SQLite's journal
into the file, and the pages that follow a run watch that file.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine

if TYPE_CHECKING:
    from dagster._config import UserConfigSchema
    from dagster._core.events.log import EventLogEntry

# A process works on a run or two at a time; a page that lists many opens each once.
ENGINES_OF_RUNS = 8
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

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of a run in one transaction for each of the two files; the run's own is committed first.

        When one of them fails, Dagster tries again event by event.
        """
        (run_id,) = {event.run_id for event in events}
        with self._db_lock, self._begin(INDEX_SHARD_NAME) as index, self._begin(run_id) as of_run:
            self._batch.connections = {run_id: of_run, INDEX_SHARD_NAME: index}
            try:
                for event in events:
                    self.store_event(event)
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
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool if shard == INDEX_SHARD_NAME else NullPool,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            )
        self._engines[shard] = engine
        if len(self._engines) > ENGINES_OF_RUNS:
            oldest = next(name for name in self._engines if name != INDEX_SHARD_NAME)
            self._engines.pop(oldest).dispose()
        return engine

    def dispose(self) -> None:
        super().dispose()
        with self._db_lock:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()
