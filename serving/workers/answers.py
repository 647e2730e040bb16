"""A batch of calls through its model, as frames for the fronts. Nothing a model does or returns gets past here but as
an answer or an error; only what ends the process does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from time import monotonic, time

from serving import errors
from serving.errors import OutOfMemory, PredictionFailed, ServingError
from serving.runtimes.base import Model, ScriptCall, ScriptModel, TensorModel
from serving.workers import pipeline, wire
from serving.workers.batcher import Call
from serving.workers.sessions import Sessions, is_bound, unknown

#: A call and its answer; empty for one that will be given in parts.
Framed = tuple[Call, bytes]
#: Told of a call that found no memory: is that the worker's fault rather than the call's?
IsSpoiled = Callable[[Call], bool]

log = logging.getLogger("serving.worker")


def of(model: Model, batch: list[Call], began: float, sessions: Sessions, is_spoiled: IsSpoiled) -> list[Framed]:
    """Run the model over a batch: a frame for each call."""
    try:
        if isinstance(model, TensorModel):
            return _of_tensors(model, batch, began, is_spoiled)
        return [(call, _of_script(model, call, monotonic(), sessions, is_spoiled)) for call in batch]
    except BaseException as error:  # a SystemExit must not end the worker in silence
        log.exception("a model failed")
        failure = pipeline.failure(error)
    return [(call, _failed(call, failure, is_spoiled)) for call in batch]


def _of_tensors(model: TensorModel, batch: list[Call], began: float, is_spoiled: IsSpoiled) -> list[Framed]:
    meta = batch[0].meta
    outcome = pipeline.run(model, meta.content_type, meta.accept, [call.body for call in batch])
    meta_out = outcome.content_type.encode("latin-1")
    decode, predict, encode = map(wire.micros, (outcome.decode, outcome.predict, outcome.encode))
    frames, calls, pack, micros = [], len(batch), wire.pack_answer, wire.micros
    for call, answer in zip(batch, outcome.answers, strict=True):
        if call.meta.extras and is_bound(call.meta.session_id):
            answer = unknown(call.meta.session_id)  # arrays remember nothing
        if isinstance(answer, bytes) and len(answer) <= wire.MAX_REPLY:
            load = call.load
            spent = (micros(began - call.sent - load), micros(load) if load else 0, decode, predict, encode)
            frames.append((call, pack(wire.REPLY, call.hit, call.id, spent, calls, meta_out, answer)))
        else:
            error = answer if isinstance(answer, ServingError) else _too_long()
            frames.append((call, _failed(call, error, is_spoiled)))
    return frames


def _script_call(call: Call, session: str) -> ScriptCall:
    meta = call.meta
    extras = (*meta.extras, "", "", "", "")
    return ScriptCall(
        call.body,
        meta.content_type or "application/octet-stream",
        meta.accept or "*/*",
        custom_attributes=extras[0],
        inference_id=extras[1],
        session_id=session,
        request_id=extras[3],
        target_model=meta.model,
    )


def _of_script(model: ScriptModel, call: Call, began: float, sessions: Sessions, is_spoiled: IsSpoiled) -> bytes:
    try:
        session = sessions.enter(model, call.meta.session_id, time())
        reply = model.transform(_script_call(call, session))
        chunks, content_type, headers, body = reply.chunks, reply.content_type, reply.headers, reply.body
        if chunks is not None:
            if call.stream is not None:
                call.stream.chunks, call.stream.session = chunks, session
                return b""
            body = _joined(chunks)
            content_type, headers = chunks.content_type, chunks.headers
        if len(body) > wire.MAX_REPLY:
            raise _too_long()
        meta_out = reply_meta(content_type, sessions.told(model, session, headers, time()))
    except Exception as error:
        if not isinstance(error, ServingError):
            log.exception("a script model failed")
        failure = pipeline.failure(error)
    else:
        spent = wire.micros(monotonic() - began)
        times = (wire.micros(began - call.sent - call.load), wire.micros(call.load), 0, spent, 0)
        return wire.pack_answer(wire.REPLY, call.hit, call.id, times, 1, meta_out, body)
    return _failed(call, failure, is_spoiled)  # out here the exception has gone, and with it what its frames held


def _joined(chunks: Iterable[bytes]) -> bytes:
    parts, size = [], 0
    for chunk in chunks:
        size += len(chunk)
        if size > wire.MAX_REPLY:
            raise _too_long()
        parts.append(chunk)
    return b"".join(parts)


def reply_meta(content_type: str, headers: Mapping[str, str]) -> bytes:
    """Content type and headers as a frame's meta. What a model puts in them is cleaned where they become HTTP; here
    only the separator must not appear. Raises ``PredictionFailed`` when they are too long."""
    lines = (f"{name}: {value}" for name, value in headers.items())
    meta = "\0".join(text.replace("\0", "") for text in (str(content_type), *lines))
    if len(meta) > wire.MAX_META:
        raise PredictionFailed("the model's response headers are too long")
    return meta.encode("latin-1", "replace")


def _too_long() -> ServingError:
    return PredictionFailed(f"the model's answer is longer than {wire.MAX_REPLY} bytes")


def _failed(call: Call, error: ServingError, is_spoiled: IsSpoiled) -> bytes:
    moved = isinstance(error, OutOfMemory) and is_spoiled(call) and (not call.alone or call.stream is not None)
    return error_frame(call.id, error, call.hit, wire.MOVED if moved else wire.ERROR)


def error_frame(id: int, error: ServingError, hit: bool = False, kind: int = wire.ERROR) -> bytes:
    """An error as a frame: its nearest class that may cross the border, its status, its sentence."""
    name = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in errors.BY_NAME), "InternalFailure")
    meta = f"{name}\0{getattr(error, 'original_status', 500)}".encode()
    text = error.message.encode("utf-8", "backslashreplace")
    return wire.pack_answer(kind, hit, id, (0, 0, 0, 0, 0), 0, meta, text)
