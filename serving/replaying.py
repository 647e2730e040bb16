"""Captured calls, sent again: to another variant, endpoint or server, at the pace they came or another, and compared.

Calls go out when they are due, whether or not those before have been answered (an open loop, as callers are); only when
``concurrency`` of them are on their way the next one waits, and how late it went is told. Everything streams: records
are read as they are sent, and of answers only what ``monitor/difference.py`` keeps is kept.
"""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from serving.client import Answer, Server, invocation_path, timing
from serving.errors import ConfigError, ServiceUnavailable, ValidationError
from serving.monitor.difference import Comparison, Difference, Pair, finite
from serving.monitor.files import REPLAYED
from serving.monitor.sketches import Quantiles
from serving.monitor.values import Complaints, Record, Side

#: An inference id has 64 characters at most (SageMaker API, InvokeEndpoint).
_LONGEST_ID = 64
#: Calls of one second that are spread over it; capture tells whole seconds.
_MOST_IN_SECOND = 20_000
#: A call that is due so much later than the first is not waited for: its time is a mistake.
_LONGEST_SECONDS = 366 * 86_400.0
_QUANTILES = (0.5, 0.9, 0.99)
_TARGET_MODEL, _TARGET_VARIANT = "X-Amzn-SageMaker-Target-Model", "X-Amzn-SageMaker-Target-Variant"

#: Told of every answer: calls sent, and a few words.
Progress = Callable[[int, str], None]


class Target(NamedTuple):
    """Where calls go: an endpoint, and one of its variants if it is named."""

    endpoint: str
    variant: str = ""


class Limits(NamedTuple):
    """What a replay must keep within; None = whatever it is. ``agreement``: the least share of answers that are the
    same; ``error``: the largest share of calls without an answer of 200; ``latency``: the largest ratio of the median
    latency, replayed to captured."""

    agreement: float | None = None
    error: float | None = None
    latency: float | None = None


class Limit(NamedTuple):
    """One limit, and what there was; None = nothing to hold it against, which is as bad as beyond it."""

    name: str
    limit: float
    value: float | None
    held: bool


@dataclass(slots=True)
class Replay:
    """What became of the calls. ``answered``: with 200; ``latency``: of these, seconds, by the server's own receipt
    where it sends one; ``was``: what capture says they took then; ``late``: how much later than due they were sent."""

    difference: Difference
    complaints: Complaints
    sent: int = 0
    answered: int = 0
    seconds: float = 0.0
    latency: Quantiles = field(default_factory=Quantiles)
    was: Quantiles = field(default_factory=Quantiles)
    late: Quantiles = field(default_factory=Quantiles)

    @property
    def error_rate(self) -> float:
        """The share of calls that failed."""
        return 1 - self.answered / self.sent if self.sent else 0.0

    @property
    def latency_ratio(self) -> float | None:
        """Median latency now, by that of then; None where capture tells no times."""
        now, then = self.latency.at(0.5), self.was.at(0.5)
        return now / then if now is not None and then else None

    def against(self, limits: Limits) -> list[Limit]:
        """The limits that were given, held or not."""
        found = []
        if limits.agreement is not None:
            value = self.difference.agreement
            held = value is not None and value >= limits.agreement
            found.append(Limit("agreement", limits.agreement, value, held))
        if limits.error is not None:
            found.append(Limit("error rate", limits.error, self.error_rate, self.error_rate <= limits.error))
        if limits.latency is not None:
            ratio = self.latency_ratio
            found.append(Limit("latency ratio", limits.latency, ratio, ratio is not None and ratio <= limits.latency))
        return found

    def as_json(self, limits: Limits) -> dict[str, Any]:
        """Everything, the worst examples with their bodies."""
        judged = self.against(limits)
        return {
            "Sent": self.sent,
            "Answered": self.answered,
            "ErrorRate": self.error_rate,
            "Seconds": self.seconds,
            "LatencySeconds": self.latency.as_json(_QUANTILES),
            "CapturedLatencySeconds": self.was.as_json(_QUANTILES),
            "LatencyRatio": self.latency_ratio,
            "LateSeconds": self.late.as_json(_QUANTILES),
            "Difference": self.difference.as_json(bodies=True),
            "Complaints": [one._asdict() for one in self.complaints.all()],
            "Limits": [{**one._asdict(), "value": None if one.value is None else finite(one.value)} for one in judged],
            "Passed": all(one.held for one in judged),
        }


# --- when -----------------------------------------------------------------------------------------------------------


def target(text: str) -> Target:
    """``ENDPOINT`` or ``ENDPOINT/VARIANT``. Raises ``ConfigError``."""
    endpoint, slash, variant = text.partition("/")
    if not endpoint or (slash and not variant) or "/" in variant:
        raise ConfigError(f"{text!r} is no ENDPOINT or ENDPOINT/VARIANT.")
    return Target(endpoint, variant)


def rate(text: str) -> float:
    """``recorded`` is 1, ``2x`` is 2, ``max`` is infinite. Raises ``ConfigError``."""
    if text in ("recorded", "max"):
        return 1.0 if text == "recorded" else math.inf
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{text!r} is no pace; expected recorded, max, or a multiple such as 2x or 0.5x.")
    return value


def schedule(records: Iterable[Record], times: float) -> Iterator[tuple[float, Record]]:
    """Records with when they are due, seconds after the first: at the pace they came, ``times`` as fast. Capture tells
    whole seconds: calls of one are spread over it. One that is out of order is due at once."""
    first: float | None = None
    for second in _seconds(records):
        start = second[0].time
        first = start if first is None else first
        for place, record in enumerate(second):
            yield max(start + place / len(second) - first, 0.0) / times, record


def _seconds(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records of each second."""
    second: list[Record] = []
    for record in records:
        if second and (record.time != second[0].time or len(second) >= _MOST_IN_SECOND):
            yield second
            second = []
        second.append(record)
    if second:
        yield second


# --- what -----------------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A call to be sent, and the record it is made of."""

    record: Record
    body: bytes
    headers: Mapping[str, str]
    model: str


def call(record: Record, to: Target) -> Call:
    """What was captured as a call to ``to``: input, content type, target model, the inference id (the event's where
    there was none) with a suffix; the answer is wanted as it was. Raises ``ValidationError`` for a record without an
    input that can be read."""
    if record.input is None:
        raise ValidationError("a captured call without its input")
    body = record.input.body
    model = record.metadata.get("targetModel")
    model = model if isinstance(model, str) else ""
    wanted = {
        "Content-Type": record.input.content_type,
        "Accept": record.output.content_type.partition(";")[0] if record.output else "",
        "X-Amzn-SageMaker-Inference-Id": record.key[: _LONGEST_ID - len(REPLAYED)] + REPLAYED,
        _TARGET_MODEL: model,
        _TARGET_VARIANT: to.variant,
    }
    return Call(record, body, {name: value for name, value in wanted.items() if value}, model)


def side(answer: Answer, like: Side) -> Side:
    """An answer as capture would have written it, in the encoding of the one that it is compared with."""
    content_type = answer.headers.get("content-type", "")
    if like.encoding != "BASE64":
        try:
            return Side(content_type, like.encoding, answer.body.decode())
        except UnicodeDecodeError:
            pass
    return Side(content_type, "BASE64", base64.b64encode(answer.body).decode())


# --- the run --------------------------------------------------------------------------------------------------------


class Replayer:
    """Sends calls to a server on ``concurrency`` threads, and keeps what becomes of them."""

    def __init__(
        self,
        server: Server,
        to: Target,
        comparison: Comparison,
        complaints: Complaints,
        concurrency: int = 16,
        progress: Progress = lambda done, words: None,
    ) -> None:
        """``complaints``: those that ``comparison`` adds to."""
        self._server = server
        self._to = to
        self._comparison = comparison
        self._replay = Replay(comparison.result(), complaints)
        self._concurrency = concurrency
        self._progress = progress
        self._lock = threading.Lock()

    def run(self, records: Iterable[Record], times: float) -> Replay:
        """Send them all. Raises ``ServiceUnavailable`` when nobody is there from the beginning, ``ConfigError`` when
        there was nothing to send."""
        self._server.send("GET", "/ping", "read")  # whatever it answers, somebody is there
        room = threading.Semaphore(self._concurrency)
        began = time.monotonic()
        with ThreadPoolExecutor(self._concurrency) as threads:
            for due, record in schedule(records, times):
                made = self._made(record, due)
                if made is None:
                    continue
                wait = began + due - time.monotonic()
                if wait > 0:
                    time.sleep(wait)  # until the call is due
                room.acquire()
                late = 0.0 if math.isinf(times) else max(time.monotonic() - began - due, 0.0)
                threads.submit(self._send, made, late).add_done_callback(lambda _: room.release())
        replay = self._replay
        if not replay.sent:
            why = "; ".join(f"{one.times} x {one.reason}" for one in replay.complaints.all())
            raise ConfigError(f"There is no captured call that can be sent{f' ({why})' if why else ''}.")
        replay.difference, replay.seconds = self._comparison.result(), time.monotonic() - began
        return replay

    def _made(self, record: Record, due: float) -> Call | None:
        try:
            if due > _LONGEST_SECONDS:
                raise ValidationError("a captured call that would be due in more than a year")
            return call(record, self._to)
        except ValidationError as error:
            with self._lock:
                self._replay.complaints.add(error.message.rstrip("."), record.event_id)
            return None

    def _send(self, made: Call, late: float) -> None:
        headers = {**made.headers, "X-Serving-Timing": "1"}
        path, began = invocation_path(self._to.endpoint), time.perf_counter()
        answer: Answer | None = None
        try:
            answer = self._server.send("POST", path, "invoke", made.body, headers, (self._to.endpoint, made.model))
            said = f"a call was answered {answer.status} {answer.headers.get('x-amzn-errortype', answer.reason)}"
        except ServiceUnavailable:
            said = "a call was not answered"
        except ConfigError as error:  # a captured header that cannot be sent
            said = error.message.rstrip(".")
        seconds = time.perf_counter() - began
        with self._lock:
            self._keep(made.record, answer, seconds, late, said)

    def _keep(self, record: Record, answer: Answer | None, seconds: float, late: float, said: str) -> None:
        replay = self._replay
        replay.sent += 1
        replay.late.add(late)
        if answer is None or not answer.ok:
            replay.complaints.add(said, record.event_id)
        else:
            replay.answered += 1
            receipt = timing(answer.headers.get("x-serving-timing", "")).get("total")
            replay.latency.add(seconds if receipt is None else receipt / 1e6)
            self._compare(record, answer)
        self._progress(replay.sent, f"{replay.sent - replay.answered} failed")

    def _compare(self, record: Record, answer: Answer) -> None:
        captured = record.metadata.get("timing")
        total = captured.get("total") if isinstance(captured, dict) else None
        if isinstance(total, int | float) and 0 <= total < math.inf:
            self._replay.was.add(total / 1e6)
        if record.output is None:
            self._replay.complaints.add("a captured call without an answer to compare with", record.event_id)
            return
        self._comparison.add(Pair(record.output, side(answer, record.output), record.key, record.input))
