"""A declaration drafted from a file: what is read off its columns, what is refused, and that the draft is valid."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml
from click.testing import CliRunner
from dagster_dg_cli.cli import create_dg_cli

from mlops_assets.monitored_model.draft import Draft, DraftError, drafted, example
from mlops_assets.monitored_model.features_sql import check_features_sql
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.monitored_model.steps import features, profile, raw
from mlops_assets_tests import tiny_model

HEADER = "loan;signed on;branch;postcode;amount;bad;select"
ROWS = [
    "L1;2024-01-31;north;01234;1000.50;no;1",
    "L2;2024-02-01;south;98765;-20;yes;2",
    "L3;2024-03-15;north;00001;300;no;",
]


def write(folder: Path, *lines: str, name: str = "loans.csv") -> Path:
    path = folder / "data" / "bank" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def declared(draft: Draft) -> tuple[ModelSpec, dict[str, Any]]:
    """The declaration that the draft is, checked as Dagster would check it, its query too."""
    text = yaml.safe_load(draft.defs_yaml("loans", "mlops_assets.MonitoredModel"))
    assert text["type"] == "mlops_assets.MonitoredModel"
    spec = ModelSpec.model_validate(text["attributes"])
    check_features_sql(spec, draft.features_sql(), Path("features.sql"))
    return spec, text["attributes"]


def test_a_declaration_is_read_off_the_columns_of_a_file(tmp_path: Path) -> None:
    write(tmp_path, HEADER, *ROWS)
    spec, said = declared(drafted("bank/loans.csv", "bad", tmp_path / "data", tmp_path))
    assert said["source"] == {
        "path": "bank/loans.csv",
        "csv": {"delim": ";"},
        "time_column": "signed on",
        "keys": ["loan"],
        "schema": {
            "loan": "VARCHAR",
            "signed on": "DATE",
            "branch": "VARCHAR",
            "postcode": "VARCHAR",  # it begins with a zero: a name, not a number
            "amount": "DOUBLE",
            "bad": "VARCHAR",
            "select": "BIGINT",
        },
    }
    assert (spec.start, spec.end, spec.records) == ("2024-01", "2024-03", "loans")
    assert said["target"] == {"column": "bad", "task": "classification", "positive": "yes", "isin": ["no", "yes"]}
    # A negative amount: no lower limit is guessed.
    assert said["columns"] == {
        "branch": {"categorical": True},
        "postcode": {"categorical": True},
        "amount": {},
        "select": {"ge": 0},
    }
    assert spec.segments == ["branch"]


def test_an_amount_is_a_regression(tmp_path: Path) -> None:
    write(tmp_path, HEADER, *ROWS)
    spec, said = declared(drafted("bank/loans.csv", "amount", tmp_path / "data", tmp_path))
    assert said["target"] == {"column": "amount", "task": "regression"}
    assert spec.candidates[0].estimator.endswith("Regressor")
    assert spec.metric == "mae"


@pytest.mark.parametrize(("event", "other"), [("YES", "NO"), ("y", "n"), ("True", "False"), ("1", "0"), ("b", "a")])
def test_the_event_is_the_class_that_says_so_or_else_the_rarer_one(event: str, other: str, tmp_path: Path) -> None:
    rarer = event == "b"
    rows = [f"L{n};2024-01-31;north;1;1.5;{event if n < (1 if rarer else 7) else other};1" for n in range(9)]
    write(tmp_path, HEADER, *rows)
    spec, _ = declared(drafted("bank/loans.csv", "bad", tmp_path / "data", tmp_path))
    assert str(spec.target.positive) == event


def test_more_classes_than_a_person_would_list_are_not_listed(tmp_path: Path) -> None:
    write(tmp_path, HEADER, *(f"L{n};2024-01-31;b{n};{n:05};1.5;no;1" for n in range(21)))
    _, said = declared(drafted("bank/loans.csv", "branch", tmp_path / "data", tmp_path))
    assert "isin" not in said["target"]


def test_a_file_per_period_gives_first_and_last_period(tmp_path: Path) -> None:
    data = tmp_path / "data" / "bank"
    data.mkdir(parents=True)
    for month in ("2024-11", "2024-12", "2025-01"):
        duckdb.sql(
            f"SELECT TIMESTAMP '{month}-01 10:00' + i * INTERVAL 1 HOUR AS at, i % 3 AS kind, i % 2 = 0 AS good "
            "FROM range(50) t(i)"
        ).write_parquet(str(data / f"loans-{month}.parquet"))
    # As a shell completes it, from the working directory.
    spec, said = declared(drafted("data/bank/loans-{period}.parquet", "good", tmp_path / "data", tmp_path))
    assert said["source"]["path"] == "bank/loans-{period}.parquet"
    assert (spec.start, spec.end) == ("2024-11", "2025-01")
    assert (said["target"]["positive"], said["target"]["isin"]) == (True, [False, True])
    assert (spec.source.schema, spec.source.keys) == ({"at": "TIMESTAMP", "kind": "BIGINT", "good": "BOOLEAN"}, [])


def test_the_example_is_valid_as_it_is() -> None:
    spec, _ = declared(example())
    assert spec.records == "records"


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("bank/loan.csv", "bad", "there is no file"),
        ("bank/loans.csv", "badd", "no column 'badd'; did you mean 'bad'? loans.csv has loan, signed on"),
        ("bank/loans.csv", None, "--target has to name the column to predict"),
        ("elsewhere.csv", "bad", "elsewhere.csv is not below the data folder"),
        ("/etc/hostname", "bad", "/etc/hostname is not below the data folder"),
        ("../data/../../x.csv", "bad", "is not below the data folder"),
        ("https://x/loans.csv", "bad", "is an address; draft from a file below"),
        ("", "bad", "expected the name of a file"),
        ("bank/loans", "bad", "there is no file"),
        ("bank", "bad", "there is no file"),
        ("bank/empty.csv", "bad", "is empty"),
        ("bank/{period}.csv", "bad", "no file is called bank/{period}.csv with a month like 2025-01, or a Monday"),
        ("bank/undated.csv", "bad", "no column of dates or times"),
        ("bank/settled.csv", "bad", "'bad' has fewer than two values: ['no']"),
    ],
)
def test_what_can_not_be_drafted_is_told(source: str, target: str | None, said: str, tmp_path: Path) -> None:
    write(tmp_path, HEADER, *ROWS)
    write(tmp_path, "loan,signed,bad", "L1,spring,no", "L2,autumn,yes", name="undated.csv")
    (tmp_path / "data" / "bank" / "empty.csv").touch()
    write(tmp_path, HEADER, ROWS[0], ROWS[2], name="settled.csv")
    (tmp_path / "elsewhere.csv").write_text(HEADER)
    with pytest.raises(DraftError) as refused:
        drafted(source, target, tmp_path / "data", tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["loans", "--source", "bank/loans.csv", "--target", "late"], "there is no column 'late'"),
        (["loans", "--target", "bad"], "--target is a column of the file that --source names"),
        (["bad-loans"], "'bad-loans' is not a plain name"),
        (["temp"], "DuckDB's own schemas or databases"),
        (["loans", "--source", "/etc/hostname", "--target", "bad"], "/etc/hostname is not below the data folder"),
        (["loans", "--format", "python"], "declared in YAML"),
    ],
)
def test_a_refused_scaffold_leaves_nothing_behind(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "rides_project"
    (package / "defs").mkdir(parents=True)
    for module in (package, package / "defs"):
        (module / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "rides_project"\n'
    )
    write(tmp_path, HEADER, *ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    command = ["scaffold", "defs", dg_name(), *arguments]
    result = CliRunner().invoke(create_dg_cli(), command)
    assert result.exit_code == 1, result.output
    assert said in result.output
    assert [path.name for path in (package / "defs").iterdir() if path.is_dir() and path.name != "__pycache__"] == []


def dg_name() -> str:
    from mlops_assets import MonitoredModel

    assert issubclass(MonitoredModel, dg.Component)
    return "mlops_assets.MonitoredModel"


ODD = [
    *(
        "with space",
        "(km)",
        "50%",
        'a "quoted" one',
        "it's",
        "größe",
        "select",
        "1st",
        "no",
        "a # b",
        "x: y",
        "{z}",
        "$id",
    ),
    *(
        "score",
        "prediction",
        "split",
        "model_version",
        "[a]",
        "back\\slash",
        "- dash",
        "tab\tin",
        "line\nfeed",
        "x" * 300,
    ),
    *("null", "2021", "~", "*", "&a", "!t", "@at", "`tick`", "a,b", "a;b", "?", "日本", "true"),
]


def test_a_draft_of_any_column_name_loads_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "odd"
    folder.mkdir(parents=True)
    with (folder / "rows-2024-01.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["at", "amount", *ODD, "", "period", "record_id", "late?"])
        for number in range(200):
            values = [number % 7 + position for position in range(len(ODD))]
            writer.writerow([f"2024-01-{number % 28 + 1:02}", number + 0.5, *values, "", 1, 2, number % 2])
    draft = drafted("odd/rows-{period}.csv", "late?", tmp_path / "data", tmp_path)
    spec, _ = declared(draft)
    taken = {"score", "prediction", "split", "model_version"}
    assert set(spec.columns) == {"amount", *(f"{name}_" if name in taken else name for name in ODD)}
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    with tiny_model.workbench(tmp_path / "home", tmp_path / "data", spec, draft.features_sql()) as bench:
        for step in (raw, features, profile):
            outcome = step.make(bench, "2024-01")
            assert all(check.passed for check in outcome.checks), outcome.checks
        assert bench.partition("features", "2024-01").rows == 200
        (row,) = bench.con.execute(
            f'SELECT "score_", "1st", "no", "line\nfeed" FROM {bench.scan("features", ["2024-01"])} WHERE record_id = 6'
        ).fetchall()
        assert row == tuple(6 + ODD.index(name) for name in ("score", "1st", "no", "line\nfeed"))


def test_a_target_of_a_name_of_the_platform_is_renamed(tmp_path: Path) -> None:
    write(tmp_path, "at,x,score", "2024-01-01,1,0", "2024-01-02,2,1")
    draft = drafted("bank/loans.csv", "score", tmp_path / "data", tmp_path)
    spec, _ = declared(draft)
    assert spec.target.column == "score_"
    assert "score AS score_" in draft.features_sql()


def test_ids_with_leading_zeros_in_any_file_are_text_and_keys_name_a_record_within_its_file(tmp_path: Path) -> None:
    for month, zip_code in (("01", "09000"), ("02", "80331"), ("03", "80332")):
        rows = [f"{n},2024-{month}-05,{zip_code},{n % 2}" for n in range(1, 9)]
        write(tmp_path, "n,at,zip,late", *rows, name=f"p-2024-{month}.csv")
    spec, _ = declared(drafted("bank/p-{period}.csv", "late", tmp_path / "data", tmp_path))
    assert spec.source.schema["zip"] == "VARCHAR"  # type: ignore[index]
    assert spec.source.keys == ["n"]


def test_the_time_column_is_the_one_that_lies_in_the_file_s_period(tmp_path: Path) -> None:
    rows = [f"19{70 + n}-03-04,2024-02-{n + 1:02},{n},{n % 2}" for n in range(20)]
    write(tmp_path, "born,at,x,late", *rows, name="p-2024-02.csv")
    spec, _ = declared(drafted("bank/p-{period}.csv", "late", tmp_path / "data", tmp_path))
    assert (spec.source.time_column, spec.start, spec.end) == ("at", "2024-02", "2024-02")


def test_files_of_mondays_make_a_weekly_model(tmp_path: Path) -> None:
    for monday in ("2024-01-01", "2024-01-08"):
        write(tmp_path, "at,x,late", f"{monday},1,0", f"{monday},2,1", name=f"p-{monday}.csv")
    spec, _ = declared(drafted("bank/p-{period}.csv", "late", tmp_path / "data", tmp_path))
    assert (spec.cadence, spec.start, spec.end) == ("weekly", "2024-01-01", "2024-01-08")


def test_a_mistyped_year_makes_no_range_of_centuries(tmp_path: Path) -> None:
    rows = [f"2024-{month:02}-{day:02},{day},{day % 2}" for month in (1, 2, 3) for day in range(1, 28)]
    write(tmp_path, "at,x,late", *rows, "2204-01-05,3,1", "1024-01-05,3,1")
    spec, _ = declared(drafted("bank/loans.csv", "late", tmp_path / "data", tmp_path))
    assert (spec.start, spec.end) == ("2024-01", "2024-03")


def test_a_file_of_decimal_commas_and_days_first_is_drafted_with_the_options_that_read_it(tmp_path: Path) -> None:
    rows = [f"{day:02}.03.2024;1.0{day:02},5;{'ja' if day % 2 else 'nein'}" for day in range(1, 29)]
    write(tmp_path, "am;betrag;pünktlich", *rows)
    spec, said = declared(drafted("bank/loans.csv", "pünktlich", tmp_path / "data", tmp_path))
    assert said["source"]["csv"] == {
        "delim": ";",
        "decimal_separator": ",",
        "thousands": ".",
        "dateformat": "%d.%m.%Y",
    }
    assert spec.source.schema == {"am": "DATE", "betrag": "DOUBLE", "pünktlich": "VARCHAR"}
    assert (spec.target.positive, spec.target.isin) == ("ja", ["ja", "nein"])


def test_of_columns_that_differ_in_case_one_is_drafted_and_the_other_is_named(tmp_path: Path) -> None:
    write(tmp_path, "at,KM,km,late", "2024-01-01,1,10,0", "2024-01-02,2,20,1")
    draft = drafted("bank/loans.csv", "late", tmp_path / "data", tmp_path)
    spec, _ = declared(draft)
    assert list(spec.columns) == ["KM"]
    assert "# left out: 'km'" in draft.defs_yaml("m", "mlops_assets.MonitoredModel")
