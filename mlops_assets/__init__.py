"""Models you can leave running: a Dagster asset graph per monitored model."""
