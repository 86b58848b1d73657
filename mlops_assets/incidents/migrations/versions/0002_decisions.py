"""The append-only log of decisions, filled from what the store knows; accepts can be withdrawn."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

PLATFORM = "mlops_assets"
REFUSED = "the log of decisions is append only"


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def upgrade() -> None:
    op.add_column("accepts", sa.Column("withdrawn_at", sa.DateTime(timezone=True)))
    op.add_column("accepts", _text("withdrawn_by", nullable=True))
    op.add_column("accepts", _text("withdrawn_why", nullable=True))
    log = op.create_table(
        "decisions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        *map(_text, ("model", "period", "subject", "action", "actor", "why")),
        *(_text(name, nullable=True) for name in ("before", "after", "evidence", "run_id")),
        sa.Column("reconstructed", sa.Boolean, nullable=False),
    )
    op.create_index("decisions_of_period", "decisions", ["model", "period", "subject"])
    lines = sorted([*_incidents(), *_accepts(), *_orders(), *_causes()], key=lambda line: line["at"])
    if lines:
        op.bulk_insert(log, [_LINE | line for line in lines])
    _refuse_changes()


_LINE: dict[str, Any] = dict.fromkeys(("before", "after", "evidence", "run_id")) | {"reconstructed": True}
_BEFORE = {"opened": None, "updated": "open", "reopened": "resolved", "resolved": "open", "closed": "open"}
_AFTER = {"opened": "open", "updated": "open", "reopened": "open", "resolved": "resolved", "closed": "resolved"}


def _rows(query: str, *times: str) -> list[Any]:
    typed = sa.text(query).columns(**{name: sa.DateTime(timezone=True) for name in times})
    return list(op.get_bind().execute(typed))


def _incidents() -> list[dict[str, Any]]:
    found = _rows(
        "SELECT i.model, i.period, i.kind, i.verdict, h.event, h.by, h.why, h.evidence, h.at "
        "FROM incident_history h JOIN incidents i ON i.id = h.incident_id",
        "at",
    )
    return [
        {
            **{"at": row.at, "model": row.model, "period": row.period, "subject": "incident", "action": row.event},
            **{"actor": row.by or PLATFORM, "why": row.why or f"{row.kind}: {row.verdict}", "evidence": row.evidence},
            "before": _BEFORE.get(row.event) and f"{row.kind} {_BEFORE[row.event]}",
            "after": _AFTER.get(row.event) and f"{row.kind} {_AFTER[row.event]}",
        }
        for row in found
    ]


def _accepts() -> list[dict[str, Any]]:
    return [
        {
            **{"at": row.at, "model": row.model, "period": row.period, "subject": "accept", "action": "accepted"},
            **{"actor": row.by, "why": row.why, "after": "accepted", "evidence": row.report_digest},
        }
        for row in _rows("SELECT model, period, report_digest, by, why, at FROM accepts", "at")
    ]


def _orders() -> list[dict[str, Any]]:
    return [
        {
            **{"at": row.at, "model": row.model, "period": row.period, "subject": "order", "action": row.action},
            **{"actor": row.by, "why": row.why, "after": row.version},
        }
        for row in _rows("SELECT model, period, action, version, by, why, at FROM champion_orders", "at")
    ]


def _causes() -> list[dict[str, Any]]:
    lines = []
    columns = "model, period, kind, why, by, key, at, consumed_by, consumed_at"
    for row in _rows(f"SELECT {columns} FROM retrain_causes", "at", "consumed_at"):
        line = {"model": row.model, "period": row.period, "subject": "retrain", "evidence": row.key}
        line["why"] = f"{row.kind}: {row.why}"
        lines.append(line | {"at": row.at, "action": "asked", "actor": row.by, "after": "asked"})
        if row.consumed_at is not None:
            done = {"actor": PLATFORM, "before": "asked", "after": f"trained in {row.consumed_by}"}
            lines.append(line | done | {"at": row.consumed_at, "action": "trained"})
    return lines


def _refuse_changes() -> None:
    """The database itself refuses to change or delete a line."""
    if op.get_bind().dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER decisions_refuse_{what.lower()} BEFORE {what} ON decisions "
                f"BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION decisions_refuse_changes() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSED}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER decisions_refuse_changes BEFORE UPDATE OR DELETE ON decisions "
        "FOR EACH ROW EXECUTE FUNCTION decisions_refuse_changes()"
    )
