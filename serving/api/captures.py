"""Captured calls over HTTP: ``GET /endpoints/{name}/captures``, beyond SageMaker. JSON Lines, each the record as it
was written (``behaviour/05``) with its ``variant``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serving.api.front import Front
from serving.api.verdicts import moment
from serving.config import Settings
from serving.errors import UnknownEndpoint, ValidationError
from serving.monitor import tail
from serving.monitor.values import Window
from serving.objects import ObjectStore, open_objects
from serving.objects.base import prefix_url
from serving.storage import check_name

_KNOWN = ("variant", "since", "until", "limit", "follow", "destination")
_MOST = 10_000
#: One who follows hears of new records so often; a blank line tells him that there are none.
_FOLLOW_SECONDS = 0.5
_SIGN_SECONDS = 15.0
_MEDIA_TYPE = "application/jsonlines"
_END_OF_TIME = 1e11


async def get_captures(front: Front, request: Request) -> Response:
    """Query: ``variant`` (again for each), ``since``, ``until`` (times, or how long ago), ``limit`` (only the newest so
    many, in order of time; without it, all of the stretch, file by file), ``follow=true`` (then those that come, until
    the client leaves), ``destination`` (where they are, for an endpoint that captures no more)."""
    asked = _query(request)
    source = await asyncio.to_thread(_source, front, request, asked.get("destination", ""))
    now = time.time()
    start = moment(asked["since"], now) if "since" in asked else 0.0
    window = Window(start, moment(asked["until"], now) if "until" in asked else _END_OF_TIME)
    limit, follows = _limit(asked), asked.get("follow", "false") not in ("false", "0")
    follower = await asyncio.to_thread(tail.Follower, source) if follows else None
    found = tail.blocks(_found(source, window, limit, now))
    first = await asyncio.to_thread(next, found, b"")  # what is wrong is said before the answer begins
    return StreamingResponse(_stream(front, first, found, follower), media_type=_MEDIA_TYPE)


def _found(source: tail.Source, window: Window, limit: int | None, now: float) -> Iterator[bytes]:
    if limit is not None:
        yield from tail.newest(source, limit, now, window) if limit else ()
    else:
        yield from (line for _, line in tail.between(source, window))


async def _stream(
    front: Front, first: bytes, found: Iterator[bytes], follower: tail.Follower | None
) -> AsyncIterator[bytes]:
    yield first
    async for block in iterate_in_threadpool(found):
        yield block
    heard = time.monotonic()
    while follower is not None and not front.stopping.is_set():
        for block in await asyncio.to_thread(lambda: list(tail.blocks(follower.more()))):
            yield block
            heard = time.monotonic()
        if time.monotonic() - heard > _SIGN_SECONDS:
            yield b"\n"
            heard = time.monotonic()
        with suppress(TimeoutError):
            await asyncio.wait_for(front.stopping.wait(), _FOLLOW_SECONDS)


def _source(front: Front, request: Request, destination: str) -> tail.Source:
    name, variants = request.path_params["name"], request.query_params.getlist("variant")
    if destination:
        with suppress(ValidationError):
            prefix_url(f"{destination.rstrip('/')}/{check_name(name)}")
            return tail.Source(_objects(front.settings), _staging(front), destination, name, variants)
        raise ValidationError("destination is s3://bucket/prefix, as in the endpoint's DataCaptureConfig.")
    row = next((row for row in front.directory.table["endpoints"] if row["name"] == name), None)
    if row is None:
        raise UnknownEndpoint(
            f"Endpoint {name} of account {front.settings.account_id} not found. What it captured can be read by "
            "destination=s3://bucket/prefix."
        )
    if not row["capture"]:
        raise ValidationError(
            f"Endpoint {name} captures no calls. What it captured before can be read by destination=s3://bucket/prefix."
        )
    return tail.Source(_objects(front.settings), _staging(front), row["capture"]["destination"], name, variants)


def _staging(front: Front) -> Path:
    return front.settings.data_dir / "capture"


@lru_cache(maxsize=1)
def _objects(settings: Settings) -> ObjectStore:
    return open_objects(settings)


def _query(request: Request) -> dict[str, str]:
    """The query's values; empty ones are as good as none. Raises ``ValidationError`` for what nobody asked for."""
    for name in request.query_params:
        if name not in _KNOWN:
            raise ValidationError(f"There is no {name[:50]!r} to ask by; there are {', '.join(_KNOWN)}.")
    return {name: value for name, value in request.query_params.items() if value}


def _limit(asked: dict[str, str]) -> int | None:
    text = asked.get("limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and int(text) <= _MOST):
        raise ValidationError(f"limit is a whole number, at most {_MOST}.")
    return int(text)
