"""How many calls a variant holds, and of which model. Pure; the clock is an argument.

A call is refused at once rather than accepted and failed later: when the queue is full, when bodies take too much
memory, or when at the present pace it would be answered too late. Of a multi-model variant's queue a model may take as
much as is left free (dynamic thresholds, Choudhury and Hahne 1998): one busy model gets half of it, two a third each;
and there is always room for another.
"""

from __future__ import annotations

#: Bytes of the bodies that a variant holds.
MOST_BYTES = 256 * 2**20
#: Up to so many calls, nothing is looked at.
_FEW = 64
_PATIENCE = 0.8
_SHORTEST_RETRY, _LONGEST_RETRY = 0.1, 5.0


class Flow:
    """The calls of one model: waiting and running, answered since the last sweep, answered per second."""

    __slots__ = ("answered", "model", "pending", "rate")

    def __init__(self, model: str) -> None:
        self.model = model
        self.pending = 0
        self.answered = 0
        self.rate = 0.0

    @property
    def wait(self) -> float:
        """Seconds until a call that comes now is answered, as far as is known."""
        return self.pending / self.rate if self.rate else 0.0


class Admission:
    """The books of one variant's queue."""

    def __init__(self, most: int, many_models: bool, most_bytes: int = MOST_BYTES) -> None:
        """``most``: calls waiting and running at once; ``most_bytes``: of their bodies. With fewer than ``few`` of them
        and no ``bytes`` to speak of, ``refusal`` need not be asked."""
        self.pending = 0
        self.bytes = 0
        self._most = most
        self._most_bytes = most_bytes
        self.few = min(_FEW, most // 2)
        self._many_models = many_models
        self._flows: dict[str, Flow] = {}
        self._swept_at: float | None = None

    def refusal(self, model: str, size: int, remaining: float) -> float | None:
        """None when a call of ``size`` bytes may enter; else how many seconds to wait before trying again.
        ``remaining``: seconds until its deadline."""
        flow = self._flows.get(model) or Flow(model)
        full = self.pending >= self._most or self.bytes + size > self._most_bytes
        if self._many_models and self.pending >= self.few:
            full |= flow.pending >= self._most - self.pending
        if full or flow.wait > _PATIENCE * remaining:
            return min(max(flow.wait, _SHORTEST_RETRY), _LONGEST_RETRY)
        return None

    def enter(self, model: str, size: int) -> Flow:
        """A call has been accepted; ``size``: bytes of its body, if they are worth counting."""
        flow = self._flows.get(model)
        if flow is None:
            flow = self._flows[model] = Flow(model)
        flow.pending += 1
        self.pending += 1
        self.bytes += size
        return flow

    def leave(self, flow: Flow, size: int) -> None:
        """It has been answered, or has left."""
        flow.pending -= 1
        flow.answered += 1
        self.pending -= 1
        self.bytes -= size

    def begun(self, flow: Flow, size: int) -> Flow:
        """A call has begun to be answered in parts: its model's pace is known, its body gone, but it keeps its place
        until its end. Returns the flow to leave by."""
        self.leave(flow, size)
        self.pending += 1
        lasting = Flow(flow.model)
        lasting.pending = 1
        return lasting

    def sweep(self, now: float) -> None:
        """Now and then: measure how fast each model's calls are answered; forget models that nobody calls."""
        elapsed = 0.0 if self._swept_at is None else now - self._swept_at
        self._swept_at = now
        for flow in list(self._flows.values()):
            if not flow.pending:
                del self._flows[flow.model]
            elif elapsed > 0:
                rate = flow.answered / elapsed
                flow.rate = 0.7 * flow.rate + 0.3 * rate if flow.rate else rate
            flow.answered = 0
