"""MLflow's aliases and status tags of a model: what they should be, in what they differ, and the writes in between.

`@champion` is the version in force, `@previous_champion` the one before, `@staging-1`, `@staging-2`, … the newest
search's best. The tag `status` of a version is `challenger`, `champion`, `archived` or `staging`. Aliases of other
names belong to the users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.training.registry import (
    CHAMPION,
    PREVIOUS_CHAMPION,
    RUNNER_UP_OF,
    STAGING,
    RegistryError,
    staging_alias,
    versions_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATUS = "status"


@dataclass(frozen=True)
class Pointed:
    """Where the aliases of a model should point: versions, best first for staging."""

    champion: str
    previous: str | None = None
    staging: Sequence[str] = ()

    @property
    def aliases(self) -> dict[str, str]:
        """The versions by alias."""
        found = {CHAMPION: self.champion}
        if self.previous is not None and self.previous != self.champion:
            found[PREVIOUS_CHAMPION] = self.previous
        return found | {staging_alias(place): version for place, version in enumerate(self.staging, start=1)}

    def __str__(self) -> str:
        return as_text(self.aliases)

    @classmethod
    def from_text(cls, text: str) -> Pointed:
        """What `str` of it gives."""
        known = dict(part.split("=", 1) for part in text.split(", "))
        staging = [version for alias, version in known.items() if alias.startswith(STAGING)]
        return cls(known[CHAMPION], known.get(PREVIOUS_CHAMPION), tuple(staging))


@dataclass(frozen=True)
class Change:
    """One write that is missing: an alias (`alias champion`) or a version's tag (`status of version 3`)."""

    what: str
    before: str | None
    after: str | None
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.what} is {self.before or 'not set'}, decided is {self.after or 'none'}"


def as_text(aliases: Mapping[str, str]) -> str:
    """Aliases as the log of decisions has them: `champion=3, previous_champion=2`."""
    return ", ".join(f"{alias}={aliases[alias]}" for alias in sorted(aliases)) or "none"


def aliases_of(client: MlflowClient, name: str) -> dict[str, str]:
    """The platform's aliases of a model as MLflow has them now; empty when nothing is registered."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in found.items() if _is_ours(alias)}


def _is_ours(alias: str) -> bool:
    return alias in (CHAMPION, PREVIOUS_CHAMPION) or alias.startswith(STAGING)


def missing_changes(client: MlflowClient, name: str, pointed: Pointed) -> list[Change]:
    """The writes that MLflow lacks, the champion's alias first; none when all is as decided.

    Raises RegistryError when a version is gone.
    """
    statuses = {str(v.version): dict(v.tags) for v in versions_of(client, name)}
    wanted = pointed.aliases
    for version in wanted.values():
        if version not in statuses:
            raise RegistryError(
                f"model {name} lacks version {version}; found {', '.join(sorted(statuses, key=int)) or 'none'}"
            )
    found = aliases_of(client, name)
    changes = [
        Change(f"alias {alias}", found.get(alias), wanted.get(alias), alias=alias)
        for alias in [*wanted, *(alias for alias in found if alias not in wanted)]
        if found.get(alias) != wanted.get(alias)
    ]
    for version, tags in statuses.items():
        status = tags.get(STATUS)
        decided = _status(version, status, pointed, is_runner_up=RUNNER_UP_OF in tags)
        if decided != status:
            changes.append(Change(f"status of version {version}", status, decided, version=version))
    return changes


def _status(version: str, status: str | None, pointed: Pointed, *, is_runner_up: bool) -> str | None:
    """Who was champion becomes `archived`, and so do those that leave staging; challengers that never were stay."""
    staged = version in pointed.staging
    if version == pointed.champion:
        return "champion"
    if version == pointed.previous or status == "champion":
        status = "archived"
    if status == "staging" and not staged:
        return "archived"
    return "staging" if status == "archived" and staged and is_runner_up else status


def apply(client: MlflowClient, name: str, changes: Sequence[Change], check: Callable[[], None]) -> None:
    """Write the changes. `check` is called right before each write, and raises when we may not write any more."""
    for change in changes:
        check()
        if change.alias is None:
            client.set_model_version_tag(name, change.version, STATUS, change.after)
        elif change.after is None:
            client.delete_registered_model_alias(name, change.alias)
        else:
            client.set_registered_model_alias(name, change.alias, change.after)
