"""IP Insights: how well an entity (a person, an account, a host) and an IPv4 address go together (``behaviour/10``).

Requests, a pair a row; blanks around a cell and quotes are no part of it::

    text/csv                user1, 10.0.0.1
    application/json        {"instances": [{"features": ["user1", "10.0.0.1"]}]}
    application/jsonlines   {"features": ["user1", "10.0.0.1"]}

The answer is ``{"predictions": [{"dot_product": 0.0}]}``, and where Accept says ``verbose=True`` each prediction also
has ``entity_embedding`` and ``ip_embedding``. The lower the product, the less likely is that entity at that address.

As AWS describes it, an entity is no word of a vocabulary: its name is hashed to one of ``NumEntityVectors`` vectors
(``bucket``). Nobody is unknown, then: a new name has the vector of its bucket, which is that of another entity, or one
that training never moved from about zero.

Settings: ``Model``, an ONNX graph from int64 ``entity`` [rows], a bucket, and float32 ``bits`` [rows, 32], -1 and 1,
the address's highest bit first, to the answer's three fields; ``NumEntityVectors``, as the hyperparameter.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterator, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import Any, NamedTuple

import numpy as np

from serving.codecs import csv as csv_codec
from serving.codecs import registry as codecs
from serving.errors import BadInput, LoadFailed, PredictionFailed, ServingError, UnsupportedContentType
from serving.runtimes.algorithms import answers, bodies, inner
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel, ScriptReply, TensorModel
from serving.runtimes.declaration import NAME, Declaration

LAYOUT = "ipinsights"
READS = ("text/csv", bodies.JSON, bodies.LINES)
ANSWERS = (bodies.JSON, bodies.LINES, "application/x-ndjson", "text/csv")
FIELDS = ("dot_product", "entity_embedding", "ip_embedding")
#: Pairs that go through the model at once: what it needs for them is bounded, whatever a body holds.
_AT_ONCE = 8192


class Pairs(NamedTuple):
    """``names``: of the entities; ``addresses``: four bytes each, one after the other."""

    names: list[str]
    addresses: bytes


class IPInsights(ScriptModel):
    """Vectors of entities, and a net that gives an address its own."""

    def __init__(self, model: TensorModel, vectors: int) -> None:
        """``vectors``: how many there are for entities."""
        self._model = model
        self._vectors = vectors
        self.engine = model.engine

    def transform(self, call: ScriptCall) -> ScriptReply:
        """Answer one call. Raises BadInput, UnsupportedContentType, NotAcceptable."""
        kind, params = bodies.accepted(call.accept, bodies.JSON, ANSWERS)
        media_type = "; ".join((kind, *(f"{key}={value}" for key, value in params.items())))
        asked = pairs(call.body, call.content_type)
        buckets = np.fromiter((bucket(name, self._vectors) for name in asked.names), np.int64, len(asked.names))
        fields = FIELDS if params.get("verbose", "").lower() == "true" else FIELDS[:1]
        outputs = self.run(buckets, asked.addresses, fields)
        return ScriptReply(codecs.encode(outputs, media_type, LAYOUT), media_type)

    def run(self, buckets: np.ndarray, addresses: bytes, fields: Sequence[str] = FIELDS) -> dict[str, np.ndarray]:
        """The answer's fields for int64 ``buckets`` [rows] and as many addresses of four bytes; embeddings that nobody
        asked for are not kept. Raises PredictionFailed, BadInput for more than is answered."""
        answer: dict[str, np.ndarray] = {}
        for start in range(0, len(buckets), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            entity, address = buckets[part], addresses[4 * start : 4 * (start + _AT_ONCE)]
            outputs = self._model.predict({"entity": entity, "bits": bits(address)})
            if not isinstance(outputs, dict) or any(field not in outputs for field in FIELDS):
                raise PredictionFailed(f"the model's outputs must be {', '.join(FIELDS)}")
            if any(outputs[field].shape[:1] != entity.shape for field in FIELDS):
                raise PredictionFailed("the model's outputs have other rows than its inputs")
            if not answer:
                answers.check_size(sum(outputs[field].size for field in fields) * len(buckets) // len(entity))
                shapes = {field: (len(buckets), *outputs[field].shape[1:]) for field in fields}
                answer = {field: np.empty(shape, outputs[field].dtype) for field, shape in shapes.items()}
            # Written into one array: pieces kept among freed ones would hold the heap at ten times its need.
            for field, whole in answer.items():
                whole[part] = outputs[field]
        if any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in answer.values()):
            raise PredictionFailed("the model's outputs are no finite numbers")
        return answer

    def set_threads(self, threads: int) -> None:
        """The model's own."""
        self._model.set_threads(threads)

    def close(self) -> None:
        """Drop the model."""
        self._model.close()


def load(declared: Declaration, settings: LoadSettings) -> IPInsights:
    """Load the graph and ask it once for the last of its vectors, so that one that does not fit its declaration is not
    served. Raises LoadFailed."""
    vectors = declared.whole("NumEntityVectors", most=250_000_000)
    model = IPInsights(inner.model(declared, settings), vectors)
    try:
        model.run(np.array([0, vectors - 1]), bytes(8))
    except ServingError as error:
        raise LoadFailed(f"{NAME}: the model does not answer for an entity and an address: {error}") from error
    return model


def bucket(name: str, vectors: int) -> int:
    """Which of the vectors a name has: CRC-32 of its UTF-8 bytes, modulo how many there are."""
    return zlib.crc32(name.encode()) % vectors


def bits(addresses: bytes) -> np.ndarray:
    """float32 ``[addresses, 32]``, 1 where a bit is set and -1 where it is not, the highest first."""
    unpacked = np.unpackbits(np.frombuffer(addresses, np.uint8)).reshape(-1, 32)
    return unpacked.astype(np.float32) * 2 - 1


def pairs(body: bytes, content_type: str) -> Pairs:
    """The pairs of a body. Raises BadInput, naming the row; UnsupportedContentType."""
    kind, params = bodies.media_type(content_type, READS)
    if params.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise UnsupportedContentType(f"{kind} must be UTF-8")
    if kind == "text/csv":
        csv_codec.check(params)
        rows: Iterator[Sequence[Any]] = _csv_rows(body)
        if params.get("header") == "present":
            next(rows, None)
    else:
        rows = map(_features, bodies.instances(body, content_type, READS).rows)
    names, addresses = [], []
    for number, row in enumerate(rows, 1):
        name, address = _pair(row, number)
        names.append(name)
        addresses.append(address)
    if not names:
        raise BadInput("the body is empty")
    return Pairs(names, b"".join(addresses))


def _csv_rows(body: bytes) -> Iterator[Sequence[Any]]:
    try:
        text = body.decode("utf-8-sig")
        yield from (row for row in csv.reader(io.StringIO(text, newline=None), skipinitialspace=True) if any(row))
    except UnicodeDecodeError:
        raise BadInput("the body is not UTF-8") from None
    except csv.Error as error:
        raise BadInput(f"the body is not CSV: {error}") from None


def _features(instance: Any) -> Any:
    """The pair in an instance: ``features``, or the longer ``data.features.values``; None where there is none."""
    if not isinstance(instance, dict):
        return None
    if "features" in instance:
        return instance["features"]
    for key in ("data", "features", "values"):
        instance = instance.get(key) if isinstance(instance, dict) else None
    return instance


def _pair(row: Any, number: int) -> tuple[str, bytes]:
    """A row's name and address. A name may be a whole number in JSON. Raises BadInput."""
    if not isinstance(row, list) or len(row) != 2:
        raise BadInput(f"row {number} must be an entity and an IPv4 address, as in user1,10.0.0.1")
    name, address = row
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"row {number} has no entity: it must be a name, or a whole number")
    if not isinstance(address, str):
        raise BadInput(f"row {number} has no IPv4 address: it must be a text as 10.0.0.1")
    try:
        return name.strip(), IPv4Address(address.strip()).packed
    except AddressValueError:
        raise BadInput(f"row {number}: {address.strip()[:80]!r} is no IPv4 address") from None
