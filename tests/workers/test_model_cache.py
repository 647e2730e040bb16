"""The books of a worker's models: what is in, what it takes, who goes first."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.errors import LoadFailed, ModelNotReady, OutOfMemory, ServingError, UnknownModel
from serving.runtimes.base import ScriptCall, ScriptModel, ScriptReply
from serving.workers.model_cache import ABSENT, FAILED, LOADING, READY, Entry, ModelCache


class Nothing(ScriptModel):
    """A model that is only held."""

    def transform(self, call: ScriptCall) -> ScriptReply:
        """Nothing."""
        return ScriptReply(b"", "text/plain")


MODEL = Nothing()
NAMES = [f"m{number}" for number in range(6)]
BUDGET = 100


def load(cache: ModelCache, name: str, size: int = 10, now: float = 0.0) -> Entry:
    """A model brought into memory."""
    entry, started = cache.want(name, now)
    assert started
    cache.reserve(entry, size)
    cache.loaded(entry, MODEL, size, seconds=0.5)
    return entry


def use(cache: ModelCache, entry: Entry) -> bool:
    """One batch of one call."""
    cache.pin(entry)
    return cache.unpin(entry, 1)


def test_only_the_first_who_wants_a_model_starts_its_load() -> None:
    """Single flight: everybody gets the same entry, one of them is told to load it."""
    cache = ModelCache(BUDGET)
    answers = [cache.want("a", 0.0) for _ in range(200)]
    assert [True] + [False] * 199 == [started for _, started in answers]
    assert {id(answers[0][0])} == {id(entry) for entry, _ in answers}


def test_the_least_recently_completed_goes_first() -> None:
    """The order is that of the last batch's end, not of its begin or of the load."""
    cache = ModelCache(BUDGET)
    a, b, c = (load(cache, name) for name in "abc")
    cache.pin(a)
    cache.pin(b)
    cache.unpin(b, 1)
    use(cache, c)
    cache.unpin(a, 1)
    assert ["b", "c", "a", None] == [victim and victim.name for victim in (cache.victim() for _ in range(4))]


def test_a_model_in_use_is_no_victim() -> None:
    """However old it is; the next in order goes instead."""
    cache = ModelCache(BUDGET)
    a, b = load(cache, "a"), load(cache, "b")
    cache.pin(a)
    assert b is cache.victim()
    assert cache.victim() is None
    assert READY == a.state


def test_a_model_whose_callers_wait_is_spared() -> None:
    """``spared`` names models with calls in their line: evicting them would only load them again."""
    cache = ModelCache(BUDGET)
    load(cache, "a")
    b = load(cache, "b")
    assert b is cache.victim(lambda name: name == "a")
    assert cache.victim(lambda name: name == "a") is None


def test_a_victim_is_out_of_the_books_and_remembers_what_it_took() -> None:
    """Its bytes are free the moment it is chosen; the journal wants to know how many they were."""
    cache = ModelCache(BUDGET)
    entry = load(cache, "a", 40)
    assert entry is cache.victim()
    assert (0, 0, 40, ABSENT) == (cache.used, entry.bytes, entry.bytes_was, entry.state)
    assert cache.get("a") is None


def test_the_last_measurement_is_the_next_guess() -> None:
    """Before the first load the size on disk has to do."""
    cache = ModelCache(BUDGET)
    assert 33 == cache.guess("a:1", 33)
    cache.measured("a:1", 71)
    assert 71 == cache.guess("a:1", 33)
    assert 33 == cache.guess("a:2", 33)


def test_failures_back_off_from_one_second_to_a_minute() -> None:
    """The error stands until then; after it one caller tries again."""
    cache, now, waits = ModelCache(BUDGET), 100.0, []
    for _ in range(9):
        entry, started = cache.want("a", now)
        assert started
        cache.failed(entry, LoadFailed("broken"), now)
        assert (entry, False) == cache.want("a", entry.retry_at - 1e-6)
        assert FAILED == entry.state
        waits.append(entry.retry_at - now)
        now = entry.retry_at
    assert [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] == pytest.approx(waits)


def test_a_load_that_succeeds_forgives_earlier_failures() -> None:
    """The next failure starts at one second again."""
    cache = ModelCache(BUDGET)
    entry, _ = cache.want("a", 0.0)
    cache.failed(entry, LoadFailed("broken"), 0.0)
    assert (entry, True) == cache.want("a", 1.0)
    cache.loaded(entry, MODEL, 10, 0.1)
    assert entry is cache.unload("a")
    again, _ = cache.want("a", 2.0)
    cache.failed(again, LoadFailed("broken"), 2.0)
    assert 3.0 == again.retry_at


@pytest.mark.parametrize("error", [UnknownModel("no such artifact"), ModelNotReady("all in use")])
def test_what_may_be_over_at_the_next_call_is_not_remembered(error: ServingError) -> None:
    """An artifact that is put there is callable at once; so is a model for which there was no room."""
    cache = ModelCache(BUDGET)
    entry, _ = cache.want("a", 0.0)
    cache.failed(entry, error, 0.0)
    assert cache.get("a") is None
    assert cache.want("a", 0.0)[1]


def test_memory_that_is_short_is_remembered() -> None:
    """A model that is too large is not loaded again for every call."""
    cache = ModelCache(BUDGET)
    entry, _ = cache.want("a", 0.0)
    cache.failed(entry, OutOfMemory("too large"), 0.0)
    assert (entry, False) == cache.want("a", 0.5)


def test_remembered_failures_are_bounded() -> None:
    """A folder may hold any number of damaged artifacts, and callers may ask for all of them."""
    cache = ModelCache(BUDGET)
    for number in range(12_000):
        entry, _ = cache.want(f"m{number}", float(number))
        cache.failed(entry, LoadFailed("broken"), float(number))
    known = [number for number in range(12_000) if cache.get(f"m{number}") is not None]
    assert list(range(2_000, 12_000)) == known


def test_a_model_unloaded_in_use_goes_after_its_last_batch() -> None:
    """Two batches are in it: the second one's end is the end."""
    cache = ModelCache(BUDGET)
    entry = load(cache, "a", 40)
    cache.pin(entry)
    cache.pin(entry)
    assert cache.unload("a") is None
    assert not cache.unpin(entry, 1)
    assert 40 == cache.used
    assert cache.unpin(entry, 1)
    assert (0, ABSENT) == (cache.used, entry.state)


def test_only_what_is_in_memory_can_be_unloaded() -> None:
    """Not the unknown, the loading, the failed."""
    cache = ModelCache(BUDGET)
    entry, _ = cache.want("a", 0.0)
    assert cache.unload("b") is None
    assert cache.unload("a") is None
    cache.failed(entry, LoadFailed("broken"), 0.0)
    assert cache.unload("a") is None
    assert not entry.doomed


def test_without_keep_a_model_goes_with_its_batch() -> None:
    """ModelCacheSetting Disabled."""
    cache = ModelCache(BUDGET, keep=False)
    entry = load(cache, "a")
    assert use(cache, entry)
    assert (None, 0) == (cache.get("a"), cache.used)


def test_a_single_model_has_no_budget() -> None:
    """It is the worker's only one, whatever it takes."""
    cache = ModelCache()
    load(cache, "", 2**50)
    assert cache.fits(2**60)
    assert math.inf == cache.budget


class Books(RuleBasedStateMachine):
    """Any history of wants, loads, failures, batches, unloads and evictions, against what it should leave behind."""

    names = st.sampled_from(NAMES)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cache = ModelCache(BUDGET)
        self.order: list[str] = []  # least recently completed first
        self.failures: dict[str, int] = {}

    def _entries(self, *states: str) -> list[Entry]:
        found = [self.cache.get(name) for name in NAMES]
        return [entry for entry in found if entry is not None and entry.state in states]

    def _make_room(self, size: int) -> bool:
        """What the loader does: evict until it fits or nothing is left to evict."""
        while not self.cache.fits(size):
            idle = [name for name in self.order if not self.cache.get(name).pins]  # type: ignore[union-attr]
            victim = self.cache.victim()
            assert (idle[0] if idle else None) == (victim and victim.name)
            if victim is None:
                return False
            assert not victim.pins
            self.order.remove(victim.name)
        return True

    @rule(name=names, size=st.integers(0, 60))
    def want(self, name: str, size: int) -> None:
        """A caller comes; whoever is told to load makes room first."""
        before = self.cache.get(name)
        state, due = (before.state, before.retry_at) if before else (ABSENT, 0.0)
        entry, started = self.cache.want(name, self.now)
        assert started == (state == ABSENT or (state == FAILED and self.now >= due))
        if started:
            assert LOADING == entry.state
            if self._make_room(size):
                self.cache.reserve(entry, size)
            else:
                self.cache.failed(entry, ModelNotReady("in use"), self.now)
                self.failures.pop(name, None)  # all that was known of it is forgotten
                assert self.cache.get(name) is None

    @precondition(lambda self: self._entries(LOADING))
    @rule(data=st.data(), size=st.integers(0, 80))
    def loaded(self, data: st.DataObject, size: int) -> None:
        """A load ends well; the model takes more or less than was reserved."""
        entry = data.draw(st.sampled_from(self._entries(LOADING)))
        self.cache.loaded(entry, MODEL, size, 0.1)
        self.failures.pop(entry.name, None)
        self.order.append(entry.name)
        self._make_room(0)

    @precondition(lambda self: self._entries(LOADING))
    @rule(data=st.data())
    def failed(self, data: st.DataObject) -> None:
        """A load ends badly."""
        entry = data.draw(st.sampled_from(self._entries(LOADING)))
        self.cache.failed(entry, LoadFailed("broken"), self.now)
        count = self.failures.get(entry.name, 0)
        assert min(2.0**count, 60.0) == pytest.approx(entry.retry_at - self.now)
        self.failures[entry.name] = count + 1

    @precondition(lambda self: self._entries(READY))
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A batch begins."""
        self.cache.pin(data.draw(st.sampled_from(self._entries(READY))))

    @precondition(lambda self: any(entry.pins for entry in self._entries(READY)))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A batch ends; what waited for it to fit goes now."""
        entry = data.draw(st.sampled_from([entry for entry in self._entries(READY) if entry.pins]))
        goes = self.cache.unpin(entry, 1)
        assert goes == (entry.doomed and entry.pins == 0)
        if not entry.pins:
            self.order.remove(entry.name)
            self.order += [] if goes else [entry.name]
        self._make_room(0)

    @rule(name=names)
    def unload(self, name: str) -> None:
        """DELETE /models/{name}."""
        before = self.cache.get(name)
        gone = self.cache.unload(name)
        if before is not None and before.state == ABSENT:
            assert gone is before
            self.order.remove(name)
        else:
            assert gone is None

    @rule(seconds=st.floats(0.1, 100.0))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(budget=st.integers(0, 150))
    def share(self, budget: int) -> None:
        """Workers came or went: the budget changes."""
        self.cache.budget = budget
        self._make_room(0)

    @invariant()
    def the_books_balance(self) -> None:
        """``used`` is the sum, and failures take nothing."""
        assert self.cache.used == sum(entry.bytes for entry in self._entries(LOADING, READY, FAILED))
        assert all(entry.bytes == 0 for entry in self._entries(FAILED))

    @invariant()
    def ready_models_are_counted(self) -> None:
        """All the ways to ask say the same."""
        ready = {entry.name for entry in self._entries(READY)}
        assert ready == {entry.name for entry in self.cache.ready()} == set(self.order)
        assert len(ready) == self.cache.count
        assert {entry.name for entry in self._entries(LOADING)} == set(self.cache.loading())

    @invariant()
    def the_budget_is_held_while_anything_can_go(self) -> None:
        """Above the budget nothing is idle."""
        if self.cache.used > self.cache.budget:
            assert all(entry.pins for entry in self._entries(READY))


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
