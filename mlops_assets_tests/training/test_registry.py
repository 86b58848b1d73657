from __future__ import annotations

import json
import multiprocessing
import sqlite3
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlops_assets.training import aliases, registry, tracking
from mlops_assets.training.candidates import Candidate, Target
from mlops_assets.training.fit_version import FIT_VERSION
from mlops_assets.training.pipeline import scores
from mlops_assets.training.search import train
from mlops_assets_tests.training.taxi import KINDS

PERIODS = {"train": "2021-01", "validation": "2021-02", "test": "2021-03"}


def _initialise(address: tuple[str, str]) -> int:
    uri, artifacts = address
    tracking.initialise(uri, artifacts)
    return len(tracking.client(uri).search_experiments())


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> tuple[mlflow.MlflowClient, str, Path]:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/store/mlflow.db"
    tracking.initialise(uri, folder / "artifacts")
    client = tracking.client(uri)
    return client, tracking.experiment(client, "taxi", folder / "artifacts"), folder


@pytest.fixture(scope="module")
def version(store, trained, splits):
    """A version that was logged as the platform does it: into the chosen trial's run."""
    client, experiment_id, _ = store
    with warnings.catch_warnings(), tracking.open_run(client, experiment_id, "2021-03") as run_id:
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", FutureWarning)
        runs = tracking.log_trials(
            client, experiment_id, run_id, trained.trials, periods=PERIODS, chosen=trained.chosen.number
        )
        chosen = runs[trained.chosen.number]
        logged = registry.log_model(
            client,
            chosen,
            trained,
            example=splits[0].features,
            periods=PERIODS,
            features_sql="SELECT 1",
            reference_profile=b"profile",
            score_reference=b"scores",
            files={registry.REFERENCE_SAMPLE: b"sample"},
            data=[tracking.TrainingData("train", "taxi.features", "/lake", {"2021-01": "abc"}, 7)],
            title="taxi 2021-03",
        )
        number = registry.register(client, "taxi", chosen, logged.uri, "print-1", {"mlops.period": "2021-03"})
    return number, run_id, runs, logged


def test_a_loaded_version_scores_as_the_trained_model_did(store, version, trained, splits):
    found = registry.load(store[0], "taxi", version[0], sha256=version[3].sha256)
    np.testing.assert_array_equal(
        scores(found.pipeline, splits[2].features, Target(**found.target)), trained.test_scores
    )
    assert found.cut == trained.cut
    assert found.importances == trained.importances
    assert found.periods == PERIODS
    assert found.metrics["test"]["auc"] == trained.metrics["test"]["auc"]
    assert found.candidate == "ExplainableBoostingClassifier"
    assert found.reference_profile.read_bytes() == b"profile"
    assert found.score_reference.read_bytes() == b"scores"
    assert found.file(registry.REFERENCE_SAMPLE).read_bytes() == b"sample"
    assert found.file("other.parquet") is None
    assert registry.load(store[0], "taxi", version[0], sha256=version[3].sha256).pipeline is found.pipeline


def test_trials_are_nested_closed_runs_with_their_periods_and_validation_metrics(store, version, trained):
    client, experiment_id, _ = store
    _, parent, runs, _ = version
    nested = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {run.info.run_id for run in nested} == set(runs)
    other = client.get_run(runs[1 - trained.chosen.number])
    trial = trained.trials[1 - trained.chosen.number]
    assert other.data.params["max_bins"] == str(trial.params["max_bins"])
    assert other.data.params["train_periods"] == "2021-01"
    assert other.data.metrics["validation_f1"] == trial.metrics["f1"]
    assert other.info.status == "FINISHED"
    assert abs(other.info.end_time - other.info.start_time - trial.seconds * 1000) < 2
    assert not any(name.startswith("test_") for name in other.data.metrics)


def test_the_chosen_run_has_test_metrics_data_and_the_final_parameters(store, version, trained):
    client = store[0]
    run = client.get_run(version[2][trained.chosen.number])
    assert run.data.metrics["test_auc"] == trained.metrics["test"]["auc"]
    assert run.data.params["outer_bags"] == "1"
    assert run.data.params["final_outer_bags"] == "2"
    assert run.data.tags["code_version"] == FIT_VERSION
    [data] = run.inputs.dataset_inputs
    assert json.loads(data.dataset.profile) == {"rows": 7, "digests": {"2021-01": "abc"}}
    assert json.loads(data.dataset.source)["periods"] == ["2021-01"]
    names = {Path(f.path).name for f in client.list_artifacts(run.info.run_id, registry.FOLDER)}
    assert {
        "features.sql",
        "importances.csv",
        "importances.json",
        "importances.png",
        "explanation.html",
    } <= names


def test_the_model_is_stored_safely_with_signature_example_and_pins(store, version):
    client = store[0]
    logged = client.get_logged_model(version[3].model_id)
    folder = Path(logged.artifact_location.removeprefix("file://"))
    assert logged.status == "READY"
    model = mlflow.models.Model.load(str(folder))
    assert [column.name for column in model.signature.inputs.inputs] == list(KINDS)
    assert [column.name for column in model.signature.outputs.inputs] == ["score", "prediction"]
    assert (folder / "data" / "pipeline" / "model.skops").is_file()
    assert not list(folder.rglob("*.pkl"))
    assert (folder / "input_example.json").exists()
    assert "interpret-core==" in (folder / "requirements.txt").read_text()


def test_the_explanation_loads_nothing_from_elsewhere(store, version, trained):
    run_id = version[2][trained.chosen.number]
    page = Path(store[0].download_artifacts(run_id, f"{registry.FOLDER}/explanation.html")).read_text()
    assert page.count("Plotly.newPlot(entry.target") == 1
    assert "<script src" not in page
    assert "<link" not in page
    for term in trained.pipeline[-1].term_names_:
        assert term.replace("&", "&amp;") in page


def test_a_run_that_is_registered_gives_its_version_back(store, version, trained):
    client, chosen = store[0], version[2][trained.chosen.number]
    assert registry.register(client, "taxi", chosen, version[3].uri, "print-1") == version[0]
    assert registry.version_of_run(client, "taxi", chosen) == version[0]
    assert registry.version_of_run(client, "taxi", version[1]) is None
    assert registry.version_of_run(client, "nobody", chosen) is None


def test_aliases_and_statuses_follow_the_champion(store, version):
    client, experiment_id, _ = store
    runs = [client.create_run(experiment_id).info.run_id for _ in "abc"]
    a, b, c = (registry.register(client, "aliases", run, version[3].uri, f"print of {run}") for run in runs)

    def state() -> tuple[dict[str, str], dict[str, str]]:
        model = client.get_registered_model("aliases")
        tags = {v: client.get_model_version("aliases", v).tags["status"] for v in (a, b, c)}
        return {k: str(v) for k, v in model.aliases.items()}, tags

    def point(champion: str, previous: str | None = None) -> None:
        missing = aliases.missing_changes(client, "aliases", aliases.Pointed(champion, previous))
        aliases.apply(client, "aliases", missing, lambda: None)
        assert aliases.missing_changes(client, "aliases", aliases.Pointed(champion, previous)) == []

    point(a)
    assert state() == ({"champion": a}, {a: "champion", b: "challenger", c: "challenger"})
    for _ in range(2):
        point(c, a)
        assert state() == (
            {"champion": c, "previous_champion": a},
            {a: "archived", b: "challenger", c: "champion"},
        )
    # A rollback.
    point(a, c)
    assert state() == (
        {"champion": a, "previous_champion": c},
        {a: "champion", b: "challenger", c: "archived"},
    )
    with pytest.raises(registry.RegistryError, match="lacks version 9"):
        point("9", a)
    assert state()[0]["champion"] == a


def test_a_version_that_is_gone_says_what_to_do(store):
    with pytest.raises(registry.RegistryError, match="Materialize the challenger"):
        registry.load(store[0], "taxi", "99", sha256=None)


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (RuntimeError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_is_closed_with_the_right_status_and_none_stays_active(store, error, status):
    client, experiment_id, _ = store
    found = {}
    try:
        with tracking.open_run(client, experiment_id, "closing") as run_id:
            found["id"] = run_id
            assert mlflow.active_run() is None
            if error is not None:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert client.get_run(found["id"]).info.status == status


def test_nothing_is_logged_into_somebody_else_s_active_run(store, trained, tmp_path, monkeypatch):
    client, experiment_id, _ = store
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        with (
            mlflow.start_run(experiment_id=experiment_id) as other,
            tracking.open_run(client, experiment_id, "own") as run_id,
        ):
            tracking.log(client, run_id, params={"a": 1}, metrics={"m": 1.0, "undefined": float("nan")})
            tracking.log_trials(client, experiment_id, run_id, trained.trials[:1], periods=PERIODS)
        theirs = client.get_run(other.info.run_id)
        assert (theirs.data.params, theirs.data.metrics) == ({}, {})
        assert client.get_run(run_id).data.metrics == {"m": 1.0}
    finally:
        mlflow.set_tracking_uri(None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "params", "calibration"),
    [
        ("xgboost.XGBClassifier", {"n_estimators": 5}, None),
        ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 5}, None),
        ("sklearn.svm.LinearSVC", {}, "sigmoid"),
    ],
)
def test_other_families_survive_the_registry(store, splits, path, params, calibration):
    client, experiment_id, _ = store
    candidate = Candidate(estimator=path, params=params, calibration=calibration)
    found = train(*splits, candidates=[candidate], kinds=KINDS, target=Target(column="is_cash"), metric="auc", trials=1)
    with tracking.open_run(client, experiment_id, path) as run_id:
        logged = registry.log_model(client, run_id, found, example=splits[0].features, periods=PERIODS)
    name = f"family-{path}"
    number = registry.register(client, name, run_id, logged.uri, "print")
    loaded = registry.load(client, name, number, sha256=logged.sha256)
    np.testing.assert_allclose(scores(loaded.pipeline, splits[2].features, found.target), found.test_scores, rtol=1e-6)
    assert loaded.reference_profile is None


def test_several_processes_may_find_the_store_fresh(tmp_path):
    address = (f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts"))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_initialise, [address] * 2)) == [1, 1]


def test_a_store_that_a_killed_process_left_half_made_is_made_again(tmp_path):
    (tmp_path / "mlflow.db.new").write_bytes(b"SQLite format 3, cut")
    (tmp_path / "mlflow.db.new-journal").write_bytes(b"cut as well")
    assert _initialise((f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts"))) == 1
    assert not list(tmp_path.glob("*.new*"))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_fingerprint_depends_on_content_alone():
    assert registry.fingerprint({"a": 1, "b": [1, 2]}) == registry.fingerprint({"b": [1, 2], "a": 1})
    assert registry.fingerprint({"a": [1, 2]}) != registry.fingerprint({"a": [2, 1]})
    with pytest.raises(TypeError):
        registry.fingerprint({"a": object()})
    with pytest.raises(ValueError, match="JSON compliant"):
        registry.fingerprint({"a": float("nan")})
