"""Models you can leave running: a Dagster asset graph per monitored model.

`connect()` opens the results in DuckDB; `MonitoredModel` is the component that `defs.yaml` names.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# A run trains in one thread, other models' runs go on beside it. OpenMP reads this when the first estimator loads it;
# its threads wait busily for each other, and cost more than they bring on frames of this size. Yours to set otherwise.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from mlops_assets.monitored_model.component import MonitoredModel
    from mlops_assets.monitoring import connect

__all__ = ["MonitoredModel", "connect"]


def __getattr__(name: str) -> Any:
    # Lazily, because the command line's help must not wait for Dagster.
    if name == "MonitoredModel":
        from mlops_assets.monitored_model.component import MonitoredModel

        return MonitoredModel
    if name == "connect":
        from mlops_assets.monitoring import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
