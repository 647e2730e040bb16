"""Callers for tests: threads that call a server over kept-alive connections and keep account of every answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Outcome(NamedTuple):
    """One call: when it was written (monotonic seconds), how long it took, its status (0: no answer came), what was
    said, and whether it was the first of its connection."""

    began: float
    seconds: float
    status: int
    body: bytes
    headers: Mapping[str, str]
    fresh: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """The body, which every error has, as JSON."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Caller:
    """One kept-alive connection."""

    def __init__(self, url: str, path: str = "/invocations", timeout: float = 60.0) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
        self._path = path

    def call(self, body: bytes = b"", target: str = "", content_type: str = "text/plain") -> Outcome:
        """One call. Raises ``ConnectionRefusedError`` when nobody listens (any more: a connection that the kernel
        completes as the listener closes is reset); one that breaks is status 0."""
        headers = {"Content-Type": content_type}
        if target:
            headers["X-Amzn-SageMaker-Target-Model"] = target
        fresh = self._connection.sock is None
        if fresh:
            try:
                self._connection.connect()
            except ConnectionResetError as error:
                raise ConnectionRefusedError from error
        began = time.monotonic()
        try:
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Outcome(began, time.monotonic() - began, 0, repr(error).encode(), {}, fresh)
        kept = {name.lower(): value for name, value in response.getheaders()}
        return Outcome(began, time.monotonic() - began, response.status, answer, kept)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()


def call(url: str, body: bytes = b"", target: str = "", content_type: str = "text/plain") -> Outcome:
    """One call of the endpoint ``default`` in the words of the runtime API, on a connection of its own."""
    with Caller(url, "/endpoints/default/invocations") as caller:
        return caller.call(body, target, content_type)


class Load:
    """``with Load(url, 8, body):`` eight callers, calling until the end of the block or until nobody listens."""

    def __init__(
        self,
        url: str,
        callers: int,
        body: bytes,
        target: str = "",
        content_type: str = "text/plain",
        path: str = "/invocations",
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._path = path
        self._url, self._body, self._target, self._content_type = url, body, target, content_type
        self._news = threading.Condition()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(callers)]

    def _run(self) -> None:
        with Caller(self._url, self._path) as caller, suppress(ConnectionRefusedError):
            while not self._over.is_set():
                outcome = caller.call(self._body, self._target, self._content_type)
                with self._news:
                    self.outcomes.append(outcome)
                    self._news.notify_all()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every caller finish its call."""
        self._over.set()
        for thread in self._threads:
            thread.join(90)

    def wait(self, more: int, seconds: float = 60.0) -> None:
        """Until ``more`` further calls have been answered."""
        with self._news:
            goal = len(self.outcomes) + more
            assert self._news.wait_for(lambda: len(self.outcomes) >= goal, seconds), "the calls are not being answered"

    def began_after_now(self, seconds: float = 60.0) -> Outcome:
        """A call that began after this one was made."""
        now = time.monotonic()
        with self._news:
            assert self._news.wait_for(lambda: self.outcomes and self.outcomes[-1].began > now, seconds)
            return self.outcomes[-1]

    @property
    def failures(self) -> list[Outcome]:
        """Every call that was not answered with 200."""
        with self._news:
            return [one for one in self.outcomes if one.status != 200]
