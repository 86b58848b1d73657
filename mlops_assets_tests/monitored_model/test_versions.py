"""Versions are what they were made from: nobody else's model is loaded, and a lost one is trained again."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from mlops_assets.cli import main
from mlops_assets.home import Home
from mlops_assets.incidents import logged_versions
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model import decisions
from mlops_assets.monitored_model.outcome import Outcome
from mlops_assets.monitored_model.steps import challenger, champion, drift_report, performance, predictions
from mlops_assets.monitored_model.versions import Identity, Versions, named_by, trained_in, verify_models
from mlops_assets.monitored_model.workbench import PeriodRun, Workbench
from mlops_assets.training import registry, tracking
from mlops_assets.training.artifacts import local_path
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04"]
TRAINED, NEXT = "2021-03", "2021-04"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """Four months with features; the third has a challenger and a champion."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    with tiny_model.ingested(tmp_path, tiny_model.spec(), MONTHS) as bench:
        challenger.make(bench, TRAINED)
        champion.make(bench, TRAINED)
        yield bench


def in_force(bench: Workbench, period: str = TRAINED) -> Identity:
    found = named_by(bench.lake, bench.partition("champion", period))
    assert found is not None
    return found


def files_of(bench: Workbench, number: str) -> Path:
    """The folder in which MLflow has the files of a version."""
    folder = local_path(bench.run_required().client.get_model_version_download_uri("rides", number))
    assert folder is not None
    return folder


def model_file(bench: Workbench, number: str) -> Path:
    return next(files_of(bench, number).rglob("model.skops"))


def without_registry(bench: Workbench) -> Workbench:
    """The same lake and incident store, with a new MLflow store, whose numbers start at 1."""
    home = Home(bench.home.root / "new")
    tracking.initialise(home.tracking_uri, home.artifacts)
    client = tracking.client(home.tracking_uri)
    experiment = tracking.experiment(client, "rides", home.artifacts)
    run = client.create_run(experiment)
    return replace(bench, home=home, period_run=PeriodRun(client, experiment, run.info.run_id))


class Mischief:
    """Runs code when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def upload(bench: Workbench, tmp_path: Path, *, run_id: str | None = None) -> str:
    """What somebody who can reach MLflow does: upload a pickle with code beside it, and register it as a version."""
    folder = tmp_path / "uploaded"
    shutil.copytree(files_of(bench, "1"), folder)
    pipeline = next(folder.rglob("model.skops"))
    pipeline.unlink()
    pipeline.with_name("model.pkl").write_bytes(pickle.dumps(Mischief(tmp_path / "witness")))
    client = bench.run_required().client
    run = run_id or client.create_run(bench.run_required().experiment_id).info.run_id
    known = in_force(bench)
    tags = {"fingerprint": known.fingerprint, "status": "challenger"}
    return str(client.create_model_version("rides", folder.as_uri(), run_id=run, tags=tags).version)


def test_a_version_that_somebody_uploads_can_be_neither_promoted_nor_loaded(bench: Workbench, tmp_path: Path) -> None:
    number = upload(bench, tmp_path)
    with pytest.raises(decisions.Refused, match=f"version {number} of rides was not logged by the platform"):
        decisions.promote("rides", bench.lake, bench.store, number, "eve", "mine is better")
    assert in_force(bench).number == "1"
    assert predictions.make(bench, NEXT).partition.facts["version"] == "1"
    assert not (tmp_path / "witness").exists()


def test_a_version_registered_from_a_run_of_ours_with_other_files_is_not_loaded(
    bench: Workbench, tmp_path: Path
) -> None:
    known, client = in_force(bench), bench.run_required().client
    number = upload(bench, tmp_path, run_id=known.run_id)
    assert bench.versions.load(known).version == "1"
    client.delete_model_version("rides", "1")
    with pytest.raises(registry.ChangedVersion, match=f"files of version {number} .* expected {known.sha256[:16]}"):
        bench.versions.load(known)
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("name", ["model.skops", "reference_profile.parquet", "model.json"])
def test_a_changed_file_is_noticed_before_anything_is_read(bench: Workbench, name: str) -> None:
    known = in_force(bench)
    run = bench.run_required().client.get_run(known.run_id)
    folders = [files_of(bench, "1"), local_path(run.info.artifact_uri)]
    [changed] = [path for folder in folders if folder for path in folder.rglob(name)]
    changed.write_bytes(changed.read_bytes() + b" ")
    registry._load.cache_clear()
    outcome = predictions.make(bench, NEXT)
    assert outcome.partition.rows == 0
    assert "are not those that the platform logged" in (outcome.partition.reason or "")
    assert "Materialize the challenger of its period again" in (outcome.partition.reason or "")


def test_a_cut_off_model_is_one_sentence_and_its_period_trains_again(bench: Workbench) -> None:
    path = model_file(bench, "1")
    path.write_bytes(path.read_bytes()[:1000])
    registry._load.cache_clear()
    again = challenger.make(bench, TRAINED)
    assert (again.partition.facts["version"], again.partition.facts["reused"]) == ("2", False)
    assert "digest" in again.partition.facts["trained_again_because"]
    assert again.metadata["trained_again_because"]
    # The decision names what it was made from, so the new version of the same inputs stands for it.
    scored = predictions.make(bench, NEXT)
    assert (scored.partition.facts["version"], scored.partition.rows) == ("2", 600)
    assert challenger.make(bench, TRAINED).partition.facts["reused"]


def test_a_file_is_read_by_the_platforms_own_list_of_types(bench: Workbench) -> None:
    """Without a digest, as in a home of earlier times, the file still can't name what is created."""
    path = model_file(bench, "1")
    with zipfile.ZipFile(path) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    files["schema.json"] = files["schema.json"].replace(b"FeatureColumns", b"MissingFeatureError")
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    with pytest.raises(registry.RegistryError, match=r"holds types that .*LogisticRegression has no use for"):
        registry.load(bench.run_required().client, "rides", "1", sha256=None)


def test_a_lost_registry_makes_versions_unknown_and_no_number_stands_for_another_model(bench: Workbench) -> None:
    known = in_force(bench)
    lost = without_registry(bench)
    assert lost.versions.number(known) is None
    unknown = rf"unknown version 1 of rides \({known.fingerprint[:12]}"
    scored = predictions.make(lost, NEXT)
    assert (scored.partition.rows, scored.partition.reason is not None) == (0, True)
    with pytest.raises(registry.UnknownVersion, match=unknown):
        lost.versions.load(known)
    [check] = verify_models(lost.lake, lost.store, lost.home)
    assert (check.state, (check.problem or "").startswith("unknown version 1 of rides")) == ("failed", True)
    # Numbers start again, with a model that was tested on this month: it must not pass for the champion.
    trained = challenger.make(lost, NEXT)
    assert trained.partition.facts["version"] == "1"
    assert trained.partition.facts["fingerprint"] != known.fingerprint
    with pytest.raises(registry.UnknownVersion, match=unknown):
        lost.versions.load(known)
    decided = champion.make(lost, NEXT)
    assert decided.partition.facts["decision"] == "promoted"
    assert "the champion in force can't be compared: unknown version 1" in decided.partition.facts["reason"]
    assert decided.partition.facts["fingerprint"] == trained.partition.facts["fingerprint"]


def test_the_command_line_says_that_the_version_in_force_is_not_in_the_registry(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the same: champion=1" in CliRunner().invoke(main, ["champion", "show", "rides"]).output
    lost = without_registry(bench)
    challenger.make(lost, NEXT)  # takes number 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lost.home.tracking_uri)
    said = " ".join(CliRunner().invoke(main, ["champion", "show", "rides"]).output.split())
    assert "MLflow's registry does not hold version 1, which is in force. Materialize the challenger" in said


def test_periods_say_that_their_version_is_unknown(bench: Workbench) -> None:
    predictions.make(bench, NEXT)
    lost = without_registry(bench)
    for step in (drift_report, performance):
        outcome: Outcome = step.make(lost, NEXT)
        assert outcome.partition.rows == 0
        assert (outcome.partition.reason or "").startswith("unknown version 1 of rides")


def test_a_version_that_was_lost_is_trained_again_and_stands_for_the_old_number(bench: Workbench) -> None:
    known = in_force(bench)
    lost = without_registry(bench)
    challenger.make(lost, NEXT)  # takes number 1
    again = challenger.make(lost, TRAINED)
    assert again.partition.facts["trained_again_because"].startswith("unknown version 1 of rides")
    assert (again.partition.facts["version"], again.partition.facts["fingerprint"]) == ("2", known.fingerprint)
    assert (lost.versions.load(known).version, lost.versions.number(known)) == ("2", "2")
    assert predictions.make(lost, NEXT).partition.facts["version"] == "2"


def test_an_order_names_the_model_and_not_the_number(bench: Workbench) -> None:
    challenger.make(bench, NEXT)
    champion.make(bench, NEXT)
    wanted = in_force(bench)
    if in_force(bench, NEXT).fingerprint == wanted.fingerprint:
        wanted = next(iter(trained_in(bench.lake, "rides", NEXT).values()))
    order = decisions.promote("rides", bench.lake, bench.store, wanted.number, "ann", "the old world is back")
    assert order.fingerprint == wanted.fingerprint
    assert champion.make(bench, NEXT).partition.facts["fingerprint"] == wanted.fingerprint


def as_of_earlier_times(bench: Workbench) -> None:
    """Take away what earlier commits didn't write: records, and what partitions say beside the number."""
    from mlops_assets.incidents.tables import logged_versions as table

    with bench.store.write() as connection:
        connection.execute(table.delete())
    for name in ("challenger", "champion"):
        found = bench.partition(name, TRAINED)
        facts = {k: v for k, v in found.facts.items() if k not in ("versions", "fingerprint", "run_id", "sha256")}
        rows = bench.con.sql(f"SELECT * EXCLUDE (period) FROM {bench.scan(name, [TRAINED])}").to_arrow_table()
        bench.lake.write("rides", name, TRAINED, rows, facts=facts)


def test_a_version_of_earlier_times_is_adopted_when_the_lake_names_it(bench: Workbench) -> None:
    as_of_earlier_times(bench)
    assert bench.versions.load(in_force(bench)).version == "1"
    [record] = logged_versions.records(bench.store, "rides")
    path = model_file(bench, "1")
    path.write_bytes(path.read_bytes() + b" ")
    registry._load.cache_clear()
    with pytest.raises(registry.ChangedVersion, match=record.sha256[:16]):
        bench.versions.load(in_force(bench))


def test_a_version_of_earlier_times_that_the_lake_does_not_name_is_unknown(bench: Workbench) -> None:
    known = in_force(bench)
    as_of_earlier_times(bench)
    Path(bench.partition("challenger", TRAINED).url).unlink()
    with pytest.raises(registry.UnknownVersion, match="no challenger of the lake names it"):
        bench.versions.load(known)
    assert not logged_versions.records(bench.store, "rides")


def test_verify_models_checks_all_versions_and_adopts_those_without_a_record(bench: Workbench) -> None:
    lake, store, home = Lake(bench.home.lake_url), Store(bench.home.store_url), bench.home

    def states() -> list[tuple[str, str]]:
        return [(check.number, check.state) for check in verify_models(lake, store, home)]

    assert states() == [("1", "verified")]
    as_of_earlier_times(bench)
    assert states() == [("1", "adopted")]
    assert states() == [("1", "verified")]
    model_file(bench, "1").unlink()
    [check] = verify_models(lake, store, home)
    assert (check.state, check.period) == ("failed", TRAINED)
    assert "are not those that the platform logged" in (check.problem or "")


def test_versions_of_a_home_without_a_declaration_are_those_of_the_bench(bench: Workbench) -> None:
    versions = Versions.of_home("rides", bench.lake, bench.store, bench.home)
    assert versions.load(in_force(bench)).fingerprint == in_force(bench).fingerprint


class OfOnesOwn(LogisticRegression):
    """An estimator of somebody's own project, which is on no list of trusted types."""


OWN = {"estimator": f"{__name__}.OfOnesOwn", "params": {"max_iter": 200}}


def test_a_model_that_only_pickle_can_store_is_no_candidate_unless_the_declaration_allows_it(tmp_path: Path) -> None:
    with (
        tiny_model.ingested(tmp_path, tiny_model.spec(candidates=[OWN]), MONTHS[:3]) as bench,
        pytest.raises(ValueError, match=r"OfOnesOwn, which are on no list of trusted types.*`pickle: true`"),
    ):
        challenger.make(bench, TRAINED)


def test_a_pickle_is_loaded_only_as_logged_and_while_the_declaration_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    allowed = tiny_model.spec(candidates=[OWN | {"pickle": True}])
    with tiny_model.ingested(tmp_path, allowed, MONTHS) as bench:
        challenger.make(bench, TRAINED)
        champion.make(bench, TRAINED)
        assert predictions.make(bench, NEXT).partition.rows == 600
        forbidden = replace(bench, spec=tiny_model.spec(candidates=[OWN]))
        with pytest.raises(registry.RegistryError, match="stored as a pickle, whose loading runs code"):
            forbidden.versions.load(in_force(bench))
        path = next(files_of(bench, "1").rglob("model.pkl"))
        path.write_bytes(pickle.dumps(Mischief(tmp_path / "witness")))
        registry._load.cache_clear()
        with pytest.raises(registry.ChangedVersion):
            bench.versions.load(in_force(bench))
        assert not (tmp_path / "witness").exists()


def test_the_key_pickle_changes_no_fingerprint(tmp_path: Path) -> None:
    [declared] = tiny_model.SPEC["candidates"]
    with tiny_model.ingested(tmp_path, tiny_model.spec(), MONTHS[:3]) as bench:
        first = challenger.make(bench, TRAINED).partition.facts
        other = replace(bench, spec=tiny_model.spec(candidates=[declared | {"pickle": True}]))
        again = challenger.make(other, TRAINED).partition.facts
    assert (again["reused"], again["fingerprint"]) == (True, first["fingerprint"])
