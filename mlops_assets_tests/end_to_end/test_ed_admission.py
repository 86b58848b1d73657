"""The shipped model of simulated months: nothing drawn, then quiet months, then a wave that calls for retraining."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from mlops_assets.cli import main
from mlops_assets.home import PROJECT, Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.backfill import PeriodRunResult
from mlops_assets.monitored_model.backfill import backfill as run_periods
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import features as features_step
from mlops_assets.monitored_model.steps import raw as raw_step
from mlops_assets.training import registry, tracking
from mlops_assets_tests import rides_graph
from mlops_assets_tests.conftest import MLOPS_VARIABLES
from mlops_assets_tests.end_to_end.shipped import ShippedModel

NAME = "ed_admission"
FOLDER = PROJECT / "mlops_assets" / "defs" / NAME
MONTHS = [f"2025-{month:02}" for month in range(1, 6)]
WAVE = "2025-05"
ROWS = 1500


def declared() -> ModelSpec:
    """The shipped declaration with fewer trials and columns, for months of fewer rows."""
    attributes = yaml.safe_load((FOLDER / "defs.yaml").read_text())["attributes"]
    kept = ("arrival", "gender", "age", "esi", "triage_vital", "n_", "previousdispo", "wbc_max")
    columns = {name: rules for name, rules in attributes["columns"].items() if name.startswith(kept)}
    smaller = {"trials": 4, "since_break": {"min_rows": 500}, "columns": columns}
    return ModelSpec.model_validate(attributes | smaller)


@dataclass(frozen=True)
class Year:
    """What was left behind by a backfill of a month before it was drawn, and of all months after."""

    home: Home
    undrawn: dict[str, Any]
    said: str
    results: dict[str, PeriodRunResult]

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home.root / "lake"))

    def facts(self, table: str, period: str) -> dict[str, Any]:
        return dict(self.lake.partition(NAME, table, period).facts)

    def reason(self, table: str, period: str) -> str | None:
        return self.lake.partition(NAME, table, period).reason

    def sql(self, query: str, table: str) -> list[tuple[Any, ...]]:
        with duckdb.connect() as con:
            return con.execute(query.format(self.lake.scan(NAME, table, self.lake.periods(NAME, table)))).fetchall()


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    root = tmp_path_factory.mktemp("ed")
    home = Home(root / "home")
    definitions = rides_graph.definitions(declared(), (FOLDER / "features.sql").read_text())
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        for variable in MLOPS_VARIABLES:
            patch.delenv(variable, raising=False)
        patch.setenv("MLOPS_HOME", str(home.root))
        (empty,) = run_periods(definitions, NAME, MONTHS[:1], instance=instance)
        store = Store(f"sqlite:///{home.root / 'store.db'}")
        undrawn = {
            "outcome": empty.outcome,
            "reason": Lake(str(home.root / "lake")).partition(NAME, "raw_visits", MONTHS[0]).reason,
            "incidents": [(one.kind, one.state, one.reasons[0]["sentence"]) for one in store.incidents(model=NAME)],
        }
        arguments = ["--rows", str(ROWS), "--months", "5", "--drift", f"covariate:{WAVE}:1.2"]
        said = CliRunner().invoke(main, ["simulate", NAME, *arguments])
        assert said.exit_code == 0, said.output
        results = {one.period: one for one in run_periods(definitions, NAME, MONTHS, instance=instance)}
        yield Year(home, undrawn, said.output, results)


@pytest.mark.parametrize("ending", ["admit to icu", "ADMIT ", None])
def test_an_ending_that_is_no_class_is_not_a_discharge(
    ending: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in MLOPS_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    home = Home(tmp_path / "home")
    monkeypatch.setenv("MLOPS_HOME", str(home.root))
    drawn = CliRunner().invoke(main, ["simulate", NAME, "--rows", "200", "--months", "1"])
    assert drawn.exit_code == 0, drawn.output
    file = home.downloads / NAME / f"ed_visits_{MONTHS[0]}.parquet"
    visits = pq.read_table(file)
    column = visits.schema.get_field_index("disposition")
    before = visits["disposition"].to_pylist()
    assert set(before) == {"admit", "discharge"}
    after = [ending if row % 2 and given == "admit" else given for row, given in enumerate(before)]
    pq.write_table(visits.set_column(column, "disposition", pa.array(after)), file)
    model = ShippedModel(NAME)
    with model.workbench(home.root, model.declared(), home.downloads) as bench:
        raw_step.make(bench, MONTHS[0])
        schema, *_ = features_step.make(bench, MONTHS[0]).checks
        made = bench.con.sql(f"SELECT admitted FROM {bench.scan('features', MONTHS[:1])} ORDER BY record_id").fetchall()
    assert (schema.name, schema.passed) == ("feature_schema", ending != "admit to icu")
    if not schema.passed:
        replaced = sum(a != b for a, b in zip(after, before, strict=True))
        assert f"admitted breaks in [0, 1] in {replaced} rows" in schema.description
    else:
        classes = {"admit": 1, "ADMIT ": 1, "discharge": 0}
        # A visit that has not ended yet is no training row (`required: true`), and no discharge either.
        assert sorted(made) == sorted((classes[given],) for given in after if given is not None)


def test_a_month_that_was_not_drawn_is_an_outage_with_the_advice_to_draw_it(year: Year) -> None:
    assert year.undrawn["outcome"] == "success"
    assert str(year.undrawn["reason"]).startswith("no data: ")
    assert "draw it: mlops-assets simulate ed_admission --months 12" in year.undrawn["reason"]
    ((kind, state, sentence),) = year.undrawn["incidents"]
    assert (kind, state) == ("outage", "open")
    assert "mlops-assets simulate ed_admission" in sentence
    store = Store(f"sqlite:///{year.home.root / 'store.db'}")
    (outage,) = store.incidents(model=NAME, kind="outage")
    assert outage.state == "resolved", "drawn, the month has its data"


def test_the_command_says_that_all_is_synthetic_and_what_to_do_next(year: Year) -> None:
    assert "SYNTHETIC ed_admission" in year.said
    assert "drift covariate:2025-05:1.2" in year.said
    assert "Next: mlops-assets backfill ed_admission 2025-01..2025-05" in year.said
    assert year.sql("SELECT DISTINCT origin FROM {}", "raw_visits") == [("synthetic",)]


def test_quality_holds_in_every_month(year: Year) -> None:
    for period in MONTHS:
        assert year.facts("features", period)["quality_failure"] is None
        assert year.lake.partition(NAME, "features", period).rows == ROWS


def test_the_first_champion_comes_from_having_none_and_quiet_months_train_nothing(year: Year) -> None:
    first = year.facts("challenger", "2025-03")
    assert first["causes"] == ["no_champion: there is none before this period"]
    assert year.facts("champion", "2025-03")["decision"] == "first"
    rows = year.sql("SELECT period, candidate, trials FROM {} ORDER BY period", "challenger")
    assert [row[0] for row in rows][:1] == ["2025-03"]
    assert year.results["2025-03"].served_after == ()


def test_candidates_are_compared_and_the_winner_tuned(year: Year) -> None:
    client = tracking.client(f"sqlite:///{year.home.mlflow / 'mlflow.db'}")
    version = client.get_model_version(NAME, year.facts("challenger", "2025-03")["version"])
    parent = client.get_run(str(version.run_id)).data.tags["mlflow.parentRunId"]
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    trials = [run.data.tags for run in runs if "stage" in run.data.tags]
    compared = {tags["candidate"] for tags in trials if tags["stage"] == "compare"}
    tuned = [tags["candidate"] for tags in trials if tags["stage"] == "tune"]
    assert compared == {"LogisticRegression", "XGBClassifier"}
    assert len(tuned) == 2
    assert len(set(tuned)) == 1


def test_prediction_drift_makes_the_month_severe_and_plan_b_serves_it(year: Year) -> None:
    report = year.facts("drift_report", WAVE)
    assert report["verdict"] == "severe"
    assert report["reasons"][0].startswith("prediction drift ")
    assert "> 0.6 (Wasserstein distance (normed) of the champion's scores)" in report["reasons"][0]
    ((value, threshold, verdict),) = year.sql(
        f"SELECT value, threshold, verdict FROM {{}} WHERE method = 'prediction_drift' AND period = '{WAVE}'",
        "drift_report",
    )
    assert value > threshold == 0.6
    assert verdict == "severe"
    store = Store(f"sqlite:///{year.home.root / 'store.db'}")
    (incident,) = store.incidents(model=NAME, period=WAVE, kind="drift")
    assert incident.reasons[0]["sentence"] == report["reasons"][0]
    assert year.facts("served_predictions", WAVE)["gate_reason"].startswith("severe drift: prediction drift ")
    jobs = [(after.job, after.outcome) for after in year.results[WAVE].served_after]
    assert jobs == [("ed_admission_serve", "success"), ("ed_admission_train", "success")]
    assert year.facts("served_predictions", WAVE)["decision_id"]
    assert year.lake.partition(NAME, "served_predictions", WAVE).rows == ROWS


def test_the_wave_is_the_cause_and_its_own_rows_are_what_is_learned_from(year: Year) -> None:
    made = year.facts("challenger", WAVE)
    (cause,) = made["causes"]
    assert cause.startswith("severe_drift: prediction drift ")
    assert made["trained_on"] == "since_break"
    assert all(part["periods"] == [WAVE] for part in made["parts"].values())


def test_two_versions_are_in_staging_and_can_be_loaded(year: Year) -> None:
    client = tracking.client(f"sqlite:///{year.home.mlflow / 'mlflow.db'}")
    newest = [p for p in MONTHS if year.lake.partition(NAME, "challenger", p).rows][-1]
    staging = year.facts("challenger", newest)["staging"]
    assert [row["alias"] for row in staging] == ["staging-1", "staging-2"]
    aliases = {name: str(version) for name, version in client.get_registered_model(NAME).aliases.items()}
    assert {row["alias"]: row["version"] for row in staging}.items() <= aliases.items()
    assert aliases["champion"] == year.facts("champion", MONTHS[-1])["version"]
    for row in staging:
        assert registry.load(client, NAME, row["version"], sha256=None).metrics["test"]["auc"] > 0.7


def test_the_shipped_simulation_lies_below_the_home(year: Year) -> None:
    files = sorted(path.name for path in (year.home.downloads / NAME).iterdir())
    assert files == [f"ed_visits_{period}.parquet" for period in MONTHS]
    assert not (PROJECT / "data" / NAME / files[0]).exists()
    assert Path(year.home.root) in (year.home.downloads / NAME).parents
