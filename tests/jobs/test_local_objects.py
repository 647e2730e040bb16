"""Objects that are files: names, links, and that they appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.config import Settings
from serving.errors import ObjectMissing, ObjectUnavailable, ServingError, ValidationError
from serving.objects import LocalObjects, open_objects
from serving.storage import check_name
from tests.objects import ACTS, finished, local, read, spool

# --- names -----------------------------------------------------------------------------------------------------------


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


# --- links -----------------------------------------------------------------------------------------------------------


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


# --- whole or not at all ---------------------------------------------------------------------------------------------


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
