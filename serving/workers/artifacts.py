"""From a name to something loadable: find it beneath its prefix, unpack it once, keep it on a bounded disk, say what
it is."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.errors import LoadFailed, ModelNotReady, UnknownModel, ValidationError
from serving.runtimes.formats import check_allowed, recognise
from serving.storage import beneath, check_name
from serving.workers.archives import UnpackLimits, unpack

__all__ = ["ArtifactCache", "UnpackLimits", "check_allowed", "locate", "recognise", "unpack"]

_ARCHIVES = (".tar.gz", ".tgz")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ATTEMPTS = 5

log = logging.getLogger(__name__)


def locate(prefix: Path, target_model: str) -> Path:
    """The artifact that a TargetModel names: ``prefix/name``, or ``prefix/name.tar.gz``.

    Raises ValidationError for a name that is no plain relative path, UnknownModel, in SageMaker's words, when nothing
    is there (also for what is hidden, special, or led outside by a link).
    """
    check_name(target_model)
    hidden = any(part.startswith(".") for part in target_model.split("/"))
    for name in () if hidden else (target_model, f"{target_model}.tar.gz"):
        with suppress(ValidationError):  # UnknownModel is one; so is the longer name being too long
            found = beneath(prefix, name)
            if found.is_file() or found.is_dir():
                return found
    raise UnknownModel(f"Failed to download model data (bucket: {prefix.name}, key: {target_model}).")


class _Held:
    """A file lock, let go of with ``release`` or with the last reference (a thread's end, say)."""

    def __init__(self, file: int) -> None:
        self._file = file

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    __del__ = release


class ArtifactCache:
    """Unpacked archives on disk, by content, bounded in bytes, shared by all workers of a machine.

    ::

        folder/BOOT/entries/SHA256/   an unpacked archive
        folder/BOOT/uses/SHA256       its size in bytes and its sources; modified = last used; locked (shared) = in use
        folder/BOOT/sources/KEY       SHA-256 of the archive that had this path, mtime, size and inode

    Files are not forced to the disk: what a power cut may have torn belongs to another boot and is thrown away. Locks
    are ``flock``: they end with the process that held them, however it ends.
    """

    def __init__(self, folder: Path, budget: int, limits: UnpackLimits | None = None) -> None:
        """``budget`` in bytes of unpacked content. Creates nothing before the first archive is fetched."""
        self._folder = folder
        self._budget = budget
        self._limits = limits or UnpackLimits(total_bytes=min(budget, UnpackLimits().total_bytes))
        self._home = folder / _boot()
        self._here = threading.local()
        self._pins: dict[Path, list[_Held]] = {}
        self._lock = threading.Lock()
        self._opened = False

    def fetch(self, source: Path) -> Path:
        """A folder or plain file as it is; a ``.tar.gz`` as the folder of its content, unpacked once. A folder that
        holds a ``model.tar.gz``, as SageMaker's training jobs leave it, stands for that archive.

        What a thread fetched last is in use until the thread fetches again: nothing evicts it while it loads. Raises
        LoadFailed for an archive that cannot be unpacked, ModelNotReady when all that is on the disk is in use.
        """
        self._forget_last()
        if source.is_dir():
            archive = source / "model.tar.gz"
            return self.fetch(archive) if archive.is_file() else source
        if not source.name.endswith(_ARCHIVES):
            return source
        for _ in range(_ATTEMPTS):
            try:
                digest = self._known(source) or self._unpacked(source)
                held = self._hold(digest)
            except OSError as error:
                raise LoadFailed(f"the artifact {source.name!r} could not be fetched: {error.strerror}") from error
            if held is not None:
                self._here.held = held
                return self._entry(digest)
        raise ModelNotReady(f"the disk cache has no lasting room for the artifact {source.name!r}")

    def pin(self, path: Path) -> None:
        """Keep a fetched folder until ``unpin``, in every process. Nothing happens to what the cache does not own."""
        if path.parent == self._home / "entries":
            held = self._hold(path.name)
            if held is None:
                raise ModelNotReady("the artifact has left the disk cache: fetch it again")
            with self._lock:
                self._pins.setdefault(path, []).append(held)

    def unpin(self, path: Path) -> None:
        """Undo one ``pin``."""
        with self._lock:
            held = self._pins.get(path)
            if held:
                held.pop().release()
            if not held:
                self._pins.pop(path, None)

    def close(self) -> None:
        """Let go of every lock this object holds on behalf of this thread and of ``pin``."""
        self._forget_last()
        with self._lock:
            for held in self._pins.values():
                for lock in held:
                    lock.release()
            self._pins.clear()

    # -- in use --------------------------------------------------------------------------------------------------------

    def _hold(self, digest: str) -> _Held | None:
        """A shared lock on an entry; None when the entry is gone. Marks it as used now."""
        use = self._home / "uses" / digest
        try:
            file = os.open(use, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        held = _Held(file)
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file).st_nlink == 0 or not self._entry(digest).is_dir():  # evicted before we had the lock
            held.release()
            return None
        now = time.time_ns()  # by itself the kernel would use a clock of some milliseconds
        os.utime(file, ns=(now, now))
        return held

    def _forget_last(self) -> None:
        held: _Held | None = getattr(self._here, "held", None)
        if held is not None:
            held.release()
            self._here.held = None

    # -- in ------------------------------------------------------------------------------------------------------------

    def _entry(self, digest: str) -> Path:
        return self._home / "entries" / digest

    def _known(self, source: Path) -> str | None:
        """The digest under which this very file was unpacked before, if the entry is still there."""
        with suppress(FileNotFoundError):
            digest = (self._home / "sources" / _key(source)).read_text()
            if self._entry(digest).is_dir():
                return digest
        return None

    def _unpacked(self, source: Path) -> str:
        """Unpack and enter under the content's digest. Workers that want the same archive wait for the first."""
        self._open()
        key = _key(source)
        with _exclusive(self._home / "locks" / key[:2]):
            known = self._known(source)
            if known is not None:
                return known
            work = self._home / "incoming" / f"{os.getpid()}-{threading.get_ident()}"
            work.mkdir(mode=0o700)
            try:
                digest = unpack(source, work / "content", self._limits)
                if _key(source) != key:
                    raise LoadFailed(f"the artifact {source.name!r} was replaced while it was read")
                self._enter(digest, key, work / "content")
            finally:
                shutil.rmtree(work, ignore_errors=True)
            return digest

    def _enter(self, digest: str, key: str, content: Path) -> None:
        use = self._home / "uses" / digest
        with _exclusive(self._home / "locks" / "entries"):
            if self._entry(digest).is_dir():  # another file with the same content was first
                with use.open("a") as file:
                    file.write(f" {key}")
            else:
                size = sum(file.lstat().st_size for file in content.rglob("*") if file.is_file())
                self._make_room(size)
                _write_whole(use, f"{size} {key}")
                content.rename(self._entry(digest))
            _write_whole(self._home / "sources" / key, digest)

    def _open(self) -> None:
        """Make the folders; throw away what earlier boots, and processes that died at work, have left."""
        if self._opened:
            return
        for name in ("entries", "uses", "sources", "incoming", "locks"):
            (self._home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        boots = [other for other in self._folder.glob("boot-*") if other != self._home]
        abandoned = [work for work in (self._home / "incoming").iterdir() if not _alive(work.name.partition("-")[0])]
        for stale in (*boots, *abandoned):
            shutil.rmtree(stale, ignore_errors=True)
        self._opened = True

    # -- out -----------------------------------------------------------------------------------------------------------

    def _make_room(self, size: int) -> None:
        """Evict entries not in use, least recently used first, until ``size`` bytes more fit the budget."""
        if size > self._budget:
            raise LoadFailed(f"the artifact unpacks to {size} bytes; the disk cache holds {self._budget}")
        files = [use for use in (self._home / "uses").iterdir() if not use.name.startswith(".")]
        uses = sorted((use.stat().st_mtime_ns, use.name, int(use.read_text().split()[0])) for use in files)
        total = sum(held for _, _, held in uses)
        for _, digest, held in uses:
            if total + size <= self._budget:
                return
            if self._evicted(digest):
                total -= held
        if total + size > self._budget:
            raise ModelNotReady("every artifact in the disk cache is in use")

    def _evicted(self, digest: str) -> bool:
        """Remove an entry and what names it, unless some process holds it."""
        use = self._home / "uses" / digest
        with use.open() as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            leaving = self._home / "incoming" / f"{os.getpid()}-leaving-{digest}"
            with suppress(FileNotFoundError):
                self._entry(digest).rename(leaving)
            for key in held.read().split()[1:]:
                (self._home / "sources" / key).unlink(missing_ok=True)
            use.unlink()
        shutil.rmtree(leaving, ignore_errors=True)
        log.info("evicted the artifact %s from the disk cache", digest)
        return True


def _boot() -> str:
    """A name for this boot of the machine."""
    with suppress(OSError):
        return "boot-" + _BOOT_ID.read_text().strip()
    return "boot-unknown"


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _key(source: Path) -> str:
    """Which file this is, as long as nobody writes to it."""
    found = source.stat()
    told = (os.path.realpath(source), found.st_mtime_ns, found.st_size, found.st_ino)
    return hashlib.sha256(repr(told).encode()).hexdigest()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """One process and thread at a time, by a lock file that stays."""
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _write_whole(path: Path, text: str) -> None:
    """A small file that is never seen half written."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    fresh.write_text(text)
    fresh.replace(path)
