"""The last hour in numbers: samples, what follows from two of them, what is kept, and the slowest calls."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.watch import points, slow
from serving.watch.history import COLUMNS, NOTHING, SERVER, History, Reader, Row, Sample, rows
from serving.watch.metrics import FAMILIES, LATENCY_BUCKETS, Holder, Registry, snapshot
from serving.watch.slow import SlowCall, SlowCalls

A, B = ("e", "a"), ("e", "b")
CALLS, LATENCY = "sagemaker_invocations_total", "sagemaker_model_latency_seconds"


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Epoch seconds."""
        return self.now


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """One process's metrics."""
    made = Registry(tmp_path, "front-1")
    yield made
    made.close()


def numbers(**columns: float) -> Row:
    """A row with these numbers; ``latencies`` = calls in the bucket up to 1 ms."""
    series: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    names = {"calls": CALLS, "ready": "sagemaker_workers", "deaths": "sagemaker_worker_deaths_total"}
    for name, value in columns.items():
        if name == "latencies":
            cells = [0.0] * (len(LATENCY_BUCKETS) + 2)
            cells[LATENCY_BUCKETS.index(0.001)] = value
            series[LATENCY, A] = cells
        else:
            family = names[name]
            labels = (*A, "READY") if name == "ready" else A
            series[family, labels] = [value]
    return rows(series)[A]


def history_of(clock: Clock, *taken: dict[Holder, Row], **options: int) -> History:
    """A history with these samples, five seconds apart."""
    made = History(clock=clock, **options)
    for one in taken:
        made.add(one)
        clock.now += 5.0
    return made


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_has_the_sums_of_all_processes(registry: Registry, tmp_path: Path) -> None:
    """By variant; the third label tells columns apart, and the column without one has them all."""
    other = Registry(tmp_path, "front-2")
    registry.counter(CALLS, *A).add(3)
    other.path.rename(tmp_path / "front-2.999.cells")
    other.path.with_suffix(".index").rename(tmp_path / "front-2.999.index")
    other.counter(CALLS, *A).add(4)
    registry.counter("sagemaker_workers", *A, "READY").set(2)
    registry.counter("sagemaker_workers", *A, "STARTING").set(1)
    registry.counter("sagemaker_approximate_backlog_size", "e").set(7)
    registry.counter("sagemaker_rejected_requests_total", "ValidationError").add(5)
    registry.histogram(LATENCY, *A).observe(0.0007)
    taken = rows(snapshot(tmp_path, Reader()))
    row = taken[A]
    assert (7.0, 2.0, 3.0) == (row["calls"], row["ready"], row["workers"])
    assert 1.0 == row.histogram("latency")[LATENCY_BUCKETS.index(0.001)]
    assert (7.0, 5.0) == (taken["e",]["backlog"], taken[SERVER]["rejected"])
    other.close()


def test_a_reader_follows_an_index_that_grows_and_is_replaced(registry: Registry, tmp_path: Path) -> None:
    """It parses only what is new, and everything again when series have gone."""
    reader = Reader()
    registry.counter(CALLS, *A).add(1)
    assert {A} == set(rows(snapshot(tmp_path, reader)))
    registry.counter(CALLS, *B).add(2)
    registry.counter("sagemaker_retried_invocations_total", *B).add(9)
    assert 2.0 == rows(snapshot(tmp_path, reader))[B]["calls"]
    registry.keep({B})
    assert {B} == set(rows(snapshot(tmp_path, reader)))
    registry.counter(CALLS, "f", "c").add(4)
    taken = rows(snapshot(tmp_path, reader))
    assert (2.0, 4.0) == (taken[B]["calls"], taken["f", "c"]["calls"])


def test_a_reader_skips_what_is_damaged(registry: Registry, tmp_path: Path) -> None:
    """A torn line, and the files of a process that is gone."""
    registry.counter(CALLS, *A).add(1)
    with registry.path.with_suffix(".index").open("a") as index:
        index.write('["sagemaker_inv\n')
    (tmp_path / "front-9.1.cells").write_bytes(b"")
    reader = Reader()
    assert 1.0 == rows(snapshot(tmp_path, reader))[A]["calls"]
    registry.path.unlink()
    reader.forget(tmp_path)
    assert {} == rows(snapshot(tmp_path, reader))


def test_a_shadow_variant_is_known_as_one(registry: Registry, tmp_path: Path) -> None:
    """And its copies are no calls of the server."""
    registry.counter("sagemaker_shadow_dropped_total", *B)
    for holder in (A, B):
        registry.counter(CALLS, *holder).add(10)
    taken = rows(snapshot(tmp_path, Reader()))
    assert (False, True) == (taken[A].shadow, taken[B].shadow)
    history = history_of(Clock(), {}, taken)
    assert 10.0 == history.samples[-1].rows[SERVER]["calls"]


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=6))
def test_growth_is_never_negative(values: list[float]) -> None:
    """A counter that went back began anew: what it has now is what it has grown by."""
    taken = [numbers(calls=value) for value in values]
    for before, now in pairwise(taken):
        grown = now.since(before)["calls"]
        assert (now["calls"] - before["calls"] if now["calls"] >= before["calls"] else now["calls"]) == grown
        assert grown >= 0


# --- keeping ---------------------------------------------------------------------------------------------------------


def test_samples_are_numbered_on_and_bounded() -> None:
    """An hour of them; the oldest leave."""
    history = history_of(Clock(), *({A: numbers(calls=n)} for n in range(20)), kept=8)
    got = [one.number for one in history.samples]
    assert 8 == len(got)
    assert list(range(got[0], got[0] + 8)) == got
    assert got[-1] == history.number


def test_rows_that_do_not_change_are_kept_once() -> None:
    """An idle variant costs a reference."""
    history = history_of(Clock(), *({A: numbers(calls=3)} for _ in range(3)))
    first, _, last = (one.rows[A] for one in history.samples)
    assert first is last


def test_only_the_busiest_variants_are_kept_for_an_hour() -> None:
    """The others for as long as a table of now needs them."""

    def taken(n: int) -> dict[Holder, Row]:
        return {("e", f"v{one}"): numbers(calls=n * one) for one in range(10)}

    history = history_of(Clock(), *map(taken, range(12)), recent=4, most=3)
    assert {SERVER, ("e", "v7"), ("e", "v8"), ("e", "v9")} == set(history.samples[0].rows)
    assert 11 == len(history.samples[-1].rows)


def test_the_servers_sum_loses_nothing_with_an_endpoint() -> None:
    """Counters only grow; gauges are of who is there."""
    history = history_of(
        Clock(), {}, {A: numbers(calls=5, ready=1), B: numbers(calls=7, ready=2)}, {A: numbers(calls=6, ready=1)}
    )
    row = history.samples[-1].rows[SERVER]
    assert (13.0, 1.0) == (row["calls"], row["ready"])


def test_a_containers_calls_are_its_variants() -> None:
    """They count once; its workers are nobody else's."""
    part = ("e", "a/first")
    history = history_of(Clock(), {}, {A: numbers(calls=5), part: numbers(calls=5, ready=2)})
    row = history.samples[-1].rows[SERVER]
    assert (5.0, 2.0) == (row["calls"], row["ready"])


def test_workers_that_come_and_end_are_events() -> None:
    """In words, newest last; what is noted stands among them."""
    clock = Clock()
    history = history_of(
        clock, {A: numbers(ready=1)}, {A: numbers(ready=3)}, {A: numbers(ready=2, deaths=1)}, {B: NOTHING}
    )
    history.note("e", "a", "scaled in")
    told = [one.text for one in history.events]
    assert [
        "workers ready: 1 → 3",
        "1 worker ended without being told to",
        "workers ready: 3 → 2",
        "workers ready: 2 → 0 (taken away)",
        "scaled in",
    ] == told


# --- points ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.5),
        ([0, 10, 0, 0], 0.5, 1.5),
        ([10, 10, 0, 0], 0.75, 1.5),
        ([0, 0, 0, 4], 0.99, 3.0),
    ],
)
def test_a_quantile_lies_in_its_bucket(counts: list[float], share: float, expected: float | None) -> None:
    """Spread evenly; beyond the highest bound nothing is known but that bound."""
    assert expected == points.quantile(counts, share, (1.0, 2.0, 3.0))


@given(st.lists(st.integers(0, 1000), min_size=19, max_size=19), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_quantiles_are_in_order(counts: list[int], one: float, other: float) -> None:
    """A larger share is never below a smaller one."""
    low, high = sorted((one, other))
    first, second = points.quantile(counts, low), points.quantile(counts, high)
    assert (first is None) == (second is None) == (not any(counts))
    if first is not None and second is not None:
        assert first <= second * (1 + 1e-9)


def test_a_point_tells_what_happened_between_two_samples() -> None:
    """By the second, in milliseconds."""
    history = history_of(Clock(), {A: numbers(calls=10, latencies=10)}, {A: numbers(calls=60, latencies=60, ready=2)})
    told = points.answer(history, {"since": 0})
    (line,) = told["lines"]
    assert ("e", "a", [10.0], [0.75], [2.0]) == tuple(
        line[key] for key in ("endpoint", "variant", "calls", "p50", "ready")
    )
    assert [10.0] == told["server"]["calls"]
    assert 10.0 == told["whole"]["calls"]
    assert [("e", "a", 10.0)] == [(one["endpoint"], one["variant"], one["calls"]) for one in told["now"]]


def test_increments_put_together_are_the_whole() -> None:
    """Who asks after each sample has in the end what one has who asks once."""
    clock = Clock()
    history, since, times, calls = History(clock=clock), 0, [], []
    for n in range(6):
        history.add({A: numbers(calls=n * n)})
        clock.now += 5.0
        told = points.answer(history, {"since": since})
        assert told["reset"] == (n == 0)
        times += told["times"]
        calls += told["lines"][0]["calls"]
        since = told["number"]
    whole = points.answer(history, {"since": 0})
    assert (whole["times"], whole["lines"][0]["calls"]) == (times, calls)
    assert [] == points.answer(history, {"since": since})["times"]


def test_a_number_of_another_server_is_answered_anew() -> None:
    """From the future, or from before what is kept."""
    history = history_of(Clock(), *({A: numbers(calls=n)} for n in range(9)), kept=4)
    for since in (history.number + 1, history.number - 7, 0):
        told = points.answer(history, {"since": since})
        assert (True, 3) == (told["reset"], len(told["times"]))


def test_the_busiest_variants_are_drawn() -> None:
    """Eight of them on the overview; all those of an endpoint on its own page."""

    def taken(n: int) -> dict[Holder, Row]:
        return {("e", f"v{one:02}"): numbers(calls=n * one) for one in range(12)} | {("e",): NOTHING}

    history = history_of(Clock(), *map(taken, range(3)))
    drawn = [one["variant"] for one in points.answer(history, {"since": 0})["lines"]]
    assert [f"v{one:02}" for one in range(11, 3, -1)] == drawn
    assert 13 == len(points.answer(history, {"since": 0, "endpoint": "e"})["lines"])


def test_an_empty_history_answers() -> None:
    """Before the first sample."""
    told = points.answer(History(clock=Clock()), {"since": 5})
    assert ([], [], 0) == (told["times"], told["now"], told["number"])
    json.dumps(told, allow_nan=False)


def test_a_sample_is_a_plain_value() -> None:
    """Others read it too: rows by holder, numbers by name."""
    sample = Sample(1, 2.0, {A: Row(array("d", NOTHING.cells))})
    assert 0.0 == sample.rows[A]["calls"]
    assert {column.family for column in COLUMNS.values()} <= set(FAMILIES)


# --- slow calls ------------------------------------------------------------------------------------------------------


def call(total: float, when: float, status: int = 200) -> SlowCall:
    """A call that took so long."""
    return SlowCall(when, "e", "a", "", "id", total, status, "" if status == 200 else "ModelError", (1, 0, 2, 3, 4, 1))


def test_the_slowest_calls_are_kept(tmp_path: Path) -> None:
    """Once there are enough, a call must be slower than the fastest of them to be noted at all."""
    clock = Clock()
    kept = SlowCalls(tmp_path / "front-1.slow", most=3, clock=clock)
    for total in (0.5, 0.1, 0.3, 0.2, 0.4):
        if total > kept.threshold:
            kept.note(call(total, clock.now))
    assert 0.3 == kept.threshold
    kept.flush()
    told = slow.read(tmp_path, clock.now)
    assert [0.5, 0.4, 0.3] == [one.total for one in told["slow"]]
    assert (1, 0, 2, 3, 4, 1) == told["slow"][0].receipt


def test_slow_calls_are_forgotten_after_a_while(tmp_path: Path) -> None:
    """Then faster ones are worth noting again."""
    clock = Clock()
    kept = SlowCalls(tmp_path / "front-1.slow", most=2, window=60.0, clock=clock)
    for total in (5.0, 6.0):
        kept.note(call(total, clock.now))
    clock.now += 61.0
    kept.flush()
    assert kept.threshold < 0
    assert [] == slow.read(tmp_path, clock.now, window=60.0)["slow"]


def test_failed_calls_are_told_newest_first(tmp_path: Path) -> None:
    """The slow ones among them on both lists; those of all fronts together."""
    clock = Clock()
    for number in (1, 2):
        kept = SlowCalls(tmp_path / f"front-{number}.slow", clock=clock)
        kept.failed(call(1.0 * number, clock.now + number, 424))
        kept.flush()
    told = slow.read(tmp_path, clock.now)
    assert [2.0, 1.0] == [one.total for one in told["failed"]] == [one.total for one in told["slow"]]
    assert 424 == told["failed"][0].status


def test_who_keeps_none_notes_none(tmp_path: Path) -> None:
    """Any process but a front."""
    slow.NONE.failed(call(99.0, 0.0, 500))
    slow.NONE.flush()
    assert 1e9 < slow.NONE.threshold
    (tmp_path / "front-1.slow").write_bytes(b"{")
    assert {"slow": [], "failed": []} == slow.read(tmp_path, 0.0)
