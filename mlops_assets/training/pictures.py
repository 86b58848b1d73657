"""Small PNG pictures for the pages that people read, and the self-contained explanation of an EBM."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.neutral_text import neutral_markdown, visible
from mlops_assets.training.metrics import HIGHER_IS_BETTER, CalibrationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike
    from sklearn.pipeline import Pipeline

    from mlops_assets.training.search import Trial

DPI = 80
PALETTE = 64
INK, BLUE, ORANGE, GREY = "#1f2937", "#2563eb", "#d97706", "#9ca3af"


def _figure(width: float = 6.4, height: float = 3.6) -> tuple[Figure, Axes]:
    """A figure of its own, with no global state of pyplot: safe in threads and servers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_axisbelow(True)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    return figure, axes


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    from PIL import Image

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a $ in a column's name starts no formula
        text.set_text(visible(text.get_text(), keep="\n"))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    buffer = io.BytesIO()
    # Pictures travel inside Dagster's metadata: a palette makes them four times smaller.
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(PALETTE, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _title(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.set_ylabel(y, fontsize=8, color=INK)


def importances_picture(importances: Mapping[str, float], title: str = "Importance", top: int = 20) -> bytes:
    """Bars of the most important columns (shares of 1), PNG."""
    shown = sorted(importances.items(), key=lambda item: -item[1])[:top][::-1]
    figure, axes = _figure(height=max(1.4, 0.22 * len(shown) + 0.8))
    # By position: names that begin alike would share a bar.
    bars = axes.barh(range(len(shown)), [value for _, value in shown], color=BLUE, height=0.7)
    axes.set_yticks(range(len(shown)), [visible(name)[:40] for name, _ in shown])
    axes.bar_label(bars, [f" {value:.1%}" for _, value in shown], fontsize=7, color=INK)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    more = f" (top {top} of {len(importances)})" if len(importances) > top else ""
    _title(axes, title + more, "share of the model's importance", "")
    return _png(figure)


def calibration_picture(curve: CalibrationCurve, title: str = "Calibration") -> bytes:
    """Observed rate against mean score per bin, with the diagonal of a perfect model, PNG."""
    figure, axes = _figure(width=4.4, height=3.8)
    top = float(max(curve.score.max(initial=0.1), curve.rate.max(initial=0.1))) * 1.05
    axes.plot([0, top], [0, top], color=GREY, linestyle="--", linewidth=1, label="perfect")
    axes.plot(curve.score, curve.rate, color=BLUE, linewidth=1.2)
    size = 12 + 48 * curve.rows / max(int(curve.rows.max(initial=1)), 1)
    axes.scatter(curve.score, curve.rate, s=size, color=BLUE, label="observed (size: rows)", zorder=3)
    axes.legend(fontsize=7, frameon=False)
    _title(axes, title, "mean score", "observed rate")
    return _png(figure)


def score_histogram_picture(
    scores: Mapping[str, ArrayLike], cut: float | None = None, title: str = "Scores", bins: int = 50
) -> bytes:
    """Outlines of the score distributions by name (e.g. reference and this period), and the cut, PNG."""
    figure, axes = _figure()
    arrays = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    arrays = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    filled = [values for values in arrays.values() if len(values)]
    low, high = (min(v.min() for v in filled), max(v.max() for v in filled)) if filled else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    for (name, values), colour in zip(arrays.items(), (BLUE, ORANGE, GREY, INK), strict=False):
        if len(values):
            share = np.histogram(values, edges)[0] / len(values)
            axes.stairs(share, edges, color=colour, linewidth=1.3, label=f"{name} ({len(values):,})")
            axes.stairs(share, edges, color=colour, alpha=0.12, fill=True)
    if cut is not None:
        axes.axvline(cut, color=INK, linestyle=":", linewidth=1.2, label=f"cut {cut:.3f}")
    if filled or cut is not None:
        axes.legend(fontsize=7, frameon=False)
    _title(axes, title, "score", "share of rows")
    return _png(figure)


def trials_picture(trials: Sequence[Trial], metric: str, title: str = "Trials") -> bytes:
    """Validation metric of each trial and the best so far, by candidate; failed ones as crosses, PNG.

    A line divides the comparison of candidates from the tuning of the winner, in a search of two stages.
    """
    figure, axes = _figure()
    complete = [t for t in trials if t.state != "failed" and metric in t.metrics]
    for name, colour in zip(dict.fromkeys(t.candidate for t in trials), _colours(), strict=False):
        own = [t for t in complete if t.candidate == name]
        axes.scatter([t.number for t in own], [t.metrics[metric] for t in own], s=28, color=colour, label=name)
    if complete:
        values = np.array([t.metrics[metric] for t in complete])
        best = np.maximum.accumulate(values) if HIGHER_IS_BETTER[metric] else np.minimum.accumulate(values)
        axes.step([t.number for t in complete], best, where="post", color=INK, linewidth=1, label="best so far")
    failed = [t.number for t in trials if t.state == "failed"]
    if failed:
        floor = axes.get_ylim()[0]
        axes.scatter(failed, [floor] * len(failed), marker="x", color="#dc2626", label="failed", clip_on=False)
    _stages(axes, trials)
    axes.set_xticks(range(len(trials)) if len(trials) <= 20 else axes.get_xticks())
    axes.legend(fontsize=7, frameon=False)
    _title(axes, title, "trial", f"{metric} on validation")
    return _png(figure)


def _stages(axes: Axes, trials: Sequence[Trial]) -> None:
    tuned = [t.number for t in trials if t.stage == "tune"]
    if not any(t.stage == "compare" for t in trials):
        return
    border = (min(tuned) if tuned else len(trials)) - 0.5
    above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "fontsize": 7, "color": INK, "va": "bottom"}
    axes.axvline(border, color=GREY, linestyle="--", linewidth=1)
    axes.text(border - 0.1, 1.0, "compare", ha="right", **above)
    if tuned:
        axes.text(border + 0.1, 1.0, "tune", ha="left", **above)


def _colours() -> tuple[str, ...]:
    return (BLUE, ORANGE, "#059669", "#7c3aed", "#db2777", "#0891b2", "#65a30d", GREY)


def as_markdown(png: bytes, alt: str) -> str:
    """The picture as a markdown image that carries its own data."""
    return f"![{neutral_markdown(alt)}](data:image/png;base64,{base64.b64encode(png).decode()})"


def explanation_page(pipeline: Pipeline, title: str) -> str | None:
    """Every term of an Explainable Boosting Machine as an interactive figure: one HTML page, None for others.

    The page carries plotly.js once and loads nothing from elsewhere. A figure is drawn when it is scrolled
    to, so that a model of fifty terms opens at once.
    """
    if not hasattr(pipeline[-1], "explain_global"):
        return None
    from html import escape

    from plotly.offline import get_plotlyjs

    figures = _explanation_figures(pipeline)
    sections = [
        f'<section><h2 id="t{i}">{escape(name)}</h2><div class="figure" data-i="{i}"></div></section>'
        for i, (name, _) in enumerate(figures)
    ]
    links = " · ".join(f'<a href="#t{i}">{escape(name)}</a>' for i, (name, _) in enumerate(figures))
    # A "<" in a category's name could end the script element early, or open a comment in it.
    data = json.dumps([json.loads(figure) for _, figure in figures]).replace("<", "\\u003c")
    return _PAGE.format(
        title=escape(title), links=links, sections="\n".join(sections), data=data, plotly=get_plotlyjs()
    )


def _explanation_figures(pipeline: Pipeline) -> list[tuple[str, str]]:
    """(name, plotly JSON) of the summary and of every term, most important first."""
    import warnings

    estimator = pipeline[-1]
    explanation = estimator.explain_global(name="terms")
    names = list(estimator.term_names_)
    order = np.argsort(-np.asarray(estimator.term_importances()), kind="stable")
    with warnings.catch_warnings():
        # interpret draws with a function that plotly has deprecated.
        warnings.filterwarnings("ignore", message=r"\s*The append_trace method", category=DeprecationWarning)
        found: list[tuple[str, Any]] = [("Importance of the terms", explanation.visualize())]
        found += [(names[i], explanation.visualize(int(i))) for i in order]
    return [(name, figure.to_json()) for name, figure in found if figure is not None]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 60rem; margin: 2rem auto }}
 h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.05rem; margin-top: 2rem }} nav {{ font-size: .85rem }}
 .figure {{ min-height: 480px }}
</style>
<script>{plotly}</script></head>
<body><h1>{title}</h1>
<p>How each term moves the score (log-odds for a classification), over the rows the model was trained on.</p>
<nav>{links}</nav>
{sections}
<script type="application/json" id="figures">{data}</script>
<script>
const figures = JSON.parse(document.getElementById("figures").textContent);
const draw = new IntersectionObserver(entries => entries.forEach(entry => {{
  if (!entry.isIntersecting) return;
  draw.unobserve(entry.target);
  const figure = figures[+entry.target.dataset.i];
  Plotly.newPlot(entry.target, figure.data, Object.assign({{}}, figure.layout, {{autosize: true}}),
                 {{responsive: true, displaylogo: false}});
}}), {{rootMargin: "600px"}});
document.querySelectorAll(".figure").forEach(node => draw.observe(node));
</script></body></html>
"""
