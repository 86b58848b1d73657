"""Incidents with their history, accepts, champion orders, retrain causes, the alerts' outbox, leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _time() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def upgrade() -> None:
    _incidents()
    _decisions_by_hand()
    _outbox()
    op.create_table(
        "leases",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        _text("what"),
        _text("host"),
        _text("machine"),
        sa.Column("pid", sa.Integer, nullable=False),
        _text("started"),
        sa.Column("ttl_seconds", sa.Float, nullable=False),
        sa.Column("acquired_at", _time(), nullable=False),
        sa.Column("heartbeat_at", _time(), nullable=False),
    )


def _incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer, primary_key=True),
        *map(_text, ("model", "period", "kind", "verdict")),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("since", sa.Date),
        _text("evidence", nullable=True),
        _text("run_id", nullable=True),
        _text("state"),
        sa.Column("opened_at", _time(), nullable=False),
        sa.Column("resolved_at", _time()),
        _text("resolved_by", nullable=True),
        _text("resolved_why", nullable=True),
        sa.UniqueConstraint("model", "period", "kind", name="one_incident_per_cause"),
    )
    op.create_table(
        "incident_history",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("incident_id", sa.Integer, sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("at", _time(), nullable=False),
        _text("event"),
        _text("by", nullable=True),
        _text("why", nullable=True),
        _text("evidence", nullable=True),
    )
    op.create_index("ix_incident_history_incident_id", "incident_history", ["incident_id"])


def _decisions_by_hand() -> None:
    op.create_table(
        "accepts",
        sa.Column("id", sa.Integer, primary_key=True),
        *map(_text, ("model", "period", "report_digest", "by", "why")),
        sa.Column("at", _time(), nullable=False),
    )
    op.create_index("accepts_of_period", "accepts", ["model", "period"])
    op.create_table(
        "champion_orders",
        sa.Column("id", sa.Integer, primary_key=True),
        *map(_text, ("model", "period", "action", "version", "by", "why")),
        sa.Column("at", _time(), nullable=False),
    )
    op.create_index("orders_of_period", "champion_orders", ["model", "period"])
    op.create_table(
        "retrain_causes",
        sa.Column("id", sa.Integer, primary_key=True),
        *map(_text, ("model", "period", "kind", "why", "by", "key")),
        sa.Column("at", _time(), nullable=False),
        _text("consumed_by", nullable=True),
        sa.Column("consumed_at", _time()),
        sa.UniqueConstraint("model", "key", name="one_cause_per_key"),
    )
    op.create_index("causes_of_period", "retrain_causes", ["model", "period"])


def _outbox() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        *map(_text, ("kind", "model", "period", "title", "body", "state")),
        sa.Column("at", _time(), nullable=False),
    )
    op.create_index("alerts_by_state", "alerts", ["state"])
    op.create_table(
        "alert_deliveries",
        sa.Column("alert_id", sa.Integer, sa.ForeignKey("alerts.id"), primary_key=True),
        sa.Column("endpoint", sa.Text, primary_key=True),
        *map(_text, ("address", "state")),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", _time(), nullable=False),
        sa.Column("sent_at", _time()),
        _text("error", nullable=True),
    )
    op.create_index("deliveries_due", "alert_deliveries", ["endpoint", "state", "next_at"])
