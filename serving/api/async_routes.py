"""Handlers of calls that are answered later: sending, looking, waiting, cancelling, fetching the answer.

A call is accepted (202) only once the jobs process has it on the disk. Everything else here is ours, beyond SageMaker.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serving.api import async_invocations, auth, invocations
from serving.api.async_invocations import LONGEST_WAIT, Preference, Sender
from serving.api.front import Front
from serving.api.requests import body_of, headers_of, json_answer, target_of, while_there
from serving.errors import AccessDenied, Conflict, ModelError, ResourceNotFound, UnknownEndpoint, ValidationError
from serving.jobs.async_calls import plain_prefix

#: A job's id, or an InferenceId, which stands for the newest job that has it.
_ID = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,63}")
_OPEN = ("Queued", "InProgress")
_MOST_LISTED = 100
_LONGEST_TOKEN = 1024
#: An answer is fetched, and goes out, in pieces of this size.
_PIECE = 2**20
_LONGEST_MESSAGE = 2048

Status = Mapping[str, Any]


# -- sending --------------------------------------------------------------------------------------------------------


async def invoke_async(front: Front, request: Request) -> Response:
    """POST /endpoints/{name}/async-invocations."""
    headers, body = headers_of(request), await body_of(front, request)
    route = endpoint_route(front, request)
    identity = invocations.authorise(front, route, target_of(request), headers, body)
    asked = async_invocations.submission(route.endpoint, dict(headers), body, _sender(request, identity))
    _check_input(front, identity, asked["input"])
    endpoint = front.directory.get(route.endpoint)
    if not endpoint.asynchronous:
        raise ValidationError(
            f"Endpoint {endpoint.name} is not asynchronous: invoke it with InvokeEndpoint, or give its configuration "
            "an AsyncInferenceConfig."
        )
    return _accepted(route.endpoint, await _submit(front, asked, body))


async def invoke_later(
    front: Front, request: Request, head: invocations.Head, preferred: Preference, identity: auth.Identity | None
) -> Response:
    """A plain invocation that would rather be answered later; but at once if it is done in time."""
    body = await body_of(front, request)
    sender = _sender(request, identity)
    name = front.directory.get(head.route.endpoint).name
    until = time.monotonic() + preferred.wait
    accepted = await _submit(front, async_invocations.deferred(head, dict(headers_of(request)), body, sender), body)
    if preferred.wait:
        args = {"endpoint": name, "id": accepted["Id"]}
        status = await while_there(request, _followed(front, args, until - time.monotonic()))
        if status["Status"] not in _OPEN:
            return await _outcome(front, args, {"Preference-Applied": preferred.applied})
    answer = _accepted(name, accepted)
    answer.headers["Preference-Applied"] = preferred.applied
    return answer


def _check_input(front: Front, identity: auth.Identity | None, url: str) -> None:
    """Who may not invoke an endpoint must not have its answers read as another's input, nor who may not manage what was
    captured of calls, or their labels. Raises ``AccessDenied``."""
    if identity is None or not url:
        return
    settings = front.settings
    places, private = [], [settings.ground_truth]
    for row in front.directory.table["endpoints"]:
        kept, name = row.get("async") or {}, row["name"]
        if row["capture"]:
            private.append(f"{row['capture']['destination'].rstrip('/')}/{name}")
        places.append((name, plain_prefix(settings.region, settings.account_id, name)))
        places += [(name, kept[place]) for place in ("output", "failure") if kept.get(place)]
    within = any(url.startswith(prefix.rstrip("/") + "/") for prefix in private)
    if within and not auth.permits(identity, "manage"):
        raise AccessDenied("This key may not read the InputLocation: what callers sent is kept there.")
    owners = async_invocations.owners_of(url, places)
    if owners and not any(auth.permits(identity, "invoke", owner) for owner in owners):
        raise AccessDenied("This key may not read the InputLocation: another endpoint's answers are there.")


def _sender(request: Request, identity: auth.Identity | None) -> Sender:
    return Sender(identity.key_id if identity else "", request.state.request_id, time.time())


async def _submit(front: Front, asked: dict[str, Any], body: bytes) -> Status:
    aliases = front.directory.table.get("aliases", {}).get(asked["endpoint"], {})
    asked["target_model"] = aliases.get(asked["target_model"], asked["target_model"])
    asked["table"] = front.directory.table["version"]
    accepted, _ = await front.jobs.ask("submit", asked, body)
    told: Status = accepted
    return told


def _accepted(endpoint: str, call: Status) -> Response:
    headers = {
        "X-Amzn-SageMaker-OutputLocation": call["OutputLocation"],
        "X-Amzn-SageMaker-FailureLocation": call["FailureLocation"],
        "Location": f"/endpoints/{endpoint}/async-invocations/{call['Id']}",
    }
    given = {name: _as_header(value) for name, value in headers.items() if value}
    return json_answer({"InferenceId": call["InferenceId"]}, 202, given)


def _as_header(url: str) -> str:
    """A URL as a header can hold it: UTF-8, without anything that ends a line."""
    return "".join(filter(str.isprintable, url)).encode().decode("latin-1")


# -- looking --------------------------------------------------------------------------------------------------------


async def list_calls(front: Front, request: Request) -> Response:
    """GET /endpoints/{name}/async-invocations: newest first, in pages (``?status=&max=&token=``)."""
    route = await _authorised(front, request)
    asked = request.query_params
    most, token = asked.get("max", str(_MOST_LISTED)), asked.get("token", "")
    if not re.fullmatch(r"[0-9]{1,3}", most, re.ASCII) or not 1 <= int(most) <= _MOST_LISTED:
        raise ValidationError(f"max must be a whole number from 1 to {_MOST_LISTED}.")
    if len(token) > _LONGEST_TOKEN:
        raise ValidationError("token is not one of ours.")
    args = {"endpoint": route.endpoint, "status": asked.get("status", ""), "most": int(most), "token": token}
    page, _ = await front.jobs.ask("page", args)
    return json_answer(page)


async def get_call(front: Front, request: Request) -> Response:
    """GET /endpoints/{name}/async-invocations/{id}: how it stands; with ``?wait=SECONDS`` as soon as it has ended, or
    after so long."""
    args = await _named(front, request)
    wait = request.query_params.get("wait", "0")
    if not re.fullmatch(r"[0-9]{1,2}(?:\.[0-9]{1,6})?", wait, re.ASCII) or float(wait) > LONGEST_WAIT:
        raise ValidationError(f"wait must be a number of seconds up to {LONGEST_WAIT:g}.")
    return json_answer(await while_there(request, _followed(front, args, float(wait))))


async def cancel_call(front: Front, request: Request) -> Response:
    """DELETE /endpoints/{name}/async-invocations/{id}: how it stands then."""
    value, _ = await front.jobs.ask("cancel", await _named(front, request))
    return json_answer(value)


async def get_output(front: Front, request: Request) -> Response:
    """GET /endpoints/{name}/async-invocations/{id}/output: the answer, as the model gave it."""
    return await _outcome(front, await _named(front, request), {})


async def _status(front: Front, args: Status, wait: float = 0.0) -> Status:
    status, _ = await front.jobs.ask("status", {**args, "wait": wait}, wait=wait)
    told: Status = status
    return told


async def _followed(front: Front, args: Status, wait: float) -> Status:
    """How a call stands when it has ended, after ``wait`` seconds, or when this server is about to stop."""
    if wait <= 0.0 or front.stopping.is_set():
        return await _status(front, args)
    following = asyncio.create_task(_status(front, args, wait))
    stopping = asyncio.create_task(front.stopping.wait())
    try:
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return following.result() if following.done() else await _status(front, args)
    finally:
        following.cancel()
        stopping.cancel()


# -- the answer -----------------------------------------------------------------------------------------------------


async def _outcome(front: Front, args: Status, headers: Mapping[str, str]) -> Response:
    """The answer of a call that has ended. Raises ``ModelError`` when it has failed, ``Conflict`` when it was not run,
    ``ResourceNotFound`` when it has not ended."""
    told, first = await _piece(front, args, 0)  # what is wrong with it is found out before anything is sent
    if told["Status"] == "Failed":
        raise ModelError(first[:_LONGEST_MESSAGE].decode("utf-8", "replace"))
    if told["Status"] != "Completed":
        raise Conflict(f"Asynchronous call {args['id']} has no output: it is {told['Status']}.")
    sent = {"content-type": invocations.clean(told["ContentType"]) or "application/octet-stream", **headers}
    if told["Size"] <= len(first):
        return Response(first, 200, sent)
    sent["content-length"] = str(told["Size"])
    return StreamingResponse(_pieces(front, {**args, "id": told["Id"]}, first, told["Size"]), 200, sent)


async def _pieces(front: Front, args: Status, first: bytes, size: int) -> AsyncIterator[bytes]:
    piece, at = first, 0
    while piece:
        yield piece
        at += len(piece)
        piece = (await _piece(front, args, at))[1] if at < size else b""


async def _piece(front: Front, args: Status, offset: int) -> tuple[Status, bytes]:
    told, piece = await front.jobs.ask("read", {**args, "offset": offset, "most": _PIECE})
    return told, piece


# -- who asks for what ----------------------------------------------------------------------------------------------


def endpoint_route(front: Front, request: Request) -> invocations.Route:
    """The endpoint that the path names. Raises ``UnknownEndpoint`` for a name that cannot be one's."""
    name = request.path_params["name"]
    route = invocations.Route(invocations.endpoint_name(name.encode()), False)
    if not route.endpoint:
        raise UnknownEndpoint(f"Endpoint {name} of account {front.settings.account_id} not found.")
    return route


async def _authorised(front: Front, request: Request) -> invocations.Route:
    """The endpoint, for one who may invoke it."""
    route = endpoint_route(front, request)
    body = await body_of(front, request)
    invocations.authorise(front, route, target_of(request), headers_of(request), body, method=request.method)
    return route


async def _named(front: Front, request: Request) -> Status:
    """The call that the path names, for one who may invoke its endpoint."""
    route, id = await _authorised(front, request), request.path_params["id"]
    if not _ID.fullmatch(id):
        raise ResourceNotFound(f"Endpoint {route.endpoint} has no such asynchronous call.")
    return {"endpoint": route.endpoint, "id": id}
