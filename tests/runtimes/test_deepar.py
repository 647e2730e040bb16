"""DeepAR's requests, answers and chances, with a net that expects the value before: a random walk."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BadInput, LoadFailed, ServingError
from serving.runtimes import registry
from serving.runtimes.algorithms import deepar, timeline
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel
from serving.runtimes.formats import recognise
from tests import sequences

JSON, LINES = "application/json", "application/jsonlines"
SERIES = {
    "start": "2009-11-01 00:00:00",
    "target": [4.0, 2.0, 6.0],
    "cat": [0, 1],
    "dynamic_feat": [[0, 0, 0, 7, 8, 9]],
}


def loaded(folder: Path, **environment: str) -> ScriptModel:
    """The model of a folder."""
    model = registry.load(recognise(folder), LoadSettings(environment=environment))
    assert isinstance(model, ScriptModel)
    return model


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> ScriptModel:
    """Expects the value before."""
    return loaded(sequences.deepar(tmp_path_factory.mktemp("walk")))


def ask(model: ScriptModel, *instances: Any, content_type: str = JSON, accept: str = "", **configuration: Any) -> Any:
    """The predictions for some instances."""
    body = json.dumps({"instances": instances, "configuration": configuration}).encode()
    reply = model.transform(ScriptCall(body, content_type, accept))
    return json.loads(reply.body)["predictions"]


def paths(model: ScriptModel, instance: Any, samples: int = 20) -> np.ndarray:
    """An instance's sample paths."""
    return np.array(ask(model, instance, output_types=["samples"], num_samples=samples)[0]["samples"])


def test_a_path_goes_on_from_what_was_drawn_before_it(walk: ScriptModel) -> None:
    """Each step is the one before and a normal draw, times the spread and the mean size of the two values before."""
    found = paths(walk, SERIES, 4000)
    draws = np.diff(np.concatenate([np.full((4000, 1), 6.0), found], axis=1), axis=1) / (sequences.SPREAD * 4.0)
    assert 0.0 == pytest.approx(draws.mean(), abs=0.03)
    assert 1.0 == pytest.approx(draws.std(), abs=0.03)
    assert 0.0 == pytest.approx(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1], abs=0.06)


def test_mean_and_quantiles_are_those_of_the_samples(walk: ScriptModel) -> None:
    """Levels are keys as the request spells them, numbers too."""
    (answer,) = ask(
        walk, SERIES, num_samples=50, output_types=["mean", "quantiles", "samples"], quantiles=["0.5", "0.90", 0.1]
    )
    assert {"mean", "quantiles", "samples"} == answer.keys()
    samples = np.array(answer["samples"])
    assert (50, 3) == samples.shape
    np.testing.assert_allclose(samples.mean(axis=0), answer["mean"])
    assert ["0.5", "0.90", "0.1"] == list(answer["quantiles"])
    np.testing.assert_allclose(np.quantile(samples, 0.9, axis=0), answer["quantiles"]["0.90"])


def test_the_same_request_has_the_same_answer(walk: ScriptModel) -> None:
    """Also among others, and as the first of more samples; another target is drawn otherwise."""
    other = {**SERIES, "target": [4.0, 2.5, 6.0]}
    both = [np.array(one["samples"]) for one in ask(walk, other, SERIES, output_types=["samples"], num_samples=20)]
    np.testing.assert_array_equal(paths(walk, SERIES), both[1])
    np.testing.assert_allclose(paths(walk, SERIES, 30)[:20], both[1])
    assert (both[0] != both[1]).all()


def test_more_series_than_go_together_are_answered_in_parts(walk: ScriptModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of series, and of one series' samples, change nothing."""
    several = [{**SERIES, "target": [float(one), 2.0]} for one in range(1, 6)]
    for one in several:
        one["dynamic_feat"] = [[0.0] * 5]
    whole = ask(walk, *several, output_types=["samples"], num_samples=10)
    for rows in (25, 4):
        monkeypatch.setattr(deepar, "_ROWS", rows)
        assert whole == ask(walk, *several, output_types=["samples"], num_samples=10)


def test_aws_defaults_where_nothing_is_said(walk: ScriptModel) -> None:
    """Mean and nine quantiles of 100 samples; three steps each."""
    (answer,) = ask(walk, SERIES)
    assert {"mean", "quantiles"} == answer.keys()
    assert [f"0.{tenth}" for tenth in range(1, 10)] == list(answer["quantiles"])
    np.testing.assert_allclose(paths(walk, SERIES, 100).mean(axis=0), answer["mean"])


@pytest.mark.parametrize(
    ("column", "expected"),
    [(0, [6, 6, 6]), (1, [2, 6, 2]), (2, [4, 4, 4]), (3, [0, 4, 4]), (4, [28, 32, 36])],
    ids=["value-before", "value-two-before", "known-before", "known-two-before", "dynamic"],
)
def test_what_a_step_is_told(tmp_path: Path, column: int, expected: list[float]) -> None:
    """Values at the lags in units of the scale (4), whether they are known, the step's dynamic feature. The value
    before the last is missing or not; without chance a step's value is what is expected."""
    model = loaded(sequences.deepar(tmp_path / "model", column, spread=0.0))
    target = [4.0, "NaN", 4.0] if column == 3 else [4.0, 2.0, 6.0]
    assert expected == paths(model, {**SERIES, "target": target}, 1)[0].tolist()


@pytest.mark.parametrize("missing", ["NaN", None])
def test_a_missing_value_is_nan_or_null(walk: ScriptModel, missing: Any) -> None:
    """Both spellings are the same value that is not known: what is expected then is 0."""
    found = paths(walk, {**SERIES, "target": [4.0, 4.0, missing]}, 2000)
    assert 0.0 == pytest.approx(found[:, 0].mean(), abs=0.1)


def test_a_target_may_be_shorter_than_the_context_or_empty(tmp_path: Path) -> None:
    """One value is its own scale; a series without any has the usual scale of its group."""
    model = loaded(sequences.deepar(tmp_path / "model", column=4, spread=0.0))
    one = {**SERIES, "target": [5.0], "dynamic_feat": [[0, 1, 2, 3]]}
    none = {**SERIES, "target": [], "dynamic_feat": [[1, 2, 3]], "cat": [1, 0]}
    assert [5.0, 10.0, 15.0] == paths(model, one, 1)[0].tolist()
    assert [20.0, 40.0, 60.0] == paths(model, none, 1)[0].tolist()


@pytest.mark.parametrize("target", [[1e30, 1e-300, 1e-300], [1e-320, 5e-324], [1e30, -1e30], [0.0, 0.0]])
def test_numbers_of_any_size_have_a_forecast(walk: ScriptModel, target: list[float]) -> None:
    """A giant before a context of dwarfs, the smallest numbers there are, a context whose size is 0."""
    instance = {**SERIES, "target": target, "dynamic_feat": [[0.0] * (len(target) + 3)]}
    assert np.isfinite(paths(walk, instance)).all()


def test_what_a_model_was_trained_without_is_ignored(tmp_path: Path) -> None:
    """As ``ignore`` is for AWS's hyperparameters of both: ``cat`` here; a target that is empty has the one scale."""
    model = loaded(sequences.deepar(tmp_path / "model", column=4, spread=0.0, grouped=False))
    for cat in ([0, 1], "nonsense", None):
        instance = {**SERIES, "target": [], "dynamic_feat": [[1, 2, 3]], "cat": cat}
        assert [30.0, 60.0, 90.0] == paths(model, instance, 1)[0].tolist()


def test_chances_may_have_heavy_tails(tmp_path: Path) -> None:
    """A Student t of three degrees of freedom has a variance of three, and far draws that normal noise never has."""
    model = loaded(sequences.deepar(tmp_path / "model", Likelihood="student-T", Degrees=3))
    draws = (paths(model, SERIES, 4000)[:, 0] - 6.0) / (sequences.SPREAD * 4.0)
    assert 0.978 == pytest.approx(np.quantile(draws, 0.8), abs=0.08)
    assert np.abs(draws).max() > 8


def test_lines_are_bare_series(walk: ScriptModel) -> None:
    """A line each, answered as the environment says or by AWS's defaults; a document unless Accept asks for lines."""
    body = b"".join(json.dumps(one).encode() + b"\n" for one in (SERIES, {**SERIES, "target": [1.0, 1.0, 1.0]}))
    reply = walk.transform(ScriptCall(body, LINES, LINES))
    assert LINES == reply.content_type
    assert ask(walk, SERIES)[0] == json.loads(reply.body.splitlines()[0])
    assert JSON == walk.transform(ScriptCall(body, LINES, "")).content_type


def test_a_batch_transform_is_configured_by_its_environment(tmp_path: Path) -> None:
    """DEEPAR_INFERENCE_CONFIG; bodies without a type are lines, and so are the answers."""
    config = {"num_samples": 7, "output_types": ["samples", "mean"]}
    model = loaded(
        sequences.deepar(tmp_path / "model"), SAGEMAKER_BATCH="true", DEEPAR_INFERENCE_CONFIG=json.dumps(config)
    )
    reply = model.transform(ScriptCall(json.dumps(SERIES).encode(), "", ""))
    (answer,) = map(json.loads, reply.body.splitlines())
    assert ({"mean", "samples"}, 7) == (answer.keys(), len(answer["samples"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "yesterday"}, "'start' must be a time"),
        ({"start": "2009-11-01T00:00:00+02:00"}, "without a time zone"),
        ({"start": 5}, "'start' must be a time"),
        ({"target": "4, 5"}, "'target' must be a list"),
        ({"target": [1.0, "x", 2.0]}, 'numbers, and "NaN" or null'),
        ({"target": [1.0, True, 2.0]}, 'numbers, and "NaN" or null'),
        ({"target": [1.0, 1e300, 2.0]}, "beyond 1e\\+30"),
        ({"target": [1.0, 2.0]}, "'dynamic_feat' has 6 values, where 5 are needed: 2 of the target and 3"),
        ({"dynamic_feat": None}, "'dynamic_feat' must hold one list of 6"),
        ({"dynamic_feat": [[0, 0, 0, 7, 8, None]]}, "none of them missing"),
        ({"cat": None}, "'cat' must be a list of 2"),
        ({"cat": [0]}, "'cat' must be a list of 2"),
        ({"cat": [0, 3]}, "'cat' has 3 where the model knows 0 to 2"),
        ({"cat": [0, -1]}, "'cat' has -1"),
        ({"cat": [0, True]}, "'cat' has True"),
    ],
)
def test_a_bad_series_is_told_with_its_place(walk: ScriptModel, change: dict[str, Any], words: str) -> None:
    """The whole request fails, naming the instance."""
    with pytest.raises(BadInput, match=f"instance 2: .*{words}"):
        ask(walk, SERIES, {**SERIES, **change})


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"num_samples": 0}, "whole number from 1"),
        ({"num_samples": "50"}, "whole number from 1"),
        ({"num_samples": 10**9}, "send fewer series, or ask for a smaller num_samples"),
        ({"output_types": []}, "some of mean, quantiles, samples"),
        ({"output_types": ["median"]}, "some of mean, quantiles, samples"),
        ({"output_types": [["mean"]]}, "some of mean, quantiles, samples"),
        ({"quantiles": ["1.5"]}, "levels between 0 and 1"),
        ({"quantiles": ["half"]}, "levels between 0 and 1"),
        ({"quantiles": []}, "1 to 100 levels"),
        ({"prediction_length": -3}, "no 'prediction_length'"),
    ],
)
def test_a_bad_configuration_is_told(walk: ScriptModel, configuration: dict[str, Any], words: str) -> None:
    """In a sentence that says what there may be."""
    with pytest.raises(BadInput, match=words):
        ask(walk, SERIES, **configuration)


@pytest.mark.parametrize("instance", [{}, [], 5, None, {"start": "2009-11-01 00:00:00"}])
def test_an_instance_without_its_members_is_bad_input(walk: ScriptModel, instance: Any) -> None:
    """Whatever it is instead."""
    with pytest.raises(BadInput, match="instance 1"):
        ask(walk, instance)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"TimeFreq": "fortnight"}, "TimeFreq must be"),
        ({"PredictionLength": -3}, "PredictionLength must be a whole number from 1"),
        ({"PredictionLength": 10**7}, "PredictionLength must be a whole number from 1"),
        ({"Lags": []}, "Lags must be"),
        ({"Lags": [0, 1]}, "Lags must be whole numbers from 1"),
        ({"Lags": [1]}, "'features' is 5 wide, the settings say 3"),
        ({"Cardinality": [], "Scales": [1]}, "must have the inputs features, hidden; it has features, hidden, cat"),
        ({"Cardinality": [2]}, "'cat' is 2 wide"),
        ({"Scales": [1, 2, 3]}, "Scales must be one number"),
        ({"TimeFeatures": ["moon"]}, "TimeFeatures must be some of"),
        ({"Likelihood": "student-T", "Degrees": 1}, "more than 2 Degrees"),
        ({"Model": "../model.onnx"}, "no file beside it"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(tmp_path: Path, settings_: dict[str, Any], words: str) -> None:
    """When the model is loaded, in a sentence that names the setting."""
    with pytest.raises(LoadFailed, match=words):
        loaded(sequences.deepar(tmp_path / "model", **settings_))


@pytest.mark.parametrize("config", ["{", "[]", '{"num_samples": -1}'])
def test_a_bad_environment_is_refused_when_the_model_is_loaded(tmp_path: Path, config: str) -> None:
    """Not call by call."""
    with pytest.raises(LoadFailed, match="DEEPAR_INFERENCE_CONFIG"):
        loaded(sequences.deepar(tmp_path / "model"), DEEPAR_INFERENCE_CONFIG=config)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["NaN", "mean"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_SERIES = st.fixed_dictionaries(
    {"start": st.sampled_from(["2009-11-01", "0001-01-01", "9999-12-31 23:59:59"]) | _VALUES},
    optional={
        "target": st.lists(st.none() | st.floats(allow_nan=False), max_size=6) | _VALUES,
        "cat": st.just([1, 2]) | _VALUES,
        "dynamic_feat": st.just([[0] * 6]) | _VALUES,
    },
)
_CONFIGURATIONS = st.dictionaries(
    st.sampled_from(["num_samples", "output_types", "quantiles"]), st.integers(-2, 30) | _VALUES, max_size=2
)


@settings(max_examples=80, deadline=None)
@given(instances=st.lists(_SERIES | _VALUES, max_size=3), configuration=_CONFIGURATIONS)
def test_no_request_gives_anything_but_an_answer_or_a_refusal(
    walk: ScriptModel, instances: list[Any], configuration: dict[str, Any]
) -> None:
    """Whatever is in it, the error is the caller's."""
    body = json.dumps({"instances": instances, "configuration": configuration}).encode()
    try:
        reply = walk.transform(ScriptCall(body, JSON, ""))
    except ServingError as error:
        assert 400 <= error.original_status < 500  # type: ignore[attr-defined]
    else:
        assert len(instances) == len(json.loads(reply.body)["predictions"])


@pytest.mark.parametrize(
    ("text", "days", "hours"), [("30min", 0, 0.5), ("H", 0, 1), ("6H", 0, 6), ("D", 1, 0), ("2W", 14, 0)]
)
def test_steps_of_a_series_are_where_the_calendar_has_them(text: str, days: int, hours: float) -> None:
    """Waves of the hour of the day and of the day of the week, against the standard library's dates."""
    step, first = timeline.frequency(text), datetime(2012, 2, 28, 22, 30)
    assert step is not None
    found = timeline.features(["hour_of_day", "day_of_week"], np.datetime64(first, "s"), step, -3, 40)
    for row, number in zip(found, range(-3, 37), strict=True):
        when = first + number * timedelta(days=days, hours=hours)
        for at, part in ((0, when.hour / 24), (4, when.weekday() / 7)):
            waves = [np.sin(2 * np.pi * part), np.cos(2 * np.pi * part)]
            np.testing.assert_allclose(waves, row[at : at + 2], atol=1e-6)


def test_months_are_as_long_as_they_are() -> None:
    """From one January to the next are twelve steps."""
    step = timeline.frequency("M")
    assert step is not None
    found = timeline.features(["month_of_year"], np.datetime64("2015-01-31T00:00:00"), step, 0, 13)
    np.testing.assert_allclose(found[0], found[12], atol=1e-6)
    assert 12 == len({tuple(row.round(4)) for row in found})
