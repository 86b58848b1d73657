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

import atexit
import contextlib
import functools
import glob
import hashlib
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.redaction import redact, redacted

if TYPE_CHECKING:
    import duckdb
    from fsspec import AbstractFileSystem

METADATA_KEY = "mlops_assets"
ROW_GROUP_ROWS = 122_880  # DuckDB's own row group size: its scans run one row group per thread
UNPARTITIONED = "all"  # the period of a table that has no periods

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PERIOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FILE = "data.parquet"
_UNUSED_AFTER_SECONDS = 3600


class MissingPartition(LookupError):
    """A partition was asked for that nobody has written."""


class DamagedPartition(RuntimeError):
    """A file that lies where a partition belongs, but was not written by the lake or was changed since."""


@dataclass(frozen=True)
class Partition:
    """One written partition.

    Attributes:
        url: where the Parquet file is: a local path or an fsspec URL.
        rows: number of rows.
        bytes: size of the file.
        digest: what the rows are, whatever their order; see `Lake.write`.
        reason: why there are no rows, or why they are not to be used; None when all is well.
        facts: what the writer wanted to be known about the rows.
    """

    model: str
    table: str
    period: str
    url: str
    rows: int
    bytes: int
    digest: str
    reason: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


# What the footers of local partitions say, by path, file and time: their files are never changed, and gates, sensors
# and pages ask for the same ones again and again.
_FOOTERS: dict[tuple[str, int, int, int], Partition] = {}
FOOTERS_KEPT = 100_000


class Lake:
    """The partitions below one folder or URL.

    Args:
        url: a local folder (made at the first write), or an fsspec URL such as `s3://bucket/lake`.
    """

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        self._fs: AbstractFileSystem | None = None
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if "://" in text:
            from upath import UPath

            root = UPath(text)
            self._fs = root.fs
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
        batches = _whole_row_groups(_without_period(data, period))
        if self._fs is None:
            current = Path(url)
            current.parent.mkdir(parents=True, exist_ok=True)
            version = current.with_name(f".{uuid.uuid4().hex}.parquet")
            with _removed_on_failure(version):
                rows, digest = _write_parquet(version, batches, reason, facts)
                size = version.stat().st_size
                _put_in_force(version, current)
            _sweep_unused(current.parent.parent)
        else:
            with tempfile.TemporaryDirectory(prefix="mlops_assets_") as folder_name:
                local = Path(folder_name) / _FILE
                rows, digest = _write_parquet(local, batches, reason, facts)
                size = local.stat().st_size
                self._fs.makedirs(url.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(local), url)
        return Partition(model, table, period, self._public(url), rows, size, digest, reason, facts)

    # -- finding -----------------------------------------------------------------------------------

    def find(self, model: str, table: str, period: str) -> Partition | None:
        """The partition, or None when nobody has written it. Reads the file's footer only."""
        url = self._path(model, table, period)
        try:
            if self._fs is None:
                return self._find_local(model, table, period, url)
            size = int(self._fs.size(url) or 0)
            with self._fs.open(url, "rb") as file:
                footer = pq.read_metadata(file)
        except FileNotFoundError:
            return None
        except pa.ArrowInvalid as error:
            raise DamagedPartition(
                f"{self._public(url)} is not a readable Parquet file ({error}); "
                f"remove it and materialize {model}/{table} for {period} again"
            ) from error
        return self._from_footer(model, table, period, url, size, footer)

    def _find_local(self, model: str, table: str, period: str, url: str) -> Partition:
        known = _FOOTERS.get((url, *_identity(os.stat(url))))  # noqa: PTH116 - in a hot loop
        if known is None:
            # One open file for all, so that its identity and its footer belong together when a writer replaces it.
            with open(url, "rb") as file:  # noqa: PTH123
                stat = os.fstat(file.fileno())
                footer = pq.read_metadata(file)
            known = self._from_footer(model, table, period, url, stat.st_size, footer)
            if len(_FOOTERS) >= FOOTERS_KEPT:
                _FOOTERS.clear()
            _FOOTERS[(url, *_identity(stat))] = known
        return replace(known, facts=dict(known.facts))

    def partition(self, model: str, table: str, period: str) -> Partition:
        """The partition; `MissingPartition` when nobody has written it."""
        found = self.find(model, table, period)
        if found is None:
            raise MissingPartition(self._nothing_there(model, table, [period]))
        return found

    def newest_before(self, model: str, table: str, period: str) -> Partition | None:
        """The partition of the latest period before `period` that somebody has written, or None."""
        earlier = [known for known in self.periods(model, table) if known < period]
        return self.find(model, table, earlier[-1]) if earlier else None

    def periods(self, model: str, table: str) -> list[str]:
        """The written periods of a table, oldest first. An unknown table has none."""
        folder = f"{self._root}/{_name(model, 'model')}/{_name(table, 'table')}"
        if self._fs is None:
            names = (entry.name for entry in _entries(folder) if os.path.isfile(f"{entry.path}/{_FILE}"))  # noqa: PTH113
            return sorted(name.removeprefix("period=") for name in names if name.startswith("period="))
        self._fs.invalidate_cache()
        files = self._fs.glob(f"{glob.escape(folder)}/period=*/{_FILE}")
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

        Raises:
            MissingPartition: a period, or with none given the whole table, is not there.
        """
        known = self.periods(model, table)
        wanted = known if periods is None else list(periods)
        missing = [period for period in wanted if period not in set(known)]
        if missing or not wanted:
            raise MissingPartition(self._nothing_there(model, table, missing))
        # DuckDB takes every path as a glob, so it has to be escaped.
        paths = [glob.escape(self._in_force(self._path(model, table, period))) for period in wanted]
        files = ", ".join(quoted(self._public(path)) for path in paths)
        if wanted == [UNPARTITIONED] and self._has_own_period(model, table):
            # DuckDB would show the folder's name in place of the file's column.
            return f"read_parquet([{files}], hive_partitioning = false, union_by_name = true, can_have_nan = true)"
        return (
            f"read_parquet([{files}], hive_partitioning = true, hive_types = {{'period': VARCHAR}}, "
            # Otherwise DuckDB takes a file's statistics, which leave NaN out, for proof that there is none.
            "union_by_name = true, can_have_nan = true)"
        )

    def schema(self, model: str, table: str) -> pa.Schema:
        """The columns of the table's newest partition, without `period`."""
        periods = self.periods(model, table)
        if not periods:
            raise MissingPartition(self._nothing_there(model, table, []))
        url = self._path(model, table, periods[-1])
        if self._fs is None:
            return pq.read_schema(url).remove_metadata()
        with self._fs.open(url, "rb") as file:
            return pq.read_schema(file).remove_metadata()

    def attach(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """Make a connection able to read this lake's URLs; a local lake needs nothing."""
        if self._fs is not None:
            protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
            if not protocols & set(con.list_filesystems()):
                con.register_filesystem(self._fs)
        return con

    # -- names and paths ---------------------------------------------------------------------------

    def _folder(self, model: str, table: str) -> str:
        return f"{self._root}/{_name(model, 'model')}/{_name(table, 'table')}"

    def _path(self, model: str, table: str, period: str) -> str:
        if not _PERIOD.fullmatch(period):
            raise ValueError(f"{period!r} can't name a period; expected e.g. '2021-03' or '2014-01-06'")
        return f"{self._folder(model, table)}/period={period}/{_FILE}"

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

    def _has_own_period(self, model: str, table: str) -> bool:
        return "period" in self.schema(model, table).names

    def _from_footer(
        self, model: str, table: str, period: str, url: str, size: int, footer: pq.FileMetaData
    ) -> Partition:
        written = (footer.metadata or {}).get(METADATA_KEY.encode())
        if written is None:
            raise DamagedPartition(
                f"{self._public(url)} was not written by the lake: its footer has no '{METADATA_KEY}' entry; "
                f"remove it and materialize {model}/{table} for {period} again"
            )
        known = json.loads(written)
        return Partition(
            model,
            table,
            period,
            self._public(url),
            footer.num_rows,
            size,
            known["digest"],
            known["reason"],
            known["facts"],
        )

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


def _without_period(data: pa.RecordBatchReader | pa.Table, period: str) -> pa.RecordBatchReader:
    reader = data.to_reader() if isinstance(data, pa.Table) else data
    names = reader.schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"columns occur twice: {', '.join(twice)}; every column needs its own name")
    if not names:
        raise ValueError("the data has no columns; an empty partition still has its table's columns")
    if "period" not in names or period == UNPARTITIONED:
        schema = reader.schema.remove_metadata()
        return pa.RecordBatchReader.from_batches(schema, (batch.replace_schema_metadata(None) for batch in reader))
    kept = [name for name in names if name != "period"]
    if not kept:
        raise ValueError("the data has no column besides `period`, which the partition's path already says")
    schema = pa.schema([reader.schema.field(name) for name in kept])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            found = set(batch.column(names.index("period")).unique().to_pylist()) - {period}
            if found:
                raise ValueError(
                    f"column `period` holds {sorted(map(str, found))[:3]}, but the partition is {period!r}; "
                    "rename the column, or write each period to its own partition"
                )
            yield batch.select(kept).replace_schema_metadata(None)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _whole_row_groups(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same rows in batches of a row group each: small row groups would make every later scan slow."""

    def batches() -> Iterator[pa.RecordBatch]:
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for batch in reader:
            waiting.append(batch)
            rows += batch.num_rows
            if rows < ROW_GROUP_ROWS:
                continue
            table = pa.Table.from_batches(waiting, reader.schema).combine_chunks()
            whole = rows - rows % ROW_GROUP_ROWS
            yield from table.slice(0, whole).to_batches(ROW_GROUP_ROWS)
            waiting, rows = table.slice(whole).to_batches(), rows - whole
        if rows:
            yield from pa.Table.from_batches(waiting, reader.schema).combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _write_parquet(
    path: Path, reader: pa.RecordBatchReader, reason: str | None, facts: Mapping[str, Any]
) -> tuple[int, str]:
    digest = _Digest(reader.schema)
    with pq.ParquetWriter(path, reader.schema, compression="zstd", write_statistics=True) as writer:
        for batch in reader:
            writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
            digest.add(batch)
        known = {"reason": reason, "facts": facts, "digest": digest.text(), "rows": digest.rows}
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(known)})
    return digest.rows, digest.text()


@functools.cache
def _hashing(pid: int) -> duckdb.DuckDBPyConnection:
    """A database that only hashes. Opening one costs more than a small partition; a forked process needs its own."""
    import duckdb

    # Of a connection that outlives the interpreter DuckDB's binding prints pages of warnings.
    atexit.register(_hashing.cache_clear)
    return duckdb.connect(config={"threads": 1})


class _Digest:
    """The order-independent content hash that `Lake.write` documents."""

    def __init__(self, schema: pa.Schema) -> None:
        self._con = _hashing(os.getpid()).cursor()
        self._con.register("batch", schema.empty_table())
        # DuckDB's types, because Arrow has several for the same content (string, large_string, string_view).
        described = self._con.execute("DESCRIBE batch").fetchall()
        self._columns = [[name, kind] for name, kind, *_ in described]
        self._sum = 0
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._con.register("batch", batch)
        total = self._con.execute("SELECT sum(hash(batch)) FROM batch").fetchall()[0][0]
        self._sum = (self._sum + int(total or 0)) % 2**128
        self.rows += batch.num_rows

    def text(self) -> str:
        content = json.dumps([self._columns, self.rows, self._sum])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _identity(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _put_in_force(version: Path, current: Path) -> None:
    """Let the partition's path lead to another version, in one step."""
    with version.open("rb") as file:
        os.fsync(file.fileno())
    replaced = Path(os.path.realpath(current))
    link = current.with_name(f".{uuid.uuid4().hex}.tmp")
    with _removed_on_failure(link):
        link.symlink_to(version.name)
        os.replace(link, current)  # noqa: PTH105 - the atomic step deserves its plain name
    with contextlib.suppress(FileNotFoundError):  # the first version, or one that another writer has swept
        os.utime(replaced) if replaced != current else None


def _sweep_unused(table: Path) -> None:
    """Remove the versions of a table that were replaced, or left by a killed writer, an hour ago or earlier.

    Their time of change says when: a replaced version is touched, and one that is being written grows.
    """
    for path in [*table.glob("period=*/.*.parquet"), *table.glob("period=*/.*.tmp")]:
        try:
            unused = time.time() - path.lstat().st_mtime > _UNUSED_AFTER_SECONDS
            if unused and path != Path(os.path.realpath(path.with_name(_FILE))):
                path.unlink()
        except FileNotFoundError:  # another writer swept it first
            continue
