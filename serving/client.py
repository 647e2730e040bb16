"""What the command line needs of HTTP: one request to a server, signed when there are keys. Standard library only."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from serving.api.auth import AccessKey, Action, Request, key_for, load_keys, sign
from serving.api.services import SAGEMAKER, only_reads, service
from serving.config import Settings, client_keys, load_settings
from serving.errors import ConfigError, RequestRefused, ServiceUnavailable

#: Beyond the server's own 60 s for an invocation, as SageMaker advises its clients.
TIMEOUT_SECONDS = 70.0


class Answer(NamedTuple):
    """An HTTP answer; header names in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the server did what was asked."""
        return 200 <= self.status < 300

    @property
    def complaint(self) -> str:
        """What an error answer says, in one line."""
        try:
            fields = json.loads(self.body)
        except ValueError:
            fields = {}
        told = fields if isinstance(fields, dict) else {}
        code = self.headers.get("x-amzn-errortype") or told.get("__type") or self.reason
        text = told.get("Message") or told.get("message") or self.body[:500].decode("utf-8", "replace")
        return f"{self.status} {code}: {' '.join(str(text).split())}"


class Refused(RequestRefused):
    """The server said no, in its own words."""


class Server:
    """A server at a base URL, and the keys to sign with."""

    def __init__(self, url: str, settings: Settings) -> None:
        """``settings`` name the keys file, if there is one; otherwise the usual AWS variables are used, if set. Raises
        ``ConfigError`` when ``url`` is no http(s) URL."""
        self.url = url.rstrip("/")
        self._parts = _parsed(self.url)
        self._region = settings.region
        self._keys = _keys(settings)

    def send(
        self,
        method: str,
        path: str,
        action: Action,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        target: tuple[str, str] = ("", ""),
    ) -> Answer:
        """One request. ``path``: raw, below the base URL; ``action`` and ``target`` (endpoint, target model) choose
        the key. Raises ``ServiceUnavailable`` when nobody answers."""
        with self._asked(method, path, action, body, headers, target) as answer:
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.reason, found, answer.read())

    def stream(self, path: str, action: Action) -> Iterator[bytes]:
        """The lines of an answer as they come, for as long as the server sends. Raises ``Refused``, and
        ``ServiceUnavailable`` when nobody answers, or not to the end."""
        with self._asked("GET", path, action, b"", None, ("", "")) as answer:
            if not 200 <= answer.status < 300:
                found = {name.lower(): value for name, value in answer.getheaders()}
                raise Refused(Answer(answer.status, answer.reason, found, answer.read()).complaint)
            yield from answer

    @contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        action: Action,
        body: bytes,
        headers: Mapping[str, str] | None,
        target: tuple[str, str],
    ) -> Iterator[http.client.HTTPResponse]:
        raw = self._parts.path.rstrip("/") + path
        pairs = [(name.lower().encode(), _latin(name, value)) for name, value in (headers or {}).items()]
        pairs.insert(0, (b"host", self._host().encode()))
        key = key_for(self._keys, action, *target)
        if key is not None:
            plain, _, query = raw.partition("?")
            pairs += sign(Request(method, plain, query, pairs, body), key, self._region, time.time())
        connection = self._connection()
        try:
            connection.putrequest(method, raw, skip_host=True, skip_accept_encoding=True)
            for name, value in [*pairs, (b"content-length", str(len(body)).encode())]:
                connection.putheader(name.decode(), value)
            connection.endheaders(body or None)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise ServiceUnavailable(f"No answer from {self.url} ({_why(error)}). Is a server running there?") from None
        finally:
            connection.close()

    def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """One operation of a control API, behind its prefix and a dot where it is not SageMaker's; the answer is empty
        for those that have none. Raises ``Refused``, and ``ServiceUnavailable`` when nobody answers."""
        target = operation if "." in operation else f"{SAGEMAKER}.{operation}"
        headers = {"Content-Type": service(target).dress.content_type, "X-Amz-Target": target}
        action: Action = "read" if only_reads(target) else "manage"
        return self.told(self.send("POST", "/", action, json.dumps(params).encode(), headers))

    def told(self, answer: Answer) -> dict[str, Any]:
        """The JSON object of an answer; an empty body is an empty one. Raises ``Refused`` for any other."""
        if not answer.ok:
            raise Refused(answer.complaint)
        try:
            found = json.loads(answer.body or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refused(f"{self.url} does not answer as this API does.")
        return found

    def _host(self) -> str:
        """The Host header; a port that is the scheme's default is left out, as signers do."""
        return self._parts.netloc.removesuffix(":80" if self._parts.scheme == "http" else ":443")

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_SECONDS)


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = None
    if not good or parts.query or parts.username or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{url!r} is not a server's URL; expected one such as http://127.0.0.1:8080.")
    return parts


def _keys(settings: Settings) -> tuple[AccessKey, ...]:
    if settings.access_keys is not None:
        return tuple(load_keys(settings.access_keys).values())
    usual = client_keys()
    return (AccessKey(*usual, ("*",)),) if usual else ()


def _latin(name: str, value: str) -> bytes:
    if not value.isprintable():
        raise ConfigError(f"The value of {name} must be printable.")
    try:
        return value.strip().encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigError(f"The value of {name} has characters that an HTTP header cannot hold.") from None


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {TIMEOUT_SECONDS:g} seconds"
    return (error.strerror if isinstance(error, OSError) else "") or type(error).__name__


def base_url(settings: Settings) -> str:
    """Where a server with these settings listens; one that listens everywhere is asked on loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host).strip("[]")
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def invocation_path(endpoint: str) -> str:
    """The path of an endpoint's invocations, encoded as AWS clients encode it."""
    return f"/endpoints/{quote(endpoint, safe='-_.~')}/invocations"


def timing(header: str) -> dict[str, Any]:
    """The receipt in an ``X-Serving-Timing`` header: microseconds by step, ``batch`` and ``hit``."""
    pairs = (part.strip().partition("=")[::2] for part in header.split(";") if "=" in part)
    return {name: int(value) for name, value in pairs if value.isdecimal()}


#: Media type by a file's ending.
_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".libsvm": "text/libsvm",
    ".pbr": "application/x-recordio-protobuf",
    ".txt": "text/csv",
}


def media_type_of(name: str) -> str:
    """By a file's or object's name; empty when that does not tell."""
    return _TYPES.get(Path(name).suffix.lower(), "")


def guessed_type(text: str, data: bytes) -> str:
    """By a file's name, else by how the body begins."""
    if text.startswith("@"):
        return media_type_of(text) or "application/octet-stream"
    return "application/json" if data.lstrip()[:1] in (b"[", b"{") else "text/csv"


def answer_fields(answer: Answer, elapsed: float) -> dict[str, Any]:
    """An answer in InvokeEndpoint's own words; ``Body`` is text, or base64 in ``BodyBase64``."""
    fields: dict[str, Any] = {
        "StatusCode": answer.status,
        "ContentType": answer.headers.get("content-type", ""),
        "InvokedProductionVariant": answer.headers.get("x-amzn-invoked-production-variant", ""),
        "RequestId": answer.headers.get("x-amzn-requestid", ""),
        "ElapsedMicroseconds": round(elapsed * 1e6),
        "Timing": timing(answer.headers.get("x-serving-timing", "")),
    }
    try:
        return fields | {"Body": answer.body.decode()}
    except UnicodeDecodeError:
        from base64 import b64encode

        return fields | {"BodyBase64": b64encode(answer.body).decode()}


def healthy(settings: Settings) -> bool:
    """Whether the server that these settings describe answers ``/ping`` with 200 (the Dockerfile's health check)."""
    try:
        return Server(base_url(settings), settings).send("GET", "/ping", "read").ok
    except ServiceUnavailable:
        return False


if __name__ == "__main__":
    sys.exit(0 if healthy(load_settings()) else 1)
