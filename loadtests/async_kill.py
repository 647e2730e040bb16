"""Jobs of every kind while everything is killed -9 again and again: what was accepted comes to exactly one end.

A watcher looks at the bucket's folders all the time: no object may ever be seen in part, or change. A receiver takes
the notifications, and refuses some the first time. After each start it is measured how soon work goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from loadtests.processes import Running, call, free_port, process_tree, python, running

ENDPOINT = "jobs"
_PATH = f"/endpoints/{ENDPOINT}/async-invocations"
_OUT, _BAD, _IN = "out", "bad", "in"
_LOOK_SECONDS = 0.005
#: Killed is while more than so many jobs are open.
_LEFT = 2
_PATIENCE_SECONDS = 180.0

#: What the model does is the first word of what it is sent; every answer differs from all others.
MODEL = """
import os, signal, time

def transform_fn(model, body, content_type, accept):
    kind, token = bytes(body).decode().split()
    if kind == "fail":
        raise ValueError("no " + token)
    if kind == "die":
        signal.raise_signal(signal.SIGSEGV)
    if kind == "slow":
        time.sleep(0.5)  # the model's work
    middle = "x" * 300_000 if kind == "large" else "x"
    return " ".join((token, os.urandom(8).hex(), middle, "END")).encode(), "text/plain"
"""

#: Kind of a job -> (its share of all, which folder its object shall be in; empty = either).
KINDS: Mapping[str, tuple[float, str]] = {
    "quick": (0.20, _OUT),
    "slow": (0.35, _OUT),
    "large": (0.10, _OUT),
    "object": (0.15, _OUT),
    "fail": (0.08, _BAD),
    "missing": (0.04, _BAD),
    "cancel": (0.08, ""),
}


@dataclass(slots=True)
class Job:
    """One job. ``id`` as soon as it was accepted; ``folder``: where its object shall be (empty: either)."""

    token: str
    kind: str
    folder: str
    id: str = ""


def plan(count: int, rng: random.Random) -> list[Job]:
    """So many jobs of all kinds in any order; one of them ends its worker, always."""
    kinds = [kind for kind, (share, _) in KINDS.items() for _ in range(round(share * count))]
    kinds += ["quick"] * (count - 1 - len(kinds))
    jobs = [Job(f"{kind}-{at}", kind, KINDS[kind][1]) for at, kind in enumerate(kinds[: count - 1])]
    jobs.append(Job("die-x", "die", _BAD))
    rng.shuffle(jobs)
    return jobs


def declaration(folder: Path, receiver: str) -> dict[str, list[dict[str, Any]]]:
    """An endpoints file with the one asynchronous endpoint."""
    variant = {"VariantName": "AllTraffic", "ModelName": "model", "InitialInstanceCount": 2}
    told = {"SuccessTopic": f"http://{receiver}/good", "ErrorTopic": f"http://{receiver}/bad"}
    asynchronous = {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
        "OutputConfig": {
            "S3OutputPath": f"s3://kill/{_OUT}",
            "S3FailurePath": f"s3://kill/{_BAD}",
            "NotificationConfig": told,
        },
    }
    config = {"EndpointConfigName": "c", "ProductionVariants": [variant], "AsyncInferenceConfig": asynchronous}
    return {
        "Models": [{"ModelName": "model", "PrimaryContainer": {"ModelDataUrl": str(folder / "model")}}],
        "EndpointConfigs": [config],
        "Endpoints": [{"EndpointName": ENDPOINT, "EndpointConfigName": "c"}],
    }


# --- who looks on -----------------------------------------------------------------------------------------------------


class Watcher:
    """Sees every object as soon as it has a name. ``faults``: what must not have been seen."""

    def __init__(self, bucket: Path) -> None:
        self.faults: list[str] = []
        self.news = threading.Condition()
        self._bucket = bucket
        self._seen: dict[str, tuple[int, str]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def objects(self) -> list[str]:
        """``folder/name`` of all there are."""
        with self.news:
            return list(self._seen)

    def wait_for_more(self, than: int, seconds: float) -> bool:
        """Will there be more than so many objects within so many seconds?"""
        with self.news:
            return self.news.wait_for(lambda: len(self._seen) > than, seconds)

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            for folder in (_OUT, _BAD):
                with contextlib.suppress(FileNotFoundError), os.scandir(self._bucket / folder) as entries:
                    for entry in entries:
                        self._look(f"{folder}/{entry.name}", Path(entry.path), entry.stat().st_mtime_ns)

    def _look(self, name: str, path: Path, changed: int) -> None:
        known = self._seen.get(name)
        if known is not None and known[0] == changed:
            return
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        whole = name.endswith(".out") and (content.endswith(b" END") if name.startswith(_OUT) else bool(content))
        if not whole:
            self.faults.append(f"{name} was seen in part ({len(content)} bytes)")
        if known is not None and known[1] != digest:
            self.faults.append(f"{name} has changed")
        with self.news:
            self._seen[name] = changed, digest
            self.news.notify_all()


@dataclass
class Told:
    """What the receiver has been told: ids by the job's token. Every fifth token is refused the first time."""

    ids: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, id: str, message: Mapping[str, Any]) -> int:
        """The status to answer a notification with."""
        token = str(message.get("inferenceId", ""))
        with self.lock:
            if hash(token) % 5 == 0 and token not in self.refused:
                self.refused.add(token)
                return 500
            self.ids.setdefault(token, []).append((id, str(message.get("invocationStatus", ""))))
        return 200


@contextlib.contextmanager
def receiver(told: Told) -> Iterator[str]:
    """A host that takes notifications."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(told.take(self.headers.get("Idempotency-Key", ""), message))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:
            """Nothing: there are hundreds."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# --- who sends --------------------------------------------------------------------------------------------------------


def submit(port: int, job: Job) -> bool:
    """Have a job accepted; asked again with the same key it is the same job. Raises ``OSError``."""
    word = {"cancel": "slow", "object": "quick", "missing": "quick"}.get(job.kind, job.kind)
    headers = {"Idempotency-Key": job.token, "X-Amzn-SageMaker-Inference-Id": job.token}
    body = f"{word} {job.token}".encode()
    if job.kind in ("object", "missing"):
        headers["X-Amzn-SageMaker-InputLocation"], body = f"s3://kill/{_IN}/{job.token}", b""
    answer = call(port, "POST", _PATH, body, headers, timeout=10.0)
    if answer.status != 202:
        return False
    job.id = answer.headers["location"].rpartition("/")[2]
    if job.kind == "cancel":
        with contextlib.suppress(OSError, ValueError):
            status = json.loads(call(port, "DELETE", f"{_PATH}/{job.id}", timeout=10.0).body).get("Status")
            job.folder = _BAD if status == "Cancelled" else _OUT if status == "Completed" else ""
    return True


def send(port: int, jobs: Sequence[Job], over: threading.Event, accepted: threading.Event) -> None:
    """Submit what has not been accepted yet, until the server is gone."""
    with contextlib.suppress(OSError):
        for job in jobs:
            while not job.id and not over.is_set() and not submit(port, job):
                over.wait(0.05)
            accepted.set()
    accepted.set()


def kill_everything(server: Running) -> None:
    """The whole tree, at once."""
    for pid in process_tree(server.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()


# --- the trial --------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """One run. ``waits``: seconds from a start until work went on, where there was some; ``ready``: until the server
    was up, which is part of that."""

    folder: Path
    rng: random.Random
    jobs: list[Job]
    watcher: Watcher
    told: Told
    config: Path
    host: str
    within: float
    waits: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    early: int = 0

    @contextlib.contextmanager
    def started(self) -> Iterator[Running]:
        """The server, on the same data folder each time."""
        port = free_port()
        arguments = ("--allow-code", "--config", str(self.config), "--data-dir", str(self.folder / "data"))
        environment = {"SERVING_NOTIFY_HOSTS": self.host, "SERVING_LOG_LEVEL": "warning"}
        with running(python("serving", "up", "--port", str(port), *arguments), port, environment) as server:
            yield server

    def cycle(self, due: Sequence[Job], longest: float) -> None:
        """Start it, send what is due, and kill everything at any instant while there is work; one time in six before
        it is even up."""
        open_jobs = self._open()
        with self.started() as server:
            if self.rng.random() < 1 / 6:
                self.early += 1
                with contextlib.suppress(RuntimeError):
                    server.look_again(self.rng.uniform(0.0, 1.0))
                kill_everything(server)
                return
            before = len(self.watcher.objects())
            self.ready.append(server.wait_ready("/readyz"))
            over, accepted = threading.Event(), threading.Event()
            sending = threading.Thread(target=send, args=(server.port, due, over, accepted))
            sending.start()
            if open_jobs and self.watcher.wait_for_more(before, 4 * self.within):
                self.waits.append(time.monotonic() - server.started)
            elif open_jobs:
                self.waits.append(float("inf"))
            accepted.wait(_PATIENCE_SECONDS)
            end = time.monotonic() + self.rng.uniform(0.0, longest)
            while time.monotonic() < end and (sending.is_alive() or self._open() > _LEFT):
                over.wait(_LOOK_SECONDS)
            kill_everything(server)
            over.set()
            sending.join()

    def _open(self) -> int:
        """Jobs that were accepted and have no object."""
        return sum(bool(job.id) for job in self.jobs) - len(self.watcher.objects())

    def finish(self) -> None:
        """Let everything come to its end, and everybody be told."""
        with self.started() as server:
            server.wait_ready("/readyz")
            send(server.port, self.jobs, threading.Event(), threading.Event())
            end = time.monotonic() + _PATIENCE_SECONDS
            while time.monotonic() < end and not self._is_over():
                server.look_again(0.1)

    def _is_over(self) -> bool:
        with self.told.lock:
            return len(self.watcher.objects()) >= len(self.jobs) and len(self.told.ids) > len(self.jobs)

    # -- what it showed -------------------------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """Every broken promise."""
        return [*self.watcher.faults, *self._object_faults(), *self._notice_faults(), *self._pace_faults()]

    def _object_faults(self) -> Iterator[str]:
        found = Counter(map(_job_of, self.watcher.objects()))
        where = {_job_of(one): one for one in self.watcher.objects()}
        for job in self.jobs:
            if found[job.id] != 1:
                yield f"{job.token} ({job.id}) has {found[job.id]} final objects"
            elif job.folder and not where[job.id].startswith(f"{job.folder}/"):
                yield f"{job.token} ended in {where[job.id]}"
        strangers = set(found) - {job.id for job in self.jobs}
        if strangers:
            yield f"objects of no accepted job: {sorted(strangers)[:3]}"

    def _notice_faults(self) -> Iterator[str]:
        where = {_job_of(one): one for one in self.watcher.objects()}
        for job in self.jobs:
            notices = self.told.ids.get(job.token, [])
            if not notices:
                yield f"{job.token}: nobody was told"
            if len(set(notices)) > 1:
                yield f"{job.token}: told in {len(set(notices))} ways"
            done = where.get(job.id, "").startswith(f"{_OUT}/")
            if notices and (notices[0][1] == "Completed") != done:
                yield f"{job.token}: told {notices[0][1]}, but it ended in {where.get(job.id)}"

    def _pace_faults(self) -> Iterator[str]:
        slow = [wait for wait in self.waits if wait > self.within]
        if slow:
            yield f"work went on later than {self.within:g} s after {len(slow)} starts (slowest {max(slow):.1f} s)"
        if not self.waits:
            yield "nothing was left to do at any start: nothing was shown"

    def facts(self) -> dict[str, Any]:
        """What happened, for the reader."""
        objects = self.watcher.objects()
        waits, ready = sorted(self.waits) or [0.0], sorted(self.ready) or [0.0]
        return {
            "jobs": len(self.jobs),
            **{f"  {kind}": sum(job.kind == kind for job in self.jobs) for kind in [*KINDS, "die"]},
            "outputs": sum(one.startswith(_OUT) for one in objects),
            "failure objects": sum(one.startswith(_BAD) for one in objects),
            "killed before it was up": self.early,
            "starts with work left": len(self.waits),
            "server up after s, median": round(ready[len(ready) // 2], 2),
            "work went on after s, median": round(waits[len(waits) // 2], 2),
            "work went on after s, slowest": round(waits[-1], 2),
            "notifications taken": sum(map(len, self.told.ids.values())),
            "of them more than once": sum(len(ids) > 1 for token, ids in self.told.ids.items() if token),
            "refused the first time": len(self.told.refused),
        }


def _job_of(object_name: str) -> str:
    """The id in an object's name."""
    return object_name.partition("/")[2].removesuffix(".out").removesuffix("-error")


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """``options.jobs`` jobs under ``options.kills`` kills: facts, and every broken promise."""
    rng = random.Random(options.seed)
    jobs, told = plan(options.jobs, rng), Told()
    with tempfile.TemporaryDirectory(prefix="async-kill-") as name, receiver(told) as host:
        folder = Path(name)
        bucket = folder / "data" / "s3" / "kill"
        (folder / "model" / "code").mkdir(parents=True)
        (folder / "model" / "code" / "inference.py").write_text(MODEL)
        (bucket / _IN).mkdir(parents=True)
        for job in jobs:
            if job.kind == "object":
                (bucket / _IN / job.token).write_text(f"quick {job.token}")
        config = folder / "endpoints.json"
        config.write_text(json.dumps(declaration(folder, host)))
        with Watcher(bucket) as watcher:
            trial = Trial(folder, rng, jobs, watcher, told, config, host, options.within)
            for number in range(1, options.kills + 1):
                trial.cycle(jobs[: len(jobs) * number // options.kills], options.period / 2)
            trial.finish()
        return {"kills": options.kills, **trial.facts()}, trial.faults()
