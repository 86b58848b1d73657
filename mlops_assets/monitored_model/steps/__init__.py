"""What each asset does, one module an asset: `make(bench, period)` writes the partition and returns its outcome.

No Dagster here. A module's name is the asset's name (`raw` for the model's `raw_<records>`).
"""
