"""Two models' answers, compared: by what they are, in bounded memory, nothing of them trusted."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.monitor.difference import OTHER, Pair, compare
from serving.monitor.predictions import Attributes
from serving.monitor.sketches import Correlation, Quantiles
from serving.monitor.values import Complaints, Side


def csv(text: str) -> Side:
    """A captured CSV body."""
    return Side("text/csv", "CSV", text)


def js(value: object) -> Side:
    """A captured JSON body."""
    return Side("application/json", "JSON", json.dumps(value))


def test_labels_are_compared_by_agreement_and_confusion() -> None:
    """Ten answers, two of which differ."""
    pairs = [(csv("1"), csv("1"))] * 5 + [(csv("0"), csv("0.0"))] * 3 + [(csv("0"), csv("1"))] * 2
    found = compare(pairs)
    assert "classification" == found.kind
    assert 0.8 == found.agreement
    assert {("1", "1"): 5, ("0", "0"): 3, ("0", "1"): 2} == found.labels.confusion


def test_texts_are_no_classes_for_those_who_see_no_bodies() -> None:
    """What one caller was told has no name among the labels; a class does."""
    pairs = [(csv("yes"), csv("yes"))] * 3 + [(csv("dear Ann"), csv("dear Bob")), (csv("dear Eve"), csv("yes"))]
    for kind in ("", "classification"):
        told = compare(pairs, kind=kind).as_json()["Classification"]["Confusion"]
        assert [("yes", "yes", 3), (OTHER, OTHER, 1), (OTHER, "yes", 1)] == [tuple(one.values()) for one in told]
    assert "dear Ann" in str(compare(pairs).as_json(bodies=True))
    assert "Classification" not in compare([(csv(f"a{n}"), csv(f"b{n}")) for n in range(400)]).as_json()


def test_probabilities_are_compared_by_class_and_distance() -> None:
    """Numbers from 0 to 1 are probabilities: the class counts, the distance is told."""
    found = compare([(csv("0.9\n0.2"), csv("0.8\n0.6"))])
    assert "classification" == found.kind
    assert 0.5 == found.agreement
    assert pytest.approx(0.4) == found.labels.distance.largest
    assert pytest.approx(0.25) == found.labels.distance.mean


def test_probabilities_of_several_classes_differ_by_total_variation() -> None:
    """Half the sum of the absolute differences."""
    found = compare([(js([[0.7, 0.2, 0.1]]), js([[0.5, 0.1, 0.4]]))])
    assert pytest.approx(0.3) == found.labels.distance.mean
    assert 1.0 == found.agreement


def test_numbers_are_compared_by_their_errors() -> None:
    """Absolute and relative quantiles, and the correlation of 1 of what is twice as large."""
    found = compare([(csv(f"{n}.5"), csv(f"{2 * n + 1}.0")) for n in range(1, 101)])
    assert "regression" == found.kind
    assert 0.0 == found.agreement
    assert pytest.approx(51, rel=0.02) == found.numbers.absolute.at(0.5)
    assert pytest.approx(0.5, rel=0.02) == found.numbers.relative.at(0.99)
    assert pytest.approx(1.0) == found.numbers.correlation


def test_numbers_agree_within_the_tolerance() -> None:
    """The last digits of a float32 are no difference, unless asked for."""
    pairs = [(csv("100.25"), csv("100.25001"))]
    assert 1.0 == compare(pairs).agreement
    assert 0.0 == compare(pairs, tolerance=0.0).agreement


def test_whole_numbers_of_many_values_are_no_classes() -> None:
    """Counts of 0 to 999 are values."""
    found = compare((csv(str(n)), csv(str(n + 1))) for n in range(1000))
    assert "regression" == found.kind
    assert 1.0 == found.numbers.absolute.mean


def test_what_is_no_prediction_is_compared_as_text() -> None:
    """Byte by byte."""
    one, other = Side("image/png", "BASE64", "/9j/"), Side("image/png", "BASE64", "/9j4")
    found = compare([(one, one), (one, one), (one, other), (one, one)])
    assert "text" == found.kind
    assert 0.75 == found.agreement


def test_the_kind_can_be_forced() -> None:
    """The same answers as labels, numbers, text."""
    pairs = [(csv("0.8"), csv("0.80"))]
    assert ["classification", "regression", "text"] == [
        compare(pairs, kind=kind).kind for kind in ("classification", "regression", "text")
    ]
    assert 0.0 == compare(pairs, kind="text").agreement
    with pytest.raises(ValidationError, match="one of classification, regression, text"):
        compare(pairs, kind="poetry")  # type: ignore[arg-type]


def test_unequal_shapes_are_counted() -> None:
    """Two rows against three, rows against nothing: disagreement, not a crash."""
    found = compare([(csv("1\n0"), csv("1\n0\n1")), (csv("1"), csv("")), (csv("1"), csv("1"))])
    assert 2 == found.unequal
    assert pytest.approx(1 / 3) == found.agreement


def test_the_worst_examples_are_kept_with_their_inputs() -> None:
    """The three that differ most of a thousand, the largest first."""
    dice = random.Random(5)
    order = dice.sample(range(1000), 1000)
    pairs = (Pair(csv("0.5"), csv(f"{n + 1}.5"), f"call-{n}", csv(f"row {n}")) for n in order)
    found = compare(pairs, worst=3)
    assert ["call-999", "call-998", "call-997"] == [one.key for one in found.examples]
    assert csv("row 999") == found.examples[0].input
    shown = found.as_json(bodies=True)["Examples"][0]
    assert ("row 999", "1000.5") == (shown["Input"], shown["Second"])
    assert {"Key": "", "Row": 0, "Difference": 1000.0} == found.as_json()["Examples"][0]


def test_an_example_is_a_row_of_its_body() -> None:
    """The second row of two differs."""
    found = compare([(csv("3.5\n7.5"), csv("3.5\n9.5"))])
    assert [(1, 2.0)] == [(one.row, one.difference) for one in found.examples]


def test_labels_without_end_are_counted_together() -> None:
    """A table of ten thousand pairs of labels stays small."""
    found = compare([(csv(f"word{n}"), csv(f"other{n}")) for n in range(3000)])
    assert "text" == found.kind
    assert 1001 == len(found.labels.confusion)
    assert 2000 == found.labels.confusion[OTHER, OTHER]


def test_attributes_say_where_the_prediction_stands() -> None:
    """The label of a JSON answer by its path."""
    first, second = js({"deep": {"kind": "cat"}}), js({"deep": {"kind": "dog"}})
    found = compare([(first, second)], attributes=Attributes(inference="deep.kind"))
    assert {("cat", "dog"): 1} == found.labels.confusion


def test_complaints_tell_of_what_could_not_be_read() -> None:
    """A broken JSON answer is a disagreement with a reason."""
    complaints = Complaints()
    broken = Side("application/json", "JSON", "{")
    found = compare([Pair(js({"score": 1.5}), broken, "call-1")], complaints=complaints)
    assert 0.0 == found.agreement
    assert ["call-1"] == [one.example for one in complaints.all()]


def test_nothing_to_compare_has_no_agreement() -> None:
    """Neither 0 nor 1."""
    assert compare([]).agreement is None
    assert json.dumps(compare([]).as_json())


def _sides() -> st.SearchStrategy[Side]:
    texts = st.one_of(
        st.text(max_size=20),
        st.floats().map(str),
        st.lists(st.one_of(st.floats(), st.text(max_size=3), st.none(), st.integers()), max_size=4).map(json.dumps),
        st.dictionaries(st.sampled_from(["predictions", "score", "label"]), st.lists(st.floats())).map(json.dumps),
    )
    kinds = st.sampled_from(["text/csv", "application/json", "application/jsonlines", "image/png", ""])
    return st.builds(Side, kinds, st.sampled_from(["CSV", "JSON", "BASE64"]), texts)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(_sides(), _sides()), max_size=6), st.sampled_from(["", "classification", "regression", "text"])
)
def test_no_answers_whatever_break_it(pairs: list[tuple[Side, Side]], kind: str) -> None:
    """A report there always is, and JSON can hold it."""
    found = compare(pairs, kind=kind)  # type: ignore[arg-type]
    json.dumps(found.as_json(bodies=True), allow_nan=False)
    assert len(pairs) == found.pairs
    assert found.agreement is None or 0 <= found.agreement <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_within_a_hundredth(values: list[float], q: float) -> None:
    """Of the value that holds the rank."""
    sketch = Quantiles()
    for value in values:
        sketch.add(value)
    exact = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    found = sketch.at(q)
    assert found is not None
    assert abs(exact - found) <= 0.0101 * exact + 1e-300


def test_no_correlation_of_what_never_changes() -> None:
    """A constant goes with nothing."""

    def pairs() -> Iterator[tuple[float, float]]:
        yield from ((1.0, float(n)) for n in range(10))

    found = Correlation()
    for a, b in pairs():
        found.add(a, b)
    assert found.value is None
