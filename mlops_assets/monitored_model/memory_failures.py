"""A step that runs out of memory: its run fails with what to do about it, and an incident is open from then on."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mlops_assets.incidents.store import Store
from mlops_assets.lake.memory import advice, first_line, is_out_of_memory
from mlops_assets.monitored_model.spec import ModelSpec


class OutOfMemory(RuntimeError):
    """A step ran out of memory; the message is one line that says where and what to do."""


@contextmanager
def out_of_memory_is_an_incident(
    spec: ModelSpec, store: Store, period: str, asset: str, run_id: str | None
) -> Iterator[None]:
    """Turn errors that say that memory ran out into OutOfMemory, and open the incident `period_failed`.

    Another attempt would fail in the same way, so the incident does not wait for the last one.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sentence = (
            f"{asset} of {period} ran out of memory ({first_line(error)}). {_capital(advice(error, spec.max_rows))}"
        )
        failure = OutOfMemory(sentence)
        # The frames of the failed step hold its rows.
        traceback.clear_frames(error.__traceback__)
    else:
        return
    reasons = [{"sentence": sentence}]
    evidence = f"{run_id}/{asset}"
    store.found(
        spec.name, period, "period_failed", verdict="out of memory", reasons=reasons, evidence=evidence, run_id=run_id
    )
    raise failure


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
