"""Shadow variants: who gets a copy of a call, how many at a time, and what both answers' times tell (``behaviour/02``).

The caller's answer comes from production alone. When that is on its way (on few cores, not a moment before: a copy that
ran beside its own call would slow it down) a copy of the call goes into a bounded queue, which is emptied between the
turns of the event loop, a few copies at a time. The copy of a call whose caller has left before is not made. A shadow
holds at most ``MOST_CALLS`` copies and ``MOST_BYTES`` of their bodies; what comes while it is full is dropped and
counted. So a shadow that is slow, hangs, crashes or has gone costs production neither time nor memory nor room in its
queue, and nobody hears of it but those who look on (data capture, tracing), who see the copy under the shadow's name
with the request id and inference id of the call. Its workers give way to production's where processors are short
(``fleet/resolve.py``), so that its times are only to be compared where they are not.

Copies are plain calls: of a streamed call too, whose copy leaves with the first part and is answered whole. Calls of a
session are not copied: the state they speak of is in one production worker. Nor are calls that are tried again after
they had ended a worker.

Of each call that both answered plainly, the difference d of their times (from acceptance to the whole answer) is kept
as moments: n, the sums P and S of production's and the shadow's seconds, and Q, the sum of d². Then with
m = (S - P) / n and s² = (Q - n·m²) / (n - 1), m ± z·s/√n is the confidence interval of the mean difference of pairs.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from serving.errors import ServingError
from serving.types import Invocation, Reply
from serving.watch.metrics import Counter, Registry
from serving.watch.observing import Done, Observer
from serving.workers.chain import Chain, Ticket
from serving.workers.pool import Pool
from serving.workers.sides import Target

#: Copies that a shadow holds at once in one process, queued and running, and bytes of their bodies. A larger body is
#: taken when there is no other.
MOST_CALLS, MOST_BYTES = 256, 64 * 2**20
#: Copies sent on in one turn of the loop: a burst must not make the next call wait.
_AT_ONCE = 8

log = logging.getLogger("serving.front")


def share(weight: float, production: float) -> float:
    """The part of the calls that a shadow of this weight gets, beside production variants of this weight together:
    min(1, shadow weight / production weight) (``behaviour/02``). Production may have none: all its calls are named."""
    if not weight:
        return 0.0
    return min(1.0, weight / production) if production else 1.0


def lot(request_id: str) -> float:
    """The draw of a call, uniform in [0, 1): always the same for the same id, whoever asks. Shadows of one endpoint
    draw the same lot, so that the calls of a smaller share are among those of a larger one."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2.0**48


class Moments(NamedTuple):
    """The counters of the pairs of one production and one shadow variant (the formula is above)."""

    pairs: Counter
    production: Counter
    shadow: Counter
    squares: Counter

    def add(self, production: float, shadow: float) -> None:
        """Count a call that took so many seconds in each."""
        self.pairs.add()
        self.production.add(production)
        self.shadow.add(shadow)
        self.squares.add((shadow - production) ** 2)


class Shadow:
    """One shadow variant as a process that sends calls sees it."""

    def __init__(self, endpoint: str, variant: str, target: Pool | Chain, registry: Registry) -> None:
        self.variant = variant
        self.target = target
        self.share = 0.0
        self.calls = 0
        self.bytes = 0
        self.dropped = registry.counter("sagemaker_shadow_dropped_total", endpoint, variant)
        self._labels = (endpoint, variant)
        self._registry = registry
        self._moments: dict[str, Moments] = {}

    def work_by(self, target: Pool | Chain, share: float) -> None:
        """Send copies there, to this part of the calls, from now on."""
        self.target, self.share = target, share
        self._moments = {}  # of production variants that may have gone

    def moments(self, production: str) -> Moments:
        """What is counted of pairs with this production variant."""
        known = self._moments.get(production)
        if known is None:
            labels, counter = (*self._labels, production), self._registry.counter
            known = self._moments[production] = Moments(
                counter("sagemaker_shadow_pairs_total", *labels),
                counter("sagemaker_shadow_pair_seconds_total", *labels, "production"),
                counter("sagemaker_shadow_pair_seconds_total", *labels, "shadow"),
                counter("sagemaker_shadow_pair_squared_difference_total", *labels),
            )
        return known

    def enter(self, size: int) -> bool:
        """Is there room for a copy with a body of so many bytes? Then it has it until it leaves."""
        if self.calls >= MOST_CALLS or (self.calls and self.bytes + size > MOST_BYTES):
            return False
        self.calls += 1
        self.bytes += size
        return True

    def leave(self, size: int) -> None:
        """Its copy has been answered."""
        self.calls -= 1
        self.bytes -= size


class Copy:
    """One call's copy for one shadow."""

    __slots__ = ("_invocation", "_moments", "_production", "_shadow")

    def __init__(self, shadow: Shadow, invocation: Invocation, production: float | None, moments: Moments) -> None:
        """``production``: the seconds that it took there; None where no shadow's could be compared with them."""
        self._shadow = shadow
        self._invocation = invocation
        self._production = production
        self._moments = moments

    def enter(self) -> bool:
        """Has the shadow room? If not, that is counted."""
        entered = self._shadow.enter(len(self._invocation.body))
        if not entered:
            self._shadow.dropped.add()
        return entered

    def send(self, observers: Iterable[Observer]) -> None:
        """To the shadow, which has room; whatever it says to that."""
        shadow, invocation = self._shadow, self._invocation
        try:
            if shadow.target.multi_model == bool(invocation.target_model):
                done: Done = self._answered
                for observer in observers:
                    done = observer.begin(invocation, shadow.variant, done)
                shadow.target.submit(invocation, done)
                return
        except ServingError:
            pass  # it is full, out of workers, or knows no such container: counted below
        except Exception:
            log.exception("a copy could not be sent to shadow variant %s", shadow.variant)
        shadow.dropped.add()
        shadow.leave(len(invocation.body))

    def _answered(self, result: Reply | ServingError) -> None:
        self._shadow.leave(len(self._invocation.body))
        if isinstance(result, Reply) and self._production is not None:
            self._moments.add(self._production, result.total)


class Shadows:
    """The shadow variants of one endpoint, and the copies on their way to them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.by_name: dict[str, Shadow] = {}
        self._loop = loop
        self._all: tuple[Shadow, ...] = ()
        self._queue: deque[tuple[Copy, tuple[Observer, ...]]] = deque()

    def set(self, shadows: Mapping[str, Shadow]) -> None:
        """These there are from now on. Copies on their way to others still get there."""
        self.by_name = dict(shadows)
        self._all = tuple(one for one in shadows.values() if one.share)

    def submit(self, target: Target, invocation: Invocation, done: Done, observers: tuple[Observer, ...]) -> Ticket:
        """Give a call to the production variant ``target``, whose answer is for ``done``, and then copies of it to the
        shadows whose lot it is; these are looked at by ``observers``. Raises what production refuses with."""
        chosen = self._chosen(invocation)
        if not chosen:
            return target.submit(invocation, done)
        patience, variant = invocation.deadline - time.monotonic(), target.variant

        def answered(result: Reply | ServingError) -> None:
            done(result)
            took = result.total if isinstance(result, Reply) and not invocation.stream_seconds else None
            whole = _plain(invocation, patience)
            self._take(
                [(Copy(one, whole, took, one.moments(variant)), observers) for one in chosen if one in self._all]
            )

        return target.submit(invocation, answered)

    def _chosen(self, invocation: Invocation) -> Sequence[Shadow]:
        if invocation.session_id or invocation.strikes or not self._all:
            return ()
        drawn = [one for one in self._all if one.share >= 1.0]
        if len(drawn) == len(self._all):
            return drawn
        mine = lot(invocation.request_id)
        return [one for one in self._all if mine < one.share]

    def _take(self, copies: Iterable[tuple[Copy, tuple[Observer, ...]]]) -> None:
        waiting = bool(self._queue)
        self._queue.extend(one for one in copies if one[0].enter())
        if self._queue and not waiting:
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        for _ in range(min(_AT_ONCE, len(self._queue))):
            copy, observers = self._queue.popleft()
            copy.send(observers)
        if self._queue:
            self._loop.call_soon(self._send)


def _plain(invocation: Invocation, patience: float) -> Invocation:
    """The copy of a call: it has as long from now on as the call had (of a streamed one, as the stream had), and its
    answer is wanted whole."""
    seconds = patience + invocation.stream_seconds
    return invocation._replace(deadline=time.monotonic() + seconds, stream_seconds=0.0)
