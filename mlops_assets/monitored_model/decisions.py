"""What a person decides: accepting a severe period, rolling a champion back, promoting one, asking for a retraining.

Everything is checked against the lake and the registry before anything is stored; the assets follow what is stored.
No Dagster here.
"""

from __future__ import annotations

from mlops_assets.home import Home
from mlops_assets.incidents.decision_log import Decision
from mlops_assets.incidents.store import Accept, Action, Cause, NothingAccepted, Order, Store
from mlops_assets.lake.store import Lake
from mlops_assets.monitored_model.gates import newest_to_train, quality_failure_of
from mlops_assets.monitored_model.tables import CHAMPION, DRIFT_REPORT
from mlops_assets.monitored_model.versions import Identity, Versions, named_by
from mlops_assets.training.registry import RegistryError, UnknownVersion


class Refused(ValueError):
    """A decision that can't be taken; the message says why and what can be."""


def accept(model: str, lake: Lake, store: Store, period: str, report_digest: str, by: str, why: str) -> Accept:
    """Let the champion serve a severe period. It names the digest of the period's present report, or its beginning.

    Raises Refused for a quarantined period, one that is not severe, or an outdated digest; nothing is changed.
    """
    report = lake.find(model, DRIFT_REPORT, period)
    if report is None:
        raise Refused(f"{model} has no drift report of {period}; make the period first")
    failure = quality_failure_of(lake, model, period)
    if failure is not None:
        raise Refused(
            f"{model} {period} can't be accepted: {failure}. Quality failures are not a matter of opinion; repair the "
            "source and make the period again"
        )
    if report.facts["verdict"] != "severe":
        raise Refused(f"{model} {period} is {report.facts['verdict']}, so there is nothing to accept")
    digest = str(report.facts["report_digest"])
    if len(report_digest) < 8 or not digest.startswith(report_digest):
        raise Refused(
            f"{report_digest!r} is not the digest of the present report of {model} {period}, which is {digest[:16]}…; "
            "look at that report, then accept it by its digest (at least 8 characters)"
        )
    return store.accept(model, period, digest, by, why)


def withdraw(model: str, lake: Lake, store: Store, period: str, by: str, why: str) -> Accept:
    """Take an accept back: the gate says what the verdict says again, and plan B serves.

    One that was withdrawn before stays as it is. Raises Refused when the period was never accepted.
    """
    try:
        return store.withdraw(model, period, by, why)
    except NothingAccepted as error:
        raise Refused(str(error)) from error


def newest_decision(model: str, lake: Lake) -> str:
    """The newest period that has a decision. Raises Refused when there is none."""
    periods = lake.periods(model, CHAMPION)
    if not periods:
        raise Refused(f"{model} has no champion yet; backfill some periods first")
    return periods[-1]


def rollback(model: str, lake: Lake, store: Store, version: str | None, by: str, why: str) -> Order:
    """Put an earlier version back in force, the one before the present champion by default.

    Without a version, asking again changes nothing: Refused is raised while a rollback is in force, whether its command
    has reported that or has died before. A version that was rolled back from is no default either.
    """
    if version is None:
        _refuse_to_repeat(model, lake)
    wanted = _previous(model, lake, store) if version is None else _named(model, lake, store, version)
    return _order(model, lake, store, "rollback", wanted, by, why)


def _refuse_to_repeat(model: str, lake: Lake) -> None:
    facts = lake.partition(model, CHAMPION, newest_decision(model, lake)).facts
    if facts["decision"] == "rolled_back":
        raise Refused(
            f"version {facts['version']} is in force already, by a rollback ({facts['reason']}); to go back further, "
            "name the version: --to"
        )


def promote(model: str, lake: Lake, store: Store, version: str | None, by: str, why: str) -> Order:
    """Put a registered version in force by hand."""
    if version is None:
        raise Refused("a promotion names the version to put in force")
    return _order(model, lake, store, "promote", _named(model, lake, store, version), by, why)


def _order(model: str, lake: Lake, store: Store, action: Action, wanted: Identity, by: str, why: str) -> Order:
    period = newest_decision(model, lake)
    present = _champion(lake, model, period)
    if present is not None and present.fingerprint == wanted.fingerprint:
        raise _champion_already(model, wanted.number)
    try:
        number = Versions.of_home(model, lake, store, Home.from_env()).check(wanted)
    except RegistryError as error:
        raise Refused(f"version {wanted.number} of {model} can't be put in force: {error}") from error
    before = lake.partition(model, CHAMPION, period).facts.get("version")
    return store.order(model, period, action, number, by, why, before, fingerprint=wanted.fingerprint)


def retrain(model: str, lake: Lake, store: Store, by: str, why: str) -> Cause:
    """Ask for the newest period with outcomes to be trained again, for a reason.

    What the same person has asked for in the same words, and no run has done yet, is not asked for twice: a command
    that was killed can be run again. After its runs were given up it is a new request, which is tried anew.
    """
    period = newest_to_train(lake, model)
    if period is None:
        raise Refused(f"{model} has no period to train yet; backfill some periods first")
    given_up = store.incidents(model=model, period=period, kind="retrain_failed", state="open")
    for cause in store.pending(model) if not given_up else ():
        if (cause.kind, cause.period, cause.by, cause.why) == ("person", period, by, why):
            return cause
    key = f"person/{period}/{len(store.causes(model)) + 1}"
    return store.add_cause(model, period, "person", why, by, key)


def _champion_already(model: str, version: str) -> Refused:
    """The refusal, with what MLflow says when that is something else."""
    from mlops_assets.training import aliases, tracking

    alias = aliases.aliases_of(tracking.client(Home.from_env().tracking_uri), model).get("champion")
    text = f"version {version} is the champion of {model} already"
    if alias == version:
        return Refused(text)
    return Refused(
        f"{text}, but MLflow's alias @champion points at {f'version {alias}' if alias else 'nothing'}; to put it back: "
        f"mlops-assets champion repair {model} --why …"
    )


def _champion(lake: Lake, model: str, period: str) -> Identity | None:
    """Which version a period's decision put in force; None when there is none, or nobody knows which."""
    try:
        return named_by(lake, lake.partition(model, CHAMPION, period))
    except UnknownVersion:
        return None


def _previous(model: str, lake: Lake, store: Store) -> Identity:
    present, left = _champion(lake, model, newest_decision(model, lake)), _rolled_back_from(model, store)
    for period in reversed(lake.periods(model, CHAMPION)):
        earlier = _champion(lake, model, period)
        if earlier is None or earlier.fingerprint in left:
            continue
        if present is None or earlier.fingerprint != present.fingerprint:
            return earlier
    but = f" that was not rolled back from (as {', '.join(sorted(left.values(), key=int))} was)" if left else ""
    raise Refused(
        f"{model} had no other champion before version {present.number if present else 'in force'}{but}; there is "
        "nothing to roll back to"
    )


def _rolled_back_from(model: str, store: Store) -> dict[str, str]:
    """The versions that somebody has taken out of force, and nothing has put in force since: fingerprint → number."""
    left: dict[str, str] = {}
    replaced: dict[str, Decision] = {}
    for line in store.decisions(model, subject="champion"):
        before = replaced.get(line.period)
        if line.action == "rolled_back" and before is not None and before.evidence and before.after:
            left[before.evidence] = before.after
        if line.action in ("rolled_back", "promoted_by_hand", "promoted", "first") and line.evidence:
            left.pop(line.evidence, None)
        replaced[line.period] = line
    return left


def _named(model: str, lake: Lake, store: Store, version: str) -> Identity:
    """The version that a person names by the registry's number."""
    newest_decision(model, lake)
    try:
        return Versions.of_home(model, lake, store, Home.from_env()).named(version)
    except RegistryError as error:
        raise Refused(f"version {version} of {model} can't be put in force: {error}") from error
