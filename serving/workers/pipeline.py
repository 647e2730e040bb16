"""A batch of bodies through one model: decode, stack, predict once, split, encode. A bad call fails alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from serving.codecs import registry as codecs
from serving.codecs.base import Decoded, Outputs
from serving.errors import BadInput, ModelError, OutOfMemory, PredictionFailed, ServingError
from serving.runtimes.base import TensorModel
from serving.runtimes.failures import is_out_of_memory, said


class Outcome(NamedTuple):
    """What became of a batch: for each call its body or its error; seconds spent in each step."""

    answers: list[bytes | ServingError]
    content_type: str
    decode: float
    predict: float
    encode: float


def run(model: TensorModel, content_type: str, accept: str, bodies: Sequence[bytes]) -> Outcome:
    """Answer several calls of one content type. Never raises for what a body holds or a model does in Python."""
    began = time.perf_counter()
    content_type = content_type or model.default_content_type  # the container gets such a body untyped (``api/01``)
    try:
        if model.reads is not None:
            codecs.check_read(content_type, model.reads)
        reply = codecs.reply_type(accept, model.default_accept, model.layout)
        together = codecs.decode_rows(bodies, content_type, model.spec) if model.batchable else None
    except ServingError as error:  # neither type depends on a body: it is the answer to them all
        return Outcome([error] * len(bodies), "", 0.0, 0.0, 0.0)
    if together is not None and len(together[0]) <= (model.max_batch_rows or len(together[0])):
        rows, counts = together
        decoded = time.perf_counter()
        try:
            outputs = model.predict(rows)
            predicted = time.perf_counter()
            answers: list[bytes | ServingError] = list(codecs.encode_each(outputs, counts, reply, model.layout))
        except Exception as error:
            if len(bodies) > 1:
                return _one_by_one(model, content_type, reply, bodies)
            answers, predicted = [failure(error)], time.perf_counter()
        done = time.perf_counter()
        return Outcome(answers, reply, decoded - began, predicted - decoded, done - predicted)
    return _one_by_one(model, content_type, reply, bodies)


def _one_by_one(model: TensorModel, content_type: str, reply: str, bodies: Sequence[bytes]) -> Outcome:
    answers: list[bytes | ServingError] = []
    spent = [0.0, 0.0, 0.0]
    for body in bodies:
        marks = [time.perf_counter()]
        try:
            decoded = (codecs.decode_strictly if model.strict else codecs.decode)(body, content_type, model.spec)
            if decoded is None:
                answers.append(b"")
                continue
            marks.append(time.perf_counter())
            outputs = _predict(model, decoded)
            marks.append(time.perf_counter())
            answers.append(codecs.encode(outputs, reply, model.layout))
        except Exception as error:
            answers.append(failure(error))
        marks.append(time.perf_counter())
        for step, (start, end) in enumerate(pairwise(marks)):
            spent[step] += end - start
    return Outcome(answers, reply, *spent)


def _predict(model: TensorModel, decoded: Decoded) -> Outputs:
    """Predict a decoded call, in pieces where the model takes a bounded number of rows."""
    most = model.max_batch_rows
    if most is None or decoded.rows <= most:
        return model.predict(decoded.inputs)
    pieces = [model.predict(_rows(decoded.inputs, at, at + most)) for at in range(0, decoded.rows, most)]
    first = pieces[0]
    if isinstance(first, dict):
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in first}
    return np.concatenate(pieces)  # type: ignore[arg-type]


def _rows(inputs: np.ndarray | dict[str, np.ndarray], start: int, end: int) -> np.ndarray | dict[str, np.ndarray]:
    if isinstance(inputs, dict):
        return {name: array[start:end] for name, array in inputs.items()}
    return inputs[start:end]


def failure(error: BaseException) -> ServingError:
    """Whatever a model or codec raised, as an error of our tree with one clean sentence. Never raises: an exception of
    a model's own may fail even when it is asked for its text. The result holds no traceback, so none of the memory
    that the model's frames hold."""
    try:
        known = error if isinstance(error, ServingError) else _failure(error)
    except Exception:
        known = PredictionFailed(f"the model failed: {type(error).__name__}")
    known.__traceback__ = known.__cause__ = known.__context__ = None
    return known


def _failure(error: BaseException) -> ServingError:
    if is_out_of_memory(error):
        return OutOfMemory("the model ran out of memory on this input")
    if isinstance(error, RecursionError):
        return BadInput("the body is nested too deeply")
    if not isinstance(error, Exception):
        return PredictionFailed(f"the model tried to end its worker: {type(error).__name__}")
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status <= 599:
        return ModelError(first_line(error), status)
    return PredictionFailed(f"the model failed: {type(error).__name__}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, bounded, without host paths; its class's name when it will not say."""
    try:
        return said(error)
    except Exception:
        return type(error).__name__
