"""`reset` deletes what the platform wrote in its home, and nothing else: whatever it is called, wherever it lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from mlops_assets.cli import main
from mlops_assets.home import Home
from mlops_assets.incidents.lease import Lease
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake
from mlops_assets.ownership import MARKER, claim, in_use

ARCHIVE = Path(__file__).with_name("homes") / "rides_27fc6e6.tar.xz"


def reset(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["reset", *(arguments or ["--yes"])])


def written(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_symlink() or path.is_file())


@pytest.fixture
def made(home: Path) -> Home:
    """A home as a run leaves it: claimed, with a lake, a store, logs and reports."""
    found = Home(home)
    claim(found)
    lake = Lake(home / "lake")
    for rows in (1, 2):
        lake.write("rides", "features", "2021-01", pa.table({"n": list(range(rows))}))
    Store(found.store_url)
    for name in ("reports/rides/2021-01.html", "optuna/rides/2021-01.journal", "logs/mlflow.log"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("ours")
    found.prepare_dagster()
    (found.dagster / "storage").mkdir()
    return found


def test_all_that_was_made_is_deleted_and_the_folder_is_said_to_be_empty_only_when_it_is(made: Home) -> None:
    said = reset()
    assert said.exit_code == 0, said.output
    assert list(made.root.iterdir()) == []
    assert f"{made.root} is empty now." in said.output
    assert "reports: 1 file, 0.0 MB" in said.output
    assert "There is nothing to delete" in reset().output


def test_no_to_the_question_deletes_nothing_and_is_no_error(made: Home) -> None:
    before = sorted(made.root.rglob("*"))
    said = CliRunner().invoke(main, ["reset"], input="n\n")
    assert said.exit_code == 1
    assert said.output.endswith("Aborted!\n")
    assert "Error" not in said.output
    assert "store.db-wal" not in said.output, "what SQLite keeps beside its file goes with it, unsaid"
    assert [path for path in before if not path.exists() and not path.name.startswith("store.db-")] == []


def test_files_of_others_stay_in_our_folders_and_beside_them_and_are_named(made: Home) -> None:
    foreign = [
        *(
            "notes.txt",
            "reports/q1.html",
            "reports/rides/summary.docx",
            "lake/readme.md",
            "lake/rides/features/mine.csv",
        ),
        *("logs/app.log", "downloads/holiday.jpg", "photos/a.jpg", "optuna/rides/thesis.journal"),
    ]
    for name in foreign:
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root / name).write_text("somebody's")
    said = reset()
    assert said.exit_code == 0, said.output
    assert written(made.root) == sorted(foreign)
    assert "is empty now" not in said.output
    for name in foreign:
        assert name.partition("/")[0] in said.output


def test_folders_that_were_there_before_the_platform_stay_whole(home: Path) -> None:
    for name in ("reports/rides/2021-01.html", "dagster/dagster.yaml", "evidently/x/metadata.json", "logs/mlflow.log"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("somebody's")
    before = written(home)
    claim(Home(home))
    Lake(home / "lake").write("rides", "features", "2021-01", pa.table({"n": [1]}))
    said = reset()
    assert said.exit_code == 0, said.output
    assert written(home) == before
    assert "reports (was there before)" in said.output


def test_a_folder_that_the_platform_did_not_make_is_refused(home: Path) -> None:
    for name in ("reports/a.html", "logs/mlflow.log", "downloads/b", "lake/m/t/period=1/data.parquet", "store.db"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("somebody's")
    before = written(home)
    said = reset()
    assert said.exit_code == 1
    assert f"{home} was not made by mlops_assets" in said.output
    assert written(home) == before


@pytest.mark.parametrize("kind", ["user", "above", "project", "root"])
def test_the_root_a_home_directory_and_a_project_are_refused(
    kind: str, made: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "user":
        monkeypatch.setenv("HOME", str(made.root))
    elif kind == "above":
        monkeypatch.setenv("HOME", str(made.root / "users" / "ann"))
    elif kind == "project":
        (made.root / "pyproject.toml").write_text("")
    else:
        monkeypatch.setenv("MLOPS_HOME", "/")
    before = written(made.root)
    said = reset()
    assert said.exit_code == 1
    assert "Nothing is deleted there" in said.output
    assert written(made.root) == before


def test_links_are_not_followed(made: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(made.root / "lake", elsewhere / "lake")
    (made.root / "lake").symlink_to(elsewhere / "lake")
    (elsewhere / "evidently" / "x").mkdir(parents=True)
    (elsewhere / "evidently" / "x" / "metadata.json").write_text("{}")
    (made.root / "evidently").symlink_to(elsewhere / "evidently")
    (made.root / "reports" / "rides" / "2021-02.html").symlink_to(elsewhere / "lake")
    before = written(elsewhere)
    said = reset()
    assert said.exit_code == 0, said.output
    assert written(elsewhere) == before
    assert sorted(path.name for path in made.root.iterdir()) == ["evidently", "lake"]
    assert "lake (a link to" in said.output


def test_a_home_of_an_earlier_version_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    root = tmp_path / "home"
    monkeypatch.setenv("MLOPS_HOME", str(root))
    assert not (root / MARKER).exists()
    claim(Home(root))
    said = reset()
    assert said.exit_code == 0, said.output
    assert written(root) == ["expected.json"], "the one file that the test, and not the platform, put there"


def test_nothing_is_deleted_while_a_run_or_a_command_is_at_work(made: Home) -> None:
    before = written(made.root)
    store = Store(made.store_url)
    with Lease(store, "run:abc/1", what="run abc"):
        said = reset()
    assert said.exit_code == 1
    assert "is in use, so nothing is deleted" in said.output
    assert "run abc (process" in said.output
    with in_use(made):
        said = reset()
    assert said.exit_code == 1
    assert "is in use by another command" in said.output
    assert [name for name in written(made.root) if "store.db" not in name and ".lock" not in name] == [
        name for name in before if "store.db" not in name
    ]
    assert reset().exit_code == 0


def test_a_process_that_was_killed_holds_nothing(made: Home) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mlops_assets.home import Home; from mlops_assets.ownership import in_use\n"
        "with in_use(Home(Path(sys.argv[1]))): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(made.root)], check=False, env=os.environ)
    assert reset().exit_code == 0


def test_downloads_are_deleted_by_their_list(home: Path) -> None:
    drawn = CliRunner().invoke(main, ["simulate", "ed_admission", "--rows", "20", "--months", "1"])
    assert drawn.exit_code == 0, drawn.output
    (home / "downloads" / "ed_admission" / "by_hand.parquet").write_text("somebody's")
    said = reset()
    assert said.exit_code == 0, said.output
    assert written(home) == ["downloads/ed_admission/by_hand.parquet"]


def test_what_is_kept_elsewhere_is_named(made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_LAKE_URL", str(tmp_path / "shared_lake"))
    Lake(tmp_path / "shared_lake").write("rides", "features", "2021-01", pa.table({"n": [1]}))
    said = reset()
    assert said.exit_code == 0, said.output
    assert f"the lake at {tmp_path / 'shared_lake'}" in said.output
    assert Lake(tmp_path / "shared_lake").periods("rides", "features") == ["2021-01"]
