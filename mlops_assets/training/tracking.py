"""The MLflow runs of training: store, experiments, period runs, trials.

Everything goes through an `MlflowClient` of an explicit address. MLflow's fluent functions, which log into
whatever run is active in the process, are not used: no period can log into another's run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import posixpath
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.event import listen, remove

from mlops_assets.training.search import Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Limits of MLflow's stores: lengths of texts, and entries of one request.
PARAM_LENGTH = 6_000
TAG_LENGTH = 8_000
NAME_LENGTH = 250
METRICS_AT_ONCE = 1_000
PARAMS_AT_ONCE = TAGS_AT_ONCE = 100

_NAME = re.compile(r"[/\w.\- :]+")
_NOT_IN_A_NAME = re.compile(r"[^/\w.\- :]")
_DIGEST_DIGITS = 8

# Which pages MLflow's UI opens an experiment with; without it, those for language models.
EXPERIMENT_KIND = "mlflow.experimentKind"
TRAINING = "custom_model_development"


@dataclass(frozen=True)
class TrainingData:
    """The lake partitions behind one role of a training run, as MLflow's dataset input.

    `context` is train, validation or test; `digests` maps each period to the digest of its partition;
    `source` is where the partitions lie.
    """

    context: str
    name: str
    source: str
    digests: Mapping[str, str]
    rows: int


def client(uri: str) -> MlflowClient:
    """A client of one tracking store and registry, whatever the process's default is."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that is down is waited for about as long as everything else is (outages), not MLflow's four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    from mlflow import MlflowClient

    with _quiet():
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def initialise(uri: str, artifact_root: str | Path) -> None:
    """Create a SQLite store's schema unless it is there; only one process does (the others wait).

    Fresh-database races crash MLflow, so this comes before any parallel use. The file is made beside its place and
    put there whole, with a write-ahead log: a page that reads does not hold up a run that writes. Stores of other kinds
    (a server, PostgreSQL) are set up by whoever runs them.
    """
    if not uri.startswith("sqlite:///"):
        return
    from filelock import FileLock

    database = Path(uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    ready = database.with_name(f"{database.name}.ready")
    if ready.exists() and database.exists():
        return
    with FileLock(str(database) + ".lock"):
        if ready.exists() and database.exists():
            return
        if database.exists():
            _create_schema(database, artifact_root)
        else:
            made = database.with_name(f"{database.name}.new")
            for left_by_a_killed_process in made.parent.glob(f"{made.name}*"):
                left_by_a_killed_process.unlink()
            with _without_waiting_for_the_disk(made):
                _create_schema(made, artifact_root)
            with closing(sqlite3.connect(made)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            with made.open("rb") as whole:
                os.fsync(whole.fileno())
            made.replace(database)
        ready.touch()


def _create_schema(database: Path, artifact_root: str | Path) -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with _quiet():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(f"sqlite:///{database}", _as_uri(artifact_root)).engine.dispose()


@contextmanager
def _without_waiting_for_the_disk(database: Path) -> Iterator[None]:
    """MLflow makes its tables in several hundred transactions; nobody reads this file before it is complete."""

    def connected(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            _, _, file = connection.execute("PRAGMA database_list").fetchone()
            if file and Path(file) == database.resolve():
                connection.execute("PRAGMA synchronous=OFF")

    listen(Engine, "connect", connected)
    try:
        yield
    finally:
        remove(Engine, "connect", connected)


def _as_uri(location: str | Path) -> str:
    return location if isinstance(location, str) and "://" in location else Path(location).resolve().as_uri()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the information lines of a schema's creation; warnings and errors stay."""
    names = ("alembic", "alembic.runtime.migration", "alembic.runtime.plugins", "mlflow.store.db.utils")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        # MLflow configures logging while it is imported; that must not undo the levels set here.
        import mlflow.store.db.utils  # noqa: F401

        for logger in loggers:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def experiment(client: MlflowClient, name: str, artifact_root: str | Path) -> str:
    """The id of the experiment; created, with its artifacts below `artifact_root`, when it isn't there.

    When the home has moved since, the locations in its database are written anew first (`artifacts.relocate`):
    otherwise new runs would write to where the home was.
    """
    from mlflow.exceptions import MlflowException

    from mlops_assets.training.artifacts import has_moved, relocate

    found = client.get_experiment_by_name(name)
    if found is not None:
        own = client.tracking_uri.startswith("sqlite:///") and isinstance(artifact_root, Path)
        if own and has_moved(found.artifact_location, Path(artifact_root).resolve()):
            relocate(client.tracking_uri, Path(artifact_root).resolve())
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    try:
        return client.create_experiment(
            name, artifact_location=f"{_as_uri(artifact_root).rstrip('/')}/{name}", tags={EXPERIMENT_KIND: TRAINING}
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        created = client.get_experiment_by_name(name)
        if created is None:
            raise
        return created.experiment_id


@contextmanager
def open_run(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    *,
    parent_run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A run that is closed whatever happens: FINISHED, KILLED on an interrupt, else FAILED. Yields its id."""
    nested = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
    run_id = client.create_run(experiment_id, run_name=name, tags={**_tags(tags or {}), **nested}).info.run_id
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run_id, status)


def close_open_runs(client: MlflowClient, tag: str, value: str, status: str) -> list[str]:
    """Close the runs that carry a tag and are still running, and those nested below them; returns their ids."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    closed: list[str] = []
    waiting = [(tag, value)]
    while waiting:
        name, wanted = waiting.pop()
        for run in client.search_runs(experiments, f"tags.`{name}` = '{wanted}'", max_results=1000):
            waiting.append(("mlflow.parentRunId", run.info.run_id))
            if run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, status)
                closed.append(run.info.run_id)
    return closed


def log(
    client: MlflowClient,
    run_id: str,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, Any] | None = None,
    timestamp: int | None = None,
    step: int = 0,
) -> None:
    """Write params, metrics and tags of one run, in one request unless there are more than one takes.

    Undefined metrics (NaN) are left out. Names are made valid by `valid_name`.
    """
    import math
    import time

    from mlflow.entities import Metric, Param, RunTag

    when = int(time.time() * 1000) if timestamp is None else timestamp
    measured = [Metric(valid_name(k), float(v), when, step) for k, v in (metrics or {}).items() if not math.isnan(v)]
    given = [Param(valid_name(k), param_text(v)) for k, v in (params or {}).items()]
    told = [RunTag(k, v) for k, v in _tags(tags or {}).items()]
    while measured or given or told:
        client.log_batch(
            run_id, metrics=measured[:METRICS_AT_ONCE], params=given[:PARAMS_AT_ONCE], tags=told[:TAGS_AT_ONCE]
        )
        measured, given, told = measured[METRICS_AT_ONCE:], given[PARAMS_AT_ONCE:], told[TAGS_AT_ONCE:]


def valid_name(name: str) -> str:
    """A name of a metric, param or tag that MLflow takes: the name itself where it does.

    MLflow takes letters, digits and `_-. :/`, at most 250 of them, in the form of a plain path. Any other name gets
    `_` for what it does not take, and the first digits of its own SHA-256, so that two names stay two:
    `psi/Distance (km)` is `psi/Distance _km_-9d0d33a7`.
    """
    plain = posixpath.normpath(name)
    is_path = plain == name and plain != "." and not plain.startswith(("/", ".."))
    if is_path and _NAME.fullmatch(name) and len(name) <= NAME_LENGTH:
        return name
    parts = _NOT_IN_A_NAME.sub("_", name).split("/")
    readable = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_DIGITS]
    return f"{readable[: NAME_LENGTH - 1 - _DIGEST_DIGITS]}-{digest}"


def series_run(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    """The run of an experiment that holds a series of metrics, one step a period; made when it isn't there.

    It is told from others by all of its `tags`.
    """
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment_id], wanted, max_results=1, order_by=["start_time ASC"])
    if found:
        return found[0].info.run_id
    run_id = client.create_run(experiment_id, run_name=name, tags=_tags(tags)).info.run_id
    client.set_terminated(run_id)
    return run_id


def param_text(value: Any) -> str:
    """A parameter's value as MLflow stores it: text as it is, all else as JSON, cut to MLflow's limit."""
    return _text(value)[:PARAM_LENGTH]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {valid_name(k): _text(v)[:TAG_LENGTH] for k, v in tags.items()}


def log_trials(
    client: MlflowClient,
    experiment_id: str,
    parent_run_id: str,
    trials: Sequence[Trial],
    *,
    periods: Mapping[str, str],
    tags: Mapping[str, str] | None = None,
    chosen: int | None = None,
    staged: Mapping[int, str] | None = None,
) -> list[str]:
    """One run per trial, nested below the period's run; returns their ids in order.

    Each has the trial's parameters, the periods of train, validation and test as parameters
    (`periods`), the metrics on validation as `validation_<metric>`, its own start and end, and the status
    FAILED with the error as a tag when the trial failed; what was warned of is a tag too. `chosen` is the number
    of the trial that won, `staged` maps the numbers of those whose models are registered for staging to their
    alias.
    """
    ids = []
    for trial in trials:
        start = int(trial.started.timestamp() * 1000)
        end = int((trial.started + timedelta(seconds=trial.seconds)).timestamp() * 1000)
        own = {
            **(tags or {}),
            "mlflow.parentRunId": parent_run_id,
            "candidate": trial.candidate,
            "state": trial.state,
            "stage": trial.stage,
            "chosen": trial.number == chosen,
            **({"staging": staged[trial.number]} if staged and trial.number in staged else {}),
            **({"error": trial.error} if trial.error else {}),
            **({"warnings": "; ".join(trial.warnings)} if trial.warnings else {}),
        }
        run = client.create_run(
            experiment_id,
            start_time=start,
            run_name=f"trial {trial.number} {trial.candidate}",
            tags=_tags(own),
        )
        metrics = {f"validation_{k}": v for k, v in trial.metrics.items()}
        if trial.cut is not None:
            metrics["cut"] = trial.cut
        params = {f"{role}_periods": text for role, text in periods.items()} | trial.params
        log(client, run.info.run_id, params=params, metrics=metrics, timestamp=end)
        client.set_terminated(run.info.run_id, "FAILED" if trial.state == "failed" else "FINISHED", end)
        ids.append(run.info.run_id)
    return ids


def log_data(client: MlflowClient, run_id: str, data: Sequence[TrainingData]) -> None:
    """Record where a run's rows came from: one MLflow dataset input per role, with its partitions' digests.

    The dataset's own digest covers the periods and their digests; the periods are in its source and profile.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for part in data:
        listed = json.dumps(dict(part.digests), sort_keys=True)
        dataset = Dataset(
            name=part.name,
            digest=hashlib.sha256(listed.encode()).hexdigest()[:32],
            source_type="lake",
            source=json.dumps({"uri": part.source, "periods": sorted(part.digests)}),
            profile=json.dumps({"rows": part.rows, "digests": dict(part.digests)}),
        )
        inputs.append(DatasetInput(dataset, tags=[InputTag("mlflow.data.context", part.context)]))
    client.log_inputs(run_id, inputs)
