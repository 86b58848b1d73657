"""What becomes of candidates that can't be fitted, and of rows that nothing can be chosen by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlops_assets.monitored_model.steps import challenger, champion, features, profile, raw
from mlops_assets.training import search
from mlops_assets_tests import tiny_model

MONTHS = ["2021-01", "2021-02", "2021-03"]
LOGISTIC = tiny_model.SPEC["candidates"][0]
# Fits, and can't say anything of a row: it looks at more neighbours than there are.
HOPELESS = {
    "estimator": "sklearn.neighbors.KNeighborsClassifier",
    "name": "neighbours",
    "params": {"n_neighbors": 10_000_000},
}


def test_a_candidate_that_took_no_part_is_a_warning_also_when_the_version_is_found_again(tmp_path: Path) -> None:
    spec = tiny_model.spec(candidates=[LOGISTIC, HOPELESS], trials=4)
    with tiny_model.ingested(tmp_path, spec, MONTHS) as bench:
        for reused in (False, True):
            made = challenger.make(bench, MONTHS[-1])
            assert (made.partition.rows, made.partition.facts["reused"]) == (1, reused)
            sane = next(check for check in made.checks if check.name == "training_sane")
            assert (sane.passed, sane.severity) == (False, "WARN")
            assert "candidate neighbours took no part, as none of its trials ended" in sane.description


@pytest.mark.parametrize(
    ("metric", "compared", "floor"), [("average_precision", "auc", "auc_of_chance"), ("f1", "f1", "f1_all_positive")]
)
def test_what_is_compared_with_the_base_rate_is_what_is_named(
    metric: str, compared: str, floor: str, tmp_path: Path
) -> None:
    with tiny_model.ingested(tmp_path, tiny_model.spec(metric=metric), MONTHS) as bench:
        made = challenger.make(bench, MONTHS[-1])
        ((metrics,),) = bench.con.sql(f"SELECT test_metrics FROM {bench.scan('challenger', MONTHS[-1:])}").fetchall()
    test = json.loads(metrics)[compared]
    sane = next(check for check in made.checks if check.name == "training_sane")
    assert (sane.metadata["metric"], sane.metadata["test_value"]) == (compared, pytest.approx(test))
    assert f"{compared} on test {test:.4f} against {sane.metadata[floor]:.4f}" in sane.description


def test_rows_that_nothing_can_be_chosen_by_train_nothing_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def undefined(*_: object, **__: object) -> None:
        raise search.UndefinedMetricError("none of 2 trials can be judged by these rows")

    monkeypatch.setattr(search, "train", undefined)
    with tiny_model.ingested(tmp_path, tiny_model.spec(), MONTHS) as bench:
        made = challenger.make(bench, MONTHS[-1])
    assert made.partition.rows == 0
    assert made.partition.reason == "nothing to choose by: none of 2 trials can be judged by these rows"


def test_a_leaking_column_is_named_by_a_warning_that_blocks_nothing(tmp_path: Path) -> None:
    columns = {**tiny_model.SPEC["columns"], "paid_at_counter": {"categorical": True}}
    sql = tiny_model.SQL.replace("AS is_cash", "AS is_cash, if(payment = 2, 'yes', 'no') AS paid_at_counter")
    months = ["2021-01", "2021-02", "2021-03"]
    tiny_model.write_rides(tmp_path / "data", months)
    with tiny_model.workbench(tmp_path / "home", tmp_path / "data", tiny_model.spec(columns=columns), sql) as bench:
        for period in months:
            for step in (raw, features, profile):
                step.make(bench, period)
        check = next(c for c in challenger.make(bench, months[-1]).checks if c.name == "training_sane")
        assert (check.passed, check.severity) == (False, "WARN")
        assert "paid_at_counter alone reaches 1.0000" in check.description
        assert champion.make(bench, months[-1]).partition.facts["decision"] == "first"
