"""The files of a logged model: where they lie, a private copy of them, and their digest.

What is read is never a file that somebody may still change: the files are copied into a private folder first, and the
digest is that of the copy. Locations in MLflow's database are absolute. Those below the artifacts of a home are taken
as below the artifacts of the present home, so that a home may be moved or copied; `relocate` writes them anew.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlparse

from mlops_assets.training.model_file import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_FILES = 1_000
MARK = "/mlflow/artifacts/"  # in each location below a home
# The columns of MLflow's database that hold locations of artifacts.
LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}


class MissingFiles(FileNotFoundError):
    """The files of a model are not where MLflow says."""


class TooLarge(ValueError):
    """The files of a model are more, or larger, than what is read."""


def digest(folder: Path) -> str:
    """SHA-256 (hex) over the files of a folder: their paths relative to it, sorted, and what is in each."""
    whole = hashlib.sha256()
    for path in sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise TooLarge(f"{path.name} among the model's files is neither a file nor a folder")
        if path.is_file():
            yield path


def copy(location: str, target: Path, tracking_uri: str, artifacts: Path | None = None) -> None:
    """Copy the files at a location, a path or any address that MLflow reads, into the new folder `target`.

    Raises
    ------
    MissingFiles
        There is nothing at that location.
    TooLarge
        There are more than `MOST_FILES` files or `MOST_BYTES` bytes.
    """
    local = local_path(location, artifacts)
    if local is None:
        _download(location, target, tracking_uri)
        return
    if not local.is_dir():
        raise MissingFiles(f"there is no folder {local}")
    found = list(_files(local))
    _bounded(len(found), sum(path.stat().st_size for path in found), str(local))
    for path in found:
        into = target / path.relative_to(local)
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, into, follow_symlinks=False)


def _bounded(files: int, size: int, where: str) -> None:
    if files > MOST_FILES or size > MOST_BYTES:
        raise TooLarge(
            f"{where} holds {files:,} files with {size:,} bytes; at most {MOST_FILES:,} files and {MOST_BYTES:,} bytes "
            "of a model are read"
        )


def _download(location: str, target: Path, tracking_uri: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store = get_artifact_repository(artifact_uri=location, tracking_uri=tracking_uri)
    sizes: list[int] = []
    folders: list[str | None] = [None]
    while folders:
        for entry in store.list_artifacts(folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                sizes.append(int(entry.file_size or 0))
            _bounded(len(sizes) + len(folders), sum(sizes), location)
    if not sizes:
        raise MissingFiles(f"there are no files at {location}")
    target.mkdir(parents=True, exist_ok=True)
    store.download_artifacts("", dst_path=str(target))


def local_path(location: str, artifacts: Path | None = None) -> Path | None:
    """The local folder of a location, None when it is not on this machine.

    A location below the artifacts of a home is the one below `artifacts` when that is there.
    """
    if not location.startswith(("file:", "/")):
        return None
    path = Path(location if location.startswith("/") else unquote(urlparse(location).path))
    _, mark, rest = str(path).rpartition(MARK)
    if artifacts is not None and mark and (artifacts / rest).exists():
        return artifacts / rest
    return path


@dataclass(frozen=True)
class Relocated:
    """How many locations of which table were written anew."""

    table: str
    rows: int


def has_moved(location: str, artifacts: Path) -> bool:
    """Whether a location is below the artifacts of a home that was at another place."""
    path = str(local_path(location) or "")
    return MARK in path and not Path(path).is_relative_to(artifacts)


def relocate(tracking_uri: str, artifacts: Path) -> list[Relocated]:
    """Let the locations in a home's MLflow database lead to `artifacts`, where the home is now.

    Locations outside of any home (a bucket, a folder of one's own) stay. Doing it again changes nothing; all of it
    happens, or nothing.

    Raises ValueError for a database that is not an SQLite file: a server's artifacts don't move with a home.
    """
    if not tracking_uri.startswith("sqlite:///"):
        raise ValueError(
            f"the tracking store is {urlparse(tracking_uri).scheme}://…; only the SQLite database of a home is "
            "relocated. Artifacts of a server are moved by its own means"
        )
    database = Path(tracking_uri.removeprefix("sqlite:///"))
    if not database.is_file():
        raise ValueError(f"there is no MLflow database {database}; is MLOPS_HOME the home that was moved?")
    done = []
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for table, columns in LOCATIONS.items():
                rows: set[Any] = set()
                for column in columns:
                    rows |= _rewrite(connection, table, column, artifacts)
                done.append(Relocated(table, len(rows)))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return [entry for entry in done if entry.rows]


def _rewrite(connection: sqlite3.Connection, table: str, column: str, artifacts: Path) -> set[Any]:
    found = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE '%{MARK}%'").fetchall()
    changed = set()
    for row, location in found:
        if not has_moved(location, artifacts):
            continue
        rest = location.rpartition(MARK)[2]
        new = f"{artifacts}/{rest}" if location.startswith("/") else f"file://{quote(str(artifacts))}/{rest}"
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, row))
        changed.add(row)
    return changed
