"""How long a single call takes: to a server over HTTP, and to the library that trained a model, in this process."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.client import parse_head
from loadtests.processes import Answer

Rows = NDArray[np.float32]
_LEAST = 5


def timed(connection: socket.socket, request: bytes) -> tuple[float, Answer]:
    """Microseconds of one whole HTTP request on an open connection, and its answer. A bare socket: ``http.client``
    alone would cost a fifth of what a small model takes to load."""
    began = time.perf_counter()
    connection.sendall(request)
    received = connection.recv(65536)
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += connection.recv(65536)
    status, length, _ = parse_head(received[:end])
    while len(received) < end + 4 + length:
        received += connection.recv(65536)
    return (time.perf_counter() - began) * 1e6, Answer(status, {}, received[end + 4 :])


def p50_over_http(port: int, request: bytes, seconds: float, most: int = 2000) -> float:
    """Median microseconds of ``request`` by one caller, for ``seconds`` or ``most`` calls, after as many warm ones as
    are made in a fifth of that. Raises RuntimeError for an answer that is no 200."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:

        def once() -> float:
            taken, answer = timed(connection, request)
            if answer.status != 200:
                raise RuntimeError(f"answered {answer.status}: {answer.body[:300]!r}")
            return taken

        _taken(once, seconds / 5, most)
        return median(_taken(once, seconds, most))


def p50_of(call: Callable[[], object], seconds: float, most: int = 2000) -> float:
    """Median microseconds of ``call``, measured likewise."""

    def once() -> float:
        began = time.perf_counter()
        call()
        return (time.perf_counter() - began) * 1e6

    _taken(once, seconds / 5, most)
    return median(_taken(once, seconds, most))


def _taken(once: Callable[[], float], seconds: float, most: int) -> list[float]:
    limit = time.perf_counter() + seconds
    taken: list[float] = []
    while len(taken) < most and (len(taken) < _LEAST or time.perf_counter() < limit):
        taken.append(once())
    return taken


def library_call(artifact: Path, body: bytes, content_type: str) -> Callable[[], object] | None:
    """What the library that runs the model takes for the rows of a request: a function that predicts them, on one
    thread. None where the artifact is no single model of rows (ONNX, XGBoost, LightGBM)."""
    rows = rows_of(body, content_type)
    if rows is None:
        return None
    if (graph := artifact / "model.onnx").is_file():
        return _onnx_call(graph, rows)
    if (packed := artifact / "model.tar.gz").is_file():
        with tarfile.open(packed) as archive:
            member = archive.extractfile("xgboost-model") if "xgboost-model" in archive.getnames() else None
            return _xgboost_call(bytearray(member.read()), rows) if member else None
    if (trees := artifact / "model.txt").is_file() and trees.read_bytes().startswith(b"tree"):
        import lightgbm

        booster = lightgbm.Booster(model_file=str(trees))
        return lambda: booster.predict(rows, num_threads=1)
    return None


def rows_of(body: bytes, content_type: str) -> Rows | None:
    """The rows of numbers in a CSV or JSON request of a built-in algorithm; None when they are something else."""
    if content_type == "text/csv":
        try:
            return np.loadtxt(io.BytesIO(body), delimiter=",", dtype=np.float32, ndmin=2)
        except ValueError:
            return None
    if content_type != "application/json":
        return None
    instances = json.loads(body).get("instances", [])
    found = [_row(instance) for instance in instances] if isinstance(instances, list) else []
    rows = [row for row in found if row is not None]
    return np.stack(rows) if rows and len(rows) == len(found) else None


def _row(instance: Any) -> Rows | None:
    """Dense in either spelling, or sparse; of anything else none."""
    if not isinstance(instance, Mapping):
        return None
    inner = instance.get("data")
    features = inner.get("features") if isinstance(inner, Mapping) else instance.get("features")
    if isinstance(features, Mapping):
        values = np.asarray(features["values"], np.float32)
        if "keys" not in features:
            return values
        row = np.zeros(features["shape"], np.float32)
        row[features["keys"]] = values
        return row
    if not isinstance(features, list) or any(not isinstance(value, int | float) for value in features):
        return None
    return np.asarray(features, np.float32)


def _onnx_call(graph: Path, rows: Rows) -> Callable[[], object] | None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 2:
        return None
    fed = {inputs[0].name: rows}
    return lambda: session.run(None, fed)


def _xgboost_call(model: bytearray, rows: Rows) -> Callable[[], object]:
    import xgboost

    booster = xgboost.Booster({"nthread": 1}, model_file=model)
    return lambda: booster.inplace_predict(rows)
