"""Labels that come in over HTTP, put into the object store before their senders are told.

What waits at one moment is written together: one object for each endpoint, ``{root}/{endpoint}/yyyy/mm/dd/hh/
MM-SS-mmm-{uuid}.jsonl``, named by when it was collected (``behaviour/06``). Names of one process are in the order in
which it wrote, as of two labels for one call the later counts.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

from serving.config import Settings
from serving.errors import ConfigError, ServiceUnavailable, ServingError
from serving.objects import ObjectStore, open_objects

#: Bytes that may wait to be written; above it callers are refused.
MOST_HELD = 64 * 2**20
#: Seconds between two objects of an endpoint, at least: so many labels one by one do not make as many objects.
PAUSE = 0.05
#: A clock that is set back by more milliseconds than that is believed.
_SET_BACK = 60_000


class _Waiting(NamedTuple):
    lines: bytes
    done: asyncio.Future[None]


def object_name(root: str, endpoint: str, moment: int, id: str) -> str:
    """The URL of labels of an endpoint that were collected at ``moment``, milliseconds since the epoch."""
    second = time.strftime("%Y/%m/%d/%H/%M-%S", time.gmtime(moment // 1000))
    return f"{root.rstrip('/')}/{endpoint}/{second}-{moment % 1000:03d}-{id}.jsonl"


class Collector:
    """Labels on their way to the store. For one event loop. ``now``: the clock, epoch seconds."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now = now
        self._objects: ObjectStore | None = None
        self._waiting: dict[str, list[_Waiting]] = {}
        self._writers: set[asyncio.Task[None]] = set()
        self._held = 0
        self._last = 0

    async def keep(self, endpoint: str, lines: bytes) -> None:
        """Returns when these records, whole lines, are in the store. Raises ``ServiceUnavailable`` when it cannot have
        them now; they may or may not be there then."""
        if self._held + len(lines) > MOST_HELD:
            raise ServiceUnavailable("Too many labels are waiting to be written.")
        one = _Waiting(lines, asyncio.get_running_loop().create_future())
        self._held += len(lines)
        if endpoint in self._waiting:
            self._waiting[endpoint].append(one)
        else:
            self._waiting[endpoint] = [one]
            writer = asyncio.create_task(self._write(endpoint))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        await asyncio.shield(one.done)

    async def _write(self, endpoint: str) -> None:
        """Write what waits for an endpoint until nothing does."""
        while taken := self._waiting[endpoint]:
            self._waiting[endpoint] = []
            error = await self._put(endpoint, b"".join(one.lines for one in taken))
            for one in taken:
                self._held -= len(one.lines)
                if one.done.cancelled():
                    continue
                if error is None:
                    one.done.set_result(None)
                else:
                    one.done.set_exception(ServiceUnavailable(error))
                    one.done.exception()  # its sender may have left
            await asyncio.sleep(PAUSE)  # what comes meanwhile is written together
        del self._waiting[endpoint]

    async def _put(self, endpoint: str, lines: bytes) -> str | None:
        """Write one object. Returns why it could not be."""
        now = int(self._now() * 1000)
        # Two in one millisecond, or a clock that was set back a little; one set back further was wrong before.
        self._last = moment = self._last + 1 if self._last - _SET_BACK <= now <= self._last else now
        url = object_name(self._settings.ground_truth, endpoint, moment, str(uuid.uuid4()))
        try:
            await asyncio.to_thread(self._blocking_put, url, lines)
        except ConfigError:
            return "The labels could not be kept: this server has no client for its object store."
        except ServingError as error:
            return f"The labels could not be kept. {error.message}"
        return None

    def _blocking_put(self, url: str, lines: bytes) -> None:
        if self._objects is None:
            self._objects = open_objects(self._settings)
        self._objects.put(url, lines, "application/jsonlines")
