"""``algorithm.json`` and the bodies of instances: what is read, and in which sentence the rest is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadInput, CodeNotAllowed, LoadFailed, ModelError, UnsupportedContentType
from serving.runtimes import declaration
from serving.runtimes.algorithms import bodies
from serving.runtimes.base import LoadSettings
from serving.runtimes.declaration import Declaration
from serving.runtimes.formats import recognise
from serving.runtimes.registry import load


def declared(**settings: Any) -> Declaration:
    """A declaration with these settings."""
    return Declaration("kmeans", Path(), settings)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not JSON"),
        ("[", "is not JSON"),
        ('{"Algorithm": NaN}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", 'must be an object with the name of an "Algorithm"'),
        ('{"Algorithm": 5}', 'must be an object with the name of an "Algorithm"'),
        ('{"Algorithm": "hal"}', "there is no algorithm 'hal'; there are .*kmeans"),
        ('{"Algorithm": "kmeans"}', "Model names 'model.onnx', which is no file beside it"),
        ('{"Algorithm": "kmeans", "Model": "../other"}', "which is no file beside it"),
        (f'{{"Algorithm": "kmeans", "Model": "{"a" * 5000}"}}', "Model names 'a{80}', which is no file beside it"),
        ('{"Algorithm": "kmeans", "Model": "\\ud800"}', "which is no file beside it"),
        ('{"Algorithm": "kmeans", "Model": "link"}', "Model leads out of the model's folder"),
    ],
)
def test_declarations_that_cannot_be_followed_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    """At load, in a sentence, without the path of a host."""
    (tmp_path / "other").write_bytes(b"x")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "other")
    (folder / "algorithm.json").write_text(text)
    with pytest.raises(LoadFailed, match=sentence) as told:
        load(recognise(folder), LoadSettings())
    assert str(tmp_path) not in told.value.message


def test_declaration_that_lies_elsewhere_is_not_read(tmp_path: Path) -> None:
    """A link out of the folder would tell what lies there."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "other.json").write_text('{"Algorithm": "hal"}')
    (folder / "algorithm.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(LoadFailed, match=r"algorithm\.json leads out of the model's folder"):
        load(recognise(folder), LoadSettings())


def test_code_beside_a_declaration_is_refused_by_its_own_name(tmp_path: Path) -> None:
    """The declaration is data: it is the pickle that must go, or be allowed."""
    (tmp_path / "algorithm.json").write_text('{"Algorithm": "kmeans"}')
    (tmp_path / "scaler.pkl").write_bytes(pickle.dumps({"mean": 1.0}))
    with pytest.raises(CodeNotAllowed, match=r"'scaler\.pkl' is of the format 'pickle'"):
        load(recognise(tmp_path), LoadSettings())


@pytest.mark.parametrize(
    ("get", "good", "bad"),
    [
        (Declaration.text, "a", [1, None, ["a"]]),
        (Declaration.flag, True, [1, "true", None]),
        (Declaration.whole, 5, [0, 2**31, 1.0, True, "5"]),
        (Declaration.number, 0.5, ["0.5", True, None, float("inf"), 10**400]),
        (Declaration.numbers, [1.0, 2.5], [1.0, ["a"], [True], [float("nan")], [10**400]]),
        (Declaration.words, ["a"], ["a", [1], {"a": 1}]),
    ],
)
def test_settings_are_of_the_type_they_should_be(get: Callable[..., Any], good: Any, bad: list[Any]) -> None:
    """Anything else is told with the setting's name, as is one that is missing."""
    assert good == get(declared(Key=good), "Key")
    for value in bad:
        with pytest.raises(LoadFailed, match=f"{declaration.NAME}: Key must be"):
            get(declared(Key=value), "Key")


def test_numbers_come_as_they_were_written() -> None:
    """Whole ones too, as floats."""
    assert [3.0, 0.5] == declared(Key=json.loads("[3, 0.5]")).numbers("Key")
    with pytest.raises(LoadFailed, match="Key is missing"):
        declared().number("Key")


@pytest.mark.parametrize("content_type", ["", "application/json", "json", "application/octet-stream"])
def test_body_without_a_said_type_is_of_the_first(content_type: str) -> None:
    """A document of instances, with its configuration."""
    found = bodies.instances(b'{"instances":[1,"a"],"configuration":{"k":2}}', content_type)
    assert ([1, "a"], {"k": 2}, bodies.JSON) == found[:3]


@pytest.mark.parametrize("content_type", ["application/jsonlines", "jsonlines", "application/x-ndjson"])
def test_lines_are_instances(content_type: str) -> None:
    """Blank ones are none; a bad one is called by its place in the body."""
    assert ([1, {"a": 2}], bodies.LINES) == bodies.instances(b'1\n\n{"a":2}\r\n', content_type)[::2]
    with pytest.raises(BadInput, match="line 3 is not JSON"):
        bodies.instances(b"1\n\n{", content_type)


def test_types_that_are_not_read_are_refused_with_those_that_are() -> None:
    """415 from the container."""
    with pytest.raises(UnsupportedContentType, match="'text/csv'; it reads application/json, application/jsonlines"):
        bodies.instances(b"1,2", "text/csv")


@given(
    st.one_of(
        st.binary(max_size=30),
        st.dictionaries(st.sampled_from(["instances", "configuration"]), st.none() | st.lists(st.integers()))
        .map(json.dumps)
        .map(str.encode),
    ),
    st.sampled_from(["", bodies.JSON, bodies.LINES, "text/csv", "/"]),
)
def test_any_body_has_instances_or_is_refused(body: bytes, content_type: str) -> None:
    """With at least one instance, and a configuration that is an object."""
    try:
        found = bodies.instances(body, content_type)
    except ModelError as refusal:
        assert refusal.original_status in (400, 415)
    else:
        assert found.rows
        assert isinstance(found.configuration, dict)
