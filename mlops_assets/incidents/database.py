"""Where the incident store lives: an SQLite file or PostgreSQL, in the newest shape, with one writer at a time.

Here: connections, transactions, migration. What the tables mean is `store`. SQLAlchemy is imported when a database is
opened, Alembic only when one has to be migrated.

One transaction writes at a time (`BEGIN IMMEDIATE` on SQLite, an advisory lock on PostgreSQL), so what a write has
read is still true when it commits. A platform writes a few times a minute; readers are never held up.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.outages import retried
from mlops_assets.redaction import redact, redacted

if TYPE_CHECKING:
    import sqlalchemy as sa

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
CONNECT_SECONDS = 10
_ADVISORY_LOCK = 0x6D6C6F7073  # PostgreSQL knows advisory locks by number only: "mlops" in ASCII


class StoreUnavailable(RuntimeError):
    """The database can't be opened, or was written by a newer version of this project."""


class Database:
    """An opened database, migrated to the newest shape.

    Connections are opened for each transaction and closed with it, so an object survives a fork, a restarted server
    and use by several threads.

    Args:
        url: `sqlite:////absolute/path.db` or `postgresql://user:password@host/database`.

    Raises:
        ValueError: another kind of URL.
        StoreUnavailable: no database answers there, or it is newer than this code.
    """

    def __init__(self, url: str) -> None:
        import sqlalchemy as sa

        self._url = _understood(url)
        self.name = redact(str(self._url))
        if self.is_sqlite:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}}
        else:
            options = {"connect_args": {"connect_timeout": CONNECT_SECONDS}, "use_native_hstore": False}
        options["json_serializer"] = lambda value: json.dumps(redacted(value))
        self._engine = sa.create_engine(self._url, poolclass=sa.NullPool, **options)
        if self.is_sqlite:
            sa.event.listen(self._engine, "connect", _leave_transactions_to_us)
        sa.event.listen(self._engine, "begin", self._begin)
        sa.event.listen(self._engine, "before_cursor_execute", _redact_parameters, retval=True)
        self._writer = self._engine.execution_options(mlops_writes=True)
        try:
            if self._revision() != _head():
                self._migrate()
        except sa.exc.DBAPIError as error:
            what = " ".join(str(error.orig).split())
            raise StoreUnavailable(
                f"the incident store {self.name} can't be opened: {what}. Start the database, or correct "
                "MLOPS_STORE_URL (for the file of the default: MLOPS_HOME), then run this again"
            ) from error

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The file of an SQLite database."""
        return Path(str(self._url.database))

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database."""
        with self._begun(self._engine) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that nobody writes beside. It is committed at the end, or undone when an error leaves it."""
        with self._begun(self._writer) as connection:
            yield connection

    @contextlib.contextmanager
    def _begun(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """A transaction on a connection of its own; a server that is down or starting is waited for.

        Only the beginning is tried again: nothing of the transaction has happened by then. A connection that breaks
        within a transaction undoes it, and raises.
        """

        def begin() -> tuple[contextlib.ExitStack, sa.Connection]:
            with contextlib.ExitStack() as opened:
                connection = opened.enter_context(engine.begin())
                return opened.pop_all(), connection

        opened, connection = begin() if self.is_sqlite else retried(begin, f"the incident store {self.name}")
        with opened:
            yield connection

    def now(self, connection: sa.Connection) -> datetime:
        """The clock that everyone who uses this database shares: the server's, or this machine's for a file."""
        if self.is_sqlite:
            return datetime.now(UTC)
        moment: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return moment.astimezone(UTC)

    def _begin(self, connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("mlops_writes", False)
        if self.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
        elif writes:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")

    def _revision(self) -> str | None:
        """The revision of the database, None for a fresh one."""
        # Not by SQLAlchemy's inspector, which asks PostgreSQL for much more: every process start waits for this.
        exists = "SELECT name FROM sqlite_master WHERE name = 'alembic_version'"
        if not self.is_sqlite:
            exists = "SELECT to_regclass('alembic_version')"
        with self.read() as connection:
            if connection.exec_driver_sql(exists).scalar() is None:
                return None
            found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            return found

    def _migrate(self) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        from mlops_assets.incidents import tables

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with self._alone():
            found = self._revision()
            if found is not None and found not in known:
                raise StoreUnavailable(
                    f"the incident store {self.name} has revision {found}, this version of mlops_assets knows "
                    f"{', '.join(sorted(known))}. It was written by a newer version: install that one"
                )
            with self.write() as connection:
                config.attributes.update(connection=connection, metadata=tables.metadata)
                command.upgrade(config, "head")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else migrates meanwhile. On PostgreSQL the lock of the writing transaction is enough."""
        if not self.is_sqlite:
            yield
            return
        from filelock import FileLock

        with FileLock(f"{self.path}.lock", timeout=BUSY_SECONDS):
            # Kept in the file. Changing it is the one step that SQLite doesn't let other processes wait for.
            with contextlib.closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            yield


def _understood(url: str) -> sa.URL:
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        parsed = None
    backend = None if parsed is None else parsed.drivername.partition("+")[0]
    if parsed is not None and backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    if parsed is not None and backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    shown = "a URL that can't be read" if parsed is None else redact(str(parsed))
    raise ValueError(
        f"the incident store is {shown}: expected sqlite:////absolute/path.db (a file) or "
        "postgresql://user:password@host/database"
    )


def _redact_parameters(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
    """No secret gets into the database, whatever the table: all that is stored or asked for passes here."""
    return statement, redacted(parameters)


def _leave_transactions_to_us(connection: Any, _: Any) -> None:
    connection.isolation_level = (
        None  # otherwise Python's sqlite3 begins transactions where it sees fit, and not for DDL
    )
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _head() -> str:
    from mlops_assets.incidents import tables

    return tables.HEAD
