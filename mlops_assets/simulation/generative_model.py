"""A generative model as a `simulation.yaml` declares it: variables drawn one after another, and kinds of drift.

A variable's distribution may depend on those above it, on the time of the record and on parameters; so the file is
a directed graphical model, drawn by ancestral sampling (Bishop, *Pattern Recognition and Machine Learning*, 2006,
section 8.1.2). A drift changes parameters, or the share of the outcome, from a period on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mlops_assets.declaration.yaml_documents import DeclarationError, read_documents
from mlops_assets.simulation.expressions import Formula, FormulaError

FILE = "simulation.yaml"
TIME_NAMES = ("hour", "weekday", "month")


class SimulationError(ValueError):
    """A simulation that can't be made as it was asked for; the message says what to do."""


def _formula(given: Any) -> Any:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return given
    return Formula(str(given))


def _no_negative(weights: list[float]) -> list[float]:
    if min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"weights are {weights}; none may be negative and one has to be above 0")
    return weights


Expression = Annotated[Formula, BeforeValidator(_formula)]
Hours = Annotated[list[float], Field(min_length=24, max_length=24), AfterValidator(_no_negative)]
Weekdays = Annotated[list[float], Field(min_length=7, max_length=7), AfterValidator(_no_negative)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Normal(_Declared):
    """Gaussian, with standard deviation `sd`."""

    mean: Expression
    sd: Expression


class Lognormal(_Declared):
    """exp of a Gaussian: `median`, and `sigma`, the standard deviation of the logarithm."""

    median: Expression
    sigma: Expression


class NegativeBinomial(_Declared):
    """Counts with the variance mean + mean² / size: Poisson counts whose rate varies from record to record."""

    mean: Expression
    size: Expression


class Levels(_Declared):
    """Whole numbers from `first` on: one more for each of the ascending `cuts` that `score` reaches."""

    score: Expression
    cuts: list[float] = Field(min_length=1)
    first: int = 0

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if sorted(self.cuts) != self.cuts:
            raise ValueError(f"cuts are {self.cuts}; they have to ascend")
        return self


KINDS = ("value", "normal", "lognormal", "poisson", "negative_binomial", "bernoulli", "choice", "levels")


class Variable(_Declared):
    """One variable: exactly one of the distributions, and what is done to what was drawn.

    Formulas of later variables see the value before `missing` takes some away.
    """

    about: str | None = Field(default=None, description="What it means, for the reader.")
    latent: bool = Field(default=False, description="Not written: it only acts through others.")
    value: Expression | None = Field(default=None, description="A formula, with nothing random about it.")
    normal: Normal | None = None
    lognormal: Lognormal | None = None
    poisson: Expression | None = Field(default=None, description="Counts with this mean.")
    negative_binomial: NegativeBinomial | None = None
    bernoulli: Expression | None = Field(default=None, description="1 with this probability, else 0.")
    choice: dict[str, Expression] | None = Field(
        default=None, description="One of these names, with probabilities in proportion to their weights."
    )
    levels: Levels | None = None
    clip: list[float] | None = Field(default=None, min_length=2, max_length=2, description="Lowest and highest value.")
    round: int | None = Field(default=None, ge=0, le=9, description="Decimals.")
    labels: list[str] | None = Field(default=None, min_length=1, description="Names of the values 0, 1, 2, …")
    missing: Expression | None = Field(default=None, description="Probability that the value is not recorded.")

    @model_validator(mode="after")
    def _one_distribution(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a variable takes exactly one of {', '.join(KINDS)}; found {given or 'none'}")
        if self.choice is not None and (self.clip or self.round is not None or self.labels):
            raise ValueError("choice gives names; clip, round and labels are for numbers")
        if self.latent and self.missing is not None:
            raise ValueError("a latent variable is not written, so none of it can be missing; drop one of the two")
        return self

    @property
    def formulas(self) -> Iterator[Formula]:
        for part in (self.normal, self.lognormal, self.negative_binomial, self.levels):
            if part is not None:
                yield from (value for _, value in part if isinstance(value, Formula))
        yield from (self.choice or {}).values()
        yield from (f for f in (self.value, self.poisson, self.bernoulli, self.missing) if f is not None)


class Time(_Declared):
    """When records happen within their period: independent of each other, by hour of the day and day of the week."""

    column: str
    hours: Hours = Field(default=[1.0] * 24, description="Weights of the hours 0 to 23.")
    weekdays: Weekdays = Field(default=[1.0] * 7, description="Weights of Monday to Sunday.")


class Outcome(_Declared):
    """The column that is to be predicted, and its positive value."""

    column: str
    positive: str | int


class Drift(_Declared):
    """A change of the world, by name. At strength 1 it is as declared, at 0.5 half of it."""

    about: str
    start: str = Field(description="The first period that it touches, unless the command says another.")
    parameters: dict[str, float] = Field(default={}, description="Their values once it has happened.")
    outcome_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the positive outcome once it has happened. Records are chosen by their outcome, so "
        "what they look like given their outcome stays the same (prior probability shift).",
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.parameters and self.outcome_share is None:
            raise ValueError("the drift changes nothing; give it parameters or an outcome_share")
        return self


class GenerativeModel(_Declared):
    """Everything that a `simulation.yaml` says."""

    about: str = Field(description="What is simulated, from what knowledge, and what it must not be taken for.")
    rows: int = Field(default=5000, gt=0, description="Records of a period, unless the command says otherwise.")
    time: Time
    origin: str = Field(description="The column that says on every row where it comes from.")
    outcome: Outcome
    parameters: dict[str, float] = Field(default={}, description="Numbers that formulas use and drifts change.")
    variables: dict[str, Variable] = Field(min_length=1, description="In the order in which they are drawn.")
    drifts: dict[str, Drift] = {}
    missing_in_table: list[str] = Field(default=[], description="How a table marks a missing value, beside nothing.")

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        known = [*self.parameters, *TIME_NAMES]
        for name, variable in self.variables.items():
            if name in known or name in (self.time.column, self.origin):
                raise ValueError(f"variable {name!r} has the name of a parameter, the time or the origin; rename it")
            for formula in variable.formulas:
                own = [*known, name] if formula is variable.missing else known
                try:
                    formula.check_names(own)
                except FormulaError as error:
                    raise ValueError(f"variable {name!r}: {error}") from error
            known.append(name)
        outcome = self.variables.get(self.outcome.column)
        if outcome is None or outcome.latent:
            raise ValueError(f"outcome {self.outcome.column!r} is not among the written variables")
        for name, drift in self.drifts.items():
            unknown = sorted(drift.parameters.keys() - self.parameters.keys())
            if unknown:
                raise ValueError(f"drift {name!r} changes {unknown}; parameters are {list(self.parameters)}")
        return self

    @property
    def written(self) -> list[str]:
        """The variables that are columns of the records."""
        return [name for name, variable in self.variables.items() if not variable.latent]


def read_generative_model(path: Path) -> GenerativeModel:
    """The model that a file declares. Raises SimulationError, with the file and the place, when it can't be one."""
    try:
        (document, *others) = read_documents(path)
        if others:
            raise SimulationError(f"{path}: found {len(others) + 1} YAML documents, expected one")
        return GenerativeModel.model_validate(document.value)
    except DeclarationError as error:
        raise SimulationError(str(error)) from error
    except ValidationError as error:
        raise SimulationError(
            "\n".join(
                f"{path}:{document.line_of(problem['loc'])}: "
                f"{'.'.join(str(part) for part in problem['loc']) or 'the file'}: {problem['msg']}"
                for problem in error.errors()
            )
        ) from error
