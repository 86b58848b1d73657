"""A lake in S3, over the real protocol: moto's server on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from mlops_assets.lake.connection import connect
from mlops_assets.lake.store import DamagedPartition, Lake
from mlops_assets.lake.verification import last_verification, verify

ROWS = pa.table({"n": list(range(5000)), "zone": ["a", "b"] * 2500})


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import s3fs
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir("models")
            yield "s3://models/the lake"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.stop()


def test_partitions_are_written_listed_read_replaced_and_verified(bucket: str) -> None:
    lake = Lake(bucket)
    written = lake.write("m", "t", "2021-01", ROWS, facts={"n": 1})
    lake.write("m", "t", "2021-02", ROWS)
    assert Lake(bucket).find("m", "t", "2021-01") == written
    assert (lake.models(), lake.tables("m"), lake.periods("m", "t")) == (["m"], ["t"], ["2021-01", "2021-02"])
    lake.write("m", "t", "2021-01", ROWS.slice(0, 10))
    con = lake.attach(duckdb.connect())
    counts = f"SELECT period, count(*) FROM {lake.scan('m', 't')} GROUP BY ALL ORDER BY ALL"
    assert con.execute(counts).fetchall() == [("2021-01", 10), ("2021-02", 5000)]
    assert verify(lake, "m").damaged == ()
    assert last_verification(Lake(bucket), "m") is not None


def test_a_locked_connection_reads_the_objects_of_its_views_only(bucket: str) -> None:
    lake = Lake(bucket)
    lake.write("locked", "t", "2021-01", ROWS)
    con = connect(lake, locked=True)
    lake.write("locked", "later", "2021-01", ROWS)
    assert con.execute("SELECT sum(n) FROM locked.t").fetchall() == [(12497500,)]
    for query in (f"FROM {lake.scan('locked', 'later')}", "FROM 's3://models/the lake/locked/later/*/*.parquet'"):
        with pytest.raises(duckdb.PermissionException):
            con.execute(query)


def test_an_object_that_was_changed_is_damaged_and_writing_again_repairs_it(bucket: str) -> None:
    lake = Lake(bucket)
    url = lake.write("changed", "t", "2021-01", ROWS).url
    fs = lake._fs
    assert fs is not None
    content = bytearray(fs.cat_file(url))
    content[50] ^= 1
    fs.pipe_file(url, bytes(content))
    lake.forget_verified()
    with pytest.raises(DamagedPartition, match="have the SHA-256"):
        lake.scan("changed", "t")
    lake.write("changed", "t", "2021-01", ROWS)
    assert lake.partition("changed", "t", "2021-01", verify=True).rows == 5000


def test_without_its_package_one_sentence_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from mlops_assets.lake.store import Lake, MissingDriver\n"
        "try: Lake('s3://models/lake')\n"
        "except MissingDriver as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said == (
        "the lake s3://models/lake can't be opened: the package s3fs is not installed, which this address needs: "
        "pip install 'mlops-assets[s3]'\n"
    )
