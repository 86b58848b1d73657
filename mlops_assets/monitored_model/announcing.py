"""The alert of a decision about the champion, sent once whoever writes it down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_assets.lake.store import Partition

if TYPE_CHECKING:
    from mlops_assets.incidents.store import AlertKind, Store


def announce_champion(store: Store, decision: Partition) -> None:
    """Announce that another version is in force after a period; of one that stays there is nothing to announce."""
    kinds: dict[str, AlertKind] = {
        "first": "champion_promoted",
        "promoted": "champion_promoted",
        "promoted_by_hand": "champion_promoted",
        "rolled_back": "champion_rolled_back",
    }
    facts, model, period = decision.facts, decision.model, decision.period
    kind = kinds.get(facts["decision"])
    if kind is not None:
        title = f"{model}: version {facts['version']} is champion after {period} ({facts['decision']})"
        key = f"{model}/{period}/{facts['decision']}/{facts['version']}"
        store.announce(kind, model, period, title, facts["reason"], key)
