"""Who may look on while a call is answered, and what he is told. ``Endpoint.invoke`` is where everybody looks from.

An observer sees each call of an endpoint once, as a variant takes it, and may hear its end. It never changes either,
and whatever it fails in is its own affair: the caller's answer does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from serving.errors import ServingError
from serving.types import Invocation, Reply

#: What hears of an answer, once. A ``Reply`` whose ``rest`` is there is only the first part of a streamed one.
Done = Callable[[Reply | ServingError], None]


class Observer(Protocol):
    """One who looks on (data capture, tracing)."""

    def begin(self, invocation: Invocation, variant: str, done: Done) -> Done:
        """A call is about to be given to ``variant`` (which refuses it perhaps: then nobody hears its end). Returns who
        is to hear its answer: ``done`` itself, or something that calls it first and then looks at what it was told.
        Raises nothing."""
        ...
