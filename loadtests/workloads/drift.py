"""The drift check: a million captured rows of 30 features, one row a call and a hundred rows a call."""

from __future__ import annotations

import json
import subprocess
import tempfile
import uuid
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from loadtests.drift_check import ENDPOINT
from loadtests.processes import ROOT, python
from loadtests.report import Figure
from loadtests.workloads.base import Bench, megabytes

ROWS, FEATURES, FILES = 1_000_000, 30, 60
_DISTINCT = 50_000
_DRIFTED = (3, 17)
_PATIENCE_SECONDS = 300
_LINE = (
    '{"captureData":{"endpointInput":{"observedContentType":"text/csv","mode":"INPUT","data":"%s","encoding":"CSV"},'
    '"endpointOutput":{"observedContentType":"text/csv; charset=utf-8","mode":"OUTPUT","data":"%s","encoding":"CSV"}},'
    '"eventMetadata":{"eventId":"%s","inferenceTime":"2026-04-18T12:%02d:%02dZ"},"eventVersion":"0"}\n'
)


def _names() -> list[str]:
    return [f"feature-{number}" for number in range(FEATURES)]


def _data() -> np.ndarray:
    """Numbers as models are sent them: four decimals of different sizes."""
    random = np.random.default_rng(7)
    return (random.normal(size=(_DISTINCT, FEATURES)) * np.logspace(-1, 3, FEATURES)).round(4)


def _write_captures(data: Path, per_call: int) -> None:
    """The files of an hour, a minute each; two features are not as they were in training."""
    rows = _data()
    rows[:, _DRIFTED] *= 2.0
    text = [",".join(map(repr, row)) for row in rows.tolist()]
    folder = data / "s3" / "captures" / ENDPOINT / "AllTraffic" / "2026" / "04" / "18" / "12"
    folder.mkdir(parents=True)
    bodies = ["\\n".join(text[at : at + per_call]) for at in range(0, _DISTINCT, per_call)]
    answers = "\\n".join(["0.5"] * per_call)
    calls = ROWS // per_call
    for minute in range(FILES):
        with (folder / f"{minute:02}-00-000-{uuid.uuid4()}.jsonl").open("w") as file:
            for number in range(calls * minute // FILES, calls * (minute + 1) // FILES):
                body = bodies[number % len(bodies)]
                file.write(_LINE % (body, answers, uuid.UUID(int=number), minute, number % 60))


def _write_baseline(folder: Path) -> None:
    from serving.monitor import data_quality
    from serving.monitor.tables import dataset
    from serving.monitor.values import Complaints

    train = folder / "train.csv"
    np.savetxt(train, _data(), fmt="%.4f", delimiter=",", header=",".join(_names()), comments="")
    with train.open("rb") as stream:
        statistics, constraints = data_quality.baseline(dataset(stream, "train.csv", Complaints()))
    (folder / "statistics.json").write_text(json.dumps(statistics))
    (folder / "constraints.json").write_text(json.dumps(constraints))


def _check(how: str, data: Path, baseline: Path) -> dict[str, Any]:
    command = python("loadtests.drift_check", how, str(data), str(baseline))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"the check failed: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _turns(bench: Bench, per_call: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Our checks and the plain reads of the same files, in turns."""
    checks, reads = [], []
    with tempfile.TemporaryDirectory(prefix="bench-drift-") as folder:
        data, baseline = Path(folder) / "data", Path(folder)
        _write_captures(data, per_call)
        _write_baseline(baseline)
        for number in range(bench.rounds):
            checks.append(_check("ours", data, baseline))
            reads.append(_check("plain", data, baseline))
            told = [f"{one['seconds']:.2f} s and {one['peak_mb']:.0f} MB" for one in (checks[-1], reads[-1])]
            bench.say(f"  round {number + 1}, {per_call} rows a call: check {told[0]}, plain read {told[1]}")
    return checks, reads


def drift(bench: Bench) -> list[Figure]:
    """Seconds and memory, and the speed beside Arrow's own readers."""
    figures = []
    expected = [_names()[number] for number in _DRIFTED]
    for per_call in (1, 100):
        checks, reads = _turns(bench, per_call)
        wrong = sum(one["violated"] != expected or one["rows"] != ROWS for one in checks)
        ours, plain = (median(one["seconds"] for one in side) for side in (checks, reads))
        peak, their_peak = (max(one["peak_mb"] for one in side) for side in (checks, reads))
        what = f"drift 1,000,000 x {FEATURES}, {per_call} a call"
        told, theirs = f"{ours:.2f} s", f"{plain:.2f} s"
        memory = megabytes(peak * 1e6), megabytes(their_peak * 1e6)
        figures += [
            Figure(what, "seconds", told, theirs, ours, 10.0, "<=", "s",
                   note="from the capture files to violations, named exactly", failures=wrong),
            Figure(what, "peak memory of the process", *memory, peak, 500.0, "<=", "MB", failures=wrong),
            Figure(what, "speed / plain read", told, theirs, plain / ours, 0.3, failures=wrong,
                   note="Arrow's JSON and CSV readers on all cores and numpy's moments: nothing is compared"),
        ]  # fmt: skip
    return figures
