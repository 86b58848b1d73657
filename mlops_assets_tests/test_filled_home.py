"""A home that an earlier commit has filled, opened at another place by the code of today (see homes/README.md)."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlops_assets import monitoring
from mlops_assets.home import Home
from mlops_assets.lake.store import Lake
from mlops_assets.training import tracking

ARCHIVE = Path(__file__).with_name("homes") / "rides_27fc6e6.tar.xz"


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
