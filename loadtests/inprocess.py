"""The model without a server: a process that parses and predicts in a loop, or loads and predicts cold.

``predict`` is the baseline of the heavy workloads, with the server's own parser and engine and as many native threads
as its single worker gets. ``cold`` is the library's own way from a file to a first prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.floor import load_model, stacked
from loadtests.processes import ROOT, python


def predict_for(model: Path, body: bytes, content_type: str, threads: int, seconds: float, together: int) -> float:
    """Median seconds per body of parse + predict, ``together`` bodies at once, over ``seconds`` of looping."""
    loaded = load_model(model, threads)
    bodies = [body] * together

    def once() -> None:
        loaded.predict(stacked(loaded, bodies, content_type)[0])

    once()
    times: list[float] = []
    limit = time.perf_counter() + seconds
    while (began := time.perf_counter()) < limit or len(times) < 3:
        once()
        times.append(time.perf_counter() - began)
    return median(times) / together


def load_bare(path: Path) -> Any:
    """A function from one float32 row to its prediction, by the library alone."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        name = session.get_inputs()[0].name
        return lambda row: session.run(None, {name: row})
    import xgboost

    return xgboost.Booster(model_file=str(path)).inplace_predict


def cold_loop() -> None:
    """For each line on stdin, ``FILE<tab>ROW``: microseconds from the file to the first prediction, on stdout.

    The row is comma-separated values. The library is imported by the first line, which the caller throws away.
    """
    import numpy as np

    for line in sys.stdin:
        path, _, text = line.rstrip("\n").partition("\t")
        row = np.array([text.split(",")], dtype=np.float32)
        began = time.perf_counter()
        load_bare(Path(path))(row)
        print(f"{(time.perf_counter() - began) * 1e6:.1f}", flush=True)


def measure(model: Path, body: Path, content_type: str, threads: int, seconds: float, together: int = 1) -> float:
    """``predict_for`` in a process of its own: median seconds per body."""
    command = python(
        "loadtests.inprocess",
        *("predict", "--model", str(model), "--body", str(body), "--content-type", content_type),
        *("--threads", str(threads), "--seconds", str(seconds), "--together", str(together)),
    )
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if output.returncode:
        raise RuntimeError(f"in-process prediction failed: {output.stderr[-500:]}")
    return float(json.loads(output.stdout)["seconds_per_body"])


class Cold:
    """A ``cold_loop`` process, kept so that the library is imported once.

    One native thread, which is best for one row: with more, a busy machine slows the library a hundredfold, and us not.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            python("loadtests.inprocess", "cold"),
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def microseconds(self, path: Path, row: str) -> float:
        """From file to first prediction."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{path}\t{row}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Cold:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """``python -m loadtests.inprocess predict ... | cold``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("cold")
    predict = verbs.add_parser("predict")
    predict.add_argument("--model", type=Path, required=True)
    predict.add_argument("--body", type=Path, required=True)
    predict.add_argument("--content-type", required=True)
    predict.add_argument("--threads", type=int, default=1)
    predict.add_argument("--seconds", type=float, default=2.0)
    predict.add_argument("--together", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.verb == "cold":
        cold_loop()
        return
    options = {key: value for key, value in vars(arguments).items() if key not in ("verb", "body")}
    print(json.dumps({"seconds_per_body": predict_for(body=arguments.body.read_bytes(), **options)}))


if __name__ == "__main__":
    main()
