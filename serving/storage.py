"""Where bytes lie: artifacts by URL, files written whole or not at all, and the lock on the data folder.

An artifact's URL is a path, ``file://`` or ``s3://bucket/key``. Names that callers supply (TargetModel) are resolved
beneath a folder the operator named and nowhere else (``reliability.md`` promise 20).
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from serving.config import Settings
from serving.errors import ConfigError, LoadFailed, UnknownModel, ValidationError

MAX_NAME = 1024  # characters: TargetModel's limit, and an S3 key's


# --- names ----------------------------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """``name`` when it is a plain relative path: visible characters, ``/`` between parts, none of them empty, ``.``
    or ``..``. Raises ``ValidationError``; the text does not repeat the name, which may hold anything."""
    parts = name.split("/")
    if (
        len(name) > MAX_NAME
        or not name.isprintable()
        or "\\" in name
        or any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts)
    ):
        raise ValidationError(
            "The name must be a relative path of at most 1,024 visible characters, without empty, '.' or '..' parts."
        )
    return name


def beneath(folder: Path, name: str) -> Path:
    """The real path of ``name`` beneath ``folder``, every link followed now, so that nothing is left to follow later.

    Raises ``ValidationError`` for a name that is no plain relative path, ``UnknownModel`` for one that does not exist
    or that a link leads out of the folder (the two look alike to a caller)."""
    check_name(name)
    try:
        root = real_path(str(folder))
        real = real_path(f"{root}/{name}")
    except OSError:  # absent, unreadable, or links in a ring
        raise UnknownModel(f"Failed to find an artifact named {name!r}.") from None
    if not real.startswith(f"{root.rstrip('/')}/") or real == root:
        raise UnknownModel(f"Failed to find an artifact named {name!r}.")
    return Path(real)


def real_path(path: str) -> str:
    """``os.path.realpath(path, strict=True)`` by the kernel, in three calls and not one for each part: this is on the
    way of every cold call. Raises ``OSError``."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115  # a Path costs more than the three calls
    finally:
        os.close(fd)


class ObjectUrl(NamedTuple):
    """``s3://bucket/key``. An empty key, or one that ends in ``/``, is a prefix."""

    bucket: str
    key: str


def parse_s3(url: str) -> ObjectUrl:
    """Bucket and key. Raises ``ValidationError`` when there is no bucket or a part would not be a plain name."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    check_name(bucket)
    if key.rstrip("/"):
        check_name(key.rstrip("/"))
    return ObjectUrl(bucket, key)


# --- artifacts by URL -----------------------------------------------------------------------------------------------


class ArtifactStore(Protocol):
    """Turns an artifact's URL into files on this machine."""

    def locate(self, url: str, name: str = "") -> Path:
        """The file or folder at ``url``; with ``name`` (a TargetModel) the one of that name under the prefix ``url``.

        The answer is a real path. May fetch, so it may take as long as a load. Raises ``ValidationError`` for what is
        no such URL or name, ``UnknownModel`` when nothing is there, ``LoadFailed`` when it could not be fetched.
        """
        ...

    def locate_prefix(self, url: str) -> Path:
        """The folder at ``url``, a prefix whose models may come later: what can be empty in an object store is made
        where it can be. Raises as ``locate`` does."""
        ...


class LocalStore:
    """Files of this machine. ``s3://bucket/key`` is ``s3_root/bucket/key``; paths and ``file://`` must lie in
    ``roots``, the artifacts and folders that the operator named."""

    def __init__(self, s3_root: Path, roots: Iterable[Path] = ()) -> None:
        """``roots`` are taken as the operator wrote them; what they link to is theirs."""
        self._s3_root = s3_root
        self._roots = tuple(root.absolute() for root in roots)

    def locate(self, url: str, name: str = "") -> Path:
        """See ``ArtifactStore``."""
        if url.startswith("s3://"):
            return self._object(parse_s3(url), name)
        place = self._named(_file_path(url))
        return beneath(place, name) if name else place

    def locate_prefix(self, url: str) -> Path:
        """See ``ArtifactStore``: a prefix of the local bucket folder is made when it is not there."""
        if url.startswith("s3://"):
            bucket, key = parse_s3(url)
            with suppress(OSError):  # a file in the way: locate says so
                (self._s3_root / bucket / key).mkdir(parents=True, exist_ok=True)
        return self.locate(url)

    def _object(self, url: ObjectUrl, name: str) -> Path:
        full = "/".join(part for part in (url.key.rstrip("/"), name) if part)
        if name:
            check_name(name)  # on its own: joined to a key it could hide an absolute path
        try:
            return beneath(self._s3_root / url.bucket, full) if full else beneath(self._s3_root, url.bucket)
        except UnknownModel:
            raise _missing(url.bucket, full) from None

    def _named(self, path: Path) -> Path:
        """``path`` if it is one of the roots or lies beneath one, links followed."""
        for root in self._roots:
            if path == root:
                if not path.exists():
                    raise UnknownModel(f"Failed to find an artifact at {str(path)!r}.")
                return path.resolve()
            if path.is_relative_to(root) and ".." not in path.parts:
                return beneath(root, path.relative_to(root).as_posix())
        raise ValidationError("The artifact is not in a folder that this server's operator has named.")


def _file_path(url: str) -> Path:
    """The absolute path of a ``file://`` URL or plain path. Decodes a URL once."""
    path = url
    if url.startswith("file://"):
        host, _, rest = url.removeprefix("file://").partition("/")
        if host not in ("", "localhost"):
            raise ValidationError("A file:// URL must name a path of this machine: file:///path.")
        path = unquote("/" + rest)
    if "://" in path or not path.startswith("/") or "\0" in path:
        raise ValidationError("An artifact is an absolute path, or a file:// or s3:// URL.")
    return Path(path)


def _missing(bucket: str, key: str) -> UnknownModel:
    """SageMaker's own text for an absent object."""
    return UnknownModel(f"Failed to download model data (bucket: {bucket}, key: {key}).")


class S3Store:
    """Real S3 through boto3, or any S3-compatible service; everything that is not ``s3://`` goes to ``local``.

    What is fetched lands in ``cache``, in a folder named after the content's ETag: fetched once per version, visible
    only when whole. ``client`` is a boto3 S3 client.
    """

    def __init__(self, client: Any, cache: Path, local: LocalStore) -> None:
        """Nothing is contacted before the first ``locate``."""
        self._client = client
        self._cache = cache
        self._local = local

    def locate(self, url: str, name: str = "") -> Path:
        """See ``ArtifactStore``. An object is a file of the key's last name; a prefix, the folder of its objects."""
        if not url.startswith("s3://"):
            return self._local.locate(url, name)
        bucket, key = parse_s3(url)
        if name:
            key = "/".join(part for part in (key.rstrip("/"), check_name(name)) if part)
        objects = self._listed(bucket, key)
        digest = hashlib.sha256(repr((bucket, key, sorted(objects.items()))).encode()).hexdigest()
        folder = self._cache / digest
        if not folder.exists():
            self._fetch(bucket, key, list(objects), folder)
        return folder / key.rstrip("/").rpartition("/")[2] if key in objects else folder

    def locate_prefix(self, url: str) -> Path:
        """See ``ArtifactStore``."""
        return self.locate(url)

    def _listed(self, bucket: str, key: str) -> dict[str, str]:
        """ETag by key: the object ``key`` alone if there is one, else everything under the prefix ``key/``."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if key and not key.endswith("/") and (etag := self._etag(bucket, key)):
                return {key: etag}
            prefix = f"{key.rstrip('/')}/" if key else ""
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            found = {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}
        except ClientError as error:
            if status_of(error) == 404:
                raise _missing(bucket, key) from None
            raise LoadFailed("The object store refused to show the artifact.") from error
        except BotoCoreError as error:
            raise LoadFailed("The object store could not be reached.") from error
        files = {name: etag for name, etag in found.items() if not name.endswith("/")}  # consoles' "folders"
        if not files:
            raise _missing(bucket, key)
        return files

    def _etag(self, bucket: str, key: str) -> str:
        """The object's ETag, empty when there is no such object (or bucket: the listing that follows tells)."""
        from botocore.exceptions import ClientError

        try:
            return str(self._client.head_object(Bucket=bucket, Key=key)["ETag"])
        except ClientError as error:
            if status_of(error) == 404:
                return ""
            raise

    def _fetch(self, bucket: str, key: str, keys: list[str], folder: Path) -> None:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        staging = temporary_name(folder)
        prefix = key.rpartition("/")[0] if keys == [key] else key.rstrip("/")
        try:
            for one in keys:
                target = staging / check_name(one.removeprefix(prefix).lstrip("/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                self._client.download_file(bucket, one, str(target))
                sync(target)
            _rename_folder(staging, folder)
        except (BotoCoreError, ClientError, Boto3Error) as error:
            raise LoadFailed("The artifact could not be fetched from the object store.") from error
        except OSError as error:
            raise LoadFailed("The artifact could not be written to the disk cache.") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def status_of(error: Any) -> int:
    """HTTP status behind a botocore ``ClientError``."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def open_store(settings: Settings, named: Iterable[str] = ()) -> ArtifactStore:
    """The store these settings ask for. ``named``: paths and URLs of artifacts that the operator named on the command
    line or in a declared file; they may be read, as the folders in ``file_roots`` may. Raises ``ConfigError`` when S3
    is wanted and boto3 is not installed."""
    places = [_file_path(url) for url in named if "://" not in url or url.startswith("file://")]
    local = LocalStore(settings.data_dir / "s3", [*settings.file_roots, *places])
    if settings.s3 == "local":
        return local
    return S3Store(s3_client(settings), settings.data_dir / "cache" / "s3", local)


def s3_client(settings: Settings) -> Any:
    """A boto3 client of the store that these settings name, for any number of threads. Raises ``ConfigError``."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise ConfigError(
            f"SERVING_S3 is {settings.s3!r}, which needs boto3: pip install 'serving[s3]', or set it to local."
        ) from None
    config = Config(
        signature_version="s3v4",
        # Compatible stores do not know the checksums that newer clients send and ask for unbidden.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=64,
    )
    url = None if settings.s3 == "aws" else settings.s3
    session = boto3.session.Session()  # of its own: the shared one keeps the first credentials it was given
    return session.client("s3", endpoint_url=url, region_name=settings.region, config=config)


# --- files whole or not at all --------------------------------------------------------------------------------------

_serial = itertools.count()


def temporary_name(path: Path) -> Path:
    """A name beside ``path`` that no other process or thread uses."""
    return path.with_name(f".{path.name[:200]}.{os.getpid()}-{next(_serial)}.tmp")


def sync(path: Path) -> None:
    """Put a file's or folder's content on the disk. A failed fsync raises and is not tried again: the kernel may
    have dropped the pages (https://lwn.net/Articles/752063/)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, and is on the disk when this returns. Raises ``OSError``, and
    then the old content stands."""
    temporary = temporary_name(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def _rename_folder(source: Path, target: Path) -> None:
    """Make a finished folder visible under its final name. Somebody else may have been first with the same content."""
    for folder, _, _ in os.walk(source):
        sync(Path(folder))
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    sync(target.parent)


# --- one server per data folder -------------------------------------------------------------------------------------


class DataLock:
    """The right to use a data folder, from ``acquire`` to ``release`` or the process's death.

    A POSIX record lock: unlike ``flock`` it is not inherited by forked children, so a worker that outlives a killed
    server cannot keep its successor out. Such a lock belongs to the process: take it once.
    """

    def __init__(self, data_dir: Path) -> None:
        """Nothing is touched before ``acquire``."""
        self._data_dir = data_dir
        self._fd = -1

    def acquire(self) -> DataLock:
        """Create the folder if need be and lock it. Raises ``ConfigError`` naming the process that has it."""
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"Cannot use the data folder {self._data_dir}: {error.strerror}.") from None
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise ConfigError(
                f"The data folder {self._data_dir} is in use by the server with process id {holder}; "
                "stop it, or give this one another --data-dir."
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return self

    def release(self) -> None:
        """Give the folder up; harmless when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DataLock:
        """Hold the folder for a block."""
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it up."""
        self.release()
