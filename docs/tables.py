"""Write the tables of the READMEs anew from the results in MLOPS_HOME.

    mlops-assets backfill green_taxi 2021-01..2023-03
    python docs/tables.py green_taxi

    mlops-assets backfill bank_marketing 2008-05..2010-11
    python docs/tables.py bank_marketing

    mlops-assets simulate ed_admission --rows 5000 --months 12 --drift covariate:2025-05 --drift concept:2025-09
    mlops-assets backfill ed_admission 2025-01..2025-12
    python docs/tables.py ed_admission

    mlops-assets backfill unit_sales 2014-01-06..2018-12-24
    python docs/tables.py unit_sales

Each table, or what a command printed, stands between `<!-- NAME -->` and `<!-- /NAME -->`; what is between is replaced.
Nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_assets import connect

PROJECT = Path(__file__).resolve().parent.parent

MONTHS = """
SELECT p.period, p.verdict, d.since, p.decision, p.champion_version AS champion, c.trained_on AS "trained on",
       p.rows, p.served_rows AS served, p.served_source AS "served by",
       f.f1 AS F1, f.floor AS "F1 if all cash", f.auc AS AUC, f.estimate AS "AUC estimated"
FROM monitoring.periods p
LEFT JOIN green_taxi.challengers c USING (period)
LEFT JOIN (SELECT period, min(since) AS since FROM green_taxi.drift WHERE "column" = '(period)' GROUP BY period) d
    USING (period)
LEFT JOIN (
    SELECT period,
           max(value) FILTER (source = 'champion' AND metric = 'f1') AS f1,
           max(value) FILTER (source = 'champion' AND metric = 'f1_all_positive') AS floor,
           max(value) FILTER (source = 'champion' AND metric = 'auc') AS auc,
           max(value) FILTER (source = 'estimate' AND metric = 'auc') AS estimate
    FROM green_taxi.performance WHERE segment IS NULL GROUP BY period
) f USING (period)
WHERE p.model = 'green_taxi'
ORDER BY p.period
"""

CHAMPIONS = """
SELECT c.period AS test, c.decision, ch.test_value AS "F1 on test",
       json_extract(ch.test_metrics, '$.auc')::DOUBLE AS "AUC on test",
       json_extract(ch.test_metrics, '$.f1_all_positive')::DOUBLE AS "F1 if all cash"
FROM green_taxi.champions c JOIN green_taxi.challengers ch USING (period)
WHERE c.period IN ('2021-03', '2021-08', '2022-10')
ORDER BY c.period
"""

DRIFT = """
SELECT period, "column", value AS PSI, verdict, since, direction AS change
FROM green_taxi.drift
WHERE method = 'psi' AND verdict IN ('warning', 'severe')
ORDER BY period, value DESC
"""


PLAN_B = """
SELECT f.period, f.source AS scores, s.fallback_rung AS rung, s.source_period AS "from",
       max(f.value) FILTER (f.metric = 'f1') AS F1, max(f.value) FILTER (f.metric = 'auc') AS AUC,
       max(floor.value) AS "F1 if all cash"
FROM green_taxi.performance f
JOIN (SELECT DISTINCT period, fallback_rung, source_period FROM green_taxi.fallback_predictions) s USING (period)
JOIN (SELECT period, value FROM green_taxi.performance WHERE source = 'champion' AND metric = 'f1_all_positive') floor
    USING (period)
WHERE f.segment IS NULL AND f.source IN ('champion', 'served')
GROUP BY f.period, f.source, s.fallback_rung, s.source_period
ORDER BY f.period, f.source
"""

# The candidate is that of the period's challenger. The columns `shadow` are the champion's own scores, `served` what
# consumers got: plan B's, where it was served.
BANK_MONTHS = """
SELECT p.period, p.rows, f.yes AS "yes share", p.verdict, p.served_source AS "served by", p.decision,
       p.champion_version AS champion, c.candidate AS challenger, c.trained_on AS "trained on",
       m.ap AS "AP shadow", m.ap_served AS "AP served", m.f1 AS "F1 shadow", m.f1_served AS "F1 served",
       m.floor AS "F1 if all yes", i.kinds AS "new incidents"
FROM monitoring.periods p
LEFT JOIN bank_marketing.challengers c USING (period)
LEFT JOIN (SELECT period, avg((y = 'yes')::INTEGER) AS yes FROM bank_marketing.features GROUP BY period) f
    USING (period)
LEFT JOIN (
    SELECT period,
           max(value) FILTER (source = 'champion' AND metric = 'average_precision') AS ap,
           max(value) FILTER (source = 'served' AND metric = 'average_precision') AS ap_served,
           max(value) FILTER (source = 'champion' AND metric = 'f1') AS f1,
           max(value) FILTER (source = 'served' AND metric = 'f1') AS f1_served,
           max(value) FILTER (source = 'champion' AND metric = 'f1_all_positive') AS floor
    FROM bank_marketing.performance WHERE segment IS NULL GROUP BY period
) m USING (period)
LEFT JOIN (
    SELECT period, string_agg(kind, ', ' ORDER BY kind) AS kinds
    FROM monitoring.incidents WHERE model = 'bank_marketing' GROUP BY period
) i USING (period)
WHERE p.model = 'bank_marketing'
ORDER BY p.period
"""

# The weightiest three; the drift report has them all.
BANK_REASONS = """
SELECT period, array_to_string(string_split(direction, ' | ')[1:3], '; ') AS "why it was severe"
FROM bank_marketing.drift
WHERE "column" = '(period)' AND method = 'share_of_severe_columns' AND verdict = 'severe' AND period LIKE '2009-%'
ORDER BY period
"""

BANK_WINNERS = """
SELECT ch.candidate, count(*) AS "was the challenger",
       count(*) FILTER (d.decision IN ('first', 'promoted')) AS promoted,
       avg(ch.validation_value) AS "mean AP on validation", avg(ch.test_value) AS "mean AP on test"
FROM bank_marketing.challengers ch JOIN bank_marketing.champions d USING (period)
GROUP BY ch.candidate
ORDER BY 2 DESC, 1
"""

ED_MONTHS = """
SELECT p.period, p.verdict, d.score AS "drift score", c.causes AS "cause for training", c.trained_on AS "learned from",
       p.decision, p.champion_version AS champion, m.shadow AS "champion's AUC", m.served AS "served AUC",
       p.served_source AS "served by"
FROM monitoring.periods p
LEFT JOIN ed_admission.challengers c USING (period)
LEFT JOIN (
    SELECT period, max(value) AS score FROM ed_admission.drift WHERE method = 'prediction_drift' GROUP BY period
) d USING (period)
LEFT JOIN (
    SELECT period, max(value) FILTER (source = 'champion') AS shadow, max(value) FILTER (source = 'served') AS served
    FROM ed_admission.performance WHERE segment IS NULL AND metric = 'auc' GROUP BY period
) m USING (period)
WHERE p.model = 'ed_admission'
ORDER BY p.period
"""

# What was planned and served, beside the naive forecast and the outcome.
SERVED_SALES = """
served AS (
    SELECT s.period, f.brand, f.article, f.units, f.seasonal_naive, f.mean_units_4_weeks, s.score, s.prediction_source
    FROM unit_sales.served_predictions s
    JOIN (SELECT * FROM unit_sales.features WHERE planned) f USING (period, article)
)
"""

SALES_QUARTERS = f"""
WITH {SERVED_SALES},
weeks AS (
    SELECT period, any_value(prediction_source) AS source, sum(units) AS units, sum(abs(score - units)) AS error,
           sum(abs(seasonal_naive - units)) AS naive, sum(abs(mean_units_4_weeks - units)) AS recent,
           sum(score - units) AS bias
    FROM served GROUP BY period
)
SELECT year(p.period::DATE) || ' Q' || quarter(p.period::DATE) AS quarter, count(*) AS weeks,
       count(*) FILTER (p.verdict = 'ok') AS ok, count(*) FILTER (p.verdict = 'warning') AS warning,
       count(*) FILTER (p.verdict = 'severe') AS severe,
       count(*) FILTER (w.source = 'plan_b') AS "served by plan B",
       count(*) FILTER (p.decision IN ('first', 'promoted')) AS promoted,
       sum(w.units)::BIGINT AS units, sum(w.error) / sum(w.units) AS wMAPE,
       sum(w.naive) / sum(w.units) AS "wMAPE a year ago", sum(w.recent) / sum(w.units) AS "wMAPE four weeks",
       sum(w.bias) / sum(w.units) AS "relative bias"
FROM monitoring.periods p LEFT JOIN weeks w USING (period)
WHERE p.model = 'unit_sales' AND p.period >= '2015-03-09'
GROUP BY 1 ORDER BY 1
"""

SALES_BRANDS = f"""
WITH {SERVED_SALES}
SELECT brand, count(DISTINCT article) AS articles, sum(units)::BIGINT AS units, avg(abs(score - units)) AS MAE,
       sqrt(avg((score - units) ** 2)) AS RMSE, sum(abs(score - units)) / sum(units) AS wMAPE,
       sum(score - units) / sum(units) AS "relative bias",
       sum(abs(seasonal_naive - units)) / sum(units) AS "wMAPE a year ago"
FROM served GROUP BY brand ORDER BY brand
"""

SALES_SCENARIOS = """
SELECT f.brand, avg(p.score) FILTER (f.promotion = 1) AS "with promotion",
       avg(p.score) FILTER (f.promotion = 0) AS "without",
       avg(f.units) FILTER (f.planned AND f.promotion = 1) AS "sold with",
       avg(f.units) FILTER (f.planned AND f.promotion = 0) AS "sold without",
       avg(f.promotion) FILTER (f.planned) AS "promoted share"
FROM unit_sales.predictions p JOIN unit_sales.features f USING (period, article, scenario)
GROUP BY f.brand ORDER BY f.brand
"""

SALES_EXAMPLE = """
SELECT period, article, scenario, planned, score
FROM unit_sales.predictions
WHERE period = (SELECT max(period) FROM unit_sales.predictions) AND article IN ('B1_1', 'B2_1', 'B3_1')
ORDER BY article, scenario
"""

SALES_WINNERS = """
SELECT ch.candidate, count(*) AS "was the challenger",
       count(*) FILTER (d.decision IN ('first', 'promoted')) AS promoted,
       avg(ch.validation_value) AS "mean wMAPE on validation", avg(ch.test_value) AS "mean wMAPE on test"
FROM unit_sales.challengers ch JOIN unit_sales.champions d USING (period)
GROUP BY ch.candidate ORDER BY 2 DESC, 1
"""


@dataclass(frozen=True)
class Document:
    """A README with tables: which results they need, the query of each by name, and commands whose output is shown."""

    path: Path
    needs: str
    tables: Mapping[str, str]
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)


DOCUMENTS = {
    "green_taxi": Document(
        PROJECT / "README.md",
        "backfill green_taxi 2021-01..2023-03",
        {"months": MONTHS, "champions": CHAMPIONS, "drift": DRIFT, "plan_b": PLAN_B},
    ),
    "bank_marketing": Document(
        PROJECT / "mlops_assets" / "defs" / "bank_marketing" / "README.md",
        "backfill bank_marketing 2008-05..2010-11",
        {"months": BANK_MONTHS, "reasons": BANK_REASONS, "winners": BANK_WINNERS},
    ),
    "ed_admission": Document(
        PROJECT / "mlops_assets" / "defs" / "ed_admission" / "README.md",
        "backfill ed_admission 2025-01..2025-12",
        {"months": ED_MONTHS},
        {"status": ("status", "ed_admission")},
    ),
    "unit_sales": Document(
        PROJECT / "mlops_assets" / "defs" / "unit_sales" / "README.md",
        "backfill unit_sales 2014-01-06..2018-12-24",
        {
            "quarters": SALES_QUARTERS,
            "brands": SALES_BRANDS,
            "scenarios": SALES_SCENARIOS,
            "example": SALES_EXAMPLE,
            "winners": SALES_WINNERS,
        },
    ),
}


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|")


def markdown(columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    numbers = [
        all(row[i] is None or (isinstance(row[i], (int, float)) and not isinstance(row[i], bool)) for row in rows)
        for i in range(len(columns))
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + "".join(" ---: |" if n else " --- |" for n in numbers)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def replaced(text: str, name: str, content: str, path: Path) -> str:
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"{path} has no place for {name}: <!-- {name} --> … <!-- /{name} -->")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def printed(arguments: Sequence[str]) -> str:
    """What `mlops-assets` prints for these arguments on a page of ordinary width."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("mlops-assets")), *arguments],
        env={**os.environ, "COLUMNS": "140"},
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


def write(document: Document) -> None:
    """Put the results of every query of a document in its place."""
    text = document.path.read_text()
    with connect() as con:
        for name, query in document.tables.items():
            result = con.sql(query)
            rows = result.fetchall()
            if not rows:
                sys.exit(f"there is nothing for the table {name!r}; mlops-assets {document.needs} first")
            text = replaced(text, name, markdown(list(result.columns), rows), document.path)
    for name, arguments in document.commands.items():
        text = replaced(text, name, f"```\n{printed(arguments)}\n```", document.path)
    document.path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tables of a model's README from the results in MLOPS_HOME.")
    parser.add_argument("models", nargs="+", choices=list(DOCUMENTS))
    for name in parser.parse_args().models:
        write(DOCUMENTS[name])


if __name__ == "__main__":
    main()
