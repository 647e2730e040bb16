"""What the terminal asks of calls that are answered later: sending one, following it, listing, cancelling, the answer.

The same requests as of any other HTTP client; paths and fields: ``api/async_routes.py``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from serving.client import Answer, Server, invocation_path
from serving.errors import ConfigError

HEADINGS = ("ID", "STATUS", "CREATED", "SECONDS", "ATTEMPTS", "INFERENCE ID")
#: Calls that are still to be answered.
OPEN = ("Queued", "InProgress")
#: One question that waits, in seconds: below the server's limit and our own patience.
_POLL_SECONDS = 50
_MOST_LISTED = 100

Call = Mapping[str, Any]


def calls_path(endpoint: str, id: str = "") -> str:
    """The path of an endpoint's asynchronous calls, or of one of them."""
    base = f"/endpoints/{quote(endpoint, safe='-_.~')}/async-invocations"
    return f"{base}/{quote(id, safe='-')}" if id else base


def send(server: Server, endpoint: str, body: bytes, location: str, headers: Mapping[str, str]) -> Answer:
    """Have a call answered later: of ``body``, or of the object at ``location``. ``headers``: those of a plain
    invocation. Raises ``ServiceUnavailable`` when nobody answers."""
    target = (endpoint, headers.get("X-Amzn-SageMaker-Target-Model", ""))
    if not location:
        wanted = {**headers, "Prefer": "respond-async"}
        return server.send("POST", invocation_path(endpoint), "invoke", body, wanted, target)
    renamed = {_RENAMED.get(name, name): value for name, value in headers.items()}
    named = {**renamed, "X-Amzn-SageMaker-InputLocation": location}
    return server.send("POST", calls_path(endpoint), "invoke", b"", named, target)


#: Headers that InvokeEndpointAsync has other names for (SageMaker Runtime API).
_RENAMED = {"Content-Type": "X-Amzn-SageMaker-Content-Type", "Accept": "X-Amzn-SageMaker-Accept"}


def sent(answer: Answer) -> dict[str, Any]:
    """What a 202 says, in InvokeEndpointAsync's own words; ``Id`` names the call on this server."""
    headers = answer.headers
    told = {
        "StatusCode": answer.status,
        "Id": headers.get("location", "").rpartition("/")[2],
        "InferenceId": json.loads(answer.body).get("InferenceId", ""),
        "OutputLocation": headers.get("x-amzn-sagemaker-outputlocation", ""),
        "FailureLocation": headers.get("x-amzn-sagemaker-failurelocation", ""),
    }
    return {name: value for name, value in told.items() if value}


def look(server: Server, endpoint: str, id: str, wait: float = 0.0) -> Call:
    """How a call stands; with ``wait`` as soon as it has ended, or after so many seconds. Raises ``Refused``."""
    path = calls_path(endpoint, id) + (f"?wait={wait:g}" if wait else "")
    return _asked(server, "GET", path, endpoint)


def follow(server: Server, endpoint: str, id: str, tell: Callable[[str], None]) -> Call:
    """How a call stands when it has ended. ``tell`` hears of every change on the way. Raises ``Refused``."""
    call = look(server, endpoint, id)
    said = ""
    while call["Status"] in OPEN:
        if call["Status"] != said:
            said = call["Status"]
            tell(standing(call))
        call = look(server, endpoint, id, _POLL_SECONDS)
    return call


def standing(call: Call) -> str:
    """In a few words, how far an open call is."""
    position = call.get("QueuePosition")
    ahead = f", {position} before it" if call["Status"] == "Queued" and position is not None else ""
    return f"{call['Id']} is {call['Status']}{ahead}"


def cancel(server: Server, endpoint: str, id: str) -> Call:
    """Cancel a call; how it stands then. Raises ``Refused``."""
    return _asked(server, "DELETE", calls_path(endpoint, id), endpoint)


def output(server: Server, endpoint: str, id: str) -> Answer:
    """The answer of a call, or why there is none."""
    return server.send("GET", calls_path(endpoint, id) + "/output", "invoke", target=(endpoint, ""))


def listed(server: Server, endpoint: str, status: str, most: int) -> list[Call]:
    """The newest calls of an endpoint, of one status if it is named. Raises ``Refused``."""
    found: list[Call] = []
    token = ""
    while len(found) < most:
        asked = {"status": status, "max": str(min(most - len(found), _MOST_LISTED)), "token": token}
        query = urlencode({name: value for name, value in asked.items() if value})
        page = _asked(server, "GET", f"{calls_path(endpoint)}?{query}", endpoint)
        found += page["AsyncInvocations"]
        token = page.get("NextToken") or ""
        if not token:
            break
    return found


def _asked(server: Server, method: str, path: str, endpoint: str) -> dict[str, Any]:
    answer = server.send(method, path, "invoke", target=(endpoint, ""))
    return server.told(answer)


# --- for a person ---------------------------------------------------------------------------------------------------


def row(call: Call, now: float) -> tuple[str, ...]:
    """A call's line in a table under ``HEADINGS``. ``now``: epoch seconds."""
    created = float(call["CreationTime"])
    seconds = (call.get("EndTime") or now) - created
    return (
        call["Id"],
        call["Status"],
        _moment(created),
        f"{max(0.0, seconds):.1f}",
        str(call.get("Attempts", "")),
        call.get("InferenceId", ""),
    )


def facts(call: Call) -> list[tuple[str, str]]:
    """What there is to say of a call."""
    moments = {name: _moment(call[name]) for name in ("CreationTime", "StartTime", "EndTime") if call.get(name)}
    return [(name, str(moments.get(name, value))) for name, value in call.items() if value not in (None, "")]


def rows(calls: list[Call]) -> list[tuple[str, ...]]:
    """Lines for all of them, as of now."""
    now = time.time()
    return [row(call, now) for call in calls]


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def check_input(body: str | None, location: str | None, later: bool) -> None:
    """Is it said, once, what the model is to be given? Raises ``ConfigError``."""
    if location is not None and not later:
        raise ConfigError("--input is for --async; give a plain call its --body.")
    if (body is None) == (location is None):
        raise ConfigError("Give the call its --body, or, with --async, an object by --input.")
