"""Which files below MLOPS_HOME are the platform's, so that `reset` deletes these and nothing else.

A marker file says that a folder was made, or taken into use, by the platform, and what was in it before. Within the
folder a file is the platform's when it has the place and the name that the platform gives its files; everything else,
whatever folder it is in, belongs to somebody else. Symbolic links are never followed; those of the lake are its own.
Homes without a marker, of earlier versions, are recognised by their incident store or by a partition of their lake.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.home import PROJECT, Home

MARKER = ".mlops-home.json"
LOCK = ".mlops-home.lock"
DOWNLOADED = ".downloaded"
LAKE_METADATA = b"mlops_assets"
# What makes a folder somebody's project rather than a place for generated files.
PROJECT_FILES = (".git", ".hg", "pyproject.toml", "setup.py", "setup.cfg", "package.json", "Cargo.toml", "go.mod")

_NAME = r"[A-Za-z_]\w*"
_PERIOD = r"\d{4}-\d{2}(-\d{2})?"
_OWN_FILES = (
    r"store\.db(-wal|-shm|-journal|\.lock)?|alerts\.jsonl|\.evidently\.lock|" + r"\.mlops-home\.[^/]+",
    rf"lake/{_NAME}/{_NAME}/period=[^/]+/(data\.parquet|\.[^/]+)|lake/{_NAME}/\.[^/]+|lake/\.[^/]+",
    r"mlflow/mlflow\.db[^/]*",
    rf"optuna/{_NAME}/{_PERIOD}\.journal[^/]*",
    rf"reports/{_NAME}/{_PERIOD}\.html",
    r"logs/(dagster|mlflow|evidently|reports)\.log",
)
_OWN_FILE = re.compile("|".join(f"(?:{pattern})" for pattern in _OWN_FILES))
# Folders that Dagster, MLflow and Evidently fill with names of their own choice, each with what it is known by.
_KEPT_BY_OTHERS = {"dagster": "dagster.yaml", "mlflow/artifacts": "../mlflow.db", "evidently": "*/metadata.json"}
_TOP = ("lake", "mlflow", "optuna", "reports", "evidently", "downloads", "dagster", "logs")


class NotOurs(RuntimeError):
    """A folder in which nothing may be deleted; the message says why."""


class InUse(RuntimeError):
    """Somebody works in the home; the message says what to do."""


@dataclass
class Inventory:
    """What is in a home: the platform's files, by the entry of the home that they are in, and what is not its own."""

    own: dict[str, list[Path]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def bytes(self, entry: str) -> int:
        return sum(path.lstat().st_size for path in self.own[entry] if path.is_symlink() or path.exists())


def claim(home: Home) -> None:
    """Mark the home as the platform's before its first file is written; a marked one stays as it is."""
    marker = home.root / MARKER
    if marker.exists():
        return
    home.root.mkdir(parents=True, exist_ok=True)
    before = [] if _is_recognised(home.root) else sorted(entry.name for entry in home.root.iterdir())
    content = {
        "note": "This folder is kept by mlops_assets; `mlops-assets reset` deletes what it wrote here, nothing else.",
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "there_before": before,
    }
    temporary = home.root / f"{MARKER}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(marker)


def note_download(downloads: Path, path: Path) -> None:
    """Remember that a file below `downloads` was put there by the platform."""
    name, listed = path.relative_to(downloads).as_posix(), downloads / DOWNLOADED
    if listed.is_file() and name in listed.read_text().splitlines():
        return
    with listed.open("ab", buffering=0) as file:  # one write call: lines of processes don't mix
        file.write(f"{name}\n".encode())


@contextlib.contextmanager
def in_use(home: Home) -> Iterator[None]:
    """Keeps `reset` away while a command or its servers work in the home; many may at once."""
    claim(home)
    with (home.root / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def not_in_use(home: Home) -> Iterator[None]:
    """Nobody else works in the home meanwhile. Raises InUse when somebody does."""
    with (home.root / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(
                f"{home.root} is in use by another command or by `mlops-assets dev`, so nothing is deleted. Wait until "
                "it has ended, or stop it"
            ) from error
        yield


def check_place(root: Path) -> None:
    """Raise NotOurs for a folder that can't be a home: /, somebody's home directory, a project's folder."""
    resolved, users = root.resolve(), Path.home().resolve()
    why = None
    if resolved.parent == resolved:
        why = "the root of the file system"
    elif resolved == users or resolved in users.parents:
        why = "your home directory, or a folder above it"
    elif resolved == PROJECT or resolved in PROJECT.parents:
        why = "the folder of mlops_assets itself, or one above it"
    elif found := next((name for name in PROJECT_FILES if (resolved / name).exists()), None):
        why = f"the folder of a project (it has {found})"
    if why is not None:
        raise NotOurs(
            f"MLOPS_HOME is {root}, which is {why}. Nothing is deleted there. Set MLOPS_HOME to a folder of its own, "
            "or delete by hand what you don't need"
        )


def inventory(home: Home) -> Inventory:
    """What is the platform's below a home, and what is not.

    Raises:
        NotOurs: the folder has neither a marker nor anything by which a home is recognised.
    """
    found = Inventory()
    if not home.root.is_dir() or not any(home.root.iterdir()):
        return found
    check_place(home.root)
    names = sorted(entry.name for entry in home.root.iterdir())
    if not any(name in _TOP or _OWN_FILE.fullmatch(name) for name in names):
        found.others = names
        return found
    before = _there_before(home.root)
    for entry in sorted(home.root.iterdir()):
        own, others = _sorted_out(home.root, entry, before)
        if own:
            found.own[entry.name] = own
        found.others += others
    return found


def delete(home: Home, found: Inventory) -> None:
    """Delete the platform's files and the folders that are empty without them; the marker goes last."""
    paths = [path for files in found.own.values() for path in files if path.name not in (MARKER, LOCK)]
    for path in paths:
        path.unlink(missing_ok=True)
    folders = {folder for path in paths for folder in path.parents if home.root in folder.parents}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        # Dagster and Evidently make folders that stay empty.
        for below, _, _ in os.walk(folder, topdown=False) if _kept_by_others(home.root, folder) else ():
            _remove_empty(Path(below))
        _remove_empty(folder)
    for name in (MARKER, LOCK):
        (home.root / name).unlink(missing_ok=True)


def _sorted_out(root: Path, entry: Path, before: set[str]) -> tuple[list[Path], list[str]]:
    """The files of the platform below one entry of the home, and the names of what is not its own."""
    if entry.is_symlink() or entry.name in before or (entry.is_dir() and entry.name not in _TOP):
        leads = f" (a link to {entry.readlink()})" if entry.is_symlink() else ""
        was = " (was there before)" if entry.name in before else ""
        return [], [f"{entry.name}{leads}{was}"]
    if not entry.is_dir():
        return ([entry], []) if _OWN_FILE.fullmatch(entry.name) else ([], [entry.name])
    is_own = _rule(root)
    own, others = [], []
    for path in _files(entry):
        name = path.relative_to(root).as_posix()
        (own.append(path) if is_own(name) else others.append(name))
    return own, others


def _rule(root: Path) -> Callable[[str], bool]:
    """Whether a file, by its name below the home, is one that the platform wrote."""
    listed = root / "downloads" / DOWNLOADED
    downloaded = {DOWNLOADED, *(listed.read_text().splitlines() if listed.is_file() else [])}
    whole = tuple(f"{name}/" for name in _KEPT_BY_OTHERS if _kept_by_others(root, root / name))

    def is_own(name: str) -> bool:
        if name.startswith("downloads/"):
            return name.removeprefix("downloads/") in downloaded
        return name.startswith(whole) or _OWN_FILE.fullmatch(name) is not None

    return is_own


def _kept_by_others(root: Path, folder: Path) -> bool:
    """Whether a folder is, or lies in, one that Dagster, MLflow or Evidently filled for the platform."""
    for name, known_by in _KEPT_BY_OTHERS.items():
        kept = root / name
        if folder == kept or kept in folder.parents:
            return kept.is_dir() and not kept.is_symlink() and (any(kept.glob(known_by)) or not any(_files(kept)))
    return False


def _files(folder: Path) -> Iterator[Path]:
    """All files and links below a folder; links to folders are links, and not gone through."""
    for below, folders, files in os.walk(folder, followlinks=False):
        yield from (Path(below) / name for name in sorted(files))
        yield from (path for name in sorted(folders) if (path := Path(below) / name).is_symlink())


def _there_before(root: Path) -> set[str]:
    marker = root / MARKER
    if marker.is_file() and not marker.is_symlink():
        try:
            return set(json.loads(marker.read_text())["there_before"])
        except (ValueError, KeyError, TypeError) as error:
            raise NotOurs(
                f"{marker} can't be read ({error}), so nobody knows what of {root} was made by mlops_assets. Delete by "
                "hand what you don't need"
            ) from error
    if _is_recognised(root):
        return set()
    raise NotOurs(
        f"{root} was not made by mlops_assets: it has no {MARKER}, no incident store and no lake of its own. Nothing "
        "is deleted. Is MLOPS_HOME the folder that you mean?"
    )


def _is_recognised(root: Path) -> bool:
    """Whether a folder without a marker is a home of an earlier version."""
    return _is_store(root / "store.db") or any(_is_partition(path) for path in _some_partitions(root / "lake"))


def _is_store(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
    ):
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {"alembic_version", "incidents", "leases"} <= tables
    return False


def _some_partitions(lake: Path) -> list[Path]:
    if lake.is_symlink() or not lake.is_dir():
        return []
    return [path for _, path in zip(range(5), lake.glob("*/*/period=*/data.parquet"), strict=False)]


def _is_partition(path: Path) -> bool:
    """Whether a Parquet file's footer, which is at its end, has the lake's entry."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(path.stat().st_size - (1 << 20), 0))
        return LAKE_METADATA in file.read()
    return False


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: what is in it is not ours
        folder.rmdir()
