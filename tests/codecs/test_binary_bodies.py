"""npy, npz, RecordIO-protobuf, libsvm and raw bytes: what is special about each."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile

import numpy as np
import pytest
from families import image_spec, npy, spec
from hypothesis import given
from hypothesis import strategies as st

from serving.codecs.base import InputSpec, TensorSpec
from serving.codecs.npy import MAX_UNPACKED
from serving.codecs.recordio import FEATURES, LABEL, encode_record, encode_rows, read_records
from serving.codecs.registry import decode
from serving.errors import BadInput, UnsupportedContentType

NPY, NPZ, RECORDIO, RAW = (
    "application/x-npy",
    "application/x-npz",
    "application/x-recordio-protobuf",
    "application/octet-stream",
)
NAN = float("nan")
DENSE = bytes.fromhex("0a23d7ce180000000a160a0676616c756573120c120a0a080000c03f00008041")
SPARSE = bytes.fromhex("0a23d7ce1a0000000a180a0676616c756573120e120c0a04000080401201031a010a0000")


def _npy_with_header(header: str, data: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes((version, 0)) + size + header.encode("latin-1") + data


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1, 2, 3]], ">f4"),
        np.array([[1, 2, 3]], np.int64),
        np.array([[1, 2, 3]], np.uint8),
        np.array([[1, 2, 3]], np.float16),
        np.asfortranarray(np.array([[1, 2, 3]], np.float64)),
        np.array([1, 2, 3], np.float32),
    ],
)
def test_npy_of_other_dtypes_and_orders(array: np.ndarray) -> None:
    """Byte order, memory order and width of numbers are the sender's choice; one flat array is one row."""
    decoded = decode(npy(array), NPY, spec(3))
    assert ([[1, 2, 3]], "float32") == (decoded.inputs.tolist(), decoded.inputs.dtype.name)


def test_npy_fortran_order_keeps_cells_in_place() -> None:
    """A table stored by columns is the same table."""
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert table.tolist() == decode(npy(np.asfortranarray(table)), NPY, spec(3)).inputs.tolist()


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([[1e39, 0, 0]]), "float32"),
        (np.array([[2.0**63, 0, 0]]), "int64"),
        (np.array([[-(2.0**63) * 2, 0, 0]]), "int64"),
        (np.array([[NAN, 0, 0]]), "int64"),
        (np.array([[256, 0, 0]]), "uint8"),
        (np.array([[-1, 0, 0]]), "uint64"),
        (np.array([[1j, 0, 0]]), "float32"),
        (np.array([["1", "2", "3"]]), "float32"),
        (np.array([[2, 0, 1]]), "bool"),
    ],
)
def test_npy_values_that_do_not_fit_are_refused(array: np.ndarray, dtype: str) -> None:
    """No value wraps, overflows or turns into another kind on its way into the model's dtype."""
    with pytest.raises(BadInput):
        decode(npy(array), NPY, spec(3, dtype, 0.0))


def test_npy_objects_are_refused() -> None:
    """Object arrays are pickles."""
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="objects and records are refused"):
        decode(out.getvalue(), NPY, spec(3))


@pytest.mark.parametrize(
    "body",
    [
        _npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"),
        _npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }", b"\0" * 13),
        _npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }"),
        _npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }", b"\0" * 12),
        _npy_with_header("{'descr': '<f3', 'fortran_order': False, 'shape': (1, 3), }", b"\0" * 9),
        _npy_with_header("{'descr': '<U0', 'fortran_order': False, 'shape': (1, 3), }"),
        _npy_with_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", b"\0" * 12),
        _npy_with_header("(" * 4000, b"\0" * 12),
        _npy_with_header(" " * 60000 + "{}", b"\0" * 12),
        _npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 100 + "), }", b"\0" * 4, 2),
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x03\x00\xff\xff\xff\xff{}",
    ],
)
def test_hostile_npy_headers_are_refused(body: bytes) -> None:
    """Declared sizes are compared with the bytes at hand before anything is allocated or parsed deeply."""
    with pytest.raises(BadInput):
        decode(body, NPY, spec(3))


def test_npy_text_with_impossible_characters_is_refused() -> None:
    """Code points beyond Unicode, which numpy would let through, stop here."""
    texts = InputSpec((TensorSpec("text", "str", (None, 1)),))
    header = "{'descr': '<U1', 'fortran_order': False, 'shape': (1, 1), }"
    assert [["a"]] == decode(_npy_with_header(header, b"a\0\0\0"), NPY, texts).inputs.tolist()
    for character in (b"\xff\xff\xff\x7f", b"\x00\xd8\x00\x00"):
        with pytest.raises(BadInput):
            decode(_npy_with_header(header, character), NPY, texts)


def test_npz_holds_inputs_by_name() -> None:
    """A model with several inputs takes one member for each."""
    two = InputSpec((TensorSpec("a", "float32", (None, 2)), TensorSpec("b", "int64", (None,))), 0.0)
    out = io.BytesIO()
    np.savez_compressed(out, b=np.array([7]), a=np.array([[1.5, 2]]))
    decoded = decode(out.getvalue(), NPZ, two)
    assert {"a": [[1.5, 2]], "b": [7]} == {name: array.tolist() for name, array in decoded.inputs.items()}
    for wrong in (
        {"a": np.zeros((1, 2))},
        {"a": np.zeros((1, 2)), "c": np.zeros(1)},
        {"a": np.zeros((2, 2)), "b": np.zeros(1)},
    ):
        out = io.BytesIO()
        np.savez(out, **wrong)
        with pytest.raises(BadInput):
            decode(out.getvalue(), NPZ, two)


def test_zip_bomb_is_refused() -> None:
    """A member that unpacks beyond the limit is given up there, whatever its size is said to be."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(MAX_UNPACKED // (1 << 24) + 1):
            member.write(bytes(1 << 24))
    assert len(out.getvalue()) < 1 << 20
    with pytest.raises(BadInput, match="unpacks to more than"):
        decode(out.getvalue(), NPZ, spec(3))


def test_recordio_check_vectors() -> None:
    """The two records of the format's reference read as they say."""
    assert [[1.5, 16]] == decode(DENSE, RECORDIO, spec(2)).inputs.tolist()
    np.testing.assert_array_equal([[NAN] * 3 + [4] + [NAN] * 6], decode(SPARSE, RECORDIO, spec(10)).inputs)
    assert [[0, 0, 0, 4, 0, 0, 0, 0, 0, 0]] == decode(SPARSE, RECORDIO, spec(10, fill=0.0)).inputs.tolist()
    assert [DENSE] == encode_rows({"values": np.array([[1.5, 16]], np.float32)}, FEATURES)


def _frame(record: bytes) -> bytes:
    return b"\x0a\x23\xd7\xce" + struct.pack("<I", len(record)) + record + bytes(-len(record) % 4)


def _record(tensor: bytes, field: int = 2, key: bytes = b"values") -> bytes:
    value = bytes((field << 3 | 2, len(tensor))) + tensor
    entry = bytes((0x0A, len(key))) + key + bytes((0x12, len(value))) + value
    return bytes((0x0A, len(entry))) + entry


@pytest.mark.parametrize(
    ("field", "tensor"),
    [
        (2, b"\x0a\x08" + struct.pack("<2f", 1, 2)),
        (2, b"\x0d" + struct.pack("<f", 1) + b"\x0d" + struct.pack("<f", 2)),
        (2, b"\x0a\x04" + struct.pack("<f", 1) + b"\x0a\x04" + struct.pack("<f", 2)),
        (2, b"\x0a\x08" + struct.pack("<2f", 1, 2) + b"\x1a\x01\x02"),
        (2, b"\x0a\x08" + struct.pack("<2f", 1, 2) + b"\x1a\x02\x01\x02"),
        (3, b"\x0a\x10" + struct.pack("<2d", 1, 2)),
        (3, b"\x09" + struct.pack("<d", 1) + b"\x09" + struct.pack("<d", 2)),
        (7, b"\x0a\x02\x01\x02"),
        (7, b"\x08\x01\x08\x02"),
        (2, b"\x0a\x08" + struct.pack("<2f", 2, 1) + b"\x12\x02\x01\x00" + b"\x1a\x01\x02"),
        (2, b"\x0a\x08" + struct.pack("<2f", 2, 1) + b"\x10\x01\x10\x00" + b"\x18\x02"),
    ],
)
def test_recordio_tensors_of_every_spelling(field: int, tensor: bytes) -> None:
    """float32, float64 and int32, packed and unpacked, with and without shape and keys, are the same row."""
    assert [[1, 2]] == decode(_frame(_record(tensor, field)), RECORDIO, spec(2)).inputs.tolist()


def test_recordio_negative_integers() -> None:
    """int32 travels as ten bytes of two's complement."""
    tensor = b"\x0a\x0b" + b"\xff" * 9 + b"\x01" + b"\x05"
    assert [[-1, 5]] == decode(_frame(_record(tensor, 7)), RECORDIO, spec(2, "int64", 0.0)).inputs.tolist()


def test_recordio_several_rows_in_one_record() -> None:
    """A [rows, columns] shape spreads one record over rows; a sparse key's row is key div columns."""
    dense = b"\x0a\x10" + struct.pack("<4f", 1, 2, 3, 4) + b"\x1a\x02\x02\x02"
    assert [[1, 2], [3, 4]] == decode(_frame(_record(dense)), RECORDIO, spec(2)).inputs.tolist()
    sparse = b"\x0a\x04" + struct.pack("<f", 9) + b"\x12\x01\x03" + b"\x1a\x02\x02\x02"
    assert [[0, 0], [0, 9]] == decode(_frame(_record(sparse)), RECORDIO, spec(2, fill=0.0)).inputs.tolist()


def test_recordio_other_fields_are_skipped() -> None:
    """Labels, ids and fields of later versions are not features."""
    record = (
        b"\x12\x00" + b"\x1a\x01x" + b"\x78\x05" + _record(b"\x0a\x08" + struct.pack("<2f", 1, 2)) + b"\x7d\0\0\0\0"
    )
    assert [[1, 2]] == decode(_frame(record), RECORDIO, spec(2)).inputs.tolist()


def test_recordio_inputs_by_name() -> None:
    """A model with several inputs takes features under their names."""
    two = InputSpec((TensorSpec("a", "float32", (None, 2)), TensorSpec("b", "int64", (None, 1))), 0.0)
    columns = {"a": np.array([[1, 2], [3, 4]]), "b": np.array([5, 6])}
    decoded = decode(b"".join(encode_rows(columns, FEATURES)), RECORDIO, two)
    assert {"a": [[1, 2], [3, 4]], "b": [[5], [6]]} == {name: array.tolist() for name, array in decoded.inputs.items()}
    with pytest.raises(BadInput, match="no feature 'b'"):
        decode(b"".join(encode_rows({"a": columns["a"]}, FEATURES)), RECORDIO, two)


@pytest.mark.parametrize(
    "tensor",
    [
        b"\x0a\x04" + struct.pack("<f", 9) + b"\x12\x01\x02" + b"\x1a\x01\x02",
        b"\x0a\x04" + struct.pack("<f", 9) + b"\x12\x01\x01",
        b"\x0a\x04" + struct.pack("<f", 9) + b"\x12\x02\x00\x01" + b"\x1a\x01\x02",
        b"\x0a\x08" + struct.pack("<2f", 9, 9) + b"\x12\x02\x01\x01" + b"\x1a\x01\x02",
        b"\x0a\x04" + struct.pack("<f", 9) + b"\x12\x01\x01" + b"\x1a\x0b" + b"\xff" * 9 + b"\x01\x02",
        b"\x0a\x08" + struct.pack("<2f", 9, 9) + b"\x1a\x01\x03",
        b"\x0a\x07" + b"\0" * 7,
        b"\x0a\x04" + struct.pack("<f", 9),
        b"\x12\x01\x80",
        b"",
    ],
)
def test_recordio_tensors_that_contradict_themselves_are_refused(tensor: bytes) -> None:
    """Keys outside or without the shape, repeated keys, wrong counts and cut numbers, boundless shapes."""
    with pytest.raises(BadInput):
        decode(_frame(_record(tensor)), RECORDIO, spec(2))


def test_recordio_short_cut_sees_a_record_that_differs() -> None:
    """A record of the same size whose key differs is not taken for a row of values."""
    odd = _frame(_record(b"\x0a\x08" + struct.pack("<2f", 3, 4), key=b"valueZ"))
    label = odd.replace(b"\x0a\x16", b"\x12\x16")
    assert [[1.5, 16], [3, 4]] == decode(DENSE + odd, RECORDIO, spec(2)).inputs.tolist()
    with pytest.raises(BadInput, match="record 2 has no feature"):
        decode(DENSE + label, RECORDIO, spec(2))


def test_recordio_frames_in_parts_are_refused() -> None:
    """MXNet's continuation flag is not used by SageMaker, so it is an error."""
    with pytest.raises(BadInput, match="several parts"):
        decode(DENSE[:7] + b"\x20" + DENSE[8:], RECORDIO, spec(2))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"0:1.5 2:2", [[1.5, NAN, 2]]),
        (b"1 0:1.5 2:2\n0 1:1\n", [[1.5, NAN, 2], [NAN, 1, NAN]]),
        (b"1:1.5 3:2", [[1.5, NAN, 2]]),
        (b"-1 qid:4 1:1 2:2 # a comment\r\n\r\n+1 3:3", [[1, 2, NAN], [NAN, NAN, 3]]),
        (b"0:nan 1:-inf 2:1e-3", [[NAN, -np.inf, 1e-3]]),
        (b"0:1\n5", [[1, NAN, NAN], [NAN, NAN, NAN]]),
    ],
)
def test_libsvm_rows(body: bytes, expected: list[list[float]]) -> None:
    """Labels are optional; indexes count from 0, or from 1 when none is 0; what is left out is the model's fill."""
    np.testing.assert_array_equal(np.float32(expected), decode(body, "text/x-libsvm", spec(3)).inputs)


def test_libsvm_fill_is_the_models() -> None:
    """A model that reads absent as zero gets zeros."""
    assert [[0, 0, 7]] == decode(b"3:7", "libsvm", spec(3, fill=0.0)).inputs.tolist()


@pytest.mark.parametrize(
    "body",
    [
        b"0:1 3:1",
        b"0:1 0:2",
        b"x 0:1",
        b"0:x",
        b"0:",
        b":1",
        b"-1:1",
        b"0:1 2",
        b"0:1_0",
        b"0:1e999",
        b"0:1:2",
        b"\xff",
        b"9999999999:1",
        b"1,2,3",
    ],
)
def test_bad_libsvm_is_refused(body: bytes) -> None:
    """Indexes beyond the model, repeated ones and what is no number are errors."""
    with pytest.raises(BadInput):
        decode(body, "text/libsvm", spec(3))


def test_libsvm_cannot_ask_for_endless_memory() -> None:
    """For a model of free width the highest index is the width, within bounds."""
    assert (1, 3) == decode(b"0:1 2:1", "text/libsvm", spec(None)).inputs.shape
    with pytest.raises(BadInput, match="too many to expand"):
        decode(b"0:1 999999999:1", "text/libsvm", spec(None))


def test_raw_values_need_a_model_of_fixed_rows() -> None:
    """Raw bytes say nothing of their shape, so only one numeric input of fixed size can be read."""
    values = np.arange(8, dtype="<f4")
    assert values.reshape(2, 2, 2).tolist() == decode(values.tobytes(), RAW, image_spec(2, 2)).inputs.tolist()
    two = InputSpec((TensorSpec("a", "float32", (None, 1)), TensorSpec("b", "float32", (None, 1))))
    for which in (spec(None), spec(1, "str"), two):
        with pytest.raises(UnsupportedContentType):
            decode(values.tobytes(), RAW, which)
    with pytest.raises(BadInput, match="a row is 16 bytes"):
        decode(values.tobytes()[:-1], RAW, image_spec(2, 2))


def test_record_is_written_as_documented() -> None:
    """The worked example of the format, byte for byte."""
    assert DENSE == encode_record({"values": np.array([1.5, 16], np.float32)})


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=40))
def test_whole_numbers_travel_as_int32(numbers: list[int]) -> None:
    """Token ids, also negative ones, come back as they went, with their type."""
    (record,) = read_records(encode_record({"values": np.array(numbers, np.int64)}))
    assert (numbers, "int32") == (record["values"].tolist(), record["values"].dtype.name)


def test_record_keeps_shapes_and_labels() -> None:
    """An array of several axes says its shape; labels lie apart from the features."""
    body = encode_record({"target": np.ones((1, 2, 3)), "shape": np.array([1, 2, 3])}, {"score": np.array([0.5])})
    (features,), (label,) = read_records(body), read_records(body, LABEL)
    assert ((1, 2, 3), [1, 2, 3], [0.5]) == (
        features["target"].shape,
        features["shape"].tolist(),
        label["score"].tolist(),
    )


def test_whole_number_outside_int32_is_not_written() -> None:
    """It would come back as another number."""
    with pytest.raises(ValueError, match="'values' has values outside int32"):
        encode_record({"values": np.array([2**31])})


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (SPARSE, "sparse"),
        (DENSE[:-2], "cut short"),
        (b"hello", "no RecordIO frame"),
        (encode_record({"values": np.empty((0, 2**40))}), "its shape says 0"),
    ],
)
def test_records_that_hold_no_dense_tensors_are_refused(body: bytes, sentence: str) -> None:
    """A model that decodes for itself gets arrays or a sentence."""
    with pytest.raises(BadInput, match=sentence):
        read_records(body)


@given(st.binary(max_size=60))
def test_hostile_records_are_bad_input(tail: bytes) -> None:
    """Whatever a frame holds, the reader answers with records or BadInput."""
    body = DENSE[:4] + len(tail).to_bytes(4, "little") + tail + bytes(-len(tail) % 4)
    with contextlib.suppress(BadInput):
        read_records(body)
