"""The filters of a batch job (behaviour/04, "JSONPath subset")."""

from __future__ import annotations

from typing import Any

import jsonpath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.jobs.jsonpath import PathMissing, parse

DOCUMENT = {
    "id": "id7",
    "features": [5.1, 3.5, 1.4, 0.2],
    "rows": [{"a": 1, "b": 2}, {"a": 3}, "text"],
    "deep": {"x": {"y": [[1, 2], [3, 4]]}, "z": {"y": []}},
    "a b": 1,
    "it's": 2,
    "größe": 3,
    "snake_case-2": 4,
}


def select(text: str, document: Any = DOCUMENT) -> Any:
    """What a filter selects."""
    return parse(text, "InputFilter").select(document)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$", DOCUMENT),
        ("$.id", "id7"),
        ("$['id']", "id7"),
        ('$["id"]', "id7"),
        ("$['a b']", 1),
        (r"$['it\'s']", 2),
        ('$["it\'s"]', 2),
        ("$.größe", 3),
        ("$.snake_case-2", 4),
        ("$.deep.x.y[1][0]", 3),
        ("$.features[0]", 5.1),
        ("$.features[-1]", 0.2),
        ("$['id','features']", {"id": "id7", "features": [5.1, 3.5, 1.4, 0.2]}),
        ("$.deep[ 'x' , 'z' ]", {"x": {"y": [[1, 2], [3, 4]]}, "z": {"y": []}}),
        ("$.deep['x','z'].y", [[[1, 2], [3, 4]], []]),
        ("$.deep.*", [{"y": [[1, 2], [3, 4]]}, {"y": []}]),
        ("$.deep.*.y[0]", [[1, 2]]),
        ("$.features[*]", [5.1, 3.5, 1.4, 0.2]),
        ("$.features[0,2]", [5.1, 1.4]),
        ("$.features[2,0]", [1.4, 5.1]),
        ("$.features[1:3]", [3.5, 1.4]),
        ("$.features[1:]", [3.5, 1.4, 0.2]),
        ("$.features[:2]", [5.1, 3.5]),
        ("$.features[:-1]", [5.1, 3.5, 1.4]),
        ("$.features[-2:]", [1.4, 0.2]),
        ("$.features[:]", [5.1, 3.5, 1.4, 0.2]),
        ("$.features[0, 2:]", [5.1, 1.4, 0.2]),
        ("$.features[7:]", []),
        ("$.features[1:99]", [3.5, 1.4, 0.2]),
        ("$.rows[*].a", [1, 3]),
        ("$.rows[:2]['a','b']", [{"a": 1, "b": 2}]),
        ("$.rows[0,1].a", [1, 3]),
        ("$.deep.x.y[:][:]", [1, 2, 3, 4]),
    ],
)
def test_what_is_selected(text: str, expected: Any) -> None:
    """One value for a path of names and indexes; an object for names in one bracket; a list for anything else."""
    assert expected == select(text)


def test_members_come_in_the_order_of_the_filter() -> None:
    """As the reference evaluator writes them."""
    assert ["features", "id"] == list(select("$['features','id']"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("$.features[4]", "no index 4 in 4 values"),
        ("$.features[-5]", "no index -5 in 4 values"),
        ("$.features[0,9]", "no index 9 in 4 values"),
        ("$.nothing", "no member 'nothing'"),
        ("$['id','nothing']", "no member 'nothing'"),
        ("$.rows[0,1].b", "no member 'b'"),
        ("$.id.x", "no member 'x' in a string"),
        ("$.features.x", "no member 'x' in an array"),
        ("$.id[0]", "nothing to index in a string"),
        ("$.deep[0]", "nothing to index in an object"),
        ("$.id.*", "selects nothing in a string"),
        ("$.features[0].*", "selects nothing in a number"),
    ],
)
def test_nothing_there_is_an_error(text: str, why: str) -> None:
    """Of that record: an index outside of it, a name it lacks."""
    with pytest.raises(PathMissing, match=why):
        select(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "character 1: a filter starts with"),
        ("id", "character 1: a filter starts with"),
        ("$id", "character 2: expected"),
        ("$.", "character 2: expected"),
        ("$ .id", "character 2: expected"),
        ("$.a.", "character 4: expected"),
        ("$..id", r"character 2: '\.\.' is not supported"),
        ("$.a[?(@.b)]", "character 4: expressions are not supported"),
        ("$[(1)]", "character 2: expressions"),
        ("$[]", "character 2: brackets hold"),
        ("$[0", "character 2: brackets hold"),
        ("$['a]", "character 2: brackets hold"),
        ("$['a',0]", "character 2: brackets hold"),
        ("$['a'.'b']", "character 2: brackets hold"),
        ("$[a]", "character 2: brackets hold"),
        ("$[1:5:2]", "character 3: expected an index"),
        ("$[0,,1]", "character 5: expected an index"),
        ("$[-]", "character 3: expected an index"),
        ("$[1 2]", "character 3: expected an index"),
        ("$." + "x" * 62, "has 64 characters"),
        ("$[0,0][0,0][0,0][0,0][0,0][0,0][0,0]", "more than 64 times"),
        ("$[:,:,:,:,:][:,:,:,:,:][:,:,:]", "more than 64 times"),
    ],
)
def test_filters_that_are_refused(text: str, why: str) -> None:
    """With the field, the filter and the place."""
    with pytest.raises(ValidationError, match=rf"^OutputFilter .*{why}"):
        parse(text, "OutputFilter")


def test_a_filter_may_have_63_characters() -> None:
    """SageMaker API, DataProcessing."""
    assert 1 == select("$." + "x" * 61, {"x" * 61: 1})


@given(st.text("$.[]*'\",:-?@()\\ ab01", max_size=64))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    """And what is one selects something, or says that nothing is there, from any document."""
    try:
        path = parse("$" + text, "InputFilter")
    except ValidationError:
        return
    for document in (DOCUMENT, [[1, 2], [3, [4]]], {"a": {"b": [0]}}, 1, None):
        try:
            path.select(document)
        except PathMissing as error:
            assert str(error)


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    NAMES.map("['{}']".format),
    NAMES.map(".{}".format),
    st.integers(-3, 3).map("[{}]".format),
    st.just("[*]"),
    st.just(".*"),
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)).map(lambda ends: f"[{ends[0]}:{ends[1]}]"),
    st.integers(-3, 3).map("[{}:]".format),
    st.lists(st.one_of(st.integers(-2, 2).map(str), st.just("1:")), min_size=2, max_size=3).map(
        lambda parts: f"[{','.join(parts)}]"
    ),
)
FULL: Any = {"a": [{"a": 1, "b": [2, 3]}, {"b": [4, 5]}, [6, [7, 8], 9]], "b": {"c": {"a": [0, 1, 2]}}, "c": [[1], [2]]}
DOCUMENTS = st.just(FULL) | st.recursive(
    st.integers() | st.none(),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=15,
)


@given(st.lists(STEPS, max_size=4).map("".join), DOCUMENTS)
@settings(max_examples=500, deadline=None)
def test_it_selects_what_python_jsonpath_does(steps: str, document: Any) -> None:
    """Where the two languages are the same: RFC 9535 has no errors, and no object for names in one bracket
    (and the library takes slices of strings)."""
    try:
        path = parse("$" + steps, "InputFilter")
    except ValidationError as error:
        assert "may select one value more than" in error.message
        return
    expected = jsonpath.findall(path.text, document)
    try:
        found = path.select(document)
    except PathMissing:
        assert [] == expected or "," in steps
        return
    many = "*" in steps or ":" in steps or "," in steps
    if "," in steps and len(expected) != len(found):
        return  # behind '*', an element that lacks one of a union's indexes is left out whole
    assert expected == (found if many else [found])
