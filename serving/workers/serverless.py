"""The front's side of a serverless variant: calls bring workers, each of which takes one call at a time.

::

    submit ──► beyond MaxConcurrency: refused at once (ThrottlingException)
       ├─ a worker is free ──► sent
       └─ none is ──► waits for the next that is; control hears how many calls there are, and starts workers
              └─ longer than the hold ──► refused (ModelNotReadyException)

A call's time to run begins when it has a worker (``behaviour/11``: a cold start does not count).
"""

from __future__ import annotations

import math
import time
from typing import Any

from serving import errors
from serving.errors import ModelNotReady, OutOfMemory, ServingError, Throttled, ValidationError
from serving.types import Invocation, Reply
from serving.workers import sessions
from serving.workers.channel import Call, Channel, Done
from serving.workers.elastic import event
from serving.workers.places import ALONE, Places
from serving.workers.pool import Pool

#: The largest body of a call (SageMaker Developer Guide, serverless endpoints).
LARGEST_BODY = 4 * 2**20
#: A worker that another front has made busy is looked at again so soon.
_LOOK_SECONDS = 0.025
#: Control hears that nothing has changed so often, while there are calls: it may be another control by now.
_REMIND_SECONDS = 1.0


class ServerlessPool(Pool):
    """Workers of a serverless variant. ``most``: calls at a time in all ``places``. The oldest workers are used
    first, so that the youngest are idle first, which are the first to go."""

    most = 1
    _holds = False
    _told = 0
    _told_at = 0.0
    _peak = 0
    _telling = False
    _looking = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.places = Places(ALONE, self.key.generation)
        self._fresh: set[str] = set()

    def submit(self, invocation: Invocation, done: Done) -> Call:
        """As ``Pool.submit``. Raises also ``Throttled`` beyond ``most`` calls at a time."""
        if len(invocation.body) > LARGEST_BODY:
            raise ValidationError(f"The body is larger than {LARGEST_BODY} bytes, the most for a serverless endpoint.")
        if not self.places.take(self.most):
            raise Throttled(
                f"Endpoint {self.endpoint} has {self.most} calls at a time, its MaxConcurrency. Please retry."
            )
        self._peak = max(self._peak, self.pending + 1)
        if self._peak > self._told:
            self._tell_soon()
        try:
            return super().submit(invocation, done)
        except ServingError:
            self.places.give()
            raise

    # -- placing --------------------------------------------------------------------------------------------------

    def _place(self, call: Call, now: float) -> None:
        if self._quarantine or self._held or sessions.is_bound(call.invocation.session_id):
            super()._place(call, now)
            return
        channel = self._free(call)
        if channel is not None:
            self._send(call, channel, now)
        else:
            self._park(call)

    def _free(self, call: Call) -> Channel | None:
        """A worker with nothing to do, for all that can be seen: other fronts' calls show in its cell."""
        for channel in self.ready:
            if not channel.pending and channel is not call.avoid and not (self.fronts > 1 and channel.cell.is_busy()):
                return channel
        return None

    def _park(self, call: Call) -> None:
        if not self.hold:
            self._finish(call, self.no_capacity())
            return
        super()._park(call)
        if call.parked:
            call.deadline = math.inf
            self._waiting.add(call, self.hold, time.monotonic())
            if self.fronts > 1:
                self.loop.call_later(_LOOK_SECONDS, self._look_soon)

    def _send(self, call: Call, channel: Channel, now: float) -> None:
        worker = channel.address.worker_id
        if call.deadline == math.inf:
            call.deadline = now + (call.invocation.deadline - call.started)
            call.invocation = call.invocation._replace(deadline=call.deadline)
            self._waiting.remove(call)
            if worker in self._fresh:
                self._metrics.set_up(now - call.started)
        self._fresh.discard(worker)
        super()._send(call, channel, now)

    def on_connected(self, channel: Channel) -> None:
        """As ``Pool.on_connected``."""
        if not channel.retiring:
            self._fresh.add(channel.address.worker_id)
        super().on_connected(channel)

    def _waited(self, call: Call, now: float) -> None:
        """``_send`` sees to it."""

    def _leave(self, channel: Channel) -> None:
        self._fresh.discard(channel.address.worker_id)
        super()._leave(channel)

    def no_capacity(self) -> ServingError:
        """What a call is told that has waited long enough for a worker."""
        return ModelNotReady(f"Endpoint {self.endpoint} is starting a worker for this call. Please try again.")

    def _release(self, call: Call) -> None:
        super()._release(call)
        self.places.give()
        self._look_soon()

    def _finish(self, call: Call, result: Reply | ServingError) -> None:
        if isinstance(result, OutOfMemory):  # its container would have been ended (behaviour/11)
            result.original_status = errors.ModelError.original_status
        super()._finish(call, result)

    def _look_soon(self) -> None:
        """A worker may be free: the call that has waited longest has it, at the end of this tick."""
        if self._parked and not self._looking:
            self._looking = True
            self.loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking, now = False, time.monotonic()
        while self._parked and self._free(self._parked[0]) is not None:
            call = self._parked.popleft()
            call.parked = False
            self._place(call, now)
        if self._parked and self.fronts > 1:
            self.loop.call_later(_LOOK_SECONDS, self._look_soon)

    # -- what control hears ---------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """As ``Pool.sweep``; control hears of fewer calls."""
        super().sweep(now)
        self._look_soon()
        peak, self._peak = self._peak, self.pending
        if peak != self._told or (peak and now - self._told_at > _REMIND_SECONDS):
            self._tell_control(peak, now)

    def _tell_soon(self) -> None:
        if not self._telling:
            self._telling = True
            self.loop.call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self._telling = False
        self._tell_control(self._peak, time.monotonic())

    def _tell_control(self, peak: int, now: float) -> None:
        self._told, self._told_at = peak, now
        self.on_scaling(event("demand", self.key, generation=self.key.generation, pending=peak))
