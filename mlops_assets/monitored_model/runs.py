"""How a Dagster run of a model ended: success, withheld or failed.

A period whose only failure is the border check `served_complete` is *withheld*: an outcome, not a fault. Dagster has
one word, FAILURE, for both; whoever must tell them apart (MLflow's run status, the command line's exit status,
alerts) asks here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dagster import DagsterInstance

RunOutcome = Literal["success", "withheld", "failed"]

BORDER_CHECK = "served_complete"


def run_outcome(instance: DagsterInstance, run_id: str) -> RunOutcome:
    """What the events of a run say so far.

    `withheld` when every failed step failed on its blocking check `served_complete` alone.
    """
    from dagster import DagsterEventType

    failures = instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    if not failures:
        run = instance.get_run_by_id(run_id)
        return "failed" if run is not None and run.status.value in ("FAILURE", "CANCELED") else "success"
    for entry in failures:
        event = entry.dagster_event
        data = event.step_failure_data if event is not None else None
        error = data.error if data is not None else None
        if error is None or error.cls_name != "DagsterAssetCheckFailedError" or BORDER_CHECK not in error.message:
            return "failed"
    return "withheld"
