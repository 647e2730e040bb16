"""The bundled load generator: a process of raw keep-alive connections, each sending its next call on the answer, or,
if the plan has a pace, when it is due.

``python -m loadtests.client`` reads a plan (JSON, one object) from stdin and writes its count to stdout. It is used
where ``wrk`` is absent, and where wrk cannot count what is asked: every status, reconnects, a fixed number of calls.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import cast

from loadtests.figures import percentile
from loadtests.processes import ROOT, python

_HEAD_END = b"\r\n\r\n"
_RECONNECT_SECONDS = 0.02
_GRACE_SECONDS = 30.0
_EXAMPLES = 5
_REPLIES = 50
_VARIANT = b"\r\nx-amzn-invoked-production-variant:"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send to loopback. ``requests`` are whole HTTP/1.1 requests, sent in turn, each connection starting at
    its own place among them. ``seconds`` bounds the run; ``calls`` > 0 bounds what each connection sends. ``tell``:
    count good answers by the variant and text of each, too. ``every`` > 0: each connection's calls are due so many
    seconds apart, whenever answers come, and one that has to be sent late was begun when it was due."""

    port: int
    requests: tuple[bytes, ...]
    connections: int = 1
    seconds: float = 1.0
    calls: int = 0
    tell: bool = False
    every: float = 0.0


@dataclass(frozen=True, slots=True)
class Count:
    """The report of a run. ``failures`` are answers that were not 2xx and calls never answered; times in µs.
    ``replies``: "VARIANT TEXT" -> how many, of a plan that wants it told."""

    calls: int
    failures: int
    seconds: float
    p50_us: float
    p99_us: float
    max_us: float
    reconnects: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    replies: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Good answers per second."""
        return (self.calls - self.failures) / self.seconds if self.seconds else 0.0


def request_bytes(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One HTTP/1.1 POST, whole."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def parse_head(head: bytes) -> tuple[int, int, bool]:
    """Status, body length and whether the server will close, of an answer's head (up to the empty line).

    Raises ``ValueError`` where there is no Content-Length: this client reads no chunked answers.
    """
    status_line, *lines = head.split(b"\r\n")
    fields = {name.strip().lower(): value.strip().lower() for name, _, value in (ln.partition(b":") for ln in lines)}
    status = int(status_line.split(b" ", 2)[1])
    length = 0 if status == 204 else int(fields.get(b"content-length", b"none"))
    return status, length, fields.get(b"connection") == b"close"


def variant_of(head: bytes) -> str:
    """The variant that an answer's head names, or nothing."""
    at = head.lower().find(_VARIANT)
    return head[at + len(_VARIANT) :].partition(b"\r\n")[0].strip().decode("latin-1") if at >= 0 else ""


class Crowd:
    """All connections of a run, and what came back to them."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.statuses: Counter[int] = Counter()
        self.latencies: array[float] = array("d")
        self.examples: list[str] = []
        self.replies: Counter[str] = Counter()
        self.lost = 0
        self.reconnects = 0
        self.deadline = 0.0
        self.done = loop.create_future()
        self._left = plan.connections

    def stop(self) -> None:
        """Send no more calls; the answers owed are still waited for."""
        self.deadline = self.loop.time()

    async def run(self) -> Count:
        """Send until the time or the calls are up, wait for the answers still owed, and count."""
        started = self.loop.time()
        self.deadline = started + self.plan.seconds
        callers = [Caller(self, place) for place in range(self.plan.connections)]
        for caller in callers:
            caller.start()
        await asyncio.wait([self.done], timeout=self.plan.seconds + _GRACE_SECONDS)
        seconds = self.loop.time() - started
        self.lost += sum(caller.abandon() for caller in callers)
        return self._count(seconds)

    def leave(self) -> None:
        """One connection has sent all it will."""
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def answered(self, status: int, seconds: float, body: bytes) -> None:
        """An answer arrived whole."""
        self.statuses[status] += 1
        self.latencies.append(seconds * 1e6)
        if not 200 <= status < 300:
            self.fault(f"{status}: {body[:200].decode(errors='replace')}")

    def told(self, variant: str, body: bytes) -> None:
        """A good answer of a plan that wants them told."""
        self.replies[f"{variant} {body[:200].decode(errors='replace').strip()}"] += 1

    def fault(self, text: str) -> None:
        """Keep the first few failures' texts for the report."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append(text)

    def _count(self, seconds: float) -> Count:
        ordered = sorted(self.latencies) or [0.0]
        good = sum(n for status, n in self.statuses.items() if 200 <= status < 300)
        calls = sum(self.statuses.values()) + self.lost
        return Count(
            calls=calls,
            failures=calls - good,
            seconds=seconds,
            p50_us=percentile(ordered, 50),
            p99_us=percentile(ordered, 99),
            max_us=ordered[-1],
            reconnects=self.reconnects,
            statuses={str(status): n for status, n in sorted(self.statuses.items())},
            examples=self.examples,
            replies=dict(self.replies.most_common(_REPLIES)),
        )


class Caller(asyncio.Protocol):
    """One connection: a call at a time, a new connection when the old one is lost."""

    def __init__(self, crowd: Crowd, place: int) -> None:
        self._crowd = crowd
        self._place = place
        self._sent = 0
        self._in_flight = False
        self._finished = False
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._began = 0.0
        self._due = 0.0
        self._reset()

    def _reset(self) -> None:
        self._buffer = bytearray()
        self._status = self._need = 0
        self._closing = False

    def start(self) -> None:
        """Connect; with a pace, in one's turn."""
        plan = self._crowd.plan
        self._crowd.loop.call_later(plan.every * self._place / plan.connections, self.open)

    def open(self) -> None:
        """Connect; the first call leaves when the connection stands."""
        self._opening = self._crowd.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._crowd.loop.create_connection(lambda: self, "127.0.0.1", self._crowd.plan.port)
        except OSError as error:
            self._crowd.fault(f"connect: {error}")
            self._crowd.lost += 1
            self._open_again()

    def _open_again(self) -> None:
        if self._over():
            self._leave()
        else:
            self._crowd.reconnects += 1
            self._crowd.loop.call_later(_RECONNECT_SECONDS, self.open)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands: send."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only
        self._reset()
        self._due = time.perf_counter()
        self._send()

    def _over(self) -> bool:
        plan = self._crowd.plan
        return bool(plan.calls and self._sent >= plan.calls) or self._crowd.loop.time() >= self._crowd.deadline

    def _send(self, began: float = 0.0) -> None:
        """``began``: when, if that was before now."""
        assert self._transport is not None
        if self._over():
            self._leave()
            self._transport.close()
            return
        requests = self._crowd.plan.requests
        self._in_flight = True
        self._began = began or time.perf_counter()
        self._transport.write(requests[(self._place + self._sent) % len(requests)])
        self._sent += 1

    def _wait(self) -> None:
        """Send the next call: now, or when it is due."""
        every = self._crowd.plan.every
        self._due += every
        pause = self._due - time.perf_counter() if every else 0.0
        if pause > 0:
            self._crowd.loop.call_later(pause, self._send_again)
        else:
            self._send(self._due if every else 0.0)

    def _send_again(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._send()

    def _leave(self) -> None:
        if not self._finished:
            self._finished = True
            self._crowd.leave()

    def data_received(self, data: bytes) -> None:
        """Gather an answer; when it is whole, count it and send the next call."""
        self._buffer += data
        if not self._need:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                return
            try:
                self._status, length, self._closing = parse_head(bytes(self._buffer[:end]))
            except ValueError as error:
                self._crowd.fault(f"unreadable answer: {error}")
                assert self._transport is not None
                self._transport.abort()
                return
            self._need = end + len(_HEAD_END) + length
        if len(self._buffer) >= self._need:
            self._whole()

    def _whole(self) -> None:
        self._in_flight = False
        good = 200 <= self._status < 300
        tell = self._crowd.plan.tell
        head, _, body = bytes(self._buffer).partition(_HEAD_END) if tell or not good else (b"", b"", b"")
        if tell and good:
            self._crowd.told(variant_of(head), body)
        self._crowd.answered(self._status, time.perf_counter() - self._began, body)
        closing = self._closing
        self._reset()
        if closing:
            assert self._transport is not None
            self._transport.close()  # the server said so; connection_lost opens the next one
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """A call in flight is lost with its connection; the next call goes over a new one."""
        if self._in_flight:
            self._in_flight = False
            self._crowd.lost += 1
            self._crowd.fault(f"connection lost under a call: {exc or 'closed by the server'}")
        if not self._finished:
            self._open_again()

    def abandon(self) -> int:
        """Close at the end of the run; returns the number of calls still unanswered."""
        owed = int(self._in_flight)
        self._finished, self._in_flight = True, False
        if self._transport is not None:
            self._transport.abort()
        return owed


async def send(plan: Plan, stoppable: bool = False) -> Count:
    """Carry out a plan in the running loop. ``stoppable``: SIGTERM ends it before its time."""
    loop = asyncio.get_running_loop()
    crowd = Crowd(plan, loop)
    if stoppable:
        loop.add_signal_handler(signal.SIGTERM, crowd.stop)
    return await crowd.run()


def encode_plan(plan: Plan) -> bytes:
    """A plan as the client process reads it from stdin."""
    return json.dumps({**asdict(plan), "requests": [base64.b64encode(r).decode() for r in plan.requests]}).encode()


def decode_plan(text: bytes) -> Plan:
    """The plan that ``encode_plan`` wrote."""
    fields = json.loads(text)
    return Plan(**{**fields, "requests": tuple(base64.b64decode(r) for r in fields["requests"])})


class ClientProcess:
    """A client process at work, so that the caller can do something meanwhile. ``finish`` waits for its count."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process = subprocess.Popen(
            python("loadtests.client"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(encode_plan(plan))
        self._process.stdin.close()
        self._process.stdin = None

    def busy(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the client to end; whether it is still at work."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def stop(self) -> Count:
        """End the run before its time: the count so far, once every call sent is answered."""
        self._process.terminate()
        return self.finish()

    def finish(self) -> Count:
        """The count. Raises ``RuntimeError`` when the client itself failed."""
        output, errors = self._process.communicate(timeout=self._plan.seconds + 2 * _GRACE_SECONDS)
        if self._process.returncode:
            raise RuntimeError(f"the load client failed: {errors.decode(errors='replace')[-500:]}")
        return Count(**json.loads(output))

    def kill(self) -> None:
        """End the client, finished or not."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> ClientProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()


def run_plan(plan: Plan) -> Count:
    """Carry out a plan in a process of its own."""
    with ClientProcess(plan) as client:
        return client.finish()


def main() -> None:
    """Entry point of the client process: plan on stdin, count on stdout."""
    import uvloop

    count = uvloop.run(send(decode_plan(sys.stdin.buffer.read()), stoppable=True))
    sys.stdout.write(json.dumps(asdict(count)))


if __name__ == "__main__":
    main()
