"""Whatever is wrong with a declaration is an error with its file and line, before Dagster sees it."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mlops_assets.cli import main
from mlops_assets.declaration.checks import check_files, check_models, declaration_files
from mlops_assets.declaration.yaml_documents import DeclarationError
from mlops_assets.definitions import monitored_models
from mlops_assets.lake.connection import reserved_schemas
from mlops_assets_tests import tiny_model

TYPE = "mlops_assets.MonitoredModel"
DEFS = Path(__file__).resolve().parents[2] / "mlops_assets" / "defs"


def declaration(**changes: Any) -> str:
    attributes = copy.deepcopy(tiny_model.SPEC) | changes
    return yaml.safe_dump({"type": TYPE, "attributes": attributes}, sort_keys=False)


def write(folder: Path, text: str, sql: str | bytes | None = tiny_model.SQL, name: str = "rides") -> Path:
    path = folder / name / "defs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if sql is not None:
        (path.parent / "features.sql").write_bytes(sql.encode() if isinstance(sql, str) else sql)
    return path


def refused(path: Path) -> DeclarationError:
    with pytest.raises(DeclarationError) as error:
        check_files([path])
    return error.value


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_page_says_what_check_says_and_which_names_are_refused(tmp_path: Path) -> None:
    page = (DEFS.parents[1] / "docs" / "declaration.md").read_text()
    assert all(f"`{name}`" in page for name in reserved_schemas())
    written = "{column: is_cash, positive: a, isin: [a, NO]}"
    text = declaration(windw={}).replace("target:\n    column: is_cash\n", f"target: {written}\n")
    misread, unknown = refused(write(tmp_path, text, TEXT_TARGET)).problems
    assert f": {misread.text}\n" in page
    assert unknown.text.partition(" one of ")[0] in page
    assert unknown.text.partition("; ")[2] in page


def test_the_shipped_models_are_as_they_should_be() -> None:
    names = {model.spec.name for model in check_models(DEFS)}
    assert {"green_taxi", "bank_marketing", "ed_admission", "unit_sales"} <= names


@pytest.mark.parametrize(
    ("change", "part", "said"),
    [
        ({"windw": {}}, "windw", "found a key that does not exist, expected one of name, records"),
        ({"windw": {}}, "windw", "did you mean 'window'?"),
        ({"source": tiny_model.SPEC["source"] | {"pth": "x"}}, "pth", "did you mean 'path'?"),
        ({"cadence": "daily"}, "cadence", "cadence: found 'daily', expected 'monthly' or 'weekly'"),
        ({"trials": "many"}, "trials", "trials: found 'many', expected a valid integer"),
        ({"segments": ["zones"]}, "segments:", "segments names 'zones'"),
        ({"start": "2021-13"}, "start:", "start: '2021-13' is not a month"),
        ({"end": "2020-01"}, "end:", "end (2020-01) is before start (2021-01)"),
        ({"history": 10**9}, "history", "history: found 1000000000, expected less than or equal to 1200"),
        ({"lead": 10**9}, "lead", "lead: found 1000000000, expected less than or equal to 1200"),
        ({"window": {"train": [-(10**9), -2]}}, "train:", "window.train is [-1000000000, -2]; an offset below -1200"),
        ({"name": "temp"}, "name: temp", "DuckDB's own schemas or databases"),
        ({"columns": {"fare": {}, "Fare": {}, "fee": {}}}, "attributes", "found 'fare' and 'Fare', expected names"),
    ],
)
def test_what_the_declaration_alone_tells_is_said_with_its_line(
    change: dict[str, Any], part: str, said: str, tmp_path: Path
) -> None:
    text = declaration(**change)
    error = refused(write(tmp_path, text))
    assert any(said in problem.text and problem.line == line_of(text, part) for problem in error.problems), error


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (f"type: {TYPE}\n", "", "found no `type`"),
        (f"type: {TYPE}\n", "type: 5\n", "found type: 5"),
        (TYPE, "mlops_assets.MonitordModel", "found type: mlops_assets.MonitordModel"),
        ("attributes:\n", f"type: {TYPE}\nattributes:\n", "'type' a second time"),
        ("  description:", "  name: taxis\n  description:", "'name' a second time (first in line 3)"),
        ("attributes:\n", "trials: 3\nattributes:\n", "the key 'trials' beside `type`"),
        ("attributes:\n", "trials: 3\nattributes:\n", "move it below `attributes:`"),
        ("  fee: {}\n", "  no: {}\n", "the key 'no', read as bool"),
    ],
)
def test_what_yaml_takes_in_silence_is_refused(before: str, after: str, said: str, tmp_path: Path) -> None:
    text = declaration()
    assert before in text
    error = refused(write(tmp_path, text.replace(before, after, 1)))
    assert any(said in problem.text and problem.line for problem in error.problems), error


@pytest.mark.parametrize(
    "text", ["", "---\n", "- a\n", "hello\n", f"type: {TYPE}\n", f"type: {TYPE}\nattributes: [1]\n"]
)
def test_a_file_without_a_declaration_is_refused(text: str, tmp_path: Path) -> None:
    error = refused(write(tmp_path, text))
    assert all(problem.line for problem in error.problems)
    assert "expected" in str(error)


TEXT_TARGET = tiny_model.SQL.replace("(payment = 2)::INTEGER", "(payment = 2)::VARCHAR")


@pytest.mark.parametrize(
    ("written", "sql", "said"),
    [
        ("{column: is_cash, positive: YES, isin: [YES, NO]}", TEXT_TARGET, "found YES without quotes"),
        (
            "{column: is_cash, positive: a, isin: [a, NO]}",
            TEXT_TARGET,
            "target.isin.1: found NO without quotes, which YAML",
        ),
        (
            "{column: is_cash, positive: 1, isin: [1, 010]}",
            tiny_model.SQL,
            "found 010 without quotes, which YAML reads as 8",
        ),
        ("{column: is_cash, positive: 1}", TEXT_TARGET, 'target.positive: found 1, expected text like "1"'),
        ("{column: is_cash, positive: true}", TEXT_TARGET, 'target.positive: found True, expected text like "true"'),
        ("{column: is_cash, positive: 'true', isin: ['true', false]}", TEXT_TARGET, "target.isin: found False"),
        ("{column: is_cash, positive: '1'}", tiny_model.SQL, "found '1', expected a number without quotes"),
        ("{column: is_cash, positive: 0.5}", tiny_model.SQL, "found 0.5, expected a whole number"),
        ("{column: is_cash, positive: 9999999999}", tiny_model.SQL, "expected a number from -2147483648 to 2147483647"),
        ("{column: is_cash, positive: [1]}", tiny_model.SQL, "target.positive: found [1], expected"),
    ],
)
def test_a_target_that_could_never_be_the_event_is_refused_with_its_line(
    written: str, sql: str, said: str, tmp_path: Path
) -> None:
    text = declaration().replace("target:\n    column: is_cash\n", f"target: {written}\n")
    assert written in text
    error = refused(write(tmp_path, text, sql))
    assert any(said in problem.text and problem.line == line_of(text, "target:") for problem in error.problems), error


def test_booleans_stay_booleans_where_they_are_meant(tmp_path: Path) -> None:
    text = declaration().replace("  fee: {}\n", "  fee: {nullable: yes}\n")
    assert check_files([write(tmp_path, text)])[0].spec.columns["fee"].nullable


@pytest.mark.parametrize(
    ("sql", "at", "said"),
    [
        (None, "defs.yaml:", "found no file features.sql beside it"),
        (tiny_model.SQL.replace("fee,", ""), "features.sql:", "the query does not return 'fee'"),
        ("\n\nSELECT 1 AS x,\n  FRM y", "features.sql:4", "can't be run"),
        ("SELECT 'é'".encode("latin-1"), "features.sql:", "SQL in UTF-8"),
    ],
)
def test_a_query_that_is_missing_or_does_not_fit_is_part_of_it(
    sql: str | bytes | None, at: str, said: str, tmp_path: Path
) -> None:
    error = str(refused(write(tmp_path, declaration(), sql)))
    assert said in error
    assert at in error


def test_two_models_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    first = write(tmp_path, declaration(), name="a")
    write(tmp_path, declaration(), name="b")
    with pytest.raises(DeclarationError, match="the name 'rides'") as error:
        check_models(tmp_path)
    (problem,) = error.value.problems
    assert problem.path == tmp_path / "b" / "defs.yaml"
    assert f"{first}:3" in problem.text


def test_two_documents_are_two_models(tmp_path: Path) -> None:
    path = write(tmp_path, declaration() + "---\n" + declaration(name="taxis"))
    assert [model.spec.name for model in check_files([path])] == ["rides", "taxis"]


def test_other_components_are_only_read_strictly(tmp_path: Path) -> None:
    path = write(tmp_path, "type: dagster.PythonScriptComponent\nattributes: {execution: {path: x.py}}\n")
    assert check_files([path]) == []
    assert "'type' a second time" in str(refused(write(tmp_path, "type: a.B\ntype: a.C\n")))


def test_files_are_looked_for_where_dagster_looks(tmp_path: Path) -> None:
    (tmp_path / "defs.yaml").write_text("type: dagster.DefsFolderComponent\n")
    (path,) = (write(tmp_path / "team", declaration()),)
    write(tmp_path / ".hidden", declaration())
    write(path.parent, declaration(), name="old")  # below a model's own folder
    assert list(declaration_files(tmp_path)) == [tmp_path / "defs.yaml", path]


# -- damaged at random ----------------------------------------------------------------------------------------


def damaged(text: str, seed: int) -> str | bytes:
    """A declaration with one thing broken, as editors, merges and transfers break them."""
    chance = random.Random(seed)
    lines = text.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    line = lines[at]
    kind = seed % 11
    if kind == 0:
        return "".join(lines[:at])
    if kind == 1:
        lines.insert(at, line)
    elif kind == 2:
        del lines[at]
    elif kind == 3:
        lines[at] = "\t" + line
    elif kind == 4:
        lines[at] = line[: chance.randrange(len(line))] + chance.choice("{}[]:'\"&*!|>%@`,#-") + line[1:]
    elif kind == 5:
        lines[at] = " " * chance.randrange(1, 5) + line
    elif kind == 6:
        return "".join(lines).encode()[: chance.randrange(1, 400)] + b"\xff\xfe"
    elif kind == 7:
        lines[at] = (
            line.split(":")[0] + ": " + chance.choice(["[]", "{}", "null", "-1", "yes", "2021-01-01", "'x'"]) + "\n"
        )
    elif kind == 8:
        lines.insert(at, chance.choice(["<<<<<<< HEAD\n", "=======\n", ">>>>>>> other\n", "colour: red\n", "---\n"]))
    elif kind == 9:
        lines.insert(at, "x: " + "{a: " * chance.randrange(30, 3000) + "\n")
    else:
        other = chance.randrange(len(lines))
        lines[at], lines[other] = lines[other], line
    return "".join(lines)


def test_no_damage_ends_in_anything_but_an_error_with_a_line(tmp_path: Path) -> None:
    shipped = [path for path in DEFS.glob("*/defs.yaml") if path.parent.name in ("green_taxi", "unit_sales")]
    sound = 0
    for seed in range(220):
        original = shipped[seed % len(shipped)]
        path = tmp_path / "m" / "defs.yaml"
        path.parent.mkdir(exist_ok=True)
        (path.parent / "features.sql").write_text((original.parent / "features.sql").read_text())
        content = damaged(original.read_text(), seed)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            check_files([path])
            sound += 1
        except DeclarationError as error:
            lines = content.count(b"\n" if isinstance(content, bytes) else "\n") + 1  # type: ignore[arg-type]
            for problem in error.problems:
                in_query = problem.path.name == "features.sql"
                assert in_query or (problem.line and problem.line <= lines + 1), f"{seed}: {problem}"
    assert sound < 110


# -- where it is asked ----------------------------------------------------------------------------------------


def test_a_project_asks_before_dagster_loads_anything(tmp_path: Path) -> None:
    write(tmp_path / "defs", declaration(windw={}))
    with pytest.raises(DeclarationError, match="did you mean 'window'"):
        monitored_models(tmp_path)


def test_the_command_line_shows_a_line_for_each_problem_and_exits_with_1(tmp_path: Path) -> None:
    text = declaration(windw={}, cadence="daily")
    path = write(tmp_path, text)
    result = CliRunner().invoke(main, ["check", str(tmp_path)])
    assert result.exit_code == 1
    said = result.output.splitlines()
    assert said[0].startswith(f"{path}:{line_of(text, 'cadence')}: cadence: found 'daily'")
    assert said[1].startswith(f"{path}:{line_of(text, 'windw')}: windw: found a key")
    assert said[-1] == "Error: 2 problems found"
    path.write_text(declaration())
    result = CliRunner().invoke(main, ["check", str(path)])
    assert (result.exit_code, result.output) == (0, f"rides: as it should be ({path})\n")


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ({"estimator": "os.system"}, "'os.system' is not a class with scikit-learn's fit"),
        ({"estimator": "sklearn.linear_model.LinearRegression"}, "is no estimator for classification"),
        ({"estimator": "sklearn.linear_model.LogisticRegression", "params": {"c": 1}}, "unknown parameter 'c'"),
    ],
)
def test_the_command_line_also_tries_the_estimators(candidate: dict[str, Any], said: str, tmp_path: Path) -> None:
    text = declaration(candidates=[{"estimator": "sklearn.dummy.DummyClassifier"}, candidate])
    path = write(tmp_path, text)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 1
    where, _, what = result.output.partition(": candidates.1: ")
    assert where == f"{path}:{line_of(text, candidate['estimator'])}"
    assert said in what


def test_the_command_line_checks_a_model_by_its_name_or_names_those_that_there_are() -> None:
    result = CliRunner().invoke(main, ["check", "unit_sales"])
    assert (result.exit_code, result.output.split(":")[0]) == (0, "unit_sales")
    result = CliRunner().invoke(main, ["check", "no_such_model"])
    assert result.exit_code == 1
    assert "the models are bank_marketing, ed_admission, green_taxi" in result.output
