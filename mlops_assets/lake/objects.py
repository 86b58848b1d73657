"""The objects of a partition in a remote store, and the SHA-256 of their bytes.

There is one object, `data.parquet`, which is replaced. Before it is put, an empty record is, whose name holds the time
and the hash, `.<seconds>.<sha256>.sha256`. So the records say what any writer has put there, and two writers at once
can't separate an object from its record: an object that hashes to none of them was changed by somebody else. Objects
without any record, written before there were any, get one on first use.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.lake.versions import UNUSED_AFTER_SECONDS, sha256_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_RECORD = re.compile(r"\.(?P<seconds>\d+)\.(?P<sha256>[0-9a-f]{64})\.sha256")
_CHUNK_BYTES = 8 * 1024 * 1024


def put(fs: AbstractFileSystem, local: Path, url: str) -> None:
    """Put a file in place of the object `url`, its record first."""
    folder = url.rpartition("/")[0]
    fs.makedirs(folder, exist_ok=True)
    sha256 = sha256_of(local)
    _record(fs, folder, sha256)
    fs.put_file(str(local), url)
    outdated = time.time() - UNUSED_AFTER_SECONDS
    for path, (seconds, recorded) in _records(fs, folder).items():
        if seconds < outdated and recorded != sha256:
            fs.rm_file(path)


def identity(fs: AbstractFileSystem, url: str) -> tuple[object, ...]:
    """What tells the object from another one that takes its place. Raises FileNotFoundError."""
    fs.invalidate_cache(url.rpartition("/")[0])
    return (url, str(fs.ukey(url)))


def damage(fs: AbstractFileSystem, url: str) -> str | None:
    """What is wrong with the bytes of an object; None when they hash to what was recorded, or nothing was."""
    hashed = hashlib.sha256()
    with fs.open(url, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashed.update(chunk)
    found, folder = hashed.hexdigest(), url.rpartition("/")[0]
    recorded = {sha256 for _, sha256 in _records(fs, folder).values()}
    if not recorded:
        _record(fs, folder, found)
    elif found not in recorded:
        expected = " or ".join(sorted(recorded))
        return f"the bytes of {fs.unstrip_protocol(url)} have the SHA-256 {found}; expected {expected}"
    return None


def _record(fs: AbstractFileSystem, folder: str, sha256: str) -> None:
    fs.pipe_file(f"{folder}/.{int(time.time())}.{sha256}.sha256", b"")


def _records(fs: AbstractFileSystem, folder: str) -> dict[str, tuple[int, str]]:
    """Time and hash of the records in a folder, by path."""
    fs.invalidate_cache(folder)
    paths = [str(path) for path in fs.ls(folder, detail=False)]
    found = {path: _RECORD.fullmatch(path.rpartition("/")[2]) for path in paths}
    return {path: (int(match["seconds"]), match["sha256"]) for path, match in found.items() if match is not None}
