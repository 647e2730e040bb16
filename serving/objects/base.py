"""What an object store promises, and what its two kinds share: names, and the files they are about to publish."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from serving.errors import ObjectUnavailable, ValidationError
from serving.storage import ObjectUrl, parse_s3, temporary_name


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
        finished file in the spool folder; it may be gone afterwards (when this raises, it is only gone if the disk
        failed to take it)."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key starts with the prefix's key (a string prefix, not a folder), by key in byte order;
        none when there is no such bucket. Names that end in ``/`` (consoles' folders) are left out."""

    def delete(self, url: str) -> None:
        """Remove an object; nothing happens when there is none."""

    @property
    def spool(self) -> Path:
        """A folder on the same disk for files that are still being written."""


# --- names ----------------------------------------------------------------------------------------------------------


def object_url(url: str) -> ObjectUrl:
    """Bucket and key of one object. Raises ``ValidationError``."""
    found = prefix_url(url)
    if not found.key or found.key.endswith("/"):
        raise ValidationError("An object's URL is s3://bucket/key.")
    return found


def prefix_url(url: str) -> ObjectUrl:
    """Bucket and key, which may be empty, of a prefix. Raises ``ValidationError``."""
    if not url.startswith("s3://"):
        raise ValidationError("An object's URL is s3://bucket/key.")
    found = parse_s3(url)
    if found.bucket.startswith(".") or "//" in f"/{found.key}":
        raise ValidationError("A bucket's name starts with a letter or digit, and no part of a key is empty.")
    return found


# --- files on their way ---------------------------------------------------------------------------------------------

#: Names that ``spooled`` makes; the number is the process's.
SPOOLED = re.compile(r"\.(?:put|fetch)\.(\d+)-")


def made(spool: Path) -> Path:
    """The spool folder, which is there now. Raises ``ObjectUnavailable``."""
    try:
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ObjectUnavailable("The spool folder cannot be made.") from error
    return spool


@contextmanager
def spooled(spool: Path, kind: str) -> Iterator[Path]:
    """The name of a new file in the spool for as long as the ``with`` lasts; ``kind`` is ``put`` or ``fetch``."""
    path = temporary_name(made(spool) / kind)
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


def sweep(spool: Path) -> None:
    """Remove the files of puts and fetches that ended with their process."""
    with suppress(OSError):
        for name in os.listdir(spool):  # noqa: PTH208  # names are all that is wanted
            found = SPOOLED.match(name)
            if found and not Path(f"/proc/{found[1]}").exists():
                (spool / name).unlink()
