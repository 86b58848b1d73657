"""Running out of memory: telling it from other errors, and what a person can do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mlops_assets.lake.connection import DEFAULT_MEMORY, MEMORY_VARIABLE

# What C++ says of a failed allocation; XGBoost and LightGBM pass it on as errors of their own.
_SAID = ("bad_alloc", "bad allocation", "Cannot allocate memory", "unable to allocate")
# joblib's error for a worker process that was killed, mostly by the kernel for its memory.
_KILLED_WORKER = "TerminatedWorkerError"

MEMORY_ADVICE = f"lower max_rows in defs.yaml or {MEMORY_VARIABLE}, or give the process more memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that there was not enough memory."""
    import duckdb

    for found in _causes(error):
        if isinstance(found, MemoryError | duckdb.OutOfMemoryException) or type(found).__name__ == _KILLED_WORKER:
            return True
        if any(text in str(found) for text in _SAID):
            return True
    return False


def advice(error: BaseException, max_rows: int) -> str:
    """What to do about an error of this kind, by the part of the platform that ran out of memory."""
    import duckdb

    if any(isinstance(found, duckdb.OutOfMemoryException) for found in _causes(error)):
        limit = os.environ.get(MEMORY_VARIABLE, DEFAULT_MEMORY)
        return (
            f"raise {MEMORY_VARIABLE} (now {limit}), or make the query in defs.yaml and features.sql hold fewer rows "
            "at a time"
        )
    return (
        f"lower max_rows in defs.yaml (now {max_rows:,}), which bounds the rows of a fit, lower {MEMORY_VARIABLE} "
        f"(now {os.environ.get(MEMORY_VARIABLE, DEFAULT_MEMORY)}), or give the process more memory"
    )


def first_line(error: BaseException) -> str:
    """The error in one line: its type and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__
