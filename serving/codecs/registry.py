"""The table of wire formats, and the few functions the rest of the server calls.

``decode`` one body; ``decode_rows`` many at once for the batcher; ``negotiate`` and ``encode_each`` for the replies.
What a body of a given type may hold is said in the module of that type; what fits a model, in ``fit.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from serving.codecs import csv, json, libsvm, npy, raw, recordio
from serving.codecs.base import Decoded, InputSpec, Outputs
from serving.codecs.fit import RowPlan, row_plan
from serving.codecs.layouts import layout_of, shown
from serving.codecs.media import negotiate, parse_media_type
from serving.codecs.replies import WRITERS
from serving.errors import BadInput, PredictionFailed, UnsupportedContentType

__all__ = [
    "CODECS",
    "check_read",
    "decode",
    "decode_rows",
    "decode_strictly",
    "encode",
    "encode_each",
    "negotiate",
    "offered",
    "parse_media_type",
    "reply_type",
]


class Codec(NamedTuple):
    """``decode`` reads any body of the type. ``pack`` is the short cut for plain numeric rows: it answers None for
    whatever is unusual, and otherwise just what ``decode`` would. ``check`` refuses parameters."""

    decode: Callable[[bytes, Mapping[str, str], InputSpec], Decoded]
    pack: Callable[[bytes, RowPlan], bytes | None] | None = None
    check: Callable[[Mapping[str, str]], None] | None = None


_CSV = Codec(csv.decode, csv.pack, csv.check)
_JSON = Codec(json.decode, json.pack)
_LINES = Codec(json.decode_lines, json.pack_lines)
_LIBSVM = Codec(libsvm.decode)

#: Content-Type -> how it is read.
CODECS: dict[str, Codec] = {
    "text/csv": _CSV,
    "csv": _CSV,
    "application/json": _JSON,
    "json": _JSON,
    "application/jsonlines": _LINES,
    "application/x-jsonlines": _LINES,
    "application/x-ndjson": _LINES,
    "jsonlines": _LINES,
    "text/libsvm": _LIBSVM,
    "text/x-libsvm": _LIBSVM,
    "libsvm": _LIBSVM,
    "application/x-npy": Codec(npy.decode, npy.pack),
    "application/x-npz": Codec(npy.decode_npz),
    "application/x-recordio-protobuf": Codec(recordio.decode, recordio.pack),
    "application/octet-stream": Codec(raw.decode, raw.pack),
}


@lru_cache(maxsize=512)
def _codec(content_type: str) -> tuple[Codec, Mapping[str, str]]:
    media_type, params = parse_media_type(content_type)
    codec = CODECS.get(media_type)
    if codec is None:
        raise UnsupportedContentType(f"this model does not read {media_type[:80]!r}; it reads {', '.join(CODECS)}")
    if params.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise UnsupportedContentType(f"{media_type} must be UTF-8")
    if codec.check is not None:
        codec.check(params)
    # A header line is the one thing a parameter adds that the short cut does not know of.
    return (codec._replace(pack=None) if params.get("header") == "present" else codec), params


def decode(body: bytes, content_type: str, spec: InputSpec) -> Decoded:
    """One body -> arrays of just the spec's dtypes and shapes.

    Raises ``UnsupportedContentType`` for the type and ``BadInput`` for the body; nothing else, whatever the bytes.
    """
    codec, params = _codec(content_type)
    if not body:
        raise BadInput("the body is empty")
    plan = row_plan(spec)
    if plan is not None and codec.pack is not None:
        packed = codec.pack(body, plan)
        if packed is not None:
            array = plan.array(packed)
            if plan.rows is None or plan.rows == len(array):
                return Decoded(array, len(array))
    return codec.decode(body, params, spec)


def decode_rows(bodies: Sequence[bytes], content_type: str, spec: InputSpec) -> tuple[np.ndarray, list[int]] | None:
    """Bodies of one type -> all their rows in one array, and the count of each body.

    None as soon as anything is unusual (several inputs, quoted cells, an error in one body): the caller then decodes
    each alone, so that a bad one fails alone. Never other values than ``decode`` gives. Raises nothing.
    """
    try:
        codec, _ = _codec(content_type)
    except UnsupportedContentType:
        return None
    plan = row_plan(spec)
    if plan is None or plan.rows is not None or codec.pack is None:
        return None
    pack, parts = codec.pack, []
    for body in bodies:
        packed = pack(body, plan)
        if packed is None:
            return None
        parts.append(packed)
    size = plan.row_bytes
    return plan.array(bytearray().join(parts)), [len(part) // size for part in parts]


@lru_cache(maxsize=512)
def check_read(content_type: str, reads: tuple[str, ...]) -> None:
    """Raises ``UnsupportedContentType`` for a type that is none of ``reads``, under any of its names."""
    media_type, _ = parse_media_type(content_type)
    codec = CODECS.get(media_type)
    if codec is None or all(CODECS[one] is not codec for one in reads):
        raise UnsupportedContentType(f"this model does not read {media_type[:80]!r}; it reads {', '.join(reads)}")


def offered(layout: str) -> tuple[str, ...]:
    """The media types that replies of a layout come in, the preferred ones first."""
    return layout_of(layout).types


@lru_cache(maxsize=1024)
def reply_type(accept: str, default: str, layout: str) -> str:
    """The media type to answer in, with the parameters that Accept gave it. Raises ``NotAcceptable``."""
    found = layout_of(layout)
    media_type, params = negotiate(accept, default, found.types)
    return found.always or "".join((media_type, *(f"; {k}={v}" for k, v in params.items() if k != "q")))


def decode_strictly(body: bytes, content_type: str, spec: InputSpec) -> Decoded | None:
    """``decode`` as XGBoost's container does: None for an empty body, which has an empty answer, and
    ``UnsupportedContentType`` for one that no model could read (aws/sagemaker-xgboost-container, ``serve.py``)."""
    if not body:
        return None
    try:
        return decode(body, content_type, spec)
    except BadInput as error:
        if _is_readable(body, content_type, spec):
            raise
        raise UnsupportedContentType(error.message) from None


def _is_readable(body: bytes, content_type: str, spec: InputSpec) -> bool:
    """Whether a model of any number of features could read the body."""
    free = [tensor._replace(shape=(None, None)) for tensor in spec.tensors]
    try:
        decode(body, content_type, spec._replace(tensors=tuple(free)))
    except BadInput:
        return False
    return True


def encode(outputs: Outputs, media_type: str, layout: str) -> bytes:
    """The reply to a call that was predicted alone; see ``encode_each``."""
    first = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs
    return encode_each(outputs, (len(first) if np.ndim(first) else 1,), media_type, layout)[0]


def encode_each(outputs: Outputs, counts: Sequence[int], media_type: str, layout: str) -> list[bytes]:
    """A stacked prediction -> one body per call, ``counts[i]`` rows each, all in one media type of ``offered``.

    ``media_type`` may carry Accept's parameters (``; verbose=true``). Raises ``PredictionFailed`` when the outputs
    are not those that the layout needs or hold another number of rows; ``NotAcceptable`` when they cannot be
    written in that type.
    """
    base, params = parse_media_type(media_type)
    dress = layout_of(layout)
    arrays, objects = shown(outputs, dress, params)
    rows = len(next(iter(arrays.values())))
    if rows != sum(counts):
        raise PredictionFailed(f"the model answered {rows} rows to {sum(counts)}")
    return WRITERS[base](arrays, objects, dress, counts)
