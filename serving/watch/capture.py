"""Captured calls as they are written: which calls, which encoding, the record's line, the file's name. Pure.

Form: ``behaviour/05`` (records, encodings, paths, and what we choose where AWS's documents leave it open). Who writes
them: ``capturing.py``. Files that are still being written, or wait for their destination, lie beneath
``DATA_DIR/capture``, each under its later URL::

    capture/front-4711-1a2b3c/BUCKET/KEY…/ENDPOINT/VARIANT/yyyy/mm/dd/hh/MM-SS-mmm-UUID.jsonl
"""

from __future__ import annotations

import time
from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from zlib import crc32

import orjson

from serving.storage import ObjectUrl, parse_s3
from serving.types import CaptureSpec, Invocation, Reply, Timing

Encoding = Literal["CSV", "JSON", "BASE64"]
Mode = Literal["INPUT", "OUTPUT"]

#: Of a larger body nothing is captured in that direction (``behaviour/05``: that is what a call may have at most).
MOST_BYTES = 6 * 2**20
#: Text is put into a record in pieces of so many characters or bytes (a multiple of three, for Base64): none keeps
#: the interpreter for long.
_PIECE = 3 * 2**14
_MOST_HEADS = 1024
_KEYS: Mapping[Mode, str] = {"INPUT": "endpointInput", "OUTPUT": "endpointOutput"}


# --- which calls, which encoding ------------------------------------------------------------------------------------


def sampled(request_id: str, percent: int) -> bool:
    """One draw for a call, the same wherever it is made: in production and in a shadow."""
    return crc32(request_id.encode()) % 100 < percent


def media_type(content_type: str) -> str:
    """``text/csv`` of ``Text/CSV; charset=utf-8``."""
    return content_type.partition(";")[0].strip().lower()


def encoding_of(content_type: str, csv: Sequence[str], json: Sequence[str]) -> Encoding:
    """How a body of this type is written, when it is UTF-8. The lists' entries may be ``type/*``."""
    media = media_type(content_type)
    names = (media, f"{media.partition('/')[0]}/*", "*/*")
    if any(media_type(one) in names for one in csv):
        return "CSV"
    if any(media_type(one) in names for one in json):
        return "JSON"
    return "BASE64"


# --- the record -----------------------------------------------------------------------------------------------------


class Body(NamedTuple):
    """One direction of a call."""

    mode: Mode
    content_type: str
    data: bytes


class _Form(NamedTuple):
    """What is the same in all records with the same content types: what comes before the request's data, between it
    and the answer's, and after that; whether they are text."""

    before: bytes
    between: bytes
    after: bytes
    is_text: tuple[bool, bool]


class Encoder:
    """Writes the records of calls as one endpoint's configuration wants them. ``bodies``: the directions that are
    captured; ``metadata``: the record's ``eventMetadata``."""

    def __init__(self, spec: CaptureSpec) -> None:
        self._spec = spec
        self._heads: dict[tuple[Mode, str], tuple[bytes, Encoding]] = {}
        self._forms: dict[tuple[str, str], _Form] = {}

    def both(self, invocation: Invocation, reply: Reply, when: bytes) -> bytes:
        """``line`` of both directions, without details: the record of nearly every call, in a third of the time."""
        kind = (invocation.content_type, reply.content_type)
        form = self._forms.get(kind) or self._form(kind)
        asked_is_text, said_is_text = form.is_text
        try:
            asked = orjson.dumps(invocation.body.decode()) if asked_is_text else _base64(invocation.body)
            said = orjson.dumps(reply.body.decode()) if said_is_text else _base64(reply.body)
        except UnicodeDecodeError:
            bodies = (Body("INPUT", kind[0], invocation.body), Body("OUTPUT", kind[1], reply.body))
            return self.line(bodies, metadata(invocation, when))
        if invocation.inference_id or invocation.custom_attributes:
            event = _event(invocation)
        else:
            event = orjson.dumps(invocation.request_id)
        return b'%b%b%b%b%b%b,"inferenceTime":"%b"},"eventVersion":"0"}\n' % (
            form.before, asked, form.between, said, form.after, event, when
        )  # fmt: skip

    def _form(self, kind: tuple[str, str]) -> _Form:
        if len(self._forms) >= _MOST_HEADS:
            self._forms.clear()
        (asked, asks), (said, says) = self._head("INPUT", kind[0]), self._head("OUTPUT", kind[1])
        made = self._forms[kind] = _Form(
            b'{"captureData":{' + asked,
            b',"encoding":"%b"},%b' % (asks.encode(), said),
            b',"encoding":"%b"}},"eventMetadata":{"eventId":' % says.encode(),
            (asks != "BASE64", says != "BASE64"),
        )
        return made

    def line(self, bodies: Sequence[Body], metadata: bytes) -> bytes:
        """A whole record with its line end, of small bodies."""
        sides = b",".join([self._side(*body) for body in bodies])
        return b'{"captureData":{%b},"eventMetadata":%b,"eventVersion":"0"}\n' % (sides, metadata)

    def pieces(self, bodies: Sequence[Body], metadata: bytes) -> Iterator[bytes]:
        """The same for large ones, piece by piece."""
        yield b'{"captureData":{'
        for number, body in enumerate(bodies):
            if number:
                yield b","
            yield from self._side_pieces(*body)
        yield b'},"eventMetadata":%b,"eventVersion":"0"}\n' % metadata

    def _side(self, mode: Mode, content_type: str, data: bytes) -> bytes:
        head, encoding = self._heads.get((mode, content_type)) or self._head(mode, content_type)
        if encoding != "BASE64":
            try:
                return b'%b%b,"encoding":"%b"}' % (head, orjson.dumps(data.decode()), encoding.encode())
            except UnicodeDecodeError:
                pass
        return b'%b%b,"encoding":"BASE64"}' % (head, _base64(data))

    def _side_pieces(self, mode: Mode, content_type: str, data: bytes) -> Iterator[bytes]:
        head, encoding = self._heads.get((mode, content_type)) or self._head(mode, content_type)
        text = None
        if encoding != "BASE64":
            try:
                text = data.decode()
            except UnicodeDecodeError:
                encoding = "BASE64"
        yield head + b'"'
        for at in range(0, len(data if text is None else text), _PIECE):
            if text is None:
                yield b2a_base64(data[at : at + _PIECE], newline=False)
            else:
                yield orjson.dumps(text[at : at + _PIECE])[1:-1]
        yield b'","encoding":"%b"}' % encoding.encode()

    def _head(self, mode: Mode, content_type: str) -> tuple[bytes, Encoding]:
        """What comes before the data, kept for the next body of its kind."""
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        shown = _quoted(content_type)
        head = b'"%b":{"observedContentType":%b,"mode":"%b","data":' % (_KEYS[mode].encode(), shown, mode.encode())
        found = self._heads[mode, content_type] = head, encoding_of(content_type, self._spec.csv, self._spec.json)
        return found


class Clock:
    """``inferenceTime`` of a moment, epoch seconds: UTC, whole seconds, ``Z``. It is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def text(self, at: float) -> bytes:
        """``2026-04-18T00:21:48Z``."""
        second = int(at)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)).encode()
        return self._text


def metadata(invocation: Invocation, when: bytes) -> bytes:
    """``eventMetadata`` of a call: ``when`` is its ``inferenceTime``."""
    return b'{"eventId":%b,"inferenceTime":"%b"}' % (_event(invocation), when)


def _event(invocation: Invocation) -> bytes:
    """The value of ``eventId`` and the members between it and ``inferenceTime``."""
    event = _quoted(invocation.request_id)
    if invocation.inference_id:
        event += b',"inferenceId":%b' % _quoted(invocation.inference_id)
    if invocation.custom_attributes:
        event += b',"customAttributes":[%b]' % _quoted(invocation.custom_attributes)
    return event


def _base64(data: bytes) -> bytes:
    return b'"%b"' % b2a_base64(data, newline=False)


def with_details(written: bytes, invocation: Invocation, reply: Reply | None) -> bytes:
    """``metadata`` with what AWS's records do not have: the target model, the trace context, the receipt."""
    details: dict[str, object] = {}
    if invocation.target_model:
        details["targetModel"] = invocation.target_model
    if invocation.traceparent:
        details["traceparent"] = invocation.traceparent
    if reply is not None:
        details["timing"] = dict(zip(Timing._fields, reply.timing, strict=True))
    return written[:-1] + b"," + orjson.dumps(details)[1:] if details else written


def _quoted(text: str) -> bytes:
    """As JSON; what no UTF-8 can hold (half a surrogate pair) is a question mark."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return orjson.dumps(text.encode("utf-8", "replace").decode())


# --- files ----------------------------------------------------------------------------------------------------------


class Shelf(NamedTuple):
    """Where records of one variant and one UTC hour go. ``destination``: an ``s3://`` prefix; ``hour``: hours since the
    epoch."""

    destination: str
    endpoint: str
    variant: str
    hour: int

    @property
    def folder(self) -> str:
        """``BUCKET/KEY…/ENDPOINT/VARIANT/yyyy/mm/dd/hh``: an object's URL after ``s3://``. Raises ``ValidationError``
        for a destination that is no prefix."""
        hour = time.strftime("%Y/%m/%d/%H", time.gmtime(self.hour * 3600))
        return f"{_prefix(self.destination)}/{self.endpoint}/{self.variant}/{hour}"


def file_name(at: float, id: str) -> str:
    """``MM-SS-mmm-{uuid}.jsonl`` of a file whose first record is of that time, epoch seconds."""
    return f"{time.strftime('%M-%S', time.gmtime(at))}-{int(at % 1 * 1000):03d}-{id}.jsonl"


def staged(staging: Path, destination: str, endpoint: str) -> Iterator[tuple[str, Path]]:
    """(variant, file) of each file of an endpoint that is not at its destination yet. Its last line may be half
    written; when it is published it goes from here, and lies at the destination under the same name, whole."""
    prefix = _prefix(destination)
    for process in sorted(staging.glob("*-*/")):
        root = process / prefix / endpoint
        for path in sorted(root.glob("*/*/*/*/*/*.jsonl")):
            yield path.relative_to(root).parts[0], path


def _prefix(destination: str) -> str:
    """Bucket and key of a prefix, without slashes around."""
    found: ObjectUrl = parse_s3(destination)
    return f"{found.bucket}/{found.key}".rstrip("/")
