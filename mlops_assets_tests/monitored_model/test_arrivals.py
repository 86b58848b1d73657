"""Which periods a file of all periods brings: whole, damaged, repaired, on this machine and far away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import fsspec
import pytest

from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.arrivals import arrivals, missing_periods
from mlops_assets.monitored_model.outcome import Check, table
from mlops_assets.monitored_model.reconciling import opened_periods, period_runs
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04"]
BAD_DATE = "15/01/2021,10,1,1,2"
LOOKS_BACK = f"{tiny_model.SQL} AND started_at >= period_start()"


def spec(path: str = "rides.csv", **changes: Any) -> ModelSpec:
    return tiny_model.spec(**({"source": {**tiny_model.SPEC["source"], "path": path}} | changes))


def csv(rides: dict[str, int], *lines: str) -> bytes:
    """A file with so many rides in each month, and with further lines."""
    rows = [f"{month}-{1 + n % 28:02d} 10:00:00,{10 + n},1,1,2" for month, many in rides.items() for n in range(many)]
    return "\n".join(["started_at,fare,fee,zone,payment", *rows, *lines, ""]).encode()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    return tmp_path / "data" / "rides.csv"


@pytest.fixture
def bench(tmp_path: Path, file: Path) -> Iterator[Workbench]:
    with duckdb.connect() as con:
        home = Home(tmp_path / "home")
        yield Workbench(
            spec=spec(),
            sql=tiny_model.SQL,
            home=home,
            lake=Lake(home.lake_url),
            con=con,
            store=Store(home.store_url),
            data_dir=file.parent,
        )


def made(bench: Workbench, *months: str) -> dict[str, Check]:
    """The checks of the last of the months."""
    outcomes = [raw_step.make(bench, month) for month in months]
    return {check.name: check for check in outcomes[-1].checks}


def found(bench: Workbench, seen: dict[str, str], months: list[str] = MONTHS) -> list[str]:
    return [arrival.period for arrival in arrivals(bench.spec, bench.lake, months, seen)]


# -- rows that are in no period


def test_many_unreadable_times_fail_every_month_until_the_file_is_repaired(bench: Workbench, file: Path) -> None:
    file.write_bytes(csv({"2021-01": 70, "2021-02": 70}, *[BAD_DATE] * 60))
    for month in MONTHS[:2]:
        checks = made(bench, month)
        schema, in_period = checks["source_schema"], checks["in_period"]
        assert (schema.passed, schema.severity) == (False, "ERROR")
        assert "started_at: found values like '15/01/2021' (60 rows), expected values that fit TIMESTAMP" in (
            schema.description
        )
        assert "Correct the source" in schema.description
        assert (in_period.passed, in_period.severity) == (False, "WARN")
        assert in_period.description.startswith("60 of the file's 200 rows (30.00%) have no started_at")
        failure = bench.partition("raw_rides", month).facts["quality_failure"]
        assert failure == f"quarantined: source_schema: {schema.description}"
    seen: dict[str, str] = {}
    assert found(bench, seen) == []
    # The rows of February are what they were before; only those of no month were repaired.
    file.write_bytes(csv({"2021-01": 130, "2021-02": 70}))
    assert found(bench, seen) == ["2021-01", "2021-02"]
    assert all(check.passed for check in made(bench, *MONTHS[:2]).values())
    assert found(bench, seen) == []


def test_a_handful_of_unreadable_times_warns(bench: Workbench, file: Path) -> None:
    file.write_bytes(csv({"2021-01": 1500, "2021-02": 600}, BAD_DATE))
    schema = made(bench, "2021-02")["source_schema"]
    assert (schema.passed, schema.severity) == (False, "WARN")
    assert "15/01/2021" in schema.description
    assert bench.partition("raw_rides", "2021-02").facts["quality_failure"] is None
    file.write_bytes(csv({"2021-01": 1500, "2021-02": 600}, *[BAD_DATE] * 3))
    assert made(bench, "2021-02")["source_schema"].severity == "ERROR", "3 of 2,103 are more than the tolerance"


@pytest.mark.parametrize(
    ("empty", "passed", "severity"),
    [(0, True, "WARN"), (1, True, "WARN"), (100, False, "WARN"), (3000, False, "ERROR")],
)
def test_rows_without_a_time_are_judged_as_in_a_months_own_file(
    bench: Workbench, file: Path, empty: int, passed: bool, severity: str
) -> None:
    file.write_bytes(csv({"2021-01": 1100}, *[",10,1,1,2"] * empty))
    checks = made(bench, "2021-01")
    assert checks["source_schema"].passed
    assert (checks["in_period"].passed, checks["in_period"].severity) == (passed, severity)
    assert (f"{empty:,} of the file's" if empty else "All 1,100 rows") in checks["in_period"].description


# -- a file that can't be read


@pytest.mark.parametrize("line", [BAD_DATE, "2021-02-01,twelve,1,1,2", ",1,1,1,2"])
def test_a_bad_cell_hides_no_new_month(bench: Workbench, file: Path, line: str) -> None:
    file.write_bytes(csv({"2021-01": 50}))
    made(bench, "2021-01")
    file.write_bytes(csv({"2021-01": 50, "2021-02": 50}, line))
    assert found(bench, {}) == ["2021-02"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        csv({"2021-01": 50, "2021-02": 50}, *["2021-02-01,1,1,1,2,too,many"] * 2),
        csv({"2021-01": 50, "2021-02": 50}).replace(b"started_at", b"began_at"),
        csv({"2021-01": 50, "2021-02": 50}, *["2021-02-01,1,Café,1,2"] * 2).decode().encode("latin-1"),
    ],
)
def test_an_unreadable_file_is_said_by_one_run_and_its_repair_is_noticed(
    bench: Workbench, file: Path, content: bytes
) -> None:
    file.write_bytes(csv({"2021-01": 50}))
    made(bench, "2021-01")
    seen: dict[str, str] = {}
    assert found(bench, seen) == []
    file.write_bytes(content)
    assert found(bench, seen) == found(bench, seen) == ["2021-02"], "it is not remembered as looked at"
    assert not made(bench, "2021-02")["source_schema"].passed
    assert found(bench, seen) == [], "the months after it are not spoilt one by one"
    file.write_bytes(csv({"2021-01": 50, "2021-02": 50}))
    assert found(bench, seen) == ["2021-02"]


def test_without_a_next_month_the_newest_says_that_the_file_is_unreadable(bench: Workbench, file: Path) -> None:
    file.write_bytes(csv({"2021-01": 50, "2021-02": 50}))
    made(bench, "2021-01", "2021-02")
    file.write_bytes(b"")
    seen: dict[str, str] = {}
    assert found(bench, seen, MONTHS[:2]) == ["2021-02"]
    made(bench, "2021-02")
    assert found(bench, seen, MONTHS[:2]) == []
    assert seen


# -- rows that are missing


def test_months_that_wait_to_be_made_are_no_outage_and_those_without_rows_are(bench: Workbench, file: Path) -> None:
    def missing(seen: dict[str, str]) -> list[str]:
        arrived = arrivals(bench.spec, bench.lake, MONTHS, seen)
        return missing_periods(bench.spec, bench.lake, bench.store, MONTHS, datetime(2021, 8, 1), arrived)

    file.write_bytes(csv(dict.fromkeys(MONTHS, 50)))
    made(bench, "2021-01")
    assert missing({}) == []
    assert bench.store.incidents() == []
    file.write_bytes(csv({"2021-01": 50, "2021-02": 50, "2021-04": 50}))
    assert missing({}) == ["2021-03"]
    (incident,) = bench.store.incidents()
    assert (incident.period, incident.kind) == ("2021-03", "outage")
    assert incident.reasons == [{"sentence": "rides.csv: no rows of 2021-03 have arrived 10 days after its end"}]
    made(bench, "2021-02", "2021-04")
    seen: dict[str, str] = {}
    assert missing(seen) == missing(seen) == ["2021-03"], "also when the file is not looked at again"


# -- a file far away


@pytest.fixture
def far(bench: Workbench, tmp_path: Path) -> Iterator[tuple[Workbench, Any]]:
    """A workbench whose source is far away, and what puts a content there."""
    place = f"/{tmp_path.name}/rides.csv"
    remote = fsspec.filesystem("memory")
    yield (
        replace(bench, spec=spec(f"memory:/{place}")),
        lambda content: remote.pipe_file(place, content),
    )
    remote.rm(place)


def test_all_new_months_of_a_remote_file_are_made_one_after_the_other(far: tuple[Workbench, Any]) -> None:
    bench, put = far
    put(csv({"2021-01": 50}))
    made(bench, "2021-01")
    seen: dict[str, str] = {}
    assert found(bench, seen, MONTHS[:1]) == []
    put(csv(dict.fromkeys(MONTHS, 50)))
    for n in range(1, 4):
        assert found(bench, seen) == found(bench, seen) == MONTHS[n:], "also when no run was started"
        made(bench, MONTHS[n])
    assert found(bench, seen) == []
    assert seen


def test_a_month_that_a_remote_file_had_no_good_rows_of_is_looked_at_again(far: tuple[Workbench, Any]) -> None:
    bench, put = far
    put(csv({"2021-01": 50, "2021-03": 50}, *["2021-03-01,ten,1,1,2"] * 9))
    made(bench, *MONTHS[:3])
    put(csv(dict.fromkeys(MONTHS[:3], 50)))
    seen: dict[str, str] = {}
    assert found(bench, seen, MONTHS[:3]) == ["2021-02", "2021-03"]
    made(bench, "2021-02", "2021-03")
    assert found(bench, seen, MONTHS[:3]) == []


def test_an_opened_month_of_a_remote_file_is_completed(far: tuple[Workbench, Any]) -> None:
    bench, put = far
    target = {"column": "is_cash", "required": False}
    bench = replace(bench, spec=spec(bench.spec.source.path, lead=1, target=target))
    planned = csv({"2021-01": 50, "2021-02": 50}).decode().splitlines()
    unknown = [line[:-1] if line.startswith("2021-02") else line for line in planned]
    put("\n".join(unknown).encode())
    for month in MONTHS[:2]:
        made(bench, month)
        features_step.make(bench, month)
    assert [bench.partition("features", month).facts["outcomes"] for month in MONTHS[:2]] == [50, 0]
    put("\n".join(planned).encode())
    seen: dict[str, str] = {}
    assert found(bench, seen, MONTHS[:2]) == ["2021-02"]
    made(bench, "2021-02")
    features_step.make(bench, "2021-02")
    assert found(bench, seen, MONTHS[:2]) == []


# -- a month that is opened


def test_a_month_is_opened_when_the_outcomes_it_looks_back_at_are_known(bench: Workbench, file: Path) -> None:
    def state(month: str) -> tuple[str | None, bool | None]:
        features = bench.partition("features", month)
        return features.reason, features.facts.get("opened")

    def due() -> list[str]:
        with dg.DagsterInstance.ephemeral() as instance:
            arrived = arrivals(bench.spec, bench.lake, MONTHS[:3], {})
            return [run.period for run in period_runs(bench.spec, bench.lake, bench.store, instance, arrived).runs]

    def write(known: int) -> None:
        lines = csv(dict.fromkeys(MONTHS[:3], 50)).decode().splitlines()
        unknown = tuple(MONTHS[known:3])
        file.write_text("\n".join(line[:-1] if line.startswith(unknown) else line for line in lines))

    target = {"column": "is_cash", "required": False}
    bench = replace(bench, spec=spec(lead=1, history=2, target=target), sql=LOOKS_BACK)
    write(known=1)
    for month in MONTHS[:3]:
        made(bench, month)
        outcome = features_step.make(bench, month)
    assert [state(month)[1] for month in MONTHS[:2]] == [False, True]
    waits = "no data: the outcomes of 2021-02 are not known yet, and features look back at them; 2021-03 is opened when"
    assert str(state("2021-03")[0]).startswith(waits)
    (incident,) = bench.store.incidents()
    assert (incident.period, incident.kind, incident.state) == ("2021-03", "outage", "open")
    assert due() == []
    assert opened_periods(bench.spec, bench.lake, datetime(2021, 4, 1)) == MONTHS[1:3]

    write(known=2)
    assert due() == ["2021-02"]
    made(bench, "2021-02")
    features_step.make(bench, "2021-02")
    assert due() == ["2021-03"]
    outcome = features_step.make(bench, "2021-03")
    assert state("2021-03") == (None, True)
    assert {check.name: check.passed for check in outcome.checks}["completeness"]
    assert bench.store.incident(incident.id).state == "resolved"
    assert due() == []


def test_a_month_with_outcomes_does_not_wait_for_one_whose_outcomes_never_came(bench: Workbench, file: Path) -> None:
    lines = csv(dict.fromkeys(MONTHS[:3], 50)).decode().splitlines()
    file.write_text("\n".join(line[:-1] if line.startswith("2021-02") else line for line in lines))
    target = {"column": "is_cash", "required": False}
    bench = replace(bench, spec=spec(lead=1, history=2, target=target), sql=LOOKS_BACK)
    for month in MONTHS[:3]:
        made(bench, month)
        outcome = features_step.make(bench, month)
    assert bench.partition("features", "2021-03").rows == 50
    completeness = {check.name: check for check in outcome.checks}["completeness"]
    assert not completeness.passed
    assert completeness.metadata["history_left_out"] == table(
        [{"period": "2021-02", "reason": "its outcomes are not known"}]
    )


# -- a source that is gone


@pytest.mark.parametrize("bad", [0, 30])
def test_kept_rows_stay_as_they_were_judged(bench: Workbench, file: Path, bad: int) -> None:
    file.write_bytes(csv({"2021-01": 70}, *[BAD_DATE] * bad))
    made(bench, "2021-01")
    failure = bench.partition("raw_rides", "2021-01").facts["quality_failure"]
    file.unlink()
    volume = made(bench, "2021-01")["volume"]
    assert "70 rows ingested earlier are kept" in volume.description
    assert (volume.passed, failure is None) == (bad == 0, bad == 0)
    if bad:
        assert volume.severity == "ERROR"
        assert failure in volume.description
