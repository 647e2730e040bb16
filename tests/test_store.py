"""The store's contract, over every database: what is written is there, once, in order, and whole."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from serving.errors import ServiceUnavailable, ValidationError
from serving.fleet.store import AlreadyThere, NotThere, Query, Record, Session, Stale, Store, StoreThread
from serving.fleet.tables import ORDERS, page
from tests import memory
from tests.postgres import Postgres, postgres
from tests.stores import DATABASES, opened, record, url_of, walk

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, on each database in turn."""
    with opened(url_of(request, request.param, tmp_path)) as store:
        yield store


def keep(store: Store, *records: Record) -> None:
    """Add records, in one transaction."""
    with store.write() as session:
        session.add_all(records)


# --- records --------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_given(store: Store) -> None:
    """Every field, whatever JSON the body holds."""
    body = {"Text": "ä\0 \U0001f600 'quoted' \"twice\"", "List": [1, 2.5, None, True, {"a": {}}], "Big": 2**53}
    given = record("Fraud-1", at=1_700_000_000.123456, body=body, status="InService", parent="Group", facet="Approved")
    keep(store, given)
    with store.read() as session:
        assert given == session.get("model", "Fraud-1")


def test_a_name_ignores_case_and_keeps_it(store: Store) -> None:
    """Two names that differ in case are one."""
    keep(store, record("Fraud"))
    with store.read() as session:
        found = session.get("model", "fRAUD")
        assert found is not None
        assert "Fraud" == found.name
    with pytest.raises(AlreadyThere), store.write() as session:
        session.add(record("FRAUD"))


def test_kinds_do_not_meet(store: Store) -> None:
    """A model and an endpoint may have one name."""
    keep(store, record("fraud"), record("fraud", kind="endpoint"))
    with store.write() as session:
        assert session.remove("endpoint", "fraud")
        assert session.get("endpoint", "fraud") is None
        assert session.get("model", "fraud") is not None


def test_what_is_not_there_is_none(store: Store) -> None:
    """No record, nothing to remove, no tags."""
    with store.write() as session:
        assert session.get("model", "nobody") is None
        assert not session.remove("model", "nobody")
        assert [] == session.tags("model", "nobody")


def test_a_name_that_was_removed_is_free(store: Store) -> None:
    """And what comes after it has nothing of it, tags included."""
    keep(store, record("fraud", status="InService"))
    with store.write() as session:
        session.put_tags("model", "fraud", [("team", "risk")])
        assert session.remove("model", "FRAUD")
        session.add(record("Fraud", at=2.0))
    with store.read() as session:
        assert record("Fraud", at=2.0) == session.get("model", "fraud")
        assert [] == session.tags("model", "fraud")


def test_a_change_replaces_what_is_given(store: Store) -> None:
    """And only that; the answer is what the store now holds."""
    first = record("fraud", status="Creating", parent="group", facet="Pending")
    keep(store, first)
    with store.write() as session:
        second = session.change(first, now=5.0, status="InService")
        third = session.change(second, now=6.0, body={"New": 1}, facet="Approved")
    expected = replace(first, modified=6.0, status="InService", body={"New": 1}, facet="Approved", revision=2)
    assert expected == third
    with store.read() as session:
        assert third == session.get("model", "fraud")


def test_a_change_can_empty_a_field(store: Store) -> None:
    """Empty is a value; None is not."""
    keep(store, record("fraud", status="Creating"))
    with store.write() as session:
        session.change(record("fraud", status="Creating"), now=2.0, status="", body={})
        assert replace(record("fraud", body={}), modified=2.0, revision=1) == session.get("model", "fraud")


def test_a_change_of_something_older_is_stale(store: Store) -> None:
    """Whoever read before the last change must read again."""
    first = record("fraud")
    keep(store, first)
    with store.write() as session:
        session.change(first, now=2.0, status="Updating")
    with pytest.raises(Stale), store.write() as session:
        session.change(first, now=3.0, status="Deleting")
    with store.read() as session:
        assert ["Updating"] == [one.status for one in session.every("model")]


def test_a_change_of_what_was_removed_is_stale(store: Store) -> None:
    """Also when another of that name, with as many changes, has taken its place."""
    first = record("fraud")
    keep(store, first)
    with store.write() as session:
        session.remove("model", "fraud")
        with pytest.raises(Stale):
            session.change(first, now=2.0)
        session.add(record("fraud", at=9.0))
        with pytest.raises(Stale):
            session.change(first, now=10.0)


def test_writers_who_retry_what_was_stale_lose_nothing(store: Store) -> None:
    """Four threads count in one record: every count is there."""
    keep(store, record("counter", body={"Count": 0}))

    def count() -> None:
        for _ in range(20):
            while True:
                with store.read() as session:
                    seen = session.get("model", "counter")
                assert seen is not None
                try:
                    with store.write() as session:
                        session.change(seen, now=2.0, body={"Count": seen.body["Count"] + 1})
                    break
                except Stale:
                    continue

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as session:
        assert [({"Count": 80}, 80)] == [(one.body, one.revision) for one in session.every("model")]


def test_every_is_oldest_first(store: Store) -> None:
    """Whatever the order of their names."""
    keep(store, record("b", at=2.0), record("c", at=1.0), record("a", at=3.0), record("z", kind="endpoint"))
    with store.read() as session:
        assert ["c", "b", "a"] == [one.name for one in session.every("model")]


def test_count_is_of_a_kind_or_of_a_parent(store: Store) -> None:
    """A parent's case is not minded."""
    keep(store, *(record(f"group/{n}", kind="model-package", parent="Group") for n in range(3)))
    keep(store, record("lone", kind="model-package"))
    with store.read() as session:
        assert 4 == session.count("model-package")
        assert 3 == session.count("model-package", "gROUP")
        assert 0 == session.count("model-package", "other")


# --- transactions ---------------------------------------------------------------------------------------------------


def test_an_exception_undoes_everything(store: Store) -> None:
    """Records, tags, numbers: as if nothing had been asked."""
    keep(store, record("old"))
    with pytest.raises(RuntimeError, match="changed my mind"), store.write() as session:
        session.add(record("new"))
        session.remove("model", "old")
        session.put_tags("model", "new", [("a", "b")])
        assert 1 == session.next_number("versions")
        raise RuntimeError("changed my mind")
    with store.write() as session:
        assert ["old"] == [one.name for one in session.every("model")]
        assert 1 == session.next_number("versions")


def test_add_all_is_all_or_nothing(store: Store) -> None:
    """One name that is taken, and none is added."""
    keep(store, record("b"))
    with pytest.raises(AlreadyThere):
        keep(store, record("a"), record("B"), record("c"))
    with store.read() as session:
        assert 1 == session.count("model")


def test_a_refused_add_leaves_the_transaction_usable(store: Store) -> None:
    """Its caller may go on."""
    with store.write() as session:
        session.add(record("a"))
        with pytest.raises(AlreadyThere):
            session.add(record("A"))
        session.add(record("b"))
    with store.read() as session:
        assert 2 == session.count("model")


def test_numbers_are_never_given_twice(store: Store) -> None:
    """Each sequence counts for itself."""
    with store.write() as session:
        assert [1, 2, 3] == [session.next_number("group") for _ in range(3)]
    with store.write() as session:
        assert 4 == session.next_number("group")
        assert 1 == session.next_number("other")


@pytest.mark.parametrize("more", [{"status": "half \ud800"}, {"body": {"half": "\ud800"}}, {"body": {"Big": 2**64}}])
def test_what_cannot_be_kept_is_refused(store: Store, more: dict[str, object]) -> None:
    """Half a character, a number beyond 64 bits: the caller's fault and never ours."""
    with pytest.raises(ValidationError, match="cannot be kept"), store.write() as session:
        session.add(record("fine"))
        session.add(record("odd", **more))
    with store.read() as session:
        assert 0 == session.count("model")


def test_a_nul_in_a_name_is_no_defect(store: Store) -> None:
    """One database has no such text, the other has no such model: both are answers."""
    try:
        with store.read() as session:
            assert session.get("model", "nul \0") is None
    except ValidationError as error:
        assert "cannot be kept" in error.message


def test_a_closed_store_says_so(store: Store) -> None:
    """And closing it twice does no harm."""
    store.close()
    store.close()
    with pytest.raises(ServiceUnavailable), store.read():
        pass


def test_it_is_all_there_after_opening_again(store: Store) -> None:
    """Records, tags, numbers, and where a list goes on."""
    keep(store, record("a", at=1.0), record("b", at=2.0))
    with store.write() as session:
        session.put_tags("model", "a", [("k", "v")])
        session.next_number("versions")
        _, token = session.find(Query("model", limit=1))
    store.close()
    store.open()
    with store.write() as session:
        assert record("a", at=1.0) == session.get("model", "a")
        assert [("k", "v")] == session.tags("model", "a")
        assert 2 == session.next_number("versions")
        assert ["a"] == [one.name for one in session.find(Query("model", limit=1, token=token))[0]]


# --- tags -----------------------------------------------------------------------------------------------------------


def test_tags_keep_the_order_in_which_they_were_first_given(store: Store) -> None:
    """An equal key is overwritten where it stands; keys mind case."""
    keep(store, record("fraud"))
    with store.write() as session:
        session.put_tags("model", "fraud", [("b", "1"), ("a", "2")])
        session.put_tags("model", "FRAUD", [("c", "3"), ("b", "4"), ("B", "5")])
        assert [("b", "4"), ("a", "2"), ("c", "3"), ("B", "5")] == session.tags("model", "fraud")
        session.drop_tags("model", "Fraud", ["b", "nothing"])
        session.put_tags("model", "fraud", [("b", "6")])
        assert [("a", "2"), ("c", "3"), ("B", "5"), ("b", "6")] == session.tags("model", "fraud")


def test_there_are_at_most_fifty_tags(store: Store) -> None:
    """Counted after the equal keys are put together; a refusal adds none."""
    keep(store, record("fraud"))
    fifty = [(f"k{n}", "") for n in range(50)]
    with store.write() as session:
        session.put_tags("model", "fraud", fifty)
        session.put_tags("model", "fraud", [("k0", "again")])
        with pytest.raises(ValidationError, match="at most 50 tags; with these it would have 51"):
            session.put_tags("model", "fraud", [("k1", "lost"), ("one more", "")])
        assert [("k0", "again"), *fifty[1:]] == session.tags("model", "fraud")


def test_only_what_exists_has_tags(store: Store) -> None:
    """Nothing is kept for a resource that is not there."""
    with pytest.raises(NotThere), store.write() as session:
        session.put_tags("model", "nobody", [("a", "b")])


# --- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sort_by", "expected"),
    [("Name", "B D a c"), ("CreationTime", "D a B c"), ("Status", "c B D a")],
)
def test_a_list_has_three_orders_and_their_reverse(store: Store, sort_by: str, expected: str) -> None:
    """Names sort by their bytes, capitals first; what is equal otherwise sorts by name."""
    times = {"a": 1.0, "B": 2.0, "c": 3.0, "D": 1.0}
    keep(store, *(record(name, at=at, status="Failed" if name == "c" else "InService") for name, at in times.items()))
    for limit in (1, 2, 3, 4, 100):
        query = Query("model", sort_by=sort_by, descending=False, limit=limit)
        assert expected.split() == walk(store, query)
        assert expected.split()[::-1] == walk(store, replace(query, descending=True))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"name_contains": "raud"}, "fraud-1 fraud-2"),
        ({"name_contains": "FRAUD"}, "FRAUD-3"),
        ({"name_contains": "%"}, "100%"),
        ({"name_contains": "_"}, "a_b"),
        ({"name_contains": "-"}, "fraud-1 fraud-2 FRAUD-3"),
        ({"created_after": 2.0}, "fraud-2 FRAUD-3 100% a_b"),
        ({"created_before": 2.0}, "fraud-1"),
        ({"created_after": 2.0, "created_before": 3.0}, "fraud-2"),
        ({"created_after": 0.0, "created_before": 0.0}, ""),
        ({"modified_after": 14.0}, "100% a_b"),
        ({"modified_before": 12.0, "name_contains": "a"}, "fraud-1"),
        ({"status": "Failed"}, "FRAUD-3"),
        ({"parent": "GROUP"}, "100%"),
        ({"facet": "Approved"}, "a_b"),
        ({"has_parent": True}, "100%"),
        ({"has_parent": False, "created_after": 4.0}, "a_b"),
        ({}, "fraud-1 fraud-2 FRAUD-3 100% a_b"),
    ],
)
def test_a_filter_comes_before_the_pages(store: Store, filters: dict[str, object], expected: str) -> None:
    """After is from then on, Before is until then; wildcards are plain characters."""
    keep(
        store,
        record("fraud-1", at=1.0, modified=11.0),
        record("fraud-2", at=2.0, modified=12.0),
        record("FRAUD-3", at=3.0, modified=13.0, status="Failed"),
        record("100%", at=4.0, modified=14.0, parent="group"),
        record("a_b", at=5.0, modified=15.0, facet="Approved"),
        record("fraud-1", at=1.0, kind="endpoint"),
    )
    for limit in (1, 2, 100):
        query = Query("model", descending=False, limit=limit, **filters)
        assert expected.split() == walk(store, query)


def test_no_token_when_nothing_follows(store: Store) -> None:
    """Not even after a full page."""
    keep(store, record("a"), record("b"))
    with store.read() as session:
        assert "" == session.find(Query("model", limit=2))[1]
        assert "" != session.find(Query("model", limit=1))[1]
        assert ([], "") == session.find(Query("endpoint"))


def test_pages_go_on_where_they_stood(store: Store) -> None:
    """What is added before or removed behind them moves nothing; the place itself may go."""
    keep(store, *(record(name) for name in "bdfh"))
    query = Query("model", sort_by="Name", descending=False, limit=2)
    with store.write() as session:
        page, token = session.find(query)
        assert ["b", "d"] == [one.name for one in page]
        session.add(record("a"))
        session.remove("model", "d")
        session.add(record("g"))
    assert ["f", "g", "h"] == walk(store, replace(query, token=token))


def test_a_token_serves_one_kind_and_one_order(store: Store) -> None:
    """For every other list it is not a token."""
    keep(store, *(record(name, kind=kind) for name in "abc" for kind in ("model", "endpoint")))
    query = Query("model", sort_by="Name", limit=1)
    with store.read() as session:
        token = session.find(query)[1]
        for other in ({"kind": "endpoint"}, {"sort_by": "CreationTime"}, {"descending": False}):
            with pytest.raises(ValidationError, match="NextToken"):
                session.find(replace(query, token=token, **other))


@given(data=some.data())
def test_a_token_cannot_be_made_up(tmp_path_factory: pytest.TempPathFactory, data: some.DataObject) -> None:
    """Whatever a caller sends, or does to a token we gave, is refused as the caller's fault."""
    store = _three_models(tmp_path_factory)
    with store.read() as session:
        token = session.find(Query("model", limit=1))[1]
        at = data.draw(some.integers(0, len(token) - 1))
        changed = token[:at] + data.draw(some.characters()) + token[at + 1 :]
        for bad in (changed, token[:at] or "x", token + "=", token + data.draw(some.text(min_size=1))):
            if bad != token:
                with pytest.raises(ValidationError, match="NextToken"):
                    session.find(Query("model", limit=1, token=bad))


_shared: list[Store] = []


def _three_models(factory: pytest.TempPathFactory) -> Store:
    if not _shared:
        _shared.append(Store(f"sqlite:///{factory.mktemp('tokens')}/state.db").open())
        keep(_shared[0], *(record(name) for name in "abc"))
    return _shared[0]


@pytest.mark.parametrize("sort_by", list(ORDERS))
def test_a_list_reads_an_index_and_its_own_page(tmp_path: Path, sort_by: str) -> None:
    """Whatever is filtered by: never the rows of all the others, never a sort of them."""
    query = Query("model", sort_by, True, 10, "", "a", 1.0, 2.0, 3.0, 4.0, "s", "p", "f", True)
    with opened(f"sqlite:///{tmp_path}/state.db") as store, store.read() as session:
        connection = session._connection
        for after in ([], ["x"] * len(ORDERS[sort_by])):
            statement = page(query, after, "sqlite").compile(connection, compile_kwargs={"literal_binds": True})
            plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
            assert any("USING COVERING INDEX resources_by" in step for step in plan), plan
            assert not any(step.startswith(("SCAN resources", "SEARCH resources USING INDEX")) for step in plan), plan


def test_the_store_costs_nothing_until_it_is_opened() -> None:
    """Fronts and workers know its words without its library."""
    code = "import sys, serving.fleet.store; print('sqlalchemy' in sys.modules)"
    assert b"False" == subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip()


# --- the thread -----------------------------------------------------------------------------------------------------


def test_the_thread_does_what_is_asked_in_order(store: Store) -> None:
    """A hundred asked at once are numbered as they came, on one thread."""
    thread = StoreThread(store)

    def number(session: Session) -> tuple[int, int]:
        return session.next_number("asked"), threading.get_ident()

    async def ask() -> list[tuple[int, int]]:
        return await asyncio.gather(*(thread.write(number) for _ in range(100)))

    answers = asyncio.run(ask())
    thread.close()
    assert list(range(1, 101)) == [answer[0] for answer in answers]
    assert 1 == len({answer[1] for answer in answers})


def test_the_threads_errors_are_the_callers(store: Store) -> None:
    """They undo what was written, and the next caller is served."""
    thread = StoreThread(store)

    def fail(session: Session) -> None:
        session.add(record("half"))
        raise ValidationError("no")

    async def ask() -> int:
        with pytest.raises(ValidationError, match="no"):
            await thread.write(fail)
        return await thread.read(lambda session: session.count("model"))

    assert 0 == asyncio.run(ask())
    thread.close()


def test_closing_the_thread_waits_for_what_was_asked(store: Store) -> None:
    """What came before is done, what comes after is refused."""
    thread = StoreThread(store)
    started, go = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        started.set()
        assert go.wait(10)
        session.add(record("first"))

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        first = asyncio.ensure_future(thread.write(slow))
        await loop.run_in_executor(None, started.wait, 10)
        second = asyncio.ensure_future(thread.write(lambda session: session.add(record("second"))))
        await asyncio.sleep(0)  # it is asked
        closing = loop.run_in_executor(None, thread.close)
        go.set()
        await asyncio.gather(first, second, closing)
        with pytest.raises(ServiceUnavailable):
            await thread.read(lambda session: session.count("model"))

    asyncio.run(ask())
    with store.read() as session:
        assert 2 == session.count("model")


def test_a_caller_who_left_is_passed_over(store: Store) -> None:
    """Its turn comes and nothing is done."""
    thread = StoreThread(store)
    started, go = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        started.set()
        assert go.wait(10)

    async def ask() -> None:
        first = asyncio.ensure_future(thread.write(slow))
        await asyncio.get_running_loop().run_in_executor(None, started.wait, 10)
        second = asyncio.ensure_future(thread.write(lambda session: session.add(record("left"))))
        await asyncio.sleep(0)  # it is asked
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        go.set()
        await first
        assert 0 == await thread.read(lambda session: session.count("model"))

    asyncio.run(ask())
    thread.close()


def test_a_thread_that_was_never_asked_closes() -> None:
    """It was never started."""
    StoreThread(Store("sqlite:///nowhere")).close()
