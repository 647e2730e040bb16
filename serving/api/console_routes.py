"""Handlers of the console: its pages, the numbers they ask for every few seconds, its files.

A browser gets the page at ``/``, every other client the plain text it always got (by Accept). Pages are for those who
may ``read``; a browser that shows no credentials is asked for them (HTTP Basic). Where there are no keys, a page is
only for who has come by a name of this machine: or any site could point a name of its own here and read (DNS
rebinding; ``reliability.md``, "browser-borne requests to loopback").
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from serving.api import async_routes, auth, invocations, verdicts
from serving.api.console import assets, capacity, compared, gathering, pages, work
from serving.api.console.facts import find
from serving.api.console.markup import Html
from serving.api.front import Front
from serving.api.requests import body_of, headers_of, target_of
from serving.errors import AccessDenied, ResourceNotFound, ServingError, UnknownEndpoint, ValidationError

_HTML = {"content-type": "text/html; charset=utf-8", **pages.HEADERS}
_JSON = {"content-type": "application/json", "cache-control": "no-store", "x-content-type-options": "nosniff"}
_FOREVER, _REVALIDATE = "private, max-age=31536000, immutable", "private, no-cache"
_NUMBER = re.compile(r"[0-9]{1,12}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
#: What the console's script accepts begins so.
_SCRIPT = "/vnd.serving."
_LONGEST_QUERY = 63
_MOST_CALLS = 12


async def root(front: Front, request: Request) -> Response:
    """GET /: the overview for a browser, plain words for all others."""
    if wants_page(request.headers.get("accept", "")):
        return await _overview(front, request)
    return _words(front)


async def console(front: Front, request: Request) -> Response:
    """GET /console: the overview too, and for its script the numbers (JSON).

    The numbers are not further down, at a path of their own, as browsers show the credentials that they were asked for
    at one path to those beside and below it (RFC 7617, 2.2): asked for here, they go with the calls of the form."""
    if wants_page(request.headers.get("accept", "")):
        return await _overview(front, request)
    return await _data(front, request)


async def _overview(front: Front, request: Request) -> Response:
    check_host(front, request)
    asked, at = _asked(request)
    told = await gathering.history(front)
    facts = await gathering.facts(front, told)
    return Response(pages.overview(facts, asked, at), 200, _HTML)


def _words(front: Front) -> Response:
    """Where one is."""
    lines = ["serving: an inference server that speaks SageMaker", ""]
    lines += [f"POST /endpoints/{name}/invocations" for name in front.directory.endpoints]
    return PlainTextResponse("\n".join([*lines, "GET  /endpoints", "GET  /metrics", ""]), headers={"vary": "Accept"})


async def endpoint(front: Front, request: Request) -> Response:
    """GET /console/endpoints/{name}: the page of one endpoint."""
    check_host(front, request)
    name = request.path_params["name"]
    row = find(front.directory.table["endpoints"], name)
    if row is None:
        raise UnknownEndpoint(f"Endpoint {name} of account {front.settings.account_id} not found.")
    told = await gathering.history(front, name)
    facts = await gathering.facts(front, told, name)
    page = pages.endpoint(facts, row, await _may_invoke(front, request, name), _base(request))
    return Response(page, 200, _HTML)


async def _data(front: Front, request: Request) -> Response:
    """``?since=&endpoint=&q=&at=&have=``: the points after a sample, and the panels that have changed. ``have`` names
    those that the page shows, as ``id:fingerprint`` with commas between."""
    _check_ours(front, request)
    query = request.query_params
    name, since = query.get("endpoint", ""), query.get("since", "0")
    if not _NUMBER.fullmatch(since):
        raise ValidationError("since must be the number of a sample.")
    if name and find(front.directory.table["endpoints"], name) is None:
        raise UnknownEndpoint(f"Endpoint {name} of account {front.settings.account_id} not found.")
    told = await gathering.history(front, name, int(since))
    panels = await _panels(front, told, name, *_asked(request))
    have = dict(one.partition(":")[::2] for one in query.get("have", "").split(",")[:32])
    changed = {id: one for id, one in panels.items() if have.get(id) != one["print"]}
    numbers = {key: told[key] for key in ("number", "next", "reset", "times", "lines", "server")}
    targets = capacity.targets(await gathering.scaling(front, name))
    return Response(orjson.dumps({**numbers, "targets": targets, "panels": changed}), 200, _JSON)


async def _panels(front: Front, told: Mapping[str, Any], name: str, asked: str, at: int) -> Mapping[str, Any]:
    """The panels of a page, made once for each sample."""

    async def make() -> Mapping[str, Any]:
        facts = await gathering.facts(front, told, name)
        row = find(facts.rows, name)
        made = pages.endpoint_panels(facts, row) if row else pages.overview_panels(facts, asked, at)
        return {one.id: {"html": one.content, "print": _print(one.content)} for one in made}

    key = ("panels", name, asked, at)
    panels: Mapping[str, Any] = await front.shared.get(key, make, lambda _: min(1.0, float(told["next"])))
    return panels


def _print(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


async def verdict(front: Front, request: Request) -> Response:
    """GET /console/endpoints/{name}/verdict: which variant is better, as a part of a page or a page of its own."""
    _check_ours(front, request)
    told = orjson.loads((await verdicts.verdict(front, request)).body)
    return _found(request, "Which variant is better", compared.verdict(told))


async def shadow_report(front: Front, request: Request) -> Response:
    """GET /console/endpoints/{name}/shadow-report: the same of what a shadow variant answers."""
    _check_ours(front, request)
    told = orjson.loads((await verdicts.shadow_report(front, request)).body)
    return _found(request, "What a shadow would have answered", compared.shadow(told))


async def calls(front: Front, request: Request) -> Response:
    """GET /console/endpoints/{name}/calls: its newest asynchronous calls, for those who may invoke it."""
    _check_ours(front, request)
    told = orjson.loads((await async_routes.list_calls(front, request)).body)
    return _found(request, "Newest calls", work.calls(told["AsyncInvocations"][:_MOST_CALLS]))


def _found(request: Request, heading: str, content: Html) -> Response:
    if wants_page(request.headers.get("accept", "")):
        return Response(pages.found(request.path_params["name"], heading, content), 200, _HTML)
    return Response(content.encode(), 200, _HTML)


async def static(front: Front, request: Request) -> Response:
    """GET /console/static/{file}: kept by browsers for good under the URL that pages name, which has the file's
    fingerprint."""
    found = assets.asset(request.path_params["file"])
    if found is None:
        raise ResourceNotFound("There is no such file.")
    fingerprint = found.etag.strip('"')
    headers = {
        "content-type": found.content_type,
        "etag": found.etag,
        "cache-control": _FOREVER if request.query_params.get("v") == fingerprint else _REVALIDATE,
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
        "vary": "Accept-Encoding",
    }
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, 200, {**headers, "content-encoding": "gzip"})
    return Response(found.body, 200, headers)


# -- who asks, and for what --------------------------------------------------------------------------------------------


def wants_page(accept: str) -> bool:
    """Does a client take HTML, by name? ``*/*`` is what everybody sends who does not care."""
    for part in accept.lower().split(","):
        kind, *parameters = (text.strip() for text in part.split(";"))
        if kind in ("text/html", "application/xhtml+xml"):
            return not any(re.fullmatch(r"q=0(\.0*)?", one) for one in parameters)
    return False


def _asked(request: Request) -> tuple[str, int]:
    """Part of a name, and which page of the table."""
    asked, at = request.query_params.get("q", ""), request.query_params.get("at", "0")
    return asked.strip()[:_LONGEST_QUERY], int(at) if re.fullmatch(r"[0-9]{1,4}", at, re.ASCII) else 0


async def _may_invoke(front: Front, request: Request, name: str) -> bool:
    if front.keys is None:
        return True
    body = await body_of(front, request)
    identity = invocations.identify(front, request.method, target_of(request), headers_of(request), body, time.time())
    return identity is not None and auth.may_invoke_some(identity, name)


def _base(request: Request) -> str:
    """The URL this server was reached under, as far as the Host header is one."""
    host = request.headers.get("host", "")
    return f"http://{host if _HOST.fullmatch(host) else '127.0.0.1:8080'}"


def check_host(front: Front, request: Request) -> None:
    """Where no key guards the pages, or what callers sent. Raises ``AccessDenied`` for a name that is not this
    machine's."""
    if front.keys is not None:
        return
    found = _HOST.fullmatch(request.headers.get("host", ""))
    name = found[1].strip("[]").lower() if found else ""
    if name in ("localhost", front.settings.host.lower()) or name.endswith(".localhost"):
        return
    try:
        if ipaddress.ip_address(name).is_loopback:
            return
    except ValueError:
        pass
    raise AccessDenied("Without access keys this is only shown under the name localhost or a loopback address.")


def _check_ours(front: Front, request: Request) -> None:
    """What a page's script asks for is for our pages: another site's would only make us work (browsers say whose page
    asks: Fetch Metadata, Sec-Fetch-Site). Raises ``AccessDenied``."""
    check_host(front, request)
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise AccessDenied("A page of another site may not use this server.")


def is_page(request: Request) -> bool:
    """Is it one of the console's pages that a browser asks for?"""
    path = request.scope["path"]
    paged = path in ("/", "/console") or path.startswith("/console/endpoints/")
    return bool(request.method == "GET" and paged and wants_page(request.headers.get("accept", "")))


def refused(front: Front, request: Request, error: ServingError) -> Response:
    """A refusal as a page."""
    status = 404 if isinstance(error, UnknownEndpoint) else error.status
    headers = {**_HTML, "x-amzn-RequestId": request.state.request_id}
    return Response(pages.refusal(f"{status} {error.code}", error.message), status, headers)


def challenge(front: Front, request: Request, refusal: Response) -> Response:
    """A refusal that asks a browser for credentials, as HTTP Basic, where it or a page's script has shown none that are
    any good. Who does not say so by Accept is no browser, and gets what AWS's clients know."""
    by_script = _SCRIPT in request.headers.get("accept", "")
    if front.keys is not None and (by_script or is_page(request)) and not _proven(request, front.keys):
        refusal.status_code = 401
        refusal.headers["www-authenticate"] = 'Basic realm="serving", charset="UTF-8"'
    return refusal


def _proven(request: Request, keys: Mapping[str, auth.AccessKey]) -> bool:
    """Did the browser show a key and its secret?"""
    try:
        auth.screen(headers_of(request), keys, time.time())
    except ServingError:
        return False
    return True
