"""AWS's own service model as the schema of the control API: names, types, limits and the form of every answer.

The model is botocore's data file, read as data: importing botocore costs ten times the time and three times the
memory. Only the shapes that the offered operations reach are kept, and all their patterns are compiled at load.
What the model does not say (texts, order checks, cross-field rules) is the actions' to know.
"""

from __future__ import annotations

import gzip
import importlib.util
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import orjson

from serving.api import shapes
from serving.api.complaints import Complaints
from serving.api.schema_patterns import compile_pattern
from serving.errors import ConfigError, UnknownOperation

log = logging.getLogger("serving.control")

_INSTANCE_TYPE, _LONGEST_INSTANCE_TYPE = r"ml\.[a-z0-9-]+\.[a-z0-9]+", 64
#: Where a model lies: AWS's pattern, or a file (which storage still has to allow).
_LOCAL_URLS = ("Url", "S3ModelUri")
_OR_FILE = r"|file://.+"
#: Where a notification goes: AWS's pattern of a topic, or our own kind of receiver (which the operator has to list).
_TOPICS, _OR_RECEIVER = ("SnsTopicArn",), r"|https?://[!-~]+"
#: Unknown members are told once each; a caller who makes names up does not fill the log.
_MOST_TOLD = 500

_LIMITS: Mapping[str, tuple[float, float]] = {
    "integer": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
    "float": (-shapes.LARGEST_FLOAT, shapes.LARGEST_FLOAT),
    "double": (-1.7976931348623157e308, 1.7976931348623157e308),
}


class Schema:
    """One service's operations. ``operations``: those offered; ``known``: all that AWS's model has."""

    def __init__(
        self, known: frozenset[str], inputs: Mapping[str, shapes.Node], outputs: Mapping[str, shapes.Node | None]
    ) -> None:
        self.known = known
        self.operations = frozenset(inputs)
        self._inputs = inputs
        self._outputs = outputs
        self._told: set[tuple[str, str]] = set()

    @classmethod
    def load(cls, service: str = "sagemaker", offered: Collection[str] | None = None) -> Schema:
        """The model of ``service``, for the ``offered`` operations (None = all). Raises ``ConfigError`` when
        botocore's data is not there."""
        model = _read(service)
        operations = model["operations"]
        nodes = _Nodes(model["shapes"])
        names = [name for name in operations if offered is None or name in offered]
        return cls(
            frozenset(operations),
            {name: nodes.of(operations[name].get("input")) or shapes.Structure(name) for name in names},
            {name: nodes.of(operations[name].get("output")) for name in names},
        )

    def check(self, operation: str, raw: object, trusted: bool = False) -> dict[str, Any]:
        """``raw`` as the operation's action wants it: no unknown members (dropped, logged once), nothing null, times
        as epoch seconds. ``trusted``: the operator's own, whose models may lie at any path. Raises ``ValidationError``
        in AWS's grammar, ``UnknownOperation``."""
        complaints = Complaints()
        request = shapes.Request(complaints, self._unknown, trusted)
        checked: dict[str, Any] = self.input(operation).check(raw, (), request)
        complaints.raise_any()
        return checked

    def input(self, operation: str) -> shapes.Node:
        """What an operation takes, for those who look a member up. Raises ``UnknownOperation``."""
        try:
            return self._inputs[operation]
        except KeyError:
            raise UnknownOperation(f"The operation {operation[:128]} is not offered here.") from None

    def output(self, operation: str) -> shapes.Node | None:
        """What an operation gives, if anything."""
        return self._outputs[operation]

    def shape(self, operation: str, answer: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer with the members that the model has, those not set left out; None where the operation answers
        with an empty body."""
        output = self._outputs[operation]
        if output is None:
            return None
        shaped: dict[str, Any] = output.shape(answer)
        return shaped

    def _unknown(self, shape: str, member: str) -> None:
        """Newer clients know more members than we do: they are dropped as AWS drops them, not refused."""
        seen = (shape, member[:64])
        if seen not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(seen)
            log.info("%s has no member %r in AWS's model as installed: ignored", *seen)


def _read(service: str) -> dict[str, Any]:
    """The service's model as JSON values; the newest version of it that is installed."""
    found = importlib.util.find_spec("botocore")
    folder = Path(found.origin or "").parent / "data" / service if found else None
    files = sorted(folder.glob("*/service-2.json*")) if folder else []
    if not files:
        raise ConfigError(f"AWS's service model of {service!r} is missing; install botocore.")
    data = files[-1].read_bytes()
    model: dict[str, Any] = orjson.loads(gzip.decompress(data) if files[-1].suffix == ".gz" else data)
    return model


class _Nodes:
    """Shapes by name, made when they are first asked for."""

    def __init__(self, raw: Mapping[str, Mapping[str, Any]]) -> None:
        self._raw = raw
        self._made: dict[str, shapes.Node] = {}

    def of(self, reference: Mapping[str, str] | None) -> shapes.Node | None:
        """The shape that a member, an input or an output refers to."""
        return self._get(reference["shape"]) if reference else None

    def _get(self, name: str) -> shapes.Node:
        made = self._made.get(name)
        if made is None:
            raw = self._raw[name]
            made = self._made.setdefault(name, _KINDS.get(raw["type"], _Nodes._text)(self, name, raw))
        return made

    def _structure(self, name: str, raw: Mapping[str, Any]) -> shapes.Node:
        made = shapes.Structure(name, tuple(raw.get("required", ())), bool(raw.get("union")))
        self._made[name] = made  # before its members: one of them may hold it
        for member, reference in raw["members"].items():
            made.members[member] = self._get(reference["shape"])
        return made

    def _list(self, name: str, raw: Mapping[str, Any]) -> shapes.Node:
        return shapes.List(self._get(raw["member"]["shape"]), raw.get("min"), raw.get("max"))

    def _map(self, name: str, raw: Mapping[str, Any]) -> shapes.Node:
        key = self._get(raw["key"]["shape"])
        assert isinstance(key, shapes.Text)
        return shapes.Map(key, self._get(raw["value"]["shape"]), raw.get("min"), raw.get("max"))

    def _text(self, name: str, raw: Mapping[str, Any]) -> shapes.Node:
        words, source, high = tuple(raw.get("enum", ())), raw.get("pattern", ""), raw.get("max")
        if words and all(word.startswith("ml.") for word in words):  # new ones appear monthly
            words, source, high = (), _INSTANCE_TYPE, _LONGEST_INSTANCE_TYPE
        local = name in _LOCAL_URLS
        ours = _OR_FILE if local else _OR_RECEIVER if name in _TOPICS else ""
        pattern = compile_pattern(source + ours) if source else None
        return shapes.Text(raw.get("min"), high, source, pattern, words, bool(raw.get("sensitive")), local)

    def _number(self, name: str, raw: Mapping[str, Any]) -> shapes.Node:
        low, high = _LIMITS[raw["type"]]
        whole = raw["type"] in ("integer", "long")
        return shapes.Number(whole, raw.get("min", low), raw.get("max", high))

    def _boolean(self, name: str, raw: Mapping[str, Any]) -> shapes.Node:
        return shapes.Boolean()

    def _timestamp(self, name: str, raw: Mapping[str, Any]) -> shapes.Node:
        return shapes.Timestamp()


_KINDS: Mapping[str, Callable[[_Nodes, str, Mapping[str, Any]], shapes.Node]] = {
    "structure": _Nodes._structure,
    "list": _Nodes._list,
    "map": _Nodes._map,
    "string": _Nodes._text,
    "integer": _Nodes._number,
    "long": _Nodes._number,
    "float": _Nodes._number,
    "double": _Nodes._number,
    "boolean": _Nodes._boolean,
    "timestamp": _Nodes._timestamp,
}
