"""The load tests' own arithmetic and tools: a bench that miscounts would flatter whoever runs it."""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.__main__ import main as run_scenario
from loadtests.__main__ import percentile_ms, verdict
from loadtests.chaos import declaration
from loadtests.client import (
    ClientProcess,
    Count,
    Plan,
    decode_plan,
    encode_plan,
    parse_head,
    request_bytes,
    run_plan,
    send,
    variant_of,
)
from loadtests.figures import Zipf, median_ratio, parse_weights, percentile, split_faults, split_shares
from loadtests.floor import Frames, frame
from loadtests.generator import Call, load
from loadtests.processes import Running, free_port, process_tree, python, running, tree_bytes, tree_cpu_seconds
from loadtests.report import Figure
from loadtests.scrape import find_weights, find_workers, parse_metric
from loadtests.workloads.base import is_right, numbers
from loadtests.workloads.control import updates_figure

GENERATORS = ["client", *(["wrk"] if shutil.which("wrk") else [])]


# --- arithmetic -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("q", "expected"), [(0, 1), (50, 5), (90, 9), (91, 10), (99, 10), (100, 10)])
def test_percentile_is_the_nearest_rank(q: float, expected: int) -> None:
    """The smallest value with at least q % of the values at or below it."""
    assert expected == percentile(range(1, 11), q)


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0, 100))
def test_percentile_is_one_of_the_values_with_enough_of_them_below(values: list[float], q: float) -> None:
    """Whatever the values, the definition holds."""
    ordered = sorted(values)
    found = percentile(ordered, q)
    assert sum(value <= found for value in ordered) >= len(ordered) * q / 100
    assert found in values


@pytest.mark.parametrize(("values", "q"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_percentile_refuses_what_has_none(values: list[float], q: float) -> None:
    """No values, or no such percentile."""
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, q)


def test_median_ratio_shrugs_off_one_bad_round() -> None:
    """A round in which the machine was busy does not decide."""
    assert 2.0 == median_ratio([20, 21, 1], [10, 9, 10])


def test_zipf_shares_sum_to_one_and_fall_by_the_law() -> None:
    """Rank r has the share of rank 0 divided by (r + 1)^s."""
    law = Zipf(500, 1.1, random.Random(0))
    assert math.isclose(1.0, sum(law.share(rank) for rank in range(500)))
    assert math.isclose(law.share(0) / 10**1.1, law.share(9))


def test_zipf_draws_follow_their_shares() -> None:
    """The counts of many draws pass the same check that the traffic split must pass."""
    law = Zipf(5, 1.1, random.Random(3))
    counts = Counter(str(law.draw()) for _ in range(20_000))
    assert [] == split_faults(counts, {str(rank): law.share(rank) for rank in range(5)})


def test_zipf_of_one_rank_always_draws_it() -> None:
    """The smallest law."""
    assert {0} == {Zipf(1, 1.1, random.Random(0)).draw() for _ in range(100)}


def test_a_split_within_three_sigma_is_fair() -> None:
    """1,000 calls at 0.9: sigma is 9.49, so 28 off is fair and 29 is not."""
    weights = {"A": 9.0, "B": 1.0}
    assert [] == split_faults({"A": 872, "B": 128}, weights)
    assert 2 == len(split_faults({"A": 871, "B": 129}, weights))


def test_a_call_to_a_variant_of_no_weight_is_a_fault() -> None:
    """Weight 0 means never, and so does a variant that nobody declared."""
    assert "B got 1 calls where 0 ± 0 were promised" in split_faults({"A": 10_000, "B": 1}, {"A": 1.0, "B": 0.0})
    assert math.inf == split_shares({"A": 5, "X": 1}, {"A": 1.0})[1].deviation


def test_a_split_without_traffic_shows_nothing() -> None:
    """A check that saw no answer must not pass."""
    assert ["no answer named a variant"] == split_faults({}, {"A": 1.0})


def test_weights_are_read_from_the_command_line() -> None:
    """NAME=WEIGHT, separated by commas."""
    assert {"A": 0.9, "B": 0.1} == parse_weights("A=0.9, B=0.1")
    with pytest.raises(ValueError, match="NAME=WEIGHT"):
        parse_weights("A:0.9")


# --- verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "target", "direction", "failures", "expected"),
    [(0.7, 0.7, ">=", 0, True), (0.69, 0.7, ">=", 0, False), (2.1, 2.0, "<=", 0, False), (5.0, 0.7, ">=", 1, False)],
)
def test_a_figure_is_reached_only_without_failed_calls(
    value: float, target: float, direction: Any, failures: int, expected: bool
) -> None:
    """Fast failures are no speed."""
    assert expected == Figure("w", "f", "", "", value, target, direction, failures=failures).ok


def test_a_locust_run_passes_only_with_calls_and_without_failures() -> None:
    """No calls, failed calls, and the scenario's own check."""
    good = {"num_requests": 10, "num_failures": 0}
    assert [] == verdict([good], 0)
    assert ["no calls were made"] == verdict([], 0)
    assert ["3 of 20 calls failed"] == verdict([good, {"num_requests": 10, "num_failures": 3}], 1)
    assert ["the scenario's own check failed (exit status 1)"] == verdict([good], 1)


def test_percentiles_of_a_report_are_read_off_locusts_histogram() -> None:
    """Rounded milliseconds and how many calls took each."""
    entry = {"num_requests": 10, "response_times": {"1": 8, "250": 1, "20.0": 1}}
    assert [1.0, 20.0, 250.0] == [percentile_ms(entry, q) for q in (50, 90, 95)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"0.5,1e-3\n-2\n", [0.5, 0.001, -2.0]),
        (b'{"predictions": [{"score": 0.25}]}', [0.25]),
        (b"[[1, 2], [3.5, 4]]", [1.0, 2.0, 3.5, 4.0]),
    ],
)
def test_numbers_are_found_in_any_answer(body: bytes, expected: list[float]) -> None:
    """CSV and JSON alike, in order."""
    assert expected == numbers(body).tolist()


# --- what a server says of itself -----------------------------------------------------------------------------------

PAGE = """# HELP loads_total Loads
# TYPE loads_total counter
loads_total{endpoint="e",variant="a"} 2.0
loads_total{endpoint="e",variant="b"} 3.0
loads_total_created{endpoint="e",variant="b"} 9.0
plain 1.5
"""


def test_a_metric_is_summed_over_the_labels_that_match() -> None:
    """All series of that very name, or those with the given labels."""
    assert 5.0 == parse_metric(PAGE, "loads_total")
    assert 3.0 == parse_metric(PAGE, "loads_total", {"variant": "b"})
    assert 1.5 == parse_metric(PAGE, "plain")
    assert 0.0 == parse_metric(PAGE, "absent")


def test_workers_and_weights_are_found_in_the_list_of_endpoints() -> None:
    """Each worker once, by state where one is asked for; the weights of the named endpoint only."""
    workers = [{"WorkerId": "a", "Pid": 7, "State": "Ready"}, {"WorkerId": "b", "Pid": 8, "State": "Starting"}]
    variant = {"VariantName": "A", "CurrentWeight": 3.0, "Workers": workers}
    answer = {"Endpoints": [{"EndpointName": "e", "ProductionVariants": [variant]}, {"EndpointName": "f"}]}
    assert [7, 8] == find_workers(answer)
    assert [7] == find_workers(answer, "ready")
    assert {"A": 3.0} == find_weights(answer, "e")
    assert {} == find_weights(answer, "f")


def test_the_chaos_declaration_is_one_the_server_reads(tmp_path: Path) -> None:
    """The endpoints file that the trials write is read by the server's own reader."""
    from serving.declared import load_document, variants

    file = tmp_path / "endpoints.json"
    file.write_text(json.dumps(declaration(tmp_path / "model", workers=3)))
    document = load_document(file)
    assert ["default"] == [endpoint["EndpointName"] for endpoint in document.endpoints]
    assert [3] == [one["InitialInstanceCount"] for config in document.configs for one in variants(config)]


# --- the client -----------------------------------------------------------------------------------------------------


def test_a_plan_survives_its_journey_to_the_client_process() -> None:
    """Bodies are bytes, JSON is text."""
    plan = Plan(8080, (b"\x00\xff", b"b"), connections=3, seconds=1.5, calls=7)
    assert plan == decode_plan(encode_plan(plan))


def test_the_head_of_an_answer_is_read() -> None:
    """Status, length, and whether the server will close, in any case of letters."""
    assert (200, 5, False) == parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: 5")
    assert (429, 0, True) == parse_head(b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\nConnection: Close")
    with pytest.raises(ValueError, match="invalid literal"):
        parse_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ndate: x\r\nX-Amzn-Invoked-Production-Variant: Blue\r\ncontent-length: 1", "Blue"),
        (b"HTTP/1.1 200 OK\r\nx-amzn-invoked-production-variant:Green", "Green"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1", ""),
    ],
)
def test_the_variant_of_an_answer_is_read(head: bytes, expected: str) -> None:
    """In any case of letters, last line or not; absent it is nothing."""
    assert expected == variant_of(head)


def test_a_client_that_is_stopped_tells_what_it_was_answered(rival: Running) -> None:
    """Long before its time; every call it sent is answered, and each kind of answer counted."""
    call = Call("/invocations", b"1,2,3", {"Content-Type": "text/csv"})
    text = call.once(rival.port).body.decode().strip()
    with ClientProcess(Plan(rival.port, (call.raw(),), connections=4, seconds=600, tell=True)) as client:
        spent = tree_cpu_seconds(rival.pid)
        while tree_cpu_seconds(rival.pid) < spent + 0.05:  # it is at work
            assert client.busy(0.02)
        count = client.stop()
    assert 0 == count.failures
    assert count.seconds < 600
    assert {f" {text}": count.calls} == count.replies


@pytest.mark.parametrize(
    ("replies", "failures", "expected"),
    [
        ({"Blue 1": 5, "Green 2": 4}, 0, 0.0),
        ({"Blue 1": 5, "Green 2": 4}, 2, 2.0),
        ({"Blue 1": 5, "Green 2": 4, "Blue 2": 3}, 0, 3.0),
        ({"Blue 1": 5}, 0, 1.0),
    ],
)
def test_updates_pass_only_with_whole_replies_of_both_sides(
    replies: dict[str, int], failures: int, expected: float
) -> None:
    """A failed call, a reply half of one and half of the other, a side that never answered: each is a fault."""
    count = Count(10, failures, 1.0, 1.0, 1.0, 1.0, replies=replies)
    figure = updates_figure([0.1], count, {"Blue 1", "Green 2"})
    assert expected == figure.value
    assert (expected == 0) == figure.ok


async def _serve_badly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers /ok with 200, /no with 503, and closes the connection under anything else."""
    try:
        while line := await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            path = line.split()[1]
            if path not in (b"/ok", b"/no"):
                return
            status = b"200 OK" if path == b"/ok" else b"503 Unavailable"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nhi")
    except (ConnectionError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


def test_the_client_counts_bad_statuses_and_lost_calls() -> None:
    """Of four calls in turn one is good twice, one refused, one lost with its connection."""
    paths = ["/ok", "/no", "/cut", "/ok"]

    async def trial() -> Any:
        server = await asyncio.start_server(_serve_badly, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            requests = tuple(request_bytes(path, b"", {}) for path in paths)
            return await send(Plan(port, requests, connections=1, seconds=20, calls=4))

    count = asyncio.run(trial())
    assert (4, 2, 1) == (count.calls, count.failures, count.reconnects)
    assert {"200": 2, "503": 1} == count.statuses
    assert "503: hi" in count.examples


def test_the_client_says_so_when_nobody_listens() -> None:
    """Refused connections are failed calls, not silence."""
    count = asyncio.run(send(Plan(free_port(), (b"",), connections=2, seconds=0.1)))
    assert count.calls > 0
    assert count.calls == count.failures


# --- the floor ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=50)), max_size=8), st.integers(1, 40))
def test_frames_are_cut_wherever_the_stream_is(sent: list[tuple[int, bytes]], piece: int) -> None:
    """However the bytes arrive, the same frames come out."""
    stream = b"".join(frame(call, body) for call, body in sent)
    frames = Frames()
    received = [one for at in range(0, len(stream), piece) for one in frames.feed(stream[at : at + piece])]
    assert sent == received


@pytest.fixture(scope="module")
def booster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """A tiny XGBoost model of three columns, as a file and loaded."""
    import xgboost

    rows = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    model = xgboost.train({"nthread": 1, "max_depth": 2}, xgboost.DMatrix(rows, rows.sum(axis=1)), 3)
    file = tmp_path_factory.mktemp("model") / "model.ubj"
    model.save_model(file)
    yield file, model


@pytest.fixture(scope="module", params=["loadtests.floor", "loadtests.plain"])
def rival(request: pytest.FixtureRequest, booster: tuple[Path, Any]) -> Iterator[Running]:
    """Each of the servers that ours is compared with, up."""
    port = free_port()
    command = python(request.param, "--model", str(booster[0]), "--port", str(port))
    with running(command, port, {"OMP_NUM_THREADS": "1"}) as server:
        server.wait_ready()
        yield server


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_rival_answers_every_call(rival: Running, generator: str) -> None:
    """A load of either tool on either rival ends without a failed call."""
    count = load(rival.port, [Call("/invocations", b"1,2,3", {"Content-Type": "text/csv"})], 4, 1, generator)
    assert count.calls > 0
    assert (0, []) == (count.failures, count.examples)


def test_a_rival_answers_with_the_models_numbers(rival: Running, booster: tuple[Path, Any]) -> None:
    """The comparison is between servers that do the same work."""
    rows = np.array([[1, 2, 3], [-1, 0, 0.5]], dtype=np.float32)
    answer = Call("/invocations", b"1,2,3\n-1,0,0.5\n", {"Content-Type": "text/csv"}).once(rival.port)
    assert is_right(answer, booster[1].inplace_predict(rows).tolist())
    assert not is_right(answer, [0.0, 0.0])


def test_callers_of_a_bounded_plan_send_just_that_many_calls(rival: Running) -> None:
    """Five connections of four calls each are twenty calls."""
    call = Call("/invocations", b"1,2,3", {"Content-Type": "text/csv"})
    count = run_plan(Plan(rival.port, (call.raw(),), connections=5, seconds=60, calls=4))
    assert (20, 0) == (count.calls, count.failures)


def test_a_server_takes_its_whole_tree_with_it(booster: tuple[Path, Any]) -> None:
    """The floor's worker is a process of its own; after the ``with`` neither is left."""
    port = free_port()
    with running(python("loadtests.floor", "--model", str(booster[0]), "--port", str(port)), port) as server:
        server.wait_ready()
        tree = process_tree(server.pid)
        held = tree_bytes(server.pid)
    assert 2 == len(tree)
    assert held > 10e6
    assert [] == [pid for pid in tree if Path(f"/proc/{pid}/cmdline").exists() and _runs(pid)]


def _runs(pid: int) -> bool:
    """Whether it is more than a zombie."""
    return "loadtests.floor" in Path(f"/proc/{pid}/cmdline").read_text()


def test_a_server_that_ends_early_shows_its_log() -> None:
    """The reason is in the error, not lost in a file."""
    port = free_port()
    command = python("loadtests.floor", "--model", "absent", "--port", str(port))
    with running(command, port) as server, pytest.raises(RuntimeError, match="server ended with 1"):
        server.wait_ready()


# --- scenarios ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "options", "expected"), [("one_model", [], 0), ("ab_split", ["--weights", "A=1"], 1)]
)
def test_a_scenario_passes_by_what_it_saw(
    booster: tuple[Path, Any], tmp_path: Path, scenario: str, options: list[str], expected: int
) -> None:
    """The floor answers every call, and no answer of its names a variant. Both ways a report is left."""
    port = free_port()
    body = tmp_path / "row.csv"
    body.write_text("1,2,3")
    common = ["--host", f"http://127.0.0.1:{port}", "--users", "2", "--seconds", "1", "--reports", str(tmp_path / "r")]
    with running(python("loadtests.floor", "--model", str(booster[0]), "--port", str(port)), port) as server:
        server.wait_ready()
        assert expected == run_scenario([scenario, *common, "--body", str(body), *options])
    assert [".html", ".json"] == sorted(file.suffix for file in (tmp_path / "r").iterdir())
