"""Facts about what a worker leaves behind: who ran, since when, and whose fault its end was."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.workers import cells
from serving.workers.cells import LOADING, RUNNING, Busy, Cell, Reader, Reading

ME = threading.get_ident()


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    """A worker's cell."""
    return Cell(tmp_path / "cell")


def test_what_runs_is_read_by_others(tmp_path: Path, cell: Cell) -> None:
    """Model, state, since when, for which call, on which thread; until it is cleared."""
    cell.set(3, RUNNING, 2**64 - 1, 12.5, call=2**63, proven=True)
    cell.set(0, LOADING, 5, 13.0)
    expected = [Busy(LOADING, 5, 13.0, 0, ME), Busy(RUNNING, 2**64 - 1, 12.5, 2**63, ME, True)]
    assert expected == cells.read(tmp_path / "cell").busy
    cell.clear(0)
    assert expected[1:] == Reader(tmp_path / "cell").read().busy


def test_a_reader_outlives_the_file(tmp_path: Path, cell: Cell) -> None:
    """The front reads a dead worker's cell although the supervisor has removed it."""
    reader = Reader(tmp_path / "cell")
    cell.set(1, RUNNING, 5, 1.0)
    (tmp_path / "cell").unlink()
    assert [5] == [one.model for one in reader.read().busy]
    reader.close()
    assert Reading([]) == reader.read()


def test_a_cell_that_is_missing_or_cut_short_tells_nothing(tmp_path: Path, cell: Cell) -> None:
    """Neither an error nor a guess."""
    (tmp_path / "short").write_bytes((tmp_path / "cell").read_bytes()[:-1])
    for path in (tmp_path / "none", tmp_path / "short", tmp_path):
        assert Reading([]) == cells.read(path)
    assert 0.0 == Reader(tmp_path / "none").last_beat()
    assert Reading([]) == Reader(tmp_path / "none").read()


def test_the_heart_beat_is_seen(tmp_path: Path, cell: Cell) -> None:
    """0.0 before the first."""
    reader = Reader(tmp_path / "cell")
    assert 0.0 == reader.last_beat() == reader.read().beat
    cell.beat(77.25)
    assert 77.25 == reader.last_beat() == reader.read().beat == cells.read(tmp_path / "cell").beat


def test_a_model_has_one_key_everywhere() -> None:
    """Never 0, which is no model; stable between versions, as processes of two may share a cell."""
    assert cells.model_key("a") == cells.model_key("a") != cells.model_key("b")
    assert 0 < cells.model_key("") < 2**64


ENDINGS = {
    "a native crash": ("ctypes.string_at(0)", "Segmentation fault"),
    "an abort": ("os.abort()", "Aborted"),
    "an exit": ("os._exit(0)", "os._exit(0)"),
    "a kill": ("os.kill(os.getpid(), signal.SIGKILL)", "os.kill("),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_last_words_name_the_thread_that_ended_the_process(tmp_path: Path, ending: str) -> None:
    """Several threads are at work; one of them ends it all, and the cell says which."""
    act, words = ENDINGS[ending]
    program = f"""
import ctypes, os, signal, threading
from pathlib import Path
from serving.workers.cells import RUNNING, Cell
cell = Cell(Path({str(tmp_path / "cell")!r}))
cell.keep_last_words()
started = threading.Barrier(4)
def run(model):
    cell.set(model, RUNNING, model, 10.0 - model)
    started.wait()
    if model == 2:
        {act}
    threading.Event().wait()
for model in (1, 2, 3):
    threading.Thread(target=run, args=(model,), daemon=True).start()
started.wait()
threading.Event().wait(30)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    reading = cells.read(tmp_path / "cell")
    assert words in reading.last_words, ended.stderr
    assert {1, 2, 3} == {one.model for one in reading.busy}
    found = cells.culprit(reading)
    assert found is not None
    assert 2 == found.model


def words(thread: int) -> str:
    """A fault handler's account."""
    traces = (
        f"{who} 0x{id:016x} (most recent call first):\n  ..." for who, id in (("Thread", 1), ("Current thread", thread))
    )
    return "\n\n".join(("Fatal Python error: Aborted", *traces))


def test_without_last_words_only_what_ran_alone_is_the_culprit() -> None:
    """Where several ran, nobody can tell, and nobody is punished."""
    one, two = Busy(RUNNING, 1, 5.0), Busy(LOADING, 2, 6.0)
    assert one == cells.culprit(Reading([one]))
    assert cells.culprit(Reading([one, two])) is None
    assert cells.culprit(Reading([])) is None


def test_a_crash_on_a_thread_of_the_models_own_is_nobodys_for_sure() -> None:
    """Unless only one model was at work."""
    one, two = Busy(RUNNING, 1, 5.0, thread=7), Busy(RUNNING, 2, 6.0, thread=8)
    assert cells.culprit(Reading([one, two], last_words=words(99))) is None
    assert one == cells.culprit(Reading([one, two], last_words=words(7)))
    assert two == cells.culprit(Reading([two], last_words=words(99)))


def test_suspicion_falls_on_the_untried_and_then_on_the_latest() -> None:
    """A model that has answered before is less likely to be it than one that has not."""
    proven = Busy(RUNNING, 1, 9.0, proven=True)
    loading, first = Busy(LOADING, 2, 5.0), Busy(RUNNING, 3, 6.0)
    assert first == cells.suspect(Reading([proven, loading, first]))
    assert proven == cells.suspect(Reading([proven, Busy(RUNNING, 4, 3.0, proven=True)]))
    assert proven._replace(thread=7) == cells.suspect(Reading([proven._replace(thread=7), first], last_words=words(7)))
    assert cells.suspect(Reading([])) is None


@given(
    st.lists(
        st.builds(Busy, st.sampled_from([LOADING, RUNNING]), st.integers(1, 9), st.floats(0, 100), limit=st.just(0.0)),
        max_size=5,
    ),
    st.floats(0, 200),
)
def test_overdue_is_what_has_run_or_loaded_for_too_long_by_itself(busy: list[Busy], now: float) -> None:
    """Each batch and load has its own start: a worker that is always busy is not overdue."""
    late = cells.overdue(busy, now, longest_run=10.0, longest_load=60.0)
    assert [one for one in busy if now - one.since > (10.0 if one.state == RUNNING else 60.0)] == late


def test_callers_may_give_a_batch_less_time_than_usual(tmp_path: Path, cell: Cell) -> None:
    """Never more."""
    cell.set(0, RUNNING, 1, 100.0, limit=5.0)
    cell.set(1, RUNNING, 2, 100.0, limit=50.0)
    busy = cells.read(tmp_path / "cell").busy
    late = [
        [one.model for one in cells.overdue(busy, now, longest_run=10.0, longest_load=60.0, grace=0.5)]
        for now in (105.4, 105.6, 110.1)
    ]
    assert [[], [1], [1, 2]] == late


def test_ending_another_process_is_no_last_word(tmp_path: Path) -> None:
    """A model may end what it has started."""
    program = f"""
import os, signal, subprocess, sys
from pathlib import Path
from serving.workers.cells import Cell
Cell(Path({str(tmp_path / "cell")!r})).keep_last_words()
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
os.kill(child.pid, signal.SIGKILL)
sys.exit(child.wait() != -signal.SIGKILL)
"""
    assert 0 == subprocess.run([sys.executable, "-c", program], check=False, timeout=60, env={**os.environ}).returncode
    assert "" == cells.read(tmp_path / "cell").last_words
