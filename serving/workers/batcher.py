"""Which waiting calls are predicted together. Pure: queues in, a batch out; the clock is an argument.

Natural batching: a batch is whatever waits when the model is free; nothing ever waits for a batch to fill. While one
batch runs, the next gathers in the queue and in the sockets.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from serving.workers.wire import Meta

#: This many calls within the time a batch may last make a call cheap.
_CHEAP = 16
#: Company must cost less than this part of a call alone.
_GAIN = 0.8
#: Batches between two trials of company.
_TRY = 64


class Call:
    """A call waiting in a worker. ``channel`` is the connection it came by; ``arrived`` when its frame was read;
    ``alone``: it may be what ended its first worker, so it runs with no other; ``stream``: what is known of its answer
    if that may go out in parts (``streams.py``)."""

    __slots__ = (
        "alone",
        "arrived",
        "body",
        "cancelled",
        "channel",
        "deadline",
        "hit",
        "id",
        "load",
        "meta",
        "sent",
        "stream",
    )

    def __init__(
        self, channel: Any, id: int, deadline: float, sent: float, arrived: float, meta: Meta, body: bytes, alone: bool
    ) -> None:
        self.channel = channel
        self.id = id
        self.deadline = deadline
        self.sent = sent
        self.arrived = arrived
        self.meta = meta
        self.body = body
        self.alone = alone
        self.cancelled = False
        self.hit = True
        self.load = 0.0
        self.stream: Any = None


class Pace:
    """What a call of one model has cost of late, alone and in company, in seconds; so, how many to predict together.

    Cheap calls always gain by company: the work around them is shared. Dear ones gain only where the model says so (a
    GPU does, a convolution on two cores does not), and everybody in a batch waits for its end: they are answered
    singly unless company, tried now and then, has proved a fifth cheaper.
    """

    __slots__ = ("_turn", "alone", "together")

    def __init__(self) -> None:
        self.alone = 0.0
        self.together = 0.0
        self._turn = 0

    @property
    def cost(self) -> float:
        """A call's cost as it is predicted now; 0 while nobody knows."""
        return self.together or self.alone

    def note(self, calls: int, seconds: float) -> None:
        """A batch of so many calls took so long."""
        cost = seconds / calls
        if calls == 1:
            self.alone = _smooth(self.alone, cost)
        else:
            self.together = _smooth(self.together, cost)

    def most(self, limit: int, lasting: float) -> int:
        """Calls to predict together, at most ``limit``; a batch should last ``lasting`` seconds at most."""
        alone = self.alone
        if not alone:
            return 1
        if self.cost * limit <= lasting or alone * _CHEAP <= lasting:
            return max(1, min(limit, int(lasting / self.cost)))
        if self.together and self.together < _GAIN * alone:
            return min(limit, max(2, int(max(lasting, 4 * alone) / self.together)))
        self._turn += 1
        return 1 if self._turn % _TRY else min(limit, 4)


def _smooth(old: float, new: float) -> float:
    return 0.8 * old + 0.2 * new if old else new


class Line:
    """The calls waiting for one model."""

    __slots__ = ("busy", "calls", "model")

    def __init__(self, model: str) -> None:
        self.model = model
        self.calls: deque[Call] = deque()
        self.busy = False


class Lines:
    """All lines of a worker, served in turn: a model with a thousand calls waiting gets one batch, then goes to the
    back, so that a busy model cannot starve the others."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._ready: OrderedDict[str, Line] = OrderedDict()
        self.waiting = 0

    def add(self, call: Call) -> Line:
        """Queue a call behind the others of its model."""
        model = call.meta.model
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = Line(model)
        line.calls.append(call)
        self.waiting += 1
        return line

    def offer(self, line: Line) -> None:
        """The model is in memory and free: its line may be served."""
        if line.calls and not line.busy:
            self._ready[line.model] = line

    @property
    def ready(self) -> bool:
        """Can a line be served now?"""
        return bool(self._ready)

    def next(self) -> Line | None:
        """The line whose turn it is, marked busy; None when nothing can be served."""
        if not self._ready:
            return None
        line = self._ready.popitem(last=False)[1]
        line.busy = True
        return line

    def done(self, line: Line) -> None:
        """A batch of this line has been answered: it may have another turn, behind the others."""
        line.busy = False
        if line.calls:
            self._ready[line.model] = line
        elif self._lines.get(line.model) is line:
            del self._lines[line.model]

    def take_all(self, model: str) -> list[Call]:
        """Remove and return every call waiting for a model (its load failed, or it is leaving)."""
        line = self._lines.pop(model, None)
        self._ready.pop(model, None)
        if line is None:
            return []
        calls = list(line.calls)
        line.calls.clear()
        self.waiting -= len(calls)
        return calls

    def late(self, model: str, before: float) -> list[Call]:
        """Remove and return the calls at the front of a model's line whose deadline is earlier than ``before``."""
        line = self._lines.get(model)
        late: list[Call] = []
        if line is not None:
            while line.calls and line.calls[0].deadline < before:
                late.append(line.calls.popleft())
            self._shortened(line, len(late))
        return late

    def drop(self, call: Call) -> bool:
        """The caller has left: take the call out, with its body. False when it no longer waits (it runs)."""
        line = self._lines.get(call.meta.model)
        if line is None or call not in line.calls:
            return False
        line.calls.remove(call)
        self._shortened(line, 1)
        return True

    def _shortened(self, line: Line, by: int) -> None:
        self.waiting -= by
        if not line.calls and not line.busy:
            del self._lines[line.model]
            self._ready.pop(line.model, None)

    def line(self, model: str) -> Line | None:
        """The line of a model, if any call waits or runs."""
        return self._lines.get(model)

    def first(self, line: Line) -> Call:
        """Take out the call at the front of a line that is busy with it from now on."""
        self.waiting -= 1
        return line.calls.popleft()

    def take(self, line: Line, now: float, most_calls: int, most_bytes: int) -> list[Call]:
        """Form a batch: calls from the front of the line while they share content type and accept with the first, at
        most ``most_calls`` and ``most_bytes`` of bodies (always at least one call); or one that must be alone. Calls
        whose caller left or whose deadline has passed are dropped here: nobody waits for their answer."""
        calls, size = line.calls, 0
        batch: list[Call] = []
        kind: Meta | None = None
        while calls:
            call = calls[0]
            if call.cancelled or call.deadline < now:
                calls.popleft()
                self.waiting -= 1
                call.channel.calls.pop(call.id, None)
                continue
            if kind is None:
                kind = call.meta
                if call.alone:
                    most_calls = 1
            elif call.alone or (call.meta is not kind and call.meta[:2] != kind[:2]):
                break
            size += len(call.body)
            if batch and (size > most_bytes or len(batch) >= most_calls):
                break
            batch.append(call)
            calls.popleft()
        self.waiting -= len(batch)
        return batch
