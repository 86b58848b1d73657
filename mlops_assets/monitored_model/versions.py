"""Versions by what they are: a number in a partition or an order leads to the model that was meant, or to an error.

A registry's number is no identity: after the registry is lost, numbers start again, and version 1 may be a model that
was tested on the very period it is to score. What a version is, is its fingerprint. Partitions name both; those that
were written before name the number only, and the challenger that had it then says which model it was.

A version is loaded only when the platform has logged it: its run and the digest of its files are in the incident store.
Versions of earlier times have no record. They are adopted on first use, and only when a challenger of the lake,
which MLflow can't write, names that run or number with that fingerprint.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlops_assets.home import Home
from mlops_assets.incidents import logged_versions
from mlops_assets.incidents.logged_versions import LoggedVersion
from mlops_assets.incidents.store import Store
from mlops_assets.lake.store import Lake, Partition
from mlops_assets.monitored_model.tables import CHALLENGER, CHAMPION
from mlops_assets.training import registry
from mlops_assets.training.artifacts import MissingFiles, TooLarge
from mlops_assets.training.registry import TRAIN_AGAIN, RegistryError, UnknownVersion, place_fingerprint

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlops_assets.training.registry import LoadedModel, Logged


@dataclass(frozen=True)
class Identity:
    """A version as a partition or an order names it.

    `number` is the registry's at that time. `run_id` and `sha256` are None where only the number was written down.
    """

    number: str
    fingerprint: str
    run_id: str | None = None
    sha256: str | None = None

    def is_same(self, other: Identity) -> bool:
        """Whether both are the same version; by number where one of them is known by no more."""
        if self.fingerprint and other.fingerprint:
            return self.fingerprint == other.fingerprint
        return self.number == other.number

    def facts(self) -> dict[str, str | None]:
        """What partitions say beside the number."""
        return {"fingerprint": self.fingerprint, "run_id": self.run_id, "sha256": self.sha256}

    @classmethod
    def of(cls, model: LoadedModel) -> Identity:
        return cls(model.version, model.fingerprint, model.run_id, model.sha256)


def trained_in(lake: Lake, model: str, period: str) -> dict[str, Identity]:
    """The versions that a period's challenger names, itself first, then those in staging: number → what it is."""
    found = lake.find(model, CHALLENGER, period)
    if found is None or found.damaged or not found.rows:
        return {}
    if "versions" in found.facts:
        return {number: Identity(number, **known) for number, known in found.facts["versions"].items()}
    return dict(_of_earlier_times(found))


# By file and content: partitions of earlier times are asked for again and again.
_ROWS: dict[tuple[str, str], dict[str, Identity]] = {}


def _of_earlier_times(challenger: Partition) -> dict[str, Identity]:
    """What a challenger's row says, where its facts don't."""
    import fsspec
    import pyarrow.parquet as pq

    key = (challenger.url, challenger.digest)
    if key not in _ROWS:
        with fsspec.open(challenger.url, "rb") as file:
            [row] = pq.read_table(file, columns=["version", "run_id", "fingerprint"]).to_pylist()
        named = {row["version"]: Identity(row["version"], row["fingerprint"], row["run_id"])}
        for place, other in enumerate(challenger.facts.get("staging", [])[1:], start=2):
            fingerprint = place_fingerprint(row["fingerprint"], place)
            named[other["version"]] = Identity(other["version"], fingerprint)
        _ROWS[key] = named
    return _ROWS[key]


def _challengers(lake: Lake, model: str, until: str | None = None) -> Iterator[dict[str, Identity]]:
    """What each challenger names, newest first."""
    for period in reversed(lake.periods(model, CHALLENGER)):
        if until is None or period <= until:
            yield trained_in(lake, model, period)


def named_by(lake: Lake, partition: Partition, *, key: str = "version") -> Identity | None:
    """The version that a partition's facts name under `key`, None when they name none.

    Raises UnknownVersion when they name a number only, and no challenger of that period or before had it.
    """
    facts, model = partition.facts, partition.model
    number = facts.get(key)
    if not number:
        return None
    if facts.get("fingerprint"):
        return Identity(number, facts["fingerprint"], facts.get("run_id"), facts.get("sha256"))
    if partition.table == CHALLENGER:
        return trained_in(lake, model, partition.period)[number]
    if partition.table != CHAMPION:
        decided = lake.newest_before(model, CHAMPION, partition.period)
        if decided is not None and decided.facts.get("version") == number:
            return named_by(lake, decided)
    return by_number(lake, model, number, _since(lake, partition, number))


def as_known(lake: Lake, partition: Partition, *, key: str = "version") -> Identity | None:
    """`named_by`, with the number alone (an empty fingerprint) when nobody knows any more which version it was."""
    try:
        return named_by(lake, partition, key=key)
    except UnknownVersion:
        return Identity(str(partition.facts[key]), "")


def _since(lake: Lake, partition: Partition, number: str) -> str:
    """The period in which the version of a decision was first in force, of the decisions that retain it."""
    if partition.table != CHAMPION:
        return partition.period
    since = partition.period
    decided: Partition | None = partition
    while decided is not None and decided.facts.get("version") == number:
        since = decided.period
        if decided.facts.get("decision") != "retained":
            break
        decided = lake.newest_before(partition.model, CHAMPION, decided.period)
    return since


def by_number(lake: Lake, model: str, number: str, until: str | None = None) -> Identity:
    """The version that the newest challenger up to a period calls by this number. Raises UnknownVersion."""
    for named in _challengers(lake, model, until):
        if number in named:
            return named[number]
    up_to = f" up to {until}" if until else ""
    raise UnknownVersion(f"unknown version {number} of {model}: no challenger{up_to} names it. {TRAIN_AGAIN}")


class Versions:
    """The registered versions of a model.

    Parameters
    ----------
    artifacts
        The folder of artifacts of the present home.
    pickles
        The estimators whose candidates are declared with `pickle: true`.
    """

    def __init__(
        self,
        model: str,
        client: MlflowClient,
        lake: Lake,
        store: Store,
        artifacts: Path,
        pickles: Collection[str] = (),
    ) -> None:
        self.model = model
        self.client = client
        self.lake = lake
        self.store = store
        self.artifacts = artifacts
        self.pickles = frozenset(pickles)

    @classmethod
    def of_home(cls, model: str, lake: Lake, store: Store, home: Home) -> Versions:
        """Those in the registry of a home, for work without a declaration."""
        from mlops_assets.training import tracking

        return cls(model, tracking.client(home.tracking_uri), lake, store, home.artifacts)

    def load(self, version: Identity) -> LoadedModel:
        """The version, checked and loaded. Raises RegistryError, which says what is wrong with it and what to do."""
        number, record = self._registered(version)
        return self._load(number, record)

    def number(self, version: Identity) -> str | None:
        """The number of a version in the present registry, None when it is not there. Its files are not looked at."""
        known, recorded = self._recorded(version)
        if known is not None:
            return known[0]
        named = None if recorded else self._named(version.fingerprint)
        return None if named is None else self._number_of(named)

    def check(self, version: Identity) -> str:
        """Compare the files of a version with the digest that was kept; returns its number in the present registry.

        Nothing of it is loaded. Raises RegistryError.
        """
        number, record = self._registered(version)
        with tempfile.TemporaryDirectory(prefix="mlops_assets_check_") as folder:
            try:
                registry.fetch(
                    self.client,
                    self.model,
                    number,
                    record.run_id,
                    Path(folder),
                    sha256=record.sha256,
                    home=self.artifacts,
                )
            except (MissingFiles, TooLarge) as error:
                raise RegistryError(
                    f"version {number} of model {self.model} can't be read: {error}. {TRAIN_AGAIN}"
                ) from error
        return number

    def named(self, number: str) -> Identity:
        """The version that the present registry calls by this number. Raises UnknownVersion.

        A version that somebody else has registered is none: the platform has no record of it.
        """
        run_id = registry.run_of(self.client, self.model, number)
        for record in logged_versions.records(self.store, self.model):
            if record.run_id == run_id:
                return Identity(number, record.fingerprint, run_id, record.sha256)
        for named in _challengers(self.lake, self.model):
            for known in named.values():
                if run_id == known.run_id or (known.run_id is None and known.number == number):
                    return known
        raise UnknownVersion(
            f"version {number} of {self.model} was not logged by the platform: it has no record, and no challenger of "
            "the lake names its run. Only versions that a challenger has registered can be loaded"
        )

    def find(self, fingerprint: str) -> LoadedModel | None:
        """The version with this fingerprint, checked and loaded; None when none was ever logged.

        Raises RegistryError when one was logged, but can't be loaded any more.
        """
        if logged_versions.records(self.store, self.model, fingerprint=fingerprint):
            return self.load(self._named(fingerprint) or Identity("", fingerprint))
        known = self._named(fingerprint)
        return None if known is None else self.load(known)

    def register(
        self, run_id: str, logged: Logged, fingerprint: str, *, again: bool = False, **described: Any
    ) -> LoadedModel:
        """Record and register a model that was just logged; under the model's lease.

        A version with this fingerprint that another run registered meanwhile is given back, unless this one is made
        `again` because that can't be loaded. The record is written first: without it nothing can be loaded.
        """
        known = None if again else self.find(fingerprint)
        if known is not None:
            return known
        record = logged_versions.record(self.store, self.model, fingerprint, run_id, logged.sha256, logged.format)
        number = registry.register(self.client, self.model, run_id, logged.uri, fingerprint, **described)
        return self._load(number, record)

    def _load(self, number: str, record: LoggedVersion) -> LoadedModel:
        return registry.load(
            self.client,
            self.model,
            number,
            sha256=record.sha256,
            fingerprint=record.fingerprint,
            home=self.artifacts,
            pickles=self.pickles,
        )

    def _registered(self, version: Identity) -> tuple[str, LoggedVersion]:
        """The number of a version in the present registry, and its record."""
        known, recorded = self._recorded(version)
        if known is not None:
            return known
        if not recorded:
            named = self._named(version.fingerprint)
            if named is not None:
                return self._adopt(named)
        raise UnknownVersion(
            f"unknown {self._called(version)}: "
            + (
                "the platform logged it, but the registry does not hold it; was the registry lost or emptied? "
                if recorded
                else "the platform has no record of it, and no challenger of the lake names it. "
            )
            + TRAIN_AGAIN
        )

    def _recorded(self, version: Identity) -> tuple[tuple[str, LoggedVersion] | None, bool]:
        """The newest record of a version that the present registry holds, with its number; and whether any exists."""
        found = logged_versions.records(self.store, self.model, fingerprint=version.fingerprint)
        for record in found:
            number = registry.version_of_run(self.client, self.model, record.run_id)
            if number is not None:
                return (number, record), True
        return None, bool(found)

    def _called(self, version: Identity) -> str:
        return f"version {version.number or '(never numbered)'} of {self.model} ({version.fingerprint[:12]}…)"

    def _named(self, fingerprint: str) -> Identity | None:
        """The version with this fingerprint that a challenger of the lake names."""
        for named in _challengers(self.lake, self.model):
            for known in named.values():
                if known.fingerprint == fingerprint:
                    return known
        return None

    def _adopt(self, version: Identity) -> tuple[str, LoggedVersion]:
        """Take up a version that was logged before digests were kept, as its files are now."""
        number = self._number_of(version)
        if number is None:
            raise UnknownVersion(
                f"unknown {self._called(version)}: a challenger of the lake names it, but the registry does not hold "
                f"it. {TRAIN_AGAIN}"
            )
        loaded = registry.load(
            self.client,
            self.model,
            number,
            sha256=version.sha256,
            fingerprint=version.fingerprint,
            home=self.artifacts,
            pickles=self.pickles,
        )
        record = logged_versions.record(
            self.store, self.model, version.fingerprint, loaded.run_id, loaded.sha256, loaded.format
        )
        return number, record

    def _number_of(self, version: Identity) -> str | None:
        if version.run_id is not None:
            return registry.version_of_run(self.client, self.model, version.run_id)
        # A version in staging, of which the lake has the number only: its tag has to agree.
        known = registry.version_tags(self.client, self.model, version.number)
        return version.number if known.get("fingerprint") == version.fingerprint else None


@dataclass(frozen=True)
class VersionCheck:
    """What `verify_models` found out about one version.

    `state` is `verified` (its files are those that the platform logged), `adopted` (it had no record and has one now)
    or `failed`; then `problem` says why.
    """

    model: str
    number: str
    fingerprint: str
    period: str
    state: Literal["verified", "adopted", "failed"]
    problem: str | None = None


def verify_models(
    lake: Lake,
    store: Store,
    home: Home,
    pickles: Mapping[str, Collection[str]] | None = None,
    *,
    models: Collection[str] | None = None,
) -> list[VersionCheck]:
    """Check the files of every version that a challenger of the lake names, and adopt those without a record.

    A version that several periods name is checked once, for the first of them.

    Parameters
    ----------
    pickles
        Maps models to the estimators whose candidates are declared with `pickle: true`; a pickle of another is not
        adopted, as that means loading it.
    models
        The models to check; all of the lake by default.
    """
    from mlops_assets.training import tracking

    tracking.initialise(home.tracking_uri, home.artifacts)
    client = tracking.client(home.tracking_uri)
    found = []
    for model in lake.models() if models is None else models:
        allowed = (pickles or {}).get(model, ())
        versions = Versions(model, client, lake, store, home.artifacts, allowed)
        checked = set()
        for period in lake.periods(model, CHALLENGER):
            for named in trained_in(lake, model, period).values():
                if named.fingerprint in checked:
                    continue
                checked.add(named.fingerprint)
                known = bool(logged_versions.records(store, model, fingerprint=named.fingerprint))
                state: Literal["verified", "adopted", "failed"] = "verified" if known else "adopted"
                number, problem = named.number, None
                try:
                    number = versions.check(named)
                except RegistryError as error:
                    state, problem = "failed", str(error)
                found.append(VersionCheck(model, number, named.fingerprint, period, state, problem))
    return found
