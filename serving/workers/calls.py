"""What a front reads off its calls and their answers. Pure."""

from __future__ import annotations

import mmap

from serving import errors
from serving.errors import ObjectUnavailable, ServingError, WorkerDied
from serving.types import Invocation
from serving.workers import cells, sessions, wire
from serving.workers.channel import Call


def with_extras(kind: tuple[str, str, str], invocation: Invocation) -> bytes:
    """Meta with the headers that differ from call to call."""
    attributes, inference, session = invocation.custom_attributes, invocation.inference_id, invocation.session_id
    return wire.pack_meta(*kind, (attributes, inference, session, invocation.request_id))


def is_settled(call: Call) -> bool:
    """Can no other worker answer this call?"""
    return call.parts is not None or sessions.is_bound(call.invocation.session_id)


def may_have_run(call: Call, suspect: cells.Busy) -> bool:
    """Was this call in what ended the worker? Exactly known for a call that ran alone; of a batch, every call of the
    model may have been, but for those that wait to run alone; a load is for all of them."""
    if cells.model_key(call.invocation.target_model) != suspect.model:
        return False
    if suspect.state == cells.LOADING:
        return True
    return call.id == suspect.call if suspect.call else not call.alone


def is_whole(body: bytes) -> bool:
    """Can all of a body still be sent? The file under a mapped one may have been cut: the system then refuses to write
    it, and would each time, for its neighbours on the connection too."""
    return not isinstance(body, mmap.mmap) or body.size() >= len(body)


def orphaned(call: Call) -> ServingError | None:
    """What to answer a call whose worker has ended, or whose connection has; None when another may try. Who has seen
    part of an answer must not see another's."""
    if not is_whole(call.invocation.body):
        return ObjectUnavailable("It was cut while it was being read.", transient=False)
    if call.parts is not None:
        return WorkerDied("The worker ended while it streamed this answer.")
    if call.strikes and sessions.is_bound(call.invocation.session_id):
        return WorkerDied("The worker ended while it ran this call, and its sessions with it.")
    if call.strikes > call.invocation.retries:
        return WorkerDied("The worker ended while it ran this call, and again when it was retried.")
    return None


def error_of(answer: wire.Answer) -> ServingError:
    """The error that a frame carries."""
    name, _, status = answer.meta.decode().partition("\0")
    kind = errors.BY_NAME.get(name, errors.InternalFailure)
    text = answer.body.decode("utf-8", "replace")
    return kind(text, int(status)) if issubclass(kind, errors.ModelError) else kind(text)


_heads: dict[bytes, tuple[str, tuple[tuple[str, str], ...]]] = {}


def reply_head(meta: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Content type and model-set headers of a reply; the few that repeat are kept parsed."""
    known = _heads.get(meta)
    if known is not None:
        return known
    content_type, *lines = meta.decode("latin-1").split("\0")
    headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
    if not headers and len(_heads) < 1024:
        _heads[meta] = (content_type, headers)
    return content_type, headers
