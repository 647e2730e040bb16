"""Stateful sessions: which calls belong to one worker because its model remembers something (``behaviour/02``).

A model that is asked for a ``NEW_SESSION`` answers with an id and when it expires. The caller gets that id with two
words more: a seal, so that nobody guesses another's session, and the worker's name, so that every front, also one that
has just started, knows where to send the next call. The worker alone knows which sessions are open. A worker that ends
takes its sessions with it, and so does a model that leaves its memory: calls of theirs are refused, never answered by
another that knows nothing of them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from serving.errors import PredictionFailed, Throttled, ValidationError
from serving.runtimes.base import ScriptModel

#: The session id of a call that asks the model to open a session.
NEW_SESSION = "NEW_SESSION"
#: Sessions a model holds open at once in one worker.
MOST = 10_000
#: Of the id and its expiry together (SageMaker Runtime API, NewSessionId).
_LONGEST = 256
_NEW, _PLAIN, _CLOSED = (f"x-amzn-sagemaker-{name}-id" for name in ("new-session", "session", "closed-session"))
_ID = r"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*"
_OPENED = re.compile(rf"\s*({_ID})\s*;\s*Expires=(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{{1,9}})?Z\s*", re.ASCII)


def is_bound(session_id: str) -> bool:
    """Does a call with this session id belong to one worker?"""
    return bool(session_id) and session_id != NEW_SESSION


def worker_of(session_id: str) -> str:
    """The worker that a session says it belongs to."""
    return session_id.rpartition("-")[2]


def unknown(session_id: str) -> ValidationError:
    """What the caller is told of a session that cannot go on."""
    return ValidationError(f"Session {session_id} is not open: it is unknown, has expired, was closed or has ended.")


class Sessions:
    """The open sessions of one worker, by model. May be used from any thread."""

    def __init__(self, worker_id: str) -> None:
        self._worker = worker_id
        self._secret = os.urandom(16)
        self._lock = threading.Lock()
        self._open: WeakKeyDictionary[ScriptModel, dict[str, float]] = WeakKeyDictionary()

    def enter(self, model: ScriptModel, session_id: str, now: float) -> str:
        """The model's own name of a caller's session (nothing and NEW_SESSION are themselves). ``now``: epoch seconds.
        Raises ``ValidationError`` for one that is not open."""
        if not is_bound(session_id):
            return session_id
        inner = session_id.rsplit("-", 2)[0]
        with self._lock:
            expires = self._open.get(model, {}).get(inner)
            if expires is None or not hmac.compare_digest(self._public(inner), session_id):
                raise unknown(session_id)
            if expires <= now:
                del self._open[model][inner]
                raise unknown(session_id)
        return inner

    def told(self, model: ScriptModel, asked: str, headers: Mapping[str, str], now: float) -> Mapping[str, str]:
        """A model's response headers as the caller may see them: sessions under their public names, opened and closed
        here. ``asked``: the session the call was of. Raises ``PredictionFailed`` for a new session's id or expiry that
        is none, ``Throttled`` when there are too many."""
        found = {name.lower(): name for name in headers if name.lower() in (_NEW, _PLAIN, _CLOSED)}
        if not found:
            return headers
        seen = {name: value for name, value in headers.items() if name not in found.values()}
        closed = headers[found[_CLOSED]].strip() if _CLOSED in found else ""
        if re.fullmatch(_ID, closed):
            with self._lock:
                self._open.get(model, {}).pop(closed, None)
            seen[found[_CLOSED]] = self._public(closed)[:_LONGEST]
        opening = found.get(_NEW) or found.get(_PLAIN)
        if asked == NEW_SESSION and opening is not None:
            seen[opening] = self._opened(model, headers[opening], now)
        return seen

    def _opened(self, model: ScriptModel, value: str, now: float) -> str:
        parsed = _OPENED.fullmatch(value)
        if parsed is None:
            raise PredictionFailed("the model's session id is not of the form ID; Expires=yyyy-mm-ddThh:mm:ssZ")
        inner, moment = parsed[1], parsed[2]
        public = f"{self._public(inner)}; Expires={moment}Z"
        if len(public) > _LONGEST:
            raise PredictionFailed("the model's session id is too long")
        try:
            expires = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise PredictionFailed("the model's session expires at no time that exists") from None
        with self._lock:
            self._note(model, inner, expires, now)
        return public

    def _note(self, model: ScriptModel, inner: str, expires: float, now: float) -> None:
        table = self._open.setdefault(model, {})
        if len(table) >= MOST:
            for name in [name for name, end in table.items() if end <= now]:
                del table[name]
        if len(table) >= MOST:
            raise Throttled(f"The model holds {MOST} open sessions. Please retry.")
        table[inner] = expires

    def _public(self, inner: str) -> str:
        seal = hashlib.blake2b(inner.encode(), key=self._secret, digest_size=6).hexdigest()
        return f"{inner}-{seal}-{self._worker}"
