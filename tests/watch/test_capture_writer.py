"""Captured calls on their way to the disk and from there: rotation, publication, full disks, dead processes."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from serving.errors import ObjectUnavailable
from serving.objects import LocalObjects, ObjectStore
from serving.watch import capture_writer
from serving.watch.capture import Shelf
from serving.watch.capture_publishing import Publisher
from serving.watch.capture_staging import Staging, keep_whole_lines
from serving.watch.capture_writer import CaptureWriter, Chunk
from tests import memory

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

HOUR = 493464
LINE = b'{"record":1}\n'


@dataclass
class Tally:
    """Counts."""

    kept: int = 0
    gone: int = 0

    def written(self, records: int) -> None:
        """See ``capture_writer.Tally``."""
        self.kept += records

    def lost(self, records: int) -> None:
        """See ``capture_writer.Tally``."""
        self.gone += records


class Away(LocalObjects):
    """A store that can be out of reach."""

    away = False

    def put(self, url: str, content: bytes | Path, content_type: str = "") -> None:
        """See ``ObjectStore``."""
        if self.away:
            raise ObjectUnavailable("The object store could not be reached.")
        super().put(url, content, content_type)


@dataclass
class Bench:
    """A writer without threads, its clock in our hands."""

    root: Path
    now: float = 1000.0
    use: float = 10.0
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.staging = Staging(self.root / "capture", "front")
        self.objects = Away(self.root / "s3", self.root / "spool")
        self.publisher = Publisher(self.staging, lambda: self.objects, lambda: self.now)
        self.writer = CaptureWriter(
            self.staging, self.publisher, [self.root], 75, lambda: self.now, lambda path: self.use
        )
        self.writer.on_change = self.told.append
        self.writer.want()

    told: list[bool] = field(default_factory=list)

    def give(self, data: bytes = LINE, hour: int = HOUR, variant: str = "v", **more: Any) -> None:
        """Records of one chunk, written at once."""
        shelf = Shelf("s3://b/c", "e", variant, hour)
        records = data.count(b"\n")
        self.writer.give(Chunk(shelf, hour * 3600.0 + 12.5, (data,), records, len(data), self.tally, **more))
        self.step()

    def step(self, seconds: float = 0.0) -> None:
        """Time goes by; what is due is done."""
        self.now += seconds
        self.writer.step()
        self.publisher.step()

    def staged(self) -> list[bytes]:
        """What has not been published."""
        return [path.read_bytes() for path in sorted((self.root / "capture").rglob("*.jsonl"))]

    def published(self, prefix: str = "s3://b/c/") -> dict[str, bytes]:
        """What has, by name."""
        found = {}
        for info in self.objects.list(prefix):
            with self.objects.open(info.url) as file:
                found[info.url] = file.read()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An idle writer."""
    return Bench(tmp_path)


def test_a_file_is_published_whole_a_minute_after_its_first_record(bench: Bench) -> None:
    """Until then it grows where readers know to look for it; its name is of the first record."""
    bench.give()
    bench.step(59.9)
    bench.give(2 * LINE)
    assert ([3 * LINE], {}) == (bench.staged(), bench.published())
    bench.step(0.1)
    (url,) = bench.published()
    assert ([], 3 * LINE) == (bench.staged(), bench.published()[url])
    assert url.startswith("s3://b/c/e/v/2026/04/18/00/00-12-500-")
    assert (3, 0) == (bench.tally.kept, bench.tally.gone)


def test_a_file_is_published_when_it_is_long_enough(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next record begins another."""
    monkeypatch.setattr(capture_writer, "ROTATE_BYTES", 3 * len(LINE))
    bench.give(2 * LINE)
    bench.give(2 * LINE)
    bench.give()
    assert [4 * LINE] == list(bench.published().values())
    assert [LINE] == bench.staged()


def test_each_hour_and_variant_has_files_of_its_own(bench: Bench) -> None:
    """The folder's hour is that of its records."""
    bench.give()
    bench.give(hour=HOUR + 1)
    bench.give(variant="w")
    bench.step(60)
    assert ["e/v/2026/04/18/00", "e/v/2026/04/18/01", "e/w/2026/04/18/00"] == sorted(
        url.removeprefix("s3://b/c/").rpartition("/")[0] for url in bench.published()
    )


def test_what_is_finished_early_is_published_at_once(bench: Bench) -> None:
    """As when an endpoint goes, or its configuration changes; at the end the staging folder is empty."""
    bench.give(last=True)
    assert [LINE] == list(bench.published().values())
    assert bench.writer.close(5.0)
    assert [] == list((bench.root / "capture").iterdir())


def test_files_wait_as_long_as_their_destination_is_away(bench: Bench) -> None:
    """They are tried again, later each time, and keep their names."""
    bench.objects.away = True
    bench.give(last=True)
    for pause in (0.9, 0.1, 1.9, 0.1):
        bench.step(pause)
        assert ([LINE], {}) == (bench.staged(), bench.published())
    bench.objects.away = False
    bench.step(3.9)
    assert {} == bench.published()
    bench.step(0.1)
    assert ([], [LINE]) == (bench.staged(), list(bench.published().values()))


def test_capture_stops_when_too_much_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A destination that stays away does not fill the disk."""
    monkeypatch.setattr(capture_writer, "MOST_STAGED", 3 * len(LINE))
    bench.objects.away = True
    for _ in range(6):
        bench.give(last=True)
        bench.step(1.0)
    assert ((4, 2), [True]) == ((bench.tally.kept, bench.tally.gone), bench.told)
    bench.objects.away = False
    bench.step(60)
    bench.step(60)
    assert (4, [True, False]) == (len(bench.published()), bench.told)


def test_capture_stops_while_the_disk_is_too_full(bench: Bench) -> None:
    """Says so once, looks again after a minute, and goes on by itself; what was written before is published."""
    bench.give()
    bench.use = 75.1
    bench.step(1.0)
    bench.give()
    assert (True, [True]) == (bench.writer.stopped, bench.told)
    bench.step(60)
    assert (True, [LINE]) == (bench.writer.stopped, list(bench.published().values()))
    bench.use = 75.0
    bench.step(59.9)
    assert bench.writer.stopped
    bench.step(0.1)
    assert (False, [True, False]) == (bench.writer.stopped, bench.told)
    bench.give()
    assert (2, 1) == (bench.tally.kept, bench.tally.gone)


def test_a_full_disk_is_seen_before_the_first_record(bench: Bench) -> None:
    """But only where there are calls to capture: a server that captures none says nothing of its disk."""
    bench.use = 99.0
    bench.step()
    assert (True, [True]) == (bench.writer.stopped, bench.told)
    idle = CaptureWriter(bench.staging, bench.publisher, [bench.root], 75, lambda: bench.now, lambda path: 99.0)
    idle.step()
    assert not idle.stopped


@contextmanager
def no_longer_than(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size``: what a full disk looks like in the middle of a record."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_record_that_cannot_be_written_whole_leaves_nothing(bench: Bench) -> None:
    """Those before it are kept and published; capture stops for a minute."""
    bench.give(2 * LINE)
    with no_longer_than(3 * len(LINE) - 1):
        bench.give()
    assert ((2, 1), [True]) == ((bench.tally.kept, bench.tally.gone), bench.told)
    assert [2 * LINE] == list(bench.published().values())
    bench.step(60)
    bench.give()
    assert ([LINE], [True, False]) == (bench.staged(), bench.told)


def test_what_waits_for_the_thread_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that have not ended count too."""
    monkeypatch.setattr(capture_writer, "MOST_WAITING", 100)
    assert bench.writer.room(100)
    bench.writer.hold(60)
    assert (True, False) == (bench.writer.room(40), bench.writer.room(41))
    bench.writer.hold(-60)
    shelf = Shelf("s3://b/c", "e", "v", HOUR)
    bench.writer.give(Chunk(shelf, 0.0, (b"x" * 99 + b"\n",), 1, 100, bench.tally))
    assert not bench.writer.room(1)
    bench.step()
    assert bench.writer.room(100)


# --- dead processes -------------------------------------------------------------------------------------------------


def killed(root: Path, content: bytes, name: str = "b/c/e/v/2026/04/18/00/00-12-500-x.jsonl") -> None:
    """The folder of a process that has gone without a word."""
    gone = Staging(root / "capture", "front")
    path = gone.folder() / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    os.close(gone._lock)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=some.lists(some.binary(min_size=1, max_size=30).filter(lambda line: b"\n" not in line)), cut=some.data())
def test_the_whole_lines_of_a_torn_file_are_published(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cut: some.DataObject
) -> None:
    """Wherever the process died, under the name the file had; of the rest nothing, not even an empty file."""
    whole = b"".join(line + b"\n" for line in lines)
    torn = whole[: cut.draw(some.integers(0, len(whole)))]
    root = tmp_path_factory.mktemp("torn")
    killed(root, torn)
    bench = Bench(root)
    bench.step()
    kept = torn[: torn.rfind(b"\n") + 1]
    assert ({"s3://b/c/e/v/2026/04/18/00/00-12-500-x.jsonl": kept} if kept else {}) == bench.published()
    assert bench.writer.close(5.0)
    assert [] == list((root / "capture").iterdir())


def test_a_destination_may_be_named_like_a_file(tmp_path: Path) -> None:
    """Its folder is none of the files that a dead process has left."""
    killed(tmp_path, LINE, "b/c.jsonl/e/v/2026/04/18/00/00-12-500-x.jsonl")
    killed(tmp_path, LINE)
    bench = Bench(tmp_path)
    bench.step()
    assert 2 == len({**bench.published(), **bench.published("s3://b/c.jsonl/")})


def test_a_living_process_keeps_its_files(bench: Bench) -> None:
    """Whoever looks: nobody takes what its owner still writes."""
    bench.give()
    other = Bench(bench.root)
    other.step()
    other.step(60)
    assert ([LINE], {}) == (bench.staged(), other.published())
    os.close(bench.staging._lock)  # it dies
    other.step(60)
    assert [LINE] == list(other.published().values())


def test_what_could_not_be_published_at_the_end_is_for_the_next(bench: Bench) -> None:
    """A process that leaves while its destination is away does not wait for it."""
    bench.objects.away = True
    bench.give(last=True)
    assert not bench.writer.close(0.1)
    os.close(bench.staging._lock)
    later = Bench(bench.root)
    later.step()
    assert [LINE] == list(later.published().values())


def test_a_file_without_a_whole_line_is_nothing(tmp_path: Path) -> None:
    """Nor is an empty one."""
    for content in (b"", b"{"):
        (tmp_path / "x").write_bytes(content)
        assert 0 == keep_whole_lines(tmp_path / "x")
        assert b"" == (tmp_path / "x").read_bytes()


def test_threads_write_and_publish(tmp_path: Path) -> None:
    """The whole of it as a process runs it: given, closed, there."""
    staging, tally = Staging(tmp_path / "capture", "front"), Tally()
    store: ObjectStore = LocalObjects(tmp_path / "s3", tmp_path / "spool")
    writer = CaptureWriter(staging, Publisher(staging, lambda: store), [], 100)
    writer.start()
    for number in range(200):
        writer.give(Chunk(Shelf("s3://b/c", "e", f"v{number % 3}", HOUR), 0.5, (LINE,), 1, len(LINE), tally))
    assert writer.close(20.0)
    assert (200, 3) == (tally.kept, len(list(store.list("s3://b/c/e/"))))
