"""The web servers that `mlops-assets dev` starts, each with an origin of its own and all behind the same guard.

Plain `dagster dev`, `dg dev`, `mlflow server` and `evidently ui` start the same pages without the guard.
"""
