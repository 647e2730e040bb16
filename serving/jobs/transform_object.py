"""One input object of a transform job: read, sent, answered, written in order, and published whole.

::

    read ahead ──► called, several at a time ──► written in order ──► part in the spool ──► put ──► (row finished)
                                                     │
                                                     └── now and then: part on the disk, then checkpoint in the queue

Whatever ends this process, the object goes on from its last checkpoint: the part is cut back to it, and the cuts after
it are the same as they would have been. After the put, before the row is finished, it is done again as a whole, and the
same bytes are put.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from serving.errors import BadObject, BadRecords, ObjectMissing, ObjectUnavailable, ServingError, ValidationError
from serving.jobs.parts import PartLost
from serving.jobs.patience import patiently, pause_after
from serving.jobs.queue import QueueThread
from serving.jobs.shaping import Shape
from serving.jobs.splitting import Piece
from serving.jobs.transform_calls import Answered, Caller, Hop, Losses, ObjectFailed
from serving.jobs.transform_output import Mark, Output, error_line
from serving.jobs.transform_plan import MB, Terms, clipped
from serving.jobs.transform_reader import Reader, Start, rows_of
from serving.jobs.work import Work
from serving.objects import ObjectStore

#: Bytes that requests of a job may hold, from being read to being written.
MOST_AHEAD = 64 * MB
#: Requests of an object read ahead of their calls, in calls in flight: one waits for each that runs.
_AHEAD = 2
#: What is not more than this is worked with at once, without a thread or a file.
_SMALL = 64 * 1024
#: Objects of more bytes are few at a time; of gzip, that may hold so much.
_LARGE, _RATIO = 4 * MB, 16
_CHECKPOINT_SECONDS, _CHECKPOINT_BYTES = 3.0, 64 * MB
#: An input that is replaced while it is read, or a part that the disk loses, makes the object start over so often.
_MOST_STARTS = 8
_LONGEST_REASON = 500

log = logging.getLogger("serving.jobs")


class Superseded(Exception):
    """The row is somebody else's now, or was cancelled: whatever this attempt still has is of no use."""


class Outcome(NamedTuple):
    """What an object has come to: records answered, records that failed, a sentence on the first of those, why there is
    no output (empty: there is one), and bytes in its file of errors."""

    records: int
    bad: int
    first_bad: str
    failed: str
    errors: int


@dataclass(frozen=True, slots=True)
class Tools:
    """What the objects of one job share. ``folder``: of the job in the spool; ``room``: bytes that may be read ahead;
    ``hop``: to the job's threads; ``note``: hears of records answered and records that failed, as they are written."""

    terms: Terms
    shape: Shape
    caller: Caller
    objects: ObjectStore
    queue: QueueThread
    folder: Path
    room: Room
    hop: Hop
    note: Callable[[int, int], None]


class Room:
    """So many bytes for all that a job holds at once. Who has nothing yet may have more than there is, alone."""

    def __init__(self, most: int) -> None:
        """``most``: bytes."""
        self._most = most
        self._used = 0
        self._news = asyncio.Condition()

    async def take(self, least: int, wanted: int) -> int:
        """Between ``least`` and ``wanted`` bytes, as many as there are; waits for the least."""
        async with self._news:
            await self._news.wait_for(lambda: not self._used or self._used + least <= self._most)
            return self._taken(least, wanted)

    def take_now(self, least: int, wanted: int) -> int:
        """The same without waiting; 0 when there is not so much."""
        return self._taken(least, wanted) if self._used + least <= self._most else 0

    def _taken(self, least: int, wanted: int) -> int:
        taken = max(least, min(wanted, self._most - self._used))
        self._used += taken
        return taken

    async def give_back(self, count: int) -> None:
        """So many bytes are free again."""
        self._used -= count
        async with self._news:
            self._news.notify_all()


class _Result(NamedTuple):
    """What to write: bytes for the output; of a bad record, a line for the errors and a sentence too."""

    chunk: bytes
    line: bytes = b""
    bad: str = ""


@dataclass(slots=True)
class _Sent:
    """A piece on its way: its task, which lets go of the body that was sent when it is done, and the room it holds."""

    piece: Piece
    task: asyncio.Task[list[Answered]]
    room: int


class ObjectRun:
    """One attempt at one row of a job's lane."""

    def __init__(self, tools: Tools, work: Work) -> None:
        """Begins at the row's checkpoint, if it has one."""
        body = work.body
        self._tools, self._work, self._terms = tools, work, tools.terms
        self.url, self._output, self.size = str(body["url"]), str(body["output"]), int(body["size"])
        self._source = f"{tools.terms.id}/{self.url}"
        self._mark = Mark(**work.progress) if work.progress else Mark(str(body["version"]))
        self._losses = Losses(self._terms.most_bad)
        self._reader: Reader | None = None
        self._window: deque[_Sent] = deque()
        self._saved = self._mark
        self._saved_at = time.monotonic()
        self._saving: asyncio.Task[None] | None = None
        self._files = Output(tools.folder, int(body["index"]))
        self._whole: bytes | None = None

    @property
    def is_large(self) -> bool:
        """May it be so large that few like it should be open at once?"""
        packed = self._terms.compression == "Gzip" or rows_of(self.url, self._terms) is not None
        return self.size > _LARGE // (_RATIO if packed else 1)

    @property
    def done(self) -> tuple[int, int, int]:
        """Records answered, records that failed, and bytes of the input that are dealt with, so far."""
        mark, reader = self._mark, self._reader
        read = reader.raw if reader is not None and reader.raw is not None else mark.at
        return mark.first - mark.bad, mark.bad, min(read, self.size)

    async def run(self) -> Outcome:
        """Everything from here to the published output. Raises ``JobFailed``, ``Superseded``; when it is cancelled, its
        checkpoint is brought up to what has been written."""
        try:
            for starts in range(1, _MOST_STARTS + 1):
                try:
                    return await self._to_the_end()
                except PartLost:
                    self._mark = Mark(self._mark.version)
                except ObjectMissing:
                    self._mark = Mark(await self._new_version())
                await asyncio.sleep(pause_after(starts))  # what has changed may change again
            raise ObjectFailed("It was replaced, or what was written of it lost, again and again.")
        except (ObjectFailed, BadObject, BadRecords, ValidationError, ObjectUnavailable, OSError) as error:
            return await self._given_up(error)
        finally:
            self._files.close()

    async def _to_the_end(self) -> Outcome:
        self._files.close()
        self._whole = None
        self._losses = Losses(self._terms.most_bad, self._mark.first - self._mark.bad, self._mark.bad)
        mark, tools = self._mark, self._tools
        start = Start(self.url, mark.version, mark.at, mark.first)
        self._reader = reader = Reader(tools.objects, self._terms, tools.caller.request, start)
        try:
            while await self._read_ahead(reader):
                await asyncio.wait([self._window[0].task], timeout=_CHECKPOINT_SECONDS)
                if answered := self._answered():
                    await self._write(answered, is_last=reader.ended and not self._window)
                self._save_when_due()
            if self._saving is not None:
                await self._saving
        finally:
            await self._drop_window()
            await self._stop_saving()
            if not reader.ended:
                await tools.hop(reader.close)
        return await self._publish()

    async def keep(self) -> None:
        """The server is stopping: what has been written shall not be done again. Once ``run`` has been cancelled."""
        if self._mark != self._saved and self._whole is None:
            await self._tools.hop(self._sync, self._mark)
            await self._checkpoint(self._mark)

    def _sync(self, mark: Mark) -> None:
        self._files.write(mark, (), ())
        self._files.sync()
        self._files.close()

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _read_ahead(self, reader: Reader) -> bool:
        """Keep as many requests ahead as there should be. False at the end: nothing is left, or on its way."""
        ahead = _AHEAD * self._terms.concurrency
        while not reader.ended and len(self._window) <= ahead // 2:
            least = self._most_of_one()
            wanted = least * (ahead - len(self._window))
            room = self._tools.room
            held = room.take_now(least, wanted) if self._window else await room.take(least, wanted)
            if not held:
                break
            await self._send(reader, held, least)
        return bool(self._window)

    def _most_of_one(self) -> int:
        """Bytes that the next request may have."""
        terms = self._terms
        most = MB if terms.is_mapped else terms.usual_bytes or terms.most_bytes
        packed = terms.compression == "Gzip" or rows_of(self.url, terms) is not None
        return most if packed else max(1, min(most, self.size))

    async def _send(self, reader: Reader, held: int, least: int) -> None:
        """Read as much as the room we hold allows, and let it be called."""
        used = 0
        try:
            for request in await self._persist(reader.take, max(1, held - least)):
                size = 0 if self._terms.is_mapped else len(request.piece.body)
                task = asyncio.create_task(self._tools.caller.answered(request, self._losses))
                self._window.append(_Sent(request.piece, task, size))
                used += size
        finally:
            await self._tools.room.give_back(held - used)

    def _answered(self) -> list[_Sent]:
        """All that is answered at the front of the window."""
        found = []
        while self._window and self._window[0].task.done():
            found.append(self._window.popleft())
        return found

    async def _drop_window(self) -> None:
        """Nobody wants these answers any more."""
        for sent in self._window:
            sent.task.cancel()
        if self._window:
            await asyncio.wait([sent.task for sent in self._window])
        await self._tools.room.give_back(sum(sent.room for sent in self._window))
        for sent in self._window:
            if not sent.task.cancelled():
                sent.task.exception()  # it has been asked for: nobody need be told of it
        self._window.clear()

    # --- writing ----------------------------------------------------------------------------------------------------

    async def _write(self, sent: Sequence[_Sent], is_last: bool) -> None:
        """Write answers, in order, and count them. An output that is small and all there needs no file of its own."""
        mark = self._mark
        try:
            results = await self._results(all_of([item.task for item in sent]))
            chunks, lines = [one.chunk for one in results], [one.line for one in results if one.line]
            if is_last and not (mark.first or lines) and sum(map(len, chunks)) <= _SMALL:
                self._whole = b"".join(chunks)
                part, errors = len(self._whole), 0
            else:
                part, errors = await self._persist(self._files.write, mark, chunks, lines)
        finally:
            await self._tools.room.give_back(sum(item.room for item in sent))
        last = sent[-1].piece
        bad, first_bad = len(lines), next((one.bad for one in results if one.bad), "")
        first = last.first + last.count
        self._mark = Mark(mark.version, last.end, first, part, errors, mark.bad + bad, mark.first_bad or first_bad)
        self._tools.note(first - mark.first - bad, bad)

    async def _results(self, answered: Sequence[Answered]) -> list[_Result]:
        """What to write for answers. Records whose answers cannot be used are bad: they are called once more, apart
        from their neighbours. Raises ``ObjectFailed`` when nobody can tell which answer is whose."""
        results: list[_Result] = []
        small = sum(len(one.answer) + len(one.piece.body) for one in answered) <= _SMALL
        shaped = self._shaped(answered) if small else await self._tools.hop(self._shaped, answered)
        for one, result in zip(answered, shaped, strict=True):
            if isinstance(result, _Result):
                results.append(result)
            elif result.record is None:
                raise ObjectFailed(result.message)
            else:
                apart = await self._tools.caller.apart(one.piece, result.message, self._losses)
                results += await self._results(apart)
        return results

    def _shaped(self, answered: Sequence[Answered]) -> list[_Result | BadRecords]:
        """Takes as long as there is much of it."""
        return [self._bad(piece, bad) if bad else self._good(piece, answer) for piece, answer, bad in answered]

    def _good(self, piece: Piece, answer: bytes) -> _Result | BadRecords:
        try:
            return _Result(self._tools.shape.result(piece, answer, self._source))
        except BadRecords as error:
            return error

    def _bad(self, piece: Piece, reason: str) -> _Result:
        sentence = f"{self.url}, record {piece.first + 1:,}: {clipped(reason, _LONGEST_REASON)}"
        offset = None if rows_of(self.url, self._terms) else piece.start
        line = error_line(self.url, reason, piece.first + 1, offset)
        return _Result(self._tools.shape.result_for_bad(), line, sentence)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _save_when_due(self) -> None:
        """Start a checkpoint now and then; the next waits for it. Raises what the last one raised."""
        if self._saving is not None:
            if not self._saving.done():
                return
            saving, self._saving = self._saving, None
            saving.result()
        grown, age = self._mark.part - self._saved.part, time.monotonic() - self._saved_at
        if (
            self._files.is_open
            and self._mark != self._saved
            and (grown >= _CHECKPOINT_BYTES or age >= _CHECKPOINT_SECONDS)
        ):
            self._saving = asyncio.create_task(self._save(self._mark))

    async def _save(self, mark: Mark) -> None:
        await self._tools.hop(self._files.sync)
        await self._checkpoint(mark)

    async def _checkpoint(self, mark: Mark) -> None:
        work, progress = self._work, asdict(mark)
        if not await patiently("A checkpoint", lambda: self._tools.queue.do(lambda s: s.checkpoint(work, progress))):
            raise Superseded
        self._saved, self._saved_at = mark, time.monotonic()

    async def _stop_saving(self) -> None:
        """No checkpoint is under way any more: nobody works with the files."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.cancel()
            await asyncio.wait([saving])
            if not saving.cancelled():
                saving.exception()  # whoever had to know has been told

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _publish(self) -> Outcome:
        mark, terms = self._mark, self._terms
        if mark.first == mark.bad and mark.bad > terms.most_bad:
            raise ObjectFailed(mark.first_bad.removeprefix(f"{self.url}, "))
        content = self._whole if self._whole is not None else await self._persist(self._files.finish, mark)
        published = False

        def publish() -> None:
            nonlocal published
            self._tools.objects.put(self._output, content, terms.accept)
            published = True

        try:
            await self._persist(publish)
        except asyncio.CancelledError:
            if not published:
                raise  # else there is an output, which is only found by a row that is finished
        except ObjectUnavailable:
            if isinstance(content, bytes) or content.exists():
                raise
            raise PartLost("the disk did not keep it") from None
        return Outcome(mark.first - mark.bad, mark.bad, mark.first_bad, "", mark.errors)

    async def _given_up(self, error: Exception) -> Outcome:
        """No output; its errors, and this one, are kept."""
        mark = self._mark
        reason = clipped(_sentence(error), _LONGEST_REASON)
        log.info("transform job %s: %s has no output: %s", self._terms.job, self.url, reason)
        errors = await self._persist(self._files.give_up, mark, error_line(self.url, reason))
        return Outcome(0, mark.bad, mark.first_bad, f"{self.url}: {reason}", errors)

    async def _new_version(self) -> str:
        info = await self._persist(self._tools.objects.stat, self.url)
        if info is None:
            raise ObjectFailed("It is no longer there.")
        return str(info.version)

    async def _persist(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """On a thread, again and again while disk and store cannot."""
        return await patiently(f"Transform job {self._terms.job}", lambda: self._tools.hop(function, *arguments))


def all_of(done: Sequence[asyncio.Task[list[Answered]]]) -> list[Answered]:
    """What these came to, one after the other. Raises what the first of them raised; nobody is told of the others."""
    for task in done:
        task.exception()
    return [one for task in done for one in task.result()]


def _sentence(error: Exception) -> str:
    if isinstance(error, ServingError):
        return error.message
    if isinstance(error, OSError):
        return f"It could not be written: {error.strerror}."
    return str(error)
