"""What topics are told of asynchronous calls (``behaviour/03``, Notifications), as works for the outbox. Pure.

Each has a name of its own for good, so that a crash between two steps can repeat the step without a second notice: at
least once delivered, always under one id.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from serving.jobs.async_calls import SMALL, Outcome
from serving.jobs.work import NewWork, Work

LANE = "outbox"
_EVENT = {"eventVersion": "1.0", "eventSource": "aws:sagemaker"}
#: What SageMaker says beside every response that it includes.
_ELSEWHERE = "Check S3 path location(if configured) or Cloudwatch for additional details."


def moment(seconds: float) -> str:
    """Epoch seconds as the notifications have them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_result(work: Work, outcome: Outcome, answer: bytes | None, region: str, now: float) -> list[NewWork]:
    """The notice of a job's end; none when nobody is to hear of it. ``answer``: the response, or the text of the
    failure, when it is at hand; ``now``: epoch seconds."""
    done = outcome.status == "Completed"
    topic = str(work.body.get("success_topic" if done else "error_topic", ""))
    if not topic:
        return []
    wanted = "SUCCESS_NOTIFICATION_TOPIC" if done else "ERROR_NOTIFICATION_TOPIC"
    included = answer if wanted in work.body.get("include_response", ()) else None
    message = _message(work, outcome, included, region, now)
    return [_notice(f"notice-{work.name}", topic, message, str(work.body["endpoint"]), outcome.variant)]


def _message(work: Work, outcome: Outcome, answer: bytes | None, region: str, now: float) -> dict[str, Any]:
    body, done = work.body, outcome.status == "Completed"
    said = {
        "accept": body.get("accept"),
        "contentType": body.get("content_type"),
        "endpointName": body["endpoint"],
        "inputLocation": body.get("input"),
    }
    message: dict[str, Any] = {
        "awsRegion": region,
        "eventTime": moment(now),
        "receivedTime": moment(body.get("received") or work.created),
        "invocationStatus": "Completed" if done else "Failed",
    }
    if not done:
        message["failureReason"] = outcome.reason
    message["requestParameters"] = {name: value for name, value in said.items() if value}
    if done:
        message["responseParameters"] = {"contentType": outcome.content_type, "outputLocation": outcome.location}
    elif outcome.location:  # public clients of SageMaker read it
        message["failureLocation"] = outcome.location
    if answer is not None and len(answer) <= SMALL:
        content = base64.b64encode(answer).decode()
        message["responseBody"] = {"content": content, "message": _ELSEWHERE, "encoding": "BASE64"}
    return message | {"inferenceId": body.get("inference_id") or work.name} | _EVENT | {"eventName": "InferenceResult"}


def of_test(endpoint: str, config: Mapping[str, Any], occasion: str) -> list[NewWork]:
    """A test notice to each topic of an endpoint's ``async`` row, as SageMaker sends when an endpoint is made or
    changed. ``occasion`` tells this time from others."""
    topics = dict.fromkeys(topic for name in ("success_topic", "error_topic") if (topic := str(config[name])))
    message = {**_EVENT, "eventName": "TestNotification"}
    return [
        _notice(f"test-{endpoint}-{occasion}-{number}", topic, message, endpoint, "")
        for number, topic in enumerate(topics, 1)
    ]


def _notice(name: str, topic: str, message: Mapping[str, Any], endpoint: str, variant: str) -> NewWork:
    return NewWork(name, LANE, {"topic": topic, "message": message, "endpoint": endpoint, "variant": variant})
