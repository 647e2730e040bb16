"""``python -m loadtests.demo drift``: captured calls of a real server, as they should be at first, drifted later.

The model tells tumours apart by 30 measurements; the baseline is its training data. Patients are drawn with a fixed
seed from all there are. Later a laboratory changes its ways: a microscope enlarges more, and two measurements are made
another way. The check has to pass the calls before, and to name exactly the columns that have changed.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import yaml

from loadtests.processes import Running, our_server
from models import boosting, data
from serving.monitor import captures, constraints, data_quality
from serving.monitor.tables import dataset
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


def train(table: data.DataSet, into: Path) -> tuple[bytes, bytes]:
    """The model as ``model/model.ubj``, and the baseline of its training data: statistics, constraints."""
    booster = boosting.train(boosting.matrix(table.train_x, table.train_y), 100, objective="binary:logistic")
    (into / "model").mkdir()
    (into / "model" / "model.ubj").write_bytes(boosting.saved(booster))
    text = io.StringIO()
    csv.writer(text).writerows([table.columns, *(map("{:.7g}".format, row) for row in table.train_x)])
    found = data_quality.baseline(dataset(io.BytesIO(text.getvalue().encode()), "train.csv", Complaints()))
    statistics, limits = map(orjson.dumps, found)
    return statistics, limits


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


def check(place: Path, half: Half, baseline: constraints.Baseline) -> data_quality.Result:
    """What a monitoring schedule finds of these calls; once they are written down."""
    objects = LocalObjects(place / "s3", place / "spool")
    complaints = Complaints()
    records = captures.read(objects, place / "capture", DESTINATION, ENDPOINT, half.window, complaints)
    return data_quality.of_records(records, baseline, complaints)


def _checked(server: Running, place: Path, half: Half, baseline: constraints.Baseline) -> data_quality.Result:
    """The check of all calls of the half: the last are on their way to the disk for a second."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while (result := check(place, half, baseline)).item_count < half.calls and time.monotonic() < until:
        server.look_again(0.2)
    return result


def faults(half: Half, result: data_quality.Result) -> list[str]:
    """What the check did not find as it should have; it tells what it found."""
    violations: list[dict[str, Any]] = result.violations["violations"]
    print(f"{half.name}: {result.item_count:,} captured calls, {len(violations)} violations")
    for one in violations:
        print(f"  {one['feature_name']:<18} {one['constraint_check_type']}: {one['description']}")
    found = []
    if result.item_count != half.calls or result.complaints:
        found.append(f"{half.name}: {result.item_count} of {half.calls} calls were read, {result.complaints}")
    if sorted(half.changed) != sorted(one["feature_name"] for one in violations):
        found.append(f"{half.name}: the changed columns are {half.changed}")
    return found


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
        statistics, limits = train(table, place)
        print(f"baseline: {len(table.train_x)} patients of the training data, {len(table.columns)} columns")
        baseline, found = constraints.read(limits, statistics), []
        with our_server("--config", str(declared(place)), data=place / "data") as server:
            for name, names in (("as in training", []), ("after the change", list(CHANGES))):
                drawn = patients[dice.integers(len(patients), size=options.calls)]
                window = send(server, changed(drawn, table.columns) if names else drawn)
                half = Half(name, names, options.calls, window)
                found += faults(half, _checked(server, place / "data", half, baseline))
    for fault in found:
        print(f"FAULT: {fault}")
    return 1 if found else 0
