"""kill -9 of commands at random points, hand-made decisions included: run again, everything ends as if undisturbed."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.gates import period_gate
from mlops_assets.monitored_model.jobs import KIND_TAG, PERIOD_KIND
from mlops_assets.monitored_model.reconciling import FINISHED_STATUSES, difference
from mlops_assets.monitored_model.runs import run_outcome
from mlops_assets.training import tracking
from mlops_assets_tests import tiny_model
from mlops_assets_tests.end_to_end import commands
from mlops_assets_tests.end_to_end.automation import COMPARED, instance_of, state

# `make test-chaos` makes them all; a machine with less time asks for fewer.
KILLS = int(os.environ.get("MLOPS_CHAOS_KILLS") or 200)
KILLS_OF_A_STEP = 10
# Runs that fail four times in a row are given up, as they should be: what has failed so often is left in peace.
FAILURES_IN_A_ROW = 2
# What was asked for again after so many tries, and so much time, is not a matter of a busy machine any more.
TRIES_TO_FINISH, SECONDS_TO_FINISH = 12, 120
BREAK = date(2021, 4, 11)
MONTHS = [f"2021-{month:02}" for month in range(1, 8)]
TURNED, AGAIN = "2021-04", "2021-07"
WHO = ("--by", "ann", "--why", "a test")
# {digest:P} is the digest of the drift report of P, {version:N} the number of the Nth version that was registered.
STORY: tuple[tuple[str, ...], ...] = (
    ("backfill", "rides", "2021-01"),
    ("backfill", "rides", "2021-02"),
    ("backfill", "rides", "2021-03"),
    ("backfill", "rides", TURNED),
    ("incidents", "accept", "rides", TURNED, "--digest", f"{{digest:{TURNED}}}", *WHO),
    ("incidents", "withdraw", "rides", TURNED, *WHO),
    ("backfill", "rides", "2021-05"),
    ("champion", "rollback", "rides", *WHO),
    ("champion", "promote", "rides", "{newest}", *WHO),
    ("backfill", "rides", "2021-06"),
    ("champion", "rollback", "rides", "--to", "1", *WHO),
    ("champion", "promote", "rides", "{newest}", *WHO),
    ("retrain", "rides", *WHO),
    ("backfill", "rides", AGAIN),
    ("incidents", "accept", "rides", AGAIN, "--digest", f"{{digest:{AGAIN}}}", *WHO),
)


@dataclass
class Platform:
    """A home and the commands that are run on it."""

    root: Path
    data: Path
    seconds: dict[int, float] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    @property
    def lake(self) -> Lake:
        return Lake(self.root / "home" / "lake")

    @property
    def store(self) -> Store:
        return Store(f"sqlite:///{self.root / 'home' / 'store.db'}")

    def run(self, step: Sequence[str], *, kill_after: float | None = None) -> commands.Ended:
        environment = {
            "MLOPS_HOME": str(self.home.root),
            "MLOPS_DATA_DIR": str(self.data),
            "DAGSTER_HOME": str(self.home.root / "dagster"),
            "MLOPS_SENSOR_SECONDS": "1",
            "MLOPS_ALERT_URLS": "",
        }
        return commands.run(self.resolved(step), environment, self.root / "command.log", kill_after=kill_after)

    def resolved(self, step: Sequence[str]) -> list[str]:
        """The command with the digests and versions of this home in it."""
        return [self._resolved(word) for word in step]

    def _resolved(self, word: str) -> str:
        if word.startswith("{digest:"):
            return str(self.lake.partition("rides", "drift_report", word[8:-1]).facts["report_digest"])[:16]
        if word == "{newest}":
            found = [self.lake.partition("rides", "challenger", p) for p in self.lake.periods("rides", "challenger")]
            return max((str(made.facts["version"]) for made in found if made.rows), key=int)
        return word

    def contents(self) -> set[tuple[str, str, str]]:
        """What there is, as table, period and digest."""
        return {
            (table, period, self.lake.partition("rides", table, period).digest)
            for table in COMPARED
            for period in self.lake.periods("rides", table)
        }

    def is_settled(self) -> bool:
        """Whether each period is served as its gate says."""
        spec, lake, store = tiny_model.spec(), self.lake, self.store
        periods = lake.periods("rides", "drift_report")
        return all(difference(spec, lake, p, period_gate(spec, lake, store, p)) is None for p in periods)

    def aliases(self) -> dict[str, str]:
        client = tracking.client(self.home.tracking_uri)
        return {name: str(version) for name, version in client.get_registered_model("rides").aliases.items()}

    def tired(self) -> set[str]:
        """The periods whose newest runs, of those that the platform started by itself, have failed too often."""
        ended: dict[tuple[str, str], list[bool]] = {}
        if not (self.home.root / "dagster" / "dagster.yaml").is_file():
            return set()  # the first command was killed before it had prepared the home, or has yet to come
        with instance_of(self.home) as instance:
            for run in instance.get_runs(dg.RunsFilter(statuses=FINISHED_STATUSES)):
                if run.tags.get(KIND_TAG) != PERIOD_KIND:
                    failed = run_outcome(instance, run.run_id) == "failed"
                    ended.setdefault((run.job_name, run.tags["dagster/partition"]), []).append(failed)
        return {period for (_, period), runs in ended.items() if [*runs, False].index(False) >= FAILURES_IN_A_ROW}

    def is_retrained(self) -> bool:
        """Whether a person has asked for a training, and a run has done it."""
        return any(cause.kind == "person" and cause.consumed_by for cause in self.store.causes("rides"))

    def finish(self, step: Sequence[str]) -> None:
        """Run a step, again while what it made due waits for its next attempt, until everything is served.

        A retraining that was done before its command could report it is not asked for again: that would be another.
        """
        deadline, tries = time.monotonic() + SECONDS_TO_FINISH, 0
        retrains = step[0] == "retrain"
        if retrains and self.is_retrained():
            step = ("backfill", "rides", self.lake.periods("rides", "raw_rides")[-1])
        while True:
            ended, tries = self.run(step), tries + 1
            if ended.status == 0 or "already" in ended.output:
                # A retraining that still waits would be done by the next period, and not by this one.
                if self.is_settled() and (not retrains or self.is_retrained()):
                    return
                step = ("backfill", "rides", self.lake.periods("rides", "raw_rides")[-1])
            in_time = time.monotonic() < deadline or tries < TRIES_TO_FINISH
            assert in_time, f"{step} ends with {ended.status} for the {tries}th time: {ended.output[-3000:]}"
            time.sleep(1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    tiny_model.write_rides(folder, MONTHS[:3])
    tiny_model.write_rides(folder, MONTHS[3:6], since=BREAK)
    rides = tiny_model.rides(AGAIN)
    fees = pa.array([40.0 if number % 5 else 5.0 for number in range(rides.num_rows)])
    rides = rides.set_column(rides.schema.get_field_index("fee"), "fee", fees)
    pq.write_table(rides, folder / "rides" / f"{AGAIN}.parquet")
    return folder


def platform(root: Path, data: Path) -> Platform:
    (root / "home").mkdir(parents=True)
    return Platform(root, data)


@pytest.mark.chaos
def test_commands_killed_at_random_points_end_as_if_undisturbed(data: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("MLOPS_CHAOS_SEED") or time.time())
    chance = random.Random(seed)
    reference = platform(tmp_path / "reference", data)
    known: set[tuple[str, str, str]] = set()
    took: dict[tuple[str, ...], float] = {}
    for step in STORY:
        began = time.monotonic()
        ended = reference.run(step)
        took[step] = time.monotonic() - began
        assert ended.status == 0, f"{step}: {ended.output[-3000:]}"
        known |= reference.contents()
    # A severe month is withheld, with no rows, until plan B has served it; no step of the reference ends there.
    nothing = reference.lake.partition("rides", "served_predictions", MONTHS[0])
    assert nothing.rows == 0
    known |= {("served_predictions", severe, nothing.digest) for severe in (TURNED, AGAIN)}

    tried = platform(tmp_path / "tried", data)
    killed: Counter[str] = Counter()
    for step in STORY:
        _kill_and_finish(tried, step, took[step], chance, killed, known)
    while killed.total() < KILLS:
        tired = tried.tired()
        rested = [period for period in MONTHS if period not in tired]
        assert rested, f"every period's own runs have failed; {killed}"
        step = ("backfill", "rides", chance.choice(rested))
        # As long as this month takes: after a longer time most commands have ended.
        _kill_and_finish(tried, step, took[step], chance, killed, known | tried.contents(), tired)

    told = f"seed {seed}: {killed.total()} kills: {dict(killed)}"
    print(told)
    for step in (("backfill", "rides", period) for period in MONTHS):
        reference.finish(step)
        tried.finish(step)
    assert _compared(tried) == _compared(reference), told
    assert tried.aliases() == reference.aliases(), told
    for period in tried.lake.periods("rides", "served_predictions"):
        served = pq.read_table(tried.lake.partition("rides", "served_predictions", period).url)
        assert len(served["record_id"].unique()) == served.num_rows, f"{period}: a record is served twice; {told}"


def _kill_and_finish(
    tried: Platform,
    step: Sequence[str],
    seconds: float,
    chance: random.Random,
    killed: Counter[str],
    known: set[tuple[str, str, str]],
    tired: Set[str] = frozenset(),
) -> None:
    for _ in range(KILLS_OF_A_STEP):
        if killed.total() >= KILLS or tried.tired() - tired:
            break
        ended = tried.run(step, kill_after=chance.uniform(0.0, 1.1 * seconds))
        if ended.status is not None:
            break
        killed[step[0] if step[0] == "backfill" else " ".join(step[:2])] += 1
        _assert_known(tried, known, f"a kill of {step}")
        if step[0] == "retrain" and tried.is_retrained():
            break
    tried.finish(step)
    _assert_known(tried, known, f"{step}, run again")


def _assert_known(tried: Platform, known: set[tuple[str, str, str]], after: str) -> None:
    unknown = {found for found in tried.contents() if found not in known and found[0] != "performance"}
    assert not unknown, f"after {after} there is what no undisturbed run makes: {unknown}"


def _compared(platform: Platform) -> dict[str, Any]:
    """What must not depend on kills: contents, decisions and verdicts; of incidents those that the data cause."""
    found = state(platform.root)
    causes = {"drift", "quality", "outage", "performance"}
    incidents = [incident[:4] for incident in found["incidents"] if incident[1] in causes]
    return {name: found[name] for name in ("contents", "decisions", "verdicts")} | {"incidents": incidents}
