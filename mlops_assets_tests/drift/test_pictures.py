"""The pictures of drift: they say what they should, in whatever state the data is, and stay small."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlops_assets.drift import pictures
from mlops_assets.drift.estimate import ScoreHistogram
from mlops_assets.drift.pictures import MOST_BARS, column_change_picture, drift_by_day_picture, score_histogram_picture
from mlops_assets.drift.profile import ColumnProfile

DAYS = [date(2022, 12, 1) + timedelta(days=i) for i in range(31)]
BREAK = date(2022, 12, 19)


def taxi_like(columns: int = 16) -> tuple[list[str], np.ndarray]:
    """Calm columns and, last, one that breaks."""
    psi = np.random.default_rng(0).gamma(1.0, 0.01, (31, columns))
    psi[[day >= BREAK for day in DAYS], -1] = 11.0
    return [f"column_{i}" for i in range(columns - 1)] + ["improvement_surcharge"], psi


def draw_days(columns: list[str], psi: np.ndarray, **kwargs: Any) -> bytes:
    return drift_by_day_picture(DAYS[: len(psi)], columns, psi, warning=0.1, severe=0.25, **kwargs)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that the pictures under test were made of."""
    figures: list[Figure] = []
    png = pictures._png

    def kept(figure: Figure) -> bytes:
        figures.append(figure)
        return png(figure)

    monkeypatch.setattr(pictures, "_png", kept)
    return figures


def texts(figure: Figure) -> str:
    from matplotlib.text import Text

    return " | ".join(t.get_text() for t in figure.findobj(Text) if isinstance(t, Text))


def is_small_png(picture: bytes) -> bool:
    from PIL import Image

    with Image.open(BytesIO(picture)) as image:
        return image.format == "PNG" and image.size[0] > 300 and len(picture) <= 60_000


def test_the_worst_column_is_on_top_in_red_and_the_break_is_dated(drawn: list[Figure]) -> None:
    assert is_small_png(draw_days(*taxi_like(), since=BREAK))
    axes = drawn[0].axes[0]
    labels = axes.get_yticklabels()
    assert axes.yaxis_inverted()
    assert labels[0].get_text() == "improvement_surcharge"
    assert [label.get_color() == pictures.ALARM for label in labels] == [True] + [False] * 15
    assert "since 19 Dec 2022" in texts(drawn[0])
    assert [np.asarray(line.get_xdata())[0] for line in axes.get_lines()] == [18]  # between the 18th and the 19th


def test_the_thresholds_are_on_the_colour_bar_and_turn_the_colours(drawn: list[Figure]) -> None:
    draw_days(*taxi_like())
    assert "0.1 warning" in texts(drawn[0])
    assert "0.25 severe" in texts(drawn[0])
    colours, scale = pictures._thresholded_colours(0.1, 0.25)
    calm, warned, alarmed = (np.array(colours(scale(v))) for v in (0.09, 0.12, 0.3))
    assert calm[2] > calm[0]
    assert warned[1] > 0.65 > 0.6 > alarmed[1]


def test_cells_without_enough_rows_are_blank_and_the_picture_says_so(drawn: list[Figure]) -> None:
    columns, psi = taxi_like(4)
    floor = np.zeros_like(psi)
    floor[0, :] = 0.5  # no verdict is possible on the first day
    psi[1, 0], floor[1, 0] = 0.15, 0.2  # above the warning, but not above chance
    draw_days(columns, psi, noise_floor=floor)
    mesh = drawn[0].axes[0].collections[0].get_array()
    assert mesh is not None
    assert int(np.ma.getmaskarray(mesh).sum()) == 4 + 1
    assert "too few rows" in texts(drawn[0])


def test_only_the_worst_of_many_columns_are_drawn_and_the_title_says_so(drawn: list[Figure]) -> None:
    assert is_small_png(draw_days(*taxi_like(120), since=BREAK))
    assert len(drawn[0].axes[0].get_yticklabels()) == 20
    assert "the 20 worst of 120 columns" in texts(drawn[0])


def test_a_week_a_day_and_nothing_known_can_be_drawn() -> None:
    for days in (7, 1):
        assert is_small_png(draw_days(["fare_amount"], np.full((days, 1), np.nan)))


def test_a_matrix_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"31 days and 2 columns.*\(2, 31\)"):
        drift_by_day_picture(DAYS, ["a", "b"], np.zeros((2, 31)), warning=0.1, severe=0.25)
    with pytest.raises(ValueError, match="at least one"):
        drift_by_day_picture([], [], np.zeros((0, 0)), warning=0.1, severe=0.25)


def test_the_score_picture_tells_the_share_above_the_cut_on_both_sides(drawn: list[Figure]) -> None:
    reference = ScoreHistogram.of([0.1, 0.2, 0.3, 0.9])
    current = ColumnProfile.of("score", "numeric", [0.1, 0.5, 0.8, 0.9])
    assert is_small_png(score_histogram_picture(reference, current, 0.5))
    assert "at or above the cut of 0.5: 25.0 % → 75.0 %" in texts(drawn[0])


def test_scores_of_a_regression_are_drawn_without_a_cut(drawn: list[Figure]) -> None:
    amounts = ColumnProfile.of("score", "numeric", [*range(-50, 500), 1e9])
    assert is_small_png(score_histogram_picture(amounts, amounts))
    assert "cut" not in texts(drawn[0])
    assert drawn[0].axes[0].get_xlim()[1] < 1000  # one absurd amount does not squeeze the others


def test_bars_show_values_nulls_and_the_sum_of_what_is_left_out(drawn: list[Figure]) -> None:
    zones = [str(z) for z in range(40)]
    reference = ColumnProfile.of("zone", "categorical", zones * 10)
    current = ColumnProfile.of("zone", "categorical", ["7"] * 300 + zones * 2 + [None] * 20)
    assert is_small_png(column_change_picture(reference, current))
    shown = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert shown[0] == "7"
    assert shown[-1] == "no value"
    assert len(shown) == MOST_BARS + 1
    assert "30 other values: 75.0 % → 15.0 % of rows" in texts(drawn[0])


def test_numbers_with_few_values_are_bars_in_order_and_new_values_start_at_zero(drawn: list[Figure]) -> None:
    reference = ColumnProfile.of("surcharge", "numeric", [0.3] * 99 + [0.0])
    current = ColumnProfile.of("surcharge", "numeric", [0.3] * 21 + [1.0] * 79)
    column_change_picture(reference, current)
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == ["0", "0.3", "1"]
    for share in ("0 %", "79.0 %", "99.0 %"):
        assert share in texts(drawn[0]).split(" | ")


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_a_column_that_is_all_null_now_can_be_drawn(kind: Any, drawn: list[Figure]) -> None:
    reference = ColumnProfile.of("fare", kind, list(range(100)))
    assert is_small_png(column_change_picture(reference, ColumnProfile.of("fare", kind, [None] * 5)))
    assert "no value" in texts(drawn[0])


def test_a_side_without_rows_is_refused_with_its_name() -> None:
    some, none = ColumnProfile.of("fare", "numeric", [1.0]), ColumnProfile.of("fare", "numeric", [])
    with pytest.raises(ValueError, match="'fare' to draw in this period"):
        column_change_picture(some, none)
    with pytest.raises(ValueError, match="in the reference"):
        score_histogram_picture(none, some, 0.5)


def test_names_from_the_data_are_drawn_as_they_are(drawn: list[Figure]) -> None:
    """Matplotlib reads text between dollar signs as a formula, and refuses what is none."""
    odd = ColumnProfile.of("price_in_$", "categorical", [r"$\nope$", "a" * 99, "ünï"])
    assert is_small_png(column_change_picture(odd, odd))
    columns, psi = taxi_like(2)
    assert is_small_png(draw_days([r"$\frac$", columns[1]], psi))


def test_threads_may_draw_at_the_same_time() -> None:
    columns, psi = taxi_like()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: draw_days(columns, psi, since=BREAK), range(6)))
    assert len(set(found)) == 1
