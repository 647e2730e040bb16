"""Page tokens: where a list goes on, in a form that callers can keep but neither read into nor make up."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Any

import orjson

from serving.errors import InvalidNextToken

_SEAL = 16


def seal(secret: bytes, purpose: Sequence[Any], place: Sequence[Any]) -> str:
    """A token that leads to ``place`` (JSON values) for whoever asks for the same ``purpose``."""
    text = orjson.dumps(place)
    return _written(_mark(secret, purpose, text), text)


def unseal(secret: bytes, purpose: Sequence[Any], token: str) -> list[Any]:
    """The place a token leads to; none for an empty token. Raises ``InvalidNextToken`` for a token that this store did
    not make, or made for something else."""
    if not token:
        return []
    try:
        sealed = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        sealed = b""
    mark, text = sealed[:_SEAL], sealed[_SEAL:]
    if not hmac.compare_digest(mark, _mark(secret, purpose, text)) or _written(mark, text) != token:
        raise InvalidNextToken("The NextToken is not one that this list gave.")
    place: list[Any] = orjson.loads(text)
    return place


def _mark(secret: bytes, purpose: Sequence[Any], text: bytes) -> bytes:
    return hmac.digest(secret, orjson.dumps(purpose) + b"\n" + text, "sha256")[:_SEAL]


def _written(mark: bytes, text: bytes) -> str:
    return base64.urlsafe_b64encode(mark + text).decode()
