"""The tables of the incident store, as SQLAlchemy sees them; `migrations/` brings a database to this shape.

Here: columns, keys, and the one column type that both databases need. What is read and written, and when, is `store`,
`alerts` and `lease`. Times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

HEAD = "0003"  # the newest revision in migrations/versions; a test compares them


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no time zone, so it is taken off on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone: give a moment with one, such as datetime.now(UTC)")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()


def _text(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, UtcDateTime, nullable=nullable)


incidents = Table(
    "incidents",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("model"),
    _text("period"),
    _text("kind"),
    _text("verdict"),
    Column("reasons", JSON, nullable=False),
    Column("since", Date),
    _text("evidence", nullable=True),
    _text("run_id", nullable=True),
    _text("state"),
    _time("opened_at"),
    _time("resolved_at", nullable=True),
    _text("resolved_by", nullable=True),
    _text("resolved_why", nullable=True),
    UniqueConstraint("model", "period", "kind", name="one_incident_per_cause"),
)

incident_history = Table(
    "incident_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("incident_id", Integer, ForeignKey("incidents.id"), nullable=False, index=True),
    _time("at"),
    _text("event"),
    _text("by", nullable=True),
    _text("why", nullable=True),
    _text("evidence", nullable=True),
)

accepts = Table(
    "accepts",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("model"),
    _text("period"),
    _text("report_digest"),
    _text("by"),
    _text("why"),
    _time("at"),
    _time("withdrawn_at", nullable=True),
    _text("withdrawn_by", nullable=True),
    _text("withdrawn_why", nullable=True),
    Index("accepts_of_period", "model", "period"),
)

decisions = Table(  # append only: a trigger refuses changes, see migration 0002
    "decisions",
    metadata,
    Column("id", Integer, primary_key=True),
    _time("at"),
    _text("model"),
    _text("period"),
    _text("subject"),
    _text("action"),
    _text("actor"),
    _text("why"),
    _text("before", nullable=True),
    _text("after", nullable=True),
    _text("evidence", nullable=True),
    _text("run_id", nullable=True),
    Column("reconstructed", Boolean, nullable=False),
    Index("decisions_of_period", "model", "period", "subject"),
)

champion_orders = Table(
    "champion_orders",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("model"),
    _text("period"),
    _text("action"),
    _text("version"),
    _text("by"),
    _text("why"),
    _time("at"),
    _text("fingerprint", nullable=True),
    Index("orders_of_period", "model", "period"),
)

logged_versions = Table(
    "logged_versions",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("model"),
    _text("fingerprint"),
    _text("run_id"),
    _text("sha256"),
    _text("format"),
    _time("logged_at"),
    UniqueConstraint("model", "run_id", name="one_record_per_run"),
    Index("logged_versions_of_fingerprint", "model", "fingerprint"),
)

retrain_causes = Table(
    "retrain_causes",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("model"),
    _text("period"),
    _text("kind"),
    _text("why"),
    _text("by"),
    _text("key"),
    _time("at"),
    _text("consumed_by", nullable=True),
    _time("consumed_at", nullable=True),
    UniqueConstraint("model", "key", name="one_cause_per_key"),
    Index("causes_of_period", "model", "period"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    _text("kind"),
    _text("model"),
    _text("period"),
    _text("title"),
    _text("body"),
    _text("state"),
    _time("at"),
    Index("alerts_by_state", "state"),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", Integer, ForeignKey("alerts.id"), primary_key=True),
    Column("endpoint", Text, primary_key=True),
    _text("address"),
    _text("state"),
    Column("attempts", Integer, nullable=False),
    _time("next_at"),
    _time("sent_at", nullable=True),
    _text("error", nullable=True),
    Index("deliveries_due", "endpoint", "state", "next_at"),
)

leases = Table(
    "leases",
    metadata,
    Column("model", Text, primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("held", Boolean, nullable=False),
    _text("what"),
    _text("host"),
    _text("machine"),
    Column("pid", Integer, nullable=False),
    _text("started"),
    Column("ttl_seconds", Float, nullable=False),
    _time("acquired_at"),
    _time("heartbeat_at"),
)
