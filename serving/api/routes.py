"""All routes in one table. Invocations are here too, for ASGI servers without our fast protocol."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeGuard

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from serving.api import (
    async_invocations,
    async_routes,
    auth,
    captures,
    cbor_refusal,
    console_routes,
    control_wires,
    drift,
    explaining,
    failures,
    ground_truth,
    invocations,
    scaling,
    services,
    streams,
    verdicts,
)
from serving.api.front import Front
from serving.api.requests import body_of, headers_of, json_answer, target_of, while_there
from serving.endpoint import Endpoint, answer
from serving.errors import AccessDenied, ServingError, UnknownEndpoint, UnknownOperation, ValidationError
from serving.fleet.table import describe
from serving.jobs import parameters
from serving.watch import metrics
from serving.watch.trace_context import trace_of, traceparent
from serving.workers.chain import Ticket

Handler = Callable[[Front, Request], Awaitable[Response]]
#: What a route needs, or how to tell from the request.
Permission = auth.Action | Callable[[Request], auth.Action]

_LOAD_SECONDS = 60.0
_MOST_LISTED = 1000
#: Names and URLs in a body, in characters (SageMaker: TargetModel 1,024; a path, 4,096).
_LONGEST_NAME, _LONGEST_URL = 1024, 4096
_PAGE_TOKEN = re.compile(r"[0-9]{1,9}")
_LEFT = 499


def build(front: Front) -> Starlette:
    """The ASGI application of one front."""
    routes = [Route(path, _door(front, action, handler), methods=[method]) for method, path, action, handler in ROUTES]

    async def no_route(request: Request, _: Exception) -> Response:
        request.state.request_id = front.next_request_id()
        if request.scope["path"].startswith(cbor_refusal.PATH):
            return Response(cbor_refusal.body(), cbor_refusal.STATUS, cbor_refusal.HEADERS)
        return _failure(front, request, UnknownOperation(f"There is no {request.method} on this path."))

    app = Starlette(routes=routes, exception_handlers={404: no_route, 405: no_route})
    app.router.redirect_slashes = False  # it would send the caller to whatever the Host header says
    return app


def _door(front: Front, action: Permission | None, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """What every route shares: who calls, the error dress, the request id."""

    async def endpoint(request: Request) -> Response:
        request.state.request_id = request_id = front.next_request_id()
        request.state.variant, request.state.body = "", None
        try:
            if action is not None:
                await _authorise(front, request, action)
            response = await handler(front, request)
        except ClientDisconnect:
            return Response(status_code=_LEFT)  # nobody reads it
        except Exception as error:
            known = failures.as_serving_error(error, request_id)
            if not request.state.variant:
                front.registry.counter("sagemaker_rejected_requests_total", known.code).add()
            return _failure(front, request, known)
        response.headers["x-amzn-RequestId"] = request_id
        return response

    return endpoint


async def _authorise(front: Front, request: Request, permission: Permission) -> None:
    if front.keys is None:
        action = permission(request) if callable(permission) else permission
        if action == "manage" and request.scope["path"] != "/":
            console_routes.check_host(front, request)  # a page elsewhere may have come by a name that it made ours
        return
    body = await body_of(front, request)
    identity = invocations.identify(front, request.method, target_of(request), headers_of(request), body, time.time())
    action = permission(request) if callable(permission) else permission  # some read it off the body
    if action == "invoke":
        return  # decided with the endpoint and model at hand, by the handler
    if identity is not None and not auth.permits(identity, action):
        raise AccessDenied(f"This key lacks the permission {action!r}.")


def _failure(front: Front, request: Request, error: ServingError) -> Response:
    settings = front.settings
    if console_routes.is_page(request):
        return console_routes.challenge(front, request, console_routes.refused(front, request, error))
    if (request.method, request.scope["path"]) == ("POST", "/"):
        form = control_wires.is_form(request.headers)
        status, headers, body = control_wires.refused(error, _target(request), form, request.state.request_id)
        return Response(body, status, dict(headers))
    name = request.path_params.get("name", "")
    status, headers, body = failures.dress(
        error, not name, request.state.request_id, settings.account_id, name, settings.region,
        trace_of(traceparent(request.headers.get("traceparent", "").encode())),
    )  # fmt: skip
    variant = getattr(request.state, "variant", "")
    if variant:
        headers.append((invocations.VARIANT, variant))
    return console_routes.challenge(front, request, Response(body, status, dict(headers)))


# -- invocations, the slow way --------------------------------------------------------------------------------------


async def invoke(front: Front, request: Request) -> Response:
    """POST /invocations, POST /endpoints/{name}/invocations and its streamed form; ``Prefer: respond-async`` too."""
    url = request.scope["raw_path"]
    route = invocations.route(url, front.settings.default_endpoint)
    if route is None:
        raise UnknownOperation("There is no such path.")
    headers, body = headers_of(request), await body_of(front, request)
    identity = invocations.authorise(front, route, target_of(request), headers, body)
    head = invocations.read_head(route, dict(headers), version=request.scope["http_version"])
    preferred = async_invocations.preference(headers)
    if preferred is not None and async_invocations.may_be_deferred(head) and not _is_explained(front, head):
        return await async_routes.invoke_later(front, request, head, preferred, identity)
    return await _invoke(front, request, head, body)


def _is_explained(front: Front, head: invocations.Head) -> bool:
    """Explanations come at once or not at all (RFC 7240: a preference may be ignored)."""
    return front.directory.get(head.route.endpoint).explainer is not None


async def _invoke(front: Front, request: Request, head: invocations.Head, body: bytes) -> Response:
    request_id = request.state.request_id
    endpoint = front.directory.get(head.route.endpoint)
    invocation = invocations.build(front, head, body, request_id, time.monotonic())

    def accepted(call: Ticket) -> None:
        request.state.variant = call.variant

    answering = explaining.answering(front, endpoint, invocation)
    reply = await while_there(request, answer(answering, invocation, accepted))
    if head.route.streamed:
        streamed = invocations.stream_headers(reply, request_id, head.timed)
        return streams.StreamedResponse(reply, dict(streamed))
    made = invocations.reply_headers(reply, request_id, head.timed, head.route.container)
    return Response(reply.body, invocations.reply_status(reply, head), dict(made))


# -- health, metrics, endpoints -------------------------------------------------------------------------------------


async def ping(front: Front, request: Request) -> Response:
    """GET /ping: 200 when the default endpoint (or, without one, the server) can answer; else 503 and why."""
    endpoint = front.directory.endpoints.get(front.settings.default_endpoint)
    if endpoint is None:
        return PlainTextResponse("")
    if endpoint.ready:
        return PlainTextResponse("")
    row = _row(front, front.settings.default_endpoint)
    reason = str(describe(row).get("FailureReason", "no worker is ready"))
    return PlainTextResponse(reason, 503)


async def healthz(front: Front, request: Request) -> Response:
    """GET /healthz: this front's event loop turns."""
    return PlainTextResponse("ok")


async def readyz(front: Front, request: Request) -> Response:
    """GET /readyz: every endpoint can answer, and we are not shutting down."""
    if front.draining or not front.directory.table["version"]:
        return PlainTextResponse("not ready", 503)
    for name, endpoint in front.directory.endpoints.items():
        if not endpoint.ready:
            return PlainTextResponse(f"endpoint {name} has no ready worker", 503)
    return PlainTextResponse("ready")


async def scrape(front: Front, request: Request) -> Response:
    """GET /metrics: all processes' numbers, in Prometheus' form."""
    body, content_type = metrics.exposition(front.metrics_folder, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


async def endpoints(front: Front, request: Request) -> Response:
    """GET /endpoints: what there is, in SageMaker's words."""
    return json_answer({"Endpoints": [describe(row) for row in front.directory.table["endpoints"]]})


async def endpoint(front: Front, request: Request) -> Response:
    """GET /endpoints/{name}."""
    return json_answer(describe(_row(front, request.path_params["name"])))


def _row(front: Front, name: str) -> dict[str, Any]:
    for row in front.directory.table["endpoints"]:
        if row["name"] == name:
            found: dict[str, Any] = row
            return found
    raise UnknownEndpoint(f"Endpoint {name} of account {front.settings.account_id} not found.")


async def execution_parameters(front: Front, request: Request) -> Response:
    """GET /execution-parameters: how batch transform should call us."""
    megabytes = min(max(1, front.settings.max_body_bytes // 2**20), parameters.MOST_MEGABYTES)
    workers = sum(len(pool.ready) for pool in _default(front).pools.values())
    return json_answer(parameters.execution_parameters(workers, megabytes))


# -- the control API ------------------------------------------------------------------------------------------------


async def control(front: Front, request: Request) -> Response:
    """POST / with X-Amz-Target, or with a form: the control APIs, which the control process answers
    (``control_api.py``)."""
    sent = control_wires.read(request.headers, await body_of(front, request))
    region = auth.scoped_region(request.scope["headers"]) or front.settings.region
    call = {
        "target": sent.target,
        "body": sent.text,
        "form": sent.form,
        "region": region,
        "request_id": request.state.request_id,
    }
    reply = await front.ask("api", call)
    return Response(reply["body"], reply["status"], dict(reply["headers"]))


def _target(request: Request) -> str:
    """Service and operation of a control call, as far as they can be read."""
    try:
        return control_wires.read(request.headers, request.state.body or b"").target
    except ServingError:
        return control_wires.target(request.headers)


def _control_permission(request: Request) -> auth.Action:
    """Looking needs no more than ``read``."""
    return "read" if services.only_reads(_target(request)) else "manage"


# -- the container multi-model API ----------------------------------------------------------------------------------


async def load_model(front: Front, request: Request) -> Response:
    """POST /models: 200 loaded, 404 no such artifact, 409 already loaded under this name, 507 no memory."""
    wanted = _mapping(await body_of(front, request))
    name, url = wanted.get("model_name"), wanted.get("url")
    if not _is_text(name, _LONGEST_NAME) or not _is_text(url, _LONGEST_URL) or not name.isprintable():
        raise ValidationError("model_name (at most 1024 printable characters) and url (at most 4096) are required.")
    endpoint = _multi(front)
    if await _loaded(endpoint, _meant(front, endpoint, name)):
        return json_answer({"Message": f"Model {name} is already loaded."}, 409)
    question = {"endpoint": endpoint.name, "name": name}
    try:
        target = await front.ask("name_model", question | {"url": url})
        for pool in endpoint.pools.values():
            await pool.operate("load", target, _LOAD_SECONDS)
    except ServingError as error:
        await front.ask("forget_model", question)
        if isinstance(error, ValidationError):
            return json_answer({"Message": error.message}, 404)
        raise
    return json_answer({"modelName": name, "modelUrl": url})


async def list_models(front: Front, request: Request) -> Response:
    """GET /models: what is in memory, by name, in pages. A model with names of its own is listed under those."""
    start = request.query_params.get("next_page_token", "0")
    if not _PAGE_TOKEN.fullmatch(start):
        raise ValidationError("next_page_token is not one of ours.")
    endpoint = _multi(front)
    names: dict[str, list[str]] = {}
    for name, target in _aliases(front, endpoint).items():
        names.setdefault(target, []).append(name)
    rows = [(name, target) for target in await _loaded(endpoint) for name in names.get(target, [target])]
    end = int(start) + _MOST_LISTED
    listed: dict[str, Any] = {
        "models": [{"modelName": name, "modelUrl": target} for name, target in sorted(rows)[int(start) : end]]
    }
    return json_answer(listed | ({"nextPageToken": str(end)} if end < len(rows) else {}))


async def get_model(front: Front, request: Request) -> Response:
    """GET /models/{name}: 404 when it is not in memory."""
    name, endpoint = request.path_params["model"], _multi(front)
    target = _meant(front, endpoint, name)
    if not await _loaded(endpoint, target):
        return _not_loaded(name)
    return json_answer({"modelName": name, "modelUrl": target})


async def unload_model(front: Front, request: Request) -> Response:
    """DELETE /models/{name}: answers when the memory is free; 404 when the model is not in memory. A model that has
    another name keeps its memory."""
    name, endpoint = request.path_params["model"], _multi(front)
    target = _meant(front, endpoint, name)
    names = [one for one, meant in _aliases(front, endpoint).items() if meant == target]
    if name in names and len(names) > 1 and await _loaded(endpoint, target):
        gone = True
    else:
        answers = [await pool.operate("unload", target, _LOAD_SECONDS) for pool in endpoint.pools.values()]
        gone = any(row["unloaded"] for rows in answers for row in rows)
    if name in names:
        await front.ask("forget_model", {"endpoint": endpoint.name, "name": name})
    return json_answer({"modelName": name}) if gone else _not_loaded(name)


async def invoke_model(front: Front, request: Request) -> Response:
    """POST /models/{name}/invoke: 404 when it is not in memory."""
    name = request.path_params["model"]
    route = invocations.Route(front.settings.default_endpoint, True)
    headers, body = headers_of(request), await body_of(front, request)
    invocations.authorise(front, route, target_of(request), headers, body, name)
    endpoint = _multi(front)
    target = _meant(front, endpoint, name)
    if not await _loaded(endpoint, target):
        return _not_loaded(name)
    head = invocations.read_head(route, dict(headers))
    return await _invoke(front, request, head._replace(extras={**head.extras, "target_model": target}), body)


def _aliases(front: Front, endpoint: Endpoint) -> dict[str, str]:
    """Names given by POST /models -> artifacts under the endpoint's prefix."""
    aliases: dict[str, str] = front.directory.table.get("aliases", {}).get(endpoint.name, {})
    return aliases


def _meant(front: Front, endpoint: Endpoint, name: str) -> str:
    return _aliases(front, endpoint).get(name, name)


async def _loaded(endpoint: Endpoint, target: str = "") -> set[str]:
    """Artifacts in the memory of some worker: all of them, or ``target`` alone."""
    answers = [await pool.operate("list", target, _LOAD_SECONDS) for pool in endpoint.pools.values()]
    return {model["model"] for rows in answers for row in rows for model in row["models"]}


def _not_loaded(name: str) -> Response:
    return json_answer({"Message": f"Model {name} is not loaded."}, 404)


def _default(front: Front) -> Endpoint:
    return front.directory.get(front.settings.default_endpoint)


def _multi(front: Front) -> Endpoint:
    endpoint = _default(front)
    if not all(pool.multi_model for pool in endpoint.pools.values()):
        raise ValidationError(f"Endpoint {endpoint.name} is not a multi-model endpoint.")
    return endpoint


def _is_text(value: object, longest: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= longest


def _mapping(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except ValueError:
        raise ValidationError("The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise ValidationError("The body must be a JSON object.")
    return value


#: (method, path, permission it needs, handler). ``None`` = open to everybody who can connect. Looked through from the
#: top: what is asked most stands first.
ROUTES: tuple[tuple[str, str, Permission | None, Handler], ...] = (
    ("POST", "/invocations", "invoke", invoke),
    ("POST", "/endpoints/{name}/invocations", "invoke", invoke),
    ("POST", "/endpoints/{name}/invocations-response-stream", "invoke", invoke),
    ("POST", "/endpoints/{name}/async-invocations", "invoke", async_routes.invoke_async),
    ("GET", "/endpoints/{name}/async-invocations", "invoke", async_routes.list_calls),
    ("GET", "/endpoints/{name}/async-invocations/{id}", "invoke", async_routes.get_call),
    ("DELETE", "/endpoints/{name}/async-invocations/{id}", "invoke", async_routes.cancel_call),
    ("GET", "/endpoints/{name}/async-invocations/{id}/output", "invoke", async_routes.get_output),
    ("POST", "/endpoints/{name}/ground-truth", "invoke", ground_truth.post_labels),
    ("GET", "/endpoints/{name}/captures", "manage", captures.get_captures),
    ("GET", "/endpoints/{name}/verdict", "read", verdicts.verdict),
    ("GET", "/endpoints/{name}/scaling", "read", scaling.scaling),
    ("POST", "/endpoints/{name}/drift", drift.permission, drift.drift),
    ("GET", "/endpoints/{name}/shadow-report", verdicts.report_permission, verdicts.shadow_report),
    ("GET", "/", "read", console_routes.root),
    ("GET", "/console", "read", console_routes.console),
    ("GET", "/console/endpoints/{name}", "read", console_routes.endpoint),
    ("GET", "/console/endpoints/{name}/calls", "invoke", console_routes.calls),
    ("GET", "/console/endpoints/{name}/verdict", "read", console_routes.verdict),
    ("GET", "/console/endpoints/{name}/shadow-report", verdicts.report_permission, console_routes.shadow_report),
    ("GET", "/console/static/{file}", None, console_routes.static),
    ("POST", "/", _control_permission, control),
    ("GET", "/ping", None, ping),
    ("GET", "/healthz", None, healthz),
    ("GET", "/readyz", None, readyz),
    ("GET", "/metrics", "metrics", scrape),
    ("GET", "/execution-parameters", "read", execution_parameters),
    ("GET", "/endpoints", "read", endpoints),
    ("GET", "/endpoints/{name}", "read", endpoint),
    ("GET", "/models", "read", list_models),
    ("POST", "/models", "manage", load_model),
    ("POST", "/models/{model:path}/invoke", "invoke", invoke_model),
    ("GET", "/models/{model:path}", "read", get_model),
    ("DELETE", "/models/{model:path}", "manage", unload_model),
)
