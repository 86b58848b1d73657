"""A declaration drafted from a file: what is read off its columns, what is refused, and that the draft is valid."""

from __future__ import annotations

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
    text = yaml.safe_load(draft.defs_yaml("loans", "mlops_assets.MonitoredModel", "defs/loans"))
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
        ("bank/undated.csv", "bad", "no column of dates or times"),
        ("bank/settled.csv", "bad", "'bad' has fewer than two values: ['no']"),
    ],
)
def test_what_can_not_be_drafted_is_told(source: str, target: str | None, said: str, tmp_path: Path) -> None:
    write(tmp_path, HEADER, *ROWS)
    write(tmp_path, "loan,signed,bad", "L1,31/01/2024,no", "L2,01/02/2024,yes", name="undated.csv")
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
