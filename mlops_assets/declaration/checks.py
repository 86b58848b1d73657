"""The models that a folder declares, each checked as far as its files alone tell, with the line of what is wrong.

Dagster checks most of it too when it loads the models; but it dies by itself on some files, and passes what YAML has
read otherwise than it is written. So our own entry points ask here first, and `mlops-assets check` does nothing else.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mlops_assets.declaration.yaml_documents import DeclarationError, Document, Place, Problem, read_documents, sentence
from mlops_assets.monitored_model.features_sql import FeatureSqlError, check_features_sql
from mlops_assets.monitored_model.spec import ModelSpec
from mlops_assets.training.candidates import EstimatorError, check_parameters

# In the order in which Dagster looks for them in a folder.
FILES = ("defs.yaml", "defs.yml", "component.yaml")
IGNORED = ("__pycache__", ".*")
MODEL_TYPES = ("mlops_assets.MonitoredModel", "mlops_assets.monitored_model.component.MonitoredModel")
# What Dagster allows beside `type` and `attributes`.
TOP_KEYS = ("type", "attributes", "template_vars_module", "requirements", "post_processing")


@dataclass(frozen=True)
class DeclaredModel:
    """A model that is declared as it should be: its declaration, and where that is written."""

    spec: ModelSpec
    document: Document


def check_models(folder: Path) -> list[DeclaredModel]:
    """The models that are declared below a folder, checked one by one and together.

    Raises
    ------
    DeclarationError
        With everything that is wrong in any of them.
    """
    return check_files(list(declaration_files(folder)))


def check_files(paths: Sequence[Path]) -> list[DeclaredModel]:
    """The models that files declare, checked one by one and together; raises DeclarationError."""
    models: list[DeclaredModel] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            for document in read_documents(path):
                found, wrong = _check_document(document)
                models += found
                problems += wrong
        except DeclarationError as error:
            problems += error.problems
    problems += _same_names(models)
    if problems:
        raise DeclarationError(problems)
    return models


def declaration_files(folder: Path) -> Iterator[Path]:
    """The files below a folder that Dagster reads declarations from: below a model's folder it looks no further."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is not None:
        yield path
        if not _holds_folders(path):
            return
    if folder.is_dir():
        for below in sorted(folder.iterdir()):
            if below.is_dir() and not any(below.match(pattern) for pattern in IGNORED):
                yield from declaration_files(below)


def _holds_folders(path: Path) -> bool:
    try:
        types = [document.value.get("type") for document in read_documents(path) if isinstance(document.value, dict)]
    except DeclarationError:
        return False
    return "dagster.DefsFolderComponent" in types


def estimator_problems(models: Sequence[DeclaredModel]) -> list[Problem]:
    """The candidates that are no estimators for their model's task, or don't take their parameters.

    Imports the estimators' packages, which takes seconds: not for every load of the models.
    """
    problems = []
    for model in models:
        for number, candidate in enumerate(model.spec.candidates):
            try:
                check_parameters(candidate, model.spec.target.task)
            except EstimatorError as error:
                place = ("attributes", "candidates", number)
                problems.append(model.document.problem(place, f"{_dotted(place)}: {error}"))
    return problems


# -- one document ---------------------------------------------------------------------------------------------


def _check_document(document: Document) -> tuple[list[DeclaredModel], list[Problem]]:
    """The model of a document, none when it declares something else; and what is wrong."""
    declared = document.value
    if not isinstance(declared, dict):
        kind = "nothing" if declared is None else f"{_shown(declared)}"
        fix = f"begin with `type: {MODEL_TYPES[0]}`"
        return [], [document.problem((), sentence(kind, "a declaration with `type` and `attributes`", fix))]
    problems = _file_keys(document, declared)
    if declared.get("type") not in MODEL_TYPES:
        # Somebody else's component is somebody else's to check.
        return [], problems
    attributes = declared.get("attributes")
    if not isinstance(attributes, dict):
        found = "no `attributes`" if attributes is None else f"attributes: {_shown(attributes)}"
        text = sentence(found, "a mapping of what the model is", "write the model's declaration below `attributes:`")
        return [], [*problems, document.problem(("attributes",), text)]
    problems += _misread(document)
    try:
        spec = ModelSpec.model_validate(attributes)
    except ValidationError as error:
        return [], [*problems, *_validation_problems(document, error)]
    problems += _query_problems(document, spec)
    return ([] if problems else [DeclaredModel(spec, document)]), problems


def _file_keys(document: Document, declared: dict[str, Any]) -> list[Problem]:
    problems = []
    kind = declared.get("type")
    if not isinstance(kind, str):
        found = f"type: {_shown(kind)}" if "type" in declared else "no `type`"
        text = sentence(found, "the component's name", f"add `type: {MODEL_TYPES[0]}`")
        problems.append(document.problem(("type",), text))
    elif kind.startswith("mlops_assets") and kind not in MODEL_TYPES:
        text = sentence(f"type: {kind}", MODEL_TYPES[0], "correct it")
        problems.append(document.problem(("type",), text))
    for key in declared:
        if key not in TOP_KEYS:
            fix = (
                "move it below `attributes:`" if key in ModelSpec.model_fields else "remove it" + _close(key, TOP_KEYS)
            )
            text = sentence(f"the key {key!r} beside `type`", f"one of {', '.join(TOP_KEYS)}", fix)
            problems.append(document.problem((key,), text))
    return problems


def _misread(document: Document) -> list[Problem]:
    """Values that YAML reads otherwise than they are written, where text is likely to be meant."""
    problems = []
    for place, written in document.reread.items():
        if _takes_text(place):
            read = str(_at(document.value, place)).lower()
            found = f"{written} without quotes, which YAML reads as {read}"
            text = sentence(found, "text in quotes, or the value as it is read", f'write "{written}" or {read}')
            problems.append(document.problem(place, f"{_dotted(place)}: {text}"))
    for place in document.lines:
        value = _at(document.value, place)
        if value is None and "isin" in place[:-1]:
            text = sentence("nothing (null)", "a value", "leave it out; `nullable` says whether values may be missing")
            problems.append(document.problem(place, f"{_dotted(place)}: {text}"))
        elif isinstance(value, float) and math.isnan(value) and "candidates" not in place:
            text = sentence(".nan", "a number", "nothing can be compared with it: leave it out")
            problems.append(document.problem(place, f"{_dotted(place)}: {text}"))
    return problems


def _takes_text(place: Place) -> bool:
    """Whether text stands here as often as anything else, so that `NO` is rather Norway than false."""
    inside = place[1:]
    return (
        "isin" in inside
        or inside[:2] == ("target", "positive")
        or (inside[:2] == ("source", "csv") and ("nullstr" in inside or "names" in inside))
    )


def _validation_problems(document: Document, error: ValidationError) -> list[Problem]:
    problems, said = [], set()
    for wrong in error.errors(include_url=False):
        place = _place_of(document, wrong)
        text = _validation_text(document, place, wrong)
        # What several keys together break names the one to look at by itself.
        text = text if text.startswith(_dotted(place)) else f"{_dotted(place)}: {text}"
        # The members of a union complain one by one, each below a name of its own.
        if (document.line_of(place), text) not in said:
            said.add((document.line_of(place), text))
            problems.append(document.problem(place, text))
    return problems


def _place_of(document: Document, wrong: Any) -> Place:
    """Where the value stands that an error is about."""
    place: Place = ("attributes", *wrong["loc"])
    if wrong["type"] in ("missing", "extra_forbidden"):
        return place
    # Below a value there are names of union members, which nobody has written.
    while len(place) > 1 and place not in document.lines:
        place = place[:-1]
    said = re.match(r"\w+(?:\.\w+)*", str(wrong["ctx"]["error"])) if wrong["type"] == "value_error" else None
    named = tuple(said[0].split(".")) if said else ()
    return next((at for at in ((*place, *named), ("attributes", *named)) if at in document.lines), place)


def _validation_text(document: Document, place: Place, wrong: Any) -> str:
    kind, key = wrong["type"], str(place[-1])
    if kind == "value_error":
        return str(wrong["ctx"]["error"])
    if kind == "missing":
        return sentence(f"no `{key}`", "one", f"add `{key}: …`")
    if kind == "extra_forbidden":
        known = _known_keys(place[1:-1])
        return sentence("a key that does not exist", f"one of {', '.join(known)}", "remove it" + _close(key, known))
    expected = re.sub(r"^Input should be ", "", wrong["msg"]).rstrip(".")
    found = _shown(wrong["input"])
    if place in document.reread:
        return sentence(f"{document.reread[place]}, which YAML reads as {found}", expected, "put it in quotes")
    return sentence(found, expected, "correct it")


def _known_keys(place: Sequence[str | int]) -> list[str]:
    """The keys that may stand at a place of a declaration."""
    here: Any = ModelSpec
    for part in place:
        if isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = _model_in(here.model_fields[str(part)].annotation) or here
    return list(here.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The declared type inside an annotation such as `dict[str, Column] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one)) is not None), None)


def _query_problems(document: Document, spec: ModelSpec) -> list[Problem]:
    path = document.path.parent / spec.features
    place = ("attributes", "features")
    if not path.is_file():
        text = sentence(f"no file {spec.features} beside it", "the query that makes the features", "write it there")
        return [document.problem(place, f"features: {text}")]
    try:
        sql = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        text = sentence(f"a file that can't be read ({error})", "SQL in UTF-8", "save it as UTF-8, readable for all")
        return [Problem(path, None, text)]
    try:
        check_features_sql(spec, sql, path)
    except FeatureSqlError as error:
        if error.declared_at:
            return [document.problem(("attributes", *error.declared_at), error.text)]
        return [Problem(path, error.line, error.text)]
    return []


# -- all of them ----------------------------------------------------------------------------------------------


def _same_names(models: Sequence[DeclaredModel]) -> list[Problem]:
    problems = []
    first: dict[str, DeclaredModel] = {}
    for model in models:
        other = first.setdefault(model.spec.name, model)
        if other is not model:
            place = ("attributes", "name")
            where = Problem(other.document.path, other.document.line_of(place), "").__str__().rstrip(": ")
            text = sentence(
                f"the name {model.spec.name!r}, as in {where}", "a name of its own", "rename one of the two"
            )
            problems.append(model.document.problem(place, f"name: {text}"))
    return problems


# -- words ----------------------------------------------------------------------------------------------------


def _at(value: Any, place: Place) -> Any:
    for part in place:
        value = value[part]
    return value


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place[1:]) or "attributes"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _close(key: Any, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(key), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
