"""Log lines: one record is one line, whatever it holds, and a machine can read it back."""

from __future__ import annotations

import io
import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.watch.logs import JsonFormatter, TextFormatter, configure, printable

FORMATTERS = [JsonFormatter(), TextFormatter()]
#: Text with plenty of what breaks lines, and lone surrogates, which a badly decoded header may hold.
WILD = st.text() | st.text(alphabet='\r\n\x00\x1b\x85\u2028\u2029\u202e\ud800"\\= a')


def record(message: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    """A record made at second 1.5 of 1970."""
    made = logging.LogRecord("serving.app", level, __file__, 1, message, (), None)
    made.created = 1.5
    vars(made).update(fields)
    return made


@pytest.fixture
def restored() -> Iterator[None]:
    """The logging state of the test run, put back."""
    root = logging.getLogger()
    names = (root, logging.getLogger("serving"), logging.getLogger("uvicorn"))
    handlers, levels = root.handlers[:], [logger.level for logger in names]
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    for logger, level in zip(names, levels, strict=True):
        logger.setLevel(level)


def test_a_json_line_holds_the_documented_fields() -> None:
    """Time is UTC in ISO 8601 with milliseconds; extra fields stand beside the fixed ones."""
    line = JsonFormatter().format(record("model loaded", request_id="r-1", endpoint="e", bytes=12, share=0.5))
    assert {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "logger": "serving.app",
        "message": "model loaded",
        "request_id": "r-1",
        "endpoint": "e",
        "bytes": 12,
        "share": 0.5,
    } == json.loads(line)


def test_a_text_line_reads_from_left_to_right() -> None:
    """Time, level, logger, message, then fields; a field of several words is quoted."""
    line = TextFormatter().format(record("model loaded", endpoint="e", reason="too big"))
    assert '1970-01-01T00:00:01.500Z INFO    serving.app: model loaded endpoint=e reason="too big"' == line


def test_empty_fields_are_left_out() -> None:
    """A call without a target model has no model field rather than an empty one."""
    assert "model" not in JsonFormatter().format(record("answered", model="", variant=None))


@pytest.mark.parametrize("formatter", FORMATTERS)
@given(text=WILD)
def test_no_text_breaks_a_line(formatter: logging.Formatter, text: str) -> None:
    """Message, field value and logger name from a hostile caller stay one printable line that can be encoded."""
    line = formatter.format(record(text, endpoint=text))
    assert 1 == len(line.splitlines())
    assert line.isprintable()
    assert line.encode()


@given(text=WILD)
def test_json_gives_back_what_was_logged(text: str) -> None:
    """Escaping loses nothing."""
    assert text == json.loads(JsonFormatter().format(record(text)))["message"]


def test_a_field_cannot_pose_as_another() -> None:
    """A value that holds ``name=value`` is quoted, and its quotes are escaped."""
    line = TextFormatter().format(record("m", endpoint='x" status=200'))
    assert line.endswith('endpoint="x\\" status=200"')


def test_not_a_number_is_still_json() -> None:
    """JSON has no word for NaN: it becomes text."""
    entry = json.loads(JsonFormatter().format(record("m", drift=math.nan)), parse_constant=pytest.fail)
    assert "nan" == entry["drift"]


def test_a_traceback_cannot_forge_an_entry() -> None:
    """Lines of an exception's own text stand behind a bar like the rest of the traceback."""
    try:
        raise ValueError("bad\x1b[2J\n1970-01-01T00:00:00.000Z ERROR   serving: forged")
    except ValueError:
        entry = record("failed", logging.ERROR)
        entry.exc_info = sys.exc_info()
    lines = TextFormatter().format(entry).split("\n")
    assert all(line.startswith("  | ") and line.isprintable() for line in lines[1:])
    assert "forged" in lines[-1]


def test_a_wrong_format_string_keeps_its_entry() -> None:
    """A defect in a log call must not lose what it wanted to say."""
    entry = record("took %d ms")
    entry.args = ("long",)
    assert "took %d ms ('long',)" == json.loads(JsonFormatter().format(entry))["message"]


def test_plain_text_is_not_copied() -> None:
    """The hot case costs one check."""
    text = "größer als 1 €"
    assert text is printable(text)


@pytest.mark.usefixtures("restored")
def test_configuring_twice_logs_once() -> None:
    """A child process configures again after its parent did."""
    stream = io.StringIO()
    configure("text", "info", stream)
    configure("text", "info", stream)
    logging.getLogger("serving.test").info("hello")
    assert 1 == stream.getvalue().count("hello")


@pytest.mark.usefixtures("restored")
def test_libraries_are_heard_from_warnings_up() -> None:
    """The level is ours; a chatty library does not drown it, nor can its warnings be lost."""
    stream = io.StringIO()
    configure("json", "debug", stream)
    logging.getLogger("botocore").info("chatter")
    logging.getLogger("botocore").warning("trouble")
    logging.getLogger("serving.test").debug("detail")
    assert ["trouble", "detail"] == [json.loads(line)["message"] for line in stream.getvalue().splitlines()]


@pytest.mark.usefixtures("restored")
def test_no_colours_where_nobody_looks() -> None:
    """A file or pipe gets plain text."""
    stream = io.StringIO()
    configure("text", "info", stream)
    logging.getLogger("serving.test").error("bad")
    assert "\x1b" not in stream.getvalue()


def test_logging_imports_nothing_of_a_third_party() -> None:
    """Fronts and workers pay for the standard library only."""
    code = "import sys, serving.watch.logs; print(sorted({'typer', 'rich', 'yaml', 'numpy'} & set(sys.modules)))"
    assert "[]\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
