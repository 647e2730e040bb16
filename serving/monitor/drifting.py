"""Has an endpoint's data drifted from a baseline? The task ``drift``, asked at any time, without a schedule.

Its arguments::

    {"Endpoint": "e", "Destination": URL, "Variants": ["v"], "Window": [0.0, 1.0], "Constraints": DOCUMENT,
     "Statistics": DOCUMENT | None, "Label": "", "TargetModel": "", "Documents": false}

Captured CSV has no header, and a training set has a column too many, the label. So columns are put side by side thus:

* ``Label`` names a column of the baseline that no request has: the rest are the requests' columns, in order.
* As many baseline columns as requests have: they are the requests', in order.
* One more: the label is the one called so (``label``, ``target``, ``class``, ``y``), else the first, as SageMaker's
  algorithms have it, or the last, whichever fits the first calls better.
* As many as answers and requests have together, or one more without names (``_c0``): those, answers first
  (``behaviour/06``).
* Anything else is held side by side as well as it goes; missing and extra columns are violations.

Rows that name their columns (JSON objects) go by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import orjson

from serving.errors import ValidationError
from serving.monitor import captures, constraints, data_quality
from serving.monitor.tables import tables
from serving.monitor.tasks import Means
from serving.monitor.values import Complaints, Record, Window

Document = dict[str, Any]
Side = Literal["auto", "input", "output", "both"]

LABELS = frozenset({"label", "labels", "target", "class", "y"})
#: The first column of a baseline without names.
_UNNAMED = "_c0"
_SAMPLE = 200
_SIDES: tuple[Literal["input", "output"], ...] = ("input", "output")


class Layout(NamedTuple):
    """How baseline and captures are put side by side: ``left_out``: the baseline's label, empty where it has none."""

    side: Side
    left_out: str


def layouts(names: Sequence[str], inputs: int, outputs: int, label: str) -> list[Layout]:
    """The layouts that a baseline with these columns and calls with so many columns may have, the likelier first.
    Raises ``ValidationError`` for a label that is no column."""
    if label:
        if label not in names:
            raise ValidationError(f"The baseline has no column {label!r}.")
        return [Layout("input", label)]
    if len(names) == inputs:
        return [Layout("input", "")]
    if len(names) == inputs + 1 and names[0] != _UNNAMED:
        called = [name for name in names if name.strip().lower() in LABELS]
        return [Layout("input", name) for name in (called if len(called) == 1 else (names[0], names[-1]))]
    return [Layout("both" if len(names) == inputs + outputs else "auto", "")]


def drift(args: Mapping[str, Any], means: Means) -> Document:
    """The task: distances and violations by feature. Raises ``ValidationError`` when nothing was captured."""
    _baseline(args, Layout("auto", ""))  # refuses what is none before anything is read
    complaints = Complaints()
    records = _records(args, means, complaints)
    sample = list(islice(records, _SAMPLE))
    if not sample:
        raise ValidationError(_nothing(args, complaints))
    found = _layout(args, sample)
    baseline = _baseline(args, found)
    result = data_quality.of_records(chain(sample, records), baseline, complaints, found.side)
    if not result.item_count:
        raise ValidationError(_nothing(args, complaints))
    return _told(args, found, baseline, result)


def _records(args: Mapping[str, Any], means: Means, complaints: Complaints) -> Iterator[Record]:
    place = (args["Destination"], args["Endpoint"], Window(*args["Window"]), complaints, args["Variants"])
    target = args.get("TargetModel", "")
    for record in captures.read(means.objects, means.staging, *place):
        if not target or record.metadata.get("targetModel") == target:
            yield record


def _nothing(args: Mapping[str, Any], complaints: Complaints) -> str:
    why = "; ".join(f"{one.reason}: {one.times}" for one in complaints.all()[:5])
    of = f" of model {args['TargetModel']}" if args.get("TargetModel") else ""
    return f"No call{of} to {args['Endpoint']} in this window could be used" + (f" ({why})." if why else ".")


def _layout(args: Mapping[str, Any], sample: list[Record]) -> Layout:
    """Of several, the one by which the sample violates less, and is less far away."""
    names = [str(one.get("name")) for one in args["Constraints"].get("features") or () if isinstance(one, dict)]
    seen: dict[Literal["input", "output"], list[str]] = {}
    for side in _SIDES:
        seen[side] = next((one.column_names for one in tables(sample, Complaints(), (), side)), [])

    def strangeness(one: Layout) -> tuple[int, float]:
        result = data_quality.of_records(sample, _baseline(args, one), Complaints(), one.side)
        return len(result.violations["violations"]), sum(far.distance for far in result.drifts.values())

    found = layouts(names, len(seen["input"]), len(seen["output"]), args.get("Label", ""))
    return found[0] if len(found) == 1 else min(found, key=strangeness)


def _baseline(args: Mapping[str, Any], found: Layout) -> constraints.Baseline:
    """The baseline without what a layout leaves out. Raises ``ValidationError``."""
    return constraints.read(
        _without(args["Constraints"], found.left_out), _without(args.get("Statistics"), found.left_out)
    )


def _without(document: Any, name: str) -> Any:
    """A baseline's document as bytes, without one of its features."""
    if document is None:
        return None
    if name and isinstance(document.get("features"), list):
        kept = [one for one in document["features"] if not (isinstance(one, dict) and one.get("name") == name)]
        document = {**document, "features": kept}
    return orjson.dumps(document)


def _told(
    args: Mapping[str, Any], found: Layout, baseline: constraints.Baseline, result: data_quality.Result
) -> Document:
    violations = result.violations["violations"]
    names = [*baseline.names, *(one["name"] for one in result.statistics["features"])]
    types = {one["name"]: one["inferred_type"] for one in result.statistics["features"]}
    features = [_feature(name, types.get(name), result, violations) for name in dict.fromkeys(names)]
    told: Document = {
        "EndpointName": args["Endpoint"],
        "Window": list(args["Window"]),
        "Records": result.item_count,
        "Side": found.side,
        "LeftOut": found.left_out,
        "Features": features,
        "Violations": violations,
        "Complaints": [one._asdict() for one in result.complaints],
    }
    if args.get("Documents"):
        told["Documents"] = {
            "statistics.json": result.statistics,
            "constraints.json": result.constraints,
            "constraint_violations.json": result.violations,
        }
    return told


def _feature(name: str, kind: str | None, result: data_quality.Result, violations: list[Document]) -> Document:
    distance = result.drifts.get(name)
    return {
        "Name": name,
        "InferredType": kind,
        "Distance": distance.distance if distance else None,
        "Threshold": distance.threshold if distance else None,
        "Violations": [one["constraint_check_type"] for one in violations if one["feature_name"] == name],
    }
