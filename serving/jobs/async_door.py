"""What callers ask of asynchronous calls: take this, how far is it, never mind, hand me the answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from serving.config import Settings
from serving.endpoint import Directory, Endpoint
from serving.errors import Conflict, ResourceNotFound, ServiceUnavailable, ServingError, ValidationError
from serving.jobs.async_calls import (
    LONGEST_TIMEOUT,
    LONGEST_TTL,
    PREFIX,
    SMALL,
    STATUSES,
    USUAL_TIMEOUT,
    USUAL_TTL,
    check_input,
    lane_of,
    outcome_of,
    places,
    plain_prefix,
    states_of,
)
from serving.jobs.async_consumers import AsyncConsumers
from serving.jobs.async_ends import cancelled, ending
from serving.jobs.async_files import payload_file
from serving.jobs.work import ENDED, FIRST_PRIORITY, LAST_PRIORITY, USUAL_PRIORITY, NewWork, QueueSession, Work

#: Submissions that say they are one are one for so long (``reliability.md`` promise 5).
_REPEAT_SECONDS = 900.0
_LONGEST_WAIT = 3600.0
_LARGEST_PAGE = 1000
_LARGEST_PIECE = 8 * 2**20
#: What of a submission is kept as it came.
_TEXTS = (
    "content_type", "accept", "custom_attributes", "target_model", "target_variant", "request_id", "fingerprint",
)  # fmt: skip

Args = Mapping[str, Any]


class AsyncDoor:
    """Answers for fronts. Arguments and answers are JSON values; every method raises ``ServingError``."""

    def __init__(self, consumers: AsyncConsumers) -> None:
        self._consumers = consumers
        self._means = consumers.means
        self._directory: Directory = self._means.directory
        self._settings: Settings = self._means.settings

    # -- taking ---------------------------------------------------------------------------------------------------

    async def submit(self, args: Args, payload: bytes) -> dict[str, Any]:
        """Put a call into its endpoint's queue. ``args``: what ``async_calls`` says of a body, but for what follows
        from the endpoint's configuration; and ``id`` (of the job, a new uuid4), ``repeat`` (two submissions with the
        same are one job), ``fingerprint`` (of what is submitted), ``priority`` (0 first to 9 last), ``extension``,
        ``filename``, ``plain`` (the endpoint need not be asynchronous). When this returns the job is on the disk.
        Raises ``ValidationError``, ``UnknownEndpoint``, ``Conflict`` when another submission has used that ``repeat``,
        ``ServiceUnavailable`` when it could not be stored."""
        endpoint = self._directory.get(args["endpoint"])
        row = self._config(endpoint, bool(args.get("plain")))
        _check(endpoint, args)
        new = self._work(endpoint, args, payload, row)
        if new.body.get("spooled"):
            await self._spool(str(new.body["spooled"]), payload)
        try:
            put = await self._means.queue.do(lambda session: session.put(new))
        except ServiceUnavailable:
            await self._discard_unknown(new)
            raise
        if not put.again:
            self._consumers.came(endpoint.name)
        elif put.work.name != new.name or put.work.state in ENDED:
            await self._means.files.discard(str(new.body["spooled"]))
        body = put.work.body
        if body["fingerprint"] != new.body["fingerprint"]:
            raise Conflict("This idempotency key has been used for another request a short time ago.")
        return {
            "Id": put.work.name,
            "InferenceId": body["inference_id"],
            "OutputLocation": body["output"],
            "FailureLocation": body["failure"],
            "Again": put.again,
        }

    def _config(self, endpoint: Endpoint, plain: bool) -> Mapping[str, Any]:
        """How the endpoint's calls are answered: its ``async`` row, or where plain calls go."""
        prefix = plain_prefix(self._settings.region, self._settings.account_id, endpoint.name)
        for row in self._directory.table["endpoints"]:
            if row["name"] == endpoint.name and row.get("async"):
                return {**row["async"], "output": row["async"]["output"] or prefix}
        if not plain:
            raise ValidationError(
                f"Endpoint {endpoint.name} is not asynchronous: invoke it with InvokeEndpoint, or give its "
                "configuration an AsyncInferenceConfig."
            )
        return {"output": prefix, "failure": prefix, "success_topic": "", "error_topic": "", "include": []}

    def _work(self, endpoint: Endpoint, args: Args, payload: bytes, row: Mapping[str, Any]) -> NewWork:
        id, lane = str(args.get("id") or uuid.uuid4()), lane_of(endpoint.name)
        end = places(row["output"], row["failure"], id, args.get("extension", ""), args.get("filename", ""))
        longest = LONGEST_TIMEOUT if endpoint.asynchronous else self._settings.invocation_timeout_seconds
        ttl = min(args.get("ttl") or USUAL_TTL, LONGEST_TTL)
        label = str(args.get("inference_id") or id)
        large = len(payload) > SMALL
        body = {
            **{name: str(args.get(name) or "") for name in _TEXTS},
            "endpoint": endpoint.name,
            "input": str(args.get("input") or ""),
            "inference_id": label,
            **({"traceparent": args["traceparent"]} if args.get("traceparent") else {}),
            "timeout": min(args.get("timeout") or USUAL_TIMEOUT, longest),
            "ttl": ttl,
            "output": end.output,
            "failure": end.failure,
            "success_topic": row["success_topic"],
            "error_topic": row["error_topic"],
            "include_response": list(row["include"]),
            "received": args.get("received") or time.time(),
            "spooled": payload_file(id) if large else "",
        }
        return NewWork(
            name=id,
            lane=lane,
            body=body,
            payload=b"" if large else payload,
            label=label,
            priority=_priority(args.get("priority")),
            expires_in=float(ttl),
            repeat=f"{lane} {args['repeat']}" if args.get("repeat") else "",
            repeat_seconds=_REPEAT_SECONDS,
        )

    async def _spool(self, name: str, payload: bytes) -> None:
        try:
            await self._means.files.spool(name, payload)
        except OSError as error:
            raise ServiceUnavailable(f"The request could not be stored: {error.strerror}.") from None

    async def _discard_unknown(self, new: NewWork) -> None:
        """A job that could not be stored needs no file, unless it turns out to be stored after all."""
        if new.body["spooled"]:
            with suppress(ServingError):
                if await self._means.queue.do(lambda session: session.get(new.name)) is None:
                    await self._means.files.discard(str(new.body["spooled"]))

    # -- asking ---------------------------------------------------------------------------------------------------

    async def status(self, args: Args) -> dict[str, Any]:
        """How far the job ``id`` (or the newest of that InferenceId) of ``endpoint`` is; with ``wait``, after so many
        seconds or when it has ended. Raises ``ResourceNotFound``."""
        end = time.monotonic() + min(float(args.get("wait") or 0.0), _LONGEST_WAIT)
        work = await self._find(args)
        while work.state not in ENDED and time.monotonic() < end:
            ended = self._means.ends.expect(work.name)
            try:
                work = await self._find({"endpoint": args["endpoint"], "id": work.name})
                if work.state not in ENDED:
                    await asyncio.wait([ended], timeout=max(0.0, end - time.monotonic()))
                    work = await self._find({"endpoint": args["endpoint"], "id": work.name})
            finally:
                self._means.ends.forget(work.name, ended)
        return await self._means.queue.do(lambda session: _status(work, session.position(work)))

    async def _find(self, args: Args) -> Work:
        return await self._means.queue.do(lambda session: _found(session, args["endpoint"], args["id"]))

    async def page(self, args: Args) -> dict[str, Any]:
        """Jobs of ``endpoint``, newest first, those of one ``status`` if that is named: up to ``most``, after those
        that ``token`` stands for. ``{"AsyncInvocations": […], "NextToken": …}``."""
        most = max(1, min(int(args.get("most") or 100), _LARGEST_PAGE))
        token = str(args.get("token") or "0")
        if not (token.isascii() and token.isdigit() and len(token) < 19):
            raise ValidationError("The NextToken is not one of ours.")
        lane, states = lane_of(args["endpoint"]), states_of(str(args.get("status") or ""))
        works = await self._means.queue.do(lambda session: session.page(lane, states, int(token), most))
        more = str(works[-1].id) if len(works) == most else None
        return {"AsyncInvocations": [_status(work) for work in works], "NextToken": more}

    async def cancel(self, args: Args) -> dict[str, Any]:
        """Call the job off, if it has not come to anything yet. Its failure object says so. Returns its status; one
        that had ended stays as it was. Raises ``ResourceNotFound``."""

        def cancel(session: QueueSession) -> tuple[Work, bool]:
            work = _found(session, args["endpoint"], args["id"])
            if work.state in ENDED or work.state == "decided":
                return work, False
            outcome = cancelled(work, self._means.variant_of(str(work.body["endpoint"])))
            also = [ending(work, outcome, self._settings.region, time.time())]
            now = session.cancel(work.name, outcome.row(), also)
            return now or work, True

        work, now = await self._means.queue.do(cancel)
        if now:
            self._consumers.cancelled(work)
        return _status(work)

    async def read(self, args: Args) -> tuple[dict[str, Any], bytes]:
        """A piece of the job's final object: up to ``most`` bytes from ``offset`` on, and ``{"Id", "Status",
        "Location", "ContentType", "Offset", "Size"}``, the size being the whole object's. Raises ``ObjectMissing``;
        ``ResourceNotFound`` also for a job that has not ended yet."""
        work = await self._find(args)
        if work.state not in ENDED:
            raise ResourceNotFound(f"The asynchronous call {work.name} has not ended yet.")
        outcome = outcome_of(work)
        offset, most = max(0, int(args.get("offset") or 0)), int(args.get("most") or _LARGEST_PIECE)
        if work.state in ("done", "failed") and outcome.location:
            data, size = await self._means.files.piece(outcome.location, offset, min(most, _LARGEST_PIECE))
        else:  # its object may still be on its way, or there is to be none: it says what is known here
            text = outcome.reason.removeprefix("ClientError: ").encode()
            data, size = text[offset : offset + most], len(text)
        told = {
            "Id": work.name,
            "Status": STATUSES[work.state],
            "Location": outcome.location,
            "ContentType": outcome.content_type,
            "Offset": offset,
            "Size": size,
        }
        return told, data


def _check(endpoint: Endpoint, args: Args) -> None:
    """What would fail every time need not be taken."""
    if args.get("input"):
        check_input(str(args["input"]))
    if endpoint.holds_components:
        raise ValidationError(
            f"Endpoint {endpoint.name} holds inference components, which an asynchronous call cannot name."
        )
    if endpoint.multi_model and not args.get("target_model"):
        raise ValidationError(f"Request {args.get('request_id', '')} is missing a target model header.")


def _priority(value: object) -> int:
    if value is None:
        return USUAL_PRIORITY
    if not isinstance(value, int) or not FIRST_PRIORITY <= value <= LAST_PRIORITY:
        raise ValidationError(f"The priority must be a whole number from {FIRST_PRIORITY} to {LAST_PRIORITY}.")
    return value


def _found(session: QueueSession, endpoint: str, id: str) -> Work:
    """The job of this id, or the newest of this InferenceId. Raises ``ResourceNotFound``."""
    lane = lane_of(endpoint)
    work = session.get(id)
    if work is None or work.lane != lane:
        work = session.labelled(lane, id)
    if work is None:
        raise ResourceNotFound(f"Endpoint {endpoint} has no asynchronous call {id}.")
    return work


def _status(work: Work, position: int | None = None) -> dict[str, Any]:
    """A job for people; what is not known (yet) is null. Times are epoch seconds. ``position``: jobs before it."""
    body, ended = work.body, work.state in ENDED
    outcome = outcome_of(work) if ended else None
    return {
        "Id": work.name,
        "InferenceId": work.label,
        "EndpointName": work.lane.removeprefix(PREFIX),
        "Status": STATUSES[work.state],
        "Priority": work.priority,
        "QueuePosition": position if work.state in ("queued", "waiting") else None,
        "Attempts": work.attempt,
        "CreationTime": work.created,
        "StartTime": work.started,
        "EndTime": work.finished,
        "InputLocation": body.get("input") or None,
        "OutputLocation": body["output"],
        "FailureLocation": body["failure"] or None,
        "FailureReason": (outcome.reason or None) if outcome else None,
        "ContentType": (outcome.content_type or None) if outcome else None,
        "Size": outcome.size if outcome else None,
    }
