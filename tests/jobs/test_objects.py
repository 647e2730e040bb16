"""Objects by URL: one contract for the local bucket folder and for a real S3 server, and what is special in each."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.config import Settings
from serving.errors import ObjectMissing, ObjectUnavailable, ServingError, ValidationError
from serving.objects import LocalObjects, ObjectStore, S3Objects, open_objects
from serving.storage import check_name
from tests.objects import S3Server, local, one_try_client

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


def read(objects: ObjectStore, url: str, offset: int = 0, version: str = "") -> bytes:
    """What ``open`` gives."""
    with objects.open(url, offset, version) as file:
        return file.read()


def finished(objects: ObjectStore, content: bytes) -> Path:
    """A finished file in the spool."""
    path = objects.spool / "finished"
    path.write_bytes(content)
    return path


def spool(objects: ObjectStore) -> list[str]:
    """What lies in the spool."""
    return [path.name for path in objects.spool.iterdir()]


# --- the contract ---------------------------------------------------------------------------------------------------


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


ACTS: list[Callable[[ObjectStore, str], object]] = [
    lambda objects, url: objects.stat(url),
    lambda objects, url: objects.put(url, b""),
    lambda objects, url: objects.delete(url),
    lambda objects, url: objects.open(url).__enter__(),
    lambda objects, url: objects.fetch(url).__enter__(),
]


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


# --- the bucket folder: names ---------------------------------------------------------------------------------------


def _is_key(text: str) -> bool:
    try:
        check_name(text)
    except ValidationError:
        return False
    return True


PARTS = st.text(st.sampled_from("ab.-/ä%") | st.characters(codec="utf-8"), min_size=1, max_size=12).filter(_is_key)


@given(st.sets(PARTS, max_size=12), st.text("ab.-/", max_size=3))
@settings(deadline=None, max_examples=60)
def test_the_folder_lists_as_s3_does(keys: set[str], start: str) -> None:
    """Whatever the keys: those that begin with a prefix, by their bytes. (What S3 allows and a file system does not,
    an object that is a folder too, is refused.)"""
    with tempfile.TemporaryDirectory() as folder:
        objects = local(Path(folder))
        kept = []
        for key in sorted(keys):
            try:
                objects.put(f"s3://b/{key}", key.encode())
                kept.append(key)
            except ValidationError as error:
                assert "cannot hold" in error.message  # nothing else may be refused
        expected = sorted((key for key in kept if key.startswith(start)), key=str.encode)
        try:
            found = list(objects.list(f"s3://b/{start}"))
        except ValidationError:
            assert not _is_key(start.rstrip("/")) or "//" in start
        else:
            assert [f"s3://b/{key}" for key in expected] == [info.url for info in found]
            assert [len(key.encode()) for key in expected] == [info.size for info in found]


def test_an_object_cannot_also_be_a_folder(tmp_path: Path) -> None:
    """S3 can, files cannot: it is said, and both stay as they were."""
    objects = local(tmp_path)
    objects.put("s3://b/a", b"1")
    objects.put("s3://b/c/d", b"2")
    for url in ("s3://b/a/b", "s3://b/a/b/c", "s3://b/c"):
        with pytest.raises(ValidationError, match="cannot hold an object 'a' beside objects 'a/…'"):
            objects.put(url, b"3")
    assert [b"1", b"2"] == [read(objects, info.url) for info in objects.list("s3://b")]
    assert [] == spool(objects)


def test_an_empty_folder_is_no_object(tmp_path: Path) -> None:
    """Nor in the way of one."""
    objects = local(tmp_path)
    (tmp_path / "s3" / "b" / "a").mkdir(parents=True)
    assert [] == list(objects.list("s3://b"))
    objects.put("s3://b/a", b"1")
    assert b"1" == read(objects, "s3://b/a")


def test_a_name_that_the_file_system_cannot_have_is_refused(tmp_path: Path) -> None:
    """255 bytes for each part: a name of the caller's, not a failure."""
    with pytest.raises(ValidationError):
        local(tmp_path).put("s3://b/" + "ä" * 130, b"")


def test_what_cannot_be_an_object_is_not_listed(tmp_path: Path) -> None:
    """Pipes, sockets, links to folders and to nothing, names that are no text or no key."""
    objects = local(tmp_path)
    objects.put("s3://b/real", b"")
    folder = tmp_path / "s3" / "b"
    os.mkfifo(folder / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.close()
    (folder / "ring").symlink_to(".")
    (folder / "self").symlink_to("self")
    (folder / "nowhere").symlink_to("none")
    (folder / "alias").symlink_to("real")
    (folder / "line\nbreak").touch()
    (folder / "back\\slash").touch()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).touch()
    assert ["s3://b/alias", "s3://b/real"] == [info.url for info in objects.list("s3://b")]
    for name in ("pipe", "socket", "self", "nowhere", "ring"):
        assert objects.stat(f"s3://b/{name}") is None
        with pytest.raises(ObjectMissing), objects.open(f"s3://b/{name}"):
            pass
        with pytest.raises(ObjectMissing), objects.fetch(f"s3://b/{name}"):
            pass


# --- the bucket folder: links ---------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder outside the root, with a secret."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize("link", ["b", "b/folder"])
def test_no_link_leads_out_of_the_root(tmp_path: Path, outside: Path, link: str) -> None:
    """Not to read, not to list, not to write, not to make folders, not to delete; for a bucket and for a folder."""
    objects = local(tmp_path)
    place = tmp_path / "data" / "s3" / link
    objects = local(tmp_path / "data")
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    url = f"s3://{link}"
    assert objects.stat(f"{url}/secret") is None
    assert [] == list(objects.list(f"{url}/"))
    with pytest.raises(ObjectMissing), objects.open(f"{url}/secret"):
        pass
    for name in ("secret", "new", "new/er"):
        with pytest.raises(ValidationError, match="leads out"):
            objects.put(f"{url}/{name}", b"mine")
    with pytest.raises(ValidationError, match="leads out"):
        objects.delete(f"{url}/secret")
    assert {"secret": b"secret"} == {path.name: path.read_bytes() for path in outside.iterdir()}


def test_a_link_out_of_the_root_is_replaced_and_not_followed(tmp_path: Path, outside: Path) -> None:
    """Where the object's own name is a link."""
    objects = local(tmp_path)
    objects.put("s3://b/other", b"")
    link = tmp_path / "s3" / "b" / "a"
    link.symlink_to(outside / "secret")
    assert ["s3://b/other"] == [info.url for info in objects.list("s3://b")]
    objects.put("s3://b/a", b"mine")
    assert (b"mine", b"secret") == (read(objects, "s3://b/a"), (outside / "secret").read_bytes())
    link.unlink()
    link.symlink_to(outside / "secret")
    objects.delete("s3://b/a")
    assert b"secret" == (outside / "secret").read_bytes()


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    """A bucket under a second name, a bucket folder that is itself elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s3").symlink_to("elsewhere")
    objects = local(tmp_path)
    objects.put("s3://b/folder/a", b"1")
    (tmp_path / "elsewhere" / "alias").symlink_to("b")
    objects.put("s3://alias/folder/new/c", b"2")
    assert [b"1", b"2"] == [read(objects, info.url) for info in objects.list("s3://b")]
    assert ["s3://alias/folder/a", "s3://alias/folder/new/c"] == [info.url for info in objects.list("s3://alias/fo")]


# --- the bucket folder: whole or not at all -------------------------------------------------------------------------


@contextmanager
def watched(folder: Path) -> Iterator[dict[str, set[int]]]:
    """The sizes under which each file below a folder is seen, by one who looks without pause."""
    seen: dict[str, set[int]] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for path in folder.rglob("*"):
                try:
                    size = path.stat().st_size
                except FileNotFoundError:
                    size = -1
                if not path.is_dir():
                    seen.setdefault(path.relative_to(folder).as_posix(), set()).add(size)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_nothing_unfinished_is_seen(tmp_path: Path) -> None:
    """By one who looks into the bucket's folder all the time: every file there has its own name and all its bytes."""
    objects = local(tmp_path)
    objects.put("s3://b/first", b"x" * 50_000)
    with watched(tmp_path / "s3" / "b") as seen:
        for number in range(150):
            objects.put(f"s3://b/{number % 50}", b"x" * 50_000)
    assert {50_000} == set().union(*seen.values())
    assert {"first", *map(str, range(50))} >= set(seen)


OTHER_DISK = Path("/dev/shm")


@pytest.mark.skipif(
    not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev,
    reason="there is no second file system to write to",
)
def test_the_spool_may_lie_on_another_disk(tmp_path: Path) -> None:
    """What is put is carried over; the bucket's folder shows nothing of it."""
    with tempfile.TemporaryDirectory(dir=OTHER_DISK) as folder:
        objects = LocalObjects(tmp_path / "s3", Path(folder))
        objects.put("s3://b/first", b"x")
        with watched(tmp_path / "s3" / "b") as seen:
            for number in range(50):
                objects.put(f"s3://b/{number}", b"x" * 50_000)
            file = finished(objects, b"y" * 50_000)
            objects.put("s3://b/file", file)
        assert not file.exists()
        assert {"first", "file", *map(str, range(50))} >= set(seen)
        assert {1, 50_000} >= set().union(*seen.values())
        assert 52 == len(list(objects.list("s3://b")))
        assert [] == spool(objects)


FULL = """
import resource, signal, sys
from pathlib import Path
from serving.errors import ObjectUnavailable
from serving.objects import LocalObjects
objects = LocalObjects(Path(sys.argv[1], "s3"), Path(sys.argv[1], "spool"))
objects.put("s3://b/a", b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    objects.put("s3://b/a", b"x" * 9999)
except ObjectUnavailable as error:
    print(error.message, error.transient)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(*[path.read_bytes() for path in Path(sys.argv[1]).rglob("*") if path.is_file()])
objects.put("s3://b/a", b"new")
"""


def test_a_full_disk_leaves_the_old_object(tmp_path: Path) -> None:
    """It is said, to be tried again; nothing half-written stays anywhere; with space again it goes on."""
    command = [sys.executable, "-B", "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "There is no room for the object. True\nb'old'\n" == done.stdout
    assert b"new" == read(local(tmp_path), "s3://b/a")


@pytest.mark.parametrize("as_file", [False, True], ids=["bytes", "file"])
def test_a_failed_flush_leaves_the_old_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_file: bool) -> None:
    """The kernel may have dropped what it could not write: the file is thrown away, not flushed again; who brought a
    file has nothing left to try again with."""
    objects = local(tmp_path)
    objects.put("s3://b/a", b"old")
    content = finished(objects, b"new") if as_file else b"new"

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(ObjectUnavailable, match="disk failed") as caught:
        objects.put("s3://b/a", content)
    assert as_file != caught.value.transient
    assert ([], b"old") == (spool(objects), read(objects, "s3://b/a"))


def test_everything_is_flushed_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New folders from the top, the file before it has its name, its folder after; folders that were there, not."""
    objects = local(tmp_path)
    real, flushed = os.fsync, []

    def noted(fd: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(tmp_path)).partition(".put")[0])  # noqa: PTH115
        real(fd)

    monkeypatch.setattr(os, "fsync", noted)
    objects.put("s3://b/x/a", b"1")
    objects.put("s3://b/x/b", b"2")
    assert ["/spool/", "/s3", "/s3/b", "/s3/b/x", "/spool/", "/s3/b/x"] == flushed


KILLED = """
import sys
from pathlib import Path
from serving.config import Settings
from serving.objects import open_objects
objects = open_objects(Settings(data_dir=Path(sys.argv[1])))
print("ready", flush=True)
for number in range(10**9):
    objects.put(f"s3://b/{number % 7}/{number % 100}", bytes([number % 251]) * 2_000_000)
"""


def test_kill_leaves_whole_objects_only(tmp_path: Path) -> None:
    """Killed in the middle of a put, five times; what was in the spool goes when the store is opened again, what
    others keep there does not."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "answer-of-a-job").touch()
    for number in range(5):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with watched(tmp_path / "s3") as seen:
                while len(seen) < number + 2:  # its own pace is the clock
                    assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        for path in (tmp_path / "s3").rglob("*"):
            data = b"" if path.is_dir() else path.read_bytes()
            assert path.is_dir() or (2_000_000, 1) == (len(data), len(set(data)))
    objects = open_objects(Settings(data_dir=tmp_path))
    assert ["answer-of-a-job"] == spool(objects)


def test_the_settings_choose_the_store(tmp_path: Path, s3: S3Server) -> None:
    """The bucket folder of the data folder, or the store at a URL."""
    assert isinstance(open_objects(Settings(data_dir=tmp_path)), LocalObjects)
    with s3.environment():
        assert isinstance(open_objects(Settings(data_dir=tmp_path, s3=s3.url)), S3Objects)


# --- S3 -------------------------------------------------------------------------------------------------------------


def test_wrong_credentials_are_refused_for_good(s3: S3Server, tmp_path: Path) -> None:
    """Trying again would not help; it is no missing object either."""
    with s3.objects(tmp_path, secret="wrong") as objects:
        for act in (*ACTS, lambda objects, url: list(objects.list(url))):
            with pytest.raises(ObjectUnavailable) as caught:
                act(objects, "s3://bucket/a")
            assert not caught.value.transient


def test_a_bucket_must_be_there_to_write(s3: S3Server, tmp_path: Path) -> None:
    """Nobody makes buckets by writing; trying again would not help."""
    with s3.objects(tmp_path) as objects, pytest.raises(ObjectUnavailable, match="no such bucket") as caught:
        objects.put("s3://nobody-made-it/a", b"")
    assert not caught.value.transient


def test_the_content_type_is_kept(s3: S3Server, tmp_path: Path) -> None:
    """As the model said it."""
    with s3.objects(tmp_path, "typed") as objects:
        objects.put("s3://typed/a", b"{}", "application/json")
        objects.put("s3://typed/b", finished(objects, b"{}"), "application/json")
        found = [objects._client.head_object(Bucket="typed", Key=key)["ContentType"] for key in "ab"]
    assert ["application/json"] * 2 == found


def test_a_store_that_is_away_may_come_back(tmp_path: Path) -> None:
    """Whatever was wanted of it."""
    client = one_try_client("http://127.0.0.1:1")
    objects = S3Objects(client, tmp_path)
    file = finished(objects, b"1")
    acts = [*ACTS, lambda objects, url: list(objects.list(url)), lambda objects, url: objects.put(url, file)]
    for act in acts:
        with pytest.raises(ObjectUnavailable) as caught:
            act(objects, "s3://bucket/a")
        assert caught.value.transient
    assert b"1" == file.read_bytes()  # to be tried again


class Fragile(BaseHTTPRequestHandler):
    """An S3 server that breaks: answers come from ``answers`` in turn, as (status, code of the error)."""

    content: ClassVar[bytes]
    etag: ClassVar[list[str]]
    asked: ClassVar[list[str]]
    broken: ClassVar[list[tuple[int, str]]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Half of what was asked for, as long as ``broken`` says so; the connection ends in the middle."""
        self.asked.append(f"GET {self.headers.get('Range', '')}")
        if self.broken and self.broken[0][0] != 200:
            self._refuse(*self.broken.pop(0))
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        data = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("ETag", self.etag.pop(0) if len(self.etag) > 1 else self.etag[0])
        self.end_headers()
        if self.broken:
            self.broken.pop(0)
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)

    def do_PUT(self) -> None:
        """A part of an upload: taken, or what ``broken`` says."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append("PUT")
        self._refuse(*self.broken.pop(0)) if self.broken else self._answer(200, b"")

    def do_POST(self) -> None:
        """The beginning of an upload in parts."""
        self.asked.append("POST")
        self._answer(200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")

    def do_DELETE(self) -> None:
        """An upload is taken back."""
        self.asked.append(f"DELETE {self.path}")
        self._answer(204, b"")

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def fragile(
    folder: Path, broken: list[tuple[int, str]], etag: tuple[str, ...] = ('"1"',)
) -> Iterator[tuple[S3Objects, type[Fragile]]]:
    """A store that breaks, and its handler class."""
    handler = type(
        "Handler", (Fragile,), {"content": bytes(range(250)) * 40_000, "etag": [*etag], "asked": [], "broken": broken}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    client = one_try_client(f"http://127.0.0.1:{server.server_port}")
    try:
        yield S3Objects(client, folder), handler
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_interrupted_read_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The connection ends three times in the middle: the bytes come each once."""
    with fragile(tmp_path, [(200, "")] * 3) as (objects, handler):
        with objects.open("s3://b/a") as file:
            pieces = [file.read(1_000_000) for _ in range(11)]
        assert handler.content == b"".join(pieces)
        assert ["GET "] == handler.asked[:1]
        assert all(asked.startswith("GET bytes=") for asked in handler.asked[1:])
        assert 4 == len(handler.asked)


def test_an_interrupted_read_does_not_go_on_in_another_object(tmp_path: Path) -> None:
    """It was replaced meanwhile."""
    with (
        fragile(tmp_path, [(200, "")], etag=('"1"', '"2"')) as (objects, _),
        objects.open("s3://b/a") as file,
        pytest.raises(ObjectMissing, match="has been replaced"),
    ):
        file.read()


def test_a_read_that_gets_nowhere_is_given_up(tmp_path: Path) -> None:
    """For now: the store may recover. What was fetched so far is removed."""
    with fragile(tmp_path, [(200, ""), *[(503, "SlowDown")] * 9]) as (objects, _):
        with pytest.raises(ObjectUnavailable) as caught, objects.fetch("s3://b/a"):
            pass
        assert caught.value.transient
        assert [] == spool(objects)


PASSING = [(503, "SlowDown"), (500, "InternalError"), (429, "TooMany"), (400, "RequestTimeout")]
LASTING = [(403, "AccessDenied"), (400, "InvalidRequest"), (409, "<odd>")]


@pytest.mark.parametrize("answer", PASSING + LASTING)
def test_refusals_say_whether_they_pass(tmp_path: Path, answer: tuple[int, str]) -> None:
    """And nothing of what the store says but its code."""
    with fragile(tmp_path, [answer] * 9) as (objects, _):
        with pytest.raises(ObjectUnavailable) as caught:
            objects.put("s3://b/a", b"1")
        assert (answer in PASSING) == caught.value.transient
        assert "<" not in caught.value.message


def test_a_failed_part_takes_the_upload_back(tmp_path: Path) -> None:
    """No half of an object stays in the store, to be paid for."""
    with fragile(tmp_path, [(500, "InternalError")] * 9) as (objects, handler):
        with pytest.raises(ObjectUnavailable):
            objects.put("s3://b/a", finished(objects, bytes(9_000_000)))
        assert "DELETE /b/a?uploadId=1" == handler.asked[-1]


def test_errors_are_fit_for_callers(tmp_path: Path) -> None:
    """One sentence, no path of this machine."""
    objects = local(tmp_path)
    objects.put("s3://b/a", b"")
    failures: list[ServingError] = []
    for act in ACTS:
        for url in ("s3://b/a/b", "s3://b/none/x", "s3://b/" + "/".join(["y" * 250] * 4)):
            try:
                act(objects, url)
            except ServingError as error:
                failures.append(error)
    assert 7 <= len(failures)
    assert all(str(tmp_path) not in error.message and error.message.endswith(".") for error in failures)
