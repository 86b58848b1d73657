"""Write the tables of README.md anew from the results in MLOPS_HOME.

    mlops-assets backfill green_taxi 2021-01..2023-03
    python docs/tables.py

Each table stands between `<!-- NAME -->` and `<!-- /NAME -->`; what is between is replaced. Nothing is typed by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mlops_assets import connect

README = Path(__file__).resolve().parent.parent / "README.md"

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


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|")


def markdown(columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    numbers = [all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) for i in range(len(columns))]
    lines = ["| " + " | ".join(columns) + " |", "|" + "".join(" ---: |" if n else " --- |" for n in numbers)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def replaced(text: str, name: str, content: str) -> str:
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"README.md has no place for {name}: <!-- {name} --> … <!-- /{name} -->")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def main() -> None:
    text = README.read_text()
    with connect() as con:
        for name, query in (("months", MONTHS), ("champions", CHAMPIONS), ("drift", DRIFT), ("plan_b", PLAN_B)):
            result = con.sql(query)
            rows = result.fetchall()
            if not rows:
                sys.exit(f"there is nothing for the table {name!r}; backfill green_taxi 2021-01..2023-03 first")
            text = replaced(text, name, markdown(list(result.columns), rows))
    README.write_text(text)


if __name__ == "__main__":
    main()
