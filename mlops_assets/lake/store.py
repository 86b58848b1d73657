"""The lake: one Parquet file per model, table and period, in a local folder or any fsspec URL.

    <lake>/<model>/<table>/period=<period>/data.parquet

A file appears whole or not at all, so any number of processes write and read at the same time without a
lock; when two write the same partition, the later one stays. In a local lake `data.parquet` is a link to a file
that is never changed (`.<version>.parquet`), because DuckDB opens a file twice, to plan a query and to run it:
when another file takes its place in between, it mixes both. A replaced version stays for an hour, for the
queries that still read it. In a remote lake the object is replaced; a query that is reading it then may fail.

A partition without rows still has its table's
columns, and the reason why it is empty. Facts about a partition (row count, digest, reason, the writer's own)
are in the file's footer, so no second store can disagree with the data.

Here: files and their footers. Queries over them are `lake.connection`.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.lake import objects, versions
from mlops_assets.lake.parquet import (
    METADATA_KEY,
    ROW_GROUP_ROWS,
    UNPARTITIONED,
    whole_row_groups,
    without_period,
    write_parquet,
)
from mlops_assets.lake.partition import DamagedPartition, MissingPartition, Partition, damaged_partition
from mlops_assets.lake.versions import FILE
from mlops_assets.outages import RetriedFileSystem, explain
from mlops_assets.redaction import redact, redacted

if TYPE_CHECKING:
    import duckdb
    from fsspec import AbstractFileSystem

__all__ = [
    "METADATA_KEY",
    "ROW_GROUP_ROWS",
    "UNPARTITIONED",
    "DamagedPartition",
    "Lake",
    "MissingDriver",
    "MissingPartition",
    "Partition",
    "identifier",
    "quoted",
]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PERIOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class MissingDriver(RuntimeError):
    """The package that reads a kind of URL is not installed."""


# What the footers of local partitions say, by path, file and time: their files are never changed, and gates, sensors
# and pages ask for the same ones again and again.
_FOOTERS: dict[tuple[object, ...], Partition] = {}
FOOTERS_KEPT = 100_000
# The versions whose bytes were compared with their SHA-256 in this process, and what is wrong with those that differ.
_VERIFIED: set[tuple[object, ...]] = set()
_DAMAGED: dict[tuple[object, ...], str] = {}


class Lake:
    """The partitions below one folder or URL.

    Args:
        url: a local folder (made at the first write), or an fsspec URL such as `s3://bucket/lake`.

    Raises:
        MissingDriver: no package for such a URL is installed.
    """

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        self._fs: AbstractFileSystem | None = None
        if text.startswith("file://"):
            text = url2pathname(text.removeprefix("file://"))
        if "://" in text:
            from upath import UPath

            root = UPath(text)
            try:
                found = root.fs
            except ImportError as error:
                what = explain(error) or f"it needs a package that is not installed: see fsspec ({error})"
                raise MissingDriver(f"the lake {redact(text)} can't be opened: {what}") from error
            self._fs = cast("AbstractFileSystem", RetriedFileSystem(found, f"the lake {redact(text)}"))
            self._root = root.path.rstrip("/")
            self.url = redact(text.rstrip("/"))
        else:
            self._root = str(Path(text).expanduser().resolve())
            self.url = self._root

    def __repr__(self) -> str:
        return f"Lake({self.url!r})"

    # -- writing -----------------------------------------------------------------------------------

    def write(
        self,
        model: str,
        table: str,
        period: str,
        data: pa.RecordBatchReader | pa.Table,
        *,
        reason: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Partition:
        """Write a partition, or replace it, in one step that readers see whole or not at all.

        The data is taken batch by batch: memory stays within a few row groups. When anything fails, the
        earlier partition stays as it was and nothing of the new one is left.

        The digest names the content: column names and types in their order, and the rows as a multiset, so
        the order of rows, the batch sizes and the file's encoding don't matter. It is the sum modulo 2^128 of
        DuckDB's 64-bit row hashes, with the row count, hashed together with the columns. So it depends on
        DuckDB's hash function, which may change between DuckDB versions, and is no safeguard against forgery.

        Args:
            data: the rows. A column `period` is left out when it repeats the partition's period, which the
                path already says; only an unpartitioned table (period "all") may hold one of its own.
            reason: why the partition is empty or withheld.
            facts: JSON-serialisable facts to keep with it.

        Raises:
            ValueError: a name, column or fact that the lake can't hold.
            OSError: the store can't be reached or is full.
        """
        url = self._path(model, table, period)
        reason, facts = redacted(reason), redacted(_json_facts(facts))
        batches = whole_row_groups(without_period(data, period))
        if self._fs is None:
            current = Path(url)
            with versions.new_version(current) as version:
                rows, digest = write_parquet(version, batches, table, period, reason, facts)
                size = version.stat().st_size
            versions.sweep_unused(current.parent.parent)
        else:
            with tempfile.TemporaryDirectory(prefix="mlops_assets_") as folder_name:
                local = Path(folder_name) / FILE
                rows, digest = write_parquet(local, batches, table, period, reason, facts)
                size = local.stat().st_size
                objects.put(self._fs, local, url)
        return Partition(model, table, period, self._public(url), rows, size, digest, reason, facts)

    # -- finding -----------------------------------------------------------------------------------

    def find(self, model: str, table: str, period: str, *, verify: bool = False) -> Partition | None:
        """The partition, or None when nobody has written it. One that is `damaged` says so and holds nothing else.

        Reads the file's footer, and all of its bytes when they are to be verified: once for a version in a process.

        Raises:
            OSError: the store can't be reached.
        """
        url = self._path(model, table, period)
        try:
            found = self._read(model, table, period, url)
            if found is not None and verify:
                self._verify(url)
        except DamagedPartition as damage:
            why = _what_to_do(model, table, period, damage)
            return damaged_partition(model, table, period, self._public(url), why)
        return found

    def _read(self, model: str, table: str, period: str, url: str) -> Partition | None:
        if self._fs is None:
            return self._read_local(model, table, period, url)
        try:
            size = int(self._fs.size(url) or 0)
            with self._fs.open(url, "rb") as file:
                footer = _footer(file, self._public(url))
        except FileNotFoundError:
            return None
        if _DAMAGED and (damage := _DAMAGED.get(objects.identity(self._fs, url))) is not None:
            raise DamagedPartition(damage)
        return self._from_footer(model, table, period, url, size, footer)

    def _read_local(self, model: str, table: str, period: str, url: str) -> Partition | None:
        try:
            identity = _identity(os.stat(url))  # noqa: PTH116 - in a hot loop
            known = _FOOTERS.get((url, *identity))
            if known is None:
                # One open file for all, so that its identity and its footer belong together when a writer replaces it.
                with open(url, "rb") as file:  # noqa: PTH123
                    stat = os.fstat(file.fileno())
                    footer = _footer(file, url)
                identity = _identity(stat)
                known = self._from_footer(model, table, period, url, stat.st_size, footer)
                if len(_FOOTERS) >= FOOTERS_KEPT:
                    _FOOTERS.clear()
                _FOOTERS[(url, *identity)] = known
        except FileNotFoundError:
            if Path(url).is_symlink():
                raise DamagedPartition(f"{url} leads to {os.readlink(url)}, which is not there") from None  # noqa: PTH115
            return None
        except NotADirectoryError:
            raise DamagedPartition(f"{Path(url).parent} is a file; expected a folder with {FILE}") from None
        except IsADirectoryError:
            raise DamagedPartition(f"{url} is a folder; expected a Parquet file") from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise DamagedPartition(f"{url} is a link that leads to itself") from None
        damage = _DAMAGED.get(identity)
        if damage is not None:
            raise DamagedPartition(damage)
        return replace(known, facts=dict(known.facts))

    def _require_bytes(self, model: str, table: str, period: str, path: str) -> None:
        """Raise DamagedPartition when the bytes of a file are not those that were written."""
        try:
            self._verify(path)
        except DamagedPartition as damage:
            raise DamagedPartition(_what_to_do(model, table, period, damage)) from None

    def _verify(self, path: str) -> None:
        """Compare the bytes of a file with their SHA-256, once in a process. Raises DamagedPartition."""
        identity = self._identity_of(path)
        if identity is None:
            raise DamagedPartition(f"{self._public(path)} is not there any more")
        if identity not in _VERIFIED and identity not in _DAMAGED:
            remote = self._fs
            damage = versions.damage(Path(os.path.realpath(path))) if remote is None else objects.damage(remote, path)
            if damage is not None:
                _DAMAGED[identity] = damage
            else:
                if len(_VERIFIED) >= FOOTERS_KEPT:
                    _VERIFIED.clear()
                _VERIFIED.add(identity)
        if identity in _DAMAGED:
            raise DamagedPartition(_DAMAGED[identity])

    def partition(self, model: str, table: str, period: str, *, verify: bool = False) -> Partition:
        """The partition. Raises MissingPartition when nobody has written it, DamagedPartition when it can't be read."""
        found = self.find(model, table, period, verify=verify)
        if found is None:
            raise MissingPartition(self._nothing_there(model, table, [period]))
        if found.damaged is not None:
            raise DamagedPartition(found.damaged)
        return found

    def newest_before(self, model: str, table: str, period: str) -> Partition | None:
        """The partition of the latest period before `period` that somebody has written, or None.

        Raises DamagedPartition when it can't be read: which one it is decides what is done.
        """
        earlier = [known for known in self.periods(model, table) if known < period]
        return self.partition(model, table, earlier[-1], verify=True) if earlier else None

    def periods(self, model: str, table: str) -> list[str]:
        """The written periods of a table, oldest first, damaged ones too. An unknown table has none."""
        folder = f"{self._root}/{_name(model, 'model')}/{_name(table, 'table')}"
        if self._fs is None:
            # A link that leads nowhere, or a file in place of a folder, was a partition.
            names = [e.name for e in _entries(folder) if os.path.lexists(f"{e.path}/{FILE}") or e.is_file()]
            return sorted(name.removeprefix("period=") for name in names if name.startswith("period="))
        self._fs.invalidate_cache()
        files = self._fs.glob(f"{glob.escape(folder)}/period=*/{FILE}")
        return sorted(str(file).split("/")[-2].removeprefix("period=") for file in files)

    def tables(self, model: str) -> list[str]:
        """The tables of a model that have at least one partition, by name."""
        folders = self._folders(f"{self._root}/{_name(model, 'model')}")
        return [name for name in folders if self.periods(model, name)]

    def models(self) -> list[str]:
        """The models that have at least one table, by name."""
        return [name for name in self._folders(self._root) if self.tables(name)]

    # -- querying ----------------------------------------------------------------------------------

    def scan(self, model: str, table: str, periods: Iterable[str] | None = None) -> str:
        """A SQL table expression over a table's rows, for use after FROM on an attached connection.

        It has a `period` column (VARCHAR) besides the table's own. Columns are united by name: a column that
        an older partition doesn't have is NULL there. The expression names the files that are in force now:
        it keeps giving the same rows while partitions are replaced, for an hour, and then has to be made anew.

        The bytes of each file are verified, once for a version in a process.

        Raises:
            MissingPartition: a period, or with none given the whole table, is not there.
            DamagedPartition: one can't be read, or its bytes have changed since they were written.
        """
        wanted = self.periods(model, table) if periods is None else list(periods)
        found = {period: self.find(model, table, period) for period in wanted}
        missing = [period for period, partition in found.items() if partition is None]
        if missing or not wanted:
            raise MissingPartition(self._nothing_there(model, table, missing))
        return self.scan_files(self.files(model, table, wanted))

    def files(self, model: str, table: str, periods: Iterable[str], *, verify: bool = True) -> list[str]:
        """The files that are in force now: local paths or URLs; see `scan`."""
        paths = {period: self._in_force(self._path(model, table, period)) for period in periods}
        for period, path in paths.items():
            self.partition(model, table, period)
            if verify:
                self._require_bytes(model, table, period, path)
        return [self._public(path) for path in paths.values()]

    def scan_files(self, files: Sequence[str]) -> str:
        """A SQL table expression over files of one table; see `scan`."""
        # DuckDB takes every path as a glob, so it has to be escaped.
        listed = ", ".join(quoted(glob.escape(file)) for file in files)
        if len(files) == 1 and f"/period={UNPARTITIONED}/" in files[0] and "period" in self._schema(files[0]).names:
            # DuckDB would show the folder's name in place of the file's column.
            return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = true, can_have_nan = true)"
        return (
            f"read_parquet([{listed}], hive_partitioning = true, hive_types = {{'period': VARCHAR}}, "
            # Otherwise DuckDB takes a file's statistics, which leave NaN out, for proof that there is none.
            "union_by_name = true, can_have_nan = true)"
        )

    def sound(self, model: str, table: str, *, verify: bool = False) -> tuple[list[str], dict[str, str]]:
        """The periods of a table that can be read, and for each of the others what is wrong with it."""
        found = {period: self.find(model, table, period, verify=verify) for period in self.periods(model, table)}
        damaged = {period: made.damaged for period, made in found.items() if made is not None and made.damaged}
        return [period for period, made in found.items() if made is not None and not made.damaged], damaged

    def forget_verified(self) -> None:
        """Let bytes that were compared before be compared again."""
        _VERIFIED.clear()
        _DAMAGED.clear()

    def known_damage(self, model: str) -> list[list[object]]:
        """Identity and damage of the model's files whose bytes are known to have changed; see `remember_damage`."""
        if not _DAMAGED:
            return []
        known: list[list[object]] = []
        for table in self.tables(model):
            for period in self.periods(model, table):
                identity = self._identity_of(self._path(model, table, period))
                if identity in _DAMAGED:
                    known.append([list(identity), _DAMAGED[identity]])
        return known

    def remember_damage(self, known: Iterable[Sequence[Any]]) -> None:
        """Take over what another process has found out about the bytes of files that are still the same."""
        _DAMAGED.update((tuple(identity), str(damage)) for identity, damage in known)

    def write_note(self, model: str, name: str, text: str) -> None:
        """Keep a text beside the tables of a model, in one step."""
        path = self._note(model, name)
        if self._fs is None:
            versions.write_whole(Path(path), text)
        else:
            self._fs.pipe_file(path, text.encode())

    def read_note(self, model: str, name: str) -> str | None:
        """A text that was kept beside the tables of a model, None when there is none."""
        path = self._note(model, name)
        try:
            content = Path(path).read_bytes() if self._fs is None else self._fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return bytes(content).decode(errors="replace")

    def schema(self, model: str, table: str) -> pa.Schema:
        """The columns of the table's newest partition that can be read, without `period`."""
        periods, _ = self.sound(model, table)
        if not periods:
            raise MissingPartition(self._nothing_there(model, table, []))
        return self._schema(self._path(model, table, periods[-1]))

    def _schema(self, path: str) -> pa.Schema:
        if self._fs is None:
            return pq.read_schema(path).remove_metadata()
        with self._fs.open(path, "rb") as file:
            return pq.read_schema(file).remove_metadata()

    def attach(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """Make a connection able to read this lake's URLs; a local lake needs nothing."""
        if self._fs is not None:
            protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
            if not protocols & set(con.list_filesystems()):
                con.register_filesystem(cast("RetriedFileSystem", self._fs).inner)
        return con

    # -- names and paths ---------------------------------------------------------------------------

    def _folder(self, model: str, table: str) -> str:
        return f"{self._root}/{_name(model, 'model')}/{_name(table, 'table')}"

    def _path(self, model: str, table: str, period: str) -> str:
        if not _PERIOD.fullmatch(period):
            raise ValueError(f"{period!r} can't name a period; expected e.g. '2021-03' or '2014-01-06'")
        return f"{self._folder(model, table)}/period={period}/{FILE}"

    def _note(self, model: str, name: str) -> str:
        return f"{self._root}/{_name(model, 'model')}/.{name}.json"

    def _identity_of(self, path: str) -> tuple[object, ...] | None:
        """What tells the file that a path leads to from any other; None when it leads to none."""
        try:
            return _identity(os.stat(path)) if self._fs is None else objects.identity(self._fs, path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _in_force(self, path: str) -> str:
        """The file that a partition's path leads to now."""
        return path if self._fs is not None else os.path.realpath(path)

    def _public(self, path: str) -> str:
        return path if self._fs is None else str(self._fs.unstrip_protocol(path))

    def _folders(self, folder: str) -> list[str]:
        if self._fs is None:
            names = [entry.name for entry in _entries(folder) if entry.is_dir()]
        else:
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(folder, detail=True)
            except FileNotFoundError:
                return []
            names = [str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in found]
        return sorted(name for name in names if _NAME.fullmatch(name))

    def _from_footer(
        self, model: str, table: str, period: str, url: str, size: int, footer: pq.FileMetaData
    ) -> Partition:
        written = (footer.metadata or {}).get(METADATA_KEY.encode())
        where = self._public(url)
        if written is None:
            raise DamagedPartition(f"{where} was not written by the lake: its footer has no '{METADATA_KEY}' entry")
        try:
            known = json.loads(written)
            digest, reason, facts, rows = known["digest"], known["reason"], known["facts"], known["rows"]
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedPartition(
                f"the '{METADATA_KEY}' entry in the footer of {where} can't be read: {error!r}"
            ) from error
        if not (isinstance(digest, str) and isinstance(reason, str | None) and isinstance(facts, dict)):
            raise DamagedPartition(f"the '{METADATA_KEY}' entry in the footer of {where} has values of other types")
        if rows != footer.num_rows:
            raise DamagedPartition(f"{where} has {footer.num_rows} rows, its footer says {rows}")
        # Not in files that were written before this was kept.
        belongs = (known.get("table", table), known.get("period", period))
        if belongs != (table, period):
            raise DamagedPartition(f"{where} was written as {belongs[0]} of {belongs[1]}")
        return Partition(model, table, period, where, rows, size, digest, reason, facts)

    def _nothing_there(self, model: str, table: str, missing: Sequence[str]) -> str:
        known = self.periods(model, table)
        lacks = ", ".join(missing) or "partition at all"
        there = f"it has {known[0]} to {known[-1]}, {len(known)} in all" if known else "the table is empty"
        command = f"mlops-assets backfill {model} {missing[0] if missing else 'FROM..TO'}"
        return f"{model}/{table} has no {lacks} in {self.url} ({there}); materialize it, e.g. {command}"


def quoted(text: str) -> str:
    """The text as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _name(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} can't name a {what}; expected letters, digits and underscores, no digit first")
    return name


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _json_facts(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        # Through JSON and back, so that what `write` returns is what `find` will return.
        return dict(json.loads(json.dumps(dict(facts or {}), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the facts of a partition must be JSON: {error}") from error


def _identity(stat: os.stat_result) -> tuple[object, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _footer(file: Any, where: str) -> pq.FileMetaData:
    """The footer of an open file. Raises DamagedPartition."""
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow raises OSError too for what it can't read; one of the system has a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedPartition(f"{where} is not a readable Parquet file ({error})") from error


def _what_to_do(model: str, table: str, period: str, damage: DamagedPartition) -> str:
    again = f"materialize it again, e.g. mlops-assets backfill {model} {period}"
    return f"{model}/{table} of {period} is damaged: {damage}; {again}"
