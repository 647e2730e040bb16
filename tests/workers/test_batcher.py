"""Facts about batches: who is predicted with whom, and whose turn it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serving.workers.batcher import Call, Lines, Pace
from serving.workers.wire import Meta

MANY, BIG = 100, 10**6


def channel() -> Any:
    """A connection, as far as the batcher cares."""
    return SimpleNamespace(calls={})


def waiting(
    lines: Lines, model: str, id: int = 0, *, body: bytes = b"", deadline: float = 10.0, alone: bool = False,
    kind: str = "text/csv", by: Any = None,
) -> Call:  # fmt: skip
    """A call that has just been queued."""
    call = Call(by or channel(), id, deadline, 0.0, 0.0, Meta(kind, "", model), body, alone)
    call.channel.calls[id] = call
    lines.offer(lines.add(call))
    return call


def batch(lines: Lines, most_calls: int = MANY, most_bytes: int = BIG, now: float = 0.0) -> list[int]:
    """The ids of the next batch; its line is done at once."""
    line = lines.next()
    if line is None:
        return []
    calls = lines.take(line, now, most_calls, most_bytes)
    lines.done(line)
    return [call.id for call in calls]


def test_calls_of_one_model_are_predicted_together_in_order() -> None:
    """First come, first in the batch."""
    lines = Lines()
    for id in range(5):
        waiting(lines, "a", id)
    assert [0, 1, 2, 3, 4] == batch(lines)
    assert [] == batch(lines)


def test_a_busy_model_goes_to_the_back_after_each_batch() -> None:
    """A thousand calls of one model do not keep a single one of another waiting for more than a batch."""
    lines = Lines()
    for id in range(1000):
        waiting(lines, "busy", id)
    waiting(lines, "rare", 7000)
    waiting(lines, "other", 8000)
    assert list(range(10)) == batch(lines, most_calls=10)
    assert [7000] == batch(lines, most_calls=10)
    assert [8000] == batch(lines, most_calls=10)
    assert list(range(10, 20)) == batch(lines, most_calls=10)


def test_a_model_that_is_being_run_has_no_other_turn_meanwhile() -> None:
    """One batch of a model at a time, whatever arrives."""
    lines = Lines()
    waiting(lines, "a", 1)
    line = lines.next()
    assert line is not None
    assert [1] == [call.id for call in lines.take(line, 0.0, MANY, BIG)]
    waiting(lines, "a", 2)
    assert lines.next() is None
    lines.done(line)
    assert [2] == batch(lines)


def test_a_batch_ends_where_the_next_call_is_of_another_kind() -> None:
    """Content type and Accept are the same within a batch; order is kept."""
    lines = Lines()
    for id, kind in enumerate(["text/csv", "text/csv", "application/json", "text/csv"]):
        waiting(lines, "a", id, kind=kind)
    assert [[0, 1], [2], [3]] == [batch(lines) for _ in range(3)]


def test_a_batch_is_bounded_in_bytes_but_has_always_a_call() -> None:
    """A body larger than the bound is a batch of its own."""
    lines = Lines()
    for id, size in enumerate([500, 60, 30, 20, 500]):
        waiting(lines, "a", id, body=bytes(size))
    assert [[0], [1, 2], [3], [4]] == [batch(lines, most_bytes=100) for _ in range(4)]


def test_a_call_that_must_be_alone_is() -> None:
    """Neither with those before it nor with those behind."""
    lines = Lines()
    for id in range(5):
        waiting(lines, "a", id, alone=id in (1, 2))
    assert [[0], [1], [2], [3, 4]] == [batch(lines) for _ in range(4)]


def test_nobody_computes_for_a_caller_who_has_left_or_whose_time_is_over() -> None:
    """They are dropped when the batch is formed, and forgotten by their connection."""
    lines, by = Lines(), channel()
    waiting(lines, "a", 1, by=by).cancelled = True
    waiting(lines, "a", 2, by=by, deadline=1.0)
    waiting(lines, "a", 3, by=by)
    assert [3] == batch(lines, now=2.0)
    assert {3} == set(by.calls)
    assert 0 == lines.waiting


def test_a_line_of_nothing_but_leavers_is_an_empty_batch_and_goes() -> None:
    """No model is run for it."""
    lines = Lines()
    waiting(lines, "a", 1, deadline=1.0)
    assert [] == batch(lines, now=2.0)
    assert lines.line("a") is None


def test_a_caller_who_leaves_takes_his_body_with_him() -> None:
    """The call and, when it was the last, its line are gone at once: also while the model is still loading."""
    lines = Lines()
    calls = [waiting(lines, "a", id) for id in range(3)]
    assert lines.drop(calls[1])
    assert [0, 2] == batch(lines)
    assert not lines.drop(calls[0]), "it is being run"
    last = waiting(lines, "a", 9)
    assert lines.drop(last)
    assert lines.line("a") is None
    assert lines.next() is None
    assert 0 == lines.waiting


def test_all_calls_of_a_model_that_failed_to_load_are_given_back() -> None:
    """In order; others stay."""
    lines = Lines()
    for id, model in enumerate("aabab"):
        waiting(lines, model, id)
    assert [0, 1, 3] == [call.id for call in lines.take_all("a")]
    assert 2 == lines.waiting
    assert [2, 4] == batch(lines)


def test_calls_whose_time_ends_while_the_model_loads_are_given_back_first() -> None:
    """Those at the front of the line; the rest wait on."""
    lines = Lines()
    for id, deadline in enumerate([1.0, 2.0, 9.0]):
        waiting(lines, "a", id, deadline=deadline)
    assert [0, 1] == [call.id for call in lines.late("a", 3.0)]
    assert 1 == lines.waiting
    assert [] == lines.late("b", 3.0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.booleans(), st.booleans()), max_size=60),
    st.integers(1, 8),
    st.integers(1, 120),
)
def test_every_call_is_in_one_batch_of_its_model_in_order(
    arrivals: list[tuple[str, int, bool, bool]], most_calls: int, most_bytes: int
) -> None:
    """Whatever arrives, under whatever bounds: nothing is lost, doubled, mixed or overtaken."""
    lines, by = Lines(), channel()
    for id, (model, size, alone, cancelled) in enumerate(arrivals):
        waiting(lines, model, id, body=bytes(size), alone=alone, by=by).cancelled = cancelled
    served: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    while (line := lines.next()) is not None:
        calls = lines.take(line, 0.0, most_calls, most_bytes)
        assert len(calls) <= most_calls
        assert len(calls) == 1 or sum(len(call.body) for call in calls) <= most_bytes or not calls
        assert len(calls) == 1 or not any(call.alone for call in calls)
        assert {line.model} >= {call.meta.model for call in calls}
        served[line.model] += [call.id for call in calls]
        lines.done(line)
    for model, ids in served.items():
        assert ids == [id for id, (of, _, _, left) in enumerate(arrivals) if of == model and not left]
    assert 0 == lines.waiting


def test_cheap_calls_are_predicted_together() -> None:
    """As many as are waiting, up to the limit: what is around them is shared."""
    pace = Pace()
    assert 1 == pace.most(256, 0.01), "nothing is known yet"
    pace.note(1, 0.00002)
    assert 256 == pace.most(256, 0.01)


def test_dear_calls_are_answered_singly_unless_company_has_proved_cheaper() -> None:
    """A convolution on few cores gains nothing; an accelerator does."""
    convolution, accelerator = Pace(), Pace()
    for pace in (convolution, accelerator):
        pace.note(1, 0.005)
    convolution.note(4, 0.020)
    accelerator.note(4, 0.006)
    asked = [convolution.most(256, 0.01) for _ in range(128)]
    assert {1: 126, 4: 2} == {size: asked.count(size) for size in set(asked)}, "tried now and then"
    assert 13 == accelerator.most(256, 0.01), "as many as four single calls last"
