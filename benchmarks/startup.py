"""How long it takes until there is something to work with."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.measurement import Measurement
from benchmarks.process import command, script

TITLE = "Start-up"
METHOD = """\
Whole processes, medians of repetitions in turns. Loading the code location is `python -c` with the import of
`mlops_assets.definitions`, the call of `defs()` and the resolution of its repository; an empty Dagster project is the
same with `load_from_defs_folder` over a project whose defs folder is empty."""
LOAD = "from {module}.definitions import defs; defs().get_repository_def()"
EMPTY = """\
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
EMPTY_PROJECT = """\
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "empty_project"
"""


def run(quick: bool) -> list[Measurement]:
    with tempfile.TemporaryDirectory(prefix="mlops_bench_") as scratch:
        root = Path(scratch)
        _write_empty_project(root)
        load_empty = f"import sys; sys.path.insert(0, {scratch!r}); {LOAD.format(module='empty_project')}"
        ours, empty, help_ = [], [], []
        for _ in range(3 if quick else 7):
            ours.append(command([sys.executable, "-c", LOAD.format(module="mlops_assets")], root / "home"))
            empty.append(command([sys.executable, "-c", load_empty], root / "home"))
            help_.append(command([script("mlops-assets"), "--help"], root / "home"))
    loaded, baseline = statistics.median(ours), statistics.median(empty)
    return [
        Measurement("loading the code location, beyond an empty Dagster project", loaded - baseline, "s", 1.0),
        Measurement("loading the code location", loaded, "s"),
        Measurement("loading an empty Dagster project", baseline, "s"),
        Measurement("mlops-assets --help", statistics.median(help_), "s", 1.0),
    ]


def _write_empty_project(root: Path) -> None:
    package = root / "empty_project"
    (package / "defs").mkdir(parents=True)
    for folder in (package, package / "defs"):
        (folder / "__init__.py").touch()
    (package / "definitions.py").write_text(EMPTY)
    (root / "pyproject.toml").write_text(EMPTY_PROJECT)
