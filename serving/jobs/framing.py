"""The two framed record formats that batch transform cuts: RecordIO and TFRecord (behaviour/04, 10).

==========  ==========================================================================================================
RecordIO    magic, payload length (uint32 little-endian each), payload, zeros up to a multiple of 4
TFRecord    payload length (uint64 little-endian), masked CRC-32C of it, payload, masked CRC-32C of the payload
==========  ==========================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from serving.codecs.recordio import MAGIC
from serving.jobs.crc32c import checksums, masked, masked_of


class Framing(Protocol):
    """How frames of a format are measured. ``lead``: bytes before the payload."""

    lead: int

    def length(self, buffer: bytes, at: int) -> int:
        """The payload's length, from the ``lead`` bytes at ``at``. Raises ``ValueError`` (why) when no frame starts
        there."""

    def size(self, length: int) -> int:
        """Bytes of the whole frame of a payload."""

    def damaged(self, buffer: bytes, frames: Sequence[tuple[int, int]]) -> int | None:
        """The number of the first of these frames (start, payload length) whose payload is not what was written."""


class RecordIO:
    """MXNet's frames, which nothing but their magic protects. A record in several parts is refused, as the codec
    does."""

    lead = 8

    def length(self, buffer: bytes, at: int) -> int:
        """Bytes of the payload that starts at ``at + lead``."""
        if buffer[at : at + 4] != MAGIC:
            raise ValueError("it does not start with RecordIO's magic number")
        length = int.from_bytes(buffer[at + 4 : at + 8], "little")
        if length >> 29:
            raise ValueError("it is one of several parts of a record, which are not supported")
        return length

    def size(self, length: int) -> int:
        """With its padding."""
        return self.lead + length + -length % 4

    def damaged(self, buffer: bytes, frames: Sequence[tuple[int, int]]) -> int | None:
        """Cannot be told."""
        return None


class TFRecord:
    """TensorFlow's frames; both checksums are verified."""

    lead = 12

    def length(self, buffer: bytes, at: int) -> int:
        """Bytes of the payload that starts at ``at + lead``."""
        said = buffer[at : at + 8]
        if masked_of(said) != int.from_bytes(buffer[at + 8 : at + 12], "little"):
            raise ValueError("the checksum of its length does not match")
        return int.from_bytes(said, "little")

    def size(self, length: int) -> int:
        """With the two checksums."""
        return self.lead + length + 4

    def damaged(self, buffer: bytes, frames: Sequence[tuple[int, int]]) -> int | None:
        """The first whose payload does not match its checksum."""
        spans = np.array(frames, np.int64).reshape(-1, 2)
        starts, lengths = spans[:, 0] + self.lead, spans[:, 1]
        stored = np.frombuffer(buffer, np.uint8)[(starts + lengths)[:, None] + np.arange(4)].view("<u4")[:, 0]
        wrong = np.flatnonzero(masked(checksums(buffer, starts, lengths)) != stored)
        return int(wrong[0]) if len(wrong) else None


#: SplitType -> how its frames are measured (SageMaker API, TransformInput).
FRAMINGS: dict[str, Framing] = {"RecordIO": RecordIO(), "TFRecord": TFRecord()}
