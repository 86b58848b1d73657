"""The Evidently page: complete, offline, honest about what it leaves out, and one run per period."""

from __future__ import annotations

import json
import multiprocessing
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.drift.evidently_page import MAX_SAMPLE_ROWS, EvidentlyPage, forget_run, project_url_path, write_page
from mlops_assets.lake.columns import Kind

KINDS: dict[str, Kind] = {"fare": "numeric", "zone": "categorical"}


def rows(n: int = 1500, *, seed: int = 0, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "fare": rng.gamma(3.0, 4.0, n) + shift,
            "zone": rng.choice([41, 74, 75], n),
            "score": rng.beta(2, 3, n),
        }
    )


def page_of(
    folder: Path,
    reference: pd.DataFrame,
    current: pd.DataFrame,
    kinds: dict[str, Kind] = KINDS,
    **kwargs: Any,
) -> EvidentlyPage:
    given: dict[str, Any] = {
        "model": "taxi",
        "period": "2022-12",
        "timestamp": datetime(2022, 12, 1),
        "html": folder / "pages" / "2022-12.html",
        "title": "ok: nothing moved",
    }
    return write_page(reference, current, kinds, **(given | kwargs))


def runs(workspace: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(workspace.glob("*/snapshots/*.json"))]


def test_the_page_says_model_period_verdict_and_notes_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    page = page_of(tmp_path, rows(), rows(seed=1), title="severe: fare_amount", notes=["Reference: champion v5"])
    html = page.html.read_text("utf-8")
    assert "<title>taxi 2022-12: data drift</title>" in html
    assert r"taxi \u00b7 2022-12" in html
    assert "Reference: champion v5" in html
    assert "Dataset drift detection threshold" not in html  # a second verdict, with another threshold
    assert r"severe: fare\\_amount" in html  # Markdown characters are escaped, and the backslash in JSON again
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*[\"']?(?:https?:)?//", html)
    assert not re.findall(r"url\((?!data:|#|\"#|'#|\"data:|'data:)[^)]*https?:", html)


def test_a_column_that_moved_is_drifted_and_the_share_counts_features_and_score(tmp_path: Path) -> None:
    page = page_of(tmp_path, rows(), rows(seed=1, shift=20.0), score_column="score")
    assert page.drifted_columns == ("fare",)
    assert page.drifted_share == pytest.approx(1 / 3)


@pytest.mark.parametrize("n", [300, 1500])
def test_drifted_columns_are_those_that_evidently_counts(tmp_path: Path, n: int) -> None:
    """Below 1000 rows Evidently judges p-values, where small means drifted."""
    workspace = tmp_path / "workspace"
    page = page_of(tmp_path, rows(n), rows(n, seed=1, shift=20.0), score_column="score", workspace=workspace)
    (run,) = runs(workspace)
    counted = [m["count"]["value"] for m in run["metric_results"].values() if "count" in m]
    assert counted == [len(page.drifted_columns)] == [1]


def test_columns_that_cannot_be_compared_are_left_out_with_a_reason(tmp_path: Path) -> None:
    reference = rows().assign(empty=1.0, gone=1.0, words=1.0)
    current = rows(seed=1).assign(empty=None, new=2.0, words="many")
    kinds: dict[str, Kind] = {**KINDS} | dict.fromkeys(["empty", "gone", "new", "nowhere", "words"], "numeric")
    page = page_of(tmp_path, reference, current, kinds)
    assert page.left_out == {
        "empty": "only nulls in this period",
        "gone": "vanished: not in this period",
        "new": "new: not in the reference",
        "nowhere": "in neither of the two samples",
        "words": "values that are no numbers ('many', …) in this period",
    }
    assert "Left out: **nowhere**, in neither of the two samples" in page.html.read_text("utf-8")


def test_constant_columns_unseen_categories_booleans_and_nulls_are_compared(tmp_path: Path) -> None:
    kinds: dict[str, Kind] = {
        **KINDS,
        "constant": "numeric",
        "moved": "numeric",
        "flag": "numeric",
        "holes": "numeric",
    }
    reference = rows().assign(constant=0.0, moved=0.3, flag=True, holes=1.5, zone=41)
    current = rows(seed=1).assign(constant=0.0, moved=1.0, flag=False, zone="never seen")
    current["holes"] = pd.array([None if i % 2 else 1.5 for i in range(len(current))], dtype="Float64")
    current.loc[0, "fare"] = np.inf
    page = page_of(tmp_path, reference, current, kinds)
    assert page.left_out == {}
    assert set(page.drifted_columns) >= {"moved", "flag", "zone"}
    assert "constant" not in page.drifted_columns


def test_a_category_read_as_float_in_one_month_is_the_same_category(tmp_path: Path) -> None:
    current = rows()
    page = page_of(tmp_path, current.assign(zone=current["zone"].astype(float)), current)
    assert page.drifted_columns == ()


def test_a_page_without_any_comparable_column_is_still_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, rows()[["fare"]], rows()[["zone"]], workspace=tmp_path / "workspace", title="none: new")
    assert set(page.left_out) == {"fare", "zone"}
    assert page.drifted_share == 0
    assert "none: new" in page.html.read_text("utf-8")


@pytest.mark.parametrize("n", [0, MAX_SAMPLE_ROWS + 1])
def test_samples_of_the_wrong_size_are_refused_before_anything_is_written(tmp_path: Path, n: int) -> None:
    with pytest.raises(ValueError, match=rf"current sample of taxi 2022-12 has {n:,} rows"):
        page_of(tmp_path, rows(5), rows(n), workspace=tmp_path / "workspace")
    assert list(tmp_path.iterdir()) == []


def test_the_workspace_has_one_run_per_period_at_the_periods_start(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    first = page_of(tmp_path, rows(), rows(seed=1), workspace=workspace)
    page_of(tmp_path, rows(), rows(seed=2), workspace=workspace, period="2023-01", timestamp=datetime(2023, 1, 1))
    again = page_of(tmp_path, rows(), rows(seed=3), workspace=workspace, tags=["second"])
    assert (again.project_id, again.snapshot_id) == (first.project_id, first.snapshot_id)
    assert sorted((r["timestamp"][:10], r["tags"]) for r in runs(workspace)) == [
        ("2022-12-01", ["taxi", "2022-12", "second"]),
        ("2023-01-01", ["taxi", "2023-01"]),
    ]


def test_evidently_reads_the_workspace_with_its_panels(tmp_path: Path) -> None:
    from evidently.ui.workspace import Workspace

    workspace = tmp_path / "workspace"
    page = page_of(tmp_path, rows(), rows(seed=1), workspace=workspace, score_column="score")
    (project,) = Workspace.create(str(workspace)).list_projects()
    assert project.name == "taxi"
    assert project_url_path("taxi").endswith(str(project.id))
    titles = [panel.title for panel in project.dashboard.model().panels]
    assert {"Share of drifted columns", "Drift of the champion's scores", "Drift of each column"} <= set(titles)
    assert page.project_id is not None
    assert Workspace.create(str(workspace)).list_runs(page.project_id)


def test_models_have_projects_of_their_own(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    pages = [page_of(tmp_path, rows(), rows(), workspace=workspace, model=m) for m in ("taxi", "bank")]
    assert len({page.project_id for page in pages}) == 2


def test_a_forgotten_run_is_gone(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    page_of(tmp_path, rows(), rows(), workspace=workspace)
    assert forget_run(workspace, model="taxi", period="2022-12")
    assert not forget_run(workspace, model="taxi", period="2022-12")
    assert runs(workspace) == []


def test_a_failed_page_leaves_the_old_one_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evidently.core.report import Snapshot

    page = page_of(tmp_path, rows(), rows())
    old = page.html.read_bytes()

    def disk_full(self: Snapshot, as_iframe: bool) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(Snapshot, "get_html_str", disk_full)
    with pytest.raises(OSError, match="disk full"):
        page_of(tmp_path, rows(), rows(seed=1))
    assert page.html.read_bytes() == old
    assert list(page.html.parent.iterdir()) == [page.html]


def write_periods(folder: Path, periods: list[int]) -> None:
    for month in periods:
        page_of(
            folder,
            rows(200),
            rows(200, seed=month),
            workspace=folder / "workspace",
            html=folder / f"{month}.html",
            period=f"2022-{month:02}",
            timestamp=datetime(2022, month, 1),
        )


def test_two_processes_may_write_the_workspace_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # an import of Evidently takes seconds
    writers = [context.Process(target=write_periods, args=(tmp_path, p)) for p in ([1, 2, 3], [3, 2, 4])]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert sorted(run["timestamp"][:7] for run in runs(tmp_path / "workspace")) == [
        "2022-01",
        "2022-02",
        "2022-03",
        "2022-04",
    ]
    assert not list(tmp_path.glob(".*.tmp"))
