"""A fitted pipeline as a file: written and read with the platform's own lists of trusted types.

`model.skops` holds no code: skops builds the pipeline from a description, and creates no object of a type that is not
in the lists below, whatever the file says. Pickle, whose loading runs code, is written and read only for a candidate
that is declared with `pickle: true`.

This module is copied beside each logged model (`training.standalone`), so it imports nothing of the platform.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from sklearn.pipeline import Pipeline

SKOPS, CLOUDPICKLE = "skops", "cloudpickle"
FILES = {SKOPS: "model.skops", CLOUDPICKLE: "model.pkl"}
MOST_BYTES = 4 * 2**30  # of a model's files, and of what is packed in them

# What the platform's own steps and scikit-learn's estimators are made of, beyond what skops trusts by itself
# (scikit-learn's public estimators, NumPy and SciPy). Found by storing each estimator of scikit-learn.
PLATFORM_AND_SKLEARN = (
    "functools.partial",
    "mlops_assets.training.encoding.CategoryCodes",
    "mlops_assets.training.encoding.CategoryNames",
    "mlops_assets.training.encoding.FeatureColumns",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
)
FAMILIES = {
    "interpret": (
        "interpret.glassbox._ebm._ebm.ExplainableBoostingClassifier",
        "interpret.glassbox._ebm._ebm.ExplainableBoostingRegressor",
    ),
    "xgboost": (
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRegressor",
        "xgboost.sklearn.XGBRFClassifier",
        "xgboost.sklearn.XGBRFRegressor",
    ),
}


# What zipfile, skops and the estimators raise for damaged bytes.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
)


class NotStorable(ValueError):
    """A pipeline can't be stored without pickle, and its candidate doesn't allow pickle."""


class UnreadableModel(ValueError):
    """A model file is missing or damaged, holds types that are not trusted, or is a pickle that is not allowed."""


def trusted_types(estimator: str) -> list[str]:
    """The types that a pipeline around this estimator (a dotted path) may hold, beyond those that skops trusts."""
    return sorted({*PLATFORM_AND_SKLEARN, *FAMILIES.get(estimator.partition(".")[0], ())})


def write(pipeline: Pipeline, folder: Path, estimator: str, *, allow_pickle: bool) -> str:
    """Write the pipeline into `folder` and return the format: `skops`, or `cloudpickle` where only that can.

    Raises NotStorable when it takes pickle and `allow_pickle` is False.
    """
    why = _write_skops(pipeline, folder / FILES[SKOPS], estimator)
    if why is None:
        return SKOPS
    if not allow_pickle:
        raise NotStorable(
            f"{estimator} can't be stored without pickle: {why}. Loading a pickle runs code that is in it; when you "
            "accept that, add `pickle: true` to the candidate, or choose another estimator"
        )
    import cloudpickle

    (folder / FILES[CLOUDPICKLE]).write_bytes(cloudpickle.dumps(pipeline))
    return CLOUDPICKLE


def _write_skops(pipeline: Pipeline, path: Path, estimator: str) -> str | None:
    """Write the file; returns why it can't be, None when it is written."""
    import skops.io

    try:
        content = skops.io.dumps(pipeline)
        trusted = trusted_types(estimator)
        unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - set(trusted))
        if not unknown:
            skops.io.loads(content, trusted=trusted)
    except Exception as error:  # noqa: BLE001  each family of estimators fails in its own way
        return f"skops says {error}"
    if unknown:
        return f"it holds {', '.join(unknown)}, which are on no list of trusted types"
    path.write_bytes(content)
    return None


def read(folder: Path, estimator: str, *, pickles: Collection[str] = ()) -> tuple[Pipeline, str]:
    """The pipeline in a folder and its format.

    Parameters
    ----------
    estimator
        Dotted path of the candidate's estimator: which types are trusted.
    pickles
        The estimators whose candidates allow pickle.

    Raises UnreadableModel. The caller has checked that the file is the one that the platform wrote.
    """
    if (folder / FILES[SKOPS]).is_file():
        return _read_skops(folder / FILES[SKOPS], estimator), SKOPS
    path = folder / FILES[CLOUDPICKLE]
    if not path.is_file():
        raise UnreadableModel(f"there is neither {FILES[SKOPS]} nor {FILES[CLOUDPICKLE]} among the model's files")
    if estimator not in pickles:
        raise UnreadableModel(
            f"the model of {estimator} is stored as a pickle, whose loading runs code, and no candidate with that "
            "estimator is declared with `pickle: true`; add it, or have the period trained again"
        )
    try:
        return pickle.loads(path.read_bytes()), CLOUDPICKLE
    except (pickle.UnpicklingError, EOFError, ImportError, AttributeError) as error:
        raise UnreadableModel(f"{path.name} can't be read: {error}") from error


def _read_skops(path: Path, estimator: str) -> Pipeline:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(entry.file_size for entry in packed.infolist())
        if unpacked > MOST_BYTES:
            raise UnreadableModel(f"{path.name} unpacks to {unpacked:,} bytes; at most {MOST_BYTES:,} are read")
        return skops.io.load(path, trusted=trusted_types(estimator))
    except UntrustedTypesFoundException as error:
        raise UnreadableModel(f"{path.name} holds types that {estimator} has no use for: {error}") from error
    except UnreadableModel:
        raise
    except DAMAGE as error:
        raise UnreadableModel(f"{path.name} is damaged or cut off ({type(error).__name__}: {error})") from error
