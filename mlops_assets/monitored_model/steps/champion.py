"""Which version is in force after a period: the decision, and the registry's aliases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlops_assets.lake.store import DamagedPartition, Partition
from mlops_assets.monitored_model import aliases, decision_log
from mlops_assets.monitored_model.announcing import announce_champion
from mlops_assets.monitored_model.learning_plan import Part, PartRows
from mlops_assets.monitored_model.outcome import Link, Outcome, table
from mlops_assets.monitored_model.presentation import Presentation
from mlops_assets.monitored_model.scoring import load_version, scored_rows
from mlops_assets.monitored_model.tables import CAUSE_IDS, CHALLENGER, CHAMPION, NO_CHAMPION
from mlops_assets.monitored_model.versions import Identity, by_number, named_by, trained_in
from mlops_assets.monitored_model.workbench import Workbench, to_json
from mlops_assets.training.decision import Decision
from mlops_assets.training.registry import RegistryError, UnknownVersion

if TYPE_CHECKING:
    from mlops_assets.training.registry import LoadedModel

CHAMPION_SCHEMA = pa.schema(
    [
        ("decision", pa.string()),
        ("version", pa.string()),
        ("previous_version", pa.string()),
        ("challenger_version", pa.string()),
        ("metric", pa.string()),
        ("champion_value", pa.float64()),
        ("challenger_value", pa.float64()),
        ("test_rows", pa.int64()),
        ("test_periods", pa.string()),
        ("reason", pa.string()),
        ("champion_metrics", pa.string()),
        ("challenger_metrics", pa.string()),
    ]
)


def make(bench: Workbench, period: str) -> Outcome:
    """Decide which version is in force after the period, and point the registry's aliases at it.

    The aliases follow the newest period's decision only: deciding an old period again never moves them.
    """
    absent = bench.absent(CHALLENGER, period)
    before = bench.champion_before(period)
    challenger: LoadedModel | None = None
    with bench.lease() as lease:
        aliases.finish(bench.lake, bench.store, bench.name, bench.spec.staging, lambda: bench.run_required().client)
        if absent is not None:
            row = _without_challenger(bench, before, absent)
        else:
            row, challenger = _compared(bench, period, bench.partition(CHALLENGER, period), before)
        row = _as_ordered(bench, period, row)
        reason = None if row["version"] else f"{NO_CHAMPION}: {row['reason']}"
        rows = [row] if row["version"] else []
        lease.check()
        partition = bench.write(
            CHAMPION,
            period,
            pa.Table.from_pylist(rows, CHAMPION_SCHEMA),
            reason=reason,
            facts={
                **{name: row.get(name) for name in ("decision", "version", "previous_version", "reason", "order")},
                **(row["identity"].facts() if row["version"] and row["identity"] else {}),
            },
        )
        lease.check()  # whoever took over while the partition was written ends this decision
        decision_log.record(bench.lake, bench.store, bench.name, period, "champion", bench.run_id)
        announce_champion(bench.store, partition)
        if row["version"] and bench.lake.periods(bench.name, CHAMPION)[-1] == period:
            client = bench.run_required().client
            aliases.point(bench.lake, bench.store, client, bench.name, bench.spec.staging, lease, bench.run_id)
        if absent is None:
            _consume_causes(bench, period)
    shown = Presentation()
    if challenger is not None:
        its = challenger
        shown.add("the comparison in MLflow", lambda: _note_outcome(bench, period, its, row))
    shown.add("the comparison", lambda: _champion_metadata(bench, row))
    return Outcome(partition, shown.metadata, warnings=shown.warnings)


def _consume_causes(bench: Workbench, period: str) -> None:
    """Mark the challenger's causes as acted upon. Last, so that a run that dies before leaves them waiting."""
    asked = set(bench.partition(CHALLENGER, period).facts.get(CAUSE_IDS, []))
    # Where this run died, a later period may have acted upon them.
    mine = [cause.id for cause in bench.store.causes(bench.name) if cause.consumed_by in (None, period)]
    if asked & set(mine):
        bench.store.consume(asked & set(mine), period)


def _as_ordered(bench: Workbench, period: str, row: dict[str, Any]) -> dict[str, Any]:
    """The decision that a person has made for this period instead, when there is one; the newest counts."""
    orders = bench.store.orders(bench.name, period)
    if not orders:
        return row
    order = orders[-1]
    if order.fingerprint is not None:
        named = Identity(order.version, order.fingerprint)
    else:
        named = by_number(bench.lake, bench.name, order.version, period)
    model = bench.versions.load(named)  # raises when the version is gone
    decision = "rolled_back" if order.action == "rollback" else "promoted_by_hand"
    return row | {
        "decision": decision,
        "version": model.version,
        "identity": Identity.of(model),
        "order": order.id,
        "reason": f"{order.by}: {order.why} (the comparison said: {row['reason']})",
    }


def _without_challenger(bench: Workbench, before: Partition | None, why: str) -> dict[str, Any]:
    version = before.facts["version"] if before is not None else None
    return {
        "decision": "retained" if version else "none",
        "version": version,
        "identity": None if before is None else _identity(bench, before),
        "previous_version": version,
        "challenger_version": None,
        "metric": bench.spec.metric,
        "reason": why,
    }


def _identity(bench: Workbench, decided: Partition) -> Identity | None:
    """Which version a decision put in force; None when nobody knows any more."""
    try:
        return named_by(bench.lake, decided)
    except UnknownVersion:
        return None


def _compared(
    bench: Workbench, period: str, proposed: Partition, before: Partition | None
) -> tuple[dict[str, Any], LoadedModel | None]:
    """The decision of a comparison on the challenger's test rows, and the challenger where both were compared."""
    from mlops_assets.training.decision import decide

    metric = bench.spec.metric
    try:
        challenger_model = load_version(bench, proposed)
    except RegistryError as error:
        return _without_challenger(bench, before, str(error)), None
    challenger_metrics: Mapping[str, Any] = challenger_model.metrics["test"]
    test = Part.from_facts(proposed.facts["parts"]["test"])
    part: Part | None = test
    champion_metrics: Mapping[str, Any] | None = None
    in_force, lost = _in_force(bench, before)
    if in_force is not None:
        part = test.without(_learned_by(bench, in_force.fingerprint, period))
        if part is None:
            why = f"the champion has learned from all test rows, {test}: there is nothing to compare on"
            return _without_challenger(bench, before, why), None
        rows = PartRows(bench, part)

        def measured(model: LoadedModel) -> Mapping[str, Any]:
            with scored_rows(bench, model, rows) as scored:
                return scored.metrics(model.cut)

        champion_metrics = measured(in_force)
        if part != test:
            challenger_metrics = measured(challenger_model)
    ours = challenger_metrics[metric]
    decision = decide(
        None if champion_metrics is None else champion_metrics[metric],
        float("nan") if ours is None else ours,
        metric,
        disqualified=_lost_to_baseline(proposed),
    )
    if before is not None and lost is not None:
        decision = _without_comparison(decision, lost)
    keeps = decision.outcome in ("retained", "none")
    previous = in_force.version if in_force is not None else (before.facts["version"] if before is not None else None)
    row = {
        "decision": decision.outcome,
        "version": previous if keeps else challenger_model.version,
        "identity": _kept(bench, before, in_force) if keeps else Identity.of(challenger_model),
        "previous_version": previous,
        "challenger_version": challenger_model.version,
        "metric": metric,
        "champion_value": None if champion_metrics is None else champion_metrics[metric],
        "challenger_value": ours,
        "test_rows": int(challenger_metrics["rows"] or 0),
        "test_periods": str(part),
        "reason": decision.reason,
        "champion_metrics": None if champion_metrics is None else to_json(champion_metrics),
        "challenger_metrics": to_json(challenger_metrics),
    }
    return row, challenger_model


def _in_force(bench: Workbench, before: Partition | None) -> tuple[LoadedModel | None, str | None]:
    """The champion of the decision before, loaded; or None, and why it can't be when there is one."""
    if before is None:
        return None, None
    try:
        return load_version(bench, before), None
    except RegistryError as error:
        return None, str(error)


def _kept(bench: Workbench, before: Partition | None, in_force: LoadedModel | None) -> Identity | None:
    if in_force is not None:
        return Identity.of(in_force)
    return None if before is None else _identity(bench, before)


def _without_comparison(decision: Decision, lost: str) -> Decision:
    """What is decided when the champion in force can't be loaded: a challenger that may be champion replaces it."""
    if decision.outcome == "first":
        return replace(decision, outcome="promoted", reason=f"the champion in force can't be compared: {lost}")
    return replace(decision, outcome="retained", reason=f"{decision.reason}; the champion in force: {lost}")


def _lost_to_baseline(proposed: Partition) -> str | None:
    """Why a challenger may not be promoted, whatever the champion is worth; None when it may."""
    baseline = proposed.facts.get("baseline")
    if baseline is None or baseline["beaten"]:
        return None
    if baseline["value"] is None:
        what = f"{baseline['metric']} is undefined on the test rows" if baseline["rows"] else "no test row has it"
        return f"the challenger can't be shown to beat the naive forecast {baseline['column']}: {what}"
    return (
        f"the naive forecast {baseline['column']} is not beaten: {baseline['metric']} "
        f"{baseline['challenger_value']:.4f} against {baseline['value']:.4f} on the same test rows"
    )


def _learned_by(bench: Workbench, fingerprint: str, period: str) -> list[Part]:
    """What the version in force has seen of the data: its train and validation rows.

    Only a champion that trained on its own period's days can have learned from the test rows of a later challenger.
    """
    unread = None
    for known in reversed([p for p in bench.lake.periods(bench.name, CHALLENGER) if p < period]):
        found = bench.lake.find(bench.name, CHALLENGER, known)
        if found is None or found.damaged:
            unread = unread or found
        elif any(named.fingerprint == fingerprint for named in trained_in(bench.lake, bench.name, known).values()):
            return [Part.from_facts(found.facts["parts"][role]) for role in ("train", "validation")]
    if unread is not None:  # it may be the one
        raise DamagedPartition(str(unread.damaged))
    return []


def _note_outcome(bench: Workbench, period: str, model: LoadedModel, row: Mapping[str, Any]) -> None:
    """Write the comparison, and what came of it, on the challenger's run and on the period's."""
    from mlops_assets.training import tracking

    run = bench.run_required()
    tags = {"decision": row["decision"], "decision_period": period, "decision_reason": row["reason"]}
    tracking.log(run.client, model.run_id, tags=tags)
    metrics = {
        name: float(row[name])
        for name in ("champion_value", "challenger_value")
        if row[name] is not None and row[name] == row[name]
    }
    tracking.log(
        run.client,
        run.run_id,
        metrics=metrics,
        tags=tags | {"champion": row["version"], "challenger": model.version},
    )


def _champion_metadata(bench: Workbench, row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        name: row[name]
        for name in ("decision", "version", "previous_version", "challenger_version", "reason")
        if row.get(name) is not None
    }
    if row.get("challenger_metrics"):
        theirs = json.loads(row["champion_metrics"]) if row["champion_metrics"] else {}
        ours = json.loads(row["challenger_metrics"])
        names = sorted(ours.keys() - {"rows"}, key=lambda name: (name != bench.spec.metric, name))
        shown["metrics_on_the_same_test_rows"] = table(
            [{"metric": name, "champion": theirs.get(name), "challenger": ours[name]} for name in names]
        )
        shown["test_rows"] = row["test_rows"]
        shown["test_periods"] = row["test_periods"]
    if row.get("version"):
        shown["mlflow_model"] = Link(bench.version_url(row["version"]))
        if row["identity"] is not None and row["identity"].run_id is not None:
            shown["explanation"] = Link(bench.artifact_url(row["identity"].run_id, "monitoring/explanation.html"))
    return shown
