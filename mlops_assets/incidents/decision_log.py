"""The log of decisions: each decision, by the platform or by a person, is one line that stays as it was written.

Here: what a line is, and when a new one says something new. The table has a trigger that refuses changes in both
databases, so nothing disappears from history, whatever code is run against it. Who writes which line: the incident
store (incidents, accepts, orders, causes) in the transaction of what it says, `monitored_model.decision_log` (what was
trained, decided, served and pointed at by aliases) right after the write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mlops_assets.incidents.store import Store

Subject = Literal["challenger", "champion", "alias", "served", "incident", "accept", "order", "retrain"]
PLATFORM = "mlops_assets"  # the actor of what nobody decided by hand


@dataclass(frozen=True)
class Line:
    """A decision that is to be written down.

    Attributes
    ----------
    subject
        What it is about: `challenger` (what was trained), `champion` (what is in force after the period), `alias`
        (MLflow's aliases), `served` (what consumers read), `incident`, `accept`, `order` (rollback or promotion that
        a person asked for), `retrain`.
    action
        What was done, such as `promoted`, `plan_b`, `opened`, `withdrawn`.
    actor
        The person, or `mlops_assets`.
    why
        The reason, in words.
    before, after
        What held before and holds now; None where there was nothing. `Store.record` takes the `after` of the newest
        line of the same model, period and subject for `before`, where there is one.
    evidence
        What the decision rests on, by its name: a report's digest, a decision id, a version's fingerprint.
    run_id
        The Dagster run that did it.
    """

    model: str
    period: str
    subject: Subject
    action: str
    actor: str
    why: str
    before: str | None = None
    after: str | None = None
    evidence: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Decision(Line):
    """A line of the log. `reconstructed` lines were added afterwards, from what the lake and the store still knew."""

    id: int
    at: datetime
    reconstructed: bool


def says_the_same(known: Decision, line: Line) -> bool:
    """Whether a line would repeat the one that is known: making a period again with the same outcome is no decision."""
    same = (known.action, known.after) == (line.action, line.after)
    return same and (None in (known.evidence, line.evidence) or known.evidence == line.evidence)


def append(
    store: Store, connection: sa.Connection, line: Line, at: datetime, *, reconstructed: bool = False
) -> Decision:
    """Write a line in the caller's transaction."""
    table = store._t.decisions
    values = {**asdict(line), "at": at, "reconstructed": reconstructed}
    number = connection.execute(table.insert().values(values)).inserted_primary_key
    assert number is not None
    return Decision(id=int(number[0]), **values)


def newest(store: Store, connection: sa.Connection, model: str, period: str, subject: str) -> Decision | None:
    """The newest line of a model, period and subject."""
    table = store._t.decisions
    mine = (table.c.model == model) & (table.c.period == period) & (table.c.subject == subject)
    row = connection.execute(table.select().where(mine).order_by(table.c.id.desc()).limit(1)).mappings().first()
    return None if row is None else Decision(**row)


def newest_by_period(store: Store, model: str, subjects: Sequence[str]) -> dict[tuple[str, str], Decision]:
    """The newest line of a model by period and subject."""
    import sqlalchemy as sa

    table = store._t.decisions
    mine = (table.c.model == model) & table.c.subject.in_(subjects)
    ids = sa.select(sa.func.max(table.c.id)).where(mine).group_by(table.c.period, table.c.subject)
    with store.read() as connection:
        rows: list[Any] = list(connection.execute(table.select().where(table.c.id.in_(ids))).mappings())
    return {(row["period"], row["subject"]): Decision(**row) for row in rows}
