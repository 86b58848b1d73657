"""A store is migrated once, whoever opens it, and a write is whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from mlops_assets.incidents import tables
from mlops_assets.incidents.database import MIGRATIONS
from mlops_assets.incidents.store import Store, StoreUnavailable


def test_migrations_give_exactly_the_tables_of_the_code(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_head_is_the_newest_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == tables.HEAD


def test_several_processes_may_open_a_fresh_store_at_once(url: str) -> None:
    program = (
        "import sys, time; from mlops_assets.incidents.store import Store\n"
        "import sqlalchemy, alembic.command; time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "Store(sys.argv[1]).announce('data_outage', 'm', '2021-01', 'title', '', sys.argv[3])"
    )
    start = time.time() + 2
    processes = [
        subprocess.Popen([sys.executable, "-c", program, url, str(start), str(n)], stderr=subprocess.PIPE)
        for n in range(3)
    ]
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, errors
    assert {alert.key for alert in Store(url).alerts()} == {f"announced/{n}" for n in range(3)}


def test_opening_a_migrated_store_is_fast_and_needs_no_alembic(url: str) -> None:
    Store(url)
    program = (
        "import sys, time; from mlops_assets.incidents.store import Store\n"
        "assert 'sqlalchemy' not in sys.modules\n"
        "Store(sys.argv[1]); times = []\n"
        "clock = time.process_time\n"  # not the wall's: other tests run beside this one
        "for _ in range(5): began = clock(); Store(sys.argv[1]); times.append(clock() - began)\n"
        "assert 'alembic' not in sys.modules; print(min(times))"
    )
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.03


def test_a_store_of_a_newer_version_is_refused(store: Store, url: str) -> None:
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreUnavailable, match=r"revision 9999.*newer version"):
        Store(url)


def test_an_interrupted_migration_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import alembic.op

    with monkeypatch.context() as broken:
        broken.setattr(alembic.op, "create_index", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Store(url)
    assert Store(url).incidents() == []


def test_a_write_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "_enqueue", fails)
        with pytest.raises(OSError, match="disk full"):
            store.found("m", "2021-01", "drift", verdict="severe", reasons=[], evidence="e")
    assert store.incidents() == []
    assert store.alerts() == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://root:secret@host/db", "incidents.db"])
def test_a_database_that_is_not_supported_is_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected sqlite:////absolute/path\.db") as raised:
        Store(url)
    assert "secret" not in str(raised.value)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailable, match="can't be opened") as raised:
        Store("postgresql://mlops:secret@127.0.0.1:1/mlops")
    assert "secret" not in str(raised.value)
