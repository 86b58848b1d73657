"""`dg scaffold defs mlops_assets.MonitoredModel NAME`: a new model's folder, valid as it is, to be filled in."""

from __future__ import annotations

from string import Template
from typing import Any

import dagster as dg

DEFS_YAML = Template("""\
type: $type_name

# Check what you write with `dg check yaml` and `dg check defs`; then: mlops-assets backfill $name FROM..TO
attributes:
  name: $name
  records: records            # what one row is, in the plural
  description: What does this model predict?
  cadence: monthly            # or weekly; a weekly period is named by its Monday
  start: "2024-01"            # first period
  # end: "2024-12"            # last period; without it the partitions follow the calendar

  source:
    path: $name/$name-{period}.parquet   # below MLOPS_DATA_DIR; without {period} one file holds all periods
    time_column: happened_at
    schema:                   # every column that features.sql reads, with its DuckDB type; record_id comes by itself
      happened_at: TIMESTAMP
      amount: DOUBLE
      kind: VARCHAR
      outcome: BIGINT

  target: {column: target, task: classification, positive: 1}   # or task: regression

  columns:                    # the feature columns, in order, with what they may hold
    amount: {ge: 0}
    kind: {categorical: true}

  segments: [kind]            # columns to break results down by
  window: {train: [-2, -2], validation: [-1, -1], test: [0, 0]}   # periods, relative to the one that trains

  candidates:                 # any estimator with scikit-learn's interface; several compete
    - estimator: interpret.glassbox.ExplainableBoostingClassifier
      params: {outer_bags: 1, interactions: 5, learning_rate: 0.1, max_rounds: 300}
      search: {max_bins: {int: [64, 256]}}
      final: {outer_bags: 4}  # the chosen trial's last fit
  trials: 8
  metric: f1
  cut: tuned                  # or a number

  drift: {warning: 0.1, severe: 0.25, share: 0.1, important_share: 0.2, novelty: 0.5}   # PSI, and shares
""")

FEATURES_SQL = """\
-- One row per record: its key, the source's time column, the features, the target (NULL while it is not known).
-- Never filter on the target: the same query serves records whose outcome is still to come.
SELECT
    record_id,
    happened_at,
    amount,
    kind,
    outcome AS target
FROM raw_records
"""

README = Template("""\
# $name

What the model predicts, for whom, and from which data; how its windows and thresholds were chosen.
""")


class MonitoredModelScaffolder(dg.Scaffolder):
    """Writes defs.yaml, features.sql and README.md of a new model, named after the folder."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        if request.scaffold_format != "yaml":
            raise ValueError("a monitored model is declared in YAML; leave out `--format python`")
        name = request.target_path.name
        files = {
            "defs.yaml": DEFS_YAML.substitute(type_name=request.type_name, name=name),
            "features.sql": FEATURES_SQL,
            "README.md": README.substitute(name=name),
        }
        for file, text in files.items():
            (request.target_path / file).write_text(text)
