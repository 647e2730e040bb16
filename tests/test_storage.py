"""Storage: artifacts by URL and never from elsewhere, files whole or not at all, one server per data folder."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import boto3
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from serving.config import Settings
from serving.errors import ConfigError, LoadFailed, UnknownModel, ValidationError
from serving.storage import (
    ArtifactStore,
    DataLock,
    LocalStore,
    S3Store,
    beneath,
    check_name,
    open_store,
    parse_s3,
    write_atomic,
)

# --- names ----------------------------------------------------------------------------------------------------------

BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "a//b",
    "/a",
    "a/",
    "a/./b",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\u202eb",
    "x" * 1025,
    "x" * 256,
    "ä" * 128,
    "\ud800",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_plain_path_is_refused(name: str) -> None:
    """And not repeated in the message, where it could do harm."""
    with pytest.raises(ValidationError) as caught:
        check_name(name)
    assert len(name) < 2 or name not in caught.value.message.replace("'..'", "")


@pytest.mark.parametrize("name", ["a", "a.tar.gz", "team/a b/model.onnx", "größe", "...", "a%2F..%2Fb", "~root", "-rf"])
def test_a_plain_path_is_a_name(name: str) -> None:
    """Nothing is decoded a second time: an encoded slash is three characters of a name."""
    assert name == check_name(name)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of artifacts beside a secret, with links of every sort."""
    folder = tmp_path / "models"
    (folder / "team").mkdir(parents=True)
    (folder / "a.onnx").write_bytes(b"a")
    (folder / "team" / "b.onnx").write_bytes(b"b")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "models-2").mkdir()
    (tmp_path / "models-2" / "c").write_bytes(b"secret")
    (folder / "inside").symlink_to("team/b.onnx")
    (folder / "outside").symlink_to("../secret")
    (folder / "sibling").symlink_to("../models-2")
    (folder / "up").symlink_to("..")
    (folder / "itself").symlink_to(".")
    (folder / "ring").symlink_to("ring")
    (folder / "absolute").symlink_to(tmp_path / "secret")
    return folder


def test_a_name_is_found_beneath_its_folder(models: Path) -> None:
    """Links that stay inside are followed now, so that nobody changes them later."""
    assert models / "team" / "b.onnx" == beneath(models, "team/b.onnx") == beneath(models, "inside")


@pytest.mark.parametrize(
    "name", ["outside", "sibling/c", "up/secret", "itself", "ring", "absolute", "none", "a.onnx/x"]
)
def test_what_is_not_beneath_its_folder_is_unknown(models: Path, name: str) -> None:
    """A link that leads out looks like one that leads nowhere."""
    with pytest.raises(UnknownModel) as caught:
        beneath(models, name)
    assert str(models) not in caught.value.message


@given(name=st.text() | st.text(alphabet="./\\a%2eu\0"))
def test_no_name_leads_out(name: str) -> None:
    """Whatever a caller sends as TargetModel: something beneath the folder, or a refusal."""
    folder = Path(__file__).parent
    try:
        found = beneath(folder, name)
    except (ValidationError, UnknownModel):
        return
    assert folder in found.parents


@pytest.mark.parametrize(
    ("url", "bucket", "key"), [("s3://b", "b", ""), ("s3://b/k/x", "b", "k/x"), ("s3://b/k/", "b", "k/")]
)
def test_an_s3_url_has_bucket_and_key(url: str, bucket: str, key: str) -> None:
    """A key that ends in a slash is a prefix."""
    assert (bucket, key) == parse_s3(url)


# --- stores: one suite, every member --------------------------------------------------------------------------------

OBJECTS = {
    "models/a.onnx": b"a" * 10,
    "models/team/b.onnx": b"b",
    "models/bundle/model.json": b"{}",
    "models/bundle/code/inference.py": b"pass",
    "models/with space+%.onnx": b"odd",
}


class Bucket(BaseHTTPRequestHandler):
    """The three S3 calls that reading takes, over ``OBJECTS`` in bucket ``shop``. Counts GETs."""

    gets: list[str]
    objects: dict[str, bytes]
    broken = False
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:  # the library's name
        """HeadObject."""
        self._object(head=True)

    def do_GET(self) -> None:  # the library's name
        """ListObjectsV2 or GetObject."""
        url = urlsplit(self.path)
        if "list-type" not in parse_qs(url.query):
            return self._object()
        if unquote(url.path).strip("/") != "shop":
            return self._answer(404, b"<Error><Code>NoSuchBucket</Code><Message>no</Message></Error>")
        prefix = parse_qs(url.query, keep_blank_values=True)["prefix"][0]
        items = "".join(
            f"<Contents><Key>{escape(quote(key))}</Key><ETag>&quot;{etag(data)}&quot;</ETag></Contents>"
            for key, data in self.objects.items()
            if key.startswith(prefix)
        )
        fixed = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        return self._answer(200, f"<ListBucketResult>{fixed}{items}</ListBucketResult>".encode())

    def _object(self, head: bool = False) -> None:
        bucket, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        data = self.objects.get(key) if bucket == "shop" else None
        if not head:
            self.gets.append(key)
        if self.broken and not head:
            return self._answer(403, b"<Error><Code>AccessDenied</Code><Message>/internal/path</Message></Error>")
        if data is None:
            return self._answer(404, b"" if head else b"<Error><Code>NoSuchKey</Code></Error>")
        return self._answer(200, data, head)

    def _answer(self, status: int, body: bytes, head: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{etag(body)}"')
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def etag(data: bytes) -> str:
    """As S3 makes it for a small object."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def bucket() -> Iterator[tuple[type[Bucket], str]]:
    """A running toy S3: its handler class, to be looked at and broken, and its URL."""
    handler = type("Handler", (Bucket,), {"gets": [], "objects": dict(OBJECTS)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3(bucket: tuple[type[Bucket], str], tmp_path: Path) -> Iterator[S3Store]:
    """The store of a boto3 client on the toy S3."""
    client = boto3.client(
        "s3",
        endpoint_url=bucket[1],
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    yield S3Store(client, tmp_path / "cache", LocalStore(tmp_path / "s3"))
    client.close()


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    """The same objects as files."""
    for key, data in OBJECTS.items():
        path = tmp_path / "s3" / "shop" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return LocalStore(tmp_path / "s3")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ArtifactStore:
    """Every kind of store, holding the same objects."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]  # either fixture above


def contents(place: Path) -> dict[str, bytes]:
    """Every file beneath a place, by relative name."""
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        ("s3://shop/models/a.onnx", "", {".": b"a" * 10}),
        ("s3://shop/models", "a.onnx", {".": b"a" * 10}),
        ("s3://shop/models/", "team/b.onnx", {".": b"b"}),
        ("s3://shop", "models/a.onnx", {".": b"a" * 10}),
        ("s3://shop/models/", "with space+%.onnx", {".": b"odd"}),
        ("s3://shop/models/bundle/", "", {"model.json": b"{}", "code/inference.py": b"pass"}),
        ("s3://shop/models", "bundle", {"model.json": b"{}", "code/inference.py": b"pass"}),
    ],
)
def test_an_object_or_prefix_becomes_files(
    store: ArtifactStore, url: str, name: str, expected: dict[str, bytes]
) -> None:
    """One file under its own name, or a folder."""
    place = store.locate(url, name)
    assert expected == contents(place)
    assert place.is_dir() or place.name == (name or url).rpartition("/")[2]


@pytest.mark.parametrize(
    ("url", "name"),
    [("s3://shop/none", ""), ("s3://none/x", ""), ("s3://shop/models", "a"), ("s3://shop/model", "a.onnx")],
)
def test_an_absent_object_is_unknown(store: ArtifactStore, url: str, name: str) -> None:
    """In SageMaker's words, which name bucket and key only."""
    with pytest.raises(UnknownModel, match=r"^Failed to download model data \(bucket: "):
        store.locate(url, name)


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name])
def test_a_store_refuses_bad_names(store: ArtifactStore, name: str) -> None:
    """Before anything is looked for."""
    with pytest.raises(ValidationError):
        store.locate("s3://shop/models", name)


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///k", "s3://../x", "s3://shop/../../etc/passwd", "s3://shop/a//b", "s3://./a"]
)
def test_a_store_refuses_bad_urls(store: ArtifactStore, url: str) -> None:
    """A bucket is one plain name, a key a plain path."""
    with pytest.raises(ValidationError):
        store.locate(url)


# --- local files ----------------------------------------------------------------------------------------------------


def test_paths_lie_beneath_named_folders(models: Path) -> None:
    """As a path or a URL, encoded or not; the named folder itself too."""
    store = LocalStore(models / "s3", [models])
    assert models / "a.onnx" == store.locate(str(models / "a.onnx")) == store.locate(f"file://{models}/%61.onnx")
    assert models / "team/b.onnx" == store.locate(f"file://localhost{models}", "team/b.onnx")
    assert models == store.locate(str(models))


def test_a_named_artifact_that_is_not_there_is_named_in_the_refusal(models: Path) -> None:
    """The operator wrote that path: the refusal says which one."""
    absent = models / "absent" / "model.onnx"
    with pytest.raises(UnknownModel, match=f"artifact at '{absent}'"):
        LocalStore(models / "s3", [absent]).locate(str(absent))


def test_other_paths_are_refused(models: Path) -> None:
    """Also those that begin alike, climb out, or are links out."""
    store = LocalStore(models / "s3", [models])
    urls = [
        "/etc/passwd",
        "file:///etc/passwd",
        f"file://{models}/../secret",
        f"file://{models}/%2e%2e/secret",
        f"{models}-2/c",
        f"file://host{models}/a.onnx",
        f"http://{models}/a.onnx",
        "a.onnx",
        "",
        f"file://{models}/a%00b",
    ]
    for url in urls:
        with pytest.raises(ValidationError) as caught:
            store.locate(url)
        assert str(models) not in caught.value.message
    with pytest.raises(UnknownModel):
        store.locate(f"file://{models}/outside")


def test_the_operators_endpoints_name_their_folders(models: Path, tmp_path: Path) -> None:
    """What the command line or the config file serves needs no further leave; what lies beside it does."""
    store = open_store(Settings(data_dir=tmp_path / "data"), [str(models / "team")])
    assert models / "team/b.onnx" == store.locate(str(models / "team"), "b.onnx")
    with pytest.raises(ValidationError):
        store.locate(str(models / "a.onnx"))


# --- S3 -------------------------------------------------------------------------------------------------------------


def test_a_version_is_fetched_once(s3: S3Store, bucket: tuple[type[Bucket], str]) -> None:
    """And again when the object has changed; the old version stays for those who hold it."""
    first = s3.locate("s3://shop/models/a.onnx")
    assert first == s3.locate("s3://shop/models", "a.onnx")
    assert ["models/a.onnx"] == bucket[0].gets
    bucket[0].objects["models/a.onnx"] = b"new"
    second = s3.locate("s3://shop/models/a.onnx")
    assert (b"a" * 10, b"new") == (first.read_bytes(), second.read_bytes())


def test_a_failed_fetch_leaves_nothing(s3: S3Store, bucket: tuple[type[Bucket], str], tmp_path: Path) -> None:
    """Neither half a folder to be loaded nor the store's own words to the caller."""
    bucket[0].broken = True
    with pytest.raises(LoadFailed) as caught:
        s3.locate("s3://shop/models/bundle/")
    assert "/internal/path" not in caught.value.message
    assert [] == list((tmp_path / "cache").glob("*"))


def test_hostile_keys_are_refused(s3: S3Store, bucket: tuple[type[Bucket], str], tmp_path: Path) -> None:
    """A bucket may hold keys that would climb out of the cache."""
    bucket[0].objects["models/bundle/../../../x"] = b"out"
    with pytest.raises(ValidationError):
        s3.locate("s3://shop/models/bundle/")
    assert not (tmp_path / "x").exists()
    assert [] == [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_unreachable_store_is_a_failed_load(s3: S3Store, bucket: tuple[type[Bucket], str], tmp_path: Path) -> None:
    """Not a failure of ours."""
    client = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:1",
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(LoadFailed, match="could not be reached"):
        S3Store(client, tmp_path / "cache", LocalStore(tmp_path)).locate("s3://shop/models/a.onnx")
    client.close()


def test_the_settings_choose_the_store(tmp_path: Path) -> None:
    """A folder unless told otherwise."""
    assert isinstance(open_store(Settings(data_dir=tmp_path)), LocalStore)
    assert isinstance(open_store(Settings(data_dir=tmp_path, s3="http://127.0.0.1:1")), S3Store)


def test_s3_without_boto3_says_what_to_install(tmp_path: Path) -> None:
    """In a process where boto3 cannot be imported."""
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from serving.config import Settings; from serving.storage import open_store\n"
        "open_store(Settings(s3='aws'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'serving[s3]'" in done.stderr


# --- files whole or not at all --------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """And no temporary file stays."""
    path = tmp_path / "state.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new" * 100_000)
    assert ({"state.json": b"new" * 100_000}) == contents(tmp_path)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from serving.storage import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_atomic(Path(sys.argv[1]), b"x" * 9999)
"""


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    """The error (here of a file size limit, as of a full disk) is reported, and nothing half-written is left."""
    path = tmp_path / "state"
    write_atomic(path, b"old")
    command = [sys.executable, "-B", "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert os.strerror(errno.EFBIG) in done.stderr
    assert {"state": b"old"} == contents(tmp_path)


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    """Where the final name is a link, the link is replaced, not its target."""
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "state").symlink_to("target")
    write_atomic(tmp_path / "state", b"new")
    assert {"target": b"precious", "state": b"new"} == contents(tmp_path)


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    """Eight threads, one name: the file is what one of them wrote."""
    path = tmp_path / "state"
    threads = [threading.Thread(target=write_atomic, args=(path, bytes([i]) * 50_000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = path.read_bytes()
    assert (50_000, 1, ["state"]) == (len(data), len(set(data)), [entry.name for entry in tmp_path.iterdir()])


# --- one server per data folder -------------------------------------------------------------------------------------

HOLD = """
import os, sys
from pathlib import Path
from serving.storage import DataLock
lock = DataLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the data folder until its input closes."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "held\n" == process.stdout.readline()
        yield process
        process.kill()


def test_a_second_server_is_told_who_has_the_folder(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """By process id, and what to do."""
    with pytest.raises(ConfigError, match=f"process id {holder.pid}; .*--data-dir"):
        DataLock(tmp_path / "data").acquire()


def test_a_killed_server_leaves_the_folder_free(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """At once, whatever its children do: the lock ends with the process that took it."""
    holder.kill()
    holder.wait()
    with DataLock(tmp_path / "data"):
        assert f"{os.getpid()}\n" == (tmp_path / "data" / "lock").read_text()


def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path) -> None:
    """A worker that outlives its server must not keep the next one out."""
    code = HOLD.replace("sys.stdin.read()", "os.fork() or sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert "held\n" == parent.stdout.readline()
        parent.kill()
        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        with DataLock(tmp_path):
            pass


def test_a_folder_can_be_taken_again(tmp_path: Path) -> None:
    """After it was given up; giving up twice is harmless."""
    lock = DataLock(tmp_path / "data")
    for _ in range(2):
        lock.acquire()
        lock.release()
        lock.release()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "data").touch()
    with pytest.raises(ConfigError, match="Cannot use the data folder"):
        DataLock(tmp_path / "data" / "x").acquire()


def test_the_lock_file_is_no_link(tmp_path: Path) -> None:
    """Or the pid would be written over somebody's file."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(ConfigError):
        DataLock(tmp_path).acquire()
    assert "precious" == (tmp_path / "precious").read_text()
