"""What a batch job sends and writes (behaviour/04, "DataProcessing" and "Output")."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BadRecords, ValidationError
from serving.jobs.shaping import Shape, inference_ids
from serving.jobs.splitting import Piece

CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"
STARTED = 1_788_050_955.0  # 2026-08-30T00:49:15Z


def job(
    content_type: str = CSV,
    split: str = "Line",
    *,
    accept: str = "",
    assemble: str = "",
    input_filter: str = "",
    output_filter: str = "",
    join: bool = False,
    ids: bool = False,
) -> dict[str, Any]:
    """A CreateTransformJob body, as far as the shape of records goes."""
    processing = {"InputFilter": input_filter, "OutputFilter": output_filter, "JoinSource": "Input" if join else "None"}
    return {
        "TransformInput": {"ContentType": content_type, "SplitType": split},
        "TransformOutput": {"Accept": accept, "AssembleWith": assemble or split},
        "DataProcessing": {key: value for key, value in processing.items() if value},
        "DataCaptureConfig": {"DestinationS3Uri": "s3://b/c", "GenerateInferenceId": ids},
    }


def shape(*args: Any, **settings: Any) -> Shape:
    """Of such a job."""
    return Shape(job(*args, **settings), STARTED)


def piece(body: bytes, count: int = 0, first: int = 0) -> Piece:
    """Of lines, unless the count is said."""
    return Piece(0, len(body), first, count or body.count(b"\n"), body)


IRIS = b"id7,5.1,3.5,1.4,0.2"
RECORD = b'{"id":"id7","features":[5.1,3.5]}'


@pytest.mark.parametrize(
    ("input_filter", "join", "output_filter", "sent", "written"),
    [
        ("$[1:]", False, "$", b"5.1,3.5,1.4,0.2", b"0.93"),
        ("$[1:]", True, "$", b"5.1,3.5,1.4,0.2", b"id7,5.1,3.5,1.4,0.2,0.93"),
        ("$[1:]", True, "$[0,-1]", b"5.1,3.5,1.4,0.2", b"id7,0.93"),
    ],
)
def test_worked_examples_of_csv(input_filter: str, join: bool, output_filter: str, sent: bytes, written: bytes) -> None:
    """The first table of behaviour/04; alone, and among others."""
    made = shape(CSV, input_filter=input_filter, join=join, output_filter=output_filter)
    one, three = piece(IRIS + b"\n"), piece((IRIS + b"\n") * 3)
    assert sent == made.request(one)
    assert written + b"\n" == made.result(one, b"0.93\n")
    assert (sent + b"\n") * 3 == made.request(three)
    assert (written + b"\n") * 3 == made.result(three, b"0.93\n0.93\n0.93")


@pytest.mark.parametrize(
    ("input_filter", "output_filter", "sent", "written"),
    [
        (
            "$.features",
            "$",
            b"[5.1,3.5]",
            b'{"id":"id7","features":[5.1,3.5],"SageMakerOutput":{"score":0.93}}',
        ),
        ("$.features", "$['id','SageMakerOutput']", b"[5.1,3.5]", b'{"id":"id7","SageMakerOutput":{"score":0.93}}'),
        ("$", "$.SageMakerOutput.score", RECORD, b"0.93"),
    ],
)
def test_worked_examples_of_json_lines(input_filter: str, output_filter: str, sent: bytes, written: bytes) -> None:
    """The second table of behaviour/04; alone, among others, and as JSON one by one."""
    one, three = piece(RECORD + b"\n"), piece((RECORD + b"\n") * 3)
    for content_type in (LINES, JSON):
        made = shape(content_type, input_filter=input_filter, join=True, output_filter=output_filter)
        assert sent == made.request(one)
        assert written + b"\n" == made.result(one, b'{"score":0.93}\n')
        assert (sent + b"\n") * 3 == made.request(three)
        assert (written + b"\n") * 3 == made.result(three, b'{"score":0.93}\n' * 3)


def test_worked_example_of_json_that_is_no_object() -> None:
    """Input and output become an object of the two."""
    made = shape(JSON, "None", join=True)
    assert b'{"SageMakerInput":[1,2],"SageMakerOutput":{"label":1}}' == made.result(piece(b"[1,2]", 1), b'{"label":1}')


# --- CSV ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ("$", b"a,b,c,d"),
        ("$[*]", b"a,b,c,d"),
        ("$[0]", b"a"),
        ("$[-1]", b"d"),
        ("$[1:]", b"b,c,d"),
        ("$[3:]", b"d"),
        ("$[:-1]", b"a,b,c"),
        ("$[:2]", b"a,b"),
        ("$[1:-1]", b"b,c"),
        ("$[-2:]", b"c,d"),
        ("$[2,0]", b"c,a"),
        ("$[0,2:]", b"a,c,d"),
        ("$[9:]", b""),
        ("$[:-9]", b""),
    ],
)
def test_columns(filter_: str, expected: bytes) -> None:
    """Each form, of input and output alike; slices end before their end, and take what there is."""
    rows = piece(b"a,b,c,d\n" * 2)
    assert (expected + b"\n") * 2 == shape(CSV, input_filter=filter_).request(rows)
    assert (expected + b"\n") * 2 == shape(CSV, output_filter=filter_).result(rows, b"a,b,c,d\na,b,c,d\n")


CELLS = st.lists(st.sampled_from(["1", "", "-2.50", "x y", '"a,b"', '"q""q"', '","', '""']), min_size=1, max_size=5)


@given(st.lists(CELLS, min_size=2, max_size=4), st.integers(-6, 6), st.integers(-6, 6))
@settings(max_examples=200, deadline=None)
def test_cells_are_cut_where_commas_are_not_quoted(rows: list[list[str]], start: int, stop: int) -> None:
    """And stay as they were written, quotes and digits."""
    body = "".join(",".join(row) + "\n" for row in rows).encode()
    for text, chosen in ((f"$[{start}:{stop}]", slice(start, stop)), (f"$[{start}:]", slice(start, None))):
        expected = "".join(",".join(row[chosen]) + "\n" for row in rows).encode()
        assert expected == shape(CSV, input_filter=text).request(piece(body))


@pytest.mark.parametrize(
    ("filter_", "bad", "why"),
    [
        ("$[3]", b"1,2,3", "no index 3 in 3 values"),
        ("$[0,-4]", b"1,2,3", "no index -4 in 3 values"),
        ("$[3,0:]", b"1,2,3", "no index 3 in 3 values"),
        ("$[1:]", b'1,"2', "quote is not closed"),
    ],
)
def test_a_bad_row_is_named(filter_: str, bad: bytes, why: str) -> None:
    """An index outside the row is an error, of the record whose number is said."""
    body = b"1,2,3,4\n1,2,3,4\n" + bad + b"\n1,2,3,4\n"
    with pytest.raises(BadRecords, match=f"^Record 13: .*{why}") as raised:
        shape(CSV, input_filter=filter_).request(piece(body, first=10))
    assert 12 == raised.value.record


def test_newlines_of_either_kind() -> None:
    """Rows with CRLF are joined as rows without."""
    made = shape(CSV, join=True)
    assert b"1,2,0.5\n3,4,0.6\n" == made.result(piece(b"1,2\r\n3,4\r\n"), b"0.5\r\n0.6\r\n")
    assert b"2\n4\n" == shape(CSV, input_filter="$[1]").request(piece(b"1,2\r\n3,4\r\n"))


def test_a_whole_object_of_rows() -> None:
    """Without a split, rows are still joined one by one."""
    made = shape(CSV, "None", input_filter="$[1:]", join=True)
    whole = piece(b"a,1\nb,2\n", 1)
    assert b"1\n2\n" == made.request(whole)
    assert b"a,1,0.5\nb,2,0.6" == made.result(whole, b"0.5\n0.6")


@pytest.mark.parametrize(("answer", "known"), [(b"0.5\n", None), (b"0.5\n0.6\n0.7\n", None), (b"", None)])
def test_counts_that_differ(answer: bytes, known: int | None) -> None:
    """Nothing is joined to the wrong row."""
    with pytest.raises(BadRecords, match="mismatched line count between the input and the output") as raised:
        shape(CSV, join=True).result(piece(b"1\n2\n"), answer)
    assert known is raised.value.record


# --- JSON -----------------------------------------------------------------------------------------------------------


def test_what_is_not_touched_keeps_its_text() -> None:
    """Numbers their digits, texts their spelling, of input and answer."""
    digits = b'{"a": 1.50, "b": 12345678901234567890.000, "c": -0, "d": 1E+400, "e": "\\u00e9"}'
    answer = b'{"score": 0.10000000000000000555}'
    made = shape(LINES, join=True).result(piece(digits + b"\n"), answer)
    assert digits[:-1] + b',"SageMakerOutput":' + answer + b"}\n" == made
    chosen = shape(LINES, join=True, output_filter="$['b','c','d','SageMakerOutput']").result(
        piece(digits + b"\n"), answer
    )
    expected = b'{"b":12345678901234567890.000,"c":-0,"d":1E+400,"SageMakerOutput":{"score":0.10000000000000000555}}\n'
    assert expected == chosen


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"{}", b'{"SageMakerOutput":1.0}'),
        (b' {"a":{}} ', b'{"a":{},"SageMakerOutput":1.0}'),
        (b'{"SageMakerOutput":5,"a":2.0}', b'{"SageMakerOutput":1.0,"a":2.0}'),
        (b'{"\\u0053ageMakerOutput":5}', b'{"SageMakerOutput":1.0}'),
        (b'{"a":"SageMakerOutput"}', b'{"a":"SageMakerOutput","SageMakerOutput":1.0}'),
        (b'"text"', b'{"SageMakerInput":"text","SageMakerOutput":1.0}'),
        (b"null", b'{"SageMakerInput":null,"SageMakerOutput":1.0}'),
    ],
)
def test_joined_json(record: bytes, expected: bytes) -> None:
    """An object gets one member, in place of one of that name; anything else is put beside the answer."""
    assert expected + b"\n" == shape(LINES, join=True).result(piece(record + b"\n"), b" 1.0\n")


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=4), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_json_is_joined(pairs: list[tuple[Any, Any]], ascii_: bool) -> None:
    """One document a line, of what was sent and what was answered."""
    body = "".join(json.dumps(given, ensure_ascii=ascii_) + "\n" for given, _ in pairs).encode()
    answer = "".join(json.dumps(answered) + "\n" for _, answered in pairs).encode()
    joined = shape(LINES, join=True).result(piece(body, len(pairs)), answer)
    expected = [
        given | {"SageMakerOutput": answered}
        if isinstance(given, dict)
        else {"SageMakerInput": given, "SageMakerOutput": answered}
        for given, answered in pairs
    ]
    assert expected == [json.loads(line) for line in joined.split(b"\n")[:-1]]


def test_a_document_of_many_lines() -> None:
    """Is one document; where lines are assembled, an answer of many lines is written on one."""
    pretty = b'{\n  "a": 1.0\n}\n'
    assert b'{\n  "a": 1.0\n,"SageMakerOutput":2}' == shape(JSON, "None", join=True).result(piece(pretty, 1), b"2")
    assert b'{"SageMakerInput":1,"SageMakerOutput":{"a":1.0}}\n' == shape(JSON, join=True).result(piece(b"1\n"), pretty)


@pytest.mark.parametrize("bad", [b"", b"{", b"NaN", b"\xff", b"[" * 5000 + b"]" * 5000, b'{"a":1}}'])
def test_a_bad_document_is_named(bad: bytes) -> None:
    """With its number, whether it was sent or answered; deep nesting ends nothing else."""
    good = b'{"a":1}\n'
    body = good + good + bad + b"\n" + good
    for made in (shape(LINES, join=True), shape(LINES, output_filter="$.a")):
        with pytest.raises(BadRecords, match=r"^Record 3: ") as raised:
            made.result(piece(good * 4), body)
        assert 2 == raised.value.record
    with pytest.raises(BadRecords, match=r"^Record 3: "):
        shape(LINES, join=True).result(piece(body), good * 4)
    with pytest.raises(BadRecords, match=r"^Record 3: "):
        shape(LINES, input_filter="$.a").request(piece(body))


def test_text_that_no_utf8_can_hold() -> None:
    """Half of a surrogate pair is kept where nothing is changed, and refused where it must be written anew."""
    half = b'{"a":"\\ud800","b":1}\n'
    assert b'{"a":"\\ud800","b":1,"SageMakerOutput":1}\n' == shape(LINES, join=True).result(piece(half), b"1")
    with pytest.raises(BadRecords, match="surrogate"):
        shape(LINES, input_filter="$.a").request(piece(half))


# --- without DataProcessing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assemble", "answer", "expected"),
    [
        ("Line", b"0.5", b"0.5\n"),
        ("Line", b"0.5\n", b"0.5\n"),
        ("Line", b"0.5\r\n", b"0.5\n"),
        ("Line", b"0.5\n\n", b"0.5\n\n"),
        ("Line", b"0.5\n0.6\n", b"0.5\n0.6\n"),
        ("Line", b"", b"\n"),
        ("None", b"0.5", b"0.5"),
        ("None", b"0.5\n", b"0.5\n"),
    ],
)
def test_results_are_put_together(assemble: str, answer: bytes, expected: bytes) -> None:
    """AssembleWith Line: one newline after each; None: as they come."""
    assert expected == shape("application/x-whatever", assemble=assemble).result(piece(b"1\n"), answer)


def test_records_go_as_they_are() -> None:
    """Many with their newlines, one without, and other formats as they were cut."""
    assert b"1\r\n\n2" == shape().request(piece(b"1\r\n\n2", 3))
    assert b"1" == shape().request(piece(b"1\r\n"))
    assert b"\x00\n" == shape("application/x-recordio-protobuf", "RecordIO", assemble="None").request(
        piece(b"\x00\n", 1)
    )
    assert b"{}\n" == shape(JSON, "None").request(piece(b"{}\n", 1))


def test_what_stands_for_a_bad_record() -> None:
    """An empty line, so that line numbers still tell whose result it is; nothing beside joined records."""
    assert b"\n" == shape().result_for_bad()
    assert b"\n\n" == shape().result_for_bad(2)
    assert b"" == shape(join=True).result_for_bad()
    assert b"" == shape(JSON, "None").result_for_bad()


@pytest.mark.parametrize(
    ("settings", "accept"),
    [({}, ""), ({"accept": "a/b"}, "a/b"), ({"join": True}, "text/csv"), ({"ids": True}, "text/csv")],
)
def test_what_the_model_is_asked_for(settings: dict[str, Any], accept: str) -> None:
    """Accept; where answers are worked on, it is ContentType when it is not said."""
    assert accept == shape(**settings).accept


# --- inference ids --------------------------------------------------------------------------------------------------


def test_inference_ids_of_csv() -> None:
    """Two more columns, as in the reference."""
    made = shape(ids=True, join=True, output_filter="$[0,-1]")
    first, second = inference_ids("arn/s3://b/in.csv", 7, 2)
    written = made.result(piece(b"a,1\nb,2\n", first=7), b"0\n1\n", "arn/s3://b/in.csv")
    assert f"a,0,{first},2026-08-30T00:49:15Z\nb,1,{second},2026-08-30T00:49:15Z\n".encode() == written


@pytest.mark.parametrize(
    ("answer", "before"),
    [
        (b'{"label":0}', '{"label":0,'),
        (b"0.50", '{"SageMakerOutput":0.50,'),
    ],
)
@pytest.mark.parametrize("content_type", [LINES, JSON])
def test_inference_ids_of_json(content_type: str, answer: bytes, before: str) -> None:
    """Two more members; a result that is no object stands beside them."""
    (id_,) = inference_ids("s", 0, 1)
    expected = f'{before}"SageMakerInferenceId":"{id_}","SageMakerInferenceTime":"2026-08-30T00:49:15Z"}}\n'
    assert expected.encode() == shape(content_type, ids=True).result(piece(b"{}\n"), answer, "s")


def test_inference_ids_are_the_same_when_work_is_done_again() -> None:
    """UUIDs of the record's place, however the object is cut; of another object they are others."""
    ids = list(inference_ids("arn/s3://b/in.csv", 0, 50))
    assert ids[20:] == list(inference_ids("arn/s3://b/in.csv", 20, 30))
    assert not set(ids) & set(inference_ids("arn/s3://b/in2.csv", 0, 50))
    name = uuid.uuid5(uuid.NAMESPACE_URL, "arn/s3://b/in.csv")
    assert [str(uuid.uuid5(name, str(index))) for index in range(50)] == ids


def test_an_inference_id_is_of_a_record() -> None:
    """An answer of another number of results is refused, as in a join."""
    with pytest.raises(BadRecords, match="mismatched line count"):
        shape(ids=True).result(piece(b"1\n2\n"), b"1\n2\n3\n")


def test_inference_ids_of_binary_input() -> None:
    """Only the answer needs to be text."""
    made = shape("application/x-recordio-protobuf", "RecordIO", accept=CSV, assemble="Line", ids=True)
    assert 2 == made.result(piece(b"\x00" * 32, 2), b"1\n2\n").count(b",2026-08-30T00:49:15Z\n")


# --- what does not go together --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"content_type": "image/png", "join": True}, "ContentType"),
        ({"content_type": "", "input_filter": "$.a"}, "ContentType"),
        ({"accept": JSON, "join": True}, "Accept"),
        ({"content_type": JSON, "accept": LINES, "output_filter": "$.a"}, "Accept"),
        ({"assemble": "None", "join": True}, "AssembleWith"),
        ({"split": "None", "assemble": "Line", "input_filter": "$[1:]"}, "AssembleWith"),
        ({"split": "RecordIO", "assemble": "None", "join": True}, "SplitType RecordIO"),
        ({"input_filter": "$.a"}, r"InputFilter '\$.a' selects by name"),
        ({"output_filter": "$['a']"}, "OutputFilter .* selects by name"),
        ({"output_filter": "$[1:][0]"}, "OutputFilter .* more than once"),
        ({"input_filter": "$..a"}, "InputFilter .* character 2"),
        ({"output_filter": "x"}, "OutputFilter .* character 1"),
        ({"content_type": "image/png", "ids": True}, "GenerateInferenceId"),
        ({"content_type": "text/csv; header=present"}, "header"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], why: str) -> None:
    """Refused before anything is read, with the field."""
    with pytest.raises(ValidationError, match=why):
        shape(**settings)


def test_other_spellings_of_the_same_format() -> None:
    """Parameters, capitals and the second name of JSON Lines make no difference."""
    assert shape("Text/CSV; charset=utf-8", accept="text/csv", join=True)
    assert shape("application/x-ndjson", accept=LINES, join=True)
    assert Shape({"TransformInput": {}, "TransformOutput": {}})
