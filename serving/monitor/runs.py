"""One execution of a monitoring schedule: from the captures of a window to files (``behaviour/06``).

The task ``execution``; ``fleet/monitoring.py`` says what its arguments are. It writes, under
``{output}/{endpoint}/{schedule}/yyyy/mm/dd/hh/`` of the scheduled time, ``statistics.json``, ``constraints.json``,
``constraint_violations.json``, and ``complaints.json`` when records could not be used; the same names each time it is
run again. Labelled captures go to ``{output}/merge/...``. It answers with::

    {"Violations": 2, "Records": 1000, "Output": URL, "Drift": {feature: distance}, "Metrics": {name: value},
     "Complaints": [{"Reason", "Times", "Example"}], "Models": {target model: violations}}

Calls of a multi-model endpoint whose captures tell their target model (``SERVING_CAPTURE_DETAILS``) are looked at model
by model, as one model's columns are not another's: each with the baseline in ``models/{target model}/`` beside the
common one, where there is one, and with files in ``models/{target model}/``. The violations of all models together are
the run's.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from serving.errors import ConfigError, ObjectMissing, ValidationError
from serving.monitor import batches, captures
from serving.monitor.labels import Labels, merged_line, merged_url, read_labels
from serving.monitor.predictions import Attributes
from serving.monitor.tasks import Means
from serving.monitor.values import Complaint, Complaints, Record, Window
from serving.objects.base import object_url, spooled

Document = dict[str, Any]
Records = Callable[[], Iterable[Record]]

#: Target models that are looked at one by one.
MOST_MODELS = 50
#: AWS's words when a window holds nothing.
NO_DATA = "Job inputs had no data"
_VIOLATIONS = "constraint_violations.json"
_LARGEST_FILE = 64 * 2**20
_MOST_COMPLAINTS, _MOST_VALUES = 100, 200
#: What stands above the violations of Clarify's monitors (``behaviour/06``).
_HEADS: Mapping[str, Document] = {type: {"version": "1.0"} for type in ("ModelBias", "ModelExplainability")}


class Found(NamedTuple):
    """What was found in one set of records, whichever monitor looked; ``drift``: distances by feature."""

    statistics: Document
    constraints: Document | None
    violations: list[Document]
    drift: Mapping[str, float]
    metrics: Mapping[str, float]
    items: int


class Files(NamedTuple):
    """What a definition's URLs hold: the baseline's documents and the configuration, None where there are none."""

    constraints: bytes | None
    statistics: bytes | None
    config: bytes | None


class Work:
    """One execution under way."""

    def __init__(self, args: Mapping[str, Any], means: Means) -> None:
        self.args = args
        self.means = means
        self.definition: Mapping[str, Any] = args["Definition"]
        self.type: str = self.definition["Type"]
        self.window = Window(*args["Window"])
        self.complaints = Complaints()
        given: Mapping[str, Any] = self.definition.get("Endpoint") or self.definition["Batch"]
        self.attributes = Attributes(
            given.get("InferenceAttribute", ""),
            given.get("ProbabilityAttribute", ""),
            given.get("ProbabilityThresholdAttribute"),
            given.get("FeaturesAttribute", ""),
            given.get("ExcludeFeaturesAttribute", ""),
        )
        self._labels: Labels | None = None
        self.apart = False

    def labels(self, records: Records) -> Labels:
        """The ground truth that was collected from the beginning of the window until now: labels come later. Of one
        model's records, theirs alone: of the others it says nothing that they have no capture."""
        found = self._all_labels()
        if not self.apart:
            return found
        keys = {record.key for record in records()}
        return {id: text for id, text in found.items() if id in keys}

    def _all_labels(self) -> Labels:
        if self._labels is None:
            window = Window(self.window.start, max(self.window.end, time.time()))
            self._labels = read_labels(self.means.objects, self.definition["GroundTruth"], window, self.complaints)
        return self._labels

    @property
    def output(self) -> str:
        """Where its files go, without a slash at the end."""
        hour = time.strftime("%Y/%m/%d/%H", time.gmtime(self.args["ScheduledTime"]))
        parts = (self.definition["Output"].rstrip("/"), self.args["Endpoint"], self.args["Schedule"], hour)
        return "/".join(part for part in parts if part)

    def records(self) -> Iterator[Record]:
        """The captured calls of the window. Raises ``ValidationError`` for an endpoint that captures nothing."""
        batch, capture = self.definition.get("Batch"), self.args["Capture"]
        if batch is not None:
            return batches.read(self.means.objects, batch, self.window, self.complaints)
        if capture is None:
            raise ValidationError(f"Endpoint {self.args['Endpoint']} does not exist any more, or captures nothing.")
        place = (capture["Destination"], self.args["Endpoint"], self.window, self.complaints, capture["Variants"])
        return captures.read(self.means.objects, self.means.staging, *place)

    def files(self, target: str = "") -> Files:
        """The definition's files; with ``target``, that model's own baseline, where it has one."""
        return Files(
            self._read("Constraints", target), self._read("Statistics", target), self._read("Config", required=True)
        )

    def _read(self, member: str, target: str = "", required: bool = False) -> bytes | None:
        url = self.definition.get(member)
        if url is None:
            return None
        if target:
            folder, _, name = url.rpartition("/")
            own = content(self.means, f"{folder}/models/{target}/{name}")
            if own is not None:
                return own
        found = content(self.means, url)
        if found is None:
            raise ValidationError(f"{member}: there is no object {url}.")
        return found

    def put(self, name: str, document: Document) -> None:
        """Write a file of the run."""
        body = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
        self.means.objects.put(f"{self.output}/{name}", body, "application/json")


def content(means: Means, url: str) -> bytes | None:
    """A small object; None when there is none. Raises ``ValidationError`` for one that is not small."""
    try:
        with means.objects.open(url) as file:
            body = file.read(_LARGEST_FILE + 1)
    except ObjectMissing:
        return None
    if len(body) > _LARGEST_FILE:
        raise ValidationError(f"{url} is larger than the {_LARGEST_FILE >> 20} MiB that are read.")
    return body


# --- the task ---------------------------------------------------------------------------------------------------------


def execution(args: Mapping[str, Any], means: Means) -> Document:
    """The task: look, write, tell. Raises ``ServingError`` when it comes to nothing."""
    work = Work(args, means)
    try:
        with ExitStack() as stack:
            targets = _apart(work, stack)
            if targets:
                work.apart = True
                return _told(work, _of_models(work, targets), dict.fromkeys(targets, 0))
            return _told(work, _looked_at(work, work.records, work.files()), {})
    except ConfigError as error:
        raise ValidationError(error.message) from None


def _told(work: Work, found: Found, models: dict[str, int]) -> Document:
    """Write the run's files. Raises ``ValidationError`` when there was nothing to look at."""
    complaints = work.complaints.all()
    if not found.items:
        _put_complaints(work, complaints)
        why = "; ".join(f"{one.reason}: {one.times}" for one in complaints[:5])
        raise ValidationError(f"{NO_DATA} ({why})" if why else NO_DATA)
    _put(work, "", found)
    _put_complaints(work, complaints)
    for one in found.violations:
        if "target_model" in one:
            models[one["target_model"]] += 1
    return {
        "Violations": len(found.violations),
        "Records": found.items,
        "Output": work.output,
        "Drift": _largest(found.drift),
        "Metrics": _largest({name: value for name, value in found.metrics.items() if abs(value) < float("inf")}),
        "Complaints": [_complaint(one) for one in complaints[:_MOST_COMPLAINTS]],
        "Models": models,
    }


def _largest(values: Mapping[str, float]) -> dict[str, float]:
    """Of very many, those that say most: they are kept with the execution, the files have them all."""
    names = sorted(values, key=lambda name: -abs(values[name]))[:_MOST_VALUES]
    return {name: values[name] for name in names}


def _put(work: Work, folder: str, found: Found) -> None:
    work.put(f"{folder}statistics.json", found.statistics)
    if found.constraints is not None:
        work.put(f"{folder}constraints.json", found.constraints)
    work.put(f"{folder}{_VIOLATIONS}", {**_HEADS.get(work.type, {}), "violations": found.violations})


def _put_complaints(work: Work, complaints: list[Complaint]) -> None:
    """What was left out and why. A run that is made again may have less to complain about than its first try."""
    url = f"{work.output}/complaints.json"
    if complaints:
        work.put("complaints.json", {"complaints": [one._asdict() for one in complaints]})
    else:
        work.means.objects.delete(url)


def _complaint(one: Complaint) -> Document:
    return {"Reason": one.reason, "Times": one.times, "Example": one.example}


# --- models apart -----------------------------------------------------------------------------------------------------


def _apart(work: Work, stack: ExitStack) -> dict[str, Path]:
    """The window's records by target model, each in a file of its own; none when captures do not tell it."""
    records = work.records() if "Batch" not in work.definition else iter(())
    first = next(records, None)
    work.complaints = Complaints()  # what reading complained about is found again
    if first is None or not first.metadata.get("targetModel"):
        return {}
    files: dict[str, tuple[Path, BinaryIO]] = {}
    with ExitStack() as opened:
        for record in work.records():
            target = record.metadata.get("targetModel")
            if not isinstance(target, str) or not (target in files or _has_place(work, target)):
                work.complaints.add("a call without the name of a model", record.event_id)
                continue
            if target not in files and len(files) >= MOST_MODELS:
                work.complaints.add("a call of a model beyond those that are looked at", record.event_id)
                continue
            if target not in files:
                path = stack.enter_context(spooled(work.means.objects.spool, "put"))
                files[target] = path, opened.enter_context(path.open("wb"))
            files[target][1].write(orjson.dumps(record.variant) + b"\n" + merged_line(record))
    return {target: path for target, (path, _) in files.items()}


def _has_place(work: Work, target: str) -> bool:
    """May its files be called by its name?"""
    try:
        object_url(f"{work.output}/models/{target}/{_VIOLATIONS}")
    except ValidationError:
        return False
    return True


def _read_back(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for variant in file:
            yield captures.parse(next(file), str(orjson.loads(variant)))


def _of_models(work: Work, targets: Mapping[str, Path]) -> Found:
    """Each model by itself: its files are written, what they say together is returned."""
    violations: list[Document] = []
    drift: dict[str, float] = {}
    metrics: dict[str, float] = {}
    items, statistics = 0, {}
    for target, path in sorted(targets.items()):
        found = _looked_at(work, lambda path=path: _read_back(path), work.files(target))  # type: ignore[misc]  # a default argument
        if found.items:
            _put(work, f"models/{target}/", found)
        items += found.items
        statistics[target] = {"dataset": {"item_count": found.items}}
        violations += [{**one, "target_model": target} for one in found.violations]
        drift |= {f"{target}/{name}": value for name, value in found.drift.items()}
        metrics |= {f"{target}/{name}": value for name, value in found.metrics.items()}
    return Found({"version": 0.0, "models": statistics}, None, violations, drift, metrics, items)


# --- the four monitors ------------------------------------------------------------------------------------------------


def _looked_at(work: Work, records: Records, files: Files) -> Found:
    return _MONITORS[work.type](work, records, files)


def _data_quality(work: Work, records: Records, files: Files) -> Found:
    from serving.monitor import constraints, data_quality

    baseline = constraints.read(files.constraints, files.statistics) if files.constraints is not None else None
    excluded = {name.strip() for name in work.attributes.exclude.split(",") if name.strip()}
    if baseline is not None and excluded:
        kept = tuple(one for one in baseline.constraints if one.name not in excluded)
        baseline = constraints.Baseline(kept, baseline.rules, baseline.known)
    result = data_quality.of_records(records(), baseline, work.complaints)
    return Found(
        result.statistics,
        result.constraints,
        [one for one in result.violations["violations"] if one["feature_name"] not in excluded],
        {name: one.distance for name, one in result.drifts.items()},
        {one.name: one.average for one in result.metrics if one.feature not in excluded},
        result.item_count,
    )


def _model_quality(work: Work, records: Records, files: Files) -> Found:
    from serving.monitor.quality import model_quality_run

    problem = work.definition["ProblemType"]
    limits = _document(files.constraints, "The constraints")
    with _Merged(work) as merged:
        result = model_quality_run(
            records(), work.labels(records), work.attributes, problem, limits, work.complaints, merged.keep
        )
    return _found(result)


def _model_bias(work: Work, records: Records, files: Files) -> Found:
    from serving.monitor.bias import bias_run
    from serving.monitor.bias_config import parse_config

    config = parse_config(_document(files.config, "ConfigUri"))
    limits = _document(files.constraints, "The constraints")
    with _Merged(work) as merged:
        result = bias_run(
            records(), work.labels(records), work.attributes, config, limits, work.complaints, merged.keep
        )
    return _found(result)


def _explainability(work: Work, records: Records, files: Files) -> Found:
    from serving.monitor.attribution import attribution_run, parse_config
    from serving.monitor.explained import attributions

    document = _document(files.config, "ConfigUri")
    config, limits = parse_config(document), _document(files.constraints, "The constraints")
    asked = attributions(records(), work.args["Endpoint"], document or {}, work.attributes, work.means, work.complaints)
    if asked is None:
        return Found({}, None, [], {}, {}, 0)
    return _found(attribution_run(asked.headers, asked.values, asked.expected, config, limits, work.complaints))


def _found(result: Any) -> Found:
    violations = result.violations["violations"]
    return Found(result.statistics, result.constraints, violations, {}, result.metrics, result.item_count)


_MONITORS: Mapping[str, Callable[[Work, Records, Files], Found]] = {
    "DataQuality": _data_quality,
    "ModelQuality": _model_quality,
    "ModelBias": _model_bias,
    "ModelExplainability": _explainability,
}


def _document(body: bytes | None, what: str) -> Document | None:
    """A JSON document. Raises ``ValidationError``."""
    if body is None:
        return None
    try:
        found = orjson.loads(body)
    except ValueError:
        raise ValidationError(f"{what}: the object is not valid JSON.") from None
    if not isinstance(found, dict):
        raise ValidationError(f"{what}: the object is no JSON object.")
    return found


class _Merged:
    """Labelled captures on their way to ``{output}/merge``, a file for each variant and hour. The same execution has
    the same names."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._stack = ExitStack()
        self._files: dict[str, tuple[Path, BinaryIO]] = {}
        self._id = str(uuid.uuid5(uuid.NAMESPACE_URL, work.output))

    def __enter__(self) -> _Merged:
        return self

    def keep(self, record: Record) -> None:
        """Write one down."""
        endpoint = self._work.args["Endpoint"] or self._work.args["Schedule"]
        url = merged_url(self._work.definition["Output"], endpoint, record, self._id)
        if url not in self._files:
            path = self._stack.enter_context(spooled(self._work.means.objects.spool, "put"))
            self._files[url] = path, self._stack.enter_context(path.open("wb"))
        self._files[url][1].write(merged_line(record))

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stack:
            for url, (path, file) in self._files.items() if kind is None else ():
                file.close()
                self._work.means.objects.put(url, path, "application/jsonlines")
