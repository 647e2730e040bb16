"""What handlers of ASGI routes share: the parts of a request as it arrived, and waiting only for clients that are
there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.api.front import Front
from serving.errors import ValidationError

T = TypeVar("T")


def target_of(request: Request) -> bytes:
    """The request target as it was routed. Never ``request.url``, which is put together with the Host header."""
    query: bytes = request.scope["query_string"]
    path: bytes = request.scope["raw_path"]
    return path + b"?" + query if query else path


def headers_of(request: Request) -> list[tuple[bytes, bytes]]:
    """All headers, names in lower case, in order of arrival."""
    return [(name.lower(), value) for name, value in request.scope["headers"]]


async def body_of(front: Front, request: Request) -> bytes:
    """The body, which arrives once and is asked for by whoever needs it. Raises ``ValidationError`` over the limit."""
    body: bytes | None = request.state.body
    if body is not None:
        return body
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > front.settings.max_body_bytes:
            raise ValidationError(f"The body is larger than {front.settings.max_body_bytes} bytes.")
        chunks.append(chunk)
    body = request.state.body = b"".join(chunks)
    return body


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, headers, "application/json")


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but only as long as the client does. Raises ``ClientDisconnect`` when it leaves first."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
