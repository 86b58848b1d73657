"""The files of a partition in a local folder: versions that are never changed, and the SHA-256 of their bytes.

`data.parquet` is a link to the version in force. A version's name holds its hash, `.<id>.<sha256>.parquet`, so that the
two can't be separated. Versions that were written without one, `.<id>.parquet`, get it on first use, in a record
`.<id>.sha256` beside them. Neither says what the bytes should have been before that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

FILE = "data.parquet"
UNUSED_AFTER_SECONDS = 3600

_NAMED = re.compile(r"\.[0-9a-f]{32}\.(?P<sha256>[0-9a-f]{64})\.parquet")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@contextlib.contextmanager
def new_version(current: Path) -> Iterator[Path]:
    """A path to write a version of the partition `current` to. It is put in force, unless an error leaves the block."""
    _make_room(current)
    current.parent.mkdir(parents=True, exist_ok=True)
    version = current.with_name(f".{uuid.uuid4().hex}.parquet")
    with _removed_on_failure(version):
        yield version
        named = version.with_name(f"{version.stem}.{sha256_of(version)}.parquet")
        with version.open("rb") as file:
            os.fsync(file.fileno())
        version.chmod(0o444)  # DuckDB writes to any file that it may read, if the system lets it
        version.rename(named)
    with _removed_on_failure(named):
        _put_in_force(named, current)


def write_whole(path: Path, text: str) -> None:
    """Write a text file that readers see whole or not at all."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    with _removed_on_failure(temporary):
        temporary.write_text(text)
        temporary.replace(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_sha256(version: Path) -> str | None:
    """What the bytes of a version should hash to; None when nobody has recorded it yet. Raises ValueError."""
    named = _NAMED.fullmatch(version.name)
    if named is not None:
        return named["sha256"]
    record = _record(version)
    try:
        text = record.read_bytes()
    except FileNotFoundError:
        return None
    sha256 = text.decode("ascii", errors="replace").strip()
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"its record {record.name} holds no SHA-256")
    return sha256


def record_sha256(version: Path, sha256: str) -> None:
    """Record what the bytes of a version without a hash in its name hash to.

    In a folder that can't be written to nothing is recorded.
    """
    try:
        write_whole(_record(version), sha256)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def damage(version: Path) -> str | None:
    """What is wrong with the bytes of a version; None when they hash to what was recorded, or nothing was."""
    found = sha256_of(version)
    try:
        expected = recorded_sha256(version)
    except ValueError as error:
        return f"the bytes of {version} can't be compared: {error}"
    if expected is None:
        record_sha256(version, found)
    elif found != expected:
        return f"the bytes of {version} have the SHA-256 {found}; expected {expected}"
    return None


def _record(version: Path) -> Path:
    name = version.name.removesuffix(".parquet")
    return version.with_name(f"{name if name.startswith('.') else '.' + name}.sha256")


def _make_room(current: Path) -> None:
    """Move aside what can't be replaced by a link: a folder in place of the file, a file in place of its folder."""
    for place, in_the_way in ((current.parent, Path.is_file), (current, Path.is_dir)):
        if in_the_way(place) and not place.is_symlink():
            place.rename(place.with_name(f".{uuid.uuid4().hex}.{place.name}.aside"))


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _put_in_force(version: Path, current: Path) -> None:
    """Let the partition's path lead to another version, in one step."""
    replaced = Path(os.path.realpath(current))
    link = current.with_name(f".{uuid.uuid4().hex}.tmp")
    with _removed_on_failure(link):
        link.symlink_to(version.name)
        os.replace(link, current)  # noqa: PTH105 - the atomic step deserves its plain name
    with contextlib.suppress(OSError):  # the first version, one that another writer has swept, or none that it leads to
        os.utime(replaced) if replaced != current else None
    _record(current).unlink(missing_ok=True)  # of a file that was no link


def sweep_unused(table: Path) -> None:
    """Remove the versions of a table that were replaced, or left by a killed writer, an hour ago or earlier.

    Their time of change says when: a replaced version is touched, and one that is being written grows.
    """
    for path in [*table.glob("period=*/.*.parquet"), *table.glob("period=*/.*.tmp")]:
        try:
            unused = time.time() - path.lstat().st_mtime > UNUSED_AFTER_SECONDS
            if unused and path != Path(os.path.realpath(path.with_name(FILE))):
                path.unlink()
                _record(path).unlink(missing_ok=True)
        except (FileNotFoundError, IsADirectoryError):  # another writer swept it first; no file of the lake
            continue
