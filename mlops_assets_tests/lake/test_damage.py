"""Files that are not what was written: each is named, none is read as something else, and writing again repairs it."""

from __future__ import annotations

import os
import random
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.lake.store import DamagedPartition, Lake
from mlops_assets.lake.verification import last_verification, verify

ROWS = pa.table({"record_id": list(range(2000)), "score": [n / 7 for n in range(2000)], "zone": ["a", "b"] * 1000})
PERIODS = ["2021-01", "2021-02", "2021-03"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.forget_verified()
    for period in PERIODS:
        lake.write("m", "t", period, ROWS, facts={"n": 1})
    return lake


def file_of(lake: Lake, period: str) -> Path:
    return Path(f"{lake.url}/m/t/period={period}/data.parquet")


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Change one bit without changing what a directory listing says."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def other_footer(path: Path, text: bytes) -> None:
    pq.write_table(ROWS.replace_schema_metadata({b"mlops_assets": text}), path.resolve())


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def its_folder_replaced_by_a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("x")


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


# What was done to the file, and what is said about it. Found by the footer alone.
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero bytes": (lambda p: p.resolve().write_bytes(b""), "not a readable Parquet file"),
    "truncated": (lambda p: p.resolve().write_bytes(p.read_bytes()[:-20]), "not a readable Parquet file"),
    "text": (lambda p: p.resolve().write_text("not a table"), "not a readable Parquet file"),
    "footer is noise": (
        lambda p: p.resolve().write_bytes(p.read_bytes()[:-300] + bytes(292) + p.read_bytes()[-8:]),
        "",
    ),
    "foreign": (lambda p: pq.write_table(ROWS, p.resolve()), "was not written by the lake"),
    "footer is no JSON": (lambda p: other_footer(p, b"{"), "footer .* can't be read"),
    "footer is no text": (lambda p: other_footer(p, b"\xff\xfe"), "footer .* can't be read"),
    "footer is a list": (lambda p: other_footer(p, b"[1]"), "footer .* can't be read"),
    "footer lacks keys": (lambda p: other_footer(p, b'{"digest": "d"}'), "footer .* can't be read"),
    "footer has other types": (
        lambda p: other_footer(p, b'{"digest": 1, "reason": null, "facts": {}, "rows": 2000}'),
        "other types",
    ),
    "footer counts otherwise": (
        lambda p: other_footer(p, b'{"digest": "d", "reason": null, "facts": {}, "rows": 7}'),
        "has 2000 rows, its footer says 7",
    ),
    "no link target": (lambda p: p.resolve().unlink(), "which is not there"),
    "a folder": (replaced_by_a_folder, "is a folder"),
    "a file for its folder": (its_folder_replaced_by_a_file, "is a file; expected a folder"),
    "a link to itself": (a_link_to_itself, "leads to itself"),
    "another period": (
        lambda p: (p.unlink(), p.symlink_to(file_of_neighbour(p))),
        "was written as t of 2021-03",
    ),
}


def file_of_neighbour(path: Path) -> Path:
    return (path.parent.parent / "period=2021-03" / "data.parquet").resolve()


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_by_the_footer_and_repaired_by_writing_again(lake: Lake, name: str) -> None:
    damage, said = DAMAGES[name]
    file_of(lake, "2021-02").resolve().chmod(0o644)
    damage(file_of(lake, "2021-02"))
    found = lake.find("m", "t", "2021-02")
    assert found is not None
    assert found.damaged is not None
    assert found.reason == found.damaged
    assert (found.rows, found.digest) == (0, "damaged")
    with pytest.raises(
        DamagedPartition, match=rf"m/t of 2021-02 is damaged: .*{said}.*mlops-assets backfill m 2021-02"
    ):
        lake.partition("m", "t", "2021-02")
    with pytest.raises(DamagedPartition, match="2021-02"):
        found.facts.get("n")
    with pytest.raises(DamagedPartition, match="2021-02"):
        lake.scan("m", "t")
    assert lake.periods("m", "t") == PERIODS
    assert lake.sound("m", "t") == (["2021-01", "2021-03"], {"2021-02": found.damaged})
    assert lake.schema("m", "t") == ROWS.schema
    lake.write("m", "t", "2021-02", ROWS, facts={"n": 2})
    assert lake.partition("m", "t", "2021-02", verify=True).facts == {"n": 2}
    assert duckdb.sql(f"SELECT count(*) FROM {lake.scan('m', 't')}").fetchall() == [(6000,)]


@pytest.mark.parametrize("seed", range(12))
def test_no_flipped_bit_is_read_as_other_values(lake: Lake, seed: int) -> None:
    # Without the hash more than half of such bits are read silently, as other values.
    rng = random.Random(seed)
    size = file_of(lake, "2021-02").stat().st_size
    for _ in range(12):
        path = Path(lake.write("m", "t", "2021-02", ROWS, facts={"n": 1}).url).resolve()
        flip(path, rng.randrange(size), rng.randrange(8))
        lake.forget_verified()
        with pytest.raises(DamagedPartition):
            lake.scan("m", "t", ["2021-02"])
        found = lake.find("m", "t", "2021-02", verify=True)
        assert found is not None
        assert found.damaged


def test_other_readers_find_a_flipped_bit_by_the_checksums_of_the_pages(lake: Lake) -> None:
    for number, period in enumerate(PERIODS):
        path = file_of(lake, period)
        column = pq.read_metadata(path).row_group(0).column(number)
        start = column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
        flip(path, start + column.total_compressed_size - 1, 3)  # the last byte is of a page's data
        with pytest.raises(OSError, match="CRC checksum"):
            pq.ParquetFile(path, page_checksum_verification=True).read(columns=[column.path_in_schema])


def test_bytes_are_compared_once_for_a_version_and_the_error_says_what_was_found(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlops_assets.lake import versions

    read: list[Path] = []
    damage = versions.damage
    monkeypatch.setattr(versions, "damage", lambda version: read.append(version) or damage(version))
    for _ in range(3):
        lake.scan("m", "t")
    assert len(read) == 3
    changed = file_of(lake, "2021-01").resolve()
    flip(changed, 100)
    lake.forget_verified()
    with pytest.raises(DamagedPartition, match=rf"have the SHA-256 [0-9a-f]{{64}}; expected {changed.name[34:98]}"):
        lake.scan("m", "t")
    # From then on who only reads footers knows as well.
    assert lake.sound("m", "t")[0] == ["2021-02", "2021-03"]


def as_written_before_there_were_hashes(path: Path) -> Path:
    version = path.resolve()
    old = version.with_name(f"{version.name[:33]}.parquet")
    version.rename(old)
    path.unlink()
    path.symlink_to(old.name)
    return old


def test_a_version_without_a_hash_gets_one_on_first_use(lake: Lake) -> None:
    old = as_written_before_there_were_hashes(file_of(lake, "2021-02"))
    assert lake.scan("m", "t", ["2021-02"])
    record = old.with_suffix(".sha256")
    assert len(record.read_text()) == 64
    flip(old, 100)
    lake.forget_verified()
    with pytest.raises(DamagedPartition, match="have the SHA-256"):
        lake.scan("m", "t", ["2021-02"])
    record.write_text("nonsense")
    lake.forget_verified()
    with pytest.raises(DamagedPartition, match="holds no SHA-256"):
        lake.scan("m", "t", ["2021-02"])
    lake.write("m", "t", "2021-02", ROWS)
    assert lake.partition("m", "t", "2021-02", verify=True).damaged is None


def test_a_copy_that_has_followed_the_links_is_verified_from_first_use_on(lake: Lake, tmp_path: Path) -> None:
    shutil.copytree(Path(lake.url) / "m", tmp_path / "copy" / "m")  # links become files
    copy = Lake(tmp_path / "copy")
    path = file_of(copy, "2021-02")
    assert not path.is_symlink()
    assert copy.scan("m", "t")
    flip(path, 100)
    copy.forget_verified()
    assert copy.sound("m", "t", verify=True)[0] == ["2021-01", "2021-03"]
    copy.write("m", "t", "2021-02", ROWS)
    assert copy.sound("m", "t", verify=True)[0] == PERIODS


def test_a_verification_is_kept_and_its_damage_known_to_who_reads_footers_only(lake: Lake) -> None:
    assert last_verification(lake, "m") is None
    assert verify(lake, "m").damaged == ()
    flip(file_of(lake, "2021-03").resolve(), 100)
    result = verify(lake, "m")
    assert (result.partitions, [(d.table, d.period) for d in result.damaged]) == (3, [("t", "2021-03")])
    lake.forget_verified()  # another process
    assert lake.sound("m", "t")[0] == PERIODS
    assert last_verification(lake, "m") == result
    assert lake.sound("m", "t")[0] == ["2021-01", "2021-02"]
    lake.write("m", "t", "2021-03", ROWS)
    lake.forget_verified()
    last_verification(lake, "m")
    assert lake.sound("m", "t")[0] == PERIODS
    Path(lake.url, "m", ".verification.json").write_text("[")
    with pytest.raises(ValueError, match="verify it again: mlops-assets verify m"):
        last_verification(lake, "m")


def test_a_remote_object_is_compared_with_what_any_writer_has_recorded() -> None:
    remote = Lake(f"memory://{uuid.uuid4().hex}/lake")
    fs = remote._fs
    assert fs is not None
    first = remote.write("m", "t", "2021-01", ROWS)
    remote.write("m", "t", "2021-01", ROWS.slice(0, 10))
    assert remote.scan("m", "t")
    path = fs._strip_protocol(first.url)
    content = bytearray(fs.cat_file(path))
    content[100] ^= 1
    fs.pipe_file(path, bytes(content))
    with pytest.raises(DamagedPartition, match="have the SHA-256"):
        remote.scan("m", "t")
    assert verify(remote, "m").damaged
    for record in fs.glob(f"{path.rpartition('/')[0]}/.*.sha256"):
        fs.rm_file(record)
    remote.forget_verified()
    fs.pipe_file(path, fs.cat_file(path))
    assert remote.scan("m", "t")  # first use of an object without a record
    remote.write("m", "t", "2021-01", ROWS)
    assert remote.scan("m", "t")
    assert verify(remote, "m").damaged == ()
    fs.pipe_file(path, b"")
    found = remote.find("m", "t", "2021-01")
    assert found is not None
    assert found.damaged
