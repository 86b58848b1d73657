"""Homes and data folders whose names hold what URLs, globs and SQL give a meaning to: they work, or are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_assets.home import Home, UnusablePath, data_dir
from mlops_assets.lake.store import Lake
from mlops_assets_tests import tiny_model

DATA = "data 100% * sure?"
ODD = "a b[e]#f'g\"h é;i&j=k+{l}$m~!@^(),|<x>"


def backfill(root: Path, periods: list[str]) -> dict[str, str]:
    environment = {
        **os.environ,
        "MLOPS_HOME": str(root / "home"),
        "MLOPS_DATA_DIR": str(root / DATA),
        "DAGSTER_HOME": str(root / "home" / "dagster"),
    }
    program = [sys.executable, "-m", "mlops_assets_tests.rides_graph", *periods]
    said = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    return {words[0]: words[1] for line in said.stdout.splitlines() if len(words := line.split()) > 1}


def test_a_period_is_made_at_an_odd_path_and_nothing_beside_it(tmp_path: Path) -> None:
    root = tmp_path / ODD
    tiny_model.write_rides(root / DATA, ["2021-01"])
    assert backfill(root, ["2021-01"]) == {"2021-01": "success"}
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    assert sorted(path.name for path in root.iterdir()) == [DATA, "home"]
    lake = Lake(root / "home" / "lake")
    assert lake.partition("rides", "features", "2021-01", verify=True).rows == 600


@pytest.mark.slow
def test_periods_are_trained_scored_and_shown_at_an_odd_path(tmp_path: Path) -> None:
    root = tmp_path / ODD
    periods = ["2021-01", "2021-02", "2021-03", "2021-04"]
    tiny_model.write_rides(root / DATA, periods)
    assert backfill(root, periods) == dict.fromkeys(periods, "success")
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    assert Lake(root / "home" / "lake").partition("rides", "served_predictions", "2021-04").rows == 600
    assert list((root / "home" / "evidently").rglob("*.json"))
    assert list((root / "home" / "reports").rglob("*.html"))


@pytest.mark.parametrize("part", ["%20", "%", "?", "*", "\\", "a::b", "line\nbreak", "\x1b[31m"])
def test_a_home_that_some_library_can_not_deal_with_is_refused_with_the_reason(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / f"x{part}y"))
    with pytest.raises(UnusablePath, match=r"^MLOPS_HOME is .*(Choose a folder without it|printable characters only)$"):
        Home.from_env()
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / f"x{part}y"))
    with pytest.raises(UnusablePath, match=r"^DAGSTER_HOME is "):
        Home.from_env().dagster  # noqa: B018


def test_a_data_folder_may_be_called_anything_but_what_duckdb_takes_for_a_separator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "100% * sure?"))
    assert data_dir() == tmp_path / "100% * sure?"
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "a\\b"))
    with pytest.raises(UnusablePath, match=r"^MLOPS_DATA_DIR is "):
        data_dir()


def test_a_lake_given_as_a_file_url_is_where_the_url_leads(tmp_path: Path) -> None:
    folder = tmp_path / "100% of it"
    assert Lake(folder.as_uri()).url == str(folder)
