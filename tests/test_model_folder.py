"""What lies in a folder of models, good and bad, and the names by which callers try to reach it."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gallery import sample
from tests.server import Server, body_json, script_model, serve
from tests.zoo import answers, ask, call, number, zoo


def archive(path: Path, members: dict[str, bytes], *links: tuple[str, str]) -> Path:
    """A ``.tar.gz`` of files by name, and of symbolic links (name, where to)."""
    with tarfile.open(path, "w:gz") as file:
        for name, to in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, to
            file.addfile(link)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A folder with good and bad neighbours, and a server that may not run code."""
    top = tmp_path_factory.mktemp("yard")
    models = top / "models"
    (models / "inner").mkdir(parents=True)
    good = (zoo() / "model-001.ubj").read_bytes()
    for place in ("good.ubj", ".hidden.ubj", "inner/deep.ubj", "../secret.ubj"):
        (models / place).write_bytes(good)
    (models / "inner" / ".git").mkdir()
    (models / "inner" / ".git" / "model.ubj").write_bytes(good)
    (models / "out.ubj").symlink_to(top / "secret.ubj")
    (models / "outdir").symlink_to(top)
    (models / "ring").symlink_to("ring")
    (models / "cut.ubj").write_bytes(good[:20_000])
    archive(models / "packed.tar.gz", {"xgboost-model": good})
    archive(models / "climbs.tar.gz", {"../../escaped": b"x", "xgboost-model": good})
    archive(models / "absolute.tar.gz", {str(top / "escaped"): b"x", "xgboost-model": good})
    archive(models / "links.tar.gz", {"away/escaped": b"x", "xgboost-model": good}, ("away", str(top)))
    archive(models / "linked.tar.gz", {}, ("xgboost-model", str(top / "secret.ubj")))
    (models / "cut.tar.gz").write_bytes((models / "packed.tar.gz").read_bytes()[:5000])
    script_model(models / "script", "def model_fn(model_dir): return 1\n")
    os.mkfifo(models / "pipe.ubj")
    with serve(top, str(models), environment={"SERVING_MODEL_MEMORY": "4MB"}) as server:
        yield server, models


@pytest.mark.parametrize("name", ["good.ubj", "inner/deep.ubj", "packed.tar.gz", "packed"])
def test_a_relative_path_names_a_model(yard: tuple[Server, Path], name: str) -> None:
    """With the folder it lies in, and an archive with or without its ending."""
    with yard[0].client() as client:
        answer = call(client, name)
    assert 200 == answer.status_code
    assert answers()["model-001.ubj"] == pytest.approx(number(answer), rel=1e-5)


OUTSIDE = [
    "../secret.ubj", "inner/../../secret.ubj", "inner/../good.ubj", "./good.ubj", "/good.ubj", "good.ubj/",
    "inner//deep.ubj", "..%2fsecret.ubj", "%2e%2e/secret.ubj", "..\\secret.ubj", "....//secret.ubj", "out.ubj",
    "outdir/secret.ubj", "ring", ".hidden.ubj", "inner/.git/model.ubj", "inner/.git", ".", "..", "/", "~/good.ubj",
    "good.ubj\x00", "pipe.ubj", "file:///etc/passwd", "s3://bucket/key", "a" * 1024, "a" * 5000, "x/" * 400 + "y",
    "good.ubj ", "GOOD.UBJ", "\u202egood.ubj", "ｇood.ubj", "nothing.ubj", "/etc/passwd", "good.ubj\r\nX-Y: z",
]  # fmt: skip


def send_raw(server: Server, target: bytes) -> int:
    """One invocation with this TargetModel on the wire, byte for byte; the status of the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    body = sample("zoo").body
    head = (
        b"POST /endpoints/default/invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nConnection: close\r\n"
        b"Content-Length: %d\r\nX-Amzn-SageMaker-Target-Model: %s\r\n\r\n" % (len(body), target)
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head + body)
        answer = b""
        while b"\r\n" not in answer:
            data = connection.recv(65536)
            if not data:
                break
            answer += data
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: ascii(name)[:30])
def test_names_that_lead_elsewhere_are_refused_at_every_door(yard: tuple[Server, Path], name: str) -> None:
    """Traversal, absolute and encoded paths, links out, hidden files, special files, control characters, length: a 4xx,
    although a good model lies where each of them points."""
    server, _ = yard
    if "\n" not in name:  # there it is another header, and the name before it is a good one
        assert 400 <= send_raw(server, name.encode()) < 500 or name.strip() == "good.ubj"
    with server.client() as client:
        assert 404 == client.post("/models", json={"model_name": "n", "url": name}).status_code or len(name) > 4096
        path = quote(name, safe="").replace(".", "%2E")  # a client would tidy dots away
        assert client.get(f"/models/{path}").status_code in (400, 404)
        headers = {"Content-Type": "text/csv"}
        assert client.post(f"/models/{path}/invoke", content=b"1", headers=headers).status_code in (400, 404)
        assert 200 == call(client, "good.ubj").status_code


FRAGMENTS = [
    "..",
    ".",
    "/",
    "//",
    "secret.ubj",
    "good.ubj",
    "inner",
    "%2e",
    "%2f",
    "\\",
    "\0",
    "\x7f",
    "~",
    " ",
    "é",
    "outdir",
]


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_at_all_reaches_outside(yard: tuple[Server, Path], parts: list[str]) -> None:
    """Whatever is sent, the answer is a 4xx, unless it is the name of one of the good models."""
    name = "".join(parts).encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"")
    status = send_raw(yard[0], name)
    if name.strip(b" \t") in (b"good.ubj", b"inner", b"inner/deep.ubj", b"packed", b"packed.tar.gz"):
        assert 200 == status
    else:
        assert 400 <= status < 500


@pytest.mark.parametrize(
    "name", ["climbs.tar.gz", "absolute.tar.gz", "links.tar.gz", "linked.tar.gz", "cut.tar.gz", "cut.ubj"]
)
def test_hostile_and_damaged_artifacts_fail_to_load(yard: tuple[Server, Path], name: str) -> None:
    """424 ModelError, no path of this machine in the text, nothing written outside, and the next call works."""
    server, models = yard
    with server.client() as client:
        refused = call(client, name)
        assert 424 == refused.status_code
        # XGBoost reads a cut file's lengths from beyond its end, and may find that so much memory is not there
        assert body_json(refused)["OriginalStatusCode"] in (500, 507)
        assert str(models.parent) not in refused.text
        assert not list(models.parent.rglob("escaped"))
        assert 200 == call(client, "good.ubj").status_code


def test_code_is_refused_by_name_format_and_setting(yard: tuple[Server, Path]) -> None:
    """The operator can act on the message."""
    with yard[0].client() as client:
        refused = ask(client, "script")
    assert 424 == refused.status_code
    said = body_json(refused)
    assert 403 == said["OriginalStatusCode"]
    assert all(word in said["OriginalMessage"] for word in ("inference.py", "script", "SERVING_ALLOW_CODE"))


def test_a_new_artifact_is_callable_at_once(yard: tuple[Server, Path]) -> None:
    """Although the same name was asked for a moment before; once deleted, it serves until it is unloaded."""
    server, models = yard
    with server.client() as client:
        refused = call(client, "late.ubj")
        assert (400, "ValidationError") == (refused.status_code, refused.headers["x-amzn-ErrorType"])
        assert "Failed to download model data (bucket: models, key: late.ubj)" in body_json(refused)["Message"]
        shutil.copyfile(models / "good.ubj", models / ".late")
        (models / ".late").rename(models / "late.ubj")
        assert 200 == call(client, "late.ubj").status_code
        (models / "late.ubj").unlink()
        assert 200 == call(client, "late.ubj").status_code
        assert 200 == client.delete("/models/late.ubj").status_code
        assert 400 == call(client, "late.ubj").status_code


def test_a_failing_load_is_tried_once_per_window(yard: tuple[Server, Path]) -> None:
    """Callers in between get the same error at once; when the artifact is mended it is soon callable."""
    server, models = yard
    good = (models / "packed.tar.gz").read_bytes()
    (models / "mended.tar.gz").write_bytes(good[:3000])
    before = server.metric("sagemaker_model_load_failures_total")
    with server.client() as client:
        said = {call(client, "mended").text for _ in range(20)}
        failures = server.metric("sagemaker_model_load_failures_total") - before
        assert 1 <= failures <= 2  # a window of a second may end in between
        assert 1 == len(said)
        (models / "mended.tar.gz").write_bytes(good)
        server.eventually(lambda: call(client, "mended").status_code == 200)
