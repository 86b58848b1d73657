"""Where the project keeps what it makes, and where it reads sources from.

Every path and address that a deployment may change is read here, from environment variables, at the moment of use
(never at import), so that tests, the command line and Dagster's processes agree.

MLOPS_HOME           everything generated: lake, MLflow, Dagster's home, reports; default `.mlops/` in the project
MLOPS_DATA_DIR       where sources with a relative path are read; default `data/` in the project
MLOPS_LAKE_URL       the lake, any folder or fsspec URL; default `$MLOPS_HOME/lake`
MLOPS_STORE_URL      incidents, accepts, alerts, leases; default SQLite `$MLOPS_HOME/store.db`, or a PostgreSQL URL
MLOPS_ALERT_URLS     where alerts go, Apprise URLs; none by default
MLOPS_SENSOR_SECONDS how often the sensors look, in seconds; default 10. Pauses before another attempt and the silence
                     after which a run counts as dead are multiples of it
MLFLOW_TRACKING_URI  MLflow's tracking store and registry; default `sqlite:///$MLOPS_HOME/mlflow/mlflow.db`
MLOPS_DAGSTER_URL, MLOPS_MLFLOW_URL, MLOPS_EVIDENTLY_URL, MLOPS_REPORTS_URL
                     where links on pages lead to; default: the ports of `mlops-assets dev` on this machine
MLOPS_ALLOWED_HOSTS  further names that the servers of `mlops-assets dev` answer to, separated by commas
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

DAGSTER_YAML = """\
# Written by mlops_assets when this folder has no dagster.yaml; edit it as you like, it is not overwritten.
telemetry:
  enabled: false
nux:
  enabled: false
# Dagster's SQLite log, faster; on a shared database take Dagster's PostgreSQL storage instead.
event_log_storage:
  module: mlops_assets.event_log
  class: EventLog
concurrency:
  runs:
    max_concurrent_runs: 4
    tag_concurrency_limits:
      # One run per model at a time: the periods of a backfill run in order.
      - key: mlops/model
        limit: 1
        value:
          applyLimitPerUniqueValue: true
run_queue:
  dequeue_interval_seconds: 1
  dequeue_use_threads: true
"""


# What no path of a home may hold, and who can't do with it.
UNUSABLE = {
    "%": "Dagster's and MLflow's SQLite addresses take it for the beginning of an escape",
    "?": "Dagster's and MLflow's SQLite addresses take it for the beginning of parameters",
    "*": "Evidently takes it for a pattern",
    "\\": "DuckDB takes it for a separator",
    "::": "fsspec takes it for a chain of file systems",
}


class UnusablePath(ValueError):
    """A folder whose name the libraries that this platform is made of can't deal with."""


def checked(path: Path, variable: str, unusable: Mapping[str, str] = UNUSABLE) -> Path:
    """The path itself. Raises UnusablePath when it holds what some library gives a meaning to."""
    text = str(path)
    for part, why in unusable.items():
        if part in text:
            raise UnusablePath(f"{variable} is {text!r}, which has {part!r}: {why}. Choose a folder without it")
    if not text.isprintable():
        raise UnusablePath(f"{variable} is {text!r}; expected a folder whose name has printable characters only")
    return path


@dataclass(frozen=True)
class Home:
    """The folder `MLOPS_HOME` and the places in it. Creating the object touches nothing on disk."""

    root: Path

    @classmethod
    def from_env(cls) -> Home:
        """The home that the environment names, by default `.mlops/` below the project. Raises UnusablePath."""
        root = Path(os.environ.get("MLOPS_HOME") or PROJECT / ".mlops").expanduser().resolve()
        return cls(checked(root, "MLOPS_HOME"))

    @property
    def lake_url(self) -> str:
        return os.environ.get("MLOPS_LAKE_URL") or str(self.root / "lake")

    @property
    def store_url(self) -> str:
        return os.environ.get("MLOPS_STORE_URL") or f"sqlite:///{self.root / 'store.db'}"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def tracking_uri(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.mlflow / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        return self.mlflow / "artifacts"

    @property
    def studies(self) -> Path:
        return self.root / "optuna"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def evidently(self) -> Path:
        return self.root / "evidently"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def dagster(self) -> Path:
        """Dagster's home: `DAGSTER_HOME` where it is set, else a folder of ours. Raises UnusablePath."""
        given = os.environ.get("DAGSTER_HOME")
        return checked(Path(given).expanduser(), "DAGSTER_HOME") if given else self.root / "dagster"

    def prepare_dagster(self) -> Path:
        """Create Dagster's home with a dagster.yaml if it has none, and point `DAGSTER_HOME` at it.

        Returns the folder. The file gives each model one run at a time, and keeps telemetry off.
        """
        from mlops_assets.ownership import claim

        claim(self)
        self.dagster.mkdir(parents=True, exist_ok=True)
        config = self.dagster / "dagster.yaml"
        if not config.exists():
            temporary = config.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(DAGSTER_YAML)
            temporary.replace(config)
        os.environ["DAGSTER_HOME"] = str(self.dagster)
        return self.dagster


def sensor_seconds() -> int:
    """How often the sensors look: `MLOPS_SENSOR_SECONDS`, by default 10."""
    text = os.environ.get("MLOPS_SENSOR_SECONDS") or "10"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"MLOPS_SENSOR_SECONDS is {text!r}; expected a whole number of seconds, at least 1")
    return int(text)


def data_dir() -> Path:
    """The folder that relative source paths start from: `MLOPS_DATA_DIR`, by default the shipped `data/`.

    Raises UnusablePath.
    """
    folder = Path(os.environ.get("MLOPS_DATA_DIR") or PROJECT / "data").expanduser().resolve()
    return checked(folder, "MLOPS_DATA_DIR", {"\\": UNUSABLE["\\"]})


@dataclass(frozen=True)
class Addresses:
    """The web addresses that links in metadata lead to; `mlops-assets dev` serves them."""

    dagster: str
    mlflow: str
    evidently: str
    reports: str

    @classmethod
    def from_env(cls) -> Addresses:
        return cls(
            dagster=os.environ.get("MLOPS_DAGSTER_URL", "http://127.0.0.1:3000").rstrip("/"),
            mlflow=os.environ.get("MLOPS_MLFLOW_URL", "http://127.0.0.1:5000").rstrip("/"),
            evidently=os.environ.get("MLOPS_EVIDENTLY_URL", "http://127.0.0.1:8000").rstrip("/"),
            reports=os.environ.get("MLOPS_REPORTS_URL", "http://127.0.0.1:8001").rstrip("/"),
        )
