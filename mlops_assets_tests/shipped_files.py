"""Which files of the project ship: a checkout may hold a model of one's own too, as docs/tutorial.md adds one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mlops_assets.home import PROJECT


def shipped(folder: Path, project: Path = PROJECT) -> set[Path]:
    """The files below a folder of the project: those that git tracks where there is git, otherwise all."""
    files = {path for path in folder.rglob("*") if path.is_file()}
    if (project / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True, check=True)
        files &= {folder / name for name in listed.stdout.split("\0")}
    return files
