"""A logged model works outside of the platform: in an environment that holds its requirements and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement

from mlops_assets.lake.frames import exact_frame
from mlops_assets.monitored_model.steps import challenger, champion, predictions
from mlops_assets.monitored_model.workbench import Workbench
from mlops_assets.training import standalone
from mlops_assets.training.artifacts import local_path
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03", "2021-04"]
TRAINED, NEXT = MONTHS[2:]
FEATURES = ["fare", "fee", "zone", "hour"]
ESTIMATORS: dict[str, dict[str, Any]] = {
    "sklearn.linear_model.LogisticRegression": {"max_iter": 200},
    "interpret.glassbox.ExplainableBoostingClassifier": {"outer_bags": 1, "max_rounds": 20, "interactions": 0},
    "xgboost.XGBClassifier": {"n_estimators": 10, "max_depth": 3},
}
LOAD = """
import importlib.util, json, sys
assert importlib.util.find_spec("mlops_assets") is None, "the environment is not clean"
import mlflow, pandas as pd
rows = json.load(open(sys.argv[2]))["dataframe_split"]
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(pd.DataFrame(rows["data"], columns=rows["columns"]))
json.dump({"predictions": found.to_dict("records")}, open(sys.argv[3], "w"))
"""


def closure(requirements: Sequence[str]) -> Iterator[importlib.metadata.Distribution]:
    """The installed distributions that the requirements take, each checked against its pin."""
    waiting = [Requirement(line) for line in requirements]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        key = (wanted.name.lower(), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        found = importlib.metadata.distribution(wanted.name)
        assert wanted.specifier.contains(found.version, prereleases=True), f"{wanted}: {found.version} is installed"
        yield found
        for line in found.requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in wanted.extras or {""}
            ):
                waiting.append(needed)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that makes a virtual environment of some requirements, and gives its Python.

    What is installed here is linked, so that it takes no network; of other distributions nothing is there.
    """
    made: dict[tuple[str, ...], Path] = {}

    def make(requirements: tuple[str, ...]) -> Path:
        if requirements not in made:
            folder = tmp_path_factory.mktemp("clean")
            venv.create(folder, symlinks=True, with_pip=False)
            [site] = folder.glob("lib/python*/site-packages")
            for distribution in closure(requirements):
                tops = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
                for top in tops:
                    if not (site / top).exists():
                        (site / top).symlink_to(str(distribution.locate_file(top)))
            made[requirements] = folder / "bin" / "python"
        return made[requirements]

    return make


@pytest.fixture(scope="module", params=ESTIMATORS)
def scored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """A bench whose fourth month is scored by a champion of this estimator."""
    spec = tiny_model.spec(candidates=[{"estimator": request.param, "params": ESTIMATORS[request.param]}])
    with pytest.MonkeyPatch.context() as patched:
        root = tmp_path_factory.mktemp("scored")
        patched.setenv("MLOPS_HOME", str(root / "home"))
        with tiny_model.ingested(root, spec, MONTHS) as bench:
            challenger.make(bench, TRAINED)
            champion.make(bench, TRAINED)
            assert predictions.make(bench, NEXT).partition.rows == 600
            yield bench


def logged(bench: Workbench) -> Path:
    folder = local_path(bench.run_required().client.get_model_version_download_uri("rides", "1"))
    assert folder is not None
    return folder


def write_input(bench: Workbench, path: Path) -> pd.DataFrame:
    """Write the features as MLflow's JSON, one row more with nothing but missing values; gives what is expected."""
    features, made = bench.scan("features", [NEXT]), bench.scan("predictions", [NEXT])
    rows = bench.con.sql(f"SELECT {', '.join(FEATURES)} FROM {features} ORDER BY record_id").fetchall()
    data = [list(row) for row in rows] + [[None] * len(FEATURES)]
    path.write_text(json.dumps({"dataframe_split": {"columns": FEATURES, "data": data}}))
    expected = bench.con.sql(f"SELECT score, prediction FROM {made} ORDER BY record_id").df()
    model = bench.versions.load(bench.versions.named("1"))
    [batch] = bench.con.sql(f"SELECT {', '.join(f'NULL AS {name}' for name in FEATURES)}").to_arrow_table().to_batches()
    missing = standalone.scored(model.pipeline, exact_frame(batch), bench.spec.target, model.cut)
    return pd.concat([expected, missing], ignore_index=True)


def clean(*command: str | Path) -> None:
    """Run a program that finds nothing but its own environment's packages."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLOPS_"))}
    elsewhere = Path(command[0]).parent  # the working directory is on Python's path
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_logged_model_holds_the_modules_of_scoring_and_no_pickle(scored: Workbench) -> None:
    folder = logged(scored)
    code = {path.relative_to(folder / "code").as_posix() for path in (folder / "code").rglob("*.py")}
    assert code == {f"mlops_assets/{name}" for name in standalone.scoring_modules()}
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2_000_000


@pytest.mark.slow
def test_it_scores_as_the_platform_does_where_only_its_requirements_are_installed(
    scored: Workbench, environments: Any, tmp_path: Path
) -> None:
    folder, rows = logged(scored), tmp_path / "rows.json"
    expected = write_input(scored, rows)
    python = environments(tuple((folder / "requirements.txt").read_text().split()))
    loaded, served = tmp_path / "loaded.json", tmp_path / "served.json"
    clean(python, "-c", LOAD, folder, rows, loaded)
    clean(
        python, *("-m", "mlflow", "models", "predict", "-m"), folder, "-i", rows, "-o", served, "--env-manager", "local"
    )
    for output in (loaded, served):
        found = pd.DataFrame(json.loads(output.read_text())["predictions"])
        assert list(found) == ["score", "prediction"]
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-12)
        np.testing.assert_array_equal(found["prediction"], expected["prediction"])
    assert 0 < expected["prediction"].mean() < 1
