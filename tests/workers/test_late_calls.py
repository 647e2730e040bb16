"""Calls whose time ends while their model loads leave the line, and an empty line leaves the books."""

from __future__ import annotations

from serving.workers.batcher import Call, Lines
from serving.workers.wire import Meta


def call(id: int, deadline: float) -> Call:
    """A waiting call."""
    return Call(None, id, deadline, 0.0, 0.0, Meta("text/csv", "", "m"), b"", False)


def test_only_calls_at_the_end_of_their_time_leave() -> None:
    """The others go on waiting, in their order."""
    lines = Lines()
    for id, deadline in enumerate([1.0, 2.0, 9.0]):
        lines.add(call(id, deadline))
    assert [0, 1] == [late.id for late in lines.late("m", 5.0)]
    line = lines.line("m")
    assert line is not None
    assert ([2], 1) == ([waiting.id for waiting in line.calls], lines.waiting)


def test_a_line_that_nobody_waits_in_is_forgotten() -> None:
    """Or names that are asked for once would fill the memory."""
    lines = Lines()
    lines.add(call(1, 1.0))
    assert 1 == len(lines.late("m", 5.0))
    assert (None, 0) == (lines.line("m"), lines.waiting)
    assert [] == lines.late("m", 5.0)
