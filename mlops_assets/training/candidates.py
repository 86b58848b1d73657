"""What a model's YAML says about training: its target and the estimators that compete for it.

Plain pydantic models with plain types, so that they nest in a Dagster component. Reading them imports no
estimator: paths are checked against the sources on disk, in milliseconds.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Task = Literal["classification", "regression"]
Encoding = Literal["native", "one_hot"]
Scalar = bool | int | float | str
# How alike (difflib) a misspelled name and the right one are: XGBoost's own `alpha` and `reg_alpha` are less.
NEARLY = 0.85
_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class EstimatorError(ValueError):
    """An estimator can't be found, or does not take the parameters that were given."""


class Target(BaseModel):
    """The column to predict.

    `positive` is the value that counts as the event of a classification; every other value is the rest. `isin` lists
    the values that may occur, `positive` among them: another one, which would count as the rest without a word, then
    fails the check of the features.
    With `required`, rows without the target are left out of training and scoring in batches.
    """

    model_config = ConfigDict(extra="forbid")

    column: str
    task: Task = "classification"
    positive: Scalar = 1
    isin: list[Scalar] | None = None
    required: bool = True

    @model_validator(mode="after")
    def _positive_may_occur(self) -> Target:
        if self.isin is not None and self.task == "regression":
            raise ValueError("isin lists classes, but the task is regression; remove it")
        if self.isin is not None and self.positive not in self.isin:
            raise ValueError(f"positive is {self.positive!r}, which is not among isin {self.isin}; list both classes")
        return self


class SearchSpace(BaseModel):
    """The values that a search may give one parameter: exactly one of `int`, `float` or `categorical`.

    `int` and `float` are `[lowest, highest]`, both included. `log` samples on a logarithmic scale, `step`
    on a grid that starts at the lowest value.
    """

    model_config = ConfigDict(extra="forbid")

    int: list[builtins.int] | None = None
    float: list[builtins.float] | None = None
    categorical: list[Any] | None = None
    log: bool = False
    step: builtins.float | None = None

    @model_validator(mode="after")
    def _one_kind_of_space(self) -> SearchSpace:
        given = [name for name in ("int", "float", "categorical") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a search space takes exactly one of int, float or categorical, found {given or 'none'}; "
                "e.g. {int: [16, 256]}, {float: [0.01, 0.3], log: true} or {categorical: [gini, entropy]}"
            )
        if self.categorical is not None:
            self._check_choices(self.categorical)
        else:
            self._check_range(given[0], self.int if self.int is not None else self.float or [])
        return self

    def _check_choices(self, choices: list[Any]) -> None:
        if not choices:
            raise ValueError("categorical: [] leaves nothing to choose from; list at least one value")
        if self.log or self.step is not None:
            raise ValueError("log and step belong to int and float ranges, not to categorical choices")

    def _check_range(self, kind: str, bounds: list[Any]) -> None:
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise ValueError(f"{kind} wants [lowest, highest], found {bounds}")
        if self.log and bounds[0] <= 0:
            raise ValueError(f"a logarithmic {kind} range must begin above 0, found {bounds}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: give one of them")
        if self.step is not None and (self.step <= 0 or (kind == "int" and self.step != int(self.step))):
            raise ValueError(f"step of {kind} must be a positive {kind}, found {self.step}")

    def holds(self, value: Any) -> bool:
        """Whether the space has this value."""
        if self.categorical is not None:
            return value in self.categorical
        bounds = self.int if self.int is not None else self.float or []
        return isinstance(value, builtins.int | builtins.float) and bounds[0] <= value <= bounds[1]

    @property
    def size(self) -> builtins.int | None:
        """How many values there are, None when there is no end of them."""
        if self.categorical is not None:
            return len(self.categorical)
        if self.int is not None:
            return (self.int[1] - self.int[0]) // builtins.int(self.step or 1) + 1
        low, high = self.float or [0.0, 0.0]
        if low == high:
            return 1
        return None if self.step is None else builtins.int((high - low) / self.step + 1e-9) + 1


class Candidate(BaseModel):
    """An estimator that competes to be the challenger.

    Attributes
    ----------
    estimator
        Dotted path of a class with scikit-learn's interface, e.g. `sklearn.ensemble.RandomForestClassifier`.
    name
        How it is called in tables; the class name by default.
    params
        Parameters of every fit. One that is also searched is where the search begins.
    search
        Parameters that are tuned, each with its space. Without any there is exactly one trial.
    final
        Parameters in which the chosen trial's last fit differs, e.g. more bags than a trial can afford.
    encoding
        `native` gives the estimator its categories as they are (EBM, HistGradientBoosting, XGBoost),
        `one_hot` imputes, scales and encodes them. By default what the estimator's family can take.
    calibration
        Wraps the estimator in a `CalibratedClassifierCV` of this method: for those without probabilities.
    pickle
        Whether a model that skops can't store may be stored as a pickle, whose loading runs code that is in it.
        It changes no fit.
    """

    model_config = ConfigDict(extra="forbid")

    estimator: str
    name: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, SearchSpace] = Field(default_factory=dict)
    final: dict[str, Any] = Field(default_factory=dict)
    encoding: Encoding | None = None
    calibration: Literal["sigmoid", "isotonic"] | None = None
    pickle: bool = False

    @field_validator("estimator")
    @classmethod
    def _estimator_exists(cls, path: str) -> str:
        check_path(path)
        return path

    @field_validator("params", "final")
    @classmethod
    def _numbers_are_numbers(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, value in given.items():
            if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
                raise ValueError(
                    f"{name}: {value!r} is text, as YAML reads numbers of this form; "
                    f"write it with point and sign, e.g. {float(value):.1e}"
                )
        return given

    @model_validator(mode="after")
    def _search_begins_inside(self) -> Candidate:
        for name, space in self.search.items():
            if name in self.params and not space.holds(self.params[name]):
                raise ValueError(
                    f"params.{name} is {self.params[name]!r}, where the search begins, but search.{name} does not hold "
                    "it; change one of the two"
                )
        return self

    @property
    def label(self) -> str:
        """The name in tables: `name`, or the class name."""
        return self.name or self.estimator.rpartition(".")[2]


def check_path(path: str) -> None:
    """Raise EstimatorError when no such class can be there, without importing its package.

    Names that a module makes at run time (`import *`, a module `__getattr__`, compiled modules) can't be
    seen in its source; those are left to `resolve_estimator`.
    """
    module, _, name = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        raise EstimatorError(
            f"estimator {path!r} is not a dotted path; expected package.module.Class, "
            "e.g. sklearn.ensemble.RandomForestClassifier"
        )
    source = _find_module(path, module)
    names = None if source is None else _names_in(source)
    if names is not None and name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(f'{module}.{n}' for n in near)}?" if near else ""
        raise EstimatorError(f"estimator {path!r}: module {module} has no {name}{hint}")


def _find_module(path: str, module: str) -> Path | None:
    """The source file of a module; None when it has none (compiled, built in)."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        near = difflib.get_close_matches(top, [m.name for m in pkgutil.iter_modules()], n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise EstimatorError(f"estimator {path!r}: no package {top!r} is installed{hint}")
    if spec.submodule_search_locations is None:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    folder = Path(next(iter(spec.submodule_search_locations)))
    for depth, part in enumerate(rest, start=1):
        if (folder / part).is_dir():
            folder = folder / part
        elif (folder / f"{part}.py").is_file() and depth == len(rest):
            return folder / f"{part}.py"
        elif any(folder.glob(f"{part}.*")):
            return None
        else:
            parent = ".".join([top, *rest[: depth - 1]])
            known = sorted({m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_")})
            near = difflib.get_close_matches(part, known, n=3)
            hint = f"; did you mean {' or '.join(f'{parent}.{n}' for n in near)}?" if near else ""
            raise EstimatorError(f"estimator {path!r}: {parent} has no module {part!r}{hint}")
    return folder / "__init__.py" if (folder / "__init__.py").is_file() else None


@functools.lru_cache(maxsize=64)
def _names_in(source: Path) -> frozenset[str] | None:
    """The names that a module's top level binds; None when it binds names that its source doesn't show."""
    names: set[str] = set()
    nodes: list[ast.stmt] = list(ast.parse(source.read_bytes()).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            if node.name == "__getattr__":
                return None
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any(alias.name == "*" for alias in node.names):
                return None
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(t.id for t in node.targets if isinstance(t, ast.Name))
        else:
            for block in ("body", "orelse", "finalbody"):
                nodes.extend(getattr(node, block, []))
            nodes.extend(s for handler in getattr(node, "handlers", []) for s in handler.body)
    return frozenset(names)


def resolve_estimator(path: str) -> type:
    """Import the class. Raises EstimatorError when it can't be imported or is no estimator."""
    check_path(path)
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise EstimatorError(f"estimator {path!r} can't be imported: {error}") from error
    if not (inspect.isclass(found) and hasattr(found, "fit") and hasattr(found, "get_params")):
        raise EstimatorError(f"estimator {path!r} is not a class with scikit-learn's fit and get_params")
    return found


def check_parameters(candidate: Candidate, task: Task) -> None:
    """Raise EstimatorError for a parameter that the estimator doesn't take, or a task that isn't its own.

    An estimator with `**kwargs` takes more than it names (XGBoost: `eta`, `tweedie_variance_power`), and would take a
    misspelling without using it. Of its other names, those that are nearly a name it has are refused.

    Imports the estimator's package.
    """
    from sklearn.base import is_classifier, is_regressor

    cls = resolve_estimator(candidate.estimator)
    called = f"candidate {candidate.label} ({candidate.estimator})"
    try:
        try:
            instance = cls()
        except TypeError:
            instance = cls(**candidate.params)
    except TypeError as error:
        raise EstimatorError(f"{called} can't be made with its params: {error}") from error
    signature = inspect.signature(cls).parameters
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values())
    named = {name for name, parameter in signature.items() if parameter.kind not in _STARRED}
    known = sorted(named | set(instance.get_params(deep=False)))
    for place, given in (
        ("params", candidate.params),
        ("search", candidate.search),
        ("final", candidate.final),
    ):
        for name in given:
            if name in known:
                continue
            near = difflib.get_close_matches(name, known, n=3, cutoff=NEARLY if takes_more else 0.6)
            if takes_more and not near:
                continue
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; it takes {', '.join(known)}"
            raise EstimatorError(f"{place} of {called}: unknown parameter {name!r}{hint}")
    fits = is_classifier(instance) if task == "classification" else is_regressor(instance)
    if not fits:
        raise EstimatorError(f"{called} is no estimator for {task}; choose another, or another task")
