"""Captured bodies and datasets as tables of text."""

from __future__ import annotations

import base64
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadObject, ValidationError
from serving.monitor.tables import dataset, tables
from serving.monitor.values import Complaint, Complaints, Record, Side
from tests.monitor.records import json_side, record, side


def columns(records: list[Record], complaints: Complaints | None = None, **asked: Any) -> dict[str, list[str | None]]:
    """All rows of all tables."""
    found = list(tables(records, complaints or Complaints(), **asked))
    return pa.concat_tables(found, promote_options="default").to_pydict() if found else {}


def rows_of(body: Side) -> dict[str, list[str | None]]:
    """The table of one input."""
    return columns([record(body)], side="input")


def test_outputs_stand_before_inputs() -> None:
    """Nameless columns are counted through."""
    calls = [record(side("1,a\n"), side("0.5")), record(side("2,b\r\n3,\n"), side("0.25\n0.75\n"))]
    expected = {"_c0": ["0.5", "0.25", "0.75"], "_c1": ["1", "2", "3"], "_c2": ["a", "b", None]}
    assert expected == columns(calls)


def test_one_direction() -> None:
    """Counted from 0; a direction that no record has is none of the columns."""
    calls = [record(side("1,2"), side("0.5"))]
    assert {"_c0": ["1"], "_c1": ["2"]} == columns(calls, side="input")
    assert {"_c0": ["0.5"]} == columns(calls, side="output")
    assert {"_c0": ["1"]} == columns([record(side("1"))])


def test_a_header_names_nameless_columns_only() -> None:
    """In order; columns behind it are numbered."""
    assert {"y": ["0.5"], "a": ["1"], "_c2": ["2"]} == columns([record(side("1,2"), side("0.5"))], header=["y", "a"])
    named = record(json_side({"a": 1}), side("0.5"))
    assert {"y": ["0.5"], "a": ["1"]} == columns([named], header=["a", "y"])


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([1, 2.5, "x", None, True], {"_c0": ["1"], "_c1": ["2.5"], "_c2": ["x"], "_c3": [None], "_c4": ["true"]}),
        ([[1, 2], [3, 4]], {"_c0": ["1", "3"], "_c1": ["2", "4"]}),
        ({"instances": [[1, 2], [3, 4]]}, {"_c0": ["1", "3"], "_c1": ["2", "4"]}),
        ({"instances": [{"features": [1, 2]}]}, {"_c0": ["1"], "_c1": ["2"]}),
        ({"instances": [{"data": {"features": {"values": [1, 2]}}}]}, {"_c0": ["1"], "_c1": ["2"]}),
        ({"instances": ["a good film", "a bad one"]}, {"_c0": ["a good film", "a bad one"]}),
        ({"features": [1, 2]}, {"_c0": ["1"], "_c1": ["2"]}),
        ({"a": 5, "who": {"is": "Zoë"}, "xs": [1, 2]}, {"a": ["5"], "who.is": ["Zoë"], "xs.0": ["1"], "xs.1": ["2"]}),
        ([{"a": 1}, {"b": 2}], {"a": ["1", None], "b": [None, "2"]}),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}, {"a": ["1", "3"], "b": ["2", "4"]}),
        ({"dataframe_records": [{"a": 1}]}, {"a": ["1"]}),
        ({"inputs": [{"name": "a", "shape": [2], "data": [1, 2]}]}, {"a": ["1", "2"]}),
        ({"inputs": {"a": [1, 2], "b": [[3, 4], [5, 6]]}}, {"a": ["1", "2"], "b.0": ["3", "5"], "b.1": ["4", "6"]}),
        ({"predictions": [{"score": 0.4, "predicted_label": 0}]}, {"score": ["0.4"], "predicted_label": ["0"]}),
        (7, {"_c0": ["7"]}),
    ],
)  # fmt: skip
def test_the_shapes_of_json_bodies(document: Any, expected: dict[str, list[str | None]]) -> None:
    """Requests and answers as servers and algorithms write them."""
    assert expected == rows_of(json_side(document))


def test_json_lines_and_base64_by_content_type() -> None:
    """What a body was captured as does not hide what it is."""
    lines = '{"a": 1}\n{"a": 2}\n'
    assert {"a": ["1", "2"]} == rows_of(json_side(lines, "application/jsonlines"))
    coded = base64.b64encode(b"1,2\n3,4\n").decode()
    assert {"_c0": ["1", "3"], "_c1": ["2", "4"]} == rows_of(Side("text/csv", "BASE64", coded))


def test_a_header_in_the_body() -> None:
    """RFC 4180's parameter, and a byte order mark."""
    assert {"a": ["1"], "b": ["2"]} == rows_of(side("\ufeffa,b\n1,2\n", "text/csv; header=present"))


def test_encodings_may_differ_from_call_to_call() -> None:
    """CSV, JSON and Base64 of the same model."""
    coded = base64.b64encode(b"5,6").decode()
    calls = [record(side("1,2")), record(json_side([[3, 4]])), record(Side("text/csv", "BASE64", coded))]
    found = columns(calls)
    assert [("1", "2"), ("3", "4"), ("5", "6")] == sorted(zip(*found.values(), strict=True))


def test_answers_in_one_line_are_one_for_each_row() -> None:
    """Older XGBoost containers join rows with commas."""
    assert {"_c0": ["0.1", "0.2"], "_c1": ["1", "2"]} == columns([record(side("1\n2"), side("0.1,0.2"))])


def test_quotes_spaces_and_empty_cells() -> None:
    """As the codec reads them."""
    calls = [record(side('"a,b", 1 ,"say ""x"""')), record(side(" c ,  ,")), record(side("d,2,\r\n"))]
    expected = {"_c0": ["a,b", "c", "d"], "_c1": ["1", None, "2"], "_c2": ['say "x"', None, None]}
    assert expected == columns(calls)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (record(side("1,2,3"), side("0.5"), id="bad"), "a row has another width than most"),
        (record(side("1,2\n3"), side("0.5\n0.5"), id="bad"), "a row has another width than most"),
        (record(side("1,2\n3,4"), side("0.5"), id="bad"), "another number of answers than of rows"),
        (record(side("1,2"), None, id="bad"), "a call without its answer"),
        (record(None, side("0.5"), id="bad"), "a call without its input"),
        (record(side(""), side("0.5"), id="bad"), "a body has no rows"),
        (record(json_side("{"), side("0.5"), id="bad"), "a body is not valid JSON"),
        (record(Side("image/png", "BASE64", "iVBORw0KGgo="), side("0.5"), id="bad"), "a body is not text"),
        (record(Side("image/png", "BASE64", "%"), side("0.5"), id="bad"), "A captured body is not valid Base64."),
        (record(json_side({"features": {"keys": [1], "values": [1]}}), side("0.5"), id="bad"),
         "a sparse row has no columns"),
        (record(json_side([[0] * 5000]), side("0.5"), id="bad"), "a row has too many columns"),
        (record(json_side([[{"a": 1}]]), side("0.5"), id="bad"), "a row is a list of objects"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_told_of_and_costs_only_itself(bad: Record, reason: str) -> None:
    """Wherever it stands among many."""
    good = [record(side("1,2"), side("0.5")) for _ in range(100)]
    complaints = Complaints()
    found = columns([*good[:70], bad, *good[70:]], complaints)
    assert {"_c0": ["0.5"] * 100, "_c1": ["1"] * 100, "_c2": ["2"] * 100} == found
    assert [Complaint(reason, 1, "bad")] == complaints.all()


def test_names_made_of_ids_do_not_fill_the_memory() -> None:
    """Columns are counted over all tables; rows that come with new ones are told of in the end."""
    complaints = Complaints()
    calls = [record(json_side({f"id-{number}": 1, "a": 2})) for number in range(5000)]
    found = list(tables(calls, complaints, rows=1000))
    assert 4096 == len({name for table in found for name in table.column_names})
    assert [("a row has columns that no other has, too many by now", 5000 - 4095)] == [
        one[:2] for one in complaints.all()
    ]


@given(
    st.lists(
        st.builds(
            record,
            st.none() | st.builds(side, st.text(), st.sampled_from(["text/csv", "application/json", "x"]),
                                  st.sampled_from(["CSV", "JSON", "BASE64"])),
            st.none() | st.builds(side, st.text(alphabet='1,.\n\r" a[]{}:'), st.just("text/csv")),
        ),
        max_size=80,
    ),
    st.sampled_from(["input", "output", "both"]),
)  # fmt: skip
def test_junk_never_raises(calls: list[Record], which: Any) -> None:
    """Whatever was captured."""
    for table in tables(calls, Complaints(), side=which, rows=40):
        assert all(pa.types.is_string(field.type) for field in table.schema)


@given(st.lists(st.lists(st.text(alphabet='ab1,."\n é', min_size=1), min_size=2, max_size=2), min_size=1, max_size=60))
def test_many_bodies_at_once_are_read_as_each_alone(rows: list[list[str]]) -> None:
    """Quotes, separators and line breaks in cells included."""
    quoted = ['"' + '","'.join(cell.replace('"', '""') for cell in row) + '"' for row in rows]
    expected = [tuple(cell.strip() or None for cell in row) for row in rows]
    found = columns([record(side(row)) for row in quoted])
    assert expected == list(zip(*found.values(), strict=True))


def read_dataset(content: bytes, kind: str, complaints: Complaints | None = None, **asked: Any) -> dict[str, Any]:
    """All rows of a dataset."""
    found = list(dataset(io.BytesIO(content), kind, complaints or Complaints(), **asked))
    return pa.concat_tables(found, promote_options="default").to_pydict() if found else {}


def test_a_csv_dataset() -> None:
    """Names made unique, quoted line breaks, cells without the space around them, ragged rows told of."""
    complaints = Complaints()
    content = 'a,a,\r\n1, 2 ,"x\ny"\r\n1,2\r\n\r\n,3,ü\r\n'.encode()
    assert {"a": ["1", None], "a_1": ["2", "3"], "_c2": ["x\ny", "ü"]} == read_dataset(content, "train.csv", complaints)
    assert [("a row has another width than most", 1)] == [one[:2] for one in complaints.all()]


def test_a_csv_dataset_without_a_header_or_rows() -> None:
    """Numbered names; no rows, no table."""
    assert {"_c0": ["1"], "_c1": ["2"]} == read_dataset(b"1,2", "text/csv", header=False)
    assert {} == read_dataset(b"", "text/csv")


def test_a_json_lines_dataset() -> None:
    """A line that is none is told of."""
    complaints = Complaints()
    assert {"a": ["1", "2"]} == read_dataset(b'{"a": 1}\n{"a"\n\n{"a": 2}', "application/jsonlines", complaints)
    assert [("a line is not valid JSON, or no row", 1, "line 2")] == complaints.all()


def test_a_parquet_dataset() -> None:
    """Types are told by text, so a float keeps its point; a column of lists is none."""
    complaints, file = Complaints(), io.BytesIO()
    table = pa.table(
        {
            "f": [1.0, 2.5, None],
            "i": [1, 2, None],
            "s": ["x", None, "y"],
            "b": [True, False, None],
            "d": pa.array(["u", "v", None]).dictionary_encode(),
            "l": [[1], None, []],
        }
    )
    pq.write_table(table, file)
    expected = {
        "f": ["1.0", "2.5", None],
        "i": ["1", "2", None],
        "s": ["x", None, "y"],
        "b": ["true", "false", None],
        "d": ["u", "v", None],
    }
    assert expected == read_dataset(file.getvalue(), "train.parquet", complaints)
    assert [("a column has lists or objects for values", 1, "l")] == complaints.all()


def test_what_is_no_dataset_is_refused() -> None:
    """By its name, or by its content."""
    with pytest.raises(ValidationError):
        read_dataset(b"1", "train.xlsx")
    with pytest.raises(BadObject):
        read_dataset(b"1", "train.parquet")
    with pytest.raises(BadObject):
        read_dataset(b"a,b\n\xff,1\n", "train.csv")
