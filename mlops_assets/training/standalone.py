"""A logged model outside of the platform: `mlflow.pyfunc.load_model` and `mlflow models predict` call this.

A logged model carries this module and those that it imports (`scoring_modules`), and its requirements name the
libraries that it takes. So it works where this package is not installed. In goes a frame with the feature columns, out
come `score` and `prediction`, as the platform computes them for `predictions`.
"""

from __future__ import annotations

import ast
import functools
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlops_assets.training import model_file
from mlops_assets.training.candidates import Target
from mlops_assets.training.pipeline import scores

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

SETTINGS = "scoring.json"
PACKAGE = "mlops_assets"


def scored(pipeline: Pipeline, frame: pd.DataFrame, target: Target, cut: float | None) -> pd.DataFrame:
    """`score` (probability of the event, or the amount) and `prediction` (1.0 or 0.0 by the cut, or the amount)."""
    found = scores(pipeline, frame, target)
    return pd.DataFrame({"score": found, "prediction": found if cut is None else (found >= cut).astype("float64")})


class Scorer:
    """What MLflow calls: `predict(frame)` gives a frame with `score` and `prediction`."""

    def __init__(self, pipeline: Pipeline, target: Target, cut: float | None) -> None:
        self.pipeline = pipeline
        self.target = target
        self.cut = cut

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Scores of the rows of `frame`; further columns don't matter. MLflow passes no `params`."""
        return scored(self.pipeline, frame, self.target, self.cut)


def write_settings(folder: Path, estimator: str, target: Target, cut: float | None, *, allow_pickle: bool) -> None:
    """Write what `_load_pyfunc` reads beside the pipeline's file."""
    settings = {"estimator": estimator, "target": target.model_dump(), "cut": cut, "pickle": allow_pickle}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1))


def copy_code(package: Path) -> None:
    """Copy the modules that scoring takes into the new folder `package`."""
    here = Path(__file__).resolve().parent.parent
    for name in scoring_modules():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here / name, package / name)


@functools.lru_cache(maxsize=1)
def scoring_modules() -> tuple[str, ...]:
    """The files below the package that this module imports when it is loaded, and those of a stored pipeline.

    Imports within functions are left out: what needs them is not scoring.
    """
    here = Path(__file__).resolve().parent.parent
    found: set[Path] = set()
    waiting = [Path(__file__).resolve(), here / "training" / "encoding.py"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
                module = here.joinpath(*str(node.module).split(".")[1:])
                # `from package import module`, or `from module import name`; a package's own file comes along below.
                files = [module / f"{alias.name}.py" for alias in node.names] + [module.with_suffix(".py")]
                waiting += [file for file in files if file.is_file()]
    packages = {folder / "__init__.py" for path in found for folder in path.parents if folder.is_relative_to(here)}
    return tuple(sorted(path.relative_to(here).as_posix() for path in found | packages))


def _load_pyfunc(data_path: str) -> Scorer:
    """MLflow's entry point for `loader_module`."""
    folder = Path(data_path)
    settings = json.loads((folder / SETTINGS).read_text())
    pickles = {settings["estimator"]} if settings["pickle"] else set()
    pipeline, _ = model_file.read(folder, settings["estimator"], pickles=pickles)
    return Scorer(pipeline, Target(**settings["target"]), settings["cut"])
