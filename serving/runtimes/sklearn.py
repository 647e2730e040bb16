"""scikit-learn estimators (and whatever else with a ``predict``) from pickles, joblib files and skops files.

A pickle is a program: ``registry.load`` has asked for the operator's consent before this file is imported. A skops
file is data with an allow-list of types; types beyond the list need that same consent.

As in SageMaker's scikit-learn container the answer is ``predict``, also for classifiers.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np

from serving.codecs.base import InputSpec, Outputs, TensorSpec
from serving.errors import BadInput, CodeNotAllowed, LoadFailed, OutOfMemory, PredictionFailed
from serving.runtimes import fit
from serving.runtimes.base import Artifact, LoadSettings, TensorModel
from serving.runtimes.failures import is_out_of_memory, said


class SklearnModel(TensorModel):
    """An estimator. Reads float64 rows; a ValueError in ``predict`` is the input's fault, anything else the model's."""

    def __init__(self, estimator: Any, threads: int) -> None:
        """Raises LoadFailed when the object cannot predict."""
        if not callable(getattr(estimator, "predict", None)):
            kind = type(estimator).__name__
            raise LoadFailed(f"the file holds a {kind}, which has no predict: add code/inference.py with a model_fn")
        self._estimator = estimator
        columns = getattr(estimator, "n_features_in_", None)
        self.spec = InputSpec((TensorSpec("features", "float64", (None, columns)),), fill=0.0)
        self.engine = type(estimator).__module__.partition(".")[0]
        self.set_threads(threads)

    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> Outputs:
        """What the estimator predicts for rows [n, features], as an array."""
        rows = fit.matrix(inputs, self.spec)
        try:
            answer = self._estimator.predict(rows)
        except ValueError as error:
            raise BadInput(f"the model refused its input: {said(error)}") from error
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory("there is not enough memory for this prediction") from error
            raise PredictionFailed(f"the model could not predict: {type(error).__name__}: {said(error)}") from error
        answer = np.asarray(answer)
        return answer.astype(np.str_) if answer.dtype == object else answer

    def set_threads(self, threads: int) -> None:
        """Estimators trained with ``n_jobs=-1`` would otherwise take every core of the machine."""
        for part in _parts(self._estimator):
            if getattr(part, "n_jobs", None) is not None:
                part.n_jobs = threads

    def close(self) -> None:
        """Drop the estimator; the collector finds the cycles that pipelines are full of."""
        self._estimator = None
        gc.collect()


def load(artifact: Artifact, settings: LoadSettings) -> TensorModel:
    """A pickled object. A pickled XGBoost booster gets the XGBoost runtime."""
    found = unpickled(artifact, settings)
    if type(found).__module__.startswith("xgboost") and hasattr(found, "save_raw"):
        from serving.runtimes import xgboost

        return xgboost.served(bytes(found.save_raw("ubj")), settings)
    return SklearnModel(found, settings.threads)


def unpickled(artifact: Artifact, settings: LoadSettings) -> Any:
    """The object in a pickle or joblib file. Executes code, so the consent is checked here once more."""
    if not settings.allow_code:
        raise CodeNotAllowed(f"{artifact.file.name!r} is a pickle, which executes code when it is loaded")
    import joblib

    return joblib.load(artifact.file)


def load_skops(artifact: Artifact, settings: LoadSettings) -> TensorModel:
    """An estimator from a skops file whose types are all trusted ones, or, with consent, whatever its types."""
    import skops.io

    unknown = skops.io.get_untrusted_types(file=artifact.file)
    if unknown and not settings.allow_code:
        raise CodeNotAllowed(
            f"the skops file {artifact.file.name!r} needs types that skops does not trust ({', '.join(unknown[:5])}); "
            "set SERVING_ALLOW_CODE=true or start with --allow-code to load it"
        )
    return SklearnModel(skops.io.load(artifact.file, trusted=unknown), settings.threads)


def _parts(estimator: Any) -> list[Any]:
    """The estimator and those inside it."""
    try:
        inner = estimator.get_params(deep=True).values()
    except Exception:  # not scikit-learn's, or odd: its own threads are its own affair
        inner = ()
    return [estimator, *(part for part in inner if hasattr(part, "predict") or hasattr(part, "transform"))]
