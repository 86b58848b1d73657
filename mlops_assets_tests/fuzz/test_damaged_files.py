"""A thousand damaged source files: each is read as it was, set aside or quarantined; none ends a run."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from mlops_assets.monitored_model.steps import raw
from mlops_assets_tests import tiny_model
from mlops_assets_tests.fuzz import CASES, SEED

pytestmark = pytest.mark.fuzz
PERIOD = "2021-01"


def flip_bit(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    start, length = chance.randrange(len(content)), chance.randint(1, 64)
    return content[:start] + chance.randbytes(length) + content[start + length :]


def zero_block(content: bytes, chance: random.Random) -> bytes:
    start, length = chance.randrange(len(content)), chance.choice([16, 512, 4096])
    return content[:start] + bytes(min(length, len(content) - start)) + content[start + length :]


def truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def remove_block(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + content[start + chance.randint(1, 512) :]


def repeat_block(content: bytes, chance: random.Random) -> bytes:
    start, length = chance.randrange(len(content)), chance.randint(1, 512)
    return content[: start + length] + content[start:]


def prepend(content: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(1, 16)) + content


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bit,
    change_bytes,
    zero_block,
    truncate,
    remove_block,
    repeat_block,
    prepend,
)


@pytest.mark.parametrize("kind", ["parquet with checksums", "parquet without checksums", "csv"])
def test_a_damaged_file_never_ends_the_run(kind: str, tmp_path: Path) -> None:
    chance = random.Random(f"{SEED} {kind}")
    ending = "csv" if kind == "csv" else "parquet"
    declared = tiny_model.spec(source={**tiny_model.SPEC["source"], "path": f"rides/{{period}}.{ending}"})
    file = tmp_path / "data" / "rides" / f"{PERIOD}.{ending}"
    file.parent.mkdir(parents=True)
    rides = tiny_model.rides(PERIOD, rows=300)
    if kind == "csv":
        pa_csv.write_csv(rides, file)
    else:
        pq.write_table(
            rides, file, write_page_checksum="with" in kind.split(), compression=chance.choice(["NONE", "snappy"])
        )
    content = file.read_bytes()
    outcomes: Counter[str] = Counter()
    silent: list[str] = []
    with tiny_model.workbench(tmp_path / "home", tmp_path / "data", declared) as bench:
        intact = raw.make(bench, PERIOD).partition
        assert intact.rows == rides.num_rows
        for number in range(CASES // 3 + 1):
            damage = DAMAGES[number % len(DAMAGES)]
            damaged = damage(content, chance)
            file.write_bytes(damaged)
            # Without what was read before: a changed file is reported for its change alone.
            shutil.rmtree(Path(bench.lake.url) / "rides")
            made = raw.make(bench, PERIOD)
            failed = [check for check in made.checks if not check.passed]
            if any(check.severity == "ERROR" for check in failed):
                outcome = "quarantined"
            elif made.partition.digest == intact.digest:
                outcome = "read as it was"
            elif failed:
                outcome = "read in part, with a warning"
            else:
                outcome = "other values, nothing said"
                silent.append(f"{damage.__name__} number {number}")
            outcomes[outcome] += 1
            assert all(check.description for check in failed)
    print(f"{kind}, {outcomes.total()} damaged files: {dict(outcomes)}")
    if kind == "parquet with checksums":
        assert silent == []
    assert outcomes["quarantined"] > 0
