"""``python -m loadtests.demo ab``: an A/B test from the first call to the verdict, on real data.

Variant A is a tumour classifier trained on few patients, some of them with the wrong label; B is one trained properly.
Beside them, on an endpoint of its own, runs an A/A test: the same good model twice. Locust sends patients that none of
them has seen, drawn with a fixed seed, and afterwards the labels. The verdict is looked at again and again, which is
what its test is made for: B has to be promoted, and of the two equals neither, then and for some looks more.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from loadtests.processes import ROOT, Running, call, our_server, python
from models import boosting, data

SEED = 20261121
#: Patients that A is trained on, and how many of those have the wrong label.
FEW, WRONG = 120, 24
AB, AA = "tumours", "tumours-aa"
METRIC = "accuracy"
#: A server's answer to one question is fresh for so long (``serving/monitors.py``).
_LOOK_SECONDS = 15.5
#: So often the two equals are looked at, at least.
_LOOKS = 5
_CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://captured/demo",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
}


def train(into: Path) -> dict[str, float]:
    """The two models as ``poor/model.ubj`` and ``good/model.ubj``, and the held-out patients as ``patients.csv``, the
    label first. Returns the models' accuracy on these."""
    table = data.breast_cancer()
    dice = random.Random(SEED)
    few = dice.sample(range(len(table.train_y)), FEW)
    wrong_y = table.train_y[few].copy()
    for place in dice.sample(range(FEW), WRONG):
        wrong_y[place] = 1 - wrong_y[place]
    params = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.1, "subsample": 0.8}
    accuracy = {}
    for name, x, y in (("poor", table.train_x[few], wrong_y), ("good", table.train_x, table.train_y)):
        booster = boosting.train(boosting.matrix(x, y), 100, **params)
        (into / name).mkdir()
        (into / name / "model.ubj").write_bytes(boosting.saved(booster))
        answers = boosting.predict(booster, table.held_x)
        accuracy[name] = float(np.mean((answers > 0.5) == table.held_y))
    rows = np.column_stack([table.held_y, table.held_x])
    (into / "patients.csv").write_text("".join(",".join(f"{value:.7g}" for value in row) + "\n" for row in rows))
    return accuracy


def declared(folder: Path) -> Path:
    """The two endpoints, as ``serving up --config`` takes them."""

    def config(name: str, a: str, b: str) -> dict[str, Any]:
        models = {"A": a, "B": b}
        variants = [
            {"VariantName": one, "ModelName": model, "InitialInstanceCount": 1, "InitialVariantWeight": 0.5}
            for one, model in models.items()
        ]
        return {"EndpointConfigName": name, "ProductionVariants": variants, "DataCaptureConfig": _CAPTURE}

    document = {
        "Models": [
            {"ModelName": name, "PrimaryContainer": {"ModelDataUrl": str(folder / name)}} for name in ("poor", "good")
        ],
        "EndpointConfigs": [config(AB, "poor", "good"), config(AA, "good", "good")],
        "Endpoints": [{"EndpointName": name, "EndpointConfigName": name} for name in (AB, AA)],
    }
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def traffic(server: Running, patients: Path, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Locust for the length of the ``with``, ``seconds`` at most."""
    command = [
        *python("locust", "-f", "loadtests/demo_traffic.py", "--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--host", f"http://127.0.0.1:{server.port}", "--users", "4", "--spawn-rate", "4"),
        *("--run-time", f"{seconds:.0f}s", "--patients", str(patients), "--endpoints", f"{AB},{AA}"),
        *("--seed", str(SEED)),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def verdict(server: Running, endpoint: str) -> Mapping[str, Any]:
    """What the server says of an endpoint's variants. Raises ``RuntimeError`` when it says no."""
    answer = call(server.port, "GET", f"/endpoints/{endpoint}/verdict?metric={METRIC}", timeout=60)
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {answer.body.decode(errors='replace')[:500]}")
    told: dict[str, Any] = json.loads(answer.body)
    return told


def labelled(told: Mapping[str, Any]) -> int:
    """The calls a verdict rests on."""
    return sum(one["LabelledCalls"] for one in told["Variants"])


def look(server: Running, endpoint: str, began: float) -> Mapping[str, Any]:
    """A verdict, told as it is."""
    told = verdict(server, endpoint)
    print(
        f"{time.monotonic() - began:5.0f} s  {endpoint:<11} {labelled(told):>6,} labelled calls  {told['Sentence']}",
        flush=True,
    )
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when B is promoted in time and of the two equals none is."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.demo ab", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="when to give up (default: %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="demo-ab-") as place:
        folder = Path(place)
        accuracy = train(folder)
        print(f"accuracy on patients that neither has seen: A {accuracy['poor']:.3f}, B {accuracy['good']:.3f}")
        with our_server("--config", str(declared(folder))) as server:
            return _watch(server, folder / "patients.csv", options.seconds)


def _watch(server: Running, patients: Path, seconds: float) -> int:
    """Look until the A/B test has ended and the A/A test was looked at often enough."""
    began, looks, promoted = time.monotonic(), 0, 0
    faults: list[str] = []
    with traffic(server, patients, seconds + 60) as locust:
        while not faults and (not promoted or looks < _LOOKS) and time.monotonic() < began + seconds:
            server.look_again(_LOOK_SECONDS)
            if locust.poll() is not None:
                assert locust.stderr is not None
                raise RuntimeError(f"locust ended: {locust.stderr.read().decode(errors='replace')[-2000:]}")
            if not promoted:
                found = look(server, AB, began)
                promoted = labelled(found) if found["Decision"] == "Promote" else 0
                if found["Decision"] in ("Keep", "RollBack"):
                    faults.append(f"the better variant was not promoted: {found['Sentence']}")
            equal, looks = look(server, AA, began), looks + 1
            if equal["Decision"] != "Wait":
                faults.append(f"of two equals one was preferred: {equal['Sentence']}")
    if promoted:
        print(f"B was promoted after {promoted:,} labelled calls; of the two equals neither was, in {looks} looks")
    elif not faults:
        faults.append(f"no verdict in {seconds:.0f} s")
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0
