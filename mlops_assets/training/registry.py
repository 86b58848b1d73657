"""Models in MLflow's registry: logging one with all it needs later, finding and loading it, its aliases.

The run of a version holds, below `monitoring/`, what watching the model takes: the profile of its training
rows and of its scores on test rows, the features SQL, importances and explanation.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlops_assets.lake.categories import text_of_each
from mlops_assets.training import artifacts, model_file
from mlops_assets.training.fit_version import FIT_VERSION
from mlops_assets.training.search import Trained
from mlops_assets.training.tracking import TrainingData, log, log_data, param_text

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model
    from sklearn.pipeline import Pipeline

CHAMPION, PREVIOUS_CHAMPION = "champion", "previous_champion"
STAGING = "staging-"
RUNNER_UP_OF = "runner_up_of"  # tag of a version that was second best or less: the version of the best
FOLDER = "monitoring"
REFERENCE_PROFILE = "reference_profile.parquet"
SCORE_REFERENCE = "score_reference.parquet"
REFERENCE_SAMPLE = "reference_sample.parquet"
FEATURES_SQL = "features.sql"
MODEL_CARD = "model.json"
MODEL_FOLDER, PIPELINE_FOLDER = "model", "pipeline"
TRAIN_AGAIN = "Materialize the challenger of its period again: it is then trained and registered anew"


class RegistryError(RuntimeError):
    """A version can't be used: the message says which, why, and what to do."""


class UnknownVersion(RegistryError):
    """The registry does not hold a version that the lake names, or the platform never logged it."""


class ChangedVersion(RegistryError):
    """The files of a version are not those that the platform logged."""


@dataclass(frozen=True)
class Logged:
    """A model that was logged: its id and address in MLflow, the digest of its files, and the pipeline's format."""

    model_id: str
    uri: str
    sha256: str
    format: str


@dataclass(frozen=True)
class LoadedModel:
    """A registered version, ready to score.

    `cut` is None for a regression; undefined metrics are None. `reference_profile` and `score_reference` are
    local files (None when the version was logged without), as is what `file` finds. `periods` maps train,
    validation and test to their periods as text. `candidate` is the winner's name, `params` its last fit's.

    `version` is the registry's number, which another registry may give to another model: a version is its
    `fingerprint`, and `sha256` is the digest of the files that were loaded (`artifacts.digest`). The files are a copy
    that goes with the object.
    """

    name: str
    version: str
    run_id: str
    pipeline: Pipeline
    cut: float | None
    kinds: dict[str, str]
    target: dict[str, Any]
    metric: str
    metrics: dict[str, dict[str, float | None]]
    importances: dict[str, float]
    periods: dict[str, str]
    tags: dict[str, str]
    candidate: str
    params: dict[str, Any]
    folder: Path
    fingerprint: str
    sha256: str
    format: str
    _copy: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)

    @property
    def reference_profile(self) -> Path | None:
        return self.file(REFERENCE_PROFILE)

    @property
    def score_reference(self) -> Path | None:
        return self.file(SCORE_REFERENCE)

    def file(self, name: str) -> Path | None:
        """A file that was logged with the version (`log_model`), None when it was logged without."""
        path = self.folder / name
        return path if path.is_file() else None


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of canonical JSON: the order of keys doesn't matter, the order of lists does.

    Raises TypeError for what JSON can't hold, ValueError for NaN: a hash of an object's address or of a
    value that never equals itself would train again for ever.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.lru_cache(maxsize=1)
def code_commit() -> str | None:
    """The git commit of these sources, `+changes` when the package differs; None outside a checkout."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package inside somebody else's checkout has no commit of its own.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", str(here.parent.parent))
    return f"{commit}+changes" if commit and changed else commit


def requirements(trained: Trained, pipeline_format: str = model_file.SKOPS) -> list[str]:
    """Pinned requirements of a logged model, read from what is installed: MLflow needn't infer."""
    family = trained.candidate.estimator.partition(".")[0]
    known = {"sklearn": "scikit-learn", "interpret": "interpret-core", "xgboost": "xgboost-cpu"}
    names = ["mlflow", "scikit-learn", "skops", "numpy", "pandas", "pydantic"]
    names += ["cloudpickle"] if pipeline_format == model_file.CLOUDPICKLE else []
    # A module of the user's own project may belong to no distribution: then there is nothing to require.
    names += [known[family]] if family in known else importlib.metadata.packages_distributions().get(family, [])[:1]
    return [f"{n}=={importlib.metadata.version(n)}" for n in dict.fromkeys(names)]


def log_model(
    client: MlflowClient,
    run_id: str,
    trained: Trained,
    *,
    example: pd.DataFrame,
    periods: Mapping[str, str],
    features_sql: str = "",
    reference_profile: bytes | None = None,
    score_reference: bytes | None = None,
    files: Mapping[str, bytes] | None = None,
    data: Sequence[TrainingData] = (),
    tags: Mapping[str, str] | None = None,
    title: str = "model",
) -> Logged:
    """Log a challenger into its period's run: model, metrics, parameters, data, and what monitoring needs.

    Parameters
    ----------
    example
        Rows with the raw feature columns: the signature and the input example come from them.
    periods
        train, validation, test → their periods as text.
    reference_profile, score_reference
        Parquet files' bytes: the profile of the training rows, and of the scores on the test rows.
    files
        More files by name, which `LoadedModel.file` will find.

    The run may be the chosen trial's, whose parameters are there already: those in which the final fit
    differs are then logged as `final_<name>`.
    """
    run_tags = {**(tags or {}), "code_version": FIT_VERSION, "code_commit": code_commit() or "unknown"}
    metrics = {f"{role}_{k}": v for role, values in trained.metrics.items() for k, v in values.items()}
    metrics |= {} if trained.cut is None else {"cut": trained.cut}
    params = {f"{role}_periods": text for role, text in periods.items()} | {"candidate": trained.candidate.label}
    params = _new_params(client.get_run(run_id).data.params, params | trained.params)
    log(client, run_id, params=params, metrics=metrics, tags=run_tags)
    if data:
        log_data(client, run_id, data)
    contents = {**(files or {}), FEATURES_SQL: features_sql.encode()}
    contents |= {REFERENCE_PROFILE: reference_profile} if reference_profile is not None else {}
    contents |= {SCORE_REFERENCE: score_reference} if score_reference is not None else {}
    with tempfile.TemporaryDirectory() as temporary:
        files_of_run = Path(temporary) / FOLDER
        files_of_run.mkdir()
        for name, content in {**contents, **_documents(trained, periods, title)}.items():
            (files_of_run / name).write_bytes(content)
        client.log_artifacts(run_id, str(files_of_run), FOLDER)
        return _log_pipeline(client, run_id, trained, example, run_tags, Path(temporary))


def _new_params(known: Mapping[str, str], params: Mapping[str, Any]) -> dict[str, Any]:
    """What a run doesn't have yet: MLflow refuses to log a parameter again with another value."""
    new = {k: v for k, v in params.items() if k not in known}
    changed = {k: v for k, v in params.items() if k in known and known[k] != param_text(v)}
    return new | {f"final_{k}": v for k, v in changed.items()}


def _documents(trained: Trained, periods: Mapping[str, str], title: str) -> dict[str, bytes]:
    """What there is to read about a model: its card, importances and explanation."""
    from mlops_assets.training.pictures import explanation_page, importances_picture

    card = {
        "cut": trained.cut,
        "kinds": trained.kinds,
        "target": trained.target.model_dump(),
        "metric": trained.metric,
        "metrics": {role: _json_metrics(values) for role, values in trained.metrics.items()},
        "importances": trained.importances,
        "periods": dict(periods),
        "candidate": trained.candidate.model_dump(exclude_none=True) | {"label": trained.candidate.label},
        "params": trained.params,
    }
    rows = "".join(f"{_csv(column)},{value:.6f}\n" for column, value in trained.importances.items())
    found = {
        MODEL_CARD: json.dumps(card, indent=1, default=str).encode(),
        "importances.json": json.dumps(trained.importances, indent=1).encode(),
        "importances.csv": f"column,importance\n{rows}".encode(),
    }
    # For people only: a model is registered without what can't be drawn.
    try:
        found["importances.png"] = importances_picture(trained.importances, f"Importance, {title}")
        page = explanation_page(trained.pipeline, f"Explanation of {title}")
        if page is not None:
            found["explanation.html"] = page.encode()
    except Exception:
        logging.getLogger(__name__).warning("%s can't be explained in pictures", title, exc_info=True)
    return found


def _json_metrics(values: Mapping[str, float]) -> dict[str, float | None]:
    return {k: None if v != v else v for k, v in values.items()}


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def _log_pipeline(
    client: MlflowClient,
    run_id: str,
    trained: Trained,
    example: pd.DataFrame,
    tags: Mapping[str, str],
    folder: Path,
) -> Logged:
    """Log the pipeline as a model of the run. `folder` holds the run's own files, which the digest covers too."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    experiment_id = client.get_run(run_id).info.experiment_id
    params = {k: str(v)[:500] for k, v in trained.params.items()}
    logged = client.create_logged_model(experiment_id, "model", run_id, tags=dict(tags), params=params)
    status: Literal["READY", "FAILED"] = "FAILED"
    try:
        meta = Model(
            artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run_id, model_id=logged.model_id
        )
        saved = folder / MODEL_FOLDER
        pipeline_format = _save(saved, trained, example, meta)
        client.log_model_artifacts(logged.model_id, str(saved))
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        status = "READY"
    finally:
        client.finalize_logged_model(logged.model_id, status)
    return Logged(logged.model_id, f"models:/{logged.model_id}", artifacts.digest(folder), pipeline_format)


def _save(saved: Path, trained: Trained, example: pd.DataFrame, meta: Model) -> str:
    """Save the pipeline in MLflow's layout, with the code and requirements that scoring takes; returns its format."""
    from mlops_assets.training import standalone

    candidate = trained.candidate
    rows = _example(example, trained)
    with tempfile.TemporaryDirectory() as temporary, _known_noise():
        import mlflow.pyfunc
        from mlflow.models import infer_signature

        pipeline, code = Path(temporary) / PIPELINE_FOLDER, Path(temporary) / "mlops_assets"
        pipeline.mkdir()
        found = model_file.write(trained.pipeline, pipeline, candidate.estimator, allow_pickle=candidate.pickle)
        pickled = found == model_file.CLOUDPICKLE
        standalone.write_settings(pipeline, candidate.estimator, trained.target, trained.cut, allow_pickle=pickled)
        standalone.copy_code(code)
        mlflow.pyfunc.save_model(
            saved,
            loader_module=standalone.__name__,
            data_path=str(pipeline),
            code_paths=[str(code)],
            mlflow_model=meta,
            signature=infer_signature(rows, standalone.scored(trained.pipeline, rows, trained.target, trained.cut)),
            input_example=rows,
            pip_requirements=requirements(trained, found),
        )
    return found


def _example(example: pd.DataFrame, trained: Trained) -> pd.DataFrame:
    """Five rows of the feature columns, in types that the signature can admit missing values in.

    Numbers are doubles, as are whole numbers that are categories: 3.0 and 3 are one category. Categories that JSON has
    no type for (exact decimals, dates) are their texts.
    """
    from pandas.api.types import is_integer_dtype

    rows = example[list(trained.kinds)].head(5).reset_index(drop=True).copy()
    for column, kind in trained.kinds.items():
        if kind == "numeric" or (is_integer_dtype(rows[column]) and _are_exact_doubles(example[column])):
            rows[column] = rows[column].astype("float64")
        elif rows[column].dtype == object and not all(isinstance(value, str | bool) for value in rows[column].dropna()):
            rows[column] = text_of_each(rows[column])
    return rows


def _are_exact_doubles(whole_numbers: pd.Series) -> bool:
    known = whole_numbers.dropna()
    return known.empty or (int(known.max()) <= 2**53 and int(known.min()) >= -(2**53))


@contextmanager
def _known_noise() -> Iterator[None]:
    """Hide what MLflow says about what is decided here (integer columns), and about itself."""
    import warnings

    logger = logging.getLogger("mlflow.pyfunc")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"(?s).*integer column.*missing values")
            warnings.filterwarnings("ignore", message=r"(?s).*Any type hint is inferred as AnyType")
            yield
    finally:
        logger.setLevel(level)


def register(
    client: MlflowClient,
    name: str,
    run_id: str,
    model_uri: str,
    fingerprint: str,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    status: Literal["challenger", "staging"] = "challenger",
) -> str:
    """Register a logged model as the next version, tagged with its status; returns the version.

    A run that is registered already gives its version back, and nothing new is made.
    """
    from mlflow.exceptions import MlflowException

    known = version_of_run(client, name, run_id)
    if known is not None:
        return known
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = model_uri.removeprefix("models:/")
    source = client.get_logged_model(model_id).artifact_location
    own = {**(tags or {}), "fingerprint": fingerprint, "status": status}
    created = client.create_model_version(
        name,
        source,
        run_id=run_id,
        tags={k: str(v) for k, v in own.items()},
        description=description,
        model_id=model_id,
    )
    return str(created.version)


def version_of_run(client: MlflowClient, name: str, run_id: str) -> str | None:
    """The oldest version that was registered from a run, None when there is none."""
    same = [v for v in client.search_model_versions(f"run_id = '{run_id}'", max_results=1000) if v.name == name]
    return min((str(v.version) for v in same), key=int, default=None)


def version_tags(client: MlflowClient, name: str, version: str) -> dict[str, str]:
    """The tags of a version; none when there is no such version."""
    found = _version(client, name, version)
    return {} if found is None else dict(found.tags)


def run_of(client: MlflowClient, name: str, version: str) -> str:
    """The run that a version was registered from. Raises UnknownVersion."""
    found = _version(client, name, version)
    if found is None:
        known = sorted((str(v.version) for v in versions_of(client, name)), key=int)
        raise UnknownVersion(f"model {name} has no version {version}; the registry has {', '.join(known) or 'none'}")
    return str(found.run_id)


def _version(client: MlflowClient, name: str, version: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def place_fingerprint(challenger: str, place: int) -> str:
    """The fingerprint of a place in staging: the challenger's own for the first, one made from it for the others."""
    return challenger if place == 1 else fingerprint({"challenger": challenger, "place": place})


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All registered versions of a model."""
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def staging_alias(place: int) -> str:
    """The alias of a place in staging: `staging-1` is the best."""
    return f"{STAGING}{place}"


def load(
    client: MlflowClient,
    name: str,
    version: str,
    *,
    sha256: str | None,
    fingerprint: str = "",
    home: Path | None = None,
    pickles: Collection[str] = (),
) -> LoadedModel:
    """A registered version with everything that scoring and drift need; kept in memory per process.

    Parameters
    ----------
    sha256
        The digest of the version's files, as the platform logged them. None loads what is there: for versions that
        were logged before digests were kept.
    fingerprint
        What the version is, for `LoadedModel.fingerprint`.
    home
        The folder of artifacts of the present home: where a moved home's files are (`artifacts.local_path`).
    pickles
        The estimators whose candidates allow pickle.

    Raises RegistryError when the version or its files are gone, changed, damaged or not to be trusted.
    """
    from mlflow.exceptions import MlflowException

    try:
        known = client.get_model_version(name, str(version))
        # The run is part of the key: after a reset the same version number is another model.
        key = (client.tracking_uri, name, str(version), known.run_id, sha256, home, frozenset(pickles))
        loaded = _load(*key)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UnknownVersion(
            f"the registry has no version {version} of model {name}: {error}. {TRAIN_AGAIN}"
        ) from error
    except (FileNotFoundError, artifacts.TooLarge, model_file.UnreadableModel) as error:
        raise RegistryError(f"version {version} of model {name} can't be loaded: {error}. {TRAIN_AGAIN}") from error
    return replace(loaded, tags=dict(known.tags), fingerprint=fingerprint)


@functools.lru_cache(maxsize=8)
def _load(
    uri: str, name: str, version: str, run_id: str, sha256: str | None, home: Path | None, pickles: frozenset[str]
) -> LoadedModel:
    from mlops_assets.training import tracking

    copy = tempfile.TemporaryDirectory(prefix="mlops_assets_model_")
    folder = Path(copy.name)
    found = fetch(tracking.client(uri), name, version, run_id, folder, sha256=sha256, home=home)
    try:
        card = json.loads((folder / FOLDER / MODEL_CARD).read_bytes())
        estimator = card["candidate"]["estimator"]
    except (ValueError, KeyError, TypeError) as error:
        raise model_file.UnreadableModel(f"{MODEL_CARD} is damaged or cut off ({error})") from error
    inner = folder / MODEL_FOLDER / "data" / PIPELINE_FOLDER
    # Versions that were logged as MLflow's scikit-learn flavor have the file beside MLmodel.
    pipeline, pipeline_format = model_file.read(
        inner if inner.is_dir() else folder / MODEL_FOLDER, estimator, pickles=pickles
    )
    return LoadedModel(
        name=name,
        version=version,
        run_id=run_id,
        pipeline=pipeline,
        cut=card["cut"],
        kinds=card["kinds"],
        target=card["target"],
        metric=card["metric"],
        metrics=card["metrics"],
        importances=card["importances"],
        periods=card["periods"],
        tags={},
        candidate=card["candidate"]["label"],
        params=card["params"],
        folder=folder / FOLDER,
        fingerprint="",
        sha256=found,
        format=pipeline_format,
        _copy=copy,
    )


def fetch(
    client: MlflowClient, name: str, version: str, run_id: str, folder: Path, *, sha256: str | None, home: Path | None
) -> str:
    """Copy the files of a version into an empty folder, check their digest and return it.

    Raises ChangedVersion when the digest is not `sha256`, MissingFiles when there are none.
    """
    source = client.get_model_version_download_uri(name, version)
    artifacts.copy(source, folder / MODEL_FOLDER, client.tracking_uri, home)
    location = f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}"
    artifacts.copy(location, folder / FOLDER, client.tracking_uri, home)
    found = artifacts.digest(folder)
    if sha256 is not None and found != sha256:
        raise ChangedVersion(
            f"the files of version {version} of model {name} are not those that the platform logged: their digest is "
            f"{found[:16]}…, expected {sha256[:16]}…. They were changed, cut off or replaced; nothing of them was "
            f"loaded. {TRAIN_AGAIN}"
        )
    return found
