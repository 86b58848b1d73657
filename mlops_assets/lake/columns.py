"""What a feature column may hold: the `columns` of a model's YAML, typed and checked before anything runs.

Here: the declaration. Judging rows against it is `lake.validation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["numeric", "categorical"]


class Column(BaseModel):
    """The rules of one feature column. Without any rule every value is accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    categorical: bool = Field(default=False, description="Values are names, whatever their type.")
    gt: float | None = Field(default=None, description="Values are greater than this.")
    ge: float | None = Field(default=None, description="Values are greater than or equal to this.")
    lt: float | None = Field(default=None, description="Values are less than this.")
    le: float | None = Field(default=None, description="Values are less than or equal to this.")
    isin: list[Any] | None = Field(default=None, description="The only values that may occur.")
    nullable: bool = Field(default=True, description="False: a missing value is a violation.")
    max_null: float | None = Field(default=None, ge=0, le=1, description="Largest share of missing values.")
    tolerance: float = Field(
        default=0.0, ge=0, le=1, description="Share of rows that may break the range or list of values."
    )
    description: str | None = Field(default=None, description="What the column means, for the reader.")

    @model_validator(mode="after")
    def _rules_agree(self) -> Self:
        if self.gt is not None and self.ge is not None:
            raise ValueError(f"both gt ({self.gt:g}) and ge ({self.ge:g}) are given; keep one lower limit")
        if self.lt is not None and self.le is not None:
            raise ValueError(f"both lt ({self.lt:g}) and le ({self.le:g}) are given; keep one upper limit")
        lower = self.gt if self.gt is not None else self.ge
        upper = self.lt if self.lt is not None else self.le
        if lower is not None and upper is not None:
            closed = self.ge is not None and self.le is not None
            if lower > upper or (lower == upper and not closed):
                raise ValueError(
                    f"no value can be above {lower:g} and below {upper:g}; the lower limit has to be smaller"
                )
        if self.categorical and (lower is not None or upper is not None):
            raise ValueError("a categorical column has no range; give `isin` or remove gt, ge, lt and le")
        if self.isin is not None and not self.isin:
            raise ValueError("isin is an empty list, so no value could pass; list the values or remove it")
        if self.isin is not None and (lower is not None or upper is not None):
            raise ValueError("isin and a range are both given; the list alone says what may occur")
        if not self.nullable and self.max_null is not None and self.max_null > 0:
            raise ValueError(f"nullable is false but max_null allows {self.max_null:g}; keep one of the two")
        return self

    @property
    def kind(self) -> Kind:
        return "categorical" if self.categorical else "numeric"


def kinds(columns: Mapping[str, Column]) -> dict[str, Kind]:
    """The kind of each feature column, in the order in which they were declared."""
    return {name: column.kind for name, column in columns.items()}
