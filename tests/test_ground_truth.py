"""Ground truth over HTTP: what is accepted is kept whatever happens then, what is not is told by its place."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.api.ground_truth import sort
from serving.config import Settings
from serving.errors import ServiceUnavailable
from serving.monitor import collecting
from serving.monitor.collecting import Collector, object_name
from serving.monitor.labels import Labels, read_labels
from serving.monitor.values import Complaints, Window
from serving.objects import LocalObjects
from tests.processes import kill_all
from tests.server import Server, serve
from tests.toys import write_sum_model

PATH = "/endpoints/default/ground-truth"
EVER = Window(0.0, float("inf"))


def line(id: str, value: Any = 1) -> bytes:
    """A label in the short form, as a line."""
    return json.dumps({"InferenceId": id, "Label": value}).encode() + b"\n"


def kept(data_dir: Path, endpoint: str = "default") -> Labels:
    """The labels in a server's store, none of them damaged."""
    complaints = Complaints()
    found = read_labels(
        LocalObjects(data_dir / "s3", data_dir / "spool"), f"s3://ground-truth/{endpoint}", EVER, complaints
    )
    assert [] == [one for one in complaints.all() if "twice" not in one.reason and "two labels" not in one.reason]
    return found


def objects(data_dir: Path) -> list[Path]:
    """The objects of labels, in the order of their names."""
    return sorted((data_dir / "s3" / "ground-truth").rglob("*.jsonl"))


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"InferenceId":"a","Label":1}',
        b'[{"InferenceId":"a","Label":1}]',
        b'{"InferenceId":"a","Label":1}\r\n\r\n',
        b'{"groundTruthData":{"data":"1","encoding":"CSV"},"eventMetadata":{"eventId":"a"},"eventVersion":"0"}',
    ],
)
def test_every_form_of_a_label_is_kept_as_sagemakers(body: bytes) -> None:
    """One object, an array, lines."""
    found = sort(body)
    record = {
        "groundTruthData": {"data": "1", "encoding": "CSV"},
        "eventMetadata": {"eventId": "a"},
        "eventVersion": "0",
    }
    assert (record, 1, 0) == (json.loads(found.lines), found.accepted, found.rejected)


def test_bad_records_are_told_by_their_place() -> None:
    """The first ten of them; the good ones are kept."""
    found = sort(b"".join([line("a"), b"?\n", b"\n", b"{}\n", line("b"), b"[]\n" * 20]))
    assert (2, 22, 10) == (found.accepted, found.rejected, len(found.errors))
    assert [(2, "A line is not valid JSON."), (4, "A label's record lacks groundTruthData or eventMetadata.")] == (
        found.errors[:2]
    )
    assert 2 == found.lines.count(b"\n")


# --- the store ------------------------------------------------------------------------------------------------------


def test_what_waits_is_written_together(tmp_path: Path) -> None:
    """A hundred labels at once make no hundred objects; each endpoint has its own."""

    async def run() -> None:
        collector = Collector(Settings(data_dir=tmp_path))
        calls = [collector.keep(name, sort(line(str(n))).lines) for n in range(100) for name in ("default", "other")]
        await asyncio.gather(*calls)

    asyncio.run(run())
    assert {str(n) for n in range(100)} == set(kept(tmp_path)) == set(kept(tmp_path, "other"))
    assert len(objects(tmp_path)) <= 8


def test_later_labels_have_later_names(tmp_path: Path) -> None:
    """Also while the clock stands still, so that of two labels the later counts."""

    async def run() -> None:
        collector = Collector(Settings(data_dir=tmp_path), lambda: 1776470400.0)
        for value in ("first", "second", "third"):
            await collector.keep("default", sort(line("a", value)).lines)

    asyncio.run(run())
    assert {"a": "third"} == kept(tmp_path)
    assert ["00-00-000", "00-00-001", "00-00-002"] == [path.name[:9] for path in objects(tmp_path)]
    assert "s3://g/e/2026/04/18/00/00-01-500-u.jsonl" == object_name("s3://g/", "e", 1776470401500, "u")


def test_labels_are_named_by_the_clock_again_when_it_is_set_right(tmp_path: Path) -> None:
    """One that was wrong by days once must not file labels in the future from then on."""
    times = iter([1776470400.0, 1786470400.0, 1776470401.0, 1776470400.9])

    async def run() -> None:
        collector = Collector(Settings(data_dir=tmp_path), lambda: next(times))
        for value in ("right", "wrong", "right again", "a little back"):
            await collector.keep("default", sort(line("a", value)).lines)

    asyncio.run(run())
    found = [path.relative_to(tmp_path / "s3" / "ground-truth" / "default") for path in objects(tmp_path)]
    assert ["00-00-000", "00-01-000", "00-01-001"] == sorted(
        one.name[:9] for one in found if str(one).startswith("2026/04/18/00/")
    )


def test_a_store_that_cannot_is_an_error_until_it_can(tmp_path: Path) -> None:
    """And one endpoint's trouble is none of another's."""
    blocked = tmp_path / "s3" / "ground-truth" / "default"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")

    async def run() -> None:
        collector = Collector(Settings(data_dir=tmp_path))
        with pytest.raises(ServiceUnavailable, match="could not be kept"):
            await collector.keep("default", sort(line("a")).lines)
        await collector.keep("other", sort(line("a")).lines)
        blocked.unlink()
        await collector.keep("default", sort(line("b")).lines)

    asyncio.run(run())
    assert {"b"} == set(kept(tmp_path))


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more is refused at once; room comes back."""
    monkeypatch.setattr(collecting, "MOST_HELD", 300)

    async def run() -> list[Any]:
        collector = Collector(Settings(data_dir=tmp_path))
        calls = [collector.keep("default", sort(line(str(n))).lines) for n in range(9)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await collector.keep("default", sort(line("after")).lines)
        return answers

    refused = [one for one in asyncio.run(run()) if isinstance(one, ServiceUnavailable)]
    assert 9 == len(refused) + len(kept(tmp_path)) - 1
    assert refused and "after" in kept(tmp_path)


# --- a server -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One model, the endpoint ``default``."""
    folder = tmp_path_factory.mktemp("labels")
    with serve(folder, str(write_sum_model(folder / "sum.onnx"))) as running:
        yield running


def test_labels_are_accepted_and_counted(server: Server) -> None:
    """In the answer and in the metrics; they are there when it comes."""
    with server.client() as client:
        answer = client.post(PATH, content=line("7") + b"?\n" + line("8", [1, 0]))
    assert 200 == answer.status_code
    assert {
        "Accepted": 2,
        "Rejected": 1,
        "Errors": [{"Line": 2, "Message": "A line is not valid JSON."}],
    } == answer.json()
    assert {"7": "1", "8": "[1,0]"} == {id: text for id, text in kept(server.data_dir).items() if id in ("7", "8")}
    for result, count in (("accepted", 2), ("rejected", 1)):
        labels = {"endpoint": "default", "result": result}
        assert count <= server.metric("sagemaker_ground_truth_records_total", **labels)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"[[[", line("x" * 99), b'{"InferenceId":"a"}'])
def test_nothing_good_is_refused_in_one_sentence(server: Server, body: bytes) -> None:
    """400, and what is wrong with the first."""
    with server.client() as client:
        answer = client.post(PATH, content=body)
    assert (400, "ValidationError") == (answer.status_code, answer.json()["__type"])
    assert answer.json()["Message"].endswith(".")


def test_an_unknown_endpoint_is_refused_in_awss_words(server: Server) -> None:
    """As an invocation of it is."""
    with server.client() as client:
        answer = client.post("/endpoints/nope/ground-truth", content=line("a"))
        invoked = client.post("/endpoints/nope/invocations", content=b"1")
    assert (invoked.status_code, invoked.json()["Message"]) == (answer.status_code, answer.json()["Message"])
    assert 400 == answer.status_code


def test_a_body_has_a_limit(server: Server) -> None:
    """The same as everywhere; below it a hundred thousand labels are one object."""
    many = b"".join(line(f"many-{n}") for n in range(100_000))
    with server.client() as client:
        assert 413 == client.post(PATH, content=many * 2).status_code
        before = len(objects(server.data_dir))
        assert 100_000 == client.post(PATH, content=many).json()["Accepted"]
    assert before + 1 == len(objects(server.data_dir))


def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``serving label default …``."""
    asked = [sys.executable, "-m", "serving", "label", "default", *arguments, "--url", server.url]
    return subprocess.run(asked, capture_output=True, text=True, check=False)


def test_the_command_sends_a_file_or_one_label(server: Server, tmp_path: Path) -> None:
    """It says how many are kept, which are not and why; its status tells too."""
    file = tmp_path / "labels.jsonl"
    file.write_bytes(line("from-file") + b"?\n")
    done = command(server, str(file))
    assert (1, "1 accepted, 1 rejected\n") == (done.returncode, done.stdout)
    assert "line 2: A line is not valid JSON." in done.stderr
    one = command(server, "by-hand", "yes", "--json")
    assert (0, {"Accepted": 1, "Rejected": 0, "Errors": []}) == (one.returncode, json.loads(one.stdout))
    assert {"from-file": "1", "by-hand": "yes"}.items() <= kept(server.data_dir).items()
    assert 2 == command(server, str(tmp_path / "none.jsonl")).returncode


def test_accepted_labels_survive_a_kill(tmp_path: Path) -> None:
    """Everything is killed while eight clients send: what was answered is there, and nothing is half there."""
    accepted: list[str] = []
    enough = threading.Event()
    with serve(tmp_path, str(write_sum_model(tmp_path / "sum.onnx"))) as server:

        def send(number: int) -> None:
            with server.client() as client:
                for one in range(10_000):
                    id = f"{number}-{one}"
                    try:
                        client.post(PATH, content=line(id)).raise_for_status()
                    except httpx.HTTPError:
                        return
                    accepted.append(id)
                    if len(accepted) >= 60:
                        enough.set()

        senders = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for sender in senders:
            sender.start()
        assert enough.wait(30)
        kill_all(server)
        for sender in senders:
            sender.join(30)
    assert set(accepted) <= set(kept(server.data_dir))
