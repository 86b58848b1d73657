"""Where a period's file is: below the data folder, downloaded earlier, or fetched from its address."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.outages import answered, retried, transient
from mlops_assets.ownership import note_download
from mlops_assets.redaction import redact
from mlops_assets.sources.declaration import Source

CONNECT_SECONDS, READ_SECONDS = 10, 60


class NoData(LookupError):
    """A period's file is nowhere to be had. The message holds no secrets of the source's addresses."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


@dataclass(frozen=True)
class Located:
    """A file that is on this machine now, and where it came from, without the secrets of its address."""

    path: Path
    origin: str


def locate(source: Source, period: str, data_dir: Path, downloads: Path) -> Located:
    """The period's file: below `data_dir`, else an earlier download, else fetched from the source's `url`.

    A path that is an fsspec URL is copied anew each time, because it may have changed.

    Raises:
        NoData: none of these has it; the message says where was looked and what was answered.
    """
    path = source.path.replace("{period}", period)
    if "://" in path:
        return _copied(path, downloads)
    local, downloaded = data_dir / path, downloads / path
    if local.is_dir():
        raise NoData(
            f"{local} is a folder, and one file is expected; put the data into one file, or name a file within the "
            "folder in source.path"
        )
    if local.is_file():
        return Located(local, f"file {path}")
    looked = f"no file {local}"
    if source.url is None:
        if downloaded.is_file():
            return Located(downloaded, f"file {path} in {downloads.name}")
        what_to_do = source.advice or "put the file there"
        raise NoData(f"{looked}, and the source has no url to fetch it from; {what_to_do}")
    url = source.url.replace("{period}", period)
    if not downloaded.is_file():
        _download(url, downloaded, looked)
        note_download(downloads, downloaded)
    return Located(downloaded, redact(url))


def _copied(url: str, downloads: Path) -> Located:
    target = downloads / _file_name(url)
    try:
        retried(lambda: _get(url, target), f"the source {redact(url)}", answered)
    except Exception as error:
        if transient(error):  # fsspec's HTTP says "not found" because of it
            cause = error.__cause__ or error
            raise NoData(
                f"{url} could not be read ({type(cause).__name__}: {cause}); check that its server can be reached"
            ) from error
        if isinstance(error, FileNotFoundError):
            raise NoData(f"no file {url}; put it there, or correct the source's path") from error
        raise
    note_download(downloads, target)
    return Located(target, redact(url))


def _get(url: str, target: Path) -> None:
    from upath import UPath

    remote = UPath(url)
    # Not by isfile or exists, which take any error for "no".
    if remote.fs.info(remote.path)["type"] != "file":
        raise FileNotFoundError(url)
    with Arriving(target) as temporary:
        remote.fs.get_file(remote.path, str(temporary))


def _file_name(url: str) -> str:
    """The name of the copy of a remote file: its address without secrets, told apart by a hash of the whole."""
    shown = redact(url)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", shown)
    return name if shown == url else f"{hashlib.sha256(url.encode()).hexdigest()[:12]}_{name}"


def _download(url: str, target: Path, looked: str) -> None:
    import requests

    what_to_do = f"put the file there, or fetch {url} by hand"
    try:
        retried(lambda: _fetch(url, target), f"the source {redact(url)}", answered)
    except requests.HTTPError as error:
        answer = error.response
        raise NoData(f"{looked}, and {url} answered {answer.status_code} {answer.reason}; {what_to_do}") from error
    except requests.RequestException as error:
        cause = f"{type(error).__name__}: {error}"
        raise NoData(f"{looked}, and {url} could not be fetched ({cause}); {what_to_do}") from error


def _fetch(url: str, target: Path) -> None:
    import requests

    with (
        Arriving(target) as temporary,
        requests.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as answer,
    ):
        answer.raise_for_status()
        with temporary.open("wb") as file:
            for chunk in answer.iter_content(1 << 20):
                file.write(chunk)


class Arriving:
    """A temporary file beside the target: it takes its place when the block succeeds, else it disappears."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        return self._temporary

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            os.replace(self._temporary, self._target)  # noqa: PTH105 - the atomic step
        else:
            self._temporary.unlink(missing_ok=True)
