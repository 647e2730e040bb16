"""Facts about a variant's queue: who may enter, who is told to come back, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.workers.admission import Admission

PATIENT = 60.0


def fill(queue: Admission, model: str, calls: int) -> int:
    """Let calls of a model in until one is refused; how many got in."""
    for entered in range(calls):
        if queue.refusal(model, 0, PATIENT) is not None:
            return entered
        queue.enter(model, 0)
    return calls


def test_a_queue_holds_what_it_says() -> None:
    """All of it may belong to an only model."""
    assert 100 == fill(Admission(100, many_models=False), "", 1000)
    assert 1 == fill(Admission(1, many_models=False), "", 1000)


def test_one_busy_model_leaves_half_of_the_queue() -> None:
    """The next takes half of that, and there is always room for one more model."""
    queue = Admission(90, many_models=True)
    assert 45 == fill(queue, "busy", 1000)
    assert 23 == fill(queue, "second", 1000)
    assert queue.refusal("busy", 0, PATIENT) is not None
    assert queue.refusal("third", 0, PATIENT) is None


@given(st.integers(2, 2000), st.lists(st.integers(0, 3000), min_size=1, max_size=20))
def test_models_that_flood_do_not_keep_a_newcomer_out(most: int, floods: list[int]) -> None:
    """While any place is free."""
    queue = Admission(most, many_models=True)
    for number, calls in enumerate(floods):
        fill(queue, f"model-{number}", calls)
    assert queue.pending <= most
    assert (queue.refusal("newcomer", 0, PATIENT) is None) == (queue.pending < most)


def test_a_call_that_would_be_answered_too_late_is_refused_at_once() -> None:
    """At ten a second, a hundred calls take ten seconds: who can wait for twenty may enter, who has five may not."""
    queue = Admission(1000, many_models=False)
    queue.sweep(0.0)
    flows = [queue.enter("", 0) for _ in range(110)]
    for flow in flows[:10]:
        queue.leave(flow, 0)
    queue.sweep(1.0)
    assert queue.refusal("", 0, 20.0) is None
    assert 5.0 == queue.refusal("", 0, 5.0), "it is told to come back within five seconds"
    assert 5.0 == queue.refusal("", 0, -1.0)


def test_a_slow_model_is_no_reason_to_refuse_calls_of_another() -> None:
    """Each model has its own pace."""
    queue = Admission(1000, many_models=True)
    queue.sweep(0.0)
    slow = [queue.enter("slow", 0) for _ in range(101)]
    queue.leave(slow[0], 0)
    queue.sweep(1.0)
    assert queue.refusal("slow", 0, PATIENT) is not None
    assert queue.refusal("fast", 0, PATIENT) is None


def test_bodies_are_bounded_together() -> None:
    """256 MiB, whatever the number of calls; room returns when they leave."""
    queue = Admission(1000, many_models=False)
    flow = queue.enter("", 200 * 2**20)
    assert queue.refusal("", 100 * 2**20, PATIENT) is not None
    assert queue.refusal("", 50 * 2**20, PATIENT) is None
    queue.leave(flow, 200 * 2**20)
    assert queue.refusal("", 100 * 2**20, PATIENT) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1000)), max_size=50), st.integers(0))
def test_the_books_are_empty_when_everybody_has_left(calls: list[tuple[str, int]], seed: int) -> None:
    """In whatever order; nothing is remembered of models that nobody calls."""
    queue = Admission(10_000, many_models=True)
    inside = [(queue.enter(model, size), size) for model, size in calls]
    while inside:
        queue.leave(*inside.pop(seed % len(inside)))
    queue.sweep(1.0)
    assert (0, 0, {}) == (queue.pending, queue.bytes, queue._flows)
