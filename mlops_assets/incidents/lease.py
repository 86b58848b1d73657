"""The lease of a model: whoever writes its registry, alias and decisions holds it, whatever the entry point.

A lease lives in the incident store, so it holds between processes, containers and machines. Its holder sends
heartbeats; when they stop for longer than the time to live, or the holder's process is dead on this machine, the next
one takes the lease over. A holder that was only slow learns it from `Lease.check`. Each holding has a fencing token,
greater than all before it (Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from mlops_assets.incidents import processes

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mlops_assets.incidents.store import Store

POLL_SECONDS = 0.1
HEARTBEATS_PER_TTL = 4

_log = logging.getLogger(__name__)


class LeaseHeld(TimeoutError):
    """Somebody else held the lease for as long as we were ready to wait."""


class LeaseLost(RuntimeError):
    """The lease that this process thought it held has been taken over, or may have been."""


@dataclass(frozen=True)
class Holder:
    """Who holds a model's lease.

    Attributes
    ----------
    what
        In the holder's words, such as the run that it works for.
    token
        Fencing token of this holding.
    heartbeat_at
        The last sign of life.
    gone
        Why the lease may be taken over: the process is dead, or silent for too long. None for a live holder.
    """

    model: str
    what: str
    host: str
    pid: int
    token: int
    acquired_at: datetime
    heartbeat_at: datetime
    gone: str | None

    def __str__(self) -> str:
        state = f", {self.gone}" if self.gone else ""
        since = f"since {self.acquired_at:%H:%M:%S} UTC, last heartbeat {self.heartbeat_at:%H:%M:%S}"
        return f"{self.what} (process {self.pid} on {self.host}, {since}{state})"


def holder(store: Store, model: str) -> Holder | None:
    """Who holds the lease of a model, None when it is free."""
    with store.read() as connection:
        row = _row(store, connection, model)
        return None if row is None else _holder(row, store.now(connection))


def holders(store: Store, prefix: str) -> list[Holder]:
    """Who holds the leases whose name begins with `prefix`."""
    leases = store._t.leases
    query = leases.select().where(leases.c.model.startswith(prefix, autoescape=True), leases.c.held)
    with store.read() as connection:
        now = store.now(connection)
        return [_holder(row, now) for row in connection.execute(query).mappings()]


def last_heartbeat(store: Store, prefix: str) -> datetime | None:
    """The last sign of life of the leases whose name begins with `prefix`, held or given back; None without any."""
    import sqlalchemy as sa

    leases = store._t.leases
    query = sa.select(leases.c.heartbeat_at).where(leases.c.model.startswith(prefix, autoescape=True))
    with store.read() as connection:
        return max(connection.execute(query).scalars(), default=None)


def forget_released(store: Store, prefix: str, older_than: float) -> int:
    """Delete the leases whose name begins with `prefix` that were given back `older_than` seconds ago; how many."""
    leases = store._t.leases
    released = leases.c.model.startswith(prefix, autoescape=True) & ~leases.c.held
    with store.read() as connection:
        gone = store.now(connection) - timedelta(seconds=older_than)
        old = released & (leases.c.heartbeat_at < gone)
        if connection.execute(leases.select().where(old).limit(1)).first() is None:
            return 0  # asked at each tick of each sensor, which need not wait for those who write
    with store.write() as connection:
        return connection.execute(leases.delete().where(old)).rowcount


def release_dead(store: Store, prefix: str, what: str) -> int:
    """Give back the leases of a dead holder: those whose name begins with `prefix`, and those that it took for `what`.

    Returns how many; a holder that still lives is left alone.
    """
    leases = store._t.leases
    named = leases.c.model.startswith(prefix, autoescape=True)
    with store.write() as connection:
        now = store.now(connection)
        rows = connection.execute(leases.select().where(leases.c.held, named | (leases.c.what == what))).mappings()
        gone = [(row["model"], row["token"]) for row in rows if _holder(row, now).gone]
        for model, token in gone:
            mine = (leases.c.model == model) & (leases.c.token == token)
            connection.execute(leases.update().where(mine).values(held=False))
        return len(gone)


class Lease:
    """A context manager that holds a model's lease.

    A thread that holds the lease may enter it again, with this object or another; other threads and processes wait.

    Args:
        what: who wants it and for what, for the one who has to wait: `run 1a2b3c`.
        ttl: seconds without a heartbeat after which others may take the lease over.
        wait: seconds to wait for another holder before `LeaseHeld` is raised.
    """

    def __init__(self, store: Store, model: str, *, what: str = "", ttl: float = 60.0, wait: float = 3600.0) -> None:
        self._store = store
        self.model = model
        self._what = what or "somebody"
        self._ttl = ttl
        self._wait = wait

    def __enter__(self) -> Lease:
        key = self._key()
        if key not in _held:
            _held[key] = _acquire(self._store, self.model, self._what, self._ttl, self._wait)
        _held[key].depth += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        holding = self._holding()
        holding.depth -= 1
        if holding.depth == 0:
            del _held[self._key()]
            holding.release()

    @property
    def token(self) -> int:
        """Fencing token of this holding: greater than that of any earlier holder."""
        return self._holding().token

    def check(self) -> None:
        """Raise `LeaseLost` unless this thread still holds the lease. Call it right before an irreversible write."""
        self._holding().check()

    def _holding(self) -> _Holding:
        try:
            return _held[self._key()]
        except KeyError:
            raise LeaseLost(f"this thread doesn't hold the lease of {self.model}: use `with Lease(...)`") from None

    def _key(self) -> tuple[str, str, int, int]:
        return self._store.name, self.model, os.getpid(), threading.get_ident()


# What each thread of this process holds. A key is touched by its own thread only; a forked child has another pid.
_held: dict[tuple[str, str, int, int], _Holding] = {}


@dataclass
class _Holding:
    """One holding of a lease, kept alive by a thread until it is released."""

    store: Store
    model: str
    ttl: float
    token: int
    beaten: float
    depth: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread(target=self._beat, name=f"lease of {self.model}", daemon=True).start()

    def check(self) -> None:
        leases = self.store._t.leases
        silent = time.monotonic() - self.beaten
        with self.store.read() as connection:
            mine = connection.execute(leases.select().where(self._mine)).first() is not None
        if mine and silent <= self.ttl:
            return
        now = holder(self.store, self.model)
        found = f"its heartbeat stopped {silent:.0f} s ago" if mine else f"held by {now}" if now else "free again"
        raise LeaseLost(f"the lease of {self.model} was lost ({found}): write nothing more, run this work again")

    def release(self) -> None:
        """Give the lease back; somebody else's is left alone."""
        self.stopped.set()
        leases = self.store._t.leases
        with self.store.write() as connection:
            if connection.execute(leases.update().where(self._mine).values(held=False)).rowcount == 0:
                _log.warning("The lease of %s was taken over before it was given back.", self.model)

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        leases = self.store._t.leases
        return (leases.c.model == self.model) & (leases.c.token == self.token) & leases.c.held

    def _beat(self) -> None:
        import sqlalchemy as sa

        leases = self.store._t.leases
        while not self.stopped.wait(self.ttl / HEARTBEATS_PER_TTL):
            began = time.monotonic()
            try:
                with self.store.write() as connection:
                    beat = leases.update().where(self._mine).values(heartbeat_at=self.store.now(connection))
                    if connection.execute(beat).rowcount == 0:
                        return
            except sa.exc.DBAPIError as error:
                _log.warning("No heartbeat for the lease of %s, the store failed: %s", self.model, error.orig)
            else:
                self.beaten = began


def _acquire(store: Store, model: str, what: str, ttl: float, wait: float) -> _Holding:
    deadline = time.monotonic() + wait
    told = 0
    while True:
        current = holder(store, model)
        if current is None or current.gone:
            began = time.monotonic()
            token = _take(store, model, what, ttl)
            if token is not None:
                return _Holding(store, model, ttl, token, beaten=began)
            continue  # another one was faster
        if time.monotonic() >= deadline:
            raise LeaseHeld(
                f"the lease of {model} is held by {current}; waited {wait:g} s. Try again when that has ended"
            )
        if current.token != told:
            _log.info("Waiting for the lease of %s, held by %s.", model, current)
            told = current.token
        time.sleep(POLL_SECONDS)


def _take(store: Store, model: str, what: str, ttl: float) -> int | None:
    """Write us down as the holder; the token, or None when somebody alive holds the lease."""
    leases = store._t.leases
    with store.write() as connection:
        now = store.now(connection)
        row = connection.execute(leases.select().where(leases.c.model == model)).mappings().one_or_none()
        if row is not None and row["held"]:
            current = _holder(row, now)
            if not current.gone:
                return None
            _log.warning("Taking over the lease of %s from %s.", model, current)
        token: int = 1 if row is None else row["token"] + 1
        values = {
            "token": token,
            "held": True,
            "what": what,
            "host": socket.gethostname(),
            "machine": processes.machine(),
            "pid": os.getpid(),
            "started": processes.started(os.getpid()),
            "ttl_seconds": ttl,
            "acquired_at": now,
            "heartbeat_at": now,
        }
        if row is None:
            connection.execute(leases.insert().values(model=model, **values))
        else:
            connection.execute(leases.update().where(leases.c.model == model).values(values))
        return token


def _row(store: Store, connection: sa.Connection, model: str) -> sa.RowMapping | None:
    leases = store._t.leases
    query = leases.select().where(leases.c.model == model, leases.c.held)
    return connection.execute(query).mappings().one_or_none()


def _holder(row: sa.RowMapping, now: datetime) -> Holder:
    gone = None
    if row["machine"] and row["machine"] == processes.machine() and not processes.is_alive(row["pid"], row["started"]):
        gone = "its process is dead"
    elif now - row["heartbeat_at"] > timedelta(seconds=row["ttl_seconds"]):
        gone = f"silent for more than {row['ttl_seconds']:g} s"
    names = ("model", "what", "host", "pid", "token", "acquired_at", "heartbeat_at")
    return Holder(**{name: row[name] for name in names}, gone=gone)
