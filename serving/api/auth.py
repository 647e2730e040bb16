"""Who calls, and what they may do: SigV4, HTTP Basic and API-key headers against static keys.

Everything here is a function of values: no socket, no clock. Decisions are made on the raw path as it was routed,
never on a rebuilt URL (``reliability.md``, "Identity").

SigV4 as unmodified AWS clients sign (AWS, "Create a signed AWS API request"): the signature covers method, path,
query, the headers named in SignedHeaders, and the body's hash. A replay within the clock window is accepted, as by
AWS: clients repeat a signed request when a connection breaks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from urllib.parse import quote

from serving.config import did_you_mean, read_value
from serving.errors import AccessDenied, ConfigError, InvalidSignature

ALGORITHM = "AWS4-HMAC-SHA256"
CLOCK_SKEW = 300.0  # seconds, either way

#: Services whose signatures we are addressed by: sagemaker and sagemaker-runtime, autoscaling, cloudwatch.
SERVICES = frozenset({"sagemaker", "application-autoscaling", "monitoring"})

#: Headers that a proxy may add behind the signer's back; no route reads them.
_UNSIGNABLE = frozenset({b"x-amzn-trace-id", b"x-amz-cf-id"})

Action = Literal["invoke", "read", "manage", "metrics"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key the operator issued. ``permissions``: ``*``, an action, or ``invoke:ENDPOINT[/TARGET_MODEL]`` with
    shell-like patterns."""

    key_id: str
    secret: str = field(repr=False)
    permissions: tuple[str, ...]


class Identity(NamedTuple):
    """An authenticated caller."""

    key_id: str
    permissions: tuple[str, ...]


class Request(NamedTuple):
    """A request as it arrived. ``path``: raw, still percent-encoded, without the query; ``query``: raw, without
    ``?`` (both bytes decoded as Latin-1); ``headers``: names in lower case, in order of arrival."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes = b""


class Claim(NamedTuple):
    """What an Authorization header says of itself, before anything is proven."""

    key: AccessKey
    stamp: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        """The credential scope."""
        return f"{self.stamp[:8]}/{self.region}/{self.service}/aws4_request"


# --- permissions ----------------------------------------------------------------------------------------------------


def permits(identity: Identity, action: Action, endpoint: str = "", target_model: str = "") -> bool:
    """Whether the caller may do ``action``. For ``invoke`` also: on this endpoint, with this TargetModel (empty =
    none named). A name that is no plain relative path is never permitted by a pattern, as ``a/../b`` would match
    ``a/*``."""
    return any(_grants(granted, action, endpoint, target_model) for granted in identity.permissions)


def may_invoke_some(identity: Identity, endpoint: str) -> bool:
    """Whether the caller may invoke this endpoint with one TargetModel or another: what is worth offering."""
    patterns = (granted.removeprefix("invoke:").partition("/")[0] for granted in identity.permissions if ":" in granted)
    return permits(identity, "invoke", endpoint) or any(fnmatchcase(endpoint, pattern) for pattern in patterns)


def _grants(granted: str, action: Action, endpoint: str, target_model: str) -> bool:
    if granted in ("*", action):
        return True
    if action != "invoke" or not granted.startswith("invoke:"):
        return False
    endpoint_pattern, _, model_pattern = granted.removeprefix("invoke:").partition("/")
    if not fnmatchcase(endpoint, endpoint_pattern):
        return False
    plain = not {"", ".", ".."} & set(target_model.split("/")) if target_model else True
    return not model_pattern or (plain and fnmatchcase(target_model, model_pattern))


# --- the operator's keys --------------------------------------------------------------------------------------------


def load_keys(path: Path) -> dict[str, AccessKey]:
    """Keys by id from the operator's JSON or YAML list of ``{AccessKeyId, SecretAccessKey, Permissions}``.

    Raises ``ConfigError``; no message repeats a secret.
    """
    raw = read_value(path)
    if not isinstance(raw, list) or not raw:
        raise ConfigError(
            f"{path.name} must hold a list of at least one {{AccessKeyId, SecretAccessKey, Permissions}}."
        )
    keys: dict[str, AccessKey] = {}
    for index, item in enumerate(raw):
        key = _key(item, f"{path.name}[{index}]")
        if key.key_id in keys:
            raise ConfigError(f"{path.name} has two keys with AccessKeyId {key.key_id!r}.")
        keys[key.key_id] = key
    return keys


def _key(raw: object, where: str) -> AccessKey:
    names = ("AccessKeyId", "SecretAccessKey", "Permissions")
    if not isinstance(raw, dict):
        raise ConfigError(f"{where} must be a mapping of {', '.join(names)}.")
    for name in raw:
        if name not in names:
            raise ConfigError(f"{where} has no field {name!r}{did_you_mean(str(name), names)}.")
    key_id, secret, permissions = (raw.get(name) for name in names)
    if not isinstance(key_id, str) or not re.fullmatch(r"[\w-]{1,128}", key_id, re.ASCII):
        raise ConfigError(f"{where}.AccessKeyId must be a text of letters, digits, '_' and '-', at most 128.")
    if not isinstance(secret, str) or not re.fullmatch(r"[!-~]{16,256}", secret):
        raise ConfigError(f"{where}.SecretAccessKey must be a text of 16 to 256 visible ASCII characters.")
    if not isinstance(permissions, list) or not permissions:
        raise ConfigError(f"{where}.Permissions must be a list such as ['invoke', 'read'].")
    return AccessKey(key_id, secret, tuple(_permission(item, where) for item in permissions))


def _permission(raw: object, where: str) -> str:
    if isinstance(raw, str) and (raw in ("*", *ACTIONS) or re.fullmatch(r"invoke:[^/\s]+(/\S+)?", raw)):
        return raw
    raise ConfigError(
        f"{where}.Permissions has {raw!r}; expected *, {', '.join(ACTIONS)}, invoke:ENDPOINT_PATTERN or "
        "invoke:ENDPOINT_PATTERN/TARGET_MODEL_PATTERN."
    )


# --- authentication -------------------------------------------------------------------------------------------------


def authenticate(request: Request, keys: Mapping[str, AccessKey], now: float) -> Identity:
    """The caller behind a request. ``now``: seconds since 1970.

    Raises ``AccessDenied`` when there are no credentials or an unknown key, ``InvalidSignature`` when they prove
    nothing. A caller that must not receive a body from a stranger asks ``screen`` first.
    """
    claim = screen(request.headers, keys, now)
    _refuse_repeats(request.headers)
    if isinstance(claim, Identity):
        return claim
    _refuse_ambiguous(request, claim)
    expected = _signature(request, claim)
    if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
        raise InvalidSignature("The request signature does not match; check the secret key and what was signed.")
    return Identity(claim.key.key_id, claim.key.permissions)


def _refuse_repeats(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Or one TargetModel would be permitted and the other invoked, also where nothing is signed."""
    names = [name for name, _ in headers if name.startswith(b"x-amz")]
    if len(names) != len(set(names)):
        raise InvalidSignature("An X-Amz header is present more than once.")


def screen(headers: Sequence[tuple[bytes, bytes]], keys: Mapping[str, AccessKey], now: float) -> Claim | Identity:
    """What can be decided before the body has arrived: whoever shows a secret (Basic, Bearer, X-Api-Key) entirely; of
    a signature, that it names a known key, a fresh date and a scope of ours. Raises as ``authenticate`` does."""
    given = [(name, value) for name, value in headers if name in (b"authorization", b"x-api-key")]
    if not given:
        raise AccessDenied(
            "This server needs credentials: sign the request (SigV4), or send Basic, Bearer or X-Api-Key."
        )
    if len(given) > 1:
        raise InvalidSignature("The request has more than one Authorization or X-Api-Key header.")
    name, text = given[0][0], given[0][1].decode("latin-1").strip()
    if name == b"x-api-key":
        return _holder(text, keys)
    scheme, _, rest = text.partition(" ")
    if scheme.lower() == "basic":
        return _holder(_decoded(rest.strip()), keys)
    if scheme.lower() == "bearer":
        return _holder(rest.strip(), keys)
    if scheme == ALGORITHM:
        claim = _claim(rest, headers, keys)
        _check_date(claim.stamp, now)
        return claim
    raise AccessDenied(f"The Authorization header must be {ALGORITHM}, Basic or Bearer.")


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        raise AccessDenied("The Basic credentials are not base64 of AccessKeyId:SecretAccessKey.") from None


def _holder(text: str, keys: Mapping[str, AccessKey]) -> Identity:
    """Who shows ``AccessKeyId:SecretAccessKey``."""
    key_id, _, secret = text.partition(":")
    key = keys.get(key_id)
    # Compared even when the key is unknown: the time taken tells nothing about which ids exist.
    matches = hmac.compare_digest(secret.encode(), (key.secret if key else "").encode())
    if key is None or not matches:
        raise AccessDenied("Unknown AccessKeyId or wrong SecretAccessKey.")
    return Identity(key.key_id, key.permissions)


_FIELD = re.compile(r"(Credential|SignedHeaders|Signature)=([^\s,]+)", re.ASCII)
_CREDENTIAL = re.compile(r"([\w-]{1,128})/(\d{8})/([a-z0-9-]{1,32})/([a-z0-9-]{1,64})/aws4_request", re.ASCII)
_SCOPED_REGION = re.compile(rf"{ALGORITHM} .*?Credential=[\w-]{{1,128}}/\d{{8}}/([a-z0-9-]{{1,32}})/", re.ASCII)
_SIGNED = re.compile(r"[a-z0-9-]+(;[a-z0-9-]+)*", re.ASCII)


def _claim(text: str, headers: Sequence[tuple[bytes, bytes]], keys: Mapping[str, AccessKey]) -> Claim:
    parts = [_FIELD.fullmatch(part.strip()) for part in text.split(",")]
    named = {part[1]: part[2] for part in parts if part}
    if len(parts) != 3 or len(named) != 3:
        raise InvalidSignature("The Authorization header must hold Credential, SignedHeaders and Signature, once each.")
    credential = _CREDENTIAL.fullmatch(named["Credential"])
    if not credential or credential[4] not in SERVICES:
        raise InvalidSignature("The credential must be scoped KEY/DATE/REGION/SERVICE/aws4_request for a service here.")
    if not _SIGNED.fullmatch(named["SignedHeaders"]) or not re.fullmatch(r"[0-9a-f]{64}", named["Signature"]):
        raise InvalidSignature("SignedHeaders or Signature is malformed.")
    stamp = _header(headers, b"x-amz-date")
    if not re.fullmatch(r"\d{8}T\d{6}Z", stamp, re.ASCII) or stamp[:8] != credential[2]:
        raise InvalidSignature("X-Amz-Date must be YYYYMMDDTHHMMSSZ and of the credential's date.")
    signed = tuple(named["SignedHeaders"].split(";"))
    _check_coverage(signed, headers)
    if credential[1] not in keys:
        raise AccessDenied("Unknown AccessKeyId.")
    return Claim(keys[credential[1]], stamp, credential[3], credential[4], signed, named["Signature"])


def scoped_region(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The region in a signature's credential scope; empty where nothing is signed. It proves nothing by itself."""
    for name, value in headers:
        if name.lower() == b"authorization":
            found = _SCOPED_REGION.match(value.decode("latin-1"))
            return found[1] if found else ""
    return ""


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1").strip() for key, value in headers if key == name), "")


def _check_coverage(signed: tuple[str, ...], headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Host, date, content type and every ``x-amz*`` header must be signed: whoever repeats the request could change
    the others (the TargetModel, say)."""
    covered = {name.encode() for name in signed}
    present = [name for name, _ in headers]
    needed = {b"host", b"x-amz-date"} | {
        name
        for name in present
        if (name.startswith((b"x-amz-", b"x-amzn-")) or name == b"content-type") and name not in _UNSIGNABLE
    }
    if not needed <= covered:
        raise InvalidSignature("Host, X-Amz-Date, Content-Type and all X-Amz headers present must be signed.")
    if len(covered) != len(signed) or any(present.count(name) != 1 for name in covered):
        raise InvalidSignature("Each signed header must be present exactly once.")


def _check_date(stamp: str, now: float) -> None:
    try:
        signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise InvalidSignature("X-Amz-Date is not a date.") from None
    if abs(now - signed_at) > CLOCK_SKEW:
        raise InvalidSignature("The signature is more than five minutes old or ahead; check the clock.")


def _refuse_ambiguous(request: Request, claim: Claim) -> None:
    """Signers normalise the path, so one signature would fit several spellings of it: only the normal one counts."""
    parts = request.path.split("/")[1:]
    if not request.path.startswith("/") or {".", ".."} & set(parts) or "" in parts[:-1]:
        raise InvalidSignature("A signed path must not have empty, '.' or '..' parts.")
    if "x-amz-content-sha256" in claim.signed and _header(request.headers, b"x-amz-content-sha256") != _sha256(
        request.body
    ):
        raise InvalidSignature("X-Amz-Content-Sha256 is not the hash of the body; the body must be signed.")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _signature(request: Request, claim: Claim) -> str:
    """The signature that the key's owner would have made for this request."""
    canonical = "\n".join(
        [
            request.method,
            quote(request.path, safe="/~"),  # encoded once more than sent: all services but S3 do it so
            _canonical_query(request.query),
            *(f"{name}:{' '.join(_header(request.headers, name.encode()).split())}" for name in claim.signed),
            "",
            ";".join(claim.signed),
            _sha256(request.body),
        ]
    )
    text = "\n".join([ALGORITHM, claim.stamp, claim.scope, _sha256(canonical.encode("utf-8", "backslashreplace"))])
    key = _signing_key(claim.key.secret, claim.stamp[:8], claim.region, claim.service)
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def _canonical_query(query: str) -> str:
    """Pairs sorted as they were sent, each with its ``=``."""
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&")) if query else []
    return "&".join(f"{name}={value}" for name, value in pairs)


@lru_cache(maxsize=256)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return key


def sign(request: Request, key: AccessKey, region: str, now: float) -> list[tuple[bytes, bytes]]:
    """The headers to add so that ``authenticate`` accepts the request: what our own command line sends. The request
    must carry its Host header; every header it has is signed."""
    stamp = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
    request = request._replace(headers=[*request.headers, (b"x-amz-date", stamp.encode())])
    signed = tuple(sorted(name.decode() for name, _ in request.headers))
    claim = Claim(key, stamp, region, "sagemaker", signed, "")
    text = (
        f"{ALGORITHM} Credential={key.key_id}/{claim.scope}, SignedHeaders={';'.join(signed)}, "
        f"Signature={_signature(request, claim)}"
    )
    return [(b"x-amz-date", stamp.encode()), (b"authorization", text.encode())]


def key_for(keys: Iterable[AccessKey], action: Action, endpoint: str = "", target_model: str = "") -> AccessKey | None:
    """The first of one's own keys that may do ``action``."""
    return next(
        (key for key in keys if permits(Identity(key.key_id, key.permissions), action, endpoint, target_model)), None
    )
