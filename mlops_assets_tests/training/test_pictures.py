from __future__ import annotations

import base64
from datetime import UTC, datetime

import numpy as np
import pytest

from mlops_assets.training.metrics import Metrics, calibration_curve
from mlops_assets.training.pictures import (
    as_markdown,
    calibration_picture,
    explanation_page,
    importances_picture,
    score_histogram_picture,
    trials_picture,
)
from mlops_assets.training.search import Trial

LIMIT = 40_000


def trial(number, state="complete", value=0.5, stage="search"):
    metrics = Metrics({"f1": value} if state == "complete" else {})
    return Trial(number, f"model {number % 2}", {}, metrics, 0.5, 1.0, state, datetime.now(UTC), None, stage)


@pytest.mark.parametrize(
    "make",
    [
        lambda: importances_picture({f"a long column name {i}": 1 / (i + 1) for i in range(80)}),
        lambda: importances_picture({"only": 1.0}),
        lambda: calibration_picture(calibration_curve([0, 1] * 500, np.linspace(0, 1, 1000))),
        lambda: score_histogram_picture({"reference": np.linspace(0, 1, 500), "now": [0.2, np.nan]}, 0.3),
        lambda: score_histogram_picture({"constant": [0.5, 0.5]}),
        lambda: score_histogram_picture({"empty": []}),
        lambda: trials_picture([trial(i, value=i / 10) for i in range(8)] + [trial(8, "failed")], "f1"),
        lambda: trials_picture([trial(0, "failed")], "f1"),
        lambda: trials_picture([trial(i, stage="compare" if i < 2 else "tune") for i in range(6)], "f1"),
        lambda: trials_picture([trial(i, stage="compare") for i in range(2)], "f1"),
    ],
)
def test_pictures_are_small_pngs_even_of_odd_data(make):
    picture = make()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < LIMIT
    assert make() == picture


def test_the_picture_of_two_stages_differs_from_that_of_one_search():
    stages = ["compare"] * 2 + ["tune"] * 4
    two = trials_picture([trial(i, stage=stage) for i, stage in enumerate(stages)], "f1")
    assert two != trials_picture([trial(i) for i in range(6)], "f1")


def test_markdown_carries_the_picture_itself():
    text = as_markdown(b"png", "a [b]\nc")
    assert text == f"![a \\[b\\] c](data:image/png;base64,{base64.b64encode(b'png').decode()})"


def test_only_an_ebm_has_an_explanation_page(trained):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    assert explanation_page(Pipeline([("e", LogisticRegression())]), "x") is None
    page = explanation_page(trained.pipeline, "<b>")
    assert "<title>&lt;b&gt;</title>" in page


@pytest.mark.filterwarnings("error")
def test_names_that_look_like_formulas_or_hold_control_characters_are_drawn() -> None:
    names = ["a$\\frac{$", "$x^$", "b\x1b[31m\u202e", "line\nfeed", "tab\there", "{} %s"]
    assert importances_picture(dict.fromkeys(names, 0.2), title="$\\unknown{$").startswith(b"\x89PNG")
