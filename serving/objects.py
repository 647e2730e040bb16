"""Objects by URL, ``s3://bucket/key``: read, written and listed, streamed and never whole in memory.

The local bucket folder (``DATA_DIR/s3/bucket/key``) and real S3-compatible stores keep one contract. An object appears
whole or not at all: it is written elsewhere (``spool``), put on the disk, and only then given its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol


class ObjectInfo(NamedTuple):
    """An object there is. ``version`` changes when its content does (an ETag; for files, identity, size and time)."""

    url: str
    size: int
    version: str


class ObjectStore(Protocol):
    """Everything blocks; call it on a thread. Raises ``ValidationError`` for what is no object URL, ``ObjectMissing``
    when nothing is there, ``ObjectUnavailable`` when the store cannot do it now (unreachable, disk full, access denied;
    ``transient`` says whether to try again)."""

    def stat(self, url: str) -> ObjectInfo | None:
        """The object at ``url``; None when there is none."""

    def open(self, url: str, offset: int = 0, version: str = "") -> AbstractContextManager[BinaryIO]:
        """Read from ``offset``, as it comes. With ``version``: raises ``ObjectMissing`` when it is another one now."""

    def fetch(self, url: str) -> AbstractContextManager[Path]:
        """The object as a file of this machine, for as long as the ``with`` lasts: a local object itself, a remote one
        fetched into the spool."""

    def put(self, url: str, content: bytes | Path, content_type: str = "") -> None:
        """Write an object, whole or not at all, durable when this returns; replaces one that is there. A ``Path`` is a
        finished file in the spool folder; it may be gone afterwards."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key starts with the prefix's key (a string prefix, not a folder), by key in byte order.
        Names that end in ``/`` (consoles' folders) are left out."""

    def delete(self, url: str) -> None:
        """Remove an object; nothing happens when there is none."""

    @property
    def spool(self) -> Path:
        """A folder on the same disk for files that are still being written."""
