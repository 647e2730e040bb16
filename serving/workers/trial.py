"""Would this artifact load, and what does it cost? Asked in a process of its own, which may crash, hang or eat memory.

``python -m serving.workers.trial`` is that process: a question as JSON on standard input, the answer on what was
standard output (which a model's own code then no longer reaches).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.errors import ServingError
from serving.runtimes import registry
from serving.runtimes.base import Artifact, LoadSettings, Model, TensorModel
from serving.workers import memory
from serving.workers.artifacts import ArtifactCache, check_allowed, recognise

_MODULE = "serving.workers.trial"
_TWICE = 64 * 2**20  # bytes of an artifact that is worth a second load to tell model and libraries apart


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found. ``error`` empty = it loads. Sizes in bytes, time in seconds; ``memory_bytes`` is what the model
    takes in a worker that has its framework already, ``framework_bytes`` what that framework takes once."""

    artifact: str
    format: str = ""
    engine: str = ""
    executes_code: bool = False
    frameworks: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    artifact_bytes: int = 0
    memory_bytes: int = 0
    framework_bytes: int = 0
    load_seconds: float = 0.0
    error: str = ""


def attempt(path: Path, *, allow_code: bool, threads: int, timeout: float) -> Trial:
    """Recognise and load the artifact at ``path`` in a child process, for at most ``timeout`` seconds. Never raises
    for what the artifact does: that is the answer."""
    question = {"path": str(path.absolute()), "allow_code": allow_code, "threads": threads}
    with tempfile.TemporaryDirectory(prefix="serving-check-") as scratch:
        try:
            done = subprocess.run(
                [sys.executable, "-m", _MODULE],
                input=json.dumps(question | {"scratch": scratch}).encode(),
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Trial(path.name, error=f"it did not load within {timeout:g} seconds")
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return Trial(path.name, error=f"it crashed while loading ({how}){': ' + last if last else ''}")
    return Trial(path.name, **answer | {key: tuple(answer[key]) for key in ("frameworks", "inputs")})


def _found(path: Path, allow_code: bool, threads: int, scratch: Path) -> Trial:
    """In the child: look, then load; what was learnt before a failure is kept."""
    settings = LoadSettings(allow_code, threads)
    found: dict[str, Any] = {"artifact": path.name}
    try:
        artifact = recognise(ArtifactCache(scratch, sys.maxsize).fetch(path))
        found |= {
            "format": artifact.format,
            "executes_code": artifact.executes_code,
            "frameworks": tuple(sorted(artifact.frameworks)),
            "artifact_bytes": artifact.bytes,
        }
        check_allowed(artifact, allow_code)
        bare = memory.held()
        registry.preload(artifact.frameworks)
        model, seconds, grown = _timed(artifact, settings)
        first = memory.growth(bare, memory.held())
        if not artifact.executes_code and artifact.bytes <= _TWICE:  # the first load brought libraries in as well
            _second, seconds, grown = _timed(artifact, settings)
        found |= {
            "engine": model.engine,
            "load_seconds": seconds,
            "memory_bytes": grown,
            "framework_bytes": max(0, first - grown),
        }
        if isinstance(model, TensorModel):
            found["inputs"] = tuple(_input(*tensor) for tensor in model.spec.tensors)
    except ServingError as error:
        return Trial(**found, error=error.message)
    return Trial(**found)


def _timed(artifact: Artifact, settings: LoadSettings) -> tuple[Model, float, int]:
    """The model, the seconds and the bytes its load took."""
    before, began = memory.held(), time.monotonic()
    model = registry.load(artifact, settings)
    return model, time.monotonic() - began, memory.growth(before, memory.held())


def _input(name: str, dtype: str, shape: tuple[int | None, ...]) -> str:
    """``name: float32[rows, 30]``."""
    sizes = ["rows", *("any" if size is None else str(size) for size in shape[1:])]
    return f"{name}: {dtype}[{', '.join(sizes)}]"


def _main() -> None:
    question = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a model prints goes to the log
    trial = _found(Path(question["path"]), question["allow_code"], question["threads"], Path(question["scratch"]))
    answer = asdict(trial)
    del answer["artifact"]
    with answers:
        json.dump(answer, answers)
    os._exit(0)  # no framework's own farewell: some crash at it


if __name__ == "__main__":
    _main()
