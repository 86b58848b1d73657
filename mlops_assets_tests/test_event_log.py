"""Our event log is Dagster's own, only faster: same files and content, and who watches a run's file sees it grow."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import EventLogStorage, SqliteEventLogStorage

from mlops_assets.event_log import ENGINES_OF_RUNS, EventLog
from mlops_assets.home import Home


@dg.asset(check_specs=[dg.AssetCheckSpec("sane", asset="numbers")])
def numbers() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3}, check_results=[dg.AssetCheckResult(passed=True)])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    folder = Home.from_env().prepare_dagster()
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as found:
        yield found


def log_of(instance: dg.DagsterInstance) -> EventLog:
    storage = instance.event_log_storage
    assert isinstance(storage, EventLog), "a new home's dagster.yaml names another storage"
    return storage


def types(storage: EventLogStorage, run_id: str) -> list[str]:
    entries = [record.event_log_entry for record in storage.get_records_for_run(run_id).records]
    return [entry.get_dagster_event().event_type_value for entry in entries if entry.is_dagster_event]


def test_dagsters_own_storage_reads_what_was_written_and_the_other_way_round(
    home: Path, instance: dg.DagsterInstance
) -> None:
    storage = log_of(instance)
    ours = dg.materialize([numbers], instance=instance).run_id
    told = [record.event_log_entry for record in storage.get_records_for_run(ours).records]

    config = yaml.safe_load((home / "dagster.yaml").read_text())
    del config["event_log_storage"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.get() as plain:
        assert type(plain.event_log_storage) is SqliteEventLogStorage
        assert [record.event_log_entry for record in plain.event_log_storage.get_records_for_run(ours).records] == told
        theirs = dg.materialize([numbers], instance=plain).run_id
        assert Counter(types(plain.event_log_storage, theirs)) == Counter(types(storage, ours))
    newest = instance.get_latest_materialization_event(dg.AssetKey("numbers"))
    assert newest is not None
    assert newest.run_id == theirs


def test_a_runs_file_changes_with_every_event_for_the_pages_that_follow_it(instance: dg.DagsterInstance) -> None:
    storage = log_of(instance)
    run = instance.create_run_for_job(
        dg.define_asset_job("all").resolve(asset_graph=dg.Definitions([numbers]).resolve_asset_graph())
    )
    path = Path(storage.path_for_shard(run.run_id))
    seen = []
    for number in range(3):
        instance.report_engine_event(f"event {number}", run)
        seen.append(path.read_bytes())
        assert f"event {number}".encode() in seen[-1], "the event is still in the journal"
    assert len(set(seen)) == 3


def test_who_follows_a_run_sees_each_event_while_the_run_goes_on(home: Path, instance: dg.DagsterInstance) -> None:
    seen: set[str] = set()
    step_seen = threading.Event()

    def follow(entry: EventLogEntry, _cursor: str) -> None:
        if entry.is_dagster_event:
            seen.add(entry.get_dagster_event().event_type_value)
        if "STEP_START" in seen:
            step_seen.set()

    @dg.asset
    def page_opened(context) -> None:  # type: ignore[no-untyped-def]
        page.watch(context.run_id, None, follow)

    @dg.asset(deps=[page_opened])
    def next_step() -> None:
        assert step_seen.wait(60), f"seen so far: {sorted(seen)}"

    # A page is another process, with a storage of its own; Dagster's own here.
    page = SqliteEventLogStorage(str(home / "history" / "runs"))
    try:
        assert dg.materialize([page_opened, next_step], instance=instance).success
    finally:
        page.dispose()


def test_a_killed_process_leaves_all_events_that_it_had_stored(home: Path, instance: dg.DagsterInstance) -> None:
    program = """
import os
import dagster as dg

@dg.asset
def unlucky(context: dg.AssetExecutionContext) -> None:
    context.log.info("the last words")
    os.kill(os.getpid(), 9)

with dg.DagsterInstance.get() as instance:
    print(os.getpid(), flush=True)
    dg.materialize([unlucky], instance=instance)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -9, ended.stderr
    (run,) = instance.get_runs()
    told = [record.event_log_entry for record in log_of(instance).get_records_for_run(run.run_id).records]
    assert told[-1].user_message == "the last words"
    instance.report_run_failed(run)
    assert types(log_of(instance), run.run_id)[-1] == "PIPELINE_FAILURE"


def test_a_finished_run_is_one_whole_file_and_a_wiped_home_can_be_used_again(instance: dg.DagsterInstance) -> None:
    storage = log_of(instance)
    run_id = dg.materialize([numbers], instance=instance).run_id
    path = Path(storage.path_for_shard(run_id))
    assert [found.name for found in path.parent.glob(f"{run_id}*")] == [path.name], "a journal was left beside it"
    instance.wipe()
    assert not path.exists()
    again = dg.materialize([numbers], instance=instance).run_id
    assert "PIPELINE_SUCCESS" in types(storage, again)


def test_what_a_run_is_going_to_do_is_stored_as_a_whole_or_one_by_one(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, store = log_of(instance), EventLog.store_event
    batched: list[int] = []

    def second_fails(self: EventLog, event: EventLogEntry) -> None:
        batched.append(1)
        if len(batched) == 2:
            raise OSError("no space left on device")
        store(self, event)

    monkeypatch.setattr(EventLog, "store_event", second_fails)
    run_id = dg.materialize([numbers], instance=instance).run_id
    planned = [name for name in types(storage, run_id) if name.endswith("PLANNED")]
    assert sorted(planned) == ["ASSET_CHECK_EVALUATION_PLANNED", "ASSET_MATERIALIZATION_PLANNED"], "one of them twice"
    with storage.index_connection() as connection:
        mirrored = connection.exec_driver_sql(
            "SELECT dagster_event_type, count(*) FROM event_logs WHERE dagster_event_type LIKE '%PLANNED' GROUP BY 1"
        ).fetchall()
    assert sorted(mirrored) == [("ASSET_CHECK_EVALUATION_PLANNED", 1), ("ASSET_MATERIALIZATION_PLANNED", 1)]


def test_threads_share_it_and_what_it_keeps_open_is_bounded(instance: dg.DagsterInstance) -> None:
    storage = log_of(instance)
    definitions = dg.Definitions([numbers], jobs=[dg.define_asset_job("all")])
    runs = [instance.create_run_for_job(definitions.resolve_job_def("all")) for _ in range(ENGINES_OF_RUNS + 4)]

    def work() -> None:
        for run in runs:
            instance.report_engine_event("from a thread", run)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for run in runs:
        told = [record.event_log_entry.message for record in storage.get_records_for_run(run.run_id).records]
        assert told.count("from a thread") == 3
    assert len(storage._engines) <= ENGINES_OF_RUNS
