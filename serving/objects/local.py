"""Objects that are files of this machine: ``s3://bucket/key`` is ``ROOT/bucket/key``.

Nothing is ever read or written outside the root: names are plain (``storage.check_name``), links may lead around
inside it but never out, and what is written goes through an open folder whose real place was looked at.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from serving.errors import ObjectMissing, ObjectUnavailable, ServingError, UnknownModel, ValidationError
from serving.objects.base import SPOOLED, ObjectInfo, made, object_url, prefix_url, spooled
from serving.storage import ObjectUrl, beneath, check_name, real_path, sync

_NOTHING_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Neither a link nor a pipe without a writer gets us into trouble.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalObjects:
    """See ``ObjectStore``. A file cannot also be a folder: of the keys ``a`` and ``a/b`` there can be one.

    The spool should lie on the root's disk; elsewhere what is put is copied over once more, to the ``carrier``
    ``ROOT/.spool``, which is no bucket.
    """

    def __init__(self, root: Path, spool: Path) -> None:
        """Nothing is touched; the folders are made by those who write."""
        self._root = root
        self._spool = spool
        self.carrier = root / ".spool"

    @property
    def spool(self) -> Path:
        """See ``ObjectStore``."""
        return made(self._spool)

    # --- reading ----------------------------------------------------------------------------------------------------

    def stat(self, url: str) -> ObjectInfo | None:
        """See ``ObjectStore``."""
        try:
            found = self._place(url).stat()
        except (ObjectMissing, *_NOTHING_THERE):
            return None
        except OSError as error:
            raise _failure(error) from error
        return _info(url, found) if stat.S_ISREG(found.st_mode) else None

    @contextmanager
    def open(self, url: str, offset: int = 0, version: str = "") -> Iterator[BinaryIO]:
        """See ``ObjectStore``."""
        try:
            fd = os.open(self._file(url), _FILE)
        except _NOTHING_THERE:
            raise _missing(url) from None
        except OSError as error:
            raise _failure(error) from error
        with io.BufferedReader(_File(fd, "rb"), 1 << 18) as reader:
            if version and version != _info(url, os.fstat(fd)).version:
                raise ObjectMissing(f"The object {url} has been replaced.")
            os.lseek(fd, offset, os.SEEK_SET)
            yield reader

    @contextmanager
    def fetch(self, url: str) -> Iterator[Path]:
        """See ``ObjectStore``."""
        yield self._file(url)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore``. Files whose names cannot be keys, and links to folders, are not seen."""
        bucket, key = prefix_url(prefix)
        folder, slash, start = key.rpartition("/")
        try:
            fd = os.open(beneath(self._root, f"{bucket}/{folder}".rstrip("/")), _FOLDER)
            yield from self._walk(bucket, folder + slash, fd, start.encode())
        except (UnknownModel, *_NOTHING_THERE):
            return
        except OSError as error:
            raise _failure(error) from error

    def _walk(self, bucket: str, folder: str, fd: int, start: bytes = b"") -> Iterator[ObjectInfo]:
        """What lies in an open folder, which is closed in the end; ``start``: of names that begin so."""
        try:
            for name in _names(fd, start):
                try:
                    key = folder + name.decode()
                    check_name(key.rstrip("/"))
                except (UnicodeDecodeError, ValidationError):
                    continue
                with suppress(*_NOTHING_THERE):  # gone since the folder was read
                    if key.endswith("/"):
                        inner = os.open(name[:-1], _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                        yield from self._walk(bucket, key, inner)
                    elif info := self._listed(f"s3://{bucket}/{key}", name, fd):
                        yield info
        finally:
            os.close(fd)

    def _listed(self, url: str, name: bytes, fd: int) -> ObjectInfo | None:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return self.stat(url)
        return _info(url, found) if stat.S_ISREG(found.st_mode) else None

    def _place(self, url: str) -> Path:
        """The real path of what has this name; raises ``ObjectMissing``."""
        bucket, key = object_url(url)
        try:
            return beneath(self._root, f"{bucket}/{key}")
        except UnknownModel:
            raise _missing(url) from None

    def _file(self, url: str) -> Path:
        """The same; raises ``ObjectMissing`` for what is no file of data, too."""
        place = self._place(url)
        if not place.is_file():
            raise _missing(url)
        return place

    # --- writing ----------------------------------------------------------------------------------------------------

    def put(self, url: str, content: bytes | Path, content_type: str = "") -> None:
        """See ``ObjectStore``. Files have no content type: it is forgotten."""
        target = object_url(url)
        try:
            if isinstance(content, Path):
                _sync_finished(content)
                self._publish(content, target)
                return
            with spooled(self._spool, "put") as path:
                _write(path, content)
                self._publish(path, target)
        except OSError as error:
            raise _failure(error) from error

    def delete(self, url: str) -> None:
        """See ``ObjectStore``."""
        folder, name = _folder_and_name(object_url(url))
        try:
            with self._opened(folder) as fd:
                os.unlink(name, dir_fd=fd)
                os.fsync(fd)
        except _NOTHING_THERE:
            return
        except OSError as error:
            raise _failure(error) from error

    def _publish(self, path: Path, target: ObjectUrl) -> None:
        """Give a finished file its place and name."""
        folder, name = _folder_and_name(target)
        with self._opened(folder, make=True) as fd:
            try:
                _rename(path, name, fd)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._carry(path, name, fd)
            os.fsync(fd)

    def _carry(self, path: Path, name: str, fd: int) -> None:
        """Publish across disks: a copy is made on the bucket's disk, outside of every bucket; only where a bucket is a
        disk of its own, in the folder itself, under a name that is no object's."""
        beside = Path(f"/proc/self/fd/{fd}")
        for staging in (self.carrier, beside):
            with spooled(staging, "put") as copy:
                _copy(path, copy)
                try:
                    _rename(copy, name, fd)
                except OSError as error:
                    if error.errno == errno.EXDEV and staging is not beside:
                        continue
                    raise
                break
        path.unlink()

    @contextmanager
    def _opened(self, folder: str, make: bool = False) -> Iterator[int]:
        """A folder beneath the root, by a descriptor: whatever happens to its path, this one was inside."""
        try:
            fd = os.open(self._root / folder, _FOLDER)
        except FileNotFoundError:
            if not make:
                raise
            fd = self._make(folder)
        try:
            self._check_inside(fd)
            yield fd
        finally:
            os.close(fd)

    def _make(self, folder: str) -> int:
        """Make a folder and those above it, each on the disk before the next, and open it."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._root, _FOLDER)
        for part in folder.split("/"):
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
                    os.fsync(fd)
                inner = os.open(part, _FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
            self._check_inside(fd)
        return fd

    def _check_inside(self, fd: int) -> None:
        root = real_path(str(self._root))
        if not os.readlink(f"/proc/self/fd/{fd}").startswith(f"{root}/"):  # noqa: PTH115  # as ``real_path`` reads it
            raise OSError(errno.ELOOP, "a link out of the root")


class _File(io.FileIO):
    """A file whose failures to read are the object store's."""

    def readinto(self, buffer: Any) -> int:
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise _failure(error) from error

    def readall(self) -> bytes:
        try:
            return super().readall() or b""
        except OSError as error:
            raise _failure(error) from error


def _names(fd: int, start: bytes) -> list[bytes]:
    """What lies in an open folder, in the byte order of the keys it leads to: a folder's name ends in ``/``, which
    puts ``a.b`` before ``a/b``."""
    with os.scandir(fd) as entries:
        names = [
            os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b"")
            for entry in entries
            if not SPOOLED.match(entry.name)
        ]
    return sorted(name for name in names if name.startswith(start))


def _folder_and_name(url: ObjectUrl) -> tuple[str, str]:
    folder, _, name = f"{url.bucket}/{url.key}".rpartition("/")
    return folder, name


def _info(url: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(url, found.st_size, f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}")


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, _NEW_FILE, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, os.fdopen(os.open(target, _NEW_FILE, 0o666), "wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_finished(path: Path) -> None:
    """Put a finished file on the disk. When that fails its pages may be lost without a trace: it is removed, so that
    nobody publishes it as if it were whole, and there is nothing left to try again with."""
    try:
        sync(path)
    except FileNotFoundError:
        raise ObjectUnavailable("The file to be published is gone.", transient=False) from None
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise ObjectUnavailable("The disk failed to keep the object.", transient=False) from error


def _rename(path: Path, name: str, fd: int) -> None:
    """Into the open folder ``fd``, over what has the name there: a link itself, or an empty folder, which is no
    object."""
    try:
        os.replace(path, name, dst_dir_fd=fd)
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=fd)
        except OSError:
            raise IsADirectoryError(errno.EISDIR, "a folder with objects") from None
        os.replace(path, name, dst_dir_fd=fd)


def _missing(url: str) -> ObjectMissing:
    return ObjectMissing(f"There is no object {url}.")


def _failure(error: OSError) -> ServingError:
    """What a caller is told of a failed system call, without the path."""
    match error.errno:
        case errno.ENOTDIR | errno.EISDIR:
            return ValidationError(
                "A local bucket cannot hold an object 'a' beside objects 'a/…'; one is there already."
            )
        case errno.ENAMETOOLONG | errno.EILSEQ | errno.EINVAL:
            return ValidationError("The object's name is too long, or not possible on this file system.")
        case errno.ELOOP:
            return ValidationError("The object's name leads out of the bucket folder, or in a circle.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return ObjectUnavailable("The server may not read or write the object.", transient=False)
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return ObjectUnavailable("There is no room for the object.")
    return ObjectUnavailable("The object store's disk failed.")
