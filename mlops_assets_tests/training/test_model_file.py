"""What is read from a model's file: what the platform wrote, or one sentence that says what is wrong."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mlops_assets.training import model_file
from mlops_assets.training.model_file import NotStorable, UnreadableModel

ESTIMATOR = "sklearn.linear_model.LogisticRegression"
X = np.arange(40.0).reshape(20, 2)


def fitted(first: Any) -> Pipeline:
    return Pipeline([("first", first), ("last", LogisticRegression())]).fit(X, np.arange(20) % 3 == 0)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with a model."""
    assert model_file.write(fitted(StandardScaler()), tmp_path, ESTIMATOR, allow_pickle=False) == "skops"
    return tmp_path


def problem(folder: Path) -> str | None:
    """What is wrong with the model in a folder; any error of another kind is raised."""
    try:
        model_file.read(folder, ESTIMATOR)
    except UnreadableModel as error:
        return str(error)
    return None


def test_what_is_written_is_read(written: Path) -> None:
    pipeline, found = model_file.read(written, ESTIMATOR)
    assert found == "skops"
    np.testing.assert_array_equal(pipeline.predict_proba(X), fitted(StandardScaler()).predict_proba(X))


def test_a_file_that_is_cut_off_anywhere_or_has_a_changed_byte_is_one_sentence(written: Path) -> None:
    path = written / "model.skops"
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UnreadableModel, match=r"^model\.skops is damaged or cut off \([^\n]+\)$"):
            model_file.read(written, ESTIMATOR)
    rng = np.random.default_rng(7)
    found = []
    for place in rng.integers(0, len(whole), 100):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        found.append(problem(written))
    assert sum(text is not None for text in found) > 30
    assert not [text for text in found if text is not None and "\n" in text]


def test_a_type_of_another_family_is_not_created(written: Path) -> None:
    from xgboost import XGBClassifier

    model = Pipeline([("last", XGBClassifier(n_estimators=2))]).fit(X, np.arange(20) % 2)
    assert model_file.write(model, written, "xgboost.XGBClassifier", allow_pickle=False) == "skops"
    model_file.read(written, "xgboost.XGBClassifier")
    with pytest.raises(UnreadableModel, match=rf"holds types that {ESTIMATOR} has no use for: .*xgboost"):
        model_file.read(written, ESTIMATOR)


def test_a_file_that_unpacks_to_too_much_is_refused(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "MOST_BYTES", 100_000)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("schema.json", b" " * 1_000_000)
    (written / "model.skops").write_bytes(packed.getvalue())
    with pytest.raises(UnreadableModel, match="unpacks to 1,000,000 bytes; at most 100,000 are read"):
        model_file.read(written, ESTIMATOR)


def test_a_pickle_is_neither_written_nor_read_unless_it_is_allowed(tmp_path: Path) -> None:
    model = fitted(FunctionTransformer(lambda values: values * 2))
    with pytest.raises(NotStorable, match=r"can't be stored without pickle: .*add `pickle: true` to the candidate"):
        model_file.write(model, tmp_path, ESTIMATOR, allow_pickle=False)
    assert not list(tmp_path.iterdir())
    assert model_file.write(model, tmp_path, ESTIMATOR, allow_pickle=True) == "cloudpickle"
    with pytest.raises(UnreadableModel, match="whose loading runs code"):
        model_file.read(tmp_path, ESTIMATOR, pickles={"sklearn.svm.SVC"})
    pipeline, found = model_file.read(tmp_path, ESTIMATOR, pickles={ESTIMATOR})
    assert found == "cloudpickle"
    np.testing.assert_array_equal(pipeline.predict(X), model.predict(X))


def test_a_pickle_that_calls_itself_skops_is_not_unpickled(written: Path, tmp_path: Path) -> None:
    class Mischief:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "witness",)

    (written / "model.skops").write_bytes(pickle.dumps(Mischief()))
    with pytest.raises(UnreadableModel, match="damaged"):
        model_file.read(written, ESTIMATOR, pickles={ESTIMATOR})
    assert not (tmp_path / "witness").exists()
