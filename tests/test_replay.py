"""Captured calls, sent again: what is sent, when, what is compared, and when that fails a build."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import client as clients
from serving.client import Answer
from serving.config import Settings
from serving.errors import ConfigError, ServiceUnavailable, ValidationError
from serving.monitor import files
from serving.monitor.captures import parse
from serving.monitor.difference import Comparison
from serving.monitor.values import Complaints, Record, Side
from serving.replaying import Limits, Replayer, Target, call, rate, schedule, side, target
from serving.terminal import print_table
from tests.monitor.written import NINE, capture, means, record
from tests.server import Server, declare, serve, variant
from tests.test_cli import serving
from tests.toys import COLUMNS, write_sum_model


def line(**more: Any) -> bytes:
    """A captured record's line."""
    return json.dumps(record(**more)).encode() + b"\n"


def row(number: float) -> str:
    """Thirty numbers, whose sum is ``29 + number``."""
    return ",".join([*["1"] * (COLUMNS - 1), str(number)])


# --- when -----------------------------------------------------------------------------------------------------------


def at(time: float) -> Record:
    """A record of nothing but its time."""
    return Record("e", "", time, "A", None, None, {})


def test_calls_are_due_at_the_pace_they_came() -> None:
    """Seconds after the first; those of one second are spread over it."""
    times = [100.0, 100.0, 101.0, 104.0, 104.0, 104.0, 104.0]
    assert [0.0, 0.5, 1.0, 4.0, 4.25, 4.5, 4.75] == [due for due, _ in schedule(map(at, times), 1.0)]
    assert [0.0, 0.25, 0.5, 2.0, 2.125, 2.25, 2.375] == [due for due, _ in schedule(map(at, times), 2.0)]
    assert {0.0} == {due for due, _ in schedule(map(at, times), math.inf)}


def test_a_call_out_of_order_is_due_at_once() -> None:
    """It cannot be sent before the first."""
    assert [0.0, 0.0, 2.0] == [due for due, _ in schedule(map(at, [100.0, 90.0, 102.0]), 1.0)]


def test_a_schedule_does_not_wait_for_the_last_record() -> None:
    """Records stream: of an endless second, so many are taken together."""

    def endless() -> Iterator[Record]:
        while True:
            yield at(100.0)

    assert 0.0 == next(schedule(endless(), 1.0))[0]


@pytest.mark.parametrize(("text", "wanted"), [("recorded", 1.0), ("2x", 2.0), ("0.5", 0.5), ("max", math.inf)])
def test_a_pace_is_a_multiple(text: str, wanted: float) -> None:
    """Or as it was, or as fast as it goes."""
    assert wanted == rate(text)


@pytest.mark.parametrize("text", ["fast", "0x", "-1", "inf", "nan", ""])
def test_another_pace_is_none(text: str) -> None:
    """And the command cannot be carried out."""
    with pytest.raises(ConfigError):
        rate(text)


def test_a_target_is_an_endpoint_and_perhaps_a_variant() -> None:
    """With one stroke between them."""
    assert (Target("e"), Target("e", "B")) == (target("e"), target("e/B"))
    for wrong in ("", "/B", "e/", "e/B/C"):
        with pytest.raises(ConfigError):
            target(wrong)


# --- what -----------------------------------------------------------------------------------------------------------


def test_a_call_is_sent_as_it_was_captured() -> None:
    """Body, content type, the model it was for; the inference id tells that it is another call."""
    captured = parse(line(key="k7", output="30", input="1,2\n", targetModel="m.ubj", kind="text/csv; charset=utf-8"))
    made = call(captured, Target("e", "B"))
    assert b"1,2\n" == made.body
    assert {
        "Content-Type": "text/csv",
        "Accept": "text/csv",
        "X-Amzn-SageMaker-Inference-Id": "k7-replay",
        "X-Amzn-SageMaker-Target-Model": "m.ubj",
        "X-Amzn-SageMaker-Target-Variant": "B",
    } == made.headers
    long = call(parse(line(key="k" * 64)), Target("e"))
    assert 64 == len(long.headers["X-Amzn-SageMaker-Inference-Id"])
    nameless = call(parse(line(key="7", inference=False)), Target("e"))
    assert "event-7-replay" == nameless.headers["X-Amzn-SageMaker-Inference-Id"]


def test_a_replay_is_not_replayed() -> None:
    """It was captured like any other call, and is known by its inference id."""
    complaints = Complaints()
    both = [parse(line(key="1")), parse(line(key="1-replay"))]
    assert ["1"] == [one.key for one in files.originals(both, complaints)]
    assert ["a call of an earlier replay"] == [one.reason for one in complaints.all()]


def test_binary_bodies_are_sent_as_bytes() -> None:
    """Capture has them in Base64; what is none is no call."""
    captured = parse(line(key="1"))
    npy = captured._replace(input=Side("application/x-npy", "BASE64", "k05VTVBZ"))
    assert b"\x93NUMPY" == call(npy, Target("e")).body
    for broken in (None, Side("application/x-npy", "BASE64", "?")):
        with pytest.raises(ValidationError):
            call(captured._replace(input=broken), Target("e"))


def test_an_answer_is_compared_in_the_encoding_it_was_captured_in() -> None:
    """Text as text, anything else in Base64."""
    answer = Answer(200, "OK", {"content-type": "text/csv"}, b"30\n")
    assert Side("text/csv", "CSV", "30\n") == side(answer, Side("", "CSV", ""))
    assert Side("text/csv", "BASE64", "MzAK") == side(answer, Side("", "BASE64", ""))
    assert "BASE64" == side(answer._replace(body=b"\xff"), Side("", "CSV", "")).encoding


# --- files ----------------------------------------------------------------------------------------------------------


def test_files_of_variants_are_read_side_by_side(tmp_path: Path) -> None:
    """In order of time, whatever their names begin with; those that do not say when come first."""
    tools = means(tmp_path)
    for name, first in (("A", 0), ("B", 1)):
        for minute in range(3):
            rows = [record(f"{s}", at=NINE + 60 * minute + s) for s in range(first, 60, 2)]
            capture(tools, "e", name, rows)
    tools.objects.put("s3://captured/here/e/odd.jsonl", line(key="odd", at=NINE + 999))
    complaints = Complaints()
    remote = list(files.in_order(files.at_prefix(tools.objects, "s3://captured/here/e"), complaints))
    assert "odd" == remote[0].key
    times = [one.time for one in remote[1:]]
    assert sorted(times) == times and 180 == len(times)
    local = list(files.in_order(files.at_path(tmp_path / "s3" / "captured"), complaints))
    assert [one.key for one in remote] == [one.key for one in local]
    assert {"A", "B", ""} == {one.variant for one in local}
    assert [] == complaints.all()


def test_only_files_of_a_folder_are_read(tmp_path: Path) -> None:
    """Folders may be called like files, as a part of a destination; a pipe would never end."""
    (tmp_path / "calls.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "calls.jsonl" / "a.jsonl").write_bytes(line(key="1"))
    assert [str(tmp_path / "calls.jsonl" / "a.jsonl")] == [file.name for file in files.at_path(tmp_path)]


def test_bad_lines_are_told_by_their_place(tmp_path: Path) -> None:
    """And the others are read."""
    file = tmp_path / "calls.jsonl"
    file.write_bytes(line(key="1") + b"{\n\n" + b'{"captureData":{}}\n' + line(key="2"))
    complaints = Complaints()
    assert ["1", "2"] == [one.key for one in files.in_order(files.at_path(file), complaints)]
    assert {"calls.jsonl:2", "calls.jsonl:4"} == {one.example for one in complaints.all()}
    assert [] == list(files.parsed(io.BytesIO(b""), "none", "", complaints))


def test_records_file_by_file_are_put_in_order() -> None:
    """Two files of a minute, one after the other."""
    both = [*map(at, range(0, 60, 2)), *map(at, range(1, 60, 2)), at(1000.0)]
    times = [one.time for one in files.in_time(both)]
    assert sorted(times) == times


# --- on a server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``ab``: A answers the sum of a row, B a little more."""
    place = tmp_path_factory.mktemp("replay")
    models = {
        name: {"ModelDataUrl": str(write_sum_model(place / name / "m.onnx", factor))}
        for name, factor in (("one", 1.0), ("more", 1.01))
    }
    variants = [variant("one", "A"), variant("more", "B", weight=0.0)]
    with serve(place, "--config", str(declare(place / "e.yaml", {"ab": variants}, models))) as running:
        yield running


def captured(folder: Path, calls: int = 40, **more: Any) -> Path:
    """A file of calls that A answered, all in one second."""
    file = folder / "calls.jsonl"
    lines = [line(key=f"call-{n}", input=row(n + 1.5), output=f"{30.5 + n}", **more) for n in range(calls)]
    file.write_bytes(b"".join(lines))
    return file


def replay(server: Server, records: list[Record], to: str = "ab", concurrency: int = 4, pace: float = math.inf) -> Any:
    """Send them, as fast as it goes unless a pace is given."""
    complaints = Complaints()
    comparison = Comparison(complaints=complaints)
    replayer = Replayer(clients.Server(server.url, Settings()), target(to), comparison, complaints, concurrency)
    return replayer.run(records, pace)


def test_the_same_model_answers_the_same(server: Server, tmp_path: Path) -> None:
    """Within limits: exit status 0, and a report that says so."""
    report = tmp_path / "report.json"
    limits = ["--fail-below-agreement", "1", "--fail-above-error", "0"]
    file = str(captured(tmp_path))
    done = serving(
        "replay", file, "--to", "ab/A", "--rate", "max", *limits, "--report", str(report), "--url", server.url
    )
    assert 0 == done.returncode, done.stderr
    assert "100.00% of 40 (regression)" in done.stdout.decode()
    told = json.loads(report.read_text())
    assert (40, 40, True, 1.0) == (told["Sent"], told["Answered"], told["Passed"], told["Difference"]["Agreement"])
    assert 40 == told["LatencySeconds"]["Count"]


def test_another_model_fails_the_build(server: Server, tmp_path: Path) -> None:
    """Beyond the limit: exit status 1, and which limit that is; its worst answers with their inputs."""
    file = str(captured(tmp_path, 20))
    done = serving(
        "replay", file, "--to", "ab/B", "--rate", "max", "--fail-below-agreement", "0.99", "--json", "--url", server.url
    )
    assert 1 == done.returncode
    assert "agreement is 0; the limit is 0.99" in done.stderr.decode()
    told = json.loads(done.stdout)
    assert pytest.approx(0.01, rel=0.05) == told["Difference"]["Regression"]["RelativeError"]["P99"]
    assert row(20.5) == told["Difference"]["Examples"][0]["Input"]


def test_what_an_object_store_holds_is_replayed(server: Server) -> None:
    """By its prefix; no more than asked for."""
    tools = means(server.data_dir)
    capture(tools, "ab", "A", [record(f"{n}", "30.5", input=row(1.5)) for n in range(9)])
    done = serving(
        "replay", "s3://captured/here/ab", "--to", "ab", "--limit", "5", "--rate", "max", "--url", server.url,
        SERVING_DATA_DIR=str(server.data_dir),
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    assert done.stdout.decode().splitlines()[0].split()[:2] == ["sent", "5"]


def test_failed_calls_are_counted(server: Server, tmp_path: Path) -> None:
    """By what they were answered; they are no part of the comparison."""
    records = [parse(line(key="1", input=row(1.5), output="30.5")), parse(line(key="2", input="nonsense"))]
    found = replay(server, records)
    assert (2, 1, 1, 0.5) == (found.sent, found.answered, found.difference.pairs, found.error_rate)
    (complaint,) = found.complaints.all()
    assert ("a call was answered 424 ModelError", "event-2") == (complaint.reason, complaint.example)
    assert [False] == [one.held for one in found.against(Limits(error=0.4))]


def test_records_that_cannot_be_sent_are_complaints(server: Server) -> None:
    """A call without its input; one of another age, at the pace they came; one without an answer is sent, and not
    compared."""
    records = [parse(line(key="1", input=None)), parse(line(key="2", input=row(1.5), output=None))]
    late = parse(line(key="3", input=row(1.5)))._replace(time=253_402_300_799.0)
    found = replay(server, [*records, late], pace=1.0)
    assert (1, 1, 0) == (found.sent, found.answered, found.difference.pairs)
    assert 3 == len(found.complaints.all())
    assert [False] == [one.held for one in found.against(Limits(agreement=0.5))]
    with pytest.raises(ConfigError, match="no captured call that can be sent"):
        replay(server, records[:1])


def test_latency_is_held_against_what_was_captured(server: Server) -> None:
    """By the medians; where capture tells no times, no limit on them is held."""
    slow, none = {"total": 5_000_000}, {}
    for timing, held in ((slow, True), ({"total": 1}, False), (none, False)):
        found = replay(server, [parse(line(key="1", input=row(1.5), output="30.5", timing=timing))])
        assert [held] == [one.held for one in found.against(Limits(latency=1.5))]


def test_what_callers_sent_does_not_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor makes it lines or cells of a table."""
    print_table(("A", "B"), [("\x1b[31mred", "a\tb\nc")])
    assert "A\tB\n\\x1b[31mred\ta\\tb\\nc\n" == capsys.readouterr().out


def test_a_command_without_sense_is_refused(server: Server, tmp_path: Path) -> None:
    """Exit status 2; 1 where nobody answers."""
    nobody = "http://127.0.0.1:9"
    file = str(captured(tmp_path, 1))
    assert 2 == serving("replay", file, "--to", "ab", "--rate", "fast", "--url", server.url).returncode
    with pytest.raises(ConfigError, match="no file or folder"):
        files.at_path(tmp_path / "none.jsonl")
    with pytest.raises(ServiceUnavailable):
        Replayer(clients.Server(nobody, Settings()), Target("ab"), Comparison(), Complaints()).run([], 1.0)
