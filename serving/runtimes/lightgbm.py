"""LightGBM boosters from their text form, through the library's C API: the Python package brings scikit-learn
and pandas along where they are installed, 200 MB that prediction has no use for.

Signatures: LightGBM ``include/LightGBM/c_api.h``. The numbers are those of ``lightgbm.Booster.predict``.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_void_p

import numpy as np

from serving.codecs.base import InputSpec, TensorSpec
from serving.errors import LoadFailed, OutOfMemory, PredictionFailed
from serving.runtimes import fit
from serving.runtimes.base import Artifact, LoadSettings, TensorModel
from serving.runtimes.failures import is_out_of_memory, said
from serving.runtimes.native import open_library

_NORMAL = 0  # C_API_PREDICT_NORMAL
_FLOAT64 = 1  # C_API_DTYPE_FLOAT64
_ROW_MAJOR = 1

log = logging.getLogger(__name__)


class LightGBMModel(TensorModel):
    """A booster. Reads float64, as LightGBM keeps its thresholds; NaN = missing."""

    def __init__(self, text: bytes, threads: int) -> None:
        """``text``: a saved model. Raises LoadFailed with what LightGBM says of a damaged one."""
        if b"\nend of trees" not in text:
            raise LoadFailed("the LightGBM model is cut short: its trees have no end")
        self._lib = _library()
        self._lock = threading.Lock()
        self._handle, self._row = c_void_p(), c_void_p()
        rounds, columns, classes = c_int(), c_int(), c_int()
        _check(self._lib.LGBM_BoosterLoadModelFromString(text, byref(rounds), byref(self._handle)))
        _check(self._lib.LGBM_BoosterGetNumFeature(self._handle, byref(columns)))
        _check(self._lib.LGBM_BoosterGetNumClasses(self._handle, byref(classes)))
        self._width = classes.value
        self._columns = columns.value
        self.spec = InputSpec((TensorSpec("features", "float64", (None, self._columns)),))
        self.engine = "lightgbm C API"
        self.set_threads(threads)

    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """Scores of rows [n, features]: float64 [n], or [n, classes]."""
        rows = fit.matrix(inputs, self.spec)
        out = np.empty((len(rows), self._width) if self._width > 1 else len(rows), np.float64)
        if not len(rows):
            return out
        try:
            with self._lock:
                self._fill(rows, out)
        except _NativeError as error:
            if is_out_of_memory(error):
                raise OutOfMemory("there is not enough memory for this prediction") from error
            raise PredictionFailed(f"LightGBM could not predict: {said(error)}") from error
        return out

    def set_threads(self, threads: int) -> None:
        """Threads of the predictions of many rows."""
        parameters = f"num_threads={threads} verbosity=-1".encode()
        with self._lock:
            if not self._handle.value:
                return
            if self._row.value:
                self._lib.LGBM_FastConfigFree(self._row)
                self._row.value = None
            self._parameters = parameters
            # What a one-row call needs, worked out once: the call itself is then several times cheaper.
            init = self._lib.LGBM_BoosterPredictForMatSingleRowFastInit
            _check(init(self._handle, _NORMAL, 0, -1, _FLOAT64, self._columns, parameters, byref(self._row)))

    def close(self) -> None:
        """Free the booster. Harmless when done before."""
        with self._lock:
            if self._row.value:
                self._lib.LGBM_FastConfigFree(self._row)
                self._row.value = None
            if self._handle.value:
                self._lib.LGBM_BoosterFree(self._handle)
                self._handle.value = None

    def _fill(self, rows: np.ndarray, out: np.ndarray) -> None:
        data, written = rows.ctypes.data, c_int64()
        if len(rows) == 1:
            call = self._lib.LGBM_BoosterPredictForMatSingleRowFast
            _check(call(self._row, data, byref(written), out.ctypes.data))
        else:
            shape = (_FLOAT64, len(rows), self._columns, _ROW_MAJOR)
            call = self._lib.LGBM_BoosterPredictForMat
            span = (_NORMAL, 0, -1)
            _check(call(self._handle, data, *shape, *span, self._parameters, byref(written), out.ctypes.data))
        if written.value != out.size:
            raise PredictionFailed(f"LightGBM answered {written.value} numbers where {out.size} were due")


class _NativeError(Exception):
    """What LightGBM said."""


def load(artifact: Artifact, settings: LoadSettings) -> TensorModel:
    """A booster from its text file."""
    return LightGBMModel(artifact.file.read_bytes(), settings.threads)


def _check(status: int) -> None:
    if status:
        raise _NativeError((_library().LGBM_GetLastError() or b"unknown error").decode("utf-8", "replace"))


@functools.cache
def _library() -> ctypes.CDLL:
    lib = open_library("lightgbm", "lib_lightgbm.so")
    lib.LGBM_GetLastError.restype = c_char_p
    lib.LGBM_BoosterLoadModelFromString.argtypes = [c_char_p, POINTER(c_int), POINTER(c_void_p)]
    out = (POINTER(c_int64), c_void_p)
    matrix = (c_int, ctypes.c_int32, ctypes.c_int32, c_int)
    lib.LGBM_BoosterPredictForMat.argtypes = [c_void_p, c_void_p, *matrix, c_int, c_int, c_int, c_char_p, *out]
    lib.LGBM_BoosterPredictForMatSingleRowFast.argtypes = [c_void_p, c_void_p, *out]
    lib.LGBM_RegisterLogCallback(_TO_LOG)
    return lib


def _to_log(message: bytes) -> None:
    log.debug("lightgbm: %s", message.decode("utf-8", "replace").strip())


_TO_LOG = ctypes.CFUNCTYPE(None, c_char_p)(_to_log)  # kept: the library calls it as long as the process lives
