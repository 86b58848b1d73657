"""What a model's `defs.yaml` says, read strictly and checked before anything loads it. No Dagster here."""
