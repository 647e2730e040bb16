"""Content-Type and Accept, as headers spell them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.codecs.registry import negotiate, parse_media_type
from serving.errors import NotAcceptable, UnsupportedContentType

JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
OFFERED = [JSON, LINES, CSV]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("text/csv", ("text/csv", {})),
        ("Text/CSV;Label_Size=0", ("text/csv", {"label_size": "0"})),
        (' application/json ; charset="UTF-8" ; a=B;', ("application/json", {"charset": "UTF-8", "a": "B"})),
        ("csv", ("csv", {})),
        ('a/b; c="x;y, z"', ("a/b", {"c": "x;y, z"})),
        ("a/b; c=8,12; d=1", ("a/b", {"c": "8,12", "d": "1"})),
    ],
)
def test_media_types_are_parsed(header: str, expected: tuple[str, dict[str, str]]) -> None:
    """Type and parameter names in lower case, values as they are."""
    assert expected == parse_media_type(header)


@pytest.mark.parametrize(
    "header", ["", " ", "/", "text/", "text/csv,", "text/csv; =1", "a b", "a/b; c d", "é/b", 'a/b; c="']
)
def test_bad_media_types_are_unsupported(header: str) -> None:
    """What is no media type is 415."""
    with pytest.raises(UnsupportedContentType):
        parse_media_type(header)


@given(st.text(max_size=60))
def test_any_header_parses_or_is_refused(header: str) -> None:
    """No header text raises anything but the two documented errors."""
    try:
        parse_media_type(header)
    except UnsupportedContentType as error:
        assert error.message
    try:
        assert negotiate(header, JSON, OFFERED)[0] in OFFERED
    except NotAcceptable as error:
        assert error.message


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("  ", JSON),
        ("*/*", JSON),
        ("*", JSON),
        ("text/csv", CSV),
        ("TEXT/CSV", CSV),
        ("text/*", CSV),
        ("application/*", JSON),
        ("text/csv, application/json", JSON),
        ("application/jsonlines, text/csv", LINES),
        ("text/csv, application/jsonlines", CSV),
        ("text/csv;q=0.5, application/json;q=0.4", CSV),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        ("application/json;q=0, */*", LINES),
        ("application/*;q=0.2, text/csv;q=0.1, application/json;q=0", LINES),
        ("nonsense here, text/csv", CSV),
        ("text/csv;q=nan, application/jsonlines;q=0.1", LINES),
        ("text/csv;q=x, application/jsonlines", LINES),
    ],
)
def test_accept_is_negotiated(accept: str, expected: str) -> None:
    """Quality first; between equals the model's default, then the caller's order. Precision beats wildcards."""
    assert expected == negotiate(accept, JSON, OFFERED)[0]


def test_accept_parameters_are_handed_on() -> None:
    """The parameters of the member that won come back, without q."""
    accept = 'text/csv;q=0.1, application/json; Verbose=true; q=1.0; note="a, b"'
    assert (JSON, {"verbose": "true", "note": "a, b"}) == negotiate(accept, CSV, OFFERED)


@pytest.mark.parametrize("accept", ["image/png", "text/html", "*/*;q=0", "application/json;q=0", "???", "image/*"])
def test_nothing_acceptable_is_an_error(accept: str) -> None:
    """406, with what the model does answer in."""
    with pytest.raises(NotAcceptable, match="application/json, application/jsonlines, text/csv"):
        negotiate(accept, JSON, OFFERED)
