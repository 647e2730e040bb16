"""Objects of a real S3, or of any store that speaks its protocol, through boto3."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from serving.errors import ObjectMissing, ObjectUnavailable, ServingError, ValidationError
from serving.objects.base import ObjectInfo, made, object_url, prefix_url, spooled
from serving.storage import status_of

#: Bytes read ahead of the reader, and copied at a time.
_PIECE = 1 << 20
#: How often in a row an interrupted read is taken up again where it stopped, when no byte came in between.
_RESUMES = 4
#: Refusals that pass, whatever their HTTP status.
_PASSING = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestTimeTooSkewed"})


class S3Objects:
    """See ``ObjectStore``. An object's version is its ETag. ``client``: ``storage.s3_client``."""

    def __init__(self, client: Any, spool: Path) -> None:
        """Nothing is contacted or made before it is needed."""
        self._client = client
        self._spool = spool

    @property
    def spool(self) -> Path:
        """See ``ObjectStore``."""
        return made(self._spool)

    def stat(self, url: str) -> ObjectInfo | None:
        """See ``ObjectStore``."""
        bucket, key = object_url(url)
        try:
            with _failures(url):
                found = self._client.head_object(Bucket=bucket, Key=key)
        except ObjectMissing:
            return None
        return ObjectInfo(url, found["ContentLength"], _version(found))

    @contextmanager
    def open(self, url: str, offset: int = 0, version: str = "") -> Iterator[BinaryIO]:
        """See ``ObjectStore``. A read that is interrupted, by an error or because the reader took its time, is taken
        up again where it stopped, as long as it is the same object."""
        with io.BufferedReader(_Stream(self._client, url, offset, version), _PIECE) as reader:
            yield reader

    @contextmanager
    def fetch(self, url: str) -> Iterator[Path]:
        """See ``ObjectStore``."""
        with spooled(self._spool, "fetch") as path:
            with self.open(url) as source:
                try:
                    with path.open("xb") as file:
                        shutil.copyfileobj(source, file, _PIECE)
                except OSError as error:
                    raise ObjectUnavailable("There is no room for the object in the spool.") from error
            yield path

    def put(self, url: str, content: bytes | Path, content_type: str = "") -> None:
        """See ``ObjectStore``. A long file goes in parts, which are taken back when one fails."""
        bucket, key = object_url(url)
        extra = {"ContentType": content_type} if content_type else {}
        with _failures(url, writing=True):
            if isinstance(content, bytes):
                self._client.put_object(Bucket=bucket, Key=key, Body=content, **extra)
                return
            with _finished(content) as file:
                self._client.upload_fileobj(file, bucket, key, ExtraArgs=extra)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore``. Keys are told as they are, also those that no ``open`` would take (``a//b``)."""
        bucket, key = prefix_url(prefix)
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key))
        while True:
            try:
                with _failures(prefix):
                    page = next(pages, None)
            except ObjectMissing:
                return
            if page is None:
                return
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):
                    yield ObjectInfo(f"s3://{bucket}/{item['Key']}", item["Size"], _version(item))

    def delete(self, url: str) -> None:
        """See ``ObjectStore``."""
        bucket, key = object_url(url)
        try:
            with _failures(url):
                self._client.delete_object(Bucket=bucket, Key=key)
        except ObjectMissing:
            return


class _Stream(io.RawIOBase):
    """The bytes of an object from an offset on, over as many requests as it takes."""

    def __init__(self, client: Any, url: str, offset: int, version: str) -> None:
        self._client = client
        self._url = url
        self._at = offset
        self._version = version
        self._body: Any = None
        self._connect()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        for attempt in range(_RESUMES + 1):
            try:
                with _failures(self._url):
                    if self._body is None:
                        self._connect()
                    piece = self._body.read(len(buffer))
                buffer[: len(piece)] = piece
                self._at += len(piece)
                return len(piece)
            except ObjectUnavailable as error:
                self._drop()
                if attempt == _RESUMES or not error.transient:
                    raise
        return 0

    def close(self) -> None:
        self._drop()
        super().close()

    def _connect(self) -> None:
        """Ask for what has not been read. What comes must be what was wanted: not every store looks at If-Match."""
        bucket, key = object_url(self._url)
        ask = {"Range": f"bytes={self._at}-"} if self._at else {}
        if self._version:
            ask["IfMatch"] = f'"{self._version}"'
        with _failures(self._url):
            try:
                found = self._client.get_object(Bucket=bucket, Key=key, **ask)
            except self._client.exceptions.ClientError as error:
                if status_of(error) != 416:  # nothing lies behind the offset
                    raise
                self._body = io.BytesIO()
                return
        self._body = found["Body"]
        if self._version not in ("", _version(found)):
            self._drop()
            raise _replaced(self._url)
        self._version = _version(found)
        if self._at and not found.get("ContentRange", "").startswith(f"bytes {self._at}-"):
            self._drop()
            raise ObjectUnavailable("The object store does not read from where it was asked to.", transient=False)

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


def _version(found: Mapping[str, Any]) -> str:
    """The ETag without its quotes, which some stores leave out of their lists."""
    return str(found["ETag"]).strip('"')


@contextmanager
def _finished(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ObjectUnavailable("The file to be published is gone.", transient=False) from error
    with file:
        yield file


@contextmanager
def _failures(url: str, writing: bool = False) -> Iterator[None]:
    """Errors of boto3 and of the connection below it, as ours."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _refusal(url, error, writing) from error
    except (BotoCoreError, Boto3Error, HTTPError, OSError) as error:
        raise _breakdown(error) from error


def _refusal(url: str, error: Any, writing: bool) -> ServingError:
    """What the store answered instead of what it was asked."""
    status, code = status_of(error), str(error.response.get("Error", {}).get("Code", ""))
    if status == 404 and not writing:
        return ObjectMissing(f"There is no object {url}.")
    if status == 412:
        return _replaced(url)
    if status >= 500 or status == 429 or code in _PASSING:
        return ObjectUnavailable("The object store is overloaded or out of order.")
    if status == 404:
        return ObjectUnavailable("There is no such bucket in the object store.", transient=False)
    why = code if code.isalnum() else str(status)
    return ObjectUnavailable(f"The object store refuses this ({why}).", transient=False)


def _breakdown(error: Exception) -> ServingError:
    """The store was not reached, or the connection broke."""
    from botocore.exceptions import NoCredentialsError, ParamValidationError, PartialCredentialsError

    if isinstance(error, ParamValidationError):
        return ValidationError("The object store does not take such a bucket name or key.")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return ObjectUnavailable("There are no credentials for the object store.", transient=False)
    return ObjectUnavailable("The object store could not be reached.")


def _replaced(url: str) -> ObjectMissing:
    return ObjectMissing(f"The object {url} has been replaced.")
