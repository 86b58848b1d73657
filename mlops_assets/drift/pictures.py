"""Pictures of drift: what moved, when, and how, as small PNG files.

Here: drawing numbers that were computed elsewhere. Each function returns the bytes of one PNG of at most 60
KB on an opaque white card, legible on light and dark pages. They use matplotlib's object interface, which
has no global state, so threads may draw at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mlops_assets.drift.distances import format_value
from mlops_assets.neutral_text import visible

if TYPE_CHECKING:
    from datetime import date

    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.figure import Figure

    from mlops_assets.drift.profile import ColumnProfile

INK, FAINT, GRID = "#1f2933", "#52606d", "#e4e7eb"
REFERENCE, CURRENT, ALARM = "#9aa5b1", "#1f6feb", "#b42318"

DRAWN = 1e100
MOST_BARS = 10
"""Values that a bar picture shows one by one; the rest is summed as *other*."""


class Counts(Protocol):
    """Sorted distinct values and their rows: a `ColumnProfile` or a `ScoreHistogram`."""

    @property
    def values(self) -> np.ndarray:
        """Distinct values, ascending."""

    @property
    def counts(self) -> np.ndarray:
        """Rows of each value."""


def drift_by_day_picture(
    days: Sequence[date],
    columns: Sequence[str],
    psi: np.ndarray,
    *,
    warning: float,
    severe: float,
    noise_floor: np.ndarray | None = None,
    since: date | None = None,
    title: str = "Drift by day against the reference (PSI)",
    most: int = 20,
) -> bytes:
    """Heat map of the population stability index of every column on every day, the worst column on top.

    `psi` has the shape (days, columns), NaN where it is not known. `noise_floor`, of the same shape, is the
    PSI that so few rows may show by chance; where it hides the verdict the cell is a gap. `warning` and
    `severe` are the thresholds that the colours turn at. `since` is the break day: a line before it and a
    label. Only the `most` worst columns are drawn, and the title says how many are not.

    Raises ValueError when the shape of `psi` does not fit, or when there is nothing to draw.
    """
    found = np.asarray(psi, dtype=np.float64)
    if found.shape != (len(days), len(columns)) or not found.size:
        raise ValueError(
            f"Expected a PSI for each of {len(days)} days and {len(columns)} columns, at least one of each; "
            f"found the shape {found.shape}."
        )
    if noise_floor is not None:
        hidden = (noise_floor >= severe) | ((found <= noise_floor) & (found >= warning))
        found = np.where(hidden, np.nan, found)
    mean = _mean_since(days, found.T, since)
    order = np.argsort(-mean, kind="stable")[:most]
    matrix, names = found.T[order], [format_value(columns[i]) for i in order]
    if len(order) < len(columns):
        title += f" · the {len(order)} worst of {len(columns)} columns"
    # A month must fit in the dialog that Dagster shows pictures in: about 1000 pixels.
    figure, axes = _card(width=3.4 + max(len(days), 14) * 0.155, height=1.25 + 0.27 * len(names))
    colours, scale = _thresholded_colours(warning, severe)
    axes.set_facecolor("#f7f8fa")
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(np.clip(matrix, scale.vmin, scale.vmax)),
        cmap=colours,
        norm=scale,
        edgecolors="white",
        linewidth=1.0,
    )
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(names)) + 0.5, [visible(name) for name in names], fontsize=9)
    axes.tick_params(length=0, colors=INK)
    for label, column in zip(axes.get_yticklabels(), order, strict=True):
        if mean[column] >= severe:
            label.set(color=ALARM, fontweight="bold")
    _label_days(axes, days)
    for spine in axes.spines.values():
        spine.set_visible(False)
    gaps = np.isnan(matrix).any()
    _titled(axes, title, below="blank: too few rows to tell" if gaps else " ")
    if since is not None and days[0] <= since <= days[-1]:
        _mark_break(axes, sum(day < since for day in days), len(days), f"since {since.day} {since:%b %Y}")
    bar = figure.colorbar(mesh, ax=axes, pad=0.015, aspect=max(10, 3 * len(names)), fraction=0.03)
    ticks = {
        0.01: "0.01",
        warning: f"{warning:g} warning",
        severe: f"{severe:g} severe",
        1.0: "1",
        10.0: "10",
    }
    kept = [t for t in ticks if t in (warning, severe) or not _crowded(t, (warning, severe))]
    bar.set_ticks(kept, labels=[ticks[t] for t in kept])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator,unused-ignore]
    return _png(figure)


def score_histogram_picture(
    reference: Counts, current: Counts, cut: float | None = None, *, title: str = "Scores of the champion"
) -> bytes:
    """The champion's scores on its test rows and in this period, as shares of rows.

    `cut` is where scores become positive predictions, drawn with the share of rows at or above it; None for
    amounts. Raises ValueError when a side has no rows.
    """
    sides = {"reference": reference, "this period": current}
    for side, found in sides.items():
        if not found.counts.sum():
            raise ValueError(f"No scores to draw in the {side}: expected at least one row.")
    figure, axes = _card(width=7.2, height=3.0)
    _overlaid(axes, reference, current, probabilities=cut is not None)
    below = ""
    if cut is not None:
        above = [found.counts[found.values >= cut].sum() / found.counts.sum() for found in sides.values()]
        below = f"at or above the cut of {cut:.3g}: {_change(*above)} of rows"
        axes.axvline(cut, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    _titled(axes, title, below=below)
    return _png(figure)


def column_change_picture(reference: ColumnProfile, current: ColumnProfile) -> bytes:
    """Shares of a column's values in the reference and in this period, side by side; nulls and rare values
    too.

    Few distinct values or categories: one pair of bars each, those that changed most. Many numeric values:
    two histograms over the range of the middle 99 %. Raises ValueError when a side has no rows.
    """
    for side, found in (("reference", reference), ("this period", current)):
        if not found.rows:
            raise ValueError(f"No rows of {found.name!r} to draw in {side}: expected at least one.")
    name = format_value(current.name)
    distinct = np.union1d(reference.values, current.values)
    nulls = [found.nulls / found.rows for found in (reference, current)]
    both_filled = reference.counts.sum() and current.counts.sum()
    if current.kind == "numeric" and len(distinct) > 2 * MOST_BARS and both_filled:
        figure, axes = _card(width=7.2, height=3.0)
        _overlaid(axes, reference, current, probabilities=False)
        _titled(axes, name, below=f"no value: {_change(*nulls)} of rows" if max(nulls) else "")
        return _png(figure)
    rows, others = _shares_by_value(reference, current, distinct)
    if max(nulls):
        rows.append(("no value", nulls[0], nulls[1]))
    return _bars(name, rows, others)


def _shares_by_value(
    reference: ColumnProfile, current: ColumnProfile, distinct: np.ndarray
) -> tuple[list[tuple[str, float, float]], str]:
    """(value, share in the reference, share now) of what changed most, and a line on the other values."""
    shares = np.zeros((2, len(distinct)))
    for side, found in enumerate((reference, current)):
        shares[side, np.searchsorted(distinct, found.values)] = found.counts / found.rows
    weight = np.abs(shares[1] - shares[0]) + 1e-3 * shares.sum(axis=0)
    shown = np.argsort(-weight, kind="stable")[:MOST_BARS]
    if current.kind == "numeric":
        shown = np.sort(shown)
    rest = np.setdiff1d(np.arange(len(distinct)), shown)
    others = f"{len(rest)} other values: {_change(*shares[:, rest].sum(axis=1))} of rows" if len(rest) else ""
    return [(_short(distinct[i]), float(shares[0, i]), float(shares[1, i])) for i in shown], others


def _bars(name: str, rows: list[tuple[str, float, float]], below: str) -> bytes:
    figure, axes = _card(width=7.2, height=0.95 + 0.34 * len(rows))
    place, thick = np.arange(len(rows)), 0.38
    sides = (
        (-1, REFERENCE, "reference", [row[1] for row in rows]),
        (1, CURRENT, "this period", [row[2] for row in rows]),
    )
    for offset, colour, label, shares in sides:
        bars = axes.barh(place + offset * thick / 2, shares, thick, color=colour, label=label)
        axes.bar_label(bars, [_percent(share) for share in shares], padding=4, fontsize=8, color=FAINT)
    axes.set_yticks(place, [row[0] for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(max(row[1], row[2]) for row in rows) * 1.1)
    axes.xaxis.set_visible(False)
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _legend(axes)
    _titled(axes, name, below=below)
    return _png(figure)


def _overlaid(axes: Axes, reference: Counts, current: Counts, *, probabilities: bool) -> None:
    """Two histograms over the same bins: the reference filled, this period as a line over a light fill."""
    edges = np.linspace(0, 1, 41) if probabilities else _middle_edges(reference, current)
    for found, colour, label in ((reference, REFERENCE, "reference"), (current, CURRENT, "this period")):
        inside = np.clip(found.values.astype(np.float64), edges[0], edges[-1])
        shares = np.histogram(inside, edges, weights=found.counts)[0] / found.counts.sum()
        filled = found is reference
        axes.stairs(
            shares,
            edges,
            fill=True,
            color=colour,
            alpha=0.55 if filled else 0.13,
            label=label if filled else None,
        )
        axes.stairs(shares, edges, color=colour, linewidth=1.0 if filled else 2.0, label=None if filled else label)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_axis_percent())
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=FAINT, labelsize=8.5)
    for name, spine in axes.spines.items():
        spine.set(visible=name == "bottom", color=FAINT)
    axes.set_ylabel("share of rows", fontsize=8.5, color=FAINT)
    _legend(axes)


def _middle_edges(reference: Counts, current: Counts) -> np.ndarray:
    """Bin edges over the middle 99 % of both sides: an absurd value must not squeeze the rest flat."""
    lows, highs = [], []
    for found in (reference, current):
        below = np.cumsum(found.counts) / found.counts.sum()
        first, last = np.minimum(np.searchsorted(below, [0.005, 0.995]), len(below) - 1)
        lows.append(float(found.values[first]))
        highs.append(float(found.values[last]))
    # Beyond that, differences and the canvas's own arithmetic are no doubles.
    low, high = max(min(lows), -DRAWN), min(max(highs), DRAWN)
    return np.linspace(low, high if high > low else low + 1.0, 41)


def _mean_since(days: Sequence[date], matrix: np.ndarray, since: date | None) -> np.ndarray:
    """Mean of each row's known values from the break day on, of all days without one; 0 without values."""
    after = np.array([since is None or day >= since for day in days])
    considered = matrix[:, after] if after.any() else matrix
    known = np.isfinite(considered)
    return np.where(known, considered, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _thresholded_colours(warning: float, severe: float) -> tuple[LinearSegmentedColormap, LogNorm]:
    """Logarithmic colours that turn from blue-grey to amber at `warning` and to red at `severe`."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    scale = LogNorm(min(0.01, warning / 4), max(10.0, severe * 10))
    at_warning, at_severe = float(scale(warning)), float(scale(severe))
    stops = [
        (0.0, "#f1f4f8"),
        (at_warning, "#c3d3e6"),
        (at_warning, "#fde3a7"),
        (at_severe, "#f5b942"),
        (at_severe, "#ee7b5a"),
        (1.0, "#7a0c1e"),
    ]
    return LinearSegmentedColormap.from_list("thresholds", stops, N=512), scale


def _mark_break(axes: Axes, first: int, days: int, label: str) -> None:
    axes.axvline(first, color=INK, linewidth=1.8, clip_on=False, ymax=1.03)
    right = first < 0.75 * days
    axes.annotate(
        label,
        (first, 1.0),
        (5 if right else -5, 7),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if right else "right",
        fontsize=9.5,
        fontweight="bold",
        color=ALARM,
    )


def _crowded(tick: float, others: Sequence[float]) -> bool:
    return any(abs(np.log10(tick / other)) < 0.3 for other in others)


def _label_days(axes: Axes, days: Sequence[date]) -> None:
    every = max(1, -(-len(days) // 31))
    shown = range(0, len(days), every)
    labels = []
    for i in shown:
        new_month = i == 0 or days[i].month != days[i - every].month
        labels.append(f"{days[i].day}\n{days[i]:%b}" if new_month else f"{days[i].day}")
    axes.set_xticks([i + 0.5 for i in shown], labels, fontsize=8)


def _card(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr,call-arg,unused-ignore]
    return figure, figure.add_subplot()


def _titled(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=22 if below else 8)
    if below:
        axes.annotate(
            below,
            (0, 1),
            (0, 7),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=9,
            color=FAINT,
        )


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderaxespad=0.2,
        handlelength=1.2,
    )


def _axis_percent() -> Callable[[float, float], str]:
    return lambda share, _: f"{share * 100:.3g} %"


def _change(before: float, after: float) -> str:
    return f"{_percent(before)} → {_percent(after)}"


def _percent(share: float) -> str:
    return "0 %" if share == 0 else f"{share * 100:.1f} %" if share >= 0.0005 else "< 0.1 %"


def _short(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else visible(str(value))
    return text if len(text) <= 28 else text[:27] + "…"


def _png(figure: Figure) -> bytes:
    """A PNG of at most 256 colours: a third of the size, and no difference that an eye would see."""
    from matplotlib.text import Text
    from PIL import Image

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a $ in a column's name starts no formula
        text.set_text(visible(text.get_text(), keep="\n"))
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    file = BytesIO()
    Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()
