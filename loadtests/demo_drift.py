"""``python -m loadtests.demo drift``: captured calls of a real server, as they should be at first, drifted later.

The model tells tumours apart by 30 measurements; the baseline is its training data. Patients are drawn with a fixed
seed from all there are. Later a laboratory changes its ways: a microscope enlarges more, and two measurements are made
another way. The check has to pass the calls before, and to name exactly the columns that have changed.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from loadtests.processes import ROOT, Running, our_server, python
from models import boosting, data
from serving.monitor import captures
from serving.monitor.values import Complaints, Window
from serving.objects import LocalObjects

SEED = 20261121
ENDPOINT, DESTINATION = "tumours", "s3://captured/demo"
#: Column -> what becomes of a value: factor, and how many standard deviations are added.
CHANGES = {"mean radius": (1.3, 0.0), "worst texture": (1.0, 1.0), "smoothness error": (2.0, 0.0)}
_PATIENCE_SECONDS = 30.0
_CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": DESTINATION,
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
}


class Half(NamedTuple):
    """A part of the traffic: which columns are not as they were, its calls, and when they were made."""

    name: str
    changed: list[str]
    calls: int
    window: Window


def train(table: data.DataSet, into: Path) -> None:
    """The model as ``model/model.ubj``, and its training data without the labels as ``train.csv``: the baseline."""
    booster = boosting.train(boosting.matrix(table.train_x, table.train_y), 100, objective="binary:logistic")
    (into / "model").mkdir()
    (into / "model" / "model.ubj").write_bytes(boosting.saved(booster))
    with (into / "train.csv").open("w") as file:
        csv.writer(file).writerows([table.columns, *(map("{:.7g}".format, row) for row in table.train_x)])


def declared(folder: Path) -> Path:
    """The endpoint, as ``serving up --config`` takes it."""
    variant = {"VariantName": "AllTraffic", "ModelName": ENDPOINT, "InitialInstanceCount": 1}
    config = {"EndpointConfigName": ENDPOINT, "ProductionVariants": [variant], "DataCaptureConfig": _CAPTURE}
    document = {
        "Models": [{"ModelName": ENDPOINT, "PrimaryContainer": {"ModelDataUrl": str(folder / "model")}}],
        "EndpointConfigs": [config],
        "Endpoints": [{"EndpointName": ENDPOINT, "EndpointConfigName": ENDPOINT}],
    }
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def changed(patients: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    """The patients as the laboratory measures them now."""
    found = patients.copy()
    for name, (factor, deviations) in CHANGES.items():
        place = columns.index(name)
        found[:, place] = patients[:, place] * factor + deviations * patients[:, place].std()
    return found


def send(server: Running, patients: np.ndarray) -> Window:
    """A call for each patient; the seconds they were made in, whole ones, which no other call is in."""
    began = time.time()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for row in patients:
        body = ",".join(f"{value:.7g}" for value in row)
        connection.request("POST", f"/endpoints/{ENDPOINT}/invocations", body, {"Content-Type": "text/csv"})
        response = connection.getresponse()
        if response.status != 200 or not response.read():
            raise RuntimeError(f"a call was answered with {response.status}")
    connection.close()
    end = float(int(time.time()) + 1)
    server.look_again(end - time.time())
    return Window(float(int(began)), end)


def written(place: Path, half: Half) -> int:
    """How many of the calls are captured by now."""
    objects = LocalObjects(place / "s3", place / "spool")
    return sum(1 for _ in captures.read(objects, place / "capture", DESTINATION, ENDPOINT, half.window, Complaints()))


def check(server: Running, place: Path, half: Half) -> dict[str, Any]:
    """What ``serving drift`` says of these calls, once all are captured: the last are on their way for a second."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while written(place / "data", half) < half.calls and time.monotonic() < until:
        server.look_again(0.2)
    since, end = (datetime.fromtimestamp(at, UTC).isoformat() for at in half.window)
    command = python("serving", "drift", ENDPOINT, "--baseline", str(place / "train.csv"), "--json")
    options = ("--since", since, "--until", end, "--url", f"http://127.0.0.1:{server.port}")
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"serving drift ended with {done.returncode}: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def faults(half: Half, found: dict[str, Any]) -> list[str]:
    """What was not found as it should have been; what was found is told."""
    violations: list[dict[str, Any]] = found["Violations"]
    print(f"{half.name}: {found['Records']:,} captured calls, {len(violations)} violations")
    for one in violations:
        print(f"  {one['feature_name']:<18} {one['constraint_check_type']}: {one['description']}")
    told = []
    if found["Records"] != half.calls or found["Complaints"]:
        told.append(f"{half.name}: {found['Records']} of {half.calls} calls were read, {found['Complaints']}")
    if sorted(half.changed) != sorted(one["feature_name"] for one in violations):
        told.append(f"{half.name}: the changed columns are {half.changed}")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the undrifted half passes and the drifted columns are named, and no others."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.demo drift", description=__doc__)
    parser.add_argument("--calls", type=int, default=1500, help="calls in each half (default: %(default)s)")
    options = parser.parse_args(arguments)
    table = data.breast_cancer()
    patients = np.vstack([table.train_x, table.held_x])
    dice = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory(prefix="demo-drift-") as folder:
        place = Path(folder)
        train(table, place)
        print(f"baseline: {len(table.train_x)} patients of the training data, {len(table.columns)} columns")
        found: list[str] = []
        with our_server("--config", str(declared(place)), data=place / "data") as server:
            for name, names in (("as in training", []), ("after the change", list(CHANGES))):
                drawn = patients[dice.integers(len(patients), size=options.calls)]
                window = send(server, changed(drawn, table.columns) if names else drawn)
                half = Half(name, names, options.calls, window)
                found += faults(half, check(server, place, half))
    for fault in found:
        print(f"FAULT: {fault}")
    return 1 if found else 0
