"""Signatures of real AWS clients are accepted; the same requests with anything changed are not."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from serving.api.auth import (
    ACTIONS,
    AccessKey,
    Identity,
    Request,
    authenticate,
    key_for,
    load_keys,
    permits,
    scoped_region,
    screen,
    sign,
)
from serving.errors import AccessDenied, ConfigError, InvalidSignature

KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ("invoke",))
OTHER = AccessKey("AKIDOTHER", "another-secret-of-good-length", ("read",))
KEYS = {KEY.key_id: KEY, OTHER.key_id: OTHER}
ME = Identity(KEY.key_id, KEY.permissions)


class Captured(Exception):
    """Not an error: carries the request out of the client before it would be sent."""


def as_arrived(prepared: Any) -> Request:
    """A prepared botocore request as a server reads it off the wire. The HTTP library adds Host itself."""
    url = urlsplit(prepared.url)
    headers = [(name.lower().encode(), _bytes(value)) for name, value in prepared.headers.items()]
    body = prepared.body or b""
    body = body.read() if hasattr(body, "read") else _bytes(body)
    return Request(prepared.method, url.path or "/", url.query, [(b"host", url.netloc.encode()), *headers], body)


def _bytes(value: str | bytes) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else value


def client(service: str, secret: str = KEY.secret, url: str = "http://127.0.0.1:8080", token: str = "") -> Any:
    """An unmodified boto3 client with static keys, or temporary ones."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id=KEY.key_id,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        config=Config(retries={"total_max_attempts": 1}),
    )


def sent(call: Callable[[Any], object], service: str = "sagemaker-runtime", **options: str) -> Request:
    """What ``call`` puts on the wire."""
    held: list[Request] = []

    def catch(request: Any, **_: object) -> AWSResponse:
        held.append(as_arrived(request))
        raise Captured

    made = client(service, **options)
    made.meta.events.register("before-send", catch)
    with pytest.raises(Captured):
        call(made)
    return held[0]


CALLS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "plain": ("sagemaker-runtime", lambda c: c.invoke_endpoint(EndpointName="default", Body=b"1,2,3")),
    "every header": (
        "sagemaker-runtime",
        lambda c: c.invoke_endpoint(
            EndpointName="a-b",
            Body=b"\x00\xff" * 500,
            ContentType="text/csv; charset=utf-8",
            Accept="application/json;q=0.5,  text/csv",
            CustomAttributes="c=1  two  blanks",
            TargetModel="team a/%2F+~model.tar.gz",
            TargetVariant="blue",
            InferenceId="id",
            SessionId="NEW_SESSION",
        ),
    ),
    "empty body": ("sagemaker-runtime", lambda c: c.invoke_endpoint(EndpointName="default", Body=b"")),
    "text body": ("sagemaker-runtime", lambda c: c.invoke_endpoint(EndpointName="default", Body="ä,1")),
    "file body": (
        "sagemaker-runtime",
        lambda c: c.invoke_endpoint(EndpointName="default", Body=io.BytesIO(b"1\n" * 9)),
    ),
    "odd endpoint name": ("sagemaker-runtime", lambda c: c.invoke_endpoint(EndpointName="a b%/ü+*~", Body=b"1")),
    "stream": (
        "sagemaker-runtime",
        lambda c: c.invoke_endpoint_with_response_stream(EndpointName="default", Body=b"1", ContentType="text/csv"),
    ),
    "async": (
        "sagemaker-runtime",
        lambda c: c.invoke_endpoint_async(EndpointName="default", InputLocation="s3://b/k", ContentType="text/csv"),
    ),
    "sagemaker": ("sagemaker", lambda c: c.list_endpoints(MaxResults=3)),
    "autoscaling": (
        "application-autoscaling",
        lambda c: c.describe_scalable_targets(ServiceNamespace="sagemaker"),
    ),
    "cloudwatch": ("cloudwatch", lambda c: c.describe_alarms(MaxRecords=5)),
}


@pytest.fixture(scope="module")
def calls() -> dict[str, Request]:
    """Every call of ``CALLS`` as it arrives."""
    return {name: sent(call, service) for name, (service, call) in CALLS.items()}


def accepted(request: Request, now: float | None = None) -> Identity:
    """The caller, by a clock that shows the moment of signing unless told otherwise."""
    return authenticate(request, KEYS, stamp_of(request) if now is None else now)


def stamp_of(request: Request) -> float:
    """The moment of signing, seconds since 1970."""
    return datetime.strptime(header(request, b"x-amz-date") + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()


def header(request: Request, name: bytes) -> str:
    """One header as text."""
    return dict(request.headers)[name].decode("latin-1")


def with_header(request: Request, name: bytes, value: bytes | None) -> Request:
    """The request with one header replaced, added, or (``None``) left out."""
    kept = [pair for pair in request.headers if pair[0] != name]
    return request._replace(headers=kept if value is None else [*kept, (name, value)])


@pytest.mark.parametrize("name", CALLS)
def test_unmodified_clients_are_accepted(calls: dict[str, Request], name: str) -> None:
    """Every form of request that boto3 signs for our services proves who sent it."""
    assert ME == accepted(calls[name], time.time())


def test_a_port_that_is_the_default_is_not_part_of_host() -> None:
    """On port 80 clients send and sign the bare name."""
    assert ME == accepted(sent(lambda c: c.invoke_endpoint(EndpointName="e", Body=b"1"), url="http://models.local"))


def test_a_prefix_in_the_endpoint_url_is_signed_too() -> None:
    """A path in the client's URL is part of the raw path."""
    request = sent(lambda c: c.invoke_endpoint(EndpointName="e", Body=b"1"), url="http://127.0.0.1:8080/v 1/x")
    assert ME == accepted(request)


@given(query=st.lists(st.tuples(st.text("abAB%2F-_. ", max_size=4), st.text("xyz=%20", max_size=4)), max_size=4))
def test_queries_are_signed_in_any_order(query: list[tuple[str, str]]) -> None:
    """botocore sorts the pairs of a query as they stand; so do we."""
    raw = "&".join(f"{name}={value}" for name, value in query).replace(" ", "+")
    request = AWSRequest("GET", f"http://127.0.0.1:8080/metrics?{raw}")
    SigV4Auth(Credentials(KEY.key_id, KEY.secret), "sagemaker", "us-east-1").add_auth(request)
    arrived = as_arrived(request.prepare())
    assert ME == accepted(arrived._replace(query=raw))


# --- anything changed -----------------------------------------------------------------------------------------------


@given(data=st.data())
@pytest.mark.parametrize("name", ["plain", "every header", "sagemaker"])
def test_one_changed_byte_anywhere_is_refused(calls: dict[str, Request], name: str, data: st.DataObject) -> None:
    """Method, path, query, every signed header and the body are covered."""
    request = calls[name]
    signed = header(request, b"authorization").split("SignedHeaders=")[1].split(",")[0].split(";")
    part = data.draw(st.sampled_from(["method", "path", "query", "body", *signed]))
    if part in ("method", "path", "query"):
        changed = request._replace(**{part: mutate(data, getattr(request, part))})
    elif part == "body":
        changed = request._replace(body=mutate(data, request.body.decode("latin-1")).encode("latin-1"))
    else:
        value = mutate(data, header(request, part.encode())).encode("latin-1")
        if value.split() == header(request, part.encode()).encode("latin-1").split():
            return  # blanks at the ends, or more of them: the same value by RFC 9110 and by SigV4
        changed = with_header(request, part.encode(), value)
    with pytest.raises((InvalidSignature, AccessDenied)):
        accepted(changed, stamp_of(request))


def mutate(data: st.DataObject, text: str) -> str:
    """``text`` with one character changed, added or taken away."""
    at = data.draw(st.integers(0, len(text)))
    new = data.draw(st.sampled_from("aZ09/.%-&=; \x00é"))
    tail = text[at + 1 :] if data.draw(st.booleans()) else text[at:]
    changed = text[:at] + new + tail
    return changed if changed != text else text + "x"


@given(signature=st.text("0123456789abcdef", min_size=64, max_size=64))
def test_no_guessed_signature_is_accepted(calls: dict[str, Request], signature: str) -> None:
    """Well-formed is not enough."""
    good, _, _ = header(calls["plain"], b"authorization").rpartition("=")
    with pytest.raises(InvalidSignature):
        accepted(with_header(calls["plain"], b"authorization", f"{good}={signature}".encode()))


@given(
    text=st.text(max_size=200) | st.from_regex(r"AWS4-HMAC-SHA256 [A-Za-z]+=[ -~]{0,60}(, ?[A-Za-z]+=[ -~]{0,60}){0,4}")
)
def test_any_authorization_header_gets_an_answer(text: str) -> None:
    """Whatever stands in the header, the answer is a refusal and not a failure of ours."""
    headers = [(b"authorization", text.encode("utf-8", "replace")), (b"x-amz-date", b"20260101T000000Z")]
    with pytest.raises((InvalidSignature, AccessDenied)):
        authenticate(Request("POST", "/", "", headers), KEYS, 0.0)


def test_no_credentials_are_refused(calls: dict[str, Request]) -> None:
    """A server with keys answers nobody without."""
    with pytest.raises(AccessDenied):
        accepted(with_header(calls["plain"], b"authorization", None))


def test_an_unknown_key_is_refused(calls: dict[str, Request]) -> None:
    """A perfect signature of a stranger is a stranger's."""
    with pytest.raises(AccessDenied):
        authenticate(calls["plain"], {OTHER.key_id: OTHER}, time.time())


def test_a_wrong_secret_is_refused() -> None:
    """The key id alone proves nothing."""
    request = sent(lambda c: c.invoke_endpoint(EndpointName="e", Body=b"1"), secret="x" * 20)
    with pytest.raises(InvalidSignature):
        accepted(request)


@pytest.mark.parametrize(("seconds", "good"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_a_signature_lives_five_minutes(calls: dict[str, Request], seconds: int, good: bool) -> None:
    """Either way, so that clocks may differ."""
    now = stamp_of(calls["plain"]) + seconds
    if good:
        assert ME == accepted(calls["plain"], now)
    else:
        with pytest.raises(InvalidSignature):
            accepted(calls["plain"], now)


def resigned(request: Request, *, drop: str = "", service: str = "sagemaker") -> Request:
    """The request signed again by its owner, but without covering ``drop``, or for another service."""

    class Signer(SigV4Auth):
        def headers_to_sign(self, unsigned: AWSRequest) -> Any:
            kept = super().headers_to_sign(unsigned)
            del kept[drop]
            return kept

    again = AWSRequest(request.method, f"http://127.0.0.1:8080{request.path}", data=request.body)
    for name, value in request.headers:
        if name not in (b"host", b"authorization", b"x-amz-date"):
            again.headers[name.decode()] = value.decode("latin-1")
    Signer(Credentials(KEY.key_id, KEY.secret), service, "us-east-1").add_auth(again)
    return as_arrived(again.prepare())


@pytest.mark.parametrize("drop", ["host", "x-amz-date", "content-type", "x-amzn-sagemaker-target-model"])
def test_a_partial_signature_is_refused(calls: dict[str, Request], drop: str) -> None:
    """A header that decides something must be covered, though the signature itself is right."""
    assert ME == accepted(resigned(calls["every header"]))
    with pytest.raises(InvalidSignature, match="must be signed"):
        accepted(resigned(calls["every header"], drop=drop))


def test_a_header_added_after_signing_is_refused(calls: dict[str, Request]) -> None:
    """Or a replayed call would reach another model."""
    with pytest.raises(InvalidSignature):
        accepted(with_header(calls["plain"], b"x-amzn-sagemaker-target-model", b"other.tar.gz"))


def test_a_trace_id_added_by_a_proxy_is_fine(calls: dict[str, Request]) -> None:
    """Load balancers add it on the way."""
    assert ME == accepted(with_header(calls["plain"], b"x-amzn-trace-id", b"Root=1-2-3"))


def test_a_signed_header_given_twice_is_refused(calls: dict[str, Request]) -> None:
    """Signer and server might read different ones."""
    request = calls["every header"]
    for name in (b"x-amzn-sagemaker-target-model", b"content-type", b"host"):
        with pytest.raises(InvalidSignature, match="once"):
            accepted(request._replace(headers=[*request.headers, (name, b"other")]))


def test_a_deciding_header_given_twice_is_refused_unsigned_too() -> None:
    """HTTP Basic covers no header: one TargetModel would be permitted and the other invoked."""
    target = b"x-amzn-sagemaker-target-model"
    headers = [*basic(f"AKIDOTHER:{OTHER.secret}").headers, (target, b"mine"), (target, b"yours")]
    with pytest.raises(InvalidSignature, match="once"):
        authenticate(Request("POST", "/", "", headers), KEYS, 0.0)


def test_a_signature_for_another_service_is_refused(calls: dict[str, Request]) -> None:
    """One that was made for S3 must not invoke."""
    with pytest.raises(InvalidSignature, match="service"):
        accepted(resigned(calls["plain"], service="s3"))


@pytest.mark.parametrize(
    "path",
    ["/x/../endpoints/default/invocations", "//endpoints/default/invocations", "/./endpoints/default/invocations"],
)
def test_only_the_normal_spelling_of_a_path_is_accepted(calls: dict[str, Request], path: str) -> None:
    """Signers normalise before they sign: other spellings of the path carry the very same signature."""
    with pytest.raises(InvalidSignature, match="parts"):
        accepted(calls["plain"]._replace(path=path))


def test_an_unsigned_payload_is_refused(calls: dict[str, Request]) -> None:
    """A client may announce the body's hash, but must mean it."""
    request = with_header(calls["plain"], b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")
    with pytest.raises(InvalidSignature, match="body"):
        accepted(resigned(request))


def test_a_stranger_is_screened_before_the_body(calls: dict[str, Request]) -> None:
    """Without the body: an unknown key, an old date and a missing header are seen; a known key passes on."""
    headers = calls["plain"].headers
    with pytest.raises(AccessDenied):
        screen(headers, {}, time.time())
    with pytest.raises(InvalidSignature):
        screen(headers, KEYS, 0.0)
    assert not isinstance(screen(headers, KEYS, stamp_of(calls["plain"])), Identity)


def test_our_own_signer_is_accepted() -> None:
    """What the command line sends, checked by the same verifier that boto3 passes."""
    request = Request(
        "POST", "/endpoints/e/invocations", "", [(b"host", b"h:1"), (b"content-type", b"text/csv")], b"1,2"
    )
    signed = request._replace(headers=[*request.headers, *sign(request, KEY, "us-east-1", 1e9)])
    assert ME == authenticate(signed, KEYS, 1e9)


def test_a_session_token_is_one_more_signed_header() -> None:
    """Clients with temporary credentials send it; it says nothing here, but nobody may add or change it."""
    request = sent(lambda c: c.invoke_endpoint(EndpointName="e", Body=b"1"), token="FwoGZXIvYXdzE+/=token")
    name = b"x-amz-security-token"
    assert ME == accepted(request)
    for value in (None, b"another"):
        with pytest.raises(InvalidSignature):
            accepted(with_header(request, name, value))
    plain = sent(lambda c: c.invoke_endpoint(EndpointName="e", Body=b"1"))
    with pytest.raises(InvalidSignature, match="must be signed"):
        accepted(with_header(plain, name, b"added"))


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("date", "20200101"),
        ("date", "2020-01-01"),
        ("region", "EU-WEST-1"),
        ("region", ""),
        ("region", "eu-west-1/extra"),
        ("region", "e" * 33),
        ("service", "s3"),
        ("service", ""),
        ("end", "aws2_request"),
        ("end", "aws4_request/x"),
        ("end", ""),
    ],
)
def test_a_scope_is_whole_or_nothing(calls: dict[str, Request], part: str, changed: str) -> None:
    """KEY/DATE/REGION/SERVICE/aws4_request, its date the day of signing."""
    scope = header(calls["plain"], b"authorization").partition("Credential=")[2].partition(",")[0]
    parts = dict(zip(("key", "date", "region", "service", "end"), scope.split("/"), strict=True)) | {part: changed}
    text = header(calls["plain"], b"authorization").replace(scope, "/".join(parts.values()))
    with pytest.raises(InvalidSignature):
        accepted(with_header(calls["plain"], b"authorization", text.encode()), stamp_of(calls["plain"]))


def test_another_region_is_another_signature(calls: dict[str, Request]) -> None:
    """The server is in none, but what was signed for one is not good for the next."""
    text = header(calls["plain"], b"authorization").replace("eu-west-1", "us-east-1")
    with pytest.raises(InvalidSignature, match="does not match"):
        accepted(with_header(calls["plain"], b"authorization", text.encode()), stamp_of(calls["plain"]))


def test_the_region_of_a_call_is_its_scopes(calls: dict[str, Request]) -> None:
    """ARNs in answers are of the region the client believes it is in."""
    assert "eu-west-1" == scoped_region(calls["plain"].headers)
    for value in (b"Basic abc", b"AWS4-HMAC-SHA256 Credential=K/20200101/EU/sagemaker/aws4_request", b"", b"\xff"):
        assert "" == scoped_region([(b"authorization", value)])
    assert "" == scoped_region([])


# --- secrets shown: Basic, Bearer, X-Api-Key -----------------------------------------------------------------------


def shown(text: str) -> list[Request]:
    """Two ways for a plain HTTP client to show a key."""
    value = text.encode("utf-8", "surrogateescape")
    pairs = [(b"x-api-key", value), (b"authorization", b"Bearer " + value)]
    return [Request("POST", "/invocations", "", [pair]) for pair in pairs]


@pytest.mark.parametrize("request_", shown(f"AKIDOTHER:{OTHER.secret}"), ids=["X-Api-Key", "Bearer"])
def test_an_api_key_header_is_accepted(request_: Request) -> None:
    """The same key, the same permissions; before the body has arrived."""
    assert Identity("AKIDOTHER", ("read",)) == authenticate(request_, KEYS, 0.0)
    assert Identity("AKIDOTHER", ("read",)) == screen(request_.headers, KEYS, 0.0)


@given(
    text=st.text(max_size=40)
    | st.sampled_from([f"AKIDOTHER:{OTHER.secret}x", f"AKIDOTHER:{KEY.secret}", OTHER.secret, ":", "AKIDOTHER:", ""])
)
def test_another_api_key_is_refused(text: str) -> None:
    """An unknown id, a wrong or missing secret, or the secret alone; none is repeated in the answer."""
    for request in shown(text):
        with pytest.raises(AccessDenied) as caught:
            authenticate(request, KEYS, 0.0)
        assert len(text) < 9 or text not in caught.value.message


def test_two_kinds_of_credentials_are_refused(calls: dict[str, Request]) -> None:
    """Whose permissions would count?"""
    for request in (calls["plain"], *shown(f"AKIDOTHER:{OTHER.secret}")[1:]):
        with pytest.raises(InvalidSignature, match="more than one"):
            accepted(with_header(request, b"x-api-key", f"AKIDOTHER:{OTHER.secret}".encode()), 0.0)


def test_a_deciding_header_given_twice_is_refused_with_an_api_key_too() -> None:
    """It covers no header either."""
    target = b"x-amzn-sagemaker-target-model"
    for request in shown(f"AKIDOTHER:{OTHER.secret}"):
        with pytest.raises(InvalidSignature, match="once"):
            accepted(request._replace(headers=[*request.headers, (target, b"mine"), (target, b"yours")]), 0.0)


def basic(text: str) -> Request:
    """A scraper's request."""
    return Request("GET", "/metrics", "", [(b"authorization", b"Basic " + base64.b64encode(text.encode()))])


def test_basic_credentials_are_accepted() -> None:
    """For scrapers and ``curl -u``."""
    assert Identity("AKIDOTHER", ("read",)) == authenticate(basic(f"AKIDOTHER:{OTHER.secret}"), KEYS, 0.0)


@given(
    text=st.text(max_size=40)
    | st.sampled_from([f"AKIDOTHER:{OTHER.secret} ", f"AKIDOTHER:{KEY.secret}", ":", "AKIDOTHER:"])
)
def test_other_basic_credentials_are_refused(text: str) -> None:
    """An unknown id, a wrong, empty or non-ASCII secret."""
    with pytest.raises(AccessDenied):
        authenticate(basic(text), KEYS, 0.0)


def test_broken_basic_credentials_are_refused() -> None:
    """What is no base64, or no UTF-8."""
    for value in (b"Basic ???", b"Basic /////w==", b"Basic", b"basic "):
        with pytest.raises(AccessDenied):
            authenticate(Request("GET", "/", "", [(b"authorization", value)]), KEYS, 0.0)


# --- permissions ----------------------------------------------------------------------------------------------------

GRANTS = [
    ("*", "manage", "", "", True),
    ("*", "invoke", "e", "m", True),
    ("invoke", "invoke", "e", "m", True),
    ("invoke", "read", "", "", False),
    ("read", "manage", "", "", False),
    ("manage", "read", "", "", False),
    ("metrics", "metrics", "", "", True),
    ("invoke:team-*", "invoke", "team-a", "", True),
    ("invoke:team-*", "invoke", "team-a", "any/model", True),
    ("invoke:team-*", "invoke", "other", "", False),
    ("invoke:team-*", "invoke", "TEAM-a", "", False),
    ("invoke:e/a/*", "invoke", "e", "a/b/c.tar.gz", True),
    ("invoke:e/a/*", "invoke", "e", "b/c.tar.gz", False),
    ("invoke:e/a/*", "invoke", "e", "", False),
    ("invoke:e/a/*", "invoke", "e", "a/../b/c.tar.gz", False),
    ("invoke:e/a/*", "invoke", "e", "a//c", False),
    ("invoke:e/*", "invoke", "e", "", True),
    ("invoke:e/a", "read", "e", "a", False),
]


@pytest.mark.parametrize(("granted", "action", "endpoint", "model", "allowed"), GRANTS)
def test_a_permission_grants_what_it_says(granted: str, action: Any, endpoint: str, model: str, allowed: bool) -> None:
    """Each permission alone, against the call beside it."""
    assert allowed is permits(Identity("k", (granted,)), action, endpoint, model)


@pytest.mark.parametrize("action", ACTIONS)
def test_no_permission_grants_nothing(action: Any) -> None:
    """Least privilege is the start."""
    assert not permits(Identity("k", ()), action, "e", "m")


def test_the_key_that_may_is_chosen() -> None:
    """The command line signs with the first key that is allowed to do what it is about to."""
    assert OTHER == key_for(KEYS.values(), "read")
    assert key_for(KEYS.values(), "manage") is None


# --- the operator's file --------------------------------------------------------------------------------------------

GOOD = {"AccessKeyId": "AKID", "SecretAccessKey": "0123456789abcdef", "Permissions": ["invoke:a/*", "read"]}


def keys_file(folder: Path, value: object) -> Path:
    """A keys file (JSON is YAML)."""
    path = folder / "keys.yaml"
    path.write_text(json.dumps(value))
    return path


def test_keys_are_read_by_id(tmp_path: Path) -> None:
    """As documented."""
    expected = {"AKID": AccessKey("AKID", "0123456789abcdef", ("invoke:a/*", "read"))}
    assert expected == load_keys(keys_file(tmp_path, [GOOD]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "at least one"),
        ({}, "at least one"),
        (["x"], "mapping"),
        ([GOOD, GOOD], "two keys"),
        ([GOOD | {"Permission": []}], "did you mean 'Permissions'"),
        ([GOOD | {"AccessKeyId": "a/b"}], "AccessKeyId"),
        ([GOOD | {"SecretAccessKey": "short"}], "SecretAccessKey"),
        ([GOOD | {"Permissions": "invoke"}], "Permissions"),
        ([GOOD | {"Permissions": []}], "Permissions"),
        ([GOOD | {"Permissions": ["write"]}], "'write'"),
        ([GOOD | {"Permissions": ["invoke:"]}], "'invoke:'"),
        ([GOOD | {"Permissions": [7]}], "7"),
    ],
)
def test_a_wrong_keys_file_stops_the_start(tmp_path: Path, value: object, text: str) -> None:
    """With the field's name, and never the secret."""
    with pytest.raises(ConfigError, match=text) as caught:
        load_keys(keys_file(tmp_path, value))
    assert GOOD["SecretAccessKey"] not in str(caught.value)


def test_a_secret_is_not_shown() -> None:
    """Not in logs, not in a debugger's list of locals."""
    assert KEY.secret not in repr(KEY)
