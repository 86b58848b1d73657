"""The log of decisions: one line for each, in order, never changed; a store of an earlier version is caught up once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from mlops_assets.incidents.database import MIGRATIONS
from mlops_assets.incidents.decision_log import Line
from mlops_assets.incidents.store import Store

PROMOTED = Line("taxi", "2022-12", "champion", "promoted", "mlops_assets", "f1 is better", "3", "4", "print-4", "run-1")


def told(store: Store) -> list[tuple[str, str, str, str | None, str | None]]:
    return [(one.subject, one.action, one.actor, one.before, one.after) for one in store.decisions()]


def severe(store: Store) -> int:
    reasons = [{"sentence": "fee: PSI 3.4"}]
    return store.found("taxi", "2022-12", "drift", verdict="severe", reasons=reasons, evidence="report-1").id


def test_each_decision_of_people_and_runs_is_a_line_with_who_and_why(store: Store) -> None:
    number = severe(store)
    store.accept("taxi", "2022-12", "report-1", by="ada", why="fares are known")
    store.withdraw("taxi", "2022-12", by="bob", why="they were not")
    store.resolve(number, by="bob", why="repaired")
    store.order("taxi", "2022-12", "rollback", "3", by="ada", why="4 is biased", before="4")
    cause = store.add_cause("taxi", "2022-12", "person", "new tariff", by="ada", key="ada-1")
    store.consume([cause.id], "2022-12")
    assert told(store) == [
        ("incident", "opened", "mlops_assets", None, "drift open"),
        ("accept", "accepted", "ada", "not accepted", "accepted"),
        ("incident", "resolved", "ada", "drift open", "drift resolved"),
        ("accept", "withdrawn", "bob", "accepted", "not accepted"),
        ("incident", "reopened", "bob", "drift resolved", "drift open"),
        ("incident", "resolved", "bob", "drift open", "drift resolved"),
        ("order", "rollback", "ada", "4", "3"),
        ("retrain", "asked", "ada", None, "asked"),
        ("retrain", "trained", "mlops_assets", "asked", "trained in 2022-12"),
    ]
    assert all(one.why for one in store.decisions())
    assert not any(one.reconstructed for one in store.decisions())


def test_the_same_outcome_again_adds_no_line_and_another_one_does(store: Store) -> None:
    first = store.record(PROMOTED)
    assert first is not None
    assert store.record(PROMOTED) is None
    back = store.record(Line("taxi", "2022-12", "champion", "rolled_back", "ada", "worse", None, "3"))
    assert back is not None
    assert (back.before, back.after) == ("4", "3"), "before is what the newest line says"
    assert store.record(PROMOTED) is not None, "decided again after it was rolled back"
    other = Line("taxi", "2022-12", "champion", "promoted", "mlops_assets", "again", None, "4", "another print")
    assert store.record(other) is not None, "the same number, another version"
    assert store.record(Line("taxi", "2022-12", "champion", "promoted", "mlops_assets", "again", None, "4")) is None
    assert len(store.decisions("taxi", subject="champion")) == 4


@pytest.mark.parametrize("statement", ["UPDATE decisions SET actor = 'nobody'", "DELETE FROM decisions"])
def test_the_database_refuses_to_change_or_delete_a_line(statement: str, store: Store) -> None:
    store.record(PROMOTED)
    with pytest.raises(DBAPIError, match="append only"), store.write() as connection:
        connection.exec_driver_sql(statement)
    assert [one.actor for one in store.decisions()] == ["mlops_assets"]


def test_the_log_is_read_by_model_moment_and_subject(store: Store) -> None:
    store.record(PROMOTED)
    severe(store)
    store.record(Line("bikes", "2022-12", "champion", "first", "mlops_assets", "the first", None, "1"))
    assert {one.model for one in store.decisions("taxi")} == {"taxi"}
    assert [one.model for one in store.decisions(subject="champion")] == ["taxi", "bikes"]
    assert store.decisions(since=datetime.now(UTC) + timedelta(minutes=1)) == []
    view = store.as_arrow("decisions")
    assert view.column_names[:4] == ["period", "model", "id", "at"]
    assert view.schema == store.as_arrow("decisions", model="nobody").schema
    assert view.num_rows == 3


def test_what_an_earlier_version_wrote_is_in_the_log_once_marked_as_reconstructed(url: str) -> None:
    _write_as_0001(url)
    for _ in range(2):
        store = Store(url)
        assert told(store) == [
            ("incident", "opened", "mlops_assets", None, "drift open"),
            ("retrain", "asked", "ada", None, "asked"),
            ("accept", "accepted", "ada", None, "accepted"),
            ("incident", "resolved", "ada", "drift open", "drift resolved"),
            ("order", "promote", "bob", None, "5"),
            ("retrain", "trained", "mlops_assets", "asked", "trained in 2022-12"),
        ]
        lines = store.decisions()
        assert all(one.reconstructed for one in lines)
        assert [one.at.minute for one in lines] == [0, 1, 2, 3, 4, 5]
    accept = store.accepted("taxi", "2022-12")
    assert accept is not None
    assert accept.withdrawn_at is None


def _write_as_0001(url: str) -> None:
    """A store in the shape of the first version, with one of everything that people and runs decide."""
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config

    from mlops_assets.incidents import tables

    address = sa.make_url(url)
    if address.get_backend_name() == "sqlite":
        Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
    else:
        address = address.set(drivername="postgresql+psycopg")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with sa.create_engine(address, poolclass=sa.NullPool).begin() as connection:
        config.attributes.update(connection=connection, metadata=tables.metadata)
        command.upgrade(config, "0001")
        old = sa.MetaData()
        old.reflect(connection)

        def add(table: str, minute: int | None = None, **values: object) -> None:
            moment = {} if minute is None else {"at": datetime(2023, 1, 1, 12, minute, tzinfo=UTC)}
            connection.execute(old.tables[table].insert().values(**values, **moment))

        noon, where = datetime(2023, 1, 1, 12, 0, tzinfo=UTC), {"model": "taxi", "period": "2022-12"}
        incident = {"kind": "drift", "verdict": "severe", "reasons": [], "state": "resolved", "opened_at": noon}
        add("incidents", id=1, **incident, **where)
        add("incident_history", 0, incident_id=1, event="opened", evidence="report-1")
        add("incident_history", 3, incident_id=1, event="resolved", by="ada", why="accepted: known")
        add("accepts", 2, report_digest="report-1", by="ada", why="known", **where)
        add("champion_orders", 4, action="promote", version="5", by="bob", why="back", **where)
        done = {"consumed_by": "2022-12", "consumed_at": noon.replace(minute=5)}
        add("retrain_causes", 1, kind="person", why="new tariff", by="ada", key="ada-1", **done, **where)
