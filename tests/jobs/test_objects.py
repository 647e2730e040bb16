"""Objects by URL: one contract for the local bucket folder and for a real S3 server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from serving.errors import ObjectMissing, ObjectUnavailable, ValidationError
from serving.objects import LocalObjects, ObjectStore, S3Objects
from tests import memory
from tests.objects import ACTS, S3Server, finished, local, read, spool

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

_buckets = count(1)


@pytest.fixture(params=["local", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """Every kind of store."""
    if request.param == "local":
        yield local(tmp_path)
        return
    server: S3Server = request.getfixturevalue("s3")
    with server.objects(tmp_path) as store:
        yield store


@pytest.fixture
def bucket(objects: ObjectStore) -> str:
    """A bucket of this test alone, ``s3://name``."""
    name = f"bucket-{os.getpid()}-{next(_buckets)}"
    if isinstance(objects, S3Objects):
        objects._client.create_bucket(Bucket=name)
    return f"s3://{name}"


# --- reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100_000, 9_000_000])
@pytest.mark.parametrize("as_file", [False, True], ids=["bytes", "file"])
def test_what_is_put_is_there(objects: ObjectStore, bucket: str, size: int, as_file: bool) -> None:
    """Read back, read from the middle, fetched as a file and listed; of 9 MB, S3 gets several parts."""
    content = bytes(i * 7 % 251 for i in range(min(size, 1000))) * max(size // 1000, 1)
    objects.put(f"{bucket}/in/a.csv", finished(objects, content) if as_file else content, "text/csv")
    info = objects.stat(f"{bucket}/in/a.csv")
    assert info is not None
    assert (f"{bucket}/in/a.csv", len(content)) == info[:2]
    assert content == read(objects, info.url)
    assert content[size // 2 :] == read(objects, info.url, size // 2, info.version)
    with objects.fetch(info.url) as path:
        assert content == path.read_bytes()
    assert [info] == list(objects.list(bucket))
    assert [] == [name for name in spool(objects) if name != "finished"]


def test_nothing_lies_behind_the_end(objects: ObjectStore, bucket: str) -> None:
    """Reading from the last byte on, and from beyond it."""
    objects.put(f"{bucket}/a", b"12345")
    assert [b"5", b"", b""] == [read(objects, f"{bucket}/a", offset) for offset in (4, 5, 99)]


def test_small_pieces_are_read_as_they_are_asked_for(objects: ObjectStore, bucket: str) -> None:
    """Lines, for one."""
    objects.put(f"{bucket}/a", b"1\n22\n\n333")
    with objects.open(f"{bucket}/a") as file:
        assert [b"1\n", b"22\n", b"\n", b"333"] == list(file)


def test_a_put_replaces(objects: ObjectStore, bucket: str) -> None:
    """The object is another one then: its old version cannot be read any more."""
    url = f"{bucket}/a"
    objects.put(url, b"old")
    old = objects.stat(url)
    objects.put(url, b"new")
    new = objects.stat(url)
    assert old is not None
    assert new is not None
    assert old.version != new.version
    assert b"new" == read(objects, url, 0, new.version)
    for offset in (0, 1):
        with pytest.raises(ObjectMissing, match="has been replaced"), objects.open(url, offset, old.version):
            pass


@pytest.mark.parametrize("key", ["none", "folder", "a/b"])
def test_what_is_not_there_is_missing(objects: ObjectStore, bucket: str, key: str) -> None:
    """No object, a folder of objects, something beneath an object."""
    objects.put(f"{bucket}/folder/x", b"")
    objects.put(f"{bucket}/a", b"")
    url = f"{bucket}/{key}"
    assert objects.stat(url) is None
    with pytest.raises(ObjectMissing), objects.open(url):
        pass
    with pytest.raises(ObjectMissing), objects.fetch(url):
        pass
    if key == "none" or isinstance(objects, LocalObjects):  # rclone removes what is above or below
        objects.delete(url)
        assert [f"{bucket}/a", f"{bucket}/folder/x"] == [info.url for info in objects.list(bucket)]


def test_a_bucket_that_is_not_there_holds_nothing(objects: ObjectStore) -> None:
    """As if it were empty."""
    assert objects.stat("s3://nobody-made-it/a") is None
    assert [] == list(objects.list("s3://nobody-made-it/"))
    objects.delete("s3://nobody-made-it/a")
    with pytest.raises(ObjectMissing), objects.open("s3://nobody-made-it/a"):
        pass


def test_a_list_is_by_string_prefix_in_byte_order(objects: ObjectStore, bucket: str) -> None:
    """``a.b`` comes before ``a/b``, and ``in/a`` begins ``in/ab.csv`` too."""
    keys = ["in/a-", "in/a.b", "in/a/b", "in/a/c/d", "in/ab.csv", "in/b", "in/with space+%&=", "in/ä", "in/𝄞"]
    for key in reversed(keys):
        objects.put(f"{bucket}/{key}", b"")

    def listed(prefix: str) -> list[str]:
        return [info.url.removeprefix(f"{bucket}/") for info in objects.list(f"{bucket}/{prefix}")]

    assert keys == sorted(keys, key=str.encode)
    assert [keys, keys, keys] == [listed(""), listed("in"), listed("in/")]
    assert keys[:5] == listed("in/a")
    assert keys[2:4] == listed("in/a/")
    assert ["in/ä"] == listed("in/ä")
    assert [] == listed("in/b/") + listed("i/") + listed("in/c")


def test_a_long_list_comes_in_pages(objects: ObjectStore, bucket: str) -> None:
    """More than one answer of S3 holds."""
    urls = [f"{bucket}/{number:04}" for number in range(1_005)]
    for url in urls:
        objects.put(url, b"")
    assert urls == [info.url for info in objects.list(bucket)]


def test_a_deleted_object_is_gone(objects: ObjectStore, bucket: str) -> None:
    """Once is enough, twice does no harm, and its name is free."""
    url = f"{bucket}/a/b"
    objects.put(url, b"1")
    objects.delete(url)
    objects.delete(url)
    assert objects.stat(url) is None
    assert [] == list(objects.list(bucket))


NO_URLS = (
    "", "a/b", "http://a/b", "file:///etc/passwd", "s3://", "s3://bucket", "s3://bucket/", "s3://bucket/a/",
    "s3:///a", "s3://../a", "s3://bucket/../a", "s3://bucket//a", "s3://bucket/a//b", "s3://.spool/a", "s3://bucket/./a",
    "s3://bucket/a\0", "s3://bucket/a\nb", "s3://bucket/a\\b", "s3://bucket/\ud800", f"s3://bucket/{'x' * 1025}",
)  # fmt: skip


@pytest.mark.parametrize("act", ACTS, ids=["stat", "put", "delete", "open", "fetch"])
@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_objects_url_is_refused(
    objects: ObjectStore, url: str, act: Callable[[ObjectStore, str], object]
) -> None:
    """By everything that takes one, before anything is touched."""
    with pytest.raises(ValidationError):
        act(objects, url)


@pytest.mark.parametrize("prefix", ["", "bucket", "s3://", "s3:///a", "s3://b/../c", "s3://b//", "s3://b/a//"])
def test_what_is_no_prefix_is_refused(objects: ObjectStore, prefix: str) -> None:
    """By the list."""
    with pytest.raises(ValidationError):
        list(objects.list(prefix))


def test_a_finished_file_that_is_gone_is_said(objects: ObjectStore, bucket: str) -> None:
    """For good: nobody will bring it back."""
    with pytest.raises(ObjectUnavailable, match="is gone") as caught:
        objects.put(f"{bucket}/a", objects.spool / "none")
    assert not caught.value.transient
    assert [] == list(objects.list(bucket))
