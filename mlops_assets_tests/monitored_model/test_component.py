"""A model's folder below defs/: what Dagster makes of it, and which file and line it names when it is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mlops_assets.definitions import shared_resources
from mlops_assets.monitored_model.dagster_internals import why_not_loaded
from mlops_assets_tests import tiny_model


def write_model(defs: Path, text: str, sql: str | None = tiny_model.SQL) -> None:
    folder = defs / "rides"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(text)
    if sql is not None:
        (folder / "features.sql").write_text(sql)


def declaration(**changes: object) -> str:
    attributes = {**tiny_model.SPEC, **changes}
    return yaml.safe_dump({"type": "mlops_assets.MonitoredModel", "attributes": attributes}, sort_keys=False)


def load(root: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """What a project of one package with a defs folder loads."""
    package = root / "rides_project"
    (root / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "rides_project"\n'
    )
    (package / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(root))
    for name in [name for name in sys.modules if name.startswith("rides_project")]:
        monkeypatch.delitem(sys.modules, name)
    models = dg.load_from_defs_folder(path_within_project=package)
    return dg.Definitions.merge(models, dg.Definitions(resources=shared_resources()))


def test_a_folder_with_two_files_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "rides_project" / "defs", declaration())
    definitions = load(tmp_path, monkeypatch)
    keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert len(keys) == 10
    assert {"rides/raw_rides", "rides/champion", "rides/served_predictions"} <= keys


@pytest.mark.parametrize(
    ("change", "said", "line"),
    [
        ({"windw": {}}, "windw", "windw: {}"),
        ({"cadence": "daily"}, "cadence", "cadence: daily"),
        ({"trials": "many"}, "trials", "trials: many"),
        (
            {"candidates": [{"estimator": "sklearn.linear_model.LogisticRegresion"}]},
            "did you mean sklearn.linear_model.LogisticRegression",
            "LogisticRegresion",
        ),
        ({"window": {"train": [-1, -1]}}, "window overlaps or is out of order", "window:"),
        ({"segments": ["zones"]}, "segments names 'zones'", "attributes:"),
    ],
)
def test_a_wrong_declaration_names_its_file_and_line(
    change: dict[str, object], said: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = declaration(**change)
    write_model(tmp_path / "rides_project" / "defs", text)
    with pytest.raises(Exception, match="") as refused:  # noqa: PT011 - Dagster wraps it in types of its own
        load(tmp_path, monkeypatch).resolve_asset_graph()
    message = everything_said(refused.value)
    number = next(index for index, found in enumerate(text.splitlines(), 1) if line in found)
    assert said in message
    assert f"defs.yaml:{number}" in message


def test_a_query_that_does_not_fit_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "rides_project" / "defs", declaration(), tiny_model.SQL.replace("fee,", "fee AS fees,"))
    with pytest.raises(Exception, match="") as refused:  # noqa: PT011
        load(tmp_path, monkeypatch).resolve_asset_graph()
    message = everything_said(refused.value)
    assert "rides/features.sql: the query does not return 'fee'; did you mean 'fees'" in message


def test_a_missing_query_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "rides_project" / "defs", declaration(), sql=None)
    with pytest.raises(Exception, match="") as refused:  # noqa: PT011
        load(tmp_path, monkeypatch).resolve_asset_graph()
    assert "there is no such file beside it; write the query" in everything_said(refused.value)


def everything_said(error: BaseException) -> str:
    """The messages of an error and of all that led to it."""
    said, known = [], set()
    current: BaseException | None = error
    while current is not None and id(current) not in known:
        known.add(id(current))
        said.append(str(current))
        current = current.__cause__ or current.__context__
    return "\n".join(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (declaration(metric="f2"), ["metric 'f2' does not fit", "defs.yaml:"]),
        (declaration(trails=8), ["attributes.trails at ", "defs.yaml:", "\n  there is no such key"]),
        (
            "type: mlops_assets.MonitoredModel\nattributes: {fare: {description: is it?}, x: {}}\n",
            ["defs.yaml", "line 2"],
        ),
    ],
)
def test_the_command_line_tells_a_wrong_declaration_in_its_own_words(
    text: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "rides_project" / "defs", text)
    with pytest.raises(Exception, match=r"(?s).") as caught:
        load(tmp_path, monkeypatch)
    why = why_not_loaded(caught.value)
    assert why is not None
    assert [word for word in said if word not in why] == [], why
    assert [word for word in ("validation error", "input_value", "errors.pydantic.dev") if word in why] == [], why
    assert why_not_loaded(OSError("disk full")) is None
