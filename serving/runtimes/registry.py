"""The runtimes in one visible table, and the one door through which a model is loaded.

Frameworks are named as strings and imported on first use: importing this module loads none.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable

from serving.codecs.registry import negotiate, offered
from serving.errors import LoadFailed, NotAcceptable, OutOfMemory, ServingError
from serving.runtimes.base import Artifact, LoadSettings, Model, TensorModel
from serving.runtimes.failures import is_out_of_memory, said
from serving.runtimes.formats import check_allowed

#: Format of an artifact -> the function that loads it, ``(Artifact, LoadSettings) -> Model``.
RUNTIMES: dict[str, str] = {
    "onnx": "serving.runtimes.onnx:load",
    "xgboost": "serving.runtimes.xgboost:load",
    "lightgbm": "serving.runtimes.lightgbm:load",
    "fasttext": "serving.runtimes.algorithms.blazingtext:load_bare",
    "vectors": "serving.runtimes.algorithms.blazingtext:load_bare",
    "pickle": "serving.runtimes.sklearn:load",
    "skops": "serving.runtimes.sklearn:load_skops",
    "torchscript": "serving.runtimes.torch:load_script",
    "pt2": "serving.runtimes.torch:load_exported",
    "script": "serving.runtimes.script:load",
    "algorithm": "serving.runtimes.algorithms.registry:load",
}

#: Importable module -> the extra of ours that installs it.
EXTRAS: dict[str, str] = {
    "onnxruntime": "onnx",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "sklearn": "sklearn",
    "joblib": "sklearn",
    "skops": "sklearn",
    "torch": "torch",
    "PIL": "images",
}

#: Built-in algorithms whose answers are the arrays of a model, under the names of their images.
DRESSES = frozenset(
    {"factorization-machines", "kmeans", "knn", "lda", "linear-learner", "ntm", "pca", "randomcutforest"}
)

_log = logging.getLogger(__name__)


def preload(frameworks: Iterable[str]) -> tuple[str, ...]:
    """Import the frameworks named by ``Artifact.frameworks``, for a warm forkserver; returns those that are there."""
    found = []
    for name in sorted(frameworks):
        try:
            importlib.import_module(name)
        except ImportError:
            _log.info("framework %s cannot be imported; models that need it will say so when they load", name)
        else:
            found.append(name)
    return tuple(found)


def load(artifact: Artifact, settings: LoadSettings) -> Model:
    """Load a recognised artifact with the runtime of its format.

    Raises CodeNotAllowed when it executes code and ``settings.allow_code`` is off, OutOfMemory when it does not fit,
    LoadFailed, in one sentence, for whatever else its framework says.
    """
    check_allowed(artifact, settings.allow_code)
    where = f"the model file {artifact.file.name!r}"
    try:
        return _loader(artifact.format)(artifact, settings)
    except ServingError:
        raise
    except ModuleNotFoundError as error:
        raise LoadFailed(_missing(where, error)) from error
    except (Exception, SystemExit) as error:  # user code and native loaders raise anything at all
        _log.info("loading %s failed", artifact.file, exc_info=True)
        if is_out_of_memory(error):
            raise OutOfMemory(f"{where} does not fit into memory") from error
        raise LoadFailed(f"{where} ({artifact.format}) could not be loaded: {said(error)}") from error


def load_contained(artifact: Artifact, settings: LoadSettings, repository: str = "") -> Model:
    """``load``, with what the container adds: a model of arrays that does not say itself how it answers does so as the
    built-in algorithm of its image's ``repository``, and a call without Accept gets what
    ``SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT`` says. Raises what ``load`` raises."""
    model = load(artifact, settings)
    if isinstance(model, TensorModel) and repository in DRESSES and model.layout == "generic":
        model = importlib.import_module("serving.runtimes.algorithms.arrays").dressed(repository, model)
    wanted = settings.environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT")
    if isinstance(model, TensorModel) and wanted:
        try:
            model.default_accept, _ = negotiate(wanted, model.default_accept, offered(model.layout))
        except NotAcceptable as error:
            model.close()
            raise LoadFailed(f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: {error.message}") from None
    return model


def _loader(format_name: str) -> Callable[[Artifact, LoadSettings], Model]:
    if format_name not in RUNTIMES:
        raise LoadFailed(f"no runtime loads the format {format_name!r}")
    module, _, function = RUNTIMES[format_name].partition(":")
    found: Callable[[Artifact, LoadSettings], Model] = getattr(importlib.import_module(module), function)
    return found


def _missing(where: str, error: ModuleNotFoundError) -> str:
    name = (error.name or "").partition(".")[0]
    if name in EXTRAS:
        return f"{where} needs {name}, which is not installed: pip install 'serving[{EXTRAS[name]}]'"
    return f"{where} needs the Python module {name!r}, which is not installed in this server's environment"
