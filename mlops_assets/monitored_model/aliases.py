"""MLflow's aliases follow the newest period's decision: pointing them, finishing what broke off, and noticing a hand.

The lake says what was decided. The log of decisions says where the platform has pointed the aliases last; its line is
written after the last alias and tag. So a decision whose line is missing broke off and is finished by whoever comes
next. Where the line is there and MLflow says something else, somebody has moved an alias in MLflow: that is written
down and shown, and put back only by a person or by the next decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.home import Home
from mlops_assets.incidents.decision_log import PLATFORM, Decision, Line
from mlops_assets.incidents.lease import Lease
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake, Partition
from mlops_assets.monitored_model import decision_log
from mlops_assets.monitored_model.announcing import announce_champion
from mlops_assets.monitored_model.tables import CHALLENGER, CHAMPION
from mlops_assets.monitored_model.versions import Identity, Versions, as_known, trained_in

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlops_assets.training.aliases import Change, Pointed

BY_HAND, SOMEBODY = "moved_by_hand", "somebody in MLflow"


@dataclass(frozen=True)
class AliasState:
    """The aliases of a model as the log says that they were pointed, and in what MLflow differs.

    Attributes
    ----------
    since
        The log's line that says so.
    changes
        What MLflow lacks; empty when it agrees.
    """

    since: Decision
    changes: Sequence[Change]

    @property
    def pointed(self) -> Pointed:
        """Where the platform has pointed them."""
        from mlops_assets.training.aliases import Pointed

        return Pointed.from_text(self.since.after or "")

    def __str__(self) -> str:
        if not self.changes:
            return f"MLflow's aliases are as decided: {self.since.after}"
        return "moved by hand in MLflow: " + "; ".join(str(change) for change in self.changes)


def newest_decision(lake: Lake, model: str) -> Partition | None:
    """The newest period's decision, when it can be read and puts a version in force."""
    periods = lake.periods(model, CHAMPION)
    found = lake.find(model, CHAMPION, periods[-1]) if periods else None
    return found if found is not None and not found.damaged and found.facts.get("version") else None


def decided(lake: Lake, model: str, staging: int) -> Pointed | None:
    """Where the aliases should point by the newest decision; None before there is a champion.

    Args:
        staging: how many places of staging are wanted.
    """
    from mlops_assets.training.aliases import Pointed

    found = _decided(lake, model, staging)
    if found is None:
        return None
    champion, previous, staged = found
    return Pointed(champion.number, previous.number if previous else None, [version.number for version in staged])


def _decided(lake: Lake, model: str, staging: int) -> tuple[Identity, Identity | None, list[Identity]] | None:
    """The version in force, the one before and those in staging, by what they are."""
    decision = newest_decision(lake, model)
    if decision is None:
        return None
    champion, previous = as_known(lake, decision), None
    if champion is None:
        return None
    for earlier in reversed([period for period in lake.periods(model, CHAMPION) if period < decision.period]):
        made = lake.find(model, CHAMPION, earlier)
        found = None if made is None or made.damaged else as_known(lake, made)
        if found is not None and not found.is_same(champion):
            previous = found
            break
    return champion, previous, _staged(lake, model, decision.period, staging)


def _staged(lake: Lake, model: str, period: str, staging: int) -> list[Identity]:
    """The versions in staging after a period: those of the newest search, as many as are wanted now."""
    for known in reversed([p for p in lake.periods(model, CHALLENGER) if p <= period]):
        partition = lake.find(model, CHALLENGER, known)
        if partition is not None and partition.rows:
            named = trained_in(lake, model, known)
            return [named[str(row["version"])] for row in partition.facts.get("staging", [])][:staging]
    return []


def _held(lake: Lake, store: Store, client: MlflowClient, model: str, staging: int) -> Pointed | None:
    """`decided`, by the present registry's numbers, without the versions that it does not hold.

    None when it does not hold the version in force: another model may have its number.
    """
    from mlops_assets.training.aliases import Pointed

    found = _decided(lake, model, staging)
    if found is None:
        return None
    champion, previous, staged = found
    versions = Versions(model, client, lake, store, Home.from_env().artifacts)
    number = versions.number(champion)
    if number is None:
        return None
    places = [versions.number(version) for version in staged]
    before = None if previous is None else versions.number(previous)
    return Pointed(number, before, [place for place in places if place is not None])


def point(
    lake: Lake, store: Store, client: MlflowClient, model: str, staging: int, lease: Lease, run_id: str | None
) -> None:
    """Point the aliases as the newest decision says, and write that down. Whoever calls it holds the lease.

    A version in force that the registry does not hold leaves them as they are.
    """
    from mlops_assets.training import aliases

    wanted, decision = _held(lake, store, client, model, staging), newest_decision(lake, model)
    if wanted is None or decision is None:
        return
    lease.check()  # halfway through somebody else's writes, MLflow looks as if moved by hand
    notice(store, client, model)
    changes = aliases.missing_changes(client, model, wanted)
    aliases.apply(client, model, changes, lease.check)
    _written_down(store, model, decision.period, wanted, f"the decision of {decision.period}", run_id)


def _written_down(
    store: Store, model: str, period: str, wanted: Pointed, why: str, run_id: str | None, actor: str = PLATFORM
) -> None:
    newest = _newest(store, model)
    if newest is None or newest.after != str(wanted):
        before = None if newest is None else newest.after
        action = "moved" if actor == PLATFORM else "restored"
        store.record(Line(model, period, "alias", action, actor, why, before, str(wanted), None, run_id))


def _newest(store: Store, model: str, *, by_platform: bool = False) -> Decision | None:
    lines = store.decisions(model, subject="alias")
    return next((line for line in reversed(lines) if not (by_platform and line.action == BY_HAND)), None)


def is_unfinished(lake: Lake, store: Store, model: str, staging: int) -> bool:
    """Whether the log lacks the line that ends the newest decision."""
    wanted, last = decided(lake, model, staging), _newest(store, model, by_platform=True)
    return wanted is not None and not _points_to(last, wanted)


def _points_to(last: Decision | None, wanted: Pointed) -> bool:
    """Whether a line of the log ends the newest decision.

    The version before is not compared: when an earlier period is made again and decides otherwise, the aliases stay.
    """
    from mlops_assets.training.aliases import Pointed

    if last is None:
        return False
    pointed = Pointed.from_text(last.after or "")
    return (pointed.champion, tuple(pointed.staging)) == (wanted.champion, tuple(wanted.staging))


def finish(lake: Lake, store: Store, model: str, staging: int, open_client: Callable[[], MlflowClient]) -> str | None:
    """Finish the newest decision where a process died before its aliases were pointed; what was done, None if nothing.

    MLflow is asked only where the log lacks the line that ends a decision.
    """
    if not is_unfinished(lake, store, model, staging):
        return None
    from mlops_assets.training import aliases

    client, last = open_client(), _newest(store, model, by_platform=True)
    wanted = _held(lake, store, client, model, staging)
    if wanted is None or _points_to(last, wanted):  # the registry may have other numbers by now
        return None
    with Lease(store, model, what="finishing a decision that broke off") as lease:
        wanted, decision = _held(lake, store, client, model, staging), newest_decision(lake, model)
        if wanted is None or decision is None or _points_to(last, wanted):
            return None
        if last is None and not _has_log(store, decision) and aliases.aliases_of(client, model):
            # Of a time when no log was kept: what differs from the decision may have been moved by hand.
            why = f"the decision of {decision.period}, pointed before there was a log"
            line = Line(model, decision.period, "alias", "moved", PLATFORM, why, None, str(wanted))
            store.record(line, reconstructed=True)
            return None
        decision_log.record(lake, store, model, decision.period, "champion", None)
        announce_champion(store, decision)
        aliases.apply(client, model, aliases.missing_changes(client, model, wanted), lease.check)
        why = f"the decision of {decision.period}, which broke off"
        _written_down(store, model, decision.period, wanted, why, None)
    return f"the decision of {decision.period} was finished: {wanted}"


def _has_log(store: Store, decision: Partition) -> bool:
    """Whether a decision was made while the log was kept: by its line, written before the first alias is pointed."""
    lines = store.decisions(decision.model, subject="champion")
    known = next((line for line in reversed(lines) if line.period == decision.period), None)
    return known is not None and not known.reconstructed


def alias_state(store: Store, client: MlflowClient, model: str) -> AliasState | None:
    """The aliases as they were pointed last, and what MLflow has otherwise; None before they were pointed at all.

    Raises RegistryError when a version is gone.
    """
    from mlops_assets.training import aliases

    last = _newest(store, model, by_platform=True)
    if last is None:
        return None
    return AliasState(last, aliases.missing_changes(client, model, aliases.Pointed.from_text(last.after or "")))


def known_move(store: Store, model: str) -> Decision | None:
    """The log's line about a move by hand that nothing has put right since; MLflow is not asked."""
    newest, pointed = _newest(store, model), _newest(store, model, by_platform=True)
    moved = newest is not None and pointed is not None and newest.after != pointed.after
    return newest if moved else None


def notice(store: Store, client: MlflowClient, model: str) -> Decision | None:
    """Write down that MLflow's aliases are not where they were left; None when they are.

    Only for a model whose newest decision is finished: what broke off is nobody's hand.
    """
    from mlops_assets.training import aliases

    last = _newest(store, model)
    found = aliases.as_text(aliases.aliases_of(client, model))
    if last is None or last.after == found:
        return None
    why = f"found in MLflow; the platform had left {last.after}"
    return store.record(Line(model, last.period, "alias", BY_HAND, SOMEBODY, why, last.after, found))


def restore(store: Store, client: MlflowClient, model: str, by: str, why: str) -> AliasState | None:
    """Put the aliases and status tags back to the newest decision that the platform has finished.

    Returns what was put back (`changes` is empty when nothing was), None before there is a champion.
    """
    from mlops_assets.training import aliases

    with Lease(store, model, what=f"restoring the aliases for {by}") as lease:
        notice(store, client, model)
        state = alias_state(store, client, model)
        if state is not None and state.changes:
            aliases.apply(client, model, state.changes, lease.check)
            wanted = aliases.Pointed.from_text(state.since.after or "")
            _written_down(store, model, state.since.period, wanted, why, None, actor=by)
        return state
