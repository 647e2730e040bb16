"""Predictions out of captured answers: by attributes, by the built-in algorithms' shapes, and out of nonsense."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.monitor.bodies import label_text
from serving.monitor.features import features
from serving.monitor.predictions import Attributes, Prediction, check, decided, labelled, predictions
from serving.monitor.values import Complaints, Side
from tests.monitor.records import json_side, record, side


def found(one: Side, **attributes: Any) -> list[Prediction]:
    """The predictions of an answer that nothing is complained about."""
    complaints = Complaints()
    read = predictions(one, Attributes(**attributes), complaints)
    assert [] == complaints.all()
    return read


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"predictions": [{"score": 0.4, "predicted_label": 0}]}, Prediction("0", 0.4)),
        ({"predictions": [{"score": [0.1, 0.7, 0.2], "predicted_label": 1}]}, Prediction("1", 0.7, (0.1, 0.7, 0.2))),
        ({"predictions": [{"score": 0.25}]}, Prediction(None, 0.25)),
        ({"predictions": [{"closest_cluster": 1.0, "distance_to_cluster": 3.0}]}, Prediction("1")),
        ({"predictions": [{"predicted_label": 0.0, "labels": [0.0, 1.0], "distances": [1, 2]}]}, Prediction("0")),
        ({"scores": [{"score": 0.02}]}, Prediction(None, 0.02)),
        ({"predictions": [[0.25, 0.75]]}, Prediction("1", 0.75, (0.25, 0.75))),
        ({"predictions": [[0.3]]}, Prediction(None, 0.3)),
        ([0.43], Prediction(None, 0.43)),
        (0.43, Prediction(None, 0.43)),
        (["setosa"], Prediction("setosa")),
        ([2], Prediction("2", 2.0)),
        ({"prediction": [0.1, 0.9]}, Prediction("1", 0.9, (0.1, 0.9))),
        ({"label": ["__label__2", "__label__1"], "prob": [0.9, 0.1]}, Prediction("__label__2", 0.9)),
        ({"predictions": [{"label": 1, "probabilities": [0.2, 0.8]}]}, Prediction("1", 0.8, (0.2, 0.8))),
        ([[{"label": "NEG", "score": 0.1}, {"label": "POS", "score": 0.9}]], Prediction("POS", 0.9)),
    ],
    ids=str,
)
def test_built_in_answers_are_understood_without_attributes(answer: Any, expected: Prediction) -> None:
    """Their JSON shapes (``behaviour/10``), and what widespread containers answer."""
    assert [expected] == found(json_side(answer))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("0.43", Prediction(None, 0.43)),
        ("1", Prediction("1", 1.0)),
        ("yes", Prediction("yes")),
        ("0.25,0.75", Prediction("1", 0.75, (0.25, 0.75))),
        ('1,"[0.1, 0.9]"', Prediction("1", 0.9, (0.1, 0.9))),
        ("2,0.1,0.2,0.7", Prediction("2", 0.7, (0.1, 0.2, 0.7))),
        ("no,0.9,0.1", Prediction("no", 0.1, (0.9, 0.1))),
    ],
)
def test_csv_answers_are_understood_without_attributes(row: str, expected: Prediction) -> None:
    """One score, probabilities, a label with them; each line is a row."""
    assert [expected, expected] == found(side(f"{row}\n{row}\n"))


def test_json_lines_are_a_row_a_line() -> None:
    """Also where a container calls them JSON."""
    text = '{"score":0.25}\n{"score":0.5}\n'
    for kind in ("application/jsonlines", "application/json"):
        assert [0.25, 0.5] == [one.score for one in found(json_side(text, kind))]


def test_a_line_of_json_ends_at_its_line_feed() -> None:
    """Other characters that end lines of text may stand in JSON as they are."""
    text = '{"predicted_label":"a\u2028b"}\n{"predicted_label":"c\u0085d"}\r\n'
    assert ["a\u2028b", "c\u0085d"] == [one.label for one in found(json_side(text, "application/jsonlines"))]


def test_attributes_name_columns_by_index_and_by_header() -> None:
    """As EndpointInput has them."""
    assert [Prediction("yes", 0.9)] == found(side("yes,0.9\n"), inference="0", probability="1")
    assert [Prediction("yes", 0.9)] == found(side("said,p\nyes,0.9\n"), inference="said", probability="p")


def test_attributes_name_json_by_path() -> None:
    """One row, several rows, and a list of classes' probabilities."""
    one = {"predictions": [{"score": 0.4, "predicted_label": 7}]}
    path = {"inference": "predictions[0].predicted_label", "probability": "predictions[0].score"}
    assert [Prediction("7", 0.4)] == found(json_side(one), **path)
    two = {"outputs": [{"p": 0.25}, {"p": 0.75}]}
    assert [0.25, 0.75] == [row.score for row in found(json_side(two), probability="outputs[*].p")]
    classes = {"out": {"p": [0.1, 0.2, 0.7]}}
    assert [Prediction("2", 0.7, (0.1, 0.2, 0.7))] == found(json_side(classes), probability="out.p")
    pairs = {"rows": [{"l": "a", "p": [0.9, 0.1]}, {"l": "b", "p": [0.2, 0.8]}]}
    assert [Prediction("a", 0.1, (0.9, 0.1)), Prediction("b", 0.8, (0.2, 0.8))] == found(
        json_side(pairs), inference="rows[*].l", probability="rows[*].p"
    )


def test_a_threshold_decides_what_no_label_says() -> None:
    """A probability greater than it is positive (Developer Guide, bias drift parameters); a named label stands."""
    labels = [row.label for row in found(side("0.6\n0.61\n"), probability="0", threshold=0.6)]
    assert ["0", "1"] == labels
    assert ["1"] == [row.label for row in found(side("0.3,0.7\n"), threshold=0.6)]
    assert ["no"] == [row.label for row in found(side("no,0.9\n"), inference="0", probability="1", threshold=0.5)]
    assert "1" == decided(Prediction(None, 0.51))
    assert "0" == decided(Prediction(None, 0.51), 0.6)
    assert None is decided(Prediction())


@pytest.mark.parametrize(
    ("answer", "rows", "reason"),
    [
        (json_side('{"predictions":'), 0, "a body is not valid JSON"),
        (Side("application/x-npy", "BASE64", "k05VTVBZ"), 0, "a body is not text"),
        (Side("text/csv", "BASE64", "!"), 0, "A captured body is not valid Base64."),
        (json_side([None, {"a": 1}, [[1]], "nan", []]), 5, "a prediction is neither a number nor a label"),
        (side("nan\n-inf\n"), 2, "a prediction is neither a number nor a label"),
    ],
)
def test_what_cannot_be_read_is_complained_about(answer: Side, rows: int, reason: str) -> None:
    """By row, with the call's id, and never raised; rows keep their places."""
    complaints = Complaints()
    assert [Prediction()] * rows == predictions(answer, Attributes(), complaints, "event")
    assert [(reason, max(rows, 1), "event")] == [tuple(one) for one in complaints.all()]


def test_columns_that_are_not_there_are_complained_about() -> None:
    """An index beyond the row, a name that no header has, a path that finds nothing."""
    for answer, name in ((side("1,2\n"), "5"), (side("a,b\n1,2\n"), "c"), (json_side({"a": 1}), "b")):
        complaints = Complaints()
        assert [] == [one for one in predictions(answer, Attributes(name), complaints) if one.label]
        assert 1 == len(complaints.all())


def test_an_attribute_that_is_no_path_is_an_error() -> None:
    """It is the configuration's, not a record's."""
    with pytest.raises(ValidationError, match="JMESPath"):
        check(Attributes(inference="a[["))
    check(Attributes(inference="0", probability="a[*].b"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["score", "predictions", "label"]), inner)
    ),
    max_leaves=12,
)


@given(_JSON, st.sampled_from(["", "predictions[*].score", "label"]), st.sampled_from([None, 0.5]))
def test_no_json_is_too_odd(value: Any, path: str, threshold: float | None) -> None:
    """Whatever a model answers, a run goes on."""
    text = json.dumps(value)
    for answer in (json_side(text), side(text, "text/csv")):
        for one in predictions(answer, Attributes(probability=path, threshold=threshold), Complaints()):
            assert one.score is None or one.score - one.score == 0.0


def test_deep_nesting_is_no_way_out() -> None:
    """As deep as the parser takes it."""
    for text in ("[" * 900 + "]" * 900, '{"score":' * 900 + "1" + "}" * 900):
        predictions(json_side(text), Attributes(), Complaints())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "1"), (1.0, "1"), ("1", "1"), ("1.0", "1"), (" 1 ", "1"), ("+1", "1"), (True, "true"), ("True", "true"),
        ("0.50", "0.5"), (0.5, "0.5"), ("yes", "yes"), (12345678901234567890, "12345678901234567890"),
        ("12345678901234567890", "12345678901234567890"), ("", None), (None, None), ([], None), (float("nan"), None),
        ("1e999", "1e999"),
    ],
)  # fmt: skip
def test_labels_are_compared_in_one_form(value: object, expected: str | None) -> None:
    """Numbers by value, words by letter."""
    assert expected == label_text(value)


def test_rows_and_labels_of_a_call_belong_together_by_order() -> None:
    """Of a call with another number of either, nothing counts, and it is said which call."""
    good = record(output=side("0.1\n0.9\n"))._replace(label="0\n1")
    bad = record(output=side("0.1\n0.9\n"), id="bad")._replace(label="1")
    complaints = Complaints()
    rows = list(labelled([good, bad, record(output=side("1")), good._replace(output=None)], Attributes(), complaints))
    assert [("0", 0.1, 0), ("1", 0.9, 1)] == [(row.label, row.prediction.score, row.row) for row in rows]
    assert ("another number of labels than of predictions", 1, "bad") == complaints.all()[0]
    assert 3 == sum(one.times for one in complaints.all())


def test_features_have_names() -> None:
    """Those of objects, of a header that fits, or indices; paths and exclusions as EndpointInput has them."""
    assert [{"0": "1", "1": None}] == features(side("1,\n"), Attributes())
    assert [{"a": "1", "b": "2"}] == features(side("1,2\n"), Attributes(), ("a", "b"))
    assert [{"b": "2"}] == features(side("1,2\n"), Attributes(exclude="0"), ("a", "b"))
    asked = json_side({"x": [[1, 2], [3, None]]})
    assert [{"a": "1", "b": "2"}, {"a": "3", "b": None}] == features(asked, Attributes(features="x"), ("a", "b"))
    assert [{"a": "1"}] == features(json_side({"instances": [{"a": 1}]}), Attributes(), ("z",))
    with pytest.raises(ValidationError, match="no features"):
        features(asked, Attributes(features="y"))
