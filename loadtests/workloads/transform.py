"""Batch transform: a million rows of CSV with their predictions beside them, and four thousand small objects."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.aws import ROLE, Cloud, model_body, place
from loadtests.bare_transform import LOOPS
from loadtests.processes import ROOT, Running, our_server, python, tree_bytes
from loadtests.report import Figure
from loadtests.workloads.base import Bench, Card, megabytes, numbers, per_second
from loadtests.workloads.rows import MODEL

ROWS, OBJECTS = 1_000_000, 4_000
_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 300.0
_LINES = {"ContentType": "text/csv", "SplitType": "Line"}
_OUTPUT = {"Accept": "text/csv", "AssembleWith": "Line"}


class _Memory:
    """The most that a server's processes have held at once, above what they held at first."""

    def __init__(self, server: Running) -> None:
        self._pid, self._idle = server.pid, tree_bytes(server.pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most = 0

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.most = max(self.most, tree_bytes(self._pid) - self._idle)

    @contextmanager
    def watched(self) -> Iterator[_Memory]:
        """For the length of a ``with``."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()


def _run(cloud: Cloud, server: Running, name: str, source: str) -> tuple[float, dict[str, Any]]:
    """A job from its call to its end: seconds, and how it is described. Raises ``RuntimeError`` when it fails."""
    began = time.monotonic()
    cloud.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=MODEL,
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}, **_LINES},
        TransformOutput={"S3OutputPath": f"s3://out/{name}", **_OUTPUT},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        DataProcessing={"JoinSource": "Input"},
    )
    while True:
        described: dict[str, Any] = cloud.sagemaker.describe_transform_job(TransformJobName=name)
        status = described["TransformJobStatus"]
        if status == "Completed":
            return time.monotonic() - began, described
        if status != "InProgress" or time.monotonic() > began + _PATIENCE_SECONDS:
            raise RuntimeError(f"{name} is {status}: {described.get('FailureReason', 'after its time')}")
        server.look_again(_LOOK_SECONDS)


@contextmanager
def _server(bench: Bench) -> Iterator[tuple[Running, Cloud, Path]]:
    """A server with the model, and the folder of its objects."""
    with tempfile.TemporaryDirectory(prefix="bench-transform-") as folder:
        data = Path(folder)
        place(data, MODEL, bench.artifacts / MODEL)
        with our_server(data=data) as server:
            cloud = Cloud(server)
            cloud.sagemaker.create_model(**{**model_body(MODEL), "ExecutionRoleArn": ROLE})
            yield server, cloud, data / "s3"


def _bare(how: str, artifact: Path, source: Path, target: Path) -> float:
    """Seconds of a bare loop."""
    command = python("loadtests.bare_transform", how, str(next(artifact.iterdir())), str(source), str(target))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"the bare loop failed: {done.stderr[-500:]}")
    return float(done.stdout)


def _wrong(bench: Bench, output: Path) -> int:
    """Rows missing of the output, and wrong ones among its last hundred, which are the card's batch."""
    expected = Card(bench.artifacts, MODEL).expected("batch")
    with output.open("rb") as file:
        missing = abs(ROWS - sum(1 for _ in file))
        file.seek(-64 * 1024, 2)
        last = file.read().splitlines()[-len(expected) :]
    found = [numbers(line)[-1] for line in last]
    return missing + sum(
        abs(one - other) > 1e-4 * abs(other) + 1e-6 for one, other in zip(found, expected, strict=True)
    )


def transform(bench: Bench) -> list[Figure]:
    """A million rows of 30 columns, joined with their predictions: a job beside bare loops over the same file."""
    ours: list[float] = []
    bare: dict[str, list[float]] = {how: [] for how in LOOPS}
    with _server(bench) as (server, cloud, store):
        source = store / "in" / "rows.csv"
        source.parent.mkdir()
        batch = Card(bench.artifacts, MODEL).body("batch.csv")
        with source.open("wb") as file:
            for _ in range(ROWS // batch.count(b"\n")):
                file.write(batch)
        with _Memory(server).watched() as memory:
            _run(cloud, server, "warm", "s3://in/")
            for number in range(bench.rounds):
                seconds, _ = _run(cloud, server, f"job-{number}", "s3://in/")
                ours.append(seconds)
                for how, times in bare.items():
                    times.append(_bare(how, bench.artifacts / MODEL, source, store / "bare.csv"))
                told = ", ".join(f"{how} {times[-1]:.2f} s" for how, times in bare.items())
                bench.say(f"  round {number + 1}: job {seconds:.2f} s, {told}")
        wrong = _wrong(bench, store / "out" / "job-0" / "rows.csv.out")
    job = median(ours)
    note = "from CreateTransformJob to Completed, the start of its worker included; {}"
    return [
        *(
            Figure("transform 1,000,000 rows", f"speed / bare loop with {how}", per_second(ROWS / job),
                   per_second(ROWS / median(times)), median(times) / job, 0.6, note=note.format(text), failures=wrong)
            for (how, times), text in zip(bare.items(), ("numpy.loadtxt", "Arrow's CSV on all cores"), strict=True)
        ),
        Figure("transform 1,000,000 rows", "memory above idle", megabytes(memory.most), "-", memory.most / 1e6, 300.0,
               "<=", "MB", note="all processes, those that the job begins too; proportional set size", failures=wrong),
    ]  # fmt: skip


def transform_small(bench: Bench) -> list[Figure]:
    """Four thousand objects of one row each."""
    rates: list[float] = []
    row, expected = Card(bench.artifacts, MODEL).body("request.csv"), Card(bench.artifacts, MODEL).expected("request")
    wrong = 0
    with _server(bench) as (server, cloud, store):
        (store / "in").mkdir()
        for number in range(OBJECTS):
            (store / "in" / f"{number:05}.csv").write_bytes(row)
        for number in range(bench.rounds):
            seconds, _ = _run(cloud, server, f"job-{number}", "s3://in/")
            rates.append(OBJECTS / seconds)
            bench.say(f"  round {number + 1}: {rates[-1]:,.0f} objects a second")
            outputs = list((store / "out" / f"job-{number}").iterdir())
            wrong += abs(OBJECTS - len(outputs))
            wrong += sum(abs(numbers(one.read_bytes())[-1] - expected[0]) > 1e-4 for one in outputs[:100])
    return [
        Figure("transform 4,000 small objects", "objects a second", per_second(median(rates)), "-", median(rates),
               200.0, unit="/s", note="each read, called, put on the disk and committed", failures=wrong),
    ]  # fmt: skip
