"""Values that the parts of this room hand to each other."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.errors import ValidationError


class Window(NamedTuple):
    """A stretch of time, [start, end), epoch seconds."""

    start: float
    end: float


class Side(NamedTuple):
    """One direction of a captured call, as its record has it. ``encoding``: CSV, JSON or BASE64."""

    content_type: str
    encoding: str
    data: str

    @property
    def body(self) -> bytes:
        """What was on the wire. Raises ``ValidationError`` for Base64 that is none."""
        if self.encoding != "BASE64":
            return self.data.encode()
        try:
            return base64.b64decode(self.data, validate=True)
        except ValueError:
            raise ValidationError("A captured body is not valid Base64.") from None


class Record(NamedTuple):
    """A captured call (``behaviour/05``). ``time``: epoch seconds; ``label``: ``groundTruthData.data``, once merged
    (``behaviour/06``); ``metadata``: the whole ``eventMetadata``, with our details (``targetModel``, ``timing``,
    ``traceparent``) where the server wrote them."""

    event_id: str
    inference_id: str
    time: float
    variant: str
    input: Side | None
    output: Side | None
    metadata: Mapping[str, Any]
    label: str | None = None

    @property
    def key(self) -> str:
        """What labels, and the shadow's record of the same call, know it by."""
        return self.inference_id or self.event_id


class Complaint(NamedTuple):
    """A reason why records could not be used: how often, and the first of them (an event id, a place in a file)."""

    reason: str
    times: int
    example: str


class Complaints:
    """Bad records of one run, counted by reason: a run goes on beside them and tells of them at its end."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: str, times: int = 1) -> None:
        """One more (or several) for this reason. Reasons are few: nothing of a record is part of one."""
        self._times[reason] += times
        self._examples.setdefault(reason, example)

    def all(self) -> list[Complaint]:
        """Every reason, the most frequent first."""
        return [Complaint(reason, times, self._examples[reason]) for reason, times in self._times.most_common()]
