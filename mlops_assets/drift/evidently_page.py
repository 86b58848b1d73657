"""Evidently's view of a period: one self-contained HTML page, and one run in the local Evidently workspace.

Here: turning two samples of rows into a page that opens offline and into panels over the periods that
`evidently ui --workspace DIR` shows. The page illustrates. The verdict is made elsewhere, from the exact
profiles of all rows; the caller passes it as `title`, and the page says that its own figures come from a
sample.
"""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlops_assets.drift.evidently_text import neutral_frame, neutral_names
from mlops_assets.lake.categories import text_of_each
from mlops_assets.neutral_text import neutral, neutral_markdown

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from mlops_assets.lake.columns import Kind

MAX_SAMPLE_ROWS = 20_000
"""The most rows that either side of a page may have. 10,000 show the same picture and cost less."""

DRAWN = 1e100
"""Numbers are drawn up to here, in absolute value."""

_RUN_IDS = uuid.UUID("6f0c7f1e-0a4b-5c1b-9d43-3b8f5e1f2a77")
"""Ids are made from names below this one: a period made again replaces its run, and processes agree."""


@dataclass(frozen=True)
class EvidentlyPage:
    """What `write_page` wrote and found.

    `drifted_columns` are the features and the score that Evidently's own test flags at its own default
    threshold, `drifted_share` is their share of all columns on the page (0 when there is none), `left_out`
    says for each column that is not on the page why. The ids are None when no workspace was given.
    """

    html: Path
    project_id: str | None
    snapshot_id: str | None
    drifted_columns: tuple[str, ...]
    drifted_share: float
    left_out: Mapping[str, str]


def write_page(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    kinds: Mapping[str, Kind],
    *,
    model: str,
    period: str,
    timestamp: datetime,
    html: Path,
    title: str,
    score_column: str | None = None,
    notes: Sequence[str] = (),
    workspace: Path | None = None,
    tags: Sequence[str] = (),
) -> EvidentlyPage:
    """Write Evidently's data drift report of a period as HTML, and as a run of the model's Evidently project.

    Parameters
    ----------
    reference, current
        Samples of rows, at least one and at most `MAX_SAMPLE_ROWS` each. Other columns than those of `kinds`
        and the score are ignored. In the order of time Evidently's plots by row number run
        through the period.
    kinds
        The feature columns in order.
    score_column
        The numeric column of the champion's scores, shown last; None while there is no champion.
    timestamp
        Start of the period, naive: the place of the run on the panels' time axis.
    html
        The page. It appears complete or not at all.
    title
        The verdict of the period in one line; `notes` are further lines below it. Markdown is not
        interpreted.
    workspace
        Folder of the Evidently workspace, made when it is not there. The run of the same model and period is
        replaced. Processes may write it at the same time, and a running `evidently ui` shows the new run.
    tags
        Tags of the run in Evidently's UI, next to the model and the period.

    Columns that a comparison is not possible for (only nulls on one side, not there on one side, text in a
    numeric column) are left out and noted on the page. Unseen categories and constant columns are compared.

    Raises
    ------
    ValueError
        When a side has no rows or more than `MAX_SAMPLE_ROWS`.
    """
    for side, frame in (("reference", reference), ("current", current)):
        if not 1 <= len(frame) <= MAX_SAMPLE_ROWS:
            raise ValueError(
                f"The {side} sample of {model} {period} has {len(frame):,} rows, expected 1 to "
                f"{MAX_SAMPLE_ROWS:,}: pass a random sample, and make no page for a period without rows."
            )
    wanted: dict[str, Kind] = dict(kinds)
    if score_column is not None:
        wanted[score_column] = "numeric"
    left_out = _incomparable(reference, current, wanted)
    compared = {name: kind for name, kind in wanted.items() if name not in left_out}
    text = _header(title, notes, left_out, len(reference), len(current), period)
    names = neutral_names(compared)
    snapshot = _run(
        neutral_frame(_typed(reference, compared), compared, names),
        neutral_frame(_typed(current, compared), compared, names),
        {names[name]: kind for name, kind in compared.items()},
        heading=neutral(f"{model} · {period}"),
        text=text,
        name=neutral(f"{model} {period}"),
        timestamp=timestamp,
        tags=[neutral(tag) for tag in (model, period, *tags)],
    )
    with _whole_file(html) as partial:
        page = snapshot.get_html_str(as_iframe=False)
        partial.write_text(
            page.replace("<head>", f"<head>\n<title>{_html(f'{model} {period}: data drift')}</title>", 1),
            "utf-8",
        )
    project_id = snapshot_id = None
    if workspace is not None:
        shown_score = None if score_column is None else names.get(score_column, neutral(score_column))
        project_id, snapshot_id = _add_run(workspace, model, period, snapshot, shown_score)
    real_names = {safe: name for name, safe in names.items()}
    drifted = tuple(real_names[safe] for safe in _drifted(snapshot))
    return EvidentlyPage(
        html=html,
        project_id=project_id,
        snapshot_id=snapshot_id,
        drifted_columns=drifted,
        drifted_share=len(drifted) / len(compared) if compared else 0.0,
        left_out=left_out,
    )


def forget_run(workspace: Path, *, model: str, period: str) -> bool:
    """Remove the run of a period that has no page any more. False when there was none."""
    path = _run_path(workspace, model, period)
    found = path.exists()
    path.unlink(missing_ok=True)
    return found


def project_url_path(model: str) -> str:
    """The path of a model's project below the address of `evidently ui`."""
    return f"/projects/{_project_id(model)}"


def _incomparable(reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, Kind]) -> dict[str, str]:
    reasons = {}
    for name, kind in kinds.items():
        absent = [side for side, frame in (("reference", reference), ("current", current)) if name not in frame]
        if len(absent) == 2:
            reasons[name] = "in neither of the two samples"
        elif absent:
            reasons[name] = "new: not in the reference" if absent == ["reference"] else "vanished: not in this period"
        else:
            sides = {"the reference": reference[name], "this period": current[name]}
            problems = [f"{problem} in {side}" for side, v in sides.items() if (problem := _problem(v, kind))]
            if problems:
                reasons[name] = ", ".join(problems)
    return reasons


def _problem(values: pd.Series, kind: Kind) -> str | None:
    import numpy as np

    if kind == "categorical":
        return "only nulls" if values.isna().all() else None
    try:
        numbers = _numbers(values)
    except (TypeError, ValueError):
        return f"values that are no numbers ({values.dropna().iloc[0]!r}, …)"
    return None if np.isfinite(numbers).any() else "only nulls"


def _numbers(values: pd.Series) -> pd.Series:
    if values.dtype == object:
        values = values.map(lambda value: float(value) if isinstance(value, Decimal) else value)
    return values.astype("Float64").astype("float64")


def _typed(frame: pd.DataFrame, kinds: Mapping[str, Kind]) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    columns = {}
    for name, kind in kinds.items():
        values = frame[name]
        if kind == "numeric":
            # The squares of larger numbers are no doubles, and Evidently's histograms raise.
            columns[name] = _numbers(values).replace([np.inf, -np.inf], np.nan).clip(-DRAWN, DRAWN)
        else:
            columns[name] = pd.Series(text_of_each(values), index=frame.index)
    return pd.DataFrame(columns, index=frame.index).reset_index(drop=True)


def _header(
    title: str, notes: Sequence[str], left_out: Mapping[str, str], reference: int, current: int, period: str
) -> str:
    """The lines above Evidently's table, as the Markdown that its text widget reads."""
    lines = [f"**{_markdown(title)}**", *map(_markdown, notes)]
    lines += [f"Left out: **{_markdown(name)}**, {_markdown(reason)}." for name, reason in left_out.items()]
    lines.append(
        f"*Below: Evidently's default tests and thresholds, on a random sample of {current:,} rows of "
        f"{period} and {reference:,} rows of the reference. The verdict above is made from all rows.*"
    )
    return "\n\n".join(lines)


def _markdown(text: str) -> str:
    """Text for Evidently's Markdown, which stands in the script of its page."""
    return neutral_markdown(neutral(" ".join(text.split()), limit=None))


def _html(text: str) -> str:
    from html import escape

    return escape(text)


@contextmanager
def _quiet() -> Iterator[None]:
    """Evidently's imports and tests warn about things that its callers can't change.

    Divisions by the standard deviation of a constant, small expected frequencies, deprecated names of its
    own.
    """
    import numpy as np

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        for category in (RuntimeWarning, DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category)
        yield


@cache
def _containers() -> tuple[type[Any], type[Any]]:
    """Evidently's container classes for our header and for the drift table without its own overall verdict.

    Evidently's banner ("Dataset Drift is NOT detected. Threshold is 0.5") would contradict the period's
    verdict, which has other thresholds and sees all rows.
    """
    os.environ["DO_NOT_TRACK"] = "1"  # read when Evidently is imported
    with _quiet():
        from evidently.core.container import MetricContainer
        from evidently.legacy.renderers.html_widgets import text_widget
        from evidently.presets import DataDriftPreset

    class PeriodHeader(MetricContainer):  # type: ignore[misc,unused-ignore]
        heading: str
        text: str

        def generate_metrics(self, context: Any) -> list[Any]:
            return []

        def render(self, context: Any, child_widgets: Any = None) -> list[Any]:
            return [text_widget(title=self.heading, text=self.text)]

    class DriftTable(DataDriftPreset):  # type: ignore[misc,unused-ignore]
        def render(self, context: Any, child_widgets: Any = None) -> list[Any]:
            widgets = super().render(context, child_widgets)
            return [w for w in widgets if not str(w.params.get("counters", "")).count("Dataset drift detection")]

    return PeriodHeader, DriftTable


def _run(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    kinds: Mapping[str, Kind],
    *,
    heading: str,
    text: str,
    name: str,
    timestamp: datetime,
    tags: Sequence[str],
) -> Any:
    import numpy as np

    header, drift_table = _containers()
    from evidently import DataDefinition, Dataset, Report
    from threadpoolctl import threadpool_limits

    metrics = [header(heading=heading, text=text)]
    if kinds:
        metrics.append(drift_table(columns=list(kinds)))
    else:  # Evidently refuses a frame without columns, and then there is nothing but our header to show
        reference, current = (frame.assign(none=np.zeros(len(frame))) for frame in (reference, current))
    definition = DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind == "numeric"],
        categorical_columns=[name for name, kind in kinds.items() if kind == "categorical"],
    )
    # From 10,000 rows on BLAS starts threads for its sums: half as much CPU again, and no time saved.
    with _quiet(), threadpool_limits(1, user_api="blas"):
        return Report(metrics).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
            timestamp=timestamp,
            tags=list(tags),
            name=name,
        )


def _drifted(snapshot: Any) -> tuple[str, ...]:
    drifted = []
    for metric in snapshot.dict()["metrics"]:
        config = metric["config"]
        if config["type"].endswith(":ValueDrift"):
            # A test's p-value is small, a distance is large when the column has drifted.
            is_p_value = "p_value" in config["method"]
            value, threshold = metric["value"], config["threshold"]
            if value < threshold if is_p_value else value >= threshold:
                drifted.append(config["column"])
    return tuple(drifted)


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` once the block is left without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _project_id(model: str) -> uuid.UUID:
    return uuid.uuid5(_RUN_IDS, model)


def _run_path(workspace: Path, model: str, period: str) -> Path:
    project = _project_id(model)
    return workspace / str(project) / "snapshots" / f"{uuid.uuid5(project, period)}.json"


def _add_run(workspace: Path, model: str, period: str, snapshot: Any, score_column: str | None) -> tuple[str, str]:
    """Write the model's project, its dashboard and the run, each as one file that appears whole.

    Everything is written beside the workspace first and then renamed into it: a running `evidently ui`
    watches the folder and would miss a rename from within it, and could read half of a file that is written
    in place.
    """
    from evidently.sdk.models import ProjectModel
    from evidently.ui.storage.local.base import LocalState
    from filelock import FileLock

    project, path = _project_id(model), _run_path(workspace, model, period)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = workspace.resolve().parent / f".{workspace.name}.{uuid.uuid4().hex}.tmp"
    state = LocalState(str(beside))
    try:
        with _quiet():
            state.write_project(
                ProjectModel(id=project, name=model, description=f"Data drift of {model}, one run per period")
            )
            state.write_dashboard(project, _dashboard(project, score_column))
            made = beside / str(project)
            # LocalState.write_snapshot does the same through json.dump, which takes four times as long.
            (made / path.name).write_text(snapshot.dumps(), "utf-8")
        # The lock keeps a project's files of one writer together; none of them is ever seen half-written.
        with FileLock(workspace.resolve().parent / f".{workspace.name}.lock"):
            for name in ("dashboard.json", "metadata.json"):
                _replace_if_different(made / name, path.parent.parent / name)
            (made / path.name).replace(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return str(project), path.stem


def _replace_if_different(new: Path, old: Path) -> None:
    if not old.exists() or old.read_bytes() != new.read_bytes():
        new.replace(old)


def _dashboard(project: uuid.UUID, score_column: str | None) -> Any:
    from evidently.sdk.models import DashboardModel, DashboardTabModel, PanelMetric
    from evidently.sdk.panels import line_plot_panel

    def drifted(value_type: Literal["count", "share"], legend: str) -> list[Any]:
        return [PanelMetric(legend=legend, metric="DriftedColumnsCount", metric_labels={"value_type": value_type})]

    def drift(legend: str, **labels: str) -> list[Any]:
        return [PanelMetric(legend=legend, metric="ValueDrift", metric_labels=labels)]

    panels = [
        # No counters: Evidently's page shows a counter of 0, the usual case here, as "no value".
        line_plot_panel("Share of drifted columns", drifted("share", "share"), size="half"),
        line_plot_panel("Number of drifted columns", drifted("count", "columns"), size="half"),
    ]
    if score_column is not None:
        panels.append(
            line_plot_panel("Drift of the champion's scores", drift("{{column}}", column=score_column), size="full")
        )
    panels.append(
        line_plot_panel(
            "Drift of each column",
            drift("{{column}}"),
            description="Evidently's default distance of each column; 0.1 is its threshold",
        )
    )
    for panel in panels:
        panel.id = uuid.uuid5(project, panel.title)
    tab = DashboardTabModel(id=uuid.uuid5(project, "tab"), title="Drift", panels=[p.id for p in panels])
    return DashboardModel(tabs=[tab], panels=panels)
