"""Names that MLflow takes, of anything that has a name."""

import mlflow
import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

from mlops_assets.training import tracking
from mlops_assets.training.tracking import valid_name

VALID = ["psi/fare", "share_of_severe_columns", "a.b-c d:e", "größe", "deep/er/name"]
INVALID = [
    *("Distance (km)", "100%", "x[0]", "<b>", 'a"b', "a|b", "tab\t", "line\n", "😀", ""),
    *("..", "../x", "/x", "a//b", "a/", "a/../b", ".", "./x", "n" * 251, "(" * 400),
]


@pytest.mark.parametrize("name", VALID)
def test_a_name_that_mlflow_takes_stays(name):
    assert valid_name(name) == name


@pytest.mark.parametrize("name", INVALID)
def test_any_other_name_becomes_one_that_mlflow_takes(name):
    found = valid_name(name)
    for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        validate(found)
    assert 0 < len(found) <= 250
    assert "\n" not in found


def test_names_stay_apart_and_readable():
    alike = ["Distance (km)", "Distance [km]", "Distance _km_", "Distance <km>", "n" * 251, "n" * 252]
    assert len({valid_name(name) for name in alike}) == len(alike)
    assert valid_name("psi/Distance (km)") == "psi/Distance _km_-9d0d33a7"


def test_more_metrics_than_one_request_takes_are_all_logged(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking.initialise(uri, tmp_path / "artifacts")
    client: mlflow.MlflowClient = tracking.client(uri)
    experiment = tracking.experiment(client, "wide", tmp_path / "artifacts")
    metrics = {f"psi/x ({number})": float(number) for number in range(1_200)}
    with tracking.open_run(client, experiment, "wide", tags={"tag (odd)": "1"}) as run_id:
        tracking.log(client, run_id, metrics=metrics, params={f"p{number}": number for number in range(120)})
    logged = client.get_run(run_id).data
    assert len(logged.metrics) == 1_200
    assert len(logged.params) == 120
