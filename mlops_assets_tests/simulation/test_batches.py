"""The files of simulated periods: the same arguments give the same bytes, and every file says what it is."""

from __future__ import annotations

import csv
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from mlops_assets.monitored_model.assets import partitions
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.simulation.batches import MARK, Batch, SimulatedModel, find_model, simulate, simulated_model
from mlops_assets.simulation.generative_model import SimulationError
from mlops_assets.sources.location import NoData, locate
from mlops_assets.sources.reading import read
from mlops_assets_tests.simulation import clinic

MONTHS = ["2025-01", "2025-02", "2025-03"]


@pytest.fixture
def model(tmp_path: Path) -> SimulatedModel:
    return clinic.model(tmp_path)


def digests(batches: list[Batch]) -> dict[str, str]:
    return {batch.period: hashlib.sha256(batch.path.read_bytes()).hexdigest() for batch in batches}


def write_table(path: Path, rows: int = 50, **changes: Any) -> Path:
    """A table as its owner has it: other names in between, capitals, numbers with a point, missing values."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = {"id": "id", "age": "Age", "way": "way", "urgency": "urgency", "day": "day", "extra": "extra"}
        names |= {"count": "count", "visits": "visits", "kept": "kept"} | changes.pop("names", {})
        writer.writerow(name for name in names.values() if name)
        for n in range(rows):
            row = {"id": n, "age": 20 + n, "way": "Car", "urgency": f"{1 + n % 3}.0", "day": "mon", "extra": "x"}
            row |= {
                "count": ("NA", " NA ", "  ")[n % 3] if n % 2 else n / 2,
                "visits": n,
                "kept": "Yes" if n % 5 == 0 else "No",
            } | changes
            writer.writerow(row[name] for name, written in names.items() if written)
    return path


def test_the_same_arguments_give_the_same_bytes_however_many_periods_are_drawn(
    model: SimulatedModel, tmp_path: Path
) -> None:
    drifts = [model.drift("covariate:2025-02")]
    three = digests(list(simulate(model, MONTHS, tmp_path / "a", drifts=drifts)))
    one = digests(list(simulate(model, ["2025-02"], tmp_path / "b", drifts=drifts)))
    assert one == {"2025-02": three["2025-02"]}
    assert len(set(three.values())) == 3
    for other in ({"seed": 7}, {"rows": 399}, {"drifts": []}):
        arguments: dict[str, Any] = {"drifts": drifts, **other}
        again = digests(list(simulate(model, ["2025-02"], tmp_path / "c", **arguments)))
        assert again["2025-02"] != three["2025-02"]


def test_a_file_says_that_it_is_synthetic_and_what_was_drawn(model: SimulatedModel, tmp_path: Path) -> None:
    (batch,) = simulate(model, ["2025-04"], tmp_path, drifts=[model.drift("covariate::0.5")])
    assert batch.path == tmp_path / "clinic" / "visits_2025-04.parquet"
    table = pq.read_table(batch.path)
    assert set(table.column("origin").to_pylist()) == {"synthetic"}
    told = json.loads(table.schema.metadata[MARK])
    assert (told["synthetic"], told["model"], told["period"]) == (True, "clinic", "2025-04")
    assert (told["seed"], told["rows"], told["drifts"]) == (42, 400, ["covariate:2025-03:0.5"])
    assert told["generative_model"] == hashlib.sha256((model.folder / "simulation.yaml").read_bytes()).hexdigest()
    assert batch.rows == table.num_rows == 400
    assert batch.positive_share == table.column("kept").to_pylist().count("yes") / 400


def test_a_drift_is_at_work_from_its_period_on(model: SimulatedModel, tmp_path: Path) -> None:
    batches = list(simulate(model, MONTHS, tmp_path, drifts=[model.drift("prior:2025-02")]))
    assert [batch.drifts for batch in batches] == [(), ("prior:2025-02:1",), ("prior:2025-02:1",)]
    assert [round(batch.positive_share, 3) for batch in batches[1:]] == [0.7, 0.7]
    untouched = list(simulate(model, MONTHS, tmp_path / "quiet"))
    assert digests(untouched)["2025-01"] == digests(batches)["2025-01"]


def test_the_source_reads_what_was_simulated_without_a_problem(model: SimulatedModel, tmp_path: Path) -> None:
    downloads = tmp_path / "home" / "downloads"
    list(simulate(model, ["2025-02"], downloads))
    located = locate(model.source, "2025-02", tmp_path / "data", downloads)
    with duckdb.connect() as con:
        reading = read(model.source, located, "2025-02", model.calendar, con)
        assert (reading.rows, reading.problems, reading.extra, reading.duplicates) == (400, (), (), 0)
        assert reading.outside is not None
        assert (reading.outside.rows, reading.outside.unknown) == (0, 0)
        assert reading.reader.read_all().num_rows == 400


def test_a_period_that_was_not_drawn_is_no_data_with_the_advice_of_the_source(tmp_path: Path) -> None:
    advised = clinic.model(tmp_path, defs=clinic.changed(clinic.DEFS, "source.advice", "draw it"))
    with pytest.raises(NoData, match=r"no file .*visits_2025-01.parquet, .*; draw it$"):
        locate(advised.source, "2025-01", tmp_path / "data", tmp_path / "downloads")


def test_files_of_the_data_folder_come_first(model: SimulatedModel, tmp_path: Path) -> None:
    list(simulate(model, ["2025-01"], tmp_path / "downloads"))
    list(simulate(model, ["2025-01"], tmp_path / "data"))
    found = locate(model.source, "2025-01", tmp_path / "data", tmp_path / "downloads")
    assert found.path.is_relative_to(tmp_path / "data")


def test_a_simulated_file_is_replaced_and_any_other_is_not(model: SimulatedModel, tmp_path: Path) -> None:
    assert next(simulate(model, ["2025-01"], tmp_path)).before is None
    assert next(simulate(model, ["2025-01"], tmp_path)).before == "the same"
    assert next(simulate(model, ["2025-01"], tmp_path, seed=1)).before == "replaced"
    file = tmp_path / "clinic" / "visits_2025-02.parquet"
    for content in (b"no parquet", b""):
        file.write_bytes(content)
        with pytest.raises(SimulationError, match=r"visits_2025-02.parquet is there and was not simulated"):
            list(simulate(model, MONTHS, tmp_path))
        assert file.read_bytes() == content
    assert not (tmp_path / "clinic" / "visits_2025-03.parquet").exists(), "nothing is written then"


def test_nothing_half_written_stays(model: SimulatedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="disk full"):
        list(simulate(model, ["2025-01"], tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "defs" not in path.parts] == []


# -- a real table ---------------------------------------------------------------------------------------------


def test_a_real_table_is_cut_into_batches_without_a_row_twice(model: SimulatedModel, tmp_path: Path) -> None:
    table = write_table(tmp_path / "real.csv")
    batches = list(simulate(model, MONTHS, tmp_path / "a", rows=40, table=table))
    assert digests(batches) == digests(list(simulate(model, MONTHS, tmp_path / "b", rows=40, table=table)))
    drawn = []
    for batch in batches:
        content = pq.read_table(batch.path)
        assert content.column_names == list(clinic.DEFS["source"]["schema"]), "other columns are ignored"
        visits = content.column("visits").to_pylist()
        assert len(set(visits)) == 40
        assert set(visits) <= set(range(50))
        ages = content.column("age").to_pylist()
        assert [age - 20 for age in ages] == visits, "rows stay whole"
        counts = content.column("count").to_pylist()
        assert [count is None for count in counts] == [number % 2 == 1 for number in visits]
        times = np.array(content.column("arrived_at").to_pylist())
        assert {time.strftime("%Y-%m") for time in times} == {batch.period}
        assert set(content.column("origin").to_pylist()) == {"real row, simulated time"}
        told = json.loads(content.schema.metadata[MARK])
        assert (told["synthetic"], told["table"]) == (False, "real.csv")
        assert told["table_sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
        assert batch.positive_share == pytest.approx(sum(n % 5 == 0 for n in visits) / 40)
        drawn.append(visits)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    ("changes", "rows", "said"),
    [
        (
            {"names": {"count": "counts", "visits": ""}},
            5,
            r"lacks 2 of the 7 columns: count \(is it called counts\?\), visits",
        ),
        ({"age": "old"}, 5, "holds values that are no numbers: age: 50 rows, e.g. 'old'. If they mark missing values"),
        ({"count": "nan"}, 5, "holds values that are no numbers: count: 50 rows, e.g. 'nan'. If they mark missing"),
        ({"visits": "40.6"}, 5, "holds fractions where .* whole numbers: visits: 50 rows, e.g. '40.6'. Declare these"),
        ({}, 51, "has 50 rows, a period of 51 can't be drawn"),
        ({"urgency": "1e300"}, 5, "can't be read as CSV|does not fit"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_fix(
    model: SimulatedModel, tmp_path: Path, changes: dict[str, Any], rows: int, said: str
) -> None:
    table = write_table(tmp_path / "real.csv", **changes)
    with pytest.raises(SimulationError, match=said):
        list(simulate(model, ["2025-01"], tmp_path / "out", rows=rows, table=table))
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_none_is_refused(model: SimulatedModel, tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="there is no file"):
        list(simulate(model, ["2025-01"], tmp_path, table=tmp_path / "none.csv"))
    empty = write_table(tmp_path / "empty.csv", rows=0)
    with pytest.raises(SimulationError, match="has a header but no rows"):
        list(simulate(model, ["2025-01"], tmp_path, table=empty))
    with pytest.raises(SimulationError, match="leave out --drift or --table"):
        list(simulate(model, ["2025-01"], tmp_path, table=empty, drifts=[model.drift("prior")]))


# -- which periods, drifts and models there are ----------------------------------------------------------------


def test_periods_are_a_number_a_range_or_one(model: SimulatedModel) -> None:
    assert model.periods("3") == MONTHS
    assert model.periods("2025-02..2025-03") == MONTHS[1:]
    assert model.periods("2025-02") == ["2025-02"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "leave nothing to draw"),
        ("13", r"clinic has no period 2026-01; its periods are 2025-01 to 2025-12 \(start and end in defs.yaml\)"),
        ("2024-12", "clinic has no period 2024-12"),
        ("2025-03..2025-01", "or give a number: 12 is the first twelve"),
        ("twelve", "or give a number: 12 is the first twelve"),
    ],
)
def test_other_periods_are_refused(model: SimulatedModel, text: str, said: str) -> None:
    with pytest.raises(SimulationError, match=said):
        model.periods(text)


def test_a_model_without_an_end_has_every_period_from_its_first_on(tmp_path: Path) -> None:
    endless = clinic.model(tmp_path, defs=clinic.changed(clinic.DEFS, "end", None))
    assert endless.periods("2125-01") == ["2125-01"]
    with pytest.raises(SimulationError, match="has no period 2024-12; its periods begin with 2025-01"):
        endless.periods("2024-12")


@pytest.mark.parametrize(
    ("changes", "period", "moment"),
    [
        ({}, "2025-02", datetime(2025, 3, 1)),
        ({"lead": 1}, "2025-02", datetime(2025, 2, 1)),
        ({"cadence": "weekly", "start": "2024-12-30", "end": "2025-12-29"}, "2025-01-13", datetime(2025, 1, 20)),
    ],
)
def test_a_period_can_be_made_from_the_moment_on_from_which_dagster_has_it(
    tmp_path: Path, changes: dict[str, Any], period: str, moment: datetime
) -> None:
    declared = {**clinic.DEFS, **changes}
    assert clinic.model(tmp_path, defs=declared).can_be_made_from(period) == moment
    spec = ModelSpec.model_construct(**{"lead": 0, **declared})
    for now, there in ((moment, True), (moment - timedelta(seconds=1), False)):
        keys = partitions(spec).get_partition_keys(current_time=now.replace(tzinfo=UTC))
        assert (period in keys) == there


def test_a_drift_has_a_name_a_period_and_a_strength(model: SimulatedModel) -> None:
    assert str(model.drift("prior")) == "prior:2025-03:1"
    assert str(model.drift("prior:2025-06")) == "prior:2025-06:1"
    assert str(model.drift("prior:2025-06:0.25")) == "prior:2025-06:0.25"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flu", "clinic has no drift 'flu'. It has covariate: Older people come"),
        ("prior:june", "Expected is NAME:PERIOD:STRENGTH"),
        ("prior:2025-06:much", "the strength is 'much'"),
        ("prior:2025-06:0", "the strength is '0'"),
        ("prior:2025-06:nan", "the strength is 'nan'"),
    ],
)
def test_other_drifts_are_refused(model: SimulatedModel, text: str, said: str) -> None:
    with pytest.raises(SimulationError, match=said):
        model.drift(text)


def test_only_models_with_a_simulation_can_be_simulated(tmp_path: Path) -> None:
    clinic.write_folder(tmp_path)
    (tmp_path / "defs" / "shop").mkdir()
    folders = sorted((tmp_path / "defs").iterdir())
    assert find_model("clinic", folders).name == "clinic"
    with pytest.raises(SimulationError, match=r"'shop' has no simulation.yaml in its folder; .*: clinic"):
        find_model("shop", folders)
    with pytest.raises(SimulationError, match="'bakery' is not declared"):
        find_model("bakery", folders)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("source.path", "clinic/visits_{period}.csv", "simulated periods are Parquet files"),
        ("source.schema.weight", "DOUBLE", "draws no weight, which the source's schema declares"),
        ("cadence", "daily", "declares no model that could be simulated"),
        ("source", None, "declares no model that could be simulated"),
        ("source.schema.visits", "TINYINT", "does not fit the source's schema"),
    ],
)
def test_a_source_that_can_not_be_simulated_is_refused(tmp_path: Path, place: str, value: Any, said: str) -> None:
    simulation = clinic.changed(clinic.SIMULATION, "variables.visits", {"value": 300})
    folder = clinic.write_folder(tmp_path, simulation, clinic.changed(clinic.DEFS, place, value))
    with pytest.raises(SimulationError, match=said):
        list(simulate(simulated_model(folder), ["2025-01"], tmp_path / "out"))


def test_weeks_can_be_simulated_too(tmp_path: Path) -> None:
    weekly = {**clinic.DEFS, "cadence": "weekly", "start": "2025-01-06", "end": "2025-12-29"}
    simulation = clinic.SIMULATION
    for name in clinic.SIMULATION["drifts"]:
        simulation = clinic.changed(simulation, f"drifts.{name}.start", "2025-03-03")
    model = clinic.model(tmp_path, simulation, weekly)
    (batch,) = simulate(model, model.periods("2025-01-13"), tmp_path / "out")
    days = {moment.date().isoformat() for moment in pq.read_table(batch.path).column("arrived_at").to_pylist()}
    assert days == {f"2025-01-{day}" for day in range(13, 18)}
