"""ONNX: what is read from a graph about its rows, and graphs that misbehave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.errors import BadInput, LoadFailed, PredictionFailed
from serving.runtimes import registry
from serving.runtimes.base import LoadSettings
from serving.runtimes.formats import recognise
from serving.runtimes.onnx import OnnxModel

Shape = Sequence[int | str | None]


def graph(
    path: Path, nodes: Sequence[Any], inputs: dict[str, tuple[int, Shape]], outputs: dict[str, tuple[int, Shape]]
) -> OnnxModel:
    """A graph written to ``path`` and loaded. Shapes may name free axes."""
    from onnx import helper

    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *values), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    path.write_bytes(model.SerializeToString())
    loaded = registry.load(recognise(path), LoadSettings())
    assert isinstance(loaded, OnnxModel)
    return loaded


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """One operator."""
    from onnx import helper

    return helper.make_node(op, inputs, outputs, **attributes)


FLOAT, INT64, STRING = 1, 7, 8


def test_several_inputs_go_by_name_and_dtype(tmp_path: Path) -> None:
    """Free axes are None, the dtypes are the graph's."""
    model = graph(
        tmp_path / "model.onnx",
        [node("Cast", ["b"], ["c"], to=FLOAT), node("Add", ["a", "c"], ["sum"])],
        {"a": (FLOAT, ["n", 2]), "b": (INT64, ["n", 1])},
        {"sum": (FLOAT, ["n", 2])},
    )
    assert [("a", "float32", (None, 2)), ("b", "int64", (None, 1))] == [tuple(one) for one in model.spec.tensors]
    assert model.batchable
    answer = model.predict({"a": np.ones((3, 2), np.float32), "b": np.array([[1], [2], [3]])})
    np.testing.assert_array_equal([[2, 2], [3, 3], [4, 4]], answer)


@pytest.mark.parametrize(
    "inputs",
    [np.ones((3, 2), np.float32), {"a": np.ones((3, 2), np.float32)}, {"a": np.ones((3, 3)), "b": np.ones((3, 1))}],
)
def test_inputs_that_do_not_fit_are_bad_input(tmp_path: Path, inputs: Any) -> None:
    """One array for two inputs, a missing input, a wrong axis."""
    model = graph(
        tmp_path / "model.onnx",
        [node("Add", ["a", "b"], ["sum"])],
        {"a": (FLOAT, ["n", 2]), "b": (FLOAT, ["n", 1])},
        {"sum": (FLOAT, ["n", 2])},
    )
    with pytest.raises(BadInput):
        model.predict(inputs)


def test_a_fixed_row_axis_bounds_the_batch(tmp_path: Path) -> None:
    """Calls are not stacked, and a call of other rows is refused."""
    shape: tuple[int, Shape] = (FLOAT, [1, 3])
    model = graph(tmp_path / "model.onnx", [node("Relu", ["x"], ["y"])], {"x": shape}, {"y": shape})
    assert (False, 1) == (model.batchable, model.max_batch_rows)
    with pytest.raises(BadInput, match=r"\[2, 3\], the model reads \[1, 3\]"):
        model.predict(np.zeros((2, 3), np.float32))


def test_a_graph_that_mixes_rows_is_never_batched(tmp_path: Path) -> None:
    """Its answer has no row axis, so one call's rows are one question."""
    model = graph(
        tmp_path / "model.onnx",
        [node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)],
        {"x": (FLOAT, ["n", 3])},
        {"y": (FLOAT, [1, 3])},
    )
    assert not model.batchable
    np.testing.assert_allclose([[1, 1, 1]], model.predict(np.ones((5, 3), np.float32)))


@pytest.mark.parametrize(("op", "attributes", "rows_stay"), [("Relu", {}, True), ("ReduceMean", {"axes": [0]}, False)])
def test_where_axes_have_unlike_names_two_rows_tell(tmp_path: Path, op: str, attributes: Any, rows_stay: bool) -> None:
    """Exporters name the output's axis as they like."""
    model = graph(
        tmp_path / "model.onnx",
        [node(op, ["x"], ["y"], **attributes)],
        {"x": (FLOAT, ["n", 3])},
        {"y": (FLOAT, ["m", 3])},
    )
    assert rows_stay == model.batchable


def test_a_state_beside_the_rows_is_never_batched(tmp_path: Path) -> None:
    """Inputs that lead with different axes are not rows of one table."""
    model = graph(
        tmp_path / "model.onnx",
        [node("Add", ["x", "state"], ["y"]), node("Identity", ["state"], ["next"])],
        {"x": (FLOAT, ["n", 3]), "state": (FLOAT, [1, 3])},
        {"y": (FLOAT, ["n", 3]), "next": (FLOAT, [1, 3])},
    )
    assert not model.batchable
    answer = model.predict({"x": np.ones((2, 3), np.float32), "state": np.ones((1, 3), np.float32)})
    assert isinstance(answer, dict)
    assert {"y", "next"} == set(answer)


def test_text_goes_in_and_comes_out_as_text(tmp_path: Path) -> None:
    """ONNX Runtime wants Python strings; the codecs speak numpy's."""
    shape: tuple[int, Shape] = (STRING, ["n", 1])
    model = graph(tmp_path / "model.onnx", [node("Identity", ["x"], ["y"])], {"x": shape}, {"y": shape})
    assert "str" == model.spec.tensors[0].dtype
    answer = model.predict(np.array([["año"], ["b"]]))
    assert isinstance(answer, np.ndarray)
    assert "U" == answer.dtype.kind
    assert [["año"], ["b"]] == answer.tolist()


def test_a_graph_that_fails_at_run_time_is_the_models_fault(tmp_path: Path) -> None:
    """The text is ONNX Runtime's, in one line and without paths."""
    model = graph(
        tmp_path / "model.onnx",
        [node("Reshape", ["x", "to"], ["y"])],
        {"x": (FLOAT, ["n", 3]), "to": (INT64, ["n"])},
        {"y": (FLOAT, ["a", "b"])},
    )
    with pytest.raises((PredictionFailed, BadInput)) as caught:
        model.predict({"x": np.ones((2, 3), np.float32), "to": np.array([7, 7])})
    assert "\n" not in str(caught.value)


def test_external_tensors_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    """A graph may keep tensors in files beside it, and nowhere else."""
    from onnx import TensorProto, helper

    (tmp_path / "secret.bin").write_bytes(np.ones(3, np.float32).tobytes())
    (tmp_path / "folder").mkdir()
    for place, works in (("../secret.bin", False), (str(tmp_path / "secret.bin"), False), ("inside.bin", True)):
        weights = TensorProto(name="w", data_type=FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", place), ("offset", "0"), ("length", "12")):
            entry = weights.external_data.add()
            entry.key, entry.value = key, value
        values = [helper.make_tensor_value_info(name, FLOAT, ["n", 3]) for name in "xy"]
        body = helper.make_graph([node("Add", ["x", "w"], ["y"])], "g", [values[0]], [values[1]], [weights])
        described = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (tmp_path / "folder" / "model.onnx").write_bytes(described.SerializeToString())
        (tmp_path / "folder" / "inside.bin").write_bytes(np.full(3, 2, np.float32).tobytes())
        if works:
            model = registry.load(recognise(tmp_path / "folder"), LoadSettings())
            assert isinstance(model, OnnxModel)
            np.testing.assert_array_equal([[3, 3, 3]], model.predict(np.ones((1, 3), np.float32)))
        else:
            with pytest.raises(LoadFailed) as caught:
                registry.load(recognise(tmp_path / "folder"), LoadSettings())
            assert str(tmp_path) not in str(caught.value)
