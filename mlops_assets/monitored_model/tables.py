"""Names that steps, sensors and pages share: the tables of a model, and the reasons that are asked for by name."""

# Which table a step writes; the raw table's name comes from the model.
FEATURES = "features"
PROFILE = "profile"
CHALLENGER = "challenger"
CHAMPION = "champion"
PREDICTIONS = "predictions"
DRIFT_REPORT = "drift_report"
FALLBACK_PREDICTIONS = "fallback_predictions"
SERVED_PREDICTIONS = "served_predictions"
PERFORMANCE = "performance"

# What computed the features, among the facts of their partition and of the predictions made from them.
# The period whose outcomes a period that is to be opened waits for, in the facts of its features.
WAITS_FOR = "waits_for"
DEFINITION = "definition"
# Which causes a challenger was trained for, among the facts of its partition.
CAUSE_IDS = "cause_ids"

NO_CHAMPION = "no champion yet"
