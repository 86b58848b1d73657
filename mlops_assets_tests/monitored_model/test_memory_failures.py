"""A month that does not fit into memory is a failed run with an incident, never silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.memory import advice, is_out_of_memory
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03"]


def run(home: Path, data: Path, *arguments: str, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Backfill periods of the tiny model by a process of its own, after `code`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    environment = {**inherited, "MLOPS_HOME": str(home), "MLOPS_DATA_DIR": str(data), **variables}
    script = f"{code}\nfrom mlops_assets_tests.rides_graph import main\nraise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_a_month_beyond_the_memory_limit_of_the_database_fails_with_an_incident_that_closes_when_it_is_made(
    tmp_path: Path,
) -> None:
    data, home = tmp_path / "data", Home(tmp_path / "home")
    tiny_model.write_rides(data, ["2021-01"], rows=20_000)
    failed = run(home.root, data, "2021-01", MLOPS_DUCKDB_MEMORY="1MB")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    (incident,) = Store(home.store_url).incidents("rides", "open")
    assert (incident.kind, incident.period, incident.verdict) == ("period_failed", "2021-01", "out of memory")
    sentence = incident.reasons[0]["sentence"]
    assert "\n" not in sentence
    assert "raise MLOPS_DUCKDB_MEMORY (now 1MB)" in sentence.replace("Raise", "raise")
    assert sentence in failed.stdout
    made = run(home.root, data, "2021-01")
    assert made.returncode == 0, made.stdout + made.stderr
    (closed,) = Store(home.store_url).incidents("rides")
    assert (closed.state, closed.resolved_why) == ("resolved", "the period has been made")


def test_a_process_without_memory_for_a_fit_fails_with_an_incident(tmp_path: Path) -> None:
    data, home = tmp_path / "data", Home(tmp_path / "home")
    tiny_model.write_rides(data, MONTHS)
    # The estimator asks for more than the process may have.
    code = (
        "import resource, numpy\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "fit = LogisticRegression.fit\n"
        "def greedy(self, *arguments, **named):\n"
        "    limit = resource.getrlimit(resource.RLIMIT_AS)\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, limit[1]))\n"
        "    try:\n"
        "        numpy.ones(2**30)\n"
        "    finally:\n"
        "        resource.setrlimit(resource.RLIMIT_AS, limit)\n"
        "LogisticRegression.fit = greedy"
    )
    failed = run(home.root, data, *MONTHS, code=code)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    (incident,) = Store(home.store_url).incidents("rides", "open")
    assert (incident.kind, incident.period) == ("period_failed", "2021-03")
    assert "challenger of 2021-03 ran out of memory" in incident.reasons[0]["sentence"]
    assert "ower max_rows in defs.yaml (now 1,000,000)" in incident.reasons[0]["sentence"]
    # Nothing was chosen in place of what could not be fitted.
    assert not (home.root / "lake" / "rides" / "challenger" / "period=2021-03").exists()


def test_a_process_that_the_system_kills_is_an_incident_until_its_period_is_made(tmp_path: Path) -> None:
    data, home = tmp_path / "data", Home(tmp_path / "home")
    tiny_model.write_rides(data, MONTHS[:2])
    killed = run(home.root, data, "2021-01", "--killed-in", "profile")
    assert killed.returncode == -signal.SIGKILL
    run(home.root, data, "2021-02")  # whatever runs next notices it
    (incident,) = Store(home.store_url).incidents("rides", "open")
    assert (incident.kind, incident.period, incident.verdict) == ("period_failed", "2021-01", "killed")
    assert "lower max_rows in defs.yaml or MLOPS_DUCKDB_MEMORY" in incident.reasons[0]["sentence"]
    made = run(home.root, data, "2021-01")
    assert made.returncode == 0, made.stdout + made.stderr
    assert not Store(home.store_url).incidents("rides", "open")


def test_a_trial_without_memory_ends_the_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from mlops_assets.monitored_model.steps import challenger

    def fit(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 8.00 GiB for an array")

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    another = {"estimator": "sklearn.naive_bayes.GaussianNB"}
    spec = tiny_model.spec(candidates=[*tiny_model.SPEC["candidates"], another], trials=2)
    with tiny_model.ingested(tmp_path, spec, MONTHS) as bench, pytest.raises(MemoryError, match=r"8\.00 GiB"):
        challenger.make(bench, MONTHS[-1])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (duckdb.OutOfMemoryException("could not allocate block"), True),
        (RuntimeError("XGBoostError: std::bad_alloc"), True),
        (ValueError("a column is missing"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors_also_as_a_cause(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
    outer = RuntimeError("the step failed")
    outer.__cause__ = error
    assert is_out_of_memory(outer) is expected


def test_advice_names_the_setting_of_the_part_that_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_DUCKDB_MEMORY", "256MB")
    assert "raise MLOPS_DUCKDB_MEMORY (now 256MB)" in advice(duckdb.OutOfMemoryException("no"), 1_000)
    assert "lower max_rows in defs.yaml (now 1,000)" in advice(MemoryError(), 1_000)
