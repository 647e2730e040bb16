"""Which objects a transform job reads, and what the object that it writes for each of them is called.

Sources: SageMaker API, TransformS3DataSource; behaviour/04 (input listing, output naming, its table of choices).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import orjson

from serving.errors import ObjectMissing, ValidationError
from serving.objects import LocalObjects, ObjectStore
from serving.objects.base import ObjectInfo, object_url, prefix_url

#: Bytes a manifest may have: a million keys of 250 characters.
MOST_MANIFEST = 256 << 20
#: Threads that look up the objects of a manifest in a store far away, and objects that are looked up at once.
_LOOKERS, _AT_ONCE = 16, 512


class Source(NamedTuple):
    """One input object as it was listed: its URL, bytes, version, and the URL of the object its results go to."""

    url: str
    size: int
    version: str
    output: str


def sources(objects: ObjectStore, data_type: str, uri: str, output_path: str) -> Iterator[Source]:
    """The inputs of a transform job (``S3DataType``, ``S3Uri``, ``S3OutputPath``), in the order of their keys or of the
    manifest; objects of no bytes too. No two have one output, and none has it among the inputs: under the prefix, or on
    an object of the manifest.

    The call itself raises ``ValidationError`` for URLs and manifests that make no sense; iterating raises it when there
    is nothing, when an object of a manifest is not there, or when a name is impossible. ``ObjectUnavailable`` passes
    through. Memory: a prefix is never held as a whole, a manifest is.
    """
    prefix_url(output_path)
    target = output_path.rstrip("/") + "/"
    if data_type == "S3Prefix":
        prefix_url(uri)
        begin = uri if "/" in uri.removeprefix("s3://") else f"{uri}/"
        return _named(_found(objects, uri), _base(uri), target, lambda output: output.startswith(begin))
    if data_type == "ManifestFile":
        prefix, keys = _manifest(objects, uri)
        listed = frozenset(keys) if target.startswith(prefix) or prefix.startswith(target) else frozenset()
        return _named(_looked_up(objects, prefix, keys), _base(prefix), target, _is_listed(prefix, listed))
    raise ValidationError(f"S3DataType {data_type} is not supported for transform jobs; use S3Prefix or ManifestFile.")


# --- names ----------------------------------------------------------------------------------------------------------


def _base(uri: str) -> str:
    """What is cut off an input's URL: everything up to the last ``/`` of the key (behaviour/04). As all inputs of a job
    begin with it, their outputs differ as they do."""
    bucket, key = prefix_url(uri)
    folder, slash, _ = key.rpartition("/")
    return f"s3://{bucket}/{folder}{slash}"


def _named(found: Iterator[ObjectInfo], base: str, target: str, is_input: Callable[[str], bool]) -> Iterator[Source]:
    for url, size, version in found:
        output = f"{target}{url.removeprefix(base)}.out"
        try:
            object_url(output)  # what could be wrong with the input's name is in the output's too
        except ValidationError:
            raise ValidationError(f"The object {_quoted(url)} or its output has a name that is not possible.") from None
        if is_input(output):
            raise ValidationError(f"The output {_quoted(output)} lies among the inputs. Choose another S3OutputPath.")
        yield Source(url, size, version, output)


def _is_listed(prefix: str, keys: frozenset[str]) -> Callable[[str], bool]:
    return lambda url: url.startswith(prefix) and url[len(prefix) :] in keys


def _quoted(text: str) -> str:
    """A name of unknown origin for a message: short, and without control characters."""
    shown = repr(text)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


# --- S3Prefix -------------------------------------------------------------------------------------------------------


def _found(objects: ObjectStore, prefix: str) -> Iterator[ObjectInfo]:
    nothing = True
    for info in objects.list(prefix):
        nothing = False
        yield info
    if nothing:
        raise ValidationError(f"There is no object whose name starts with {_quoted(prefix)}.")


# --- ManifestFile ---------------------------------------------------------------------------------------------------


def _manifest(objects: ObjectStore, uri: str) -> tuple[str, list[str]]:
    """Prefix and keys of a manifest: ``[{"prefix": "s3://bucket/some/"}, "a/x.csv", "y.csv"]``. Raises
    ``ValidationError`` naming what is wrong with it."""
    object_url(uri)
    where = f"The manifest {_quoted(uri)}"
    items = _parsed(where, _read(objects, uri, where))
    head = items[0] if items else None
    prefix = head.get("prefix") if isinstance(head, dict) else None
    if not isinstance(prefix, str):
        raise ValidationError(f'{where} does not start with {{"prefix": "s3://bucket/…"}}.')
    try:
        prefix_url(prefix)
    except ValidationError:
        raise ValidationError(f"{where} has the prefix {_quoted(prefix)}, which is no s3:// URL.") from None
    if "/" not in prefix.removeprefix("s3://"):
        raise ValidationError(f"{where} has the prefix {_quoted(prefix)}, which lacks a slash after the bucket.")
    keys = items[1:]
    if not keys:
        raise ValidationError(f"{where} lists no objects.")
    _check_keys(where, prefix, keys)
    return prefix, keys


def _read(objects: ObjectStore, uri: str, where: str) -> bytes:
    try:
        with objects.open(uri) as file:
            data = file.read(MOST_MANIFEST + 1)
    except ObjectMissing:
        raise ValidationError(f"{where} does not exist.") from None
    if len(data) > MOST_MANIFEST:
        raise ValidationError(f"{where} has more than {MOST_MANIFEST:,} bytes.")
    return data


def _parsed(where: str, data: bytes) -> list[Any]:
    try:
        items = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ValidationError(f"{where} is not JSON.") from None
    if not isinstance(items, list):
        raise ValidationError(f"{where} is not a JSON array.")
    return items


def _check_keys(where: str, prefix: str, keys: list[Any]) -> None:
    seen: set[str] = set()
    for number, key in enumerate(keys, start=2):
        if not isinstance(key, str):
            raise ValidationError(f"{where} has something else than a key as its item {number}.")
        try:
            object_url(prefix + key)
        except ValidationError:
            raise ValidationError(f"{where} has the impossible key {_quoted(key)} as its item {number}.") from None
        if key in seen:
            raise ValidationError(f"{where} lists {_quoted(key)} twice; its outputs would collide.")
        seen.add(key)


def _looked_up(objects: ObjectStore, prefix: str, keys: list[str]) -> Iterator[ObjectInfo]:
    """The objects of a manifest, in its order."""
    urls = (prefix + key for key in keys)
    found = map(objects.stat, urls) if isinstance(objects, LocalObjects) else _asked(objects, urls)
    for key, info in zip(keys, found, strict=True):
        if info is None:
            raise ValidationError(f"The manifest lists {_quoted(prefix + key)}, which does not exist.")
        yield info


def _asked(objects: ObjectStore, urls: Iterator[str]) -> Iterator[ObjectInfo | None]:
    """What a store far away says of many objects, asked by several threads, a few questions ahead."""
    with ThreadPoolExecutor(_LOOKERS, "manifest") as pool:
        while some := list(islice(urls, _AT_ONCE)):
            yield from pool.map(objects.stat, some)
