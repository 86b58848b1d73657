"""Finding a period's challenger: candidates compete on validation rows, test rows judge the winner."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlops_assets.lake.columns import Kind
from mlops_assets.lake.memory import is_out_of_memory
from mlops_assets.training.candidates import Candidate, SearchSpace, Target, check_parameters
from mlops_assets.training.metrics import (
    CLASSIFICATION_METRICS,
    HIGHER_IS_BETTER,
    REGRESSION_METRICS,
    Metrics,
    classification_metrics,
    regression_metrics,
    tune_cut,
)
from mlops_assets.training.pipeline import ScoreError, calibration_folds, estimator, importances, preprocessing, scores
from mlops_assets.training.scored_rows import ScoredRows

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray
    from optuna import Study
    from optuna import Trial as OptunaTrial
    from sklearn.pipeline import Pipeline

# Of fewer rows each candidate keeps the encoded ones until the last fit.
ENCODED_ROWS_KEPT = 200_000
LARGEST_TARGET = 1e150

Cut = float | Literal["tuned"]
SearchPlan = Literal["together", "compare_then_tune"]
Stage = Literal["search", "compare", "tune"]


class OneClassError(ValueError):
    """The training or validation rows hold one class only, so there is nothing to learn, or to choose by."""


class UndefinedMetricError(ValueError):
    """No trial can be judged by the rows there are, and no candidate is to blame.

    The metric is not defined on the validation rows (R² of rows that are all equal), or a class has too few training
    rows to calibrate with. Other rows, of the next period say, have no such problem.
    """


class SearchError(RuntimeError):
    """No trial of any candidate succeeded, and at least one failed for another reason than its rows."""


@dataclass(frozen=True)
class Split:
    """Rows of one role: raw feature columns, and the target (0/1 with 1 the positive class, or amounts)."""

    features: pd.DataFrame
    target: NDArray[Any]


@dataclass(frozen=True)
class Trial:
    """One fit of a search.

    `metrics` are those on validation. `state` is `complete`, `failed` (with its `error`) or `repeated`: the
    sampler proposed parameters again, whose result was taken over without a fit. `number` counts over all
    candidates; `started` and `seconds` are wall time. `stage` is `search` where all candidates are tuned
    together; in two stages `compare` for a candidate's fit with default settings, `tune` for the winner's.
    `undefined` is true of a failure that is the rows' and not the candidate's (see `UndefinedMetricError`).
    `warnings` is what the estimator warned of while it was fitted (no convergence, say), each once.
    """

    number: int
    candidate: str
    params: dict[str, Any]
    metrics: Metrics
    cut: float | None
    seconds: float
    state: Literal["complete", "failed", "repeated"]
    started: datetime
    error: str | None = None
    stage: Stage = "search"
    warnings: tuple[str, ...] = ()
    undefined: bool = False


@dataclass(frozen=True)
class Trained:
    """The challenger of a period.

    `metrics` has the keys train, validation and test; `test` are the chosen model's scores on the test rows
    beside their outcomes; `importances` see `pipeline.importances`; `params` are those of the last fit.
    `runners_up` are fitted models too, from the second best on (see `train`); `trials` and `seconds` are those
    of the whole search, theirs included. `failed` are the candidates that took no part in the choice, as none of
    their trials is complete, each with its first error.
    """

    pipeline: Pipeline
    candidate: Candidate
    params: dict[str, Any]
    kinds: dict[str, Kind]
    target: Target
    metric: str
    cut: float | None
    trials: list[Trial]
    chosen: Trial
    metrics: dict[str, Metrics]
    importances: dict[str, float]
    test: ScoredRows = field(compare=False)
    seconds: float = field(compare=False, default=0.0)
    runners_up: list[Trained] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def test_scores(self) -> NDArray[np.float64]:
        """The scores on the test rows, in their order, where they are few enough to be in memory."""
        return self.test.arrays()[1]


def encode_target(values: ArrayLike, target: Target) -> NDArray[Any]:
    """The target as `Split` takes it: 1 where it equals `positive` else 0 (int8), or float64 amounts.

    Raises ValueError for missing values: rows without a target have to be left out first.
    """
    import pandas as pd

    column = pd.Series(values)
    if column.isna().any():
        raise ValueError(f"target {target.column} is missing in {int(column.isna().sum())} of {len(column)} rows")
    if target.task == "regression":
        return column.to_numpy(dtype=np.float64)
    return (column == target.positive).to_numpy(dtype=np.int8)


def measure(target: ArrayLike, scored: NDArray[np.float64], cut: float | None) -> Metrics:
    """Metrics of scores: those of a classification with a cut, those of a regression without one."""
    return regression_metrics(target, scored) if cut is None else classification_metrics(target, scored, cut)


def train(
    train: Split,
    validation: Split,
    test: Split | Iterable[Split],
    *,
    candidates: Sequence[Candidate],
    kinds: Mapping[str, Kind],
    target: Target,
    metric: str,
    cut: Cut = "tuned",
    trials: int = 8,
    seed: int = 42,
    plan: SearchPlan = "together",
    runners_up: int = 0,
    storage: Path | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    keep_test: Callable[[], ScoredRows] = ScoredRows,
) -> Trained:
    """Search every candidate's parameters, choose by the validation metric, fit the final model, test it.

    Parameters
    ----------
    test
        The rows that judge the chosen model: in one piece, or in parts that are read, one after the other, once for
        each model that is fitted.
    metric
        A key of `HIGHER_IS_BETTER` of the target's task.
    cut
        `tuned`: the cut that is best on validation (`tune_cut`), for each trial and for the final model.
    trials
        Fits in all. Candidates that have something to search share them equally, each gets at least one; a
        candidate with nothing to search gets exactly one.
    plan
        `together`: every candidate is tuned, as `trials` says. `compare_then_tune`: every candidate is fitted
        once with its own `params` (default settings), and the best by the validation metric gets all trials
        that are left.
    runners_up
        How many models beside the best are fitted too, in the order of their validation metric. Each candidate
        has one place, its best trial; where one candidate only was tuned (a single one, or the winner of
        `compare_then_tune`), its best distinct trials have one each. Fewer when there are no more.
    storage
        File of the Optuna journal; begun anew, so that the result depends on nothing that was there before.
    on_trial
        Called after each trial, in order.
    keep_test
        Makes the empty rows that a model's test scores are added to, which decides where they are kept.

    The same arguments give the same result: samplers (TPE, Bergstra et al. 2011) and estimators take `seed`.
    A failing trial is recorded and the search goes on; a candidate without any other is in `Trained.failed`.

    Raises
    ------
    EstimatorError
        A candidate has a parameter that its estimator doesn't take, or is none for the target's task.
    OneClassError
        The training or the validation rows hold one class only.
    UndefinedMetricError
        Every trial failed because of the rows; the message has the first cause.
    SearchError
        Every trial failed, not all because of the rows; the message has the first other cause.
    ValueError
        A split without rows, or a metric that is not the task's.
    """
    started = time.perf_counter()
    _check(train, validation, test, target, metric, candidates)
    if storage is not None:
        storage.parent.mkdir(parents=True, exist_ok=True)
        storage.unlink(missing_ok=True)
    searches = {
        _label(candidate, candidates): _CandidateSearch(candidate, kinds, target, metric, cut, seed, train, validation)
        for candidate in candidates
    }
    done: list[Trial] = []
    with _quiet_optuna():
        run = _in_two_stages if plan == "compare_then_tune" else _all_together
        for trial in run(searches, trials, storage, metric):
            done.append(trial)
            if on_trial is not None:
                on_trial(trial)
    judges = [test] if isinstance(test, Split) else test
    models: list[Trained] = []
    places = _places(done, metric, 1 + runners_up)
    for place, chosen in enumerate(places, start=1):
        began = time.perf_counter() if models else started
        fitted = searches[chosen.candidate].final(chosen)
        if place == len(places):
            # The last fit is done: what the searches keep must not stand beside the test rows.
            for search in searches.values():
                search.release()
        measured = _finished(searches[chosen.candidate], fitted, chosen, done, train, validation, judges, keep_test())
        models.append(replace(measured, seconds=time.perf_counter() - began))
    return replace(models[0], seconds=time.perf_counter() - started, runners_up=models[1:])


def _finished(
    search: _CandidateSearch,
    fitted: tuple[Pipeline, dict[str, Any], float | None],
    chosen: Trial,
    done: list[Trial],
    train: Split,
    validation: Split,
    test: Iterable[Split],
    kept: ScoredRows,
) -> Trained:
    """A trial's model, measured and explained."""
    pipeline, params, final_cut = fitted
    scored = {
        name: scores(pipeline, split.features, search.target)
        for name, split in (("train", train), ("validation", validation))
    }
    for split in test:
        kept.add(split.target, scores(pipeline, split.features, search.target))
    return Trained(
        pipeline=pipeline,
        candidate=search.candidate,
        params=params,
        kinds=dict(search.kinds),
        target=search.target,
        metric=search.metric,
        cut=final_cut,
        trials=done,
        failed=_failed(done),
        chosen=chosen,
        metrics={
            "train": measure(train.target, scored["train"], final_cut),
            "validation": measure(validation.target, scored["validation"], final_cut),
            "test": kept.metrics(final_cut),
        },
        importances=importances(pipeline, validation.features, validation.target, search.kinds, search.seed),
        test=kept,
    )


def _all_together(
    searches: Mapping[str, _CandidateSearch], trials: int, storage: Path | None, metric: str
) -> Iterator[Trial]:
    """Every candidate is tuned with its share of the trials."""
    number = 0
    shares = _shares([search.candidate for search in searches.values()], trials)
    for (label, search), share in zip(searches.items(), shares, strict=True):
        for trial in search.run(label, share, storage, number):
            number += 1
            yield trial
        search.forget_rows()


def _in_two_stages(
    searches: Mapping[str, _CandidateSearch], trials: int, storage: Path | None, metric: str
) -> Iterator[Trial]:
    """One fit of every candidate, then all trials that are left for the best of them."""
    compared = []
    for number, (label, search) in enumerate(searches.items()):
        compared.append(search.compare(label, number))
        search.forget_rows()
        yield compared[-1]
    left = trials - len(compared)
    if not any(trial.state == "complete" for trial in compared):
        return
    best = _best(compared, metric)
    winner = searches[best.candidate]
    if left > 0 and winner.candidate.search:
        yield from winner.run(best.candidate, left, storage, len(compared), "tune")


def _places(done: Sequence[Trial], metric: str, number: int) -> list[Trial]:
    """The trials whose models are wanted, best first: the chosen one and the runners-up (see `train`)."""
    best = _best(done, metric)
    complete = sorted((t for t in done if t.state == "complete"), key=_rank(metric))
    one_tuned = len({t.candidate for t in done}) == 1 or any(t.stage == "tune" for t in done)
    if one_tuned:
        places = {_key(t.params): t for t in reversed(complete) if t.candidate == best.candidate}
    else:
        places = {t.candidate: t for t in reversed(complete)}
    return sorted(places.values(), key=_rank(metric))[:number]


def _failed(done: Sequence[Trial]) -> dict[str, str]:
    """The first error of each candidate that has no complete trial."""
    judged = {trial.candidate for trial in done if trial.state == "complete"}
    found: dict[str, str] = {}
    for trial in done:
        if trial.error is not None and trial.candidate not in judged:
            found.setdefault(trial.candidate, trial.error)
    return found


def _rank(metric: str) -> Callable[[Trial], tuple[float, int]]:
    """A sort key: the better validation metric first, of equals the earlier trial."""
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    return lambda trial: (sign * trial.metrics[metric], trial.number)


def _check(
    train: Split,
    validation: Split,
    test: Split | Iterable[Split],
    target: Target,
    metric: str,
    candidates: Sequence[Candidate],
) -> None:
    if not candidates:
        raise ValueError("no candidate to train; list at least one estimator under candidates")
    allowed = CLASSIFICATION_METRICS if target.task == "classification" else REGRESSION_METRICS
    if metric not in allowed:
        raise ValueError(f"metric {metric!r} is not one of {target.task}: expected {', '.join(allowed)}")
    # Before any fit: a failed trial would be a line in a table, and the others would win without a word.
    for candidate in candidates:
        check_parameters(candidate, target.task)
    named = {"train": train, "validation": validation} | ({"test": test} if isinstance(test, Split) else {})
    for name, split in named.items():
        if len(split.features) != len(split.target):
            raise ValueError(f"{name}: {len(split.features)} rows of features, {len(split.target)} targets")
        if not len(split.target):
            raise ValueError(f"{name} has no rows; a challenger needs rows in all three splits")
    if target.task == "regression":
        largest = max(float(np.abs(split.target).max()) for split in (train, validation))
        if largest > LARGEST_TARGET:
            raise UndefinedMetricError(
                f"{target.column} has values up to {largest:.3g}, whose squares are no numbers of double precision. "
                "If they stand for a missing value, make them NULL in features.sql"
            )
    if target.task == "classification":
        classes = np.unique(train.target)
        if not np.isin(classes, (0, 1)).all():
            raise ValueError(f"targets must be 0 or 1, found {classes[:5].tolist()}; see encode_target")
        if len(classes) < 2:
            raise OneClassError(
                f"all {len(train.target)} training rows have {target.column} "
                f"{'=' if classes[0] == 1 else '≠'} {target.positive!r}; both classes are needed. "
                "Check the target's `positive` value, or choose a wider training window"
            )
        if len(np.unique(validation.target)) < 2:
            raise OneClassError(
                f"all {len(validation.target)} validation rows have {target.column} "
                f"{'=' if validation.target[0] == 1 else '≠'} {target.positive!r}, so no candidate can be told from "
                "another, and no cut be tuned; choose a wider validation window"
            )


def _label(candidate: Candidate, candidates: Sequence[Candidate]) -> str:
    """The candidate's name, numbered when several have the same."""
    same = [c for c in candidates if c.label == candidate.label]
    if len(same) == 1:
        return candidate.label
    return f"{candidate.label}-{next(i for i, c in enumerate(same) if c is candidate) + 1}"


def _shares(candidates: Sequence[Candidate], trials: int) -> list[int]:
    """How many trials each candidate gets."""
    searched = [bool(c.search) for c in candidates]
    to_share = max(trials - searched.count(False), searched.count(True))
    share, rest = divmod(to_share, max(searched.count(True), 1))
    shares = []
    for has_search in searched:
        shares.append((share + (rest > 0)) if has_search else 1)
        rest -= has_search and rest > 0
    return shares


def _best(done: Sequence[Trial], metric: str) -> Trial:
    """The complete trial with the best validation metric; of equals the first."""
    complete = [t for t in done if t.state == "complete"]
    if not complete:
        failed = [t for t in done if t.state == "failed"]
        first = next((t for t in failed if not t.undefined), failed[0])
        if first.undefined:
            raise UndefinedMetricError(
                f"none of {len(done)} trials can be judged by these rows; first {first.candidate}: {first.error}. "
                "Choose wider windows, or another metric"
            )
        raise SearchError(f"all {len(done)} trials failed; first {first.candidate} with {first.params}: {first.error}")
    return min(complete, key=_rank(metric))


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna's level is put back: a user's own studies keep their messages."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def _known_noise() -> Iterator[None]:
    """Hide what an EBM says of columns with missing values: the data's checks tell that, by column."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Missing values detected. Our visualizations")
        warnings.filterwarnings("ignore", message="All-NaN slice encountered", category=RuntimeWarning)
        yield


@contextmanager
def _noted(messages: list[str]) -> Iterator[None]:
    """Collect what is warned of, each message once, instead of printing it for every trial of every period."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            texts = (f"{warning.category.__name__}: {warning.message}".strip() for warning in caught)
            messages.extend(dict.fromkeys(texts))


class _CandidateSearch:
    """One candidate's trials. Frames are encoded once, each trial fits the estimator alone."""

    def __init__(
        self,
        candidate: Candidate,
        kinds: Mapping[str, Kind],
        target: Target,
        metric: str,
        cut: Cut,
        seed: int,
        train: Split,
        validation: Split,
    ) -> None:
        self.candidate, self.kinds, self.target = candidate, kinds, target
        self.metric, self.cut, self.seed = metric, cut, seed
        self.train, self.validation = train, validation
        self._encoded: tuple[Any, Any, Any] | None = None
        self._fitted: tuple[int, Any] | None = None
        self._best_value = -math.inf
        self._compared: Trial | None = None

    def compare(self, label: str, number: int) -> Trial:
        """One fit with the candidate's own parameters: what is searched stays at the estimator's default."""
        self._compared = self._trial(number, label, dict(self.candidate.params), "compare")
        return self._compared

    def run(
        self, label: str, share: int, storage: Path | None, offset: int, stage: Stage = "search"
    ) -> Iterator[Trial]:
        """Trials numbered from `offset`; stops early when a finite space is used up."""
        study = _study(label, storage, self.metric, self.seed, share)
        known = {
            k: _as_asked(v, self.candidate.search[k])
            for k, v in self.candidate.params.items()
            if k in self.candidate.search
        }
        if known:
            study.enqueue_trial(known)
        seen: dict[str, Trial] = {}
        compared = self._compared
        if compared is not None and known.keys() == self.candidate.search.keys():
            # The comparison has tried these parameters: the sampler learns of it, and no trial is spent on them.
            asked, params = self._ask(study)
            self._tell(study, asked, compared)
            seen[_key(params)] = compared
        for number in range(offset, offset + share):
            if len(seen) >= _space_size(self.candidate.search):
                return
            asked, params = self._ask(study)
            key = _key(params)
            trial = self._repeat(number, seen[key], stage) if key in seen else self._trial(number, label, params, stage)
            seen.setdefault(key, trial)
            self._tell(study, asked, trial)
            yield trial

    def _ask(self, study: Study) -> tuple[OptunaTrial, dict[str, Any]]:
        asked = study.ask()
        proposed = {name: _suggest(asked, name, space) for name, space in self.candidate.search.items()}
        return asked, self.candidate.params | proposed

    def _tell(self, study: Study, asked: OptunaTrial, trial: Trial) -> None:
        from optuna.trial import TrialState

        if trial.error is not None:
            study.tell(asked, state=TrialState.FAIL)
        else:
            study.tell(asked, trial.metrics[self.metric])

    @staticmethod
    def _repeat(number: int, trial: Trial, stage: Stage) -> Trial:
        return replace(trial, number=number, seconds=0.0, state="repeated", started=datetime.now(UTC), stage=stage)

    def _trial(self, number: int, label: str, params: dict[str, Any], stage: Stage) -> Trial:
        started, clock = datetime.now(UTC), time.perf_counter()
        warned: list[str] = []
        try:
            with _noted(warned):
                fitted, cut, metrics = self._fit(params)
            if math.isnan(metrics[self.metric]):
                raise UndefinedMetricError(
                    f"{self.metric} is undefined on validation: {metrics.undefined.get(self.metric, 'NaN')}"
                )
        except Exception as error:  # an estimator may raise anything for parameters it can't take
            if is_out_of_memory(error):
                # The machine is to blame, not the parameters: which candidate wins must not depend on it.
                raise
            seconds = time.perf_counter() - clock
            return Trial(
                number,
                label,
                params,
                Metrics({}),
                None,
                seconds,
                "failed",
                started,
                error=f"{type(error).__name__}: {error}",
                stage=stage,
                warnings=tuple(warned),
                undefined=isinstance(error, UndefinedMetricError),
            )
        self._keep(number, fitted, metrics)
        seconds = time.perf_counter() - clock
        return Trial(
            number, label, params, metrics, cut, seconds, "complete", started, stage=stage, warnings=tuple(warned)
        )

    def _keep(self, number: int, fitted: Any, metrics: Metrics) -> None:
        """Only the best estimator so far stays in memory; without a final fit it is the model."""
        sign = 1 if HIGHER_IS_BETTER[self.metric] else -1
        if sign * metrics[self.metric] > self._best_value:
            self._fitted, self._best_value = (number, fitted), sign * metrics[self.metric]

    def _fit(self, params: Mapping[str, Any]) -> tuple[Any, float | None, Metrics]:
        from sklearn.pipeline import Pipeline

        _, X, X_validation = self._encode()
        fitted = estimator(self.candidate, self.kinds, params, self.seed, self.target.task)
        if self.candidate.calibration is not None:
            try:
                fitted.set_params(cv=calibration_folds(self.train.target))
            except ScoreError as error:
                raise UndefinedMetricError(str(error)) from error
        with _known_noise():
            fitted.fit(X, self.train.target)
        scored = scores(Pipeline([("estimator", fitted)]), X_validation, self.target)
        cut: float | None = None
        if self.target.task == "classification":
            wanted = self.cut
            cut = tune_cut(self.validation.target, scored, self.metric) if wanted == "tuned" else float(wanted)
        return fitted, cut, measure(self.validation.target, scored, cut)

    def _encode(self) -> tuple[list[tuple[str, Any]], Any, Any]:
        if self._encoded is None:
            from sklearn.pipeline import Pipeline

            steps = preprocessing(self.candidate, self.kinds)
            before = Pipeline(steps)
            X = before.fit_transform(self.train.features, self.train.target)
            self._encoded = (steps, X, before.transform(self.validation.features))
        return self._encoded

    def forget_rows(self) -> None:
        """Free the encoded rows where there are many: each candidate would keep its own beside the others'."""
        if len(self.train.target) + len(self.validation.target) > ENCODED_ROWS_KEPT:
            self._encoded = None

    def release(self) -> None:
        """Free the encoded rows and the best model; they are made again when they are needed."""
        self._encoded = self._fitted = None

    def final(self, chosen: Trial) -> tuple[Pipeline, dict[str, Any], float | None]:
        """The chosen trial's model, or with `final` parameters one more fit with a cut of its own."""
        from sklearn.pipeline import Pipeline

        steps, _, _ = self._encode()
        params, cut = chosen.params | self.candidate.final, chosen.cut
        if not self.candidate.final and self._fitted is not None and self._fitted[0] == chosen.number:
            fitted = self._fitted[1]
        else:
            fitted, cut, _ = self._fit(params)
        return Pipeline([*steps, ("estimator", fitted)]), params, cut


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))


def _study(label: str, storage: Path | None, metric: str, seed: int, share: int) -> Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    # Half of a small budget is drawn at random, the rest where it was good; Optuna's own 10 would make a
    # search of 8 trials a purely random one.
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, min(10, share // 2)))
    return optuna.create_study(
        study_name=label,
        storage=None if storage is None else JournalStorage(JournalFileBackend(str(storage))),
        sampler=sampler,
        direction="maximize" if HIGHER_IS_BETTER[metric] else "minimize",
    )


def _by_position(space: SearchSpace) -> bool:
    """Whether Optuna chooses a position instead of the value: lists and mappings are no choices to it."""
    return not all(isinstance(v, bool | int | float | str) or v is None for v in space.categorical or [])


def _as_asked(value: Any, space: SearchSpace) -> Any:
    """A parameter's value as `_suggest` asks for it."""
    return (space.categorical or []).index(value) if _by_position(space) else value


def _suggest(trial: OptunaTrial, name: str, space: SearchSpace) -> Any:
    if space.categorical is not None:
        if _by_position(space):
            return space.categorical[trial.suggest_categorical(name, list(range(len(space.categorical))))]
        return trial.suggest_categorical(name, space.categorical)
    if space.int is not None:
        return trial.suggest_int(name, space.int[0], space.int[1], step=int(space.step or 1), log=space.log)
    low, high = space.float or [0.0, 0.0]
    return trial.suggest_float(name, low, high, step=space.step, log=space.log)


def _space_size(search: Mapping[str, SearchSpace]) -> float:
    sizes = [space.size for space in search.values()]
    return math.inf if any(s is None for s in sizes) else math.prod(s for s in sizes if s is not None)
