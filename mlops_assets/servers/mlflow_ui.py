"""MLflow's server, behind the guard: `mlflow server --app-name mlops-assets`, by MLflow's entry point `mlflow.app`.

MLflow checks `Host` and `Origin` itself, but admits writing requests from any page of any port of this machine.
"""

from __future__ import annotations

from mlflow.server.fastapi_app import app as mlflow_app

from mlops_assets.servers.guard import Guard

app = Guard(mlflow_app)
