"""One transform job, from its first look at its inputs to its end.

Two lanes of the queue hold all there is to know about it: its own row (``transform-job/JOB``) whether it is planned and
what its objects have come to, and one row for each input object (``transform/JOB``) how far that one is. An object's
end and the job's new tally are one transaction, so no object counts twice or not at all, whatever ends this process.

::

    own row leased ──► planned: a row for each object ──► objects run, several at a time ──► errors and manifests put
         └── ended: how it ended is told again                    │                          └──► own row done ──► told
                                                                  └── stopped: rows cancelled, outputs removed
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from serving.endpoint import Directory
from serving.errors import ObjectUnavailable, ServiceUnavailable, ServingError, ValidationError
from serving.jobs import inputs
from serving.jobs.parts import PartLost
from serving.jobs.patience import patiently
from serving.jobs.queue import QueueThread
from serving.jobs.shaping import Shape
from serving.jobs.splitting import Piece, bisect
from serving.jobs.transform_calls import Caller, JobFailed
from serving.jobs.transform_end import Leavings
from serving.jobs.transform_object import MOST_AHEAD, ObjectRun, Outcome, Room, Superseded, Tools
from serving.jobs.transform_output import Mark
from serving.jobs.transform_plan import Ending, Meter, Tally, Terms, clipped, ending, progress, terms
from serving.jobs.work import ENDED, NewWork, QueueSession, Work
from serving.objects import ObjectStore
from serving.watch.metrics import Registry

#: What is asked of control (``link.ControlLink.ask``).
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
T = TypeVar("T")

#: Objects at a time: small ones spend their time in the queue and on the disk, large ones have requests enough.
_OBJECTS, _LARGE_OBJECTS = 16, 2
_THREADS = 12
#: An object that was open when this process ended so often runs with no other beside it: one of them may be what ends
#: it. One that has then been begun so often without getting any further is given up.
_SUSPECT, _MOST_ALONE = 3, 3
_PLAN_BATCH = 1000
_REPORT_SECONDS = 0.5
_BEAT_SECONDS = 5.0
#: What is cancelled may take so long to note what it has just done.
_LAST_SECONDS = 5.0
_VARIANT = "AllTraffic"

log = logging.getLogger("serving.jobs")


class _Stopped(Exception):
    """StopTransformJob was called."""


@dataclass(frozen=True, slots=True)
class Means:
    """What jobs are run with. ``directory`` has each job's workers as the endpoint ``transform-job/NAME``; ``ask``
    reaches control; ``owner``: of leases in this process, which no other process has had."""

    queue: QueueThread
    objects: ObjectStore
    directory: Directory
    registry: Registry
    ask: Ask
    owner: str


class JobRun:
    """A job of the routing table. Build, then ``run``; ``update`` with every new table."""

    def __init__(self, row: Mapping[str, Any], means: Means) -> None:
        """Nothing is begun."""
        self.terms: Terms = terms(row)
        self.row = row
        self._means = means
        self._owner = f"{means.owner}/{self.terms.job}"
        self._news = asyncio.Event()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="transform")
        self._folder = means.objects.spool / "transform" / self.terms.job
        self._leavings = Leavings(self.terms, means.objects, means.queue, self._folder, self._hop)
        self._own: Work | None = None
        self._started = 0.0
        self._tally = Tally()
        self._meter = Meter()
        self._active: set[ObjectRun] = set()
        self._large = asyncio.Semaphore(_LARGE_OBJECTS)
        self._ended: list[tuple[Work, Outcome, int]] = []
        self._settling = asyncio.Lock()

    def update(self, row: Mapping[str, Any]) -> None:
        """The table says this of the job now."""
        self.row = row
        self._news.set()

    async def run(self) -> None:
        """Everything, until control knows how the job ended. When it is cancelled, what it had is handed back."""
        helpers = [asyncio.create_task(self._beat())]
        try:
            self._own = own = await self._durably(self._lease_own)
            if own.state in ENDED:
                await self._tell(own.outcome or {})
                return
            helpers.append(asyncio.create_task(self._report()))
            outcome = await self._outcome()
            for task in helpers:
                task.cancel()
            await self._tell(outcome)
            await self._hop(shutil.rmtree, self._folder, True)
        finally:
            for task in helpers:
                task.cancel()
            self._threads.shutdown(wait=False)

    async def abandon(self) -> None:
        """Control has ended the job without us: nothing of it shall be left. Once ``run`` has been cancelled."""
        reason = {"reason": "The job was ended."}

        def end(session: QueueSession) -> None:
            session.cancel_lane(self.terms.lane, reason)
            session.cancel_lane(self.terms.own_lane, reason)

        with suppress(ServingError):
            await self._means.queue.do(end)
        await asyncio.to_thread(shutil.rmtree, self._folder, True)

    async def _outcome(self) -> dict[str, Any]:
        """Run it, and make what it came to durable."""
        try:
            await self._prepare()
            await self._run_objects()
            end = ending(self._tally, self.terms.most_bad, self.terms.errors_url)
            await self._leave(end)
        except _Stopped:
            end = Ending("Stopped")
            await self._unmake()
        except (JobFailed, ValidationError, ObjectUnavailable, OSError) as error:
            end = Ending("Failed", clipped(_sentence(error)))
            log.warning("transform job %s failed: %s", self.terms.job, end.reason)
            await self._exhaust(lambda session: session.cancel_lane(self.terms.lane, {"reason": end.reason}))
            with suppress(ServingError, OSError):
                await self._leave(end)
        outcome = {
            "status": end.status,
            "reason": end.reason,
            "started": self._started,
            "progress": progress(self._tally, self._meter, self.terms.errors_url),
        }
        own = self._leased()
        await self._durably(lambda session: session.finish(own, "done", outcome))
        self._means.registry.counter("sagemaker_transform_jobs_total", end.status).add()
        return outcome

    # --- the plan ---------------------------------------------------------------------------------------------------

    def _lease_own(self, session: QueueSession) -> Work:
        """The job's own row, ours or ended. Whoever had it before has gone: there is one jobs process."""
        lane, id = self.terms.own_lane, self.terms.id
        found = session.put(NewWork(id, lane, {"job": self.terms.job})).work
        if found.state == "leased":
            session.rescue([found.owner])
        if found.state not in ENDED:
            (found,) = [one for one in session.lease(lane, self._owner, 10) if one.name == id]
        return found

    def _leased(self) -> Work:
        assert self._own is not None
        return self._own

    async def _prepare(self) -> None:
        """Wait for the job's turn, list its objects unless that is done, and wait for its workers."""
        await self._until(lambda: self.row["row"] is not None or self.row["ready"])
        known = self._leased().progress or {}
        self._started = float(known.get("started") or time.time())
        self._shape = Shape(self.row["job"], self._started)
        if known.get("planned"):
            self._tally = Tally(**known["tally"])
        else:
            await patiently(f"Listing the inputs of {self.terms.job}", self._plan)
        await self._until(lambda: bool(self.row["ready"]))

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Until the table says so. Raises ``_Stopped``, ``JobFailed``."""
        while True:
            self._news.clear()
            self._look()
            if is_so():
                return
            await self._news.wait()

    def _look(self) -> None:
        """Raises what the table says that ends the job."""
        if self.row["stopping"]:
            raise _Stopped
        if self.row["failure"]:
            raise JobFailed(self.row["failure"])

    async def _plan(self) -> None:
        """A row for each object, from the beginning: what an earlier attempt had put is put anew, as the listing may be
        another now."""
        lane = self.terms.lane
        await self._exhaust(lambda session: session.forget(lane))
        found = await self._hop(
            inputs.sources, self._means.objects, self.terms.data_type, self.terms.uri, self.terms.output
        )  # fmt: skip
        tally = Tally()
        while batch := await self._hop(_some, found):
            self._look()
            works = [self._planned(tally.objects + at, source) for at, source in enumerate(batch)]
            await self._durably(lambda session, works=works: session.put_all(works))  # type: ignore[misc]  # a default argument
            size = sum(source.size for source in batch)
            tally = Tally(objects=tally.objects + len(batch), bytes=tally.bytes + size)
        self._tally = tally
        await self._durably(lambda session: session.checkpoint(self._leased(), self._kept(tally)))

    def _planned(self, index: int, source: inputs.Source) -> NewWork:
        return NewWork(f"{self.terms.id}/{index}", self.terms.lane, {**source._asdict(), "index": index})

    def _kept(self, tally: Tally) -> dict[str, Any]:
        return {"started": self._started, "planned": True, "tally": asdict(tally)}

    # --- the objects ------------------------------------------------------------------------------------------------

    async def _run_objects(self) -> None:
        tools = self._tools()
        running: set[asyncio.Task[None]] = set()
        suspects: list[Work] = []
        more = True
        try:
            while True:
                self._news.clear()
                self._look()
                if more and len(running) <= _OBJECTS // 2:
                    room = _OBJECTS - len(running)
                    works = await self._durably(
                        lambda session, room=room: session.lease(self.terms.lane, self._owner, room)  # type: ignore[misc]  # a default argument
                    )
                    more = len(works) == room
                    suspects += [work for work in works if work.deaths >= _SUSPECT]
                    running |= {asyncio.create_task(self._one(tools, one)) for one in works if one.deaths < _SUSPECT}
                if not running and suspects:
                    running = {asyncio.create_task(self._alone(tools, suspects.pop()))}
                if not running and not (more := await self._left_behind()):
                    return
                running = await self._one_more(running)
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)

    async def _one_more(self, running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Wait until an object is through, or the table changes; those that still run. Raises what one raised."""
        news = asyncio.create_task(self._until_news())
        try:
            done, pending = await asyncio.wait({*running, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        for task in done:
            task.result()
        return running & pending

    async def _until_news(self) -> None:
        await self._news.wait()

    async def _left_behind(self) -> bool:
        """Is there open work although none could be leased? A lease whose answer was lost, which is nobody's now."""
        if not (await self._durably(lambda session: session.backlog(self.terms.lane))).size:
            return False
        own = self._leased()

        def again(session: QueueSession) -> Work:
            session.rescue([own.owner])
            return self._lease_own(session)

        self._own = await self._durably(again)
        return True

    def _tools(self) -> Tools:
        means, shape, endpoint = self._means, self._shape, self.terms.endpoint
        counters = [
            means.registry.counter("sagemaker_transform_records_total", endpoint, _VARIANT, result)
            for result in ("done", "failed")
        ]

        def note(*counts: int) -> None:
            for counter, count in zip(counters, counts, strict=True):
                counter.add(count)

        def divide(piece: Piece) -> Sequence[Piece]:
            return bisect(piece, self.terms.split)

        caller = Caller(self.terms, lambda: means.directory.get(endpoint), shape.request, divide, self._hop)
        room = Room(MOST_AHEAD)
        return Tools(self.terms, shape, caller, means.objects, means.queue, self._folder, room, self._hop, note)

    async def _alone(self, tools: Tools, work: Work) -> None:
        """One object that may be what ended this process: it is written down that it is begun, so that it is known."""
        mark = Mark(**work.progress) if work.progress else Mark(str(work.body["version"]))
        if mark.alone >= _MOST_ALONE:
            failed = f"The server ended {mark.alone} times while it read this object."
            await self._settle(work, Outcome(0, 0, "", failed, 0), int(work.body["size"]))
            return
        begun = asdict(replace(mark, alone=mark.alone + 1))
        if await self._durably(lambda session: session.checkpoint(work, begun)):
            await self._one(tools, replace(work, progress=begun))

    async def _one(self, tools: Tools, work: Work) -> None:
        """One object, and its end."""
        one, outcome = ObjectRun(tools, work), None
        try:
            async with self._large if one.is_large else nullcontext():
                self._active.add(one)
                outcome = await one.run()
            await _to_its_end(self._settle(work, outcome, one.size))
        except Superseded:
            log.info("transform job %s: %s is no longer this run's", self.terms.job, one.url)
        except asyncio.CancelledError:
            if outcome is None and not self.row["stopping"]:
                with suppress(ServingError, OSError, PartLost, Superseded):
                    await one.keep()
                    await self._means.queue.do(lambda session: session.give_back(work))
            raise
        finally:
            self._active.discard(one)

    async def _settle(self, work: Work, outcome: Outcome, size: int) -> None:
        """Finish an object's row, together with those of the others that are through by now."""
        self._ended.append((work, outcome, size))
        async with self._settling:
            ended, self._ended = self._ended, []
            if ended:
                own = self._leased()
                self._tally = await self._durably(lambda session: self._settled(session, own, ended))

    def _settled(self, session: QueueSession, own: Work, ended: list[tuple[Work, Outcome, int]]) -> Tally:
        kept = session.get(own.name)
        tally = Tally(**(kept.progress or {})["tally"]) if kept else self._tally
        for work, outcome, size in ended:
            if session.finish(work, "failed" if outcome.failed else "done", outcome._asdict()):
                tally = tally.with_object(size, outcome.records, outcome.bad, outcome.first_bad, outcome.failed)
        session.checkpoint(own, self._kept(tally))
        return tally

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _leave(self, end: Ending) -> None:
        """Publish what is left beside the outputs."""
        tally, name = self._tally, self.terms.job
        if tally.records_failed or tally.objects_failed:
            await patiently(f"The errors of {name}", self._leavings.publish_errors)
        if self.terms.capture and tally.objects_done:
            await patiently(f"The manifests of {name}", lambda: self._leavings.publish_manifests(self._started))

    async def _unmake(self) -> None:
        """The job was stopped: nothing of it is left."""
        await self._exhaust(lambda session: session.cancel_lane(self.terms.lane, {"reason": "The job was stopped."}))
        await patiently(f"Removing the outputs of {self.terms.job}", self._leavings.remove_outputs)

    async def _tell(self, outcome: Mapping[str, Any]) -> None:
        """Tell control how the job ended, until it has answered."""
        report = {**self._name(), "state": "ended", **outcome}
        while True:
            try:
                await self._means.ask("transform", report)
                return
            except ServiceUnavailable as error:
                log.warning("control has not kept how transform job %s ended: %s", self.terms.job, error.message)
                await asyncio.sleep(1.0)  # until it can
            except ServingError as error:
                log.error("control does not take how transform job %s ended: %s", self.terms.job, error.message)
                return

    async def _report(self) -> None:
        """Tell control how far the job is, when that has changed."""
        told: dict[str, Any] = {}
        share = self._means.registry.counter("sagemaker_transform_progress_ratio", self.terms.endpoint, _VARIANT)
        while True:
            await asyncio.sleep(_REPORT_SECONDS)  # the reports' own pace
            tally = self._now()
            self._meter.look(time.monotonic(), tally.records_done + tally.records_failed, tally.bytes_done)
            share.set(min(1.0, tally.bytes_done / tally.bytes) if tally.bytes else 0.0)
            shown = progress(tally, self._meter, self.terms.errors_url)
            if shown != told:
                with suppress(ServingError):
                    await self._means.ask("transform", {**self._name(), "state": "progress", "started": self._started,
                                                  "progress": shown})  # fmt: skip
                    told = shown

    def _now(self) -> Tally:
        """The tally with what open objects have come to."""
        tally = self._tally
        done = [one.done for one in self._active]
        return replace(
            tally,
            records_done=tally.records_done + sum(one[0] for one in done),
            records_failed=tally.records_failed + sum(one[1] for one in done),
            bytes_done=tally.bytes_done + sum(one[2] for one in done),
        )

    def _name(self) -> dict[str, Any]:
        return {"name": self.terms.job, "created": self.row["created"]}

    async def _beat(self) -> None:
        """Say that the owner of these leases lives."""
        while True:
            with suppress(ServingError):
                await self._means.queue.do(lambda session: session.beat(self._owner))
            await asyncio.sleep(_BEAT_SECONDS)  # the pulse

    # --- tools ------------------------------------------------------------------------------------------------------

    async def _durably(self, function: Callable[[QueueSession], T]) -> T:
        """Ask the queue, again and again while its disk is full."""
        return await patiently(f"The queue of {self.terms.job}", lambda: self._means.queue.do(function))

    async def _exhaust(self, function: Callable[[QueueSession], int]) -> None:
        """Ask for the same until nothing is left to do: a lane is ended in slices."""
        while await self._durably(function):
            pass

    async def _hop(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that blocks on a thread of this job. Who is cancelled leaves when it has ended: what it works
        with is not taken from it."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # nobody else will ask
            raise


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Let this end even if whoever asks is cancelled meanwhile, if it does so soon."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if (await asyncio.wait([task], timeout=_LAST_SECONDS))[1]:
            task.cancel()
        elif not task.cancelled():
            task.exception()  # nobody else will ask
        raise


def _some(found: Iterator[inputs.Source]) -> list[inputs.Source]:
    return list(islice(found, _PLAN_BATCH))


def _sentence(error: Exception) -> str:
    if isinstance(error, ServingError):
        return error.message
    return f"The spool could not be written: {error.strerror}." if isinstance(error, OSError) else str(error)
