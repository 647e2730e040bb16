"""Parts of an execution that need no server: batch jobs, what explanations are asked with, models one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from serving.config import Settings
from serving.errors import ValidationError
from serving.monitor import batches, runs
from serving.monitor.explained import SAMPLE, configuration
from serving.monitor.labels import merged_line
from serving.monitor.predictions import Attributes
from serving.monitor.tasks import Means
from serving.monitor.values import Complaints, Record, Side, Window
from serving.objects import LocalObjects
from tests import memory

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

HOUR = 3600.0
#: 2026-01-02 at three o'clock.
THREE = 1_767_322_800.0
WINDOW = Window(THREE, THREE + HOUR)


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    """An empty store."""
    return LocalObjects(tmp_path / "s3", tmp_path / "spool")


def captured(objects: LocalObjects, records: Sequence[Record]) -> None:
    """Calls of endpoint ``e`` in a capture file."""
    body = b"".join(map(merged_line, records))
    objects.put("s3://captured/e/AllTraffic/2026/01/02/03/00-00-000-x.jsonl", body)


def call(number: int, input: str, output: str = "1", **metadata: Any) -> Record:
    """A captured call of CSV."""
    event = {"eventId": f"id-{number}", "inferenceTime": "2026-01-02T03:00:00Z", **metadata}
    sides = (Side("text/csv", "CSV", input), Side("text/csv", "CSV", output))
    return Record(f"id-{number}", "", THREE, "AllTraffic", *sides, event)


def args(type: str = "DataQuality", **definition: Any) -> dict[str, Any]:
    """The task's arguments, for the captures of endpoint ``e``."""
    given = {"Endpoint": {"EndpointName": "e"}, **definition}
    return {
        "Endpoint": "e",
        "Schedule": "s",
        "ScheduledTime": THREE + HOUR,
        "Window": list(WINDOW),
        "Capture": {"Destination": "s3://captured", "Variants": ["AllTraffic"]},
        "Definition": {"Type": type, "Name": "d", "Output": "s3://out", "Seconds": 60, **given},
    }


def report(objects: LocalObjects, file: str) -> Any:
    """A file of the run."""
    with objects.open(f"s3://out/e/s/2026/01/02/04/{file}") as opened:
        return json.loads(opened.read())


# --- a run ------------------------------------------------------------------------------------------------------------


def test_captures_in_mixed_encodings_are_counted_and_the_rest_is_looked_at(objects: LocalObjects) -> None:
    """One bad record never ends a run; what was left out stands beside it, and goes when there is nothing any more."""
    good = [call(at, f"{at},2") for at in range(10)]
    odd = [
        call(90, "x")._replace(input=Side("application/x-npy", "BASE64", "!!")),
        call(91, "1,2,3,4,5"),
        call(92, "")._replace(output=None),
    ]
    captured(objects, [*good, *odd])
    found = runs.execution(args(), Means(Settings(), objects))
    assert (10, 0) == (found["Records"], found["Violations"])
    told = report(objects, "complaints.json")["complaints"]
    assert 3 == sum(one["times"] for one in told) == sum(one["Times"] for one in found["Complaints"])
    captured(objects, good)
    runs.execution(args(), Means(Settings(), objects))
    assert objects.stat("s3://out/e/s/2026/01/02/04/complaints.json") is None


def test_a_data_quality_run_emits_what_it_measured_of_each_feature(objects: LocalObjects) -> None:
    """Its mean, its completeness and its distance (behaviour/06, "Metrics emitted"); nothing of excluded features."""
    captured(objects, [call(at, f"{at},{'2' if at % 2 else ''}") for at in range(10)])
    names = ("answer", "a", "b")
    features = [{"name": name, "inferred_type": "Integral"} for name in names]
    buckets = {"kll": {"buckets": [{"lower_bound": 0, "upper_bound": 9, "count": 10}]}}
    known = [{**one, "numerical_statistics": {"distribution": buckets}} for one in features]
    objects.put("s3://b/constraints.json", json.dumps({"features": features}).encode())
    objects.put("s3://b/statistics.json", json.dumps({"features": known}).encode())
    given = {"EndpointName": "e", "ExcludeFeaturesAttribute": "answer"}
    wanted = args(Constraints="s3://b/constraints.json", Statistics="s3://b/statistics.json", Endpoint=given)
    assert {
        "feature_data_a": 4.5,
        "feature_non_null_a": 1.0,
        "feature_baseline_drift_a": 0.0,
        "feature_data_b": 2.0,
        "feature_non_null_b": 0.5,
        "feature_baseline_drift_b": 0.0,
    } == runs.execution(wanted, Means(Settings(), objects))["Metrics"]


def test_a_window_without_data_says_what_there_was_instead(objects: LocalObjects) -> None:
    """AWS's words, and the reasons."""
    with pytest.raises(ValidationError, match=r"^Job inputs had no data$"):
        runs.execution(args(), Means(Settings(), objects))
    objects.put("s3://captured/e/AllTraffic/2026/01/02/03/00-00-000-x.jsonl", b"{}\n{}\n")
    with pytest.raises(ValidationError, match=r"^Job inputs had no data \(a line is no capture record: 2\)$"):
        runs.execution(args(), Means(Settings(), objects))


def test_a_baseline_that_cannot_be_read_fails_the_run(objects: LocalObjects) -> None:
    """With its place: none there, not JSON."""
    captured(objects, [call(0, "1,2")])
    wanted = args(Constraints="s3://b/constraints.json")
    with pytest.raises(ValidationError, match=r"there is no object s3://b/constraints\.json"):
        runs.execution(wanted, Means(Settings(), objects))
    objects.put("s3://b/constraints.json", b"{")
    with pytest.raises(ValidationError, match=r"constraints\.json"):
        runs.execution(wanted, Means(Settings(), objects))


def test_a_model_has_its_own_baseline_where_there_is_one(objects: LocalObjects) -> None:
    """Beside the common one, under its name; violations say whose they are."""
    captured(objects, [call(at, "1,2", "0.5", targetModel=("left", "right")[at % 2]) for at in range(4)])
    for folder, kind in (("", "Integral"), ("models/left/", "Fractional")):
        document = {"features": [{"name": "answer", "inferred_type": kind}]}
        objects.put(f"s3://b/{folder}constraints.json", json.dumps(document).encode())
    found = runs.execution(args(Constraints="s3://b/constraints.json"), Means(Settings(), objects))
    told = report(objects, "constraint_violations.json")["violations"]
    assert [("right", "answer", "data_type_check")] == [
        (one["target_model"], one["feature_name"], one["constraint_check_type"]) for one in told
    ]
    assert (1, {"left": 0, "right": 1}) == (found["Violations"], found["Models"])
    assert [] == report(objects, "models/left/constraint_violations.json")["violations"]


def test_a_name_that_no_model_can_have_is_counted_and_ends_no_run(objects: LocalObjects) -> None:
    """Captures may be anybody's files."""
    names = ["a.tar.gz", "../../x", "/x", "", None, {"a": 1}, "x" * 2000, "x" * 990]
    captured(objects, [call(at, "1,2", targetModel=name) for at, name in enumerate(names)])
    found = runs.execution(args(), Means(Settings(), objects))
    assert ({"a.tar.gz": 0}, 1) == (found["Models"], found["Records"])
    assert [("a call without the name of a model", 7)] == [(one["Reason"], one["Times"]) for one in found["Complaints"]]


def test_models_beyond_those_that_are_looked_at_are_counted(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is bounded."""
    monkeypatch.setattr(runs, "MOST_MODELS", 2)
    captured(objects, [call(at, "1,2", targetModel=f"m{at % 3}/model.tar.gz") for at in range(9)])
    found = runs.execution(args(), Means(Settings(), objects))
    assert {"m0/model.tar.gz": 0, "m1/model.tar.gz": 0} == found["Models"]
    assert (6, 3) == (found["Records"], found["Complaints"][0]["Times"])
    assert 3 == report(objects, "models/m0/model.tar.gz/statistics.json")["dataset"]["item_count"]
    assert [] == [path for path in objects.spool.iterdir() if path.is_file()]


# --- explanations -----------------------------------------------------------------------------------------------------


class Explained(NamedTuple):
    """What the explain process would answer."""

    headers: tuple[str, ...]
    values: Any
    expected: Any
    refused: tuple[tuple[int, str], ...] = ()


def test_a_sample_of_calls_is_explained(objects: LocalObjects) -> None:
    """So many, as they were made; their scores are held against the baseline's."""
    asked: list[Any] = []

    def attributions(
        endpoint: str, variant: str, calls: Sequence[tuple[bytes, str, str, str]], config: Mapping[str, Any] | None
    ) -> Explained:
        asked.append((endpoint, variant, len(calls), calls[0][1:], config))
        return Explained(("a", "b"), np.tile([[0.1], [0.9]], (len(calls), 1, 1)), np.array([0.5]))

    captured(objects, [call(at, f"{at},2") for at in range(SAMPLE + 10)])
    objects.put("s3://c/config.json", json.dumps({"methods": {"shap": {"baseline": [[0, None]]}}}).encode())
    scores = {"label0": {"global_shap_values": {"a": 0.9, "b": 0.1}, "expected_value": 0.5}}
    objects.put("s3://c/constraints.json", json.dumps({"explanations": {"kernel_shap": scores}}).encode())
    wanted = args("ModelExplainability", Config="s3://c/config.json", Constraints="s3://c/constraints.json")
    found = runs.execution(wanted, Means(Settings(), objects, attributions=attributions))
    config = {
        "ShapConfig": {"ShapBaselineConfig": {"ShapBaseline": "0,", "MimeType": "text/csv"}},
        "InferenceConfig": {},
    }
    assert [("e", "AllTraffic", SAMPLE, ("text/csv", "text/csv", ""), config)] == asked
    assert (1, SAMPLE) == (found["Violations"], found["Records"])
    told = report(objects, "constraint_violations.json")
    (violation,) = told["violations"]
    assert ("1.0", "feature_attribution_drift_check") == (told["version"], violation["constraint_check_type"])


def test_an_analysis_configuration_is_an_explainers() -> None:
    """Clarify's words in SageMaker's; without a baseline the endpoint's own explainer is meant."""
    document = {
        "headers": ["y", "a", "b"],
        "label": "y",
        "label_headers": ["no", "yes"],
        "predictor": {"content_template": '{"instances":$features}'},
        "methods": {"shap": {"baseline": "s3://b/x.csv", "num_samples": 9, "seed": 1, "use_logit": True}},
    }
    assert {
        "ShapConfig": {
            "ShapBaselineConfig": {"ShapBaselineUri": "s3://b/x.csv", "MimeType": "text/csv"},
            "NumberOfSamples": 9,
            "Seed": 1,
            "UseLogit": True,
        },
        "InferenceConfig": {
            "FeatureHeaders": ["a", "b"],
            "LabelHeaders": ["no", "yes"],
            "ContentTemplate": '{"instances":$features}',
            "FeaturesAttribute": "f",
            "ProbabilityIndex": 1,
        },
    } == configuration(document, Attributes(probability="1", features="f"))
    rows = {"methods": {"shap": {"baseline": [["a,b", 'c"', None], [1, 2.5, True]]}}}
    made = configuration(rows, Attributes())
    assert made is not None
    assert '"a,b","c""",\n1,2.5,True' == made["ShapConfig"]["ShapBaselineConfig"]["ShapBaseline"]
    assert configuration({"methods": {"shap": {}}}, Attributes()) is None
    with pytest.raises(ValidationError, match="is a list of rows"):
        configuration({"methods": {"shap": {"baseline": 7}}}, Attributes())


@pytest.mark.parametrize(
    ("shap", "others", "words"),
    [
        ({"num_samples": "many"}, {}, "num_samples"),
        ({"num_samples": 0}, {}, "num_samples"),
        ({"num_samples": True}, {}, "num_samples"),
        ({"seed": "a"}, {}, "seed"),
        ({"use_logit": "maybe"}, {}, "use_logit"),
        ({}, {"headers": 5}, "headers"),
        ({}, {"headers": [1, 2]}, "headers"),
        ({}, {"label_headers": 7}, "label_headers"),
        ({}, {"predictor": {"content_template": 5}}, "content_template"),
    ],
)
def test_an_analysis_configuration_of_wrong_types_is_refused_by_its_member(
    shap: dict[str, Any], others: dict[str, Any], words: str
) -> None:
    """Files are written by hand."""
    with pytest.raises(ValidationError, match=f"^The analysis configuration's {words} is "):
        configuration({**others, "methods": {"shap": {"baseline": [[0]], **shap}}}, Attributes())


# --- batch jobs -------------------------------------------------------------------------------------------------------


def batch(objects: LocalObjects, format: Mapping[str, Any]) -> tuple[list[Record], Complaints]:
    """What is read of the jobs of the window."""
    complaints = Complaints()
    given = {"DataCapturedDestinationS3Uri": "s3://cap/", "DatasetFormat": format}
    return list(batches.read(objects, given, WINDOW, complaints)), complaints


def put_job(objects: LocalObjects, source: str, answer: str, suffix: str = "csv", hour: str = "03") -> None:
    """A job of one object, with its manifests."""
    objects.put(f"s3://in/x.{suffix}", source.encode())
    objects.put(f"s3://out/x.{suffix}.out", answer.encode())
    for kind, prefix, key in (("input", "s3://in/", f"x.{suffix}"), ("output", "s3://out/", f"x.{suffix}.out")):
        manifest = json.dumps([{"prefix": prefix}, key]).encode()
        objects.put(f"s3://cap/{kind}/2026/01/02/{hour}/job.json", manifest)


def test_rows_of_a_batch_job_are_records(objects: LocalObjects) -> None:
    """With the inference ids that the job has made, which lead to labels."""
    stamp = "2026-01-02T03:00:00Z"
    put_job(objects, '1,"a,b"\n2,c\n', f"0.5,id-1,{stamp}\n0.6,id-2,{stamp}\n")
    found, complaints = batch(objects, {"Csv": {}})
    assert [] == complaints.all()
    assert [('1,"a,b"', "0.5", "id-1"), ("2,c", "0.6", "id-2")] == [
        (one.input.data, one.output.data, one.key) for one in found if one.input and one.output
    ]


def test_columns_of_a_batch_job_keep_their_names(objects: LocalObjects) -> None:
    """Those of a header, or of JSON."""
    put_job(objects, "a,b\n1,2\n", "7\n")
    found, _ = batch(objects, {"Csv": {"Header": True}})
    assert [({"a": "1", "b": "2"}, "7")] == [
        (json.loads(one.input.data), one.output.data) for one in found if one.input and one.output
    ]
    answer = {"p": 1, "SageMakerInferenceId": "i", "SageMakerInferenceTime": "t"}
    put_job(objects, '{"a": 1}\n', json.dumps(answer) + "\n", "jsonl")
    found, _ = batch(objects, {"Json": {"Line": True}})
    assert [({"a": "1"}, "1", "i")] == [
        (json.loads(one.input.data), one.output.data, one.key) for one in found if one.input and one.output
    ]


def test_what_a_batch_job_lacks_is_counted(objects: LocalObjects) -> None:
    """A manifest without its other half, one that is damaged, an object that has gone; other hours do not count."""
    put_job(objects, "1\n", "2\n", hour="05")
    assert [] == batch(objects, {"Csv": {}})[0]
    put_job(objects, "1\n", "2\n")
    objects.delete("s3://cap/output/2026/01/02/03/job.json")
    objects.put("s3://cap/input/2026/01/02/03/other.json", b"{")
    found, complaints = batch(objects, {"Csv": {}})
    assert [("1", None)] == [(one.input and one.input.data, one.output) for one in found]
    assert [3] == [one.times for one in complaints.all()]
    objects.delete("s3://in/x.csv")
    found, complaints = batch(objects, {"Csv": {}})
    assert [] == found
    assert 4 == sum(one.times for one in complaints.all())
