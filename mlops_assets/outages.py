"""Ordinary outages: a full disk, a database or server that does not answer, a missing package, a missing permission.

One place says what an error means and what to do about it (`explain`), which errors pass by themselves (`transient`),
and how long to wait for that (`retried`): after 0.5, 1, 2, 4, … seconds, `MLOPS_RETRY_SECONDS` (20) in all.

Errors are recognised by class name, code and text, so that no database driver has to be imported for it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mlops_assets.redaction import redact

Result = TypeVar("Result")

RETRY_VARIABLE = "MLOPS_RETRY_SECONDS"
DEFAULT_RETRY_SECONDS = 20.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 8.0

# Packages that only some addresses need, by the name that Python misses, with what installs them.
OPTIONAL_PACKAGES = {
    "psycopg": "mlops-assets[postgres]",
    "s3fs": "mlops-assets[s3]",
    "gcsfs": "gcsfs",
    "adlfs": "adlfs",
    "aiohttp": "aiohttp",
    "paramiko": "paramiko",
    "boto3": "boto3",
    "botocore": "boto3",
    "google": "google-cloud-storage",
    "azure": "azure-storage-blob",
}

_log = logging.getLogger(__name__)

# psycopg gives errors of connecting no SQLSTATE; a server that is up and refuses for good says FATAL.
_FATAL = re.compile(r"FATAL|authentication failed|does not exist|no password supplied|no pg_hba", re.IGNORECASE)
_COMING_OR_GOING = re.compile(
    r"starting up|shutting down|not yet accepting|recovery mode|too many (clients|connections)|connection slots|"
    r"terminating connection|administrator command",
    re.IGNORECASE,
)
_BROKEN = re.compile(
    r"connection (was )?(refused|reset|closed|lost|aborted)|connection (to server )?(at .* )?failed|"
    r"closed the connection|connection has been closed|broken pipe|timed? ?out|could not connect|couldn't connect|"
    r"unreachable|temporary failure",
    re.IGNORECASE,
)
_CONNECTION_CLASSES = {
    *("ConnectionError", "ConnectTimeout", "ReadTimeout", "Timeout", "TimeoutError", "EndpointConnectionError"),
    *(
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ClientConnectorError",
        "ServerDisconnectedError",
        "NewConnectionError",
    ),
    *("MaxRetryError", "ServerTimeoutError", "ConnectionClosedError", "ProtocolError"),
}
_NO_CONNECTION = {
    *("ConnectTimeout", "ConnectTimeoutError", "NewConnectionError", "NameResolutionError", "ProxyError", "SSLError"),
    *("ClientConnectorError", "EndpointConnectionError", "ConnectionRefusedError", "gaierror"),
}
_SQL_CLASSES = {"OperationalError", "InterfaceError", "AdminShutdown", "CannotConnectNow", "DBAPIError"}
_DISK_FULL = re.compile(
    r"no space left|disk (or volume )?is full|database or disk is full|disk quota|file too large", re.I
)
_DENIED = re.compile(r"permission denied|access denied|read-?only (file system|database)|readonly database", re.I)
_NO_DATABASE = re.compile(r"unable to open database file", re.I)
_DAMAGED = re.compile(r"disk i/o error|malformed|not a database", re.IGNORECASE)
_LOCKED = re.compile(r"database is locked|database table is locked", re.I)


def explain(error: BaseException) -> str | None:
    """What an outage is and what to do about it, in one line; None when the error is none that is known here."""
    for one in _chain(error):
        for question in (_disk_full, _no_permission, _missing_package, _wrong_place, _database, _server):
            found = question(one)
            if found is not None:
                return redact(" ".join(found.split()))
    return None


def transient(error: BaseException) -> bool:
    """Whether an error may pass by itself: a server that is down, starts, or is overloaded; a broken connection.

    A wrong password, a database that does not exist, a full disk or a missing permission do not pass.
    """
    return any(_passes(one) for one in _chain(error))


def answered(error: BaseException) -> bool:
    """Whether an error is transient, and of a server that is there: one that is overloaded, or has broken off.

    For servers that may be out of reach for good, such as those of sources on a machine without a network: nothing
    is waited for where no connection came about.
    """
    names = {name for one in _chain(error) for name in (*_names(one), type(getattr(one, "reason", None)).__name__)}
    return transient(error) and not names & _NO_CONNECTION


def retry_seconds() -> float:
    """How long a transient error is waited for: `MLOPS_RETRY_SECONDS`, by default 20; 0 never tries again."""
    text = os.environ.get(RETRY_VARIABLE) or str(DEFAULT_RETRY_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{RETRY_VARIABLE} is {text!r}; expected a number of seconds, 0 or more")
    return seconds


def retried(work: Callable[[], Result], what: str, passes: Callable[[BaseException], bool] | None = None) -> Result:
    """The result of `work`, called again while it fails with a transient error; then that error is raised.

    Args:
        work: has to be safe to repeat: a read, a connection, or a write that replaces the same thing.
        what: what does not answer, for the log line of each attempt.
        passes: which errors are transient, instead of `transient`.
    """
    import tenacity

    seconds = retry_seconds()

    def told(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        wait = state.next_action.sleep if state.next_action is not None else 0.0
        why = redact(" ".join(str(getattr(error, "orig", None) or error).split()))
        _log.warning("%s does not answer (%s); again in %.1f s, for up to %g s", what, why[:300], wait, seconds)

    policy = tenacity.Retrying(
        retry=tenacity.retry_if_exception(passes or transient),
        wait=tenacity.wait_exponential(multiplier=FIRST_WAIT_SECONDS, min=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS),
        stop=tenacity.stop_before_delay(seconds),
        before_sleep=told,
        reraise=True,
    )
    return policy(work)


class RetriedFileSystem:
    """A file system of fsspec whose calls are made again while they fail with a transient error.

    Each of the calls is safe to repeat: it reads, or it replaces the same object. What is read from an opened file
    later is not repeated.
    """

    _REPEATED = frozenset(
        (
            *("cat_file", "checksum", "exists", "get_file", "glob", "info", "isfile", "ls", "makedirs", "modified"),
            *("open", "pipe_file", "put_file", "rm_file", "size", "ukey"),
        )
    )

    def __init__(self, inner: Any, what: str) -> None:
        self.inner, self._what = inner, what

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in self._REPEATED:
            return found
        return lambda *arguments, **options: retried(lambda: found(*arguments, **options), self._what)


@contextmanager
def explained() -> Iterator[None]:
    """Adds to an error that leaves the block what to do about it, as a note that stands in every traceback and log."""
    try:
        yield
    except Exception as error:
        advice = explain(error)
        if advice is not None and advice not in getattr(error, "__notes__", []):
            error.add_note(advice)
        raise


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        original = getattr(current, "orig", None)  # SQLAlchemy's name for the driver's error, which says more
        yield original if isinstance(original, BaseException) else current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _passes(error: BaseException) -> bool:
    if type(error).__module__.startswith(("mlops_assets", "filelock")):
        return False  # of ours: a lease that is held, a lock; what caused them is looked at on its own
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    text = str(error)
    if _names(error) & _SQL_CLASSES and not isinstance(error, sqlite3.Error):
        state = str(getattr(error, "sqlstate", None) or "")
        if state:
            return state[:2] in ("08", "57", "53") and state != "53100"  # 53100: the server's disk is full
        return bool(_COMING_OR_GOING.search(text) or (_BROKEN.search(text) and not _FATAL.search(text)))
    if _names(error) & _CONNECTION_CLASSES:
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "ClientResponseError" in _names(error):  # of aiohttp
        status = getattr(error, "status", None)
    return status in (429, 502, 503, 504)


def _disk_full(error: BaseException) -> str | None:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if not full and not (_is_of_storage(error) and _DISK_FULL.search(str(error))):
        return None
    return (
        f"the disk is full{_at(error)} ({_text(error)}). Free some space, then run the command again: nothing that is "
        "half-written stays, and what was made before is kept"
    )


def _no_permission(error: BaseException) -> str | None:
    denied = isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS)
    if not denied and not (_is_of_storage(error) and _DENIED.search(str(error))):
        return None
    return (
        f"permission denied{_at(error)} ({_text(error)}). Give the user that runs this the right to read and write "
        "there, or set MLOPS_HOME to a folder of its own"
    )


def _missing_package(error: BaseException) -> str | None:
    if not isinstance(error, ImportError):
        return None
    missing = (error.name or "").partition(".")[0]
    named = missing if missing in OPTIONAL_PACKAGES else next((n for n in OPTIONAL_PACKAGES if n in str(error)), None)
    if named is None:
        return None
    return f"the package {named} is not installed, which this address needs: pip install '{OPTIONAL_PACKAGES[named]}'"


def _wrong_place(error: BaseException) -> str | None:
    if isinstance(error, IsADirectoryError):
        return f"{error.filename} is a folder where a file has to be. Move it away"
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        place = error.filename or _text(error)
        return f"{place}: a file lies where a folder has to be. Move it away, or set MLOPS_HOME to another folder"
    if _names(error) & {"OperationalError"} and _NO_DATABASE.search(str(error)):
        return (
            "a database file can't be opened: its folder is missing, or not readable and writable for this user. "
            "Check MLOPS_HOME and MLOPS_STORE_URL"
        )
    return None


def _database(error: BaseException) -> str | None:
    if not _names(error) & _SQL_CLASSES:
        return None
    if isinstance(error, sqlite3.Error):
        if _LOCKED.search(str(error)):
            return (
                "a database is locked by another process for too long. Wait until that has ended, then run this again"
            )
        if _DAMAGED.search(str(error)):
            return (
                f"a database file can't be read or written ({_text(error)}): its disk is full or broken, or the file "
                "was damaged. Check the free space and MLOPS_HOME; restore a damaged file from a backup"
            )
        return None
    state = "does not answer" if _passes(error) else "refuses"
    # Nothing in the error says whose database it is: ours, MLflow's or Dagster's own.
    where = "its address (MLOPS_STORE_URL, MLFLOW_TRACKING_URI, or dagster.yaml)"
    advice = f"Start it, or correct {where}" if _passes(error) else f"Correct {where}"
    return f"the database {state} ({_text(error)}). {advice}, then run this again"


def _server(error: BaseException) -> str | None:
    if "MlflowException" in _names(error) and re.search(r"API request|Max retries|Connection", str(error)):
        return (
            f"the MLflow server does not answer ({_text(error)}). Start it, or correct MLFLOW_TRACKING_URI, then run "
            "this again"
        )
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"the port is taken ({_text(error)}). Stop what listens there, or choose another port"
    if _passes(error):
        return f"a server does not answer ({_text(error)}). Check that it runs and can be reached, then run this again"
    return None


def _is_of_storage(error: BaseException) -> bool:
    return isinstance(error, (OSError, sqlite3.Error)) or bool(
        _names(error) & {"IOException", "OutOfMemoryException", "ArrowException", "OperationalError", "DiskFull"}
    )


def _at(error: BaseException) -> str:
    name: Any = getattr(error, "filename", None)
    return f" at {name}" if name else ""


def _text(error: BaseException) -> str:
    """The first sentence of an error, without the lines of advice that drivers append."""
    first = " ".join(str(getattr(error, "orig", None) or error).split("\n")[:2]).strip()
    return (first[:200] + "…") if len(first) > 200 else first or type(error).__name__
