"""Which calls become records, and what of them: seen from ``Endpoint.invoke``, without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.config import Settings
from serving.errors import (
    BadInput,
    InvocationTimedOut,
    ServiceUnavailable,
    ServingError,
    WorkerDied,
)
from serving.types import Invocation, Reply
from serving.watch import capture, capture_writer
from serving.watch.capturing import Captures, open_captures
from serving.watch.metrics import Registry

LARGE = b"x" * (capture.MOST_BYTES + 1)
ROW = {
    "name": "e",
    "capture": {
        "destination": "s3://b/c", "percent": 100, "input": True, "output": True, "csv": ["text/csv"], "json": []
    },
    "variants": [{"name": "v", "pools": [{"key": ["e", 1, "v", "", ""]}]}],
    "components": [],
}  # fmt: skip


class Told:
    """Who hears an answer."""

    def __init__(self) -> None:
        self.results: list[Reply | ServingError] = []

    def done(self, result: Reply | ServingError) -> None:
        """Told."""
        self.results.append(result)


class Rest:
    """The rest of a streamed answer, that only one looks on at."""

    def tap(self, take: Callable[[bytes], None], end: Callable[[], None]) -> None:
        """See ``Tappable``."""
        self.take, self.end = take, end


class Bench:
    """A process's captures; what they count, and what they write down."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.registry = Registry(folder / "metrics", "front")
        given = Settings(data_dir=folder, capture_disk_percent=100, **settings)
        self.captures: Captures = open_captures(given, self.registry, "front")
        self.captures.start()
        self.told = Told()

    def begin(self, body: bytes = b"1", row: Any = None, **more: Any) -> Callable[[Reply | ServingError], None]:
        """A call is given to a variant."""
        (one,) = self.captures.observers(row or ROW)
        call = Invocation("e", body, "text/csv", "", "id", 0.0, **more)
        return one.begin(call, "v", self.told.done)

    async def records(self) -> list[dict[str, Any]]:
        """What has been written down, at the end."""
        assert await self.captures.close()
        self.registry.close()
        files = sorted((self.folder / "s3" / "b" / "c" / "e" / "v").rglob("*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]

    def dropped(self, reason: str) -> float:
        """How many were dropped for this reason."""
        return self.registry.counter("sagemaker_data_capture_dropped_total", "e", "v", reason).value


def reply(body: bytes, rest: Any = None) -> Reply:
    """An answer."""
    return Reply(body, "text/csv", "v", 0.001, (1, 2, 3, 4, 5, 6), True, (), rest)


def row(**more: Any) -> dict[str, Any]:
    """An endpoint that captures otherwise."""
    return {**ROW, "capture": {**ROW["capture"], **more}}  # type: ignore[dict-item]  # a mapping


@contextmanager
def no_room() -> Iterator[None]:
    """For nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture_writer, "MOST_WAITING", 0)
        yield


def directions(record: dict[str, Any]) -> dict[str, str]:
    """Data by direction."""
    return {name: side["data"] for name, side in record["captureData"].items()}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BadInput("no"), "no"),
        (WorkerDied("no"), None),
        (InvocationTimedOut("no"), None),
        (ServiceUnavailable("no"), None),
    ],
)
def test_a_failed_calls_answer_is_kept_if_a_container_gave_it(
    tmp_path: Path, error: ServingError, words: str | None
) -> None:
    """Its request is kept always; where only answers are captured, there is no record of one without."""

    async def run() -> None:
        bench = Bench(tmp_path)
        bench.begin()(error)
        bench.begin(row=row(input=False))(error)
        assert [error, error] == bench.told.results
        found = [set(directions(record)) for record in await bench.records()]
        assert [{"endpointInput", "endpointOutput"}, {"endpointOutput"}] if words else [{"endpointInput"}] == found

    asyncio.run(run())


def test_a_direction_that_is_too_large_is_left_out_and_counted(tmp_path: Path) -> None:
    """The other is kept; of a call without any there is no record."""

    async def run() -> None:
        bench = Bench(tmp_path)
        bench.begin(LARGE)(reply(b"2"))
        bench.begin(b"1")(reply(LARGE))
        bench.begin(LARGE)(reply(LARGE))
        assert 4 == bench.dropped("too_large")
        assert [{"endpointOutput": "2"}, {"endpointInput": "1"}] == [directions(one) for one in await bench.records()]

    asyncio.run(run())


def test_large_bodies_are_written_too(tmp_path: Path) -> None:
    """Beyond what the loop makes a record of."""

    async def run() -> None:
        bench = Bench(tmp_path)
        bench.begin(LARGE[:-1])(reply(b"2"))
        assert [{"endpointInput": LARGE[:-1].decode(), "endpointOutput": "2"}] == [
            directions(one) for one in await bench.records()
        ]

    asyncio.run(run())


def test_a_stream_is_a_record_when_it_has_ended(tmp_path: Path) -> None:
    """Also one that broke off; of one that became too large, the request."""

    async def run() -> None:
        bench, rests = Bench(tmp_path), [Rest(), Rest(), Rest()]
        for rest in rests:
            bench.begin()(reply(b"a", rest))
        for part in (b"b", b"c"):
            rests[0].take(part)
        rests[1].take(LARGE)
        rests[1].take(b"more")
        for rest in rests:
            rest.end()
        assert 1 == bench.dropped("too_large")
        whole, large, broken = [directions(one) for one in await bench.records()]
        assert {"endpointInput": "1", "endpointOutput": "abc"} == whole
        assert ({"endpointInput": "1"}, {"endpointInput": "1", "endpointOutput": "a"}) == (large, broken)

    asyncio.run(run())


def test_what_there_is_no_room_for_is_dropped_and_counted(tmp_path: Path) -> None:
    """Callers hear nothing of it."""

    async def run() -> None:
        bench = Bench(tmp_path)
        with no_room():
            bench.begin()(reply(b"2"))
            rest = Rest()
            bench.begin()(reply(b"2", rest))
            rest.end()
            assert [] == await bench.records()
        assert (3, 2) == (bench.dropped("overload"), len(bench.told.results))

    asyncio.run(run())


def test_details_are_written_where_the_settings_say(tmp_path: Path) -> None:
    """Which model of many it was, and the receipt."""

    async def run() -> None:
        bench = Bench(tmp_path, capture_details=True)
        bench.begin(target_model="a.tar.gz")(reply(b"2"))
        (record,) = await bench.records()
        assert ("a.tar.gz", 1000) == (
            record["eventMetadata"]["targetModel"], record["eventMetadata"]["timing"]["total"]
        )  # fmt: skip

    asyncio.run(run())


def test_a_table_without_the_endpoint_finishes_its_files(tmp_path: Path) -> None:
    """And of the variants that have gone; one that comes back counts anew."""

    async def run() -> None:
        bench = Bench(tmp_path)
        bench.begin()(reply(b"2"))
        bench.captures.keep({"endpoints": [{**ROW, "variants": []}]})
        bench.begin()(reply(b"2"))
        bench.captures.keep({"endpoints": []})
        assert () == bench.captures.observers({**ROW, "capture": None})
        assert 2 == len(await bench.records())
        assert 2 == len(list((tmp_path / "s3").rglob("*.jsonl")))

    asyncio.run(run())
