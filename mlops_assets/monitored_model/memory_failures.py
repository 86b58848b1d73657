"""A step that runs out of memory, or whose process was killed: its run fails with what to do, and opens an incident."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from mlops_assets.incidents.store import Store
from mlops_assets.lake.memory import MEMORY_ADVICE, advice, first_line, is_out_of_memory
from mlops_assets.monitored_model.jobs import KIND_TAG, MODEL_TAG, PERIOD_KIND
from mlops_assets.monitored_model.resources import PARTITION_TAG
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


def killed_run_is_an_incident(store: Store, run: dg.DagsterRun, why: str) -> None:
    """Open the incident `period_failed` of a run whose process died; what kills processes is mostly their memory.

    Runs of other jobs than the period's are started again by what asked for them, and have incidents of their own.
    """
    selected = sorted(key.path[0] for key in run.asset_selection or ())
    model = run.tags.get(MODEL_TAG) or (selected[0] if selected else None)
    period = run.tags.get(PARTITION_TAG)
    if model is None or period is None or run.tags.get(KIND_TAG, PERIOD_KIND) != PERIOD_KIND:
        return
    sentence = (
        f"a run of {period} ended without an error of its own: {why}. Where the system's log says that it was killed "
        f"for its memory: {MEMORY_ADVICE}. Otherwise start it again"
    )
    store.found(
        model,
        period,
        "period_failed",
        verdict="killed",
        reasons=[{"sentence": sentence}],
        evidence=run.run_id,
        run_id=run.run_id,
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
