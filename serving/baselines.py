"""Baselines at the terminal: ``serving baseline`` makes one of a dataset, ``serving drift`` holds calls against one.

Where things lie: a file, a folder, or an ``s3://`` URL of the store that the settings name."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

from serving.client import Server
from serving.config import Settings
from serving.errors import ConfigError, ObjectMissing
from serving.monitor.values import Complaint, Complaints

Document = dict[str, Any]
FILES = ("statistics.json", "constraints.json", "constraint_violations.json")
DRIFT_HEADINGS = ("COLUMN", "TYPE", "DISTANCE", "THRESHOLD", "VIOLATES")
#: A check that takes longer than a front waits is asked again so soon, for so long.
_AGAIN_SECONDS, _LONGEST_SECONDS = 1.0, 600.0
#: SageMaker's limit of a body, less what stands around it.
_LARGEST_BODY = 6_000_000
#: Rows below which drift is hardly told from chance by the Robust distance.
FEW_ROWS = 300


class Baseline(NamedTuple):
    """The documents of a baseline; ``complaints``: rows of its dataset that were left out."""

    constraints: Document
    statistics: Document | None
    complaints: list[Complaint]


# --- making one -------------------------------------------------------------------------------------------------------


def of_dataset(settings: Settings, place: str, header: bool, label: str) -> Baseline:
    """``statistics.json`` and ``constraints.json`` of a dataset, computed here. ``label``: a column to leave out, as
    requests do not have it. Raises ``ConfigError``, ``ValidationError``."""
    try:
        from serving.monitor.data_quality import baseline
        from serving.monitor.tables import dataset
    except ImportError as error:
        raise ConfigError(f"Baselines need {error.name}: pip install 'serving[monitor]'.") from None
    complaints = Complaints()
    with _opened(settings, place) as file:
        tables = dataset(file, place, complaints, header)
        statistics, constraints = baseline(one.drop_columns(label) if _has(one, label) else one for one in tables)
    if not statistics["dataset"]["item_count"]:
        raise ConfigError(f"{place} has no rows.")
    return Baseline(constraints, statistics, complaints.all())


def _has(table: Any, label: str) -> bool:
    if label and label not in table.column_names:
        raise ConfigError(f"The dataset has no column {label!r}; it has {', '.join(table.column_names[:20])}.")
    return bool(label)


def given(settings: Settings, baseline: str, statistics: str, header: bool, label: str) -> Baseline:
    """The baseline that a command names: a dataset, or a constraints.json, beside which its statistics.json is looked
    for unless it is named."""
    if not baseline.endswith(".json"):
        if statistics:
            raise ConfigError("--statistics goes with a constraints.json; a dataset has its own.")
        return of_dataset(settings, baseline, header, label)
    constraints = _document(settings, baseline)
    beside = f"{baseline.rpartition('/')[0]}/{FILES[0]}" if "/" in baseline else FILES[0]
    if statistics:
        return Baseline(constraints, _document(settings, statistics), [])
    try:
        return Baseline(constraints, _document(settings, beside), [])
    except (ConfigError, ObjectMissing):
        return Baseline(constraints, None, [])


def put(settings: Settings, output: str, documents: Mapping[str, Document]) -> list[str]:
    """Write documents into a folder or below an ``s3://`` prefix; where each lies now. Raises ``ConfigError``."""
    places = []
    for name, document in documents.items():
        body = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "replace")
        place = f"{output.rstrip('/')}/{name}"
        if output.startswith("s3://"):
            _objects(settings).put(place, body, "application/json")
        else:
            _write(Path(output) / name, body)
        places.append(place)
    return places


def _write(path: Path, body: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}.") from None


def _objects(settings: Settings) -> Any:
    from serving.objects import open_objects

    return open_objects(settings)


@contextmanager
def _opened(settings: Settings, place: str) -> Iterator[BinaryIO]:
    if place.startswith("s3://"):
        with _objects(settings).open(place) as file:
            yield file
        return
    try:
        file = Path(place).open("rb")  # noqa: SIM115  # what is raised while it is read is another matter
    except OSError as error:
        raise ConfigError(f"Cannot read {place}: {error.strerror}.") from None
    with file:
        yield file


def _document(settings: Settings, place: str) -> Document:
    with _opened(settings, place) as file:
        try:
            found = json.loads(file.read())
        except ValueError:
            found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{place} is no JSON object.")
    return found


# --- drift ------------------------------------------------------------------------------------------------------------


def drift(server: Server, endpoint: str, baseline: Baseline, asked: Mapping[str, str]) -> Document:
    """POST …/drift; asked again while the server is still computing. Raises ``Refused``."""
    path = f"/endpoints/{quote(endpoint, safe='-_.~')}/drift?{urlencode({k: v for k, v in asked.items() if v})}"
    data, end = _body(baseline), time.monotonic() + _LONGEST_SECONDS
    action: Any = "manage" if asked.get("documents") else "read"
    while True:
        answer = server.send("POST", path, action, data, {"Content-Type": "application/json"})
        if answer.status != 503 or "ask again" not in answer.complaint or time.monotonic() > end:
            break
        time.sleep(_AGAIN_SECONDS)  # what is computed goes on meanwhile
    return server.told(answer)


def _body(baseline: Baseline) -> bytes:
    """The request's. A baseline of so many columns that a server would refuse it goes without its sketches: ten buckets
    of each column are left, which tell distributions apart less finely."""
    body: Document = {"constraints": baseline.constraints}
    if baseline.statistics is None:
        return json.dumps(body).encode()
    data = json.dumps({**body, "statistics": baseline.statistics}).encode()
    if len(data) <= _LARGEST_BODY:
        return data
    features = [_without_sketch(one) for one in baseline.statistics.get("features", ())]
    return json.dumps({**body, "statistics": {**baseline.statistics, "features": features}}).encode()


def _without_sketch(feature: Document) -> Document:
    numbers = feature.get("numerical_statistics", {})
    kll = numbers.get("distribution", {}).get("kll")
    if kll is None:
        return feature
    lighter = {"kll": {name: value for name, value in kll.items() if name != "sketch"}}
    return {**feature, "numerical_statistics": {**numbers, "distribution": lighter}}


def rows(found: Document) -> list[tuple[str, ...]]:
    """The columns of a check, those that violate first, then by distance."""
    order = sorted(found["Features"], key=lambda one: (not one["Violations"], -(one["Distance"] or 0.0)))
    return [
        (
            one["Name"],
            one["InferredType"] or "-",
            _number(one["Distance"]),
            _number(one["Threshold"]),
            ", ".join(sorted({kind.removesuffix("_check").replace("_", " ") for kind in one["Violations"]})) or "-",
        )
        for one in order
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def sentences(found: Document) -> list[str]:
    """What the check found, in words: every violation, then the whole."""
    told = [f"{one['feature_name']}: {one['description'].strip()}" for one in found["Violations"]]
    count, checked = found["Records"], f"{found['Records']:,} row{'' if found['Records'] == 1 else 's'}"
    columns = {one["feature_name"] for one in found["Violations"]}
    if columns:
        told.append(f"{checked}: {len(columns)} of {len(found['Features'])} columns are not as the baseline.")
    else:
        told.append(f"{checked}: as the baseline.")
    if count < FEW_ROWS:
        far = 1.8 / math.sqrt(count)
        told.append(f"Of so few rows a column drifts when it is {far:.2f} farther than its threshold, or more.")
    return told


def layout(found: Document) -> str:
    """How the columns were put side by side."""
    side = {
        "input": "the requests' columns",
        "output": "the answers' columns",
        "both": "the answers' and then the requests' columns",
    }.get(found["Side"], "the captured columns as far as they fit")
    left = f", without {found['LeftOut']!r}, the label" if found["LeftOut"] else ""
    return f"the baseline's columns{left} are held against {side}, in order where those have no names"


def complaint_lines(complaints: list[Complaint]) -> list[str]:
    """What of a dataset was left out."""
    return [f"left out: {one.reason}, {one.times} times, such as {one.example or '-'}" for one in complaints]
