"""A home that an earlier commit has filled, opened at another place by the code of today (see homes/README.md)."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import dagster as dg
import pytest
from click.testing import CliRunner

from mlops_assets import monitoring
from mlops_assets.cli import main
from mlops_assets.home import Home
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.aliases import finish
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.versions import Versions, trained_in
from mlops_assets.training import tracking
from mlops_assets_tests import rides_graph

ARCHIVE = Path(__file__).with_name("homes") / "rides_27fc6e6_nine_months.tar.xz"


@dataclass(frozen=True)
class FilledHome:
    """The home at its new place, and what the commit that filled it said about it."""

    home: Home
    expected: dict[str, Any]

    @property
    def lake(self) -> Lake:
        return Lake(self.home.lake_url)

    def status(self) -> list[dict[str, Any]]:
        """The status lines of today, as far as the earlier commit had their keys."""
        known = self.expected["status"][0].keys()
        return [
            {name: value for name, value in line.as_dict().items() if name in known}
            for line in monitoring.periods(self.lake, "rides")
        ]

    def aliases(self) -> dict[str, str]:
        model = tracking.client(self.home.tracking_uri).get_registered_model("rides")
        return {name: str(version) for name, version in model.aliases.items()}

    def digests(self) -> dict[str, dict[str, str]]:
        return {
            table: {period: self.lake.partition("rides", table, period).digest for period in periods}
            for table, periods in self.expected["digests"].items()
        }

    def report_digests(self, *periods: str) -> list[str]:
        return [self.lake.partition("rides", "drift_report", period).facts["report_digest"] for period in periods]


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilledHome:
    root = tmp_path / "moved here"
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(root, filter="data")
    monkeypatch.setenv("MLOPS_HOME", str(root / "home"))
    monkeypatch.setenv("MLOPS_DATA_DIR", str(root / "data"))
    return FilledHome(Home.from_env(), json.loads((root / "home" / "expected.json").read_text()))


def test_status_aliases_and_digests_are_what_they_were(filled: FilledHome) -> None:
    told = {line["period"]: line for line in filled.status()}
    for line in filled.expected["status"]:
        now = told.pop(line["period"])
        if line["served_source"] in ("plan_b", "withheld"):
            # Since then: the metric is that of what is served, and the reason says why plan B could not serve.
            assert now.pop("metric_value") != line.pop("metric_value")
            assert str(now.pop("reason")).endswith(line.pop("reason"))
        assert now == line
    assert told == {}
    assert filled.aliases() == filled.expected["aliases"]
    assert filled.digests() == filled.expected["digests"]


def test_all_its_versions_load_at_another_place(filled: FilledHome) -> None:
    versions = Versions.of_home("rides", filled.lake, Store(filled.home.store_url), filled.home)
    named = [
        version
        for period in filled.lake.periods("rides", "challenger")
        for version in trained_in(filled.lake, "rides", period).values()
    ]
    assert sorted(int(version.number) for version in named) == list(range(1, 15))
    for version in named:
        loaded = versions.load(version)
        assert (loaded.version, loaded.fingerprint) == (version.number, version.fingerprint)
        assert loaded.file("reference_profile.parquet") is not None


def test_its_last_two_periods_are_made_again_and_nothing_is_trained(filled: FilledHome) -> None:
    spec = ModelSpec.model_validate(filled.expected["spec"])
    definitions = rides_graph.definitions(spec, filled.expected["sql"])
    before, reports = filled.status(), filled.report_digests("2021-08", "2021-09")
    with dg.DagsterInstance.ephemeral() as instance:
        results = rides_graph.run(definitions, ["2021-08", "2021-09"], instance)
    errors = {result.period: result.errors for result in results}
    assert [(result.period, result.outcome) for result in results] == [
        ("2021-08", "success"),
        ("2021-09", "success"),
    ], errors
    client = tracking.client(filled.home.tracking_uri)
    assert len(client.search_model_versions("name = 'rides'")) == 14
    # A report's rows say in other words since then what moved; what decisions are made of is the same.
    now, then = filled.digests(), filled.expected["digests"]
    assert filled.report_digests("2021-08", "2021-09") == reports
    assert {**now, "drift_report": {}} == {**then, "drift_report": {}}
    for line, earlier in zip(filled.status(), before, strict=True):
        if line["period"] == "2021-08":  # since then a reason says who has accepted, and why
            assert earlier.pop("reason") == "severe drift, accepted by a person"
            assert str(line.pop("reason")).startswith("severe drift, accepted by ann on ")
        assert line == earlier
    assert filled.aliases() == filled.expected["aliases"]
    # New runs log into the home where it is now.
    newest = client.search_runs(["1"], order_by=["start_time DESC"], max_results=1)[0]
    assert str(filled.home.root) in unquote(newest.info.artifact_uri)


def test_verify_adopts_all_its_versions_and_then_finds_a_changed_one(
    filled: FilledHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_assets.definitions.defs", rides_graph.definitions)
    first = CliRunner().invoke(main, ["verify", "rides"])
    assert first.exit_code == 0, first.output
    assert "14 trained versions, 14 adopted (trained before hashes were kept), none failed" in first.output
    assert "14 trained versions, none failed" in CliRunner().invoke(main, ["verify"]).output
    changed = next(filled.home.artifacts.rglob("model.skops"))
    changed.write_bytes(changed.read_bytes()[:1000])
    found = CliRunner().invoke(main, ["verify", "--json"])
    assert found.exit_code == 1
    [rides] = json.loads(found.stdout)
    assert rides["damaged"] == []
    [failed] = [version for version in rides["versions"] if version["state"] == "failed"]
    assert "are not those that the platform logged" in failed["problem"]
    assert "Materialize the challenger of its period again" in failed["problem"]


def test_relocate_lets_mlflow_find_the_files_of_a_moved_home(filled: FilledHome) -> None:
    client = tracking.client(filled.home.tracking_uri)

    def files_of_version() -> list[str]:
        source = client.get_model_version("rides", "14").source
        return [path.name for path in Path(unquote(source.removeprefix("file://"))).glob("MLmodel")]

    assert files_of_version() == []
    first = CliRunner().invoke(main, ["relocate"])
    assert first.exit_code == 0, first.output
    assert "model_versions: 14 locations rewritten" in first.output
    assert str(filled.home.artifacts) in first.output
    assert files_of_version() == ["MLmodel"]
    # What MLflow's pages ask for: the files of each run, and of each model.
    run_id = client.get_model_version("rides", "14").run_id
    assert run_id is not None
    assert "monitoring/model.json" in [file.path for file in client.list_artifacts(run_id, "monitoring")]
    for model in client.search_logged_models(["1"]):
        assert "MLmodel" in [file.path for file in client.list_logged_model_artifacts(model.model_id)]
    assert "nothing was changed" in CliRunner().invoke(main, ["relocate"]).output


def test_relocate_refuses_a_store_that_does_not_move_with_a_home(
    filled: FilledHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@localhost:5000")
    found = CliRunner().invoke(main, ["relocate"])
    assert found.exit_code == 1
    assert "only the SQLite database of a home is relocated" in found.output
    assert "secret" not in found.output


def test_its_decisions_are_in_the_log_marked_as_reconstructed_and_only_once(filled: FilledHome) -> None:
    store = Store(filled.home.store_url)
    for _ in range(2):
        with monitoring.connect(filled.lake, store) as con:
            found = con.sql(
                "SELECT period, after, bool_and(reconstructed) FROM monitoring.decisions WHERE subject = 'champion' "
                "GROUP BY ALL ORDER BY period"
            ).fetchall()
            served = con.sql("SELECT period FROM monitoring.decisions WHERE subject = 'served' ORDER BY ALL").fetchall()
        wanted = [(line["period"], line["champion_version"], True) for line in filled.expected["status"]]
        assert found == wanted
        assert [period for (period,) in served] == [period for period, *_ in wanted]
    finished = finish(filled.lake, store, "rides", 0, lambda: tracking.client(filled.home.tracking_uri))
    assert finished is None
    assert filled.aliases() == filled.expected["aliases"], "nothing is moved"
    (pointed,) = store.decisions("rides", subject="alias")
    assert (pointed.reconstructed, pointed.action) == (True, "moved")
