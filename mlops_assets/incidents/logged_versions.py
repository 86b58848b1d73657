"""What the platform has logged: for each model run, the fingerprint of its inputs and the digest of its files.

Kept in the incident store, outside of MLflow: whoever can write to MLflow can't make another model loadable. The number
that a registry gives to a version is not kept; another registry may give it to another model.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlops_assets.incidents.store import Store


@dataclass(frozen=True)
class LoggedVersion:
    """A model that the platform has logged.

    Attributes
    ----------
    fingerprint
        SHA-256 of what it was made from; the same inputs may have been logged more than once.
    run_id
        The MLflow run that it was logged in.
    sha256
        Digest of its files (`training.artifacts.digest`).
    format
        How the pipeline is stored: `skops` or `cloudpickle`.
    """

    id: int
    model: str
    fingerprint: str
    run_id: str
    sha256: str
    format: str
    logged_at: datetime


def record(store: Store, model: str, fingerprint: str, run_id: str, sha256: str, format: str) -> LoggedVersion:
    """Write down a model that was logged. A run that is recorded already keeps its record; nothing is overwritten."""
    from mlops_assets.incidents.tables import logged_versions as table

    query = table.select().where(table.c.model == model, table.c.run_id == run_id)
    with store.write() as connection:
        if connection.execute(query).first() is None:
            values = {"fingerprint": fingerprint, "run_id": run_id, "sha256": sha256, "format": format}
            connection.execute(table.insert().values(model=model, logged_at=store.now(connection), **values))
        return LoggedVersion(**connection.execute(query).mappings().one())


def records(store: Store, model: str, *, fingerprint: str | None = None) -> list[LoggedVersion]:
    """What was logged of a model, of one fingerprint or all, newest first."""
    from mlops_assets.incidents.tables import logged_versions as table

    query = table.select().where(table.c.model == model).order_by(table.c.id.desc())
    if fingerprint is not None:
        query = query.where(table.c.fingerprint == fingerprint)
    with store.read() as connection:
        return [LoggedVersion(**row) for row in connection.execute(query).mappings()]
