"""Unpacking ``model.tar.gz`` from strangers.

Python's own extraction is not used, filters included: they had public bypasses, and ``tarfile`` reads extended headers
of any declared size into memory. This reader streams block by block and accepts regular files and folders; a link,
device, sparse file or odd name refuses the whole archive. Everything is counted before it is written.

The format: POSIX.1-2017 ``pax`` (ustar header blocks of 512 bytes), GNU long names, gzip (RFC 1952).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serving.errors import LoadFailed

_BLOCK = 512
_CHUNK = 1 << 18
_MAX_EXTENDED = 1 << 16  # bytes of one pax or long-name header
_RATIO_FROM = 1 << 24  # decompressed bytes before the ratio says anything
_MAX_STREAMS = 10_000  # gzip members one after the other; each costs a copy of what is left


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What an archive may hold: bytes in all, members, folders nested, bytes in a name and in one part of it, and
    decompressed bytes per compressed byte (deflate's own ceiling is 1,032; zeroed weights reach it, text does not)."""

    total_bytes: int = 20 * 2**30
    members: int = 10_000
    depth: int = 16
    name_bytes: int = 1024
    part_bytes: int = 255
    ratio: float = 200.0


@dataclass(frozen=True, slots=True)
class _Member:
    parts: tuple[str, ...]
    size: int
    folder: bool


def unpack(archive: Path, into: Path, limits: UnpackLimits) -> str:
    """Unpack a ``.tar.gz`` into the new folder ``into`` (mode 0700); returns the SHA-256 of the archive, hex.

    The folder appears whole, by rename, or not at all. Raises LoadFailed when the archive is damaged, cut, padded,
    holds anything but plain files and folders, or passes a limit; FileExistsError when ``into`` is already there.
    """
    if into.exists():
        raise FileExistsError(into)
    fresh = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=into.parent))
    try:
        with archive.open("rb") as raw:
            stream = _Inflated(raw, limits)
            _extract(stream, fresh, limits)
            digest = stream.finish()
        fresh.rename(into)
    except OSError as error:
        raise LoadFailed(f"the archive could not be unpacked: {error.strerror or type(error).__name__}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return digest


class _Inflated:
    """The decompressed bytes of a gzip file, counted and bounded; hashes the compressed ones."""

    def __init__(self, raw: BinaryIO, limits: UnpackLimits) -> None:
        self._raw = raw
        self._limits = limits
        self._hash = hashlib.sha256()
        self._inflate = zlib.decompressobj(wbits=31)
        self._pending = b""  # compressed, not yet taken
        self._ready = bytearray()  # decompressed, not yet read
        self._taken = self._given = 0
        self._streams = 1
        self._ended = False
        # Headers and padding are not in total_bytes: room for them, or a legal archive at the limit would fail.
        self._most = limits.total_bytes + (limits.members + 4) * (4 * _BLOCK + _MAX_EXTENDED)

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes (at most a few hundred kilobytes). Raises LoadFailed when the stream ends before."""
        while len(self._ready) < size and not self._ended:
            self._more()
        if len(self._ready) < size:
            raise LoadFailed("the archive is cut short")
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def finish(self) -> str:
        """Read to the end: only the zero blocks that tar pads with may follow. Returns the digest of the file."""
        while True:
            if self._ready.strip(b"\0"):
                raise LoadFailed("the archive holds data after its end")
            self._ready.clear()
            if self._ended:
                return self._hash.hexdigest()
            self._more()

    def _more(self) -> None:
        """Decompress one chunk more into ``_ready``, or find that the stream has ended."""
        compressed = self._inflate.unconsumed_tail or self._pending
        if not compressed:
            compressed = self._raw.read(_CHUNK)
            self._hash.update(compressed)
            self._taken += len(compressed)
        if self._inflate.eof:
            if not compressed:
                self._ended = True
                return
            self._next_stream()
        data = self._decompressed(compressed)
        if not compressed and not data:
            raise LoadFailed("the archive is cut short")
        self._pending = self._inflate.unused_data
        self._given += len(data)
        if self._given > self._most:
            raise LoadFailed(f"the archive unpacks to more than {self._limits.total_bytes} bytes")
        if self._given > _RATIO_FROM and self._given > self._limits.ratio * self._taken:
            raise LoadFailed(f"the archive unpacks to more than {self._limits.ratio:g} times its size")
        self._ready += data

    def _next_stream(self) -> None:
        """Another gzip member may follow (RFC 1952, 2.2); whatever else does is padding, and fails to decompress."""
        self._streams += 1
        if self._streams > _MAX_STREAMS:
            raise LoadFailed("the archive consists of too many compressed streams")
        self._inflate = zlib.decompressobj(wbits=31)

    def _decompressed(self, compressed: bytes) -> bytes:
        try:
            return self._inflate.decompress(compressed, _CHUNK)
        except zlib.error as error:
            raise LoadFailed("the archive is not a whole gzip file: it is damaged or padded") from error


def _extract(stream: _Inflated, fresh: Path, limits: UnpackLimits) -> None:
    seen: dict[tuple[str, ...], bool] = {(): True}  # path -> is a folder
    listed: set[tuple[str, ...]] = set()
    total = 0
    for count, member in enumerate(_members(stream, limits), start=1):
        total += member.size
        if count > limits.members:
            raise LoadFailed(f"the archive holds more than {limits.members} members")
        if total > limits.total_bytes:
            raise LoadFailed(f"the archive unpacks to more than {limits.total_bytes} bytes")
        _enter(member, seen, listed)
        target = fresh.joinpath(*member.parts)
        if member.folder:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(stream, target, member.size)


def _enter(member: _Member, seen: dict[tuple[str, ...], bool], listed: set[tuple[str, ...]]) -> None:
    """Book a member's path; refuses one that was there before, or that lies beneath a file."""
    parts = member.parts
    for length in range(1, len(parts)):
        if not seen.setdefault(parts[:length], True):
            raise LoadFailed("the archive uses one name for a file and for a folder")
    if parts in listed or seen.setdefault(parts, member.folder) != member.folder:
        raise LoadFailed("the archive holds one name twice")
    listed.add(parts)


def _write(stream: _Inflated, target: Path, size: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        left = size
        while left:
            data = stream.read(min(left, _CHUNK))
            file.write(data)
            left -= len(data)
    stream.read(-size % _BLOCK)


# --- tar ------------------------------------------------------------------------------------------------------------


def _members(stream: _Inflated, limits: UnpackLimits) -> Iterator[_Member]:
    """The members in order. The caller reads a file's bytes and padding before it asks for the next."""
    name: bytes | None = None
    size: int | None = None
    heads = 0
    while True:
        head = stream.read(_BLOCK)
        if not head.strip(b"\0"):
            if stream.read(_BLOCK).strip(b"\0"):
                raise LoadFailed("the archive is damaged: its end is marked by one empty block instead of two")
            return
        heads += 1
        if heads > 4 * limits.members:
            raise LoadFailed(f"the archive holds more than {limits.members} members")
        _check_sum(head)
        kind, declared = head[156:157], _number(head[124:136])
        if kind in (b"x", b"L", b"g"):
            data = _extended(stream, declared)
            if kind == b"L":
                name = data.rstrip(b"\0")
            elif kind == b"x":
                pax_name, pax_size = _pax(data)
                name, size = pax_name or name, pax_size if pax_size is not None else size
            continue
        yield _member(kind, name or _header_name(head), declared if size is None else size, limits)
        name = size = None


def _member(kind: bytes, raw_name: bytes, size: int, limits: UnpackLimits) -> _Member:
    folder = kind == b"5" or (kind == b"\0" and raw_name.endswith(b"/"))
    if kind not in (b"0", b"\0", b"5", b"7"):  # "7": contiguous file, to be treated as regular (POSIX)
        raise LoadFailed("the archive holds a link, device or other special member: only files and folders may be")
    if folder and size:
        raise LoadFailed("the archive is damaged: a folder in it has content")
    parts = _parts(raw_name, folder, limits)
    if not parts and not folder:
        raise LoadFailed("the archive holds a file without a name")
    return _Member(parts, size, folder)


def _parts(raw_name: bytes, folder: bool, limits: UnpackLimits) -> tuple[str, ...]:
    """A member's name in its parts, ``./`` left out. Raises LoadFailed for any name that is not plainly inside."""
    try:
        name = raw_name.decode("utf-8")
    except UnicodeDecodeError:
        raise LoadFailed("the archive holds a name that is not UTF-8") from None
    if len(raw_name) > limits.name_bytes:
        raise LoadFailed(f"the archive holds a name of more than {limits.name_bytes} bytes")
    if name.startswith("/"):
        raise LoadFailed("the archive holds an absolute name")
    if "\\" in name or any(unicodedata.category(letter)[0] == "C" for letter in name):
        raise LoadFailed("the archive holds a name with a backslash, control or invisible character")
    parts = (name.removesuffix("/") if folder else name).split("/")
    parts = [part for part in parts if part != "."]
    if any(part in ("", "..") or part != part.strip() for part in parts):
        raise LoadFailed("the archive holds a name with an empty, '..' or blank-edged part")
    if any(len(part.encode()) > limits.part_bytes for part in parts):
        raise LoadFailed(f"the archive holds a name with a part of more than {limits.part_bytes} bytes")
    if len(parts) > limits.depth:
        raise LoadFailed(f"the archive nests folders deeper than {limits.depth}")
    return tuple(parts)


def _header_name(head: bytes) -> bytes:
    name, prefix = head[:100].partition(b"\0")[0], head[345:500].partition(b"\0")[0]
    is_ustar = head[257:263] == b"ustar\0"  # GNU's own header keeps times where POSIX keeps the prefix
    return prefix + b"/" + name if is_ustar and prefix else name


def _check_sum(head: bytes) -> None:
    if sum(head[:148]) + sum(head[156:]) + 8 * 32 != _number(head[148:156]):
        raise LoadFailed("the archive is damaged: a member's header does not add up")


def _number(text: bytes) -> int:
    """A header number: octal text, or GNU's base-256 when the first bit is set."""
    if text[0] & 0x80:
        if text[0] != 0x80:
            raise LoadFailed("the archive is damaged: a size in it is negative or absurd")
        return int.from_bytes(text[1:], "big")
    digits = text.strip(b"\0 ")
    if digits.strip(b"01234567"):
        raise LoadFailed("the archive is damaged: a number in it is not octal")
    return int(digits or b"0", 8)


def _extended(stream: _Inflated, size: int) -> bytes:
    if size > _MAX_EXTENDED:
        raise LoadFailed(f"the archive holds an extended header of more than {_MAX_EXTENDED} bytes")
    data = stream.read(size)
    stream.read(-size % _BLOCK)
    return data


def _pax(data: bytes) -> tuple[bytes | None, int | None]:
    """``path`` and ``size`` of a pax header, records of ``length key=value\\n``. Sparse files are refused."""
    name: bytes | None = None
    size: int | None = None
    while data:
        digits, space, _ = data[:20].partition(b" ")
        if not space or not digits.isdigit() or not len(digits) + 3 <= int(digits) <= len(data):
            raise LoadFailed("the archive is damaged: an extended header cannot be read")
        record, data = data[len(digits) + 1 : int(digits)], data[int(digits) :]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise LoadFailed("the archive is damaged: an extended header cannot be read")
        if key.startswith(b"GNU.sparse"):
            raise LoadFailed("the archive holds a sparse file: only plain files and folders are accepted")
        if key == b"path":
            name = value
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:
                raise LoadFailed("the archive is damaged: a size in it is not a number")
            size = int(value)
    return name, size
