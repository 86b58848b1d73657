"""The shipped bank marketing months with the shipped declaration: features, the outage, 2009, staging, bad files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model import learning_plan
from mlops_assets.monitored_model.backfill import PeriodRunResult
from mlops_assets.monitored_model.outcome import Check
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import challenger as challenger_step
from mlops_assets.monitored_model.steps import champion as champion_step
from mlops_assets.monitored_model.steps import drift_report as drift_report_step
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import performance as performance_step
from mlops_assets.monitored_model.steps import predictions as predictions_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.monitoring import PeriodStatus, periods
from mlops_assets.training import registry, search, tracking
from mlops_assets_tests import tiny_model
from mlops_assets_tests.end_to_end.shipped import DATA, ShippedModel, ingest

pytestmark = pytest.mark.real_data

BANK = ShippedModel("bank_marketing")
OUTAGE = "2008-09"
FIRST, LAST = "2008-05", "2009-03"
QUICK = ("logistic_regression", "linear_svc", "xgboost")


def file(period: str, folder: Path = DATA) -> Path:
    return folder / BANK.name / f"bank_marketing_{period}.csv"


def quick() -> ModelSpec:
    """The shipped declaration with the three quickest of its candidates, one trial each."""
    candidates = [given for given in BANK.attributes()["candidates"] if given["name"] in QUICK]
    return BANK.declared(candidates=candidates, trials=1)


# -- features -------------------------------------------------------------------------------------------------

FEATURES = [
    "age",
    "job_group",
    "balance",
    "housing",
    "contact_known",
    "season",
    "campaign",
    "pdays",
    "previous",
    "poutcome",
]


def replaced_systems_features(period: str) -> pd.DataFrame:
    """The replaced system's preprocessing, in pandas."""
    calls = pd.read_csv(file(period), keep_default_na=False, na_values=[""])
    jobs = {
        **dict.fromkeys(["admin.", "blue-collar", "management", "services", "technician"], "employee"),
        **dict.fromkeys(["entrepreneur", "housemaid", "self-employed"], "own account"),
        **dict.fromkeys(["retired", "student", "unemployed"], "not working"),
    }
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    seasons = ["winter", "winter", *["spring"] * 3, *["summer"] * 3, *["autumn"] * 3, "winter"]
    made = pd.DataFrame({"age": calls["age"], "job_group": calls["job"].map(jobs).fillna("unknown")})
    made["balance"] = calls["balance"]
    made["housing"] = calls["housing"].fillna("unknown")
    made["contact_known"] = np.where(calls["contact"].notna(), "yes", "no")
    made["season"] = calls["month"].map(dict(zip(months, seasons, strict=True)))
    made["campaign"] = np.where(calls["campaign"] > 1, "more than once", "once")
    ago = pd.cut(
        calls["pdays"], [-2, -1, 182, 365, 10_000], labels=["never", "6 months", "plus 6 months", "plus 12 months"]
    )
    made["pdays"] = ago.astype(str)
    made["previous"] = pd.cut(
        calls["previous"], [-1, 0, 4, 10_000], labels=["never", "less than 5", "5 or more"]
    ).astype(str)
    made["poutcome"] = calls["poutcome"].fillna("unknown")
    dates = calls["day_of_week"].astype(str) + " " + calls["month"] + " " + period[:4]
    made["call_date"] = pd.to_datetime(dates, format="%d %b %Y")
    made["y"] = calls["y"]
    return made


@pytest.mark.parametrize("period", ["2008-06", "2008-12", "2009-04", "2010-10"])
def test_features_are_those_of_the_replaced_system(period: str, tmp_path: Path) -> None:
    spec = BANK.declared()
    with BANK.workbench(tmp_path, spec) as bench:
        raw_step.make(bench, period)
        features_step.make(bench, period)
        ours = bench.con.sql(f"FROM {bench.scan('features', [period])} ORDER BY record_id").df()
    assert list(spec.columns) == FEATURES
    theirs = replaced_systems_features(period)
    for column in [*FEATURES, "y", "call_date"]:
        assert ours[column].tolist() == theirs[column].tolist(), column


def test_the_duration_of_a_call_has_no_part_in_anything(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    calls = pd.read_csv(file("2008-10"), dtype=str, keep_default_na=False)
    file("2008-10", folder).parent.mkdir(parents=True)
    calls.assign(duration="99999").to_csv(file("2008-10", folder), index=False)
    digests = []
    for number, data in enumerate((DATA, folder)):
        with BANK.workbench(tmp_path / str(number), BANK.declared(), data) as bench:
            ingest(bench, ["2008-10"])
            digests.append(bench.partition("features", "2008-10").digest)
            assert "duration" not in bench.lake.schema(BANK.name, "features").names
    assert digests[0] == digests[1]


def test_every_shipped_month_is_usable_but_the_one_without_a_file(tmp_path: Path) -> None:
    spec = BANK.declared()
    with BANK.workbench(tmp_path, spec) as bench:
        for period in spec.calendar.between(spec.start, spec.end or spec.start):
            checks = [*raw_step.make(bench, period).checks, *features_step.make(bench, period).checks]
            failed = {check.name for check in checks if not check.passed and check.severity == "ERROR"}
            assert failed == ({"volume"} if period == OUTAGE else set()), period
            if period != OUTAGE:
                assert bench.partition("features", period).rows == len(pd.read_csv(file(period)))


# -- the months from the outage to the first severe ones --------------------------------------------------------


@dataclass(frozen=True)
class Months:
    """What a backfill left."""

    home: Home
    lake: Lake
    runs: Mapping[str, PeriodRunResult]
    status: Mapping[str, PeriodStatus]

    def facts(self, table: str, period: str) -> Mapping[str, Any]:
        return self.lake.partition(BANK.name, table, period).facts

    def row(self, table: str, period: str) -> dict[str, Any]:
        with duckdb.connect() as con:
            (row,) = con.sql(f"FROM {self.lake.scan(BANK.name, table, [period])}").to_arrow_table().to_pylist()
        return row

    @property
    def store(self) -> Store:
        return Store(self.home.store_url)


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Months:
    """What can be trained on is only read in, the months from the outage on are worked through."""
    root, spec = tmp_path_factory.mktemp("bank"), quick()
    with BANK.workbench(root, spec) as bench:
        ingest(bench, spec.calendar.between(FIRST, "2008-08"))
    _, outage = BANK.backfilled(root, spec, OUTAGE, OUTAGE)
    with BANK.workbench(root, spec) as bench:
        ingest(bench, ["2008-10"])
    lake, later = BANK.backfilled(root, spec, "2008-11", LAST)
    results = [*outage, *later]
    status = {line.period: line for line in periods(lake, BANK.name)}
    return Months(Home(root), lake, {run.period: run for run in results}, status)


def test_the_month_without_calls_is_an_outage_and_no_crash(months: Months) -> None:
    # There is no champion yet, so nothing is withheld from anybody.
    assert months.status[OUTAGE].gate == "none"
    assert all(run.outcome in ("success", "withheld") for run in months.runs.values())
    for table in ("raw_calls", "features", "challenger", "champion", "served_predictions"):
        partition = months.lake.partition(BANK.name, table, OUTAGE)
        assert partition.rows == 0
        said = "no champion yet" if table == "served_predictions" else "no file"
        assert said in str(partition.reason), table
    (incident,) = months.store.incidents(model=BANK.name, kind="outage")
    assert (incident.period, incident.state) == (OUTAGE, "open")


def test_windows_go_on_without_the_missing_month(months: Months) -> None:
    november = months.facts("challenger", "2008-11")
    used = [period for part in november["parts"].values() for period in part["periods"]]
    assert OUTAGE not in used
    assert months.status["2008-11"].decision == "first"
    assert [period for period, line in months.status.items() if line.gate == "none"] == [OUTAGE, "2008-11"]


def test_thirteen_calls_decide_nothing(months: Months) -> None:
    december = months.facts("champion", "2008-12")
    assert (december["decision"], december["version"]) == ("retained", months.status["2008-11"].champion_version)
    assert december["reason"].startswith("too few rows to test on: 13 in 2008-12")


def test_march_2009_is_severe_served_by_plan_b_and_an_incident(months: Months) -> None:
    march, report = months.status["2009-03"], months.facts("drift_report", "2009-03")
    assert (march.verdict, march.rows) == ("severe", 258)
    assert any(reason.startswith("the champion's scores are severe") for reason in report["reasons"])
    assert months.runs["2009-03"].outcome == "withheld"
    assert (march.gate, march.served_rows, march.served_source) == ("plan_b", 258, "plan_b")
    assert [i.period for i in months.store.incidents(model=BANK.name, state="open", kind="drift")][-1] == "2009-03"


def test_columns_of_the_calendar_have_no_say(months: Months) -> None:
    for period in ("2009-01", "2009-02", "2009-03"):
        assert "season" not in months.facts("drift_report", period)["severe_columns"]
        assert not any(reason.startswith("season") for reason in months.facts("drift_report", period)["reasons"])


def test_the_three_best_are_staged_and_the_best_of_them_competes(months: Months) -> None:
    client = tracking.client(months.home.tracking_uri)
    aliases = {name: str(v) for name, v in client.get_registered_model(BANK.name).aliases.items()}
    staged = months.facts("challenger", LAST)["staging"]
    assert [row["alias"] for row in staged] == ["staging-1", "staging-2", "staging-3"]
    assert {row["alias"]: row["version"] for row in staged}.items() <= aliases.items()
    assert aliases["staging-1"] == months.facts("challenger", LAST)["version"]
    assert sorted(row["candidate"] for row in staged) == sorted(QUICK)
    values = [row["validation average_precision"] for row in staged]
    assert values == sorted(values, reverse=True)
    assert months.row("champion", LAST)["challenger_version"] == staged[0]["version"]
    loaded = registry.load(client, BANK.name, staged[2]["version"], sha256=None)
    assert loaded.candidate == staged[2]["candidate"]


def test_metrics_of_all_three_parts_are_logged_with_their_data(months: Months) -> None:
    client = tracking.client(months.home.tracking_uri)
    run = client.get_run(months.row("challenger", LAST)["run_id"])
    wanted = {f"{role}_{name}" for role in learning_plan.ROLES for name in ("accuracy", "average_precision", "f1")}
    assert wanted <= run.data.metrics.keys()
    contexts = [tag.value for data in run.inputs.dataset_inputs for tag in data.tags]
    assert sorted(contexts) == ["test", "train", "validation"]


# -- the declared candidates ----------------------------------------------------------------------------------


def test_all_six_candidates_are_fitted_and_tuned(tmp_path: Path) -> None:
    spec = BANK.declared()
    assert all(candidate.search for candidate in spec.candidates)
    with BANK.workbench(tmp_path, spec) as bench:
        ingest(bench, ["2009-06", "2009-08", "2009-10"])
        train, validation, test = [
            learning_plan.load_split(bench, learning_plan.Part([period]))
            for period in ("2009-06", "2009-08", "2009-10")
        ]
    found = search.train(
        train,
        validation,
        test,
        candidates=spec.candidates,
        kinds=spec.kinds,
        target=spec.target,
        metric=spec.metric,
        cut=spec.cut,
        trials=12,
        seed=spec.seed,
    )
    assert [(trial.candidate, trial.error) for trial in found.trials if trial.state == "failed"] == []
    assert {trial.candidate for trial in found.trials} == {
        "random_forest",
        "xgboost",
        "logistic_regression",
        "linear_svc",
        "mlp",
        "ebm",
    }
    assert found.metrics["test"]["auc"] > 0.55


# -- files gone wrong -----------------------------------------------------------------------------------------

Fault = Callable[[str], bytes]


def other_delimiter(text: str) -> bytes:
    return text.replace(",", ";").encode()


def other_encoding(text: str) -> bytes:
    return text.replace("retired", "reformé").encode("latin-1")


def of_another_month(text: str) -> bytes:
    return text.replace(",jun,", ",jul,").encode()


def unseen_job(text: str) -> bytes:
    return text.replace(",technician,", ",astronaut,").encode()


def unseen_answer(text: str) -> bytes:
    return text.replace(",yes\n", ",maybe\n").encode()


def renamed_day(text: str) -> bytes:
    return text.replace("day_of_week", "day").encode()


def doubled(text: str) -> bytes:
    return (text + text.partition("\n")[2]).encode()


FAULTS: Mapping[Fault, tuple[str, Sequence[str]]] = {
    other_delimiter: ("source_schema", ["separated by ';'", "csv: {delim: ';'}"]),
    other_encoding: ("source_schema", ["not UTF-8", "encoding: latin-1"]),
    of_another_month: ("in_period", ["4,486 of 4,486 rows", "call_date outside 2008-06", "Replace it"]),
    unseen_job: ("feature_schema", ["job_group breaks in ['employee'", "astronaut", "widen the rule"]),
    unseen_answer: ("feature_schema", ["y breaks in ['yes', 'no'] in 201 rows", "maybe"]),
    renamed_day: ("source_schema", ["day_of_week", "Correct the file"]),
    doubled: ("volume", ["4,486 of 8,972 rows are copies", "Replace the file"]),
}


def made(bench: Any, period: str) -> dict[str, Check]:
    """The checks of severity ERROR that fail when a period is read."""
    checks = [*raw_step.make(bench, period).checks, *features_step.make(bench, period).checks]
    return {check.name: check for check in checks if not check.passed and check.severity == "ERROR"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_bad_file_fails_one_check_with_what_to_do_and_nothing_uses_its_rows(fault: Fault, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    file("2008-06", folder).parent.mkdir(parents=True)
    file("2008-06", folder).write_bytes(fault(file("2008-06").read_text()))
    name, said = FAULTS[fault]
    with BANK.workbench(tmp_path / "home", BANK.declared(), folder) as bench:
        failed = made(bench, "2008-06")
        assert set(failed) == {name}
        for part in said:
            assert part in failed[name].description
        assert failed[name].description in str(bench.unusable("2008-06"))


@pytest.mark.parametrize("saved_again", [False, True])
def test_a_file_delivered_for_two_months_is_used_for_one(saved_again: bool, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    file("2009-06", folder).parent.mkdir(parents=True)
    # The years are not in the file: only its content tells that it is the one of the year before.
    for period in ("2008-06", "2009-06"):
        shutil.copy(file("2008-06"), file(period, folder))
    if saved_again:
        calls = pd.read_csv(file("2008-06"), dtype=str, keep_default_na=False)
        calls[::-1].to_csv(file("2009-06", folder), index=False, lineterminator="\r\n")
    with BANK.workbench(tmp_path / "home", BANK.declared(), folder) as bench:
        assert made(bench, "2008-06") == {}
        failed = made(bench, "2009-06")
        assert "the same rows as the one of 2008-06" in failed["volume"].description


def test_dates_that_do_not_exist_are_counted_and_not_moved(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    file("2008-06", folder).parent.mkdir(parents=True)
    calls = pd.read_csv(file("2008-06"), dtype=str, keep_default_na=False)
    calls.loc[calls.index[:50], "day_of_week"] = "31"
    calls.to_csv(file("2008-06", folder), index=False)
    with BANK.workbench(tmp_path / "home", BANK.declared(), folder) as bench:
        outcome = raw_step.make(bench, "2008-06")
        (found,) = [check for check in outcome.checks if check.name == "in_period"]
    assert (found.passed, found.severity, found.metadata["rows_without_time"]) == (False, "WARN", 50)


ONE_CLASS = "2009-02"


@contextmanager
def where_nobody_subscribes(role: str, tmp_path: Path) -> Iterator[Workbench]:
    """A workbench with a window's months ingested, and the next one, one of its roles without any `yes`."""
    spec = quick()
    window = spec.calendar.window(ONE_CLASS, getattr(spec.window, role))
    folder = tmp_path / "data"
    file(ONE_CLASS, folder).parent.mkdir(parents=True)
    months = spec.calendar.window(ONE_CLASS, (spec.window.first, 1))
    for month in [month for month in months if month != OUTAGE]:
        text = file(month).read_text()
        file(month, folder).write_text(text.replace(",yes\n", ",no\n") if month in window else text)
    never = spec.model_copy(update={"since_break": spec.since_break.model_copy(update={"min_rows": 10**9})})
    with tiny_model.workbench(tmp_path / "home", folder, never, BANK.sql) as bench:
        ingest(bench, months)
        yield bench


@pytest.mark.parametrize("role", ["train", "validation"])
def test_a_window_of_one_class_trains_nothing_and_says_which(role: str, tmp_path: Path) -> None:
    with where_nobody_subscribes(role, tmp_path) as bench:
        reason = str(challenger_step.make(bench, ONE_CLASS).partition.reason)
    word = {"train": "training", "validation": "validation"}[role]
    assert re.fullmatch(rf"one class only: all \d+ {word} rows have y ≠ 'yes'.*", reason)


def test_a_test_month_of_one_class_makes_a_champion_that_the_next_month_can_be_judged_by(tmp_path: Path) -> None:
    with where_nobody_subscribes("test", tmp_path) as bench:
        (following,) = bench.spec.calendar.window(ONE_CLASS, (1, 1))
        challenger_step.make(bench, ONE_CLASS)
        assert champion_step.make(bench, ONE_CLASS).partition.facts["decision"] == "first"
        for step in (predictions_step.make, drift_report_step.make):
            step(bench, following)
        outcome = performance_step.make(bench, following)
        sources = bench.con.sql(f"SELECT DISTINCT source FROM {bench.scan('performance', [following])}").fetchall()
    assert re.match(r"No estimate without labels: 0 of the [\d,]+ test rows", outcome.metadata["estimate"])
    assert ("estimate",) not in sources
    (limits,) = outcome.checks
    assert limits.description == "average_precision is not defined on the champion's test rows."
