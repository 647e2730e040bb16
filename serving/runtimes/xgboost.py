"""XGBoost boosters, through the library's C API: ``Booster.inplace_predict`` spends four fifths of a one-row call in
Python, and importing the package costs more memory than most models.

Signatures: XGBoost ``include/xgboost/c_api.h``. The numbers are those of ``Booster.inplace_predict``, bit for bit; rows
in small batches may go through ONNX Runtime once ``optimise`` has shown that it answers the same and sooner.
"""

from __future__ import annotations

import ctypes
import functools
import json
import logging
import threading
import time
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_uint64, c_void_p
from typing import Any, NamedTuple

import numpy as np
import orjson

from serving.codecs.base import InputSpec, TensorSpec
from serving.errors import LoadFailed, OutOfMemory, PredictionFailed
from serving.runtimes import fit, trees_to_onnx, xgboost_output
from serving.runtimes.base import Artifact, LoadSettings, TensorModel
from serving.runtimes.failures import is_out_of_memory, said
from serving.runtimes.native import open_library
from serving.runtimes.xgboost_output import Objective

_PREDICT = b'{"type":0,"training":false,"iteration_begin":0,"iteration_end":0,"missing":NaN,"strict_shape":false}'
_DENSE = b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}'
#: Fewer rows are one thread's work: XGBoost deals rows out in blocks of 64. Waking a second thread for them, or for a
#: small model's load, doubles the time of both.
_MANY_ROWS = 128
#: Relative difference that two engines may show: float32 sums agree exactly, exponentials to the last bit or two.
_SAME = 1e-6
_PROBE_ROWS = 512
_TRIED_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)

log = logging.getLogger(__name__)


class _Fast(NamedTuple):
    """Another engine for batches of at most ``rows`` rows: float32 [n, columns] -> the booster's own answer."""

    rows: int
    predict: Callable[[np.ndarray], np.ndarray]


class _NativeError(Exception):
    """What XGBoost said."""


class Booster:
    """A booster behind the C API. Not safe for two threads at once: the caller holds a lock."""

    def __init__(self) -> None:
        """An empty booster of one thread; fill it with ``load``."""
        self.linear = False
        self._lib = _library()
        self._handle, self._proxy = c_void_p(), c_void_p()
        self._shape, self._dims, self._result = POINTER(c_uint64)(), c_uint64(), c_void_p()
        self._out = (byref(self._shape), byref(self._dims), byref(self._result))
        self._check(self._lib.XGBoosterCreate(None, c_uint64(0), byref(self._handle)))
        # One proxy for all calls: making one each time costs as much again as the prediction.
        self._check(self._lib.XGProxyDMatrixCreate(byref(self._proxy)))
        self.set("nthread", "1")

    def load(self, data: bytes) -> None:
        """Load JSON or UBJSON from memory: from a file, XGBoost would go by its name."""
        if not data.startswith((b'{"', b"{L")):  # somebody's editor has indented it
            data = orjson.dumps(orjson.loads(data))
        self._check(self._lib.XGBoosterLoadModelFromBuffer(self._handle, data, c_uint64(len(data))))
        self.linear = b"gblinear" in data and self._is_linear()

    def set(self, name: str, value: str) -> None:
        """Set a parameter such as ``nthread``."""
        self._check(self._lib.XGBoosterSetParam(self._handle, name.encode(), value.encode()))

    def columns(self) -> int:
        """Feature count."""
        count = c_uint64()
        self._check(self._lib.XGBoosterGetNumFeature(self._handle, byref(count)))
        return count.value

    def _is_linear(self) -> bool:
        return bool(self._learner()["gradient_booster"]["name"] == "gblinear")

    def objective(self) -> Objective:
        """What it was trained for."""
        learner = self._learner()
        name = learner["objective"]["name"]
        return Objective(name, 2 if name.startswith("binary:") else int(learner["learner_model_param"]["num_class"]))

    def _learner(self) -> dict[str, Any]:
        """The learner's configuration. Asked only where it matters (of a file that names the linear booster somewhere,
        for one): writing it down is a quarter of a load's time, and the library keeps the text until the calling thread
        ends."""
        length, text = c_uint64(), c_char_p()
        self._check(self._lib.XGBoosterSaveJsonConfig(self._handle, byref(length), byref(text)))
        learner: dict[str, Any] = json.loads(text.value or b"{}")["learner"]
        return learner

    def to_json(self) -> bytes:
        """The model in XGBoost's JSON schema."""
        length, data = c_uint64(), c_void_p()
        call = self._lib.XGBoosterSaveModelToBuffer
        self._check(call(self._handle, b'{"format":"json"}', byref(length), byref(data)))
        return ctypes.string_at(data.value or 0, length.value)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Scores of C-contiguous float32 rows: float32 [n] or [n, groups]. NaN = missing."""
        count, columns = rows.shape
        dense = _DENSE % (rows.__array_interface__["data"][0], count, columns)
        if self._lib.XGBoosterPredictFromDense(self._handle, dense, _PREDICT, self._proxy, *self._out):
            self._check(-1)
        return self._answer()

    def predict_matrix(self, rows: np.ndarray) -> np.ndarray:
        """The same through a DMatrix of its own: slower, but linear boosters know no other way."""
        count, columns = rows.shape
        dense, matrix = _DENSE % (rows.__array_interface__["data"][0], count, columns), c_void_p()
        self._check(self._lib.XGDMatrixCreateFromDense(dense, b'{"missing":NaN,"nthread":1}', byref(matrix)))
        try:
            self._check(self._lib.XGBoosterPredictFromDMatrix(self._handle, matrix, _PREDICT, *self._out))
            return self._answer()
        finally:
            self._lib.XGDMatrixFree(matrix)

    def free(self) -> None:
        """Release the native memory. Harmless when done before."""
        for handle, release in ((self._proxy, self._lib.XGDMatrixFree), (self._handle, self._lib.XGBoosterFree)):
            if handle.value:
                release(handle)
                handle.value = None

    def _answer(self) -> np.ndarray:
        """A copy: the library reuses its buffer in the next call."""
        shape = self._shape[: self._dims.value]
        size = 4 * functools.reduce(int.__mul__, shape, 1)
        return np.frombuffer(ctypes.string_at(self._result.value or 0, size), np.float32).reshape(shape)

    def _check(self, status: int) -> None:
        if status:
            raise _NativeError((self._lib.XGBGetLastError() or b"unknown error").decode("utf-8", "replace"))


class XGBoostModel(TensorModel):
    """A booster. ``layout`` and ``default_accept`` are those of SageMaker's XGBoost container."""

    layout = "xgboost"
    default_accept = "text/csv"

    def __init__(self, booster: Booster, threads: int) -> None:
        """Takes the booster over. Raises LoadFailed when it holds no model that can predict."""
        self._booster = booster
        self._threads = threads
        self._used = 1
        self._lock = threading.Lock()
        self._fast: _Fast | None = None
        self._predict = booster.predict_matrix if booster.linear else booster.predict
        columns = booster.columns()
        if columns < 1:
            raise LoadFailed("the booster knows of no features: it was saved before it was trained")
        self.spec = InputSpec((TensorSpec("features", "float32", (None, columns)),))
        self.engine = "xgboost C API"

    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """Scores of rows [n, features], NaN = missing: float32 [n], or [n, classes] where the objective has several."""
        rows = fit.matrix(inputs, self.spec)
        fast = self._fast
        if fast is not None and len(rows) <= fast.rows:
            return fast.predict(rows)
        return self._native(rows)

    def optimise(self) -> bool:
        """Build the ONNX form, keep it if it answers the same on probe rows, for as many rows as it is faster."""
        fast = None if self._booster.linear or self._fast is not None else self._faster()
        if fast is None:
            return False
        self._fast = fast  # one assignment: a predict on another thread sees the old engine or the new
        self.engine = f"onnxruntime up to {fast.rows} rows, xgboost C API above"
        return True

    def objective(self) -> Objective:
        """What the booster was trained for."""
        return self._booster.objective()

    def set_threads(self, threads: int) -> None:
        """Threads of the booster's own predictions; few-row calls use one in any case."""
        self._threads = threads

    def close(self) -> None:
        """Free booster and session."""
        with self._lock:
            self._fast = None
            self._booster.free()

    def _native(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return self._native(np.zeros((1, rows.shape[1]), np.float32))[:0]
        try:
            with self._lock:
                self._use(self._threads if len(rows) >= _MANY_ROWS else 1)
                return self._predict(rows)
        except _NativeError as error:
            if is_out_of_memory(error):
                raise OutOfMemory("there is not enough memory for this prediction") from error
            raise PredictionFailed(f"XGBoost could not predict: {said(error)}") from error

    def _use(self, threads: int) -> None:
        if threads != self._used:
            self._booster.set("nthread", str(threads))
            self._used = threads

    def _faster(self) -> _Fast | None:
        """The ONNX engine, or None where there is none, it differs, or it is not faster."""
        with self._lock:
            described = self._booster.to_json()
        try:
            converted = trees_to_onnx.convert(described)
            predict = _session(converted) if converted is not None else None
        except Exception as error:  # whatever is odd about it, the booster itself still answers
            log.info("the booster stays with XGBoost alone: %s", said(error))
            return None
        if converted is None or predict is None:
            return None
        probes = probe_rows(converted)
        for few in np.array_split(probes, len(probes) // 16):
            if not _same(predict(few), self._native(few)):
                log.warning("the booster stays with XGBoost alone: ONNX Runtime answers differently")
                return None
        most = _crossover(predict, self._native, probes)
        return _Fast(most, predict) if most else None


def load(artifact: Artifact, settings: LoadSettings) -> TensorModel:
    """A booster from JSON or UBJSON. Raises LoadFailed with what XGBoost says of a damaged one."""
    return served(artifact.file.read_bytes(), settings)


def served(data: bytes, settings: LoadSettings) -> TensorModel:
    """A booster's serialised form as SageMaker's container would answer with it. Raises LoadFailed."""
    model = from_bytes(data, settings.threads)
    try:
        return xgboost_output.dressed(model, model.objective, settings.environment)
    except BaseException:
        model.close()
        raise


def from_bytes(data: bytes, threads: int) -> XGBoostModel:
    """A booster from its serialised form in memory, as ``Booster.save_raw`` writes it."""
    booster = Booster()
    try:
        booster.load(data)
        return XGBoostModel(booster, threads)
    except BaseException:
        booster.free()
        raise


def as_json(data: bytes) -> bytes:
    """A booster's serialised form, whichever it is, in XGBoost's JSON schema. Raises LoadFailed."""
    booster = Booster()
    try:
        booster.load(data)
        return booster.to_json()
    finally:
        booster.free()


@functools.cache
def _library() -> ctypes.CDLL:
    lib = open_library("xgboost", "libxgboost.so")
    lib.XGBGetLastError.restype = c_char_p
    out = (POINTER(POINTER(c_uint64)), POINTER(c_uint64), POINTER(c_void_p))
    lib.XGBoosterLoadModelFromBuffer.argtypes = [c_void_p, c_char_p, c_uint64]
    lib.XGBoosterPredictFromDense.argtypes = [c_void_p, c_char_p, c_char_p, c_void_p, *out]
    lib.XGBoosterPredictFromDMatrix.argtypes = [c_void_p, c_void_p, c_char_p, *out]
    lib.XGBRegisterLogCallback(_TO_LOG)
    return lib


def _to_log(message: bytes) -> None:
    log.debug("xgboost: %s", message.decode("utf-8", "replace").strip())


_TO_LOG = ctypes.CFUNCTYPE(None, c_char_p)(_to_log)  # kept: the library calls it as long as the process lives


# --- the other engine ------------------------------------------------------------------------------------------------


def _session(converted: trees_to_onnx.Converted) -> Callable[[np.ndarray], np.ndarray] | None:
    try:
        from serving.runtimes import onnx

        session = onnx.session(converted.model, threads=1)
    except ModuleNotFoundError:
        return None
    wanted = [trees_to_onnx.OUTPUT]
    flat = converted.outputs == 1

    def predict(rows: np.ndarray) -> np.ndarray:
        scores: np.ndarray = session.run(wanted, {trees_to_onnx.INPUT: rows})[0]
        return scores.reshape(-1) if flat else scores

    return predict


def probe_rows(converted: trees_to_onnx.Converted) -> np.ndarray:
    """Rows that would tell two tree walkers apart: values on splits and one float beside them, missing in each column
    alone and together, zeros of both signs, magnitudes from the smallest to the largest. float32 [n, columns]."""
    dice = np.random.default_rng(0)
    columns, splits = converted.columns, converted.split_values
    rows = dice.normal(size=(_PROBE_ROWS, columns)).astype(np.float32)
    for column in range(columns):
        values = splits[converted.split_columns == column]
        if len(values):
            picked = dice.choice(values, _PROBE_ROWS)
            beside = np.nextafter(picked, dice.choice(np.array([-np.inf, np.inf], np.float32), _PROBE_ROWS))
            rows[:, column] = np.where(dice.random(_PROBE_ROWS) < 0.5, picked, beside)
    rows[dice.random(rows.shape) < 0.1] = np.nan
    odd = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-30, 1e30, -1e30, 3.4e38, -3.4e38, np.inf, -np.inf], np.float32)
    special = np.repeat(odd[:, None], columns, axis=1)
    mixed = dice.choice(odd, (64, columns))
    alone = np.where(np.eye(columns, dtype=bool), np.float32(np.nan), rows[:1])
    return np.concatenate([rows, special, mixed, alone, np.full((1, columns), np.nan, np.float32)])


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.allclose(one, other, rtol=_SAME, atol=0.0, equal_nan=True))


def _crossover(
    one: Callable[[np.ndarray], np.ndarray], other: Callable[[np.ndarray], np.ndarray], probes: np.ndarray
) -> int:
    """The largest tried number of rows up to which ``one`` is the faster; 0 when it never is. CPU time of this thread,
    best of several: the machine is busy with other things."""
    most = 0
    for count in _TRIED_ROWS:
        rows = np.ascontiguousarray(np.resize(probes, (count, probes.shape[1])))
        if _seconds(one, rows) >= _seconds(other, rows):
            break
        most = count
    return most


def _seconds(predict: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> float:
    best = float("inf")
    for _ in range(7):
        began = time.thread_time()
        for _ in range(4):
            predict(rows)
        best = min(best, time.thread_time() - began)
    return best
