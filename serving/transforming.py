"""What the terminal asks of transform jobs: beginning one, following it, listing, stopping. The calls are those of any
AWS client; only ``Progress`` in what DescribeTransformJob answers is this server's own."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from serving.client import Refused, Server, media_type_of
from serving.config import did_you_mean
from serving.declared import USUAL_INSTANCE, Body
from serving.errors import ConfigError

HEADINGS = ("JOB", "STATUS", "CREATED", "SECONDS", "REASON")
OPEN = ("InProgress", "Stopping")
SPLITS = ("None", "Line", "RecordIO", "TFRecord")
ASSEMBLIES = ("None", "Line")
STRATEGIES = ("MultiRecord", "SingleRecord")

#: A client's polling interval, seconds.
_LOOK_SECONDS = 0.5
_MOST_LISTED = 100
#: Media types whose records are lines, and whose answers are wanted as they were sent.
_LINES = ("text/csv", "application/jsonlines")


# --- begin ------------------------------------------------------------------------------------------------------------


class Wish(NamedTuple):
    """What the command line says of a job; empty or None = nothing."""

    model: str
    source: str
    output: str
    name: str = ""
    content_type: str = ""
    accept: str = ""
    split: str = ""
    assemble: str = ""
    strategy: str = ""
    input_filter: str = ""
    output_filter: str = ""
    join: bool = False
    manifest: bool = False
    gzip: bool = False
    instances: int = 1
    payload: int | None = None
    concurrent: int | None = None
    env: Sequence[str] = ()


def job_of(wish: Wish, now: datetime) -> Body:
    """A CreateTransformJob body. What is not said of media type, compression and splitting is told by the input's name.
    Raises ``ConfigError`` for what can be no such job."""
    packed = wish.gzip or wish.source.endswith(".gz")
    kind = wish.content_type or media_type_of(wish.source.removesuffix(".gz"))
    lines = kind in _LINES
    split = _word("--split", wish.split, SPLITS) or ("Line" if lines else "")
    assemble = _word("--assemble", wish.assemble, ASSEMBLIES) or ("Line" if split == "Line" else "")
    data_type = "ManifestFile" if wish.manifest else "S3Prefix"
    body: dict[str, Any] = {
        "TransformJobName": wish.name or _job_name(wish.model, now),
        "ModelName": wish.model,
        "MaxConcurrentTransforms": wish.concurrent,
        "MaxPayloadInMB": wish.payload,
        "BatchStrategy": _word("--strategy", wish.strategy, STRATEGIES),
        "Environment": _pairs(wish.env),
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": data_type, "S3Uri": _url("INPUT", wish.source)}},
            "ContentType": kind,
            "CompressionType": "Gzip" if packed else "",
            "SplitType": split,
        },
        "TransformOutput": {
            "S3OutputPath": _url("OUTPUT", wish.output),
            "Accept": wish.accept or (kind if lines else ""),
            "AssembleWith": assemble,
        },
        "TransformResources": {"InstanceType": USUAL_INSTANCE, "InstanceCount": wish.instances},
        "DataProcessing": {
            "InputFilter": wish.input_filter,
            "OutputFilter": wish.output_filter,
            "JoinSource": "Input" if wish.join else "",
        },
    }
    return _said(body)


def _said(value: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing."""
    inner = {name: _said(one) if isinstance(one, Mapping) else one for name, one in value.items()}
    return {name: one for name, one in inner.items() if one not in ("", None, {})}


def _url(what: str, text: str) -> str:
    if not text.startswith("s3://"):
        raise ConfigError(f"{what} must be an s3:// URL of the server's object store; it is {text!r}.")
    return text


def _word(option: str, text: str, words: Sequence[str]) -> str:
    """The word that is meant, in whatever case; ``single`` and ``multi`` too."""
    known = {spelt.lower(): word for word in words for spelt in (word, word.removesuffix("Record"))}
    if text and text.lower() not in known:
        raise ConfigError(f"{option} {text!r} is not one of {', '.join(words)}{did_you_mean(text, list(words))}.")
    return known[text.lower()] if text else ""


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise ConfigError(f"--env {text!r} is not of the form NAME=VALUE.")
    return dict(text.split("=", 1) for text in texts)


def _job_name(model: str, now: datetime) -> str:
    return f"{_plain(model)[:36]}-{now:%Y-%m-%d-%H-%M-%S}-{now.microsecond // 1000:03}".lstrip("-")


def _plain(text: str) -> str:
    """As a resource's name may be: letters, digits and single hyphens between them."""
    return re.sub(r"[^a-zA-Z0-9]+", "-", text).strip("-")


def begin(server: Server, wish: Wish, log: Callable[[str], None]) -> str:
    """CreateTransformJob; the name of the job. A model that is named by its artifact's URL is made first, once. Raises
    ``Refused``."""
    if wish.model.startswith(("s3://", "file://")):
        wish = wish._replace(model=_model_at(server, wish.model, log))
    job = job_of(wish, datetime.now(UTC))
    server.call("CreateTransformJob", job)
    name: str = job["TransformJobName"]
    return name


def _model_at(server: Server, url: str, log: Callable[[str], None]) -> str:
    """The name of the model of this artifact: it is made of the URL, so that a second job finds it."""
    tail = _plain(url.rstrip("/").rpartition("/")[2].partition(".")[0]) or "model"
    name = f"{tail[:40]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    container = {"Image": "serving", "ModelDataUrl": url}
    try:
        server.call("DescribeModel", {"ModelName": name})
    except Refused as error:
        if "Could not find" not in error.message:
            raise
        server.call("CreateModel", {"ModelName": name, "PrimaryContainer": container})
        log(f"model {name} is new")
    return name


# --- follow, look, stop -----------------------------------------------------------------------------------------------


def look(server: Server, name: str) -> Body:
    """DescribeTransformJob. Raises ``Refused``."""
    return server.call("DescribeTransformJob", {"TransformJobName": name})


def follow(server: Server, name: str, on_look: Callable[[Body], None]) -> Body:
    """How a job stands when it has ended. ``on_look`` hears of every look on the way. Raises ``Refused``."""
    job = look(server, name)
    while job["TransformJobStatus"] in OPEN:
        on_look(job)
        time.sleep(_LOOK_SECONDS)  # a client's polling interval
        job = look(server, name)
    on_look(job)
    return job


def stop(server: Server, name: str) -> None:
    """StopTransformJob. Raises ``Refused``."""
    server.call("StopTransformJob", {"TransformJobName": name})


def listed(server: Server, status: str, most: int) -> list[Body]:
    """The newest jobs, of one status if it is named. Raises ``Refused``."""
    found: list[Body] = []
    asked: dict[str, Any] = {"StatusEquals": status} if status else {}
    while len(found) < most:
        page = server.call("ListTransformJobs", {**asked, "MaxResults": min(most - len(found), _MOST_LISTED)})
        found += page["TransformJobSummaries"]
        if not page.get("NextToken"):
            break
        asked["NextToken"] = page["NextToken"]
    return found


# --- for a person -----------------------------------------------------------------------------------------------------


def rows(jobs: Sequence[Body], now: float) -> list[tuple[str, ...]]:
    """A line for each in a table under ``HEADINGS``. ``now``: epoch seconds."""
    return [
        (
            job["TransformJobName"],
            job["TransformJobStatus"],
            _moment(job["CreationTime"]),
            f"{max(0.0, job.get('TransformEndTime', now) - job['CreationTime']):.1f}",
            job.get("FailureReason", ""),
        )
        for job in jobs
    ]


def done(job: Body) -> tuple[float, float]:
    """How much of a job is done, and how much there is: bytes of its input; (0, 0) = not known yet."""
    progress = job.get("Progress", {})
    return float(progress.get("BytesDone", 0)), float(progress.get("BytesTotal", 0))


def standing(job: Body) -> str:
    """In a few words, how far a job is."""
    progress = job.get("Progress")
    if not progress:
        return "starting its workers" if "TransformStartTime" not in job else str(job["TransformJobStatus"])
    told = [f"{progress['RecordsDone']:,} records"]
    if progress["RecordsFailed"]:
        told.append(f"{progress['RecordsFailed']:,} bad")
    if job["TransformJobStatus"] in OPEN and progress.get("RecordsPerSecond"):
        told.append(f"{progress['RecordsPerSecond']:,.0f}/s")
        if progress.get("SecondsLeft") is not None:
            told.append(f"{_span(progress['SecondsLeft'])} left")
    return ", ".join(told)


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def facts(job: Body) -> list[tuple[str, str]]:
    """What there is to say of a job."""
    progress = job.get("Progress", {})
    objects = f"{progress['ObjectsDone']:,} of {progress['ObjectsTotal']:,}" if progress else ""
    failed = f", {progress['ObjectsFailed']:,} failed" if progress.get("ObjectsFailed") else ""
    times = {name: job.get(name) for name in ("CreationTime", "TransformStartTime", "TransformEndTime")}
    told = [
        ("job", job["TransformJobName"]),
        ("status", job["TransformJobStatus"]),
        ("reason", job.get("FailureReason", "")),
        ("model", job["ModelName"]),
        ("input", job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]),
        ("output", job["TransformOutput"]["S3OutputPath"]),
        ("objects", objects + failed),
        ("records", standing(job) if progress else ""),
        ("bad records", progress.get("ErrorsLocation", "")),
        ("created", _moment(times["CreationTime"])),
        ("started", _moment(times["TransformStartTime"])),
        ("ended", _moment(times["TransformEndTime"])),
    ]
    return [(name, text) for name, text in told if text]


def _moment(seconds: float | None) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC" if seconds else ""
