"""The classes of a target in a period, and those that nobody expects.

Every class but the positive one counts as "not the event". That is right for a class that was always there, wrong for
the event under another spelling (`YES` for `Yes`), and unknown for a class that is new.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlops_assets.lake.store import identifier
from mlops_assets.monitored_model.tables import FEATURES

if TYPE_CHECKING:
    from mlops_assets.monitored_model.workbench import Workbench

CLASSES = "target_classes"
"""The classes of a period with their rows, among the facts of its features."""
MOST_CLASSES = 100
EARLIER_PERIODS = 12
SHOWN = 5


@dataclass(frozen=True)
class UnexpectedClasses:
    """What is odd about the classes of a period, and whether that makes it unusable (`ERROR`)."""

    text: str
    severity: Literal["ERROR", "WARN"]


def noted_classes(rows: Mapping[str, int]) -> dict[str, int]:
    """The most frequent classes, as many as are kept."""
    return dict(sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:MOST_CLASSES])


def earlier_classes(bench: Workbench, period: str) -> set[str]:
    """The classes of the last usable periods before one; none when there is no such period."""
    earlier = [known for known in bench.lake.periods(bench.name, FEATURES) if known < period][-EARLIER_PERIODS:]
    made = [bench.partition(FEATURES, known) for known in earlier if bench.damaged(FEATURES, known) is None]
    usable = [partition for partition in made if partition.rows and not partition.facts.get("quality_failure")]
    seen = {value for partition in usable for value in partition.facts.get(CLASSES, ())}
    # Periods that were made before classes were noted.
    unnoted = [partition.period for partition in usable if CLASSES not in partition.facts]
    if unnoted:
        column = identifier(bench.spec.target.column)
        scan = bench.scan(FEATURES, unnoted)
        query = f"SELECT DISTINCT {column}::VARCHAR FROM {scan} WHERE {column} IS NOT NULL LIMIT {MOST_CLASSES}"
        seen |= {value for (value,) in bench.con.execute(query).fetchall()}
    return seen


def unexpected_classes(
    column: str, positive: str, rows: Mapping[str, int], seen: set[str], *, declared: bool
) -> UnexpectedClasses | None:
    """What is odd about the classes of a period; None when nothing is.

    Parameters
    ----------
    column, positive
        The target's column, and its positive class as the column's type spells it.
    rows
        Rows of the period by class.
    seen
        The classes of earlier periods.
    declared
        Whether `target.isin` lists the classes: then others break that rule already.
    """
    respelled = [value for value in rows if value != positive and _spelled_alike(value, positive)]
    if respelled and not declared:
        text = (
            f"{column} has {_listed(respelled, rows)}, to be told from the positive class {positive!r} by case, "
            "accents, blanks or the spelling of a number only: such rows would count as the opposite. Spell them alike "
            "in features.sql; if they are other classes, list all classes in target.isin."
        )
        return UnexpectedClasses(text, "ERROR")
    if rows and positive not in rows and positive not in seen:
        text = (
            f"No row has the positive class {positive!r} in {column}, neither here nor in the periods before; found "
            f"{_listed(rows, rows)}. Nothing can be trained without it: correct target.positive."
        )
        return UnexpectedClasses(text, "WARN")
    new = [value for value in rows if value not in seen and value != positive]
    if new and seen and not declared and max(len(rows), len(seen)) < MOST_CLASSES:
        text = (
            f"{column} has {_listed(new, rows)}, which no period before has. Like every class but {positive!r}, it "
            "counts as the opposite. If that is right, list all classes in target.isin; if it stands for "
            f"{positive!r} or for an unknown outcome, say so in features.sql."
        )
        return UnexpectedClasses(text, "WARN")
    return None


def _spelled_alike(value: str, other: str) -> bool:
    return _folded(value) == _folded(other) or _number(value) == _number(other) is not None


def _folded(value: str) -> str:
    decomposed = unicodedata.normalize("NFKD", value)
    return " ".join("".join(sign for sign in decomposed if not unicodedata.combining(sign)).casefold().split())


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _listed(values: Iterable[str], rows: Mapping[str, int]) -> str:
    shown = [f"{value!r} ({rows[value]:,} rows)" for value in values]
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
