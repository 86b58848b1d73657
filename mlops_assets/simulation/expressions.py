"""The formulas of a generative model: arithmetic over columns, evaluated on whole numpy arrays.

The syntax is Python's, the meaning numpy's, and nothing else can be called: numbers, names, `+ - * / // % **`,
comparisons, `and or not`, `in ['a', 'b']`, `x if condition else y`, and the functions of `FUNCTIONS`.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


class FormulaError(ValueError):
    """A formula that can't be read, or names what is not there."""


def logistic(logit: Any) -> Any:
    """The probability that belongs to a logit: 1 / (1 + exp(-logit))."""
    return 1.0 / (1.0 + np.exp(-np.asarray(logit, dtype=float)))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "floor": np.floor,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "logistic": logistic,
}

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.In: np.isin,
    ast.NotIn: lambda value, listed: ~np.isin(value, listed),
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Not: np.logical_not,
}
_OPERATORS = {*_BINARY, *_COMPARISONS, *_UNARY}


@dataclass(frozen=True)
class Formula:
    """A formula as it was written. Raises FormulaError when it is made of anything that is not allowed."""

    text: str

    def __post_init__(self) -> None:
        self._check(self._tree)

    @cached_property
    def _tree(self) -> ast.expr:
        try:
            return ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError as error:
            raise FormulaError(f"{self.text!r} is no formula: {error.msg}") from error

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that it needs values of."""
        called = {id(node.func) for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        return frozenset(
            node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name) and id(node) not in called
        )

    def check_names(self, known: Iterable[str]) -> None:
        """Raise FormulaError for a name that is not known, with the nearest that is."""
        listed = list(known)
        for name in sorted(self.names - set(listed)):
            near = difflib.get_close_matches(name, listed, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise FormulaError(f"{self.text!r} names {name!r}, which is no parameter and not drawn before it{hint}")

    def value(self, values: Mapping[str, Any]) -> Any:
        """Its value for the values of its names: arrays of one length, or single numbers."""
        return _value(self._tree, values)

    def _check(self, node: ast.expr) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                self._check_call(inner)
            elif isinstance(inner, ast.Constant):
                if not isinstance(inner.value, int | float | str):
                    self._refuse(f"the constant {inner.value!r}")
            elif isinstance(inner, ast.expr) and not isinstance(inner, _ALLOWED):
                self._refuse(ast.unparse(inner))
            elif isinstance(inner, ast.operator | ast.cmpop | ast.unaryop) and type(inner) not in _OPERATORS:
                self._refuse(type(inner).__name__)

    def _check_call(self, call: ast.Call) -> None:
        if not isinstance(call.func, ast.Name) or call.func.id not in FUNCTIONS or call.keywords:
            self._refuse(f"the call {ast.unparse(call)}")

    def _refuse(self, what: str) -> None:
        raise FormulaError(
            f"{self.text!r} contains {what}; allowed are numbers, names, arithmetic, comparisons, and/or/not, "
            f"`in [...]`, `a if b else c` and the functions {', '.join(FUNCTIONS)}"
        )


_ALLOWED = (
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp),
    *(ast.Call, ast.Name, ast.Constant, ast.List),
)


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name):
            return values[name]
        case ast.List(elts=elements):
            return [_value(element, values) for element in elements]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, values), _value(right, values))
        case ast.UnaryOp(op=op_, operand=operand):
            return _UNARY[type(op_)](_value(operand, values))
        case ast.BoolOp(op=join, values=parts):
            combine = np.logical_and if isinstance(join, ast.And) else np.logical_or
            return combine.reduce(np.broadcast_arrays(*(_value(part, values) for part in parts)))
        case ast.IfExp(test=test, body=body, orelse=other):
            return np.where(_value(test, values), _value(body, values), _value(other, values))
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_value(side, values) for side in (left, *others)]
            found = [_COMPARISONS[type(op)](a, b) for op, a, b in zip(ops, sides, sides[1:], strict=False)]
            return found[0] if len(found) == 1 else np.logical_and.reduce(found)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](*(_value(argument, values) for argument in arguments))
    raise FormulaError(f"{ast.unparse(node)} can't be evaluated")
