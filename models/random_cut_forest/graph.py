"""The walk through a forest as an ONNX graph: data only, and quicker than numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.random_cut_forest.forest import NEAR, Forest

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSET, _IR = 17, 8
#: One step down, of all trees at once: ``Forest.scores``' loop, line by line. {0} is the step, {1} the next one.
_STEP = """
    box{0}_bounds = Gather <axis = 0> (boxes, box{0})
    box{0}_over = Sub (box{0}_bounds, point)
    box{0}_outside = Relu (box{0}_over)
    outside{0} = ReduceSum <keepdims = 0> (box{0}_outside, last_axis)
    sides{0} = Gather (sides, box{0})
    extended{0} = Add (outside{0}, sides{0})
    chance{0} = Div (outside{0}, extended{0})
    parts{0} = Mul (here{0}, chance{0})
    here{1} = Sub (here{0}, parts{0})
    parted{0} = Gather (parted, box{0})
    joined{0} = Gather (joined, box{0})
    gained{0} = Mul (parts{0}, parted{0})
    stayed{0} = Mul (here{1}, joined{0})
    adds{0} = Add (gained{0}, stayed{0})
    total{1} = Add (total{0}, adds{0})
    column{0} = Gather (column, box{0})
    value{0} = GatherElements <axis = 1> (features, column{0})
    cut{0} = Gather (cut, box{0})
    goes_left{0} = LessOrEqual (value{0}, cut{0})
    left{0} = Gather (left, box{0})
    right{0} = Gather (right, box{0})
    box{1} = Where (goes_left{0}, left{0}, right{0})
"""


def graph(forest: Forest, name: str) -> ModelProto:
    """``features`` float32 [rows, columns] -> ``score`` float32 [rows]. The steps stand one after the other: a loop in
    the graph costs more than the steps that an early end would save."""
    from onnx import numpy_helper, parser

    steps = "".join(_STEP.format(number, number + 1) for number in range(forest.height))
    text = f"""<ir_version: {_IR}, opset_import: ["" : {_OPSET}]>
    forest (float[rows, {forest.boxes.shape[1] // 2}] features) => (float[rows] score) {{
    negated = Neg (features)
    both = Concat <axis = 1> (features, negated)
    point = Unsqueeze (both, middle_axis)
    none = ReduceSum <keepdims = 1> (features, last_axis_of_two)
    zero = Sub (none, none)
    total0 = Mul (zero, ones)
    here0 = Add (total0, ones)
    nowhere = Cast <to = 7> (total0)
    box0 = Add (nowhere, roots)
    {steps}
    score = ReduceMean <axes = [1], keepdims = 0> (total{forest.height})
    }}"""
    model = parser.parse_model(text)
    model.graph.name = name
    tables = {
        "boxes": forest.boxes,
        "sides": forest.sides + NEAR,
        "parted": forest.parted,
        "joined": forest.joined,
        "column": forest.column,
        "cut": forest.cut,
        "left": forest.left,
        "right": forest.right,
        "roots": forest.roots,
        "ones": np.ones(len(forest.roots), np.float32),
        "last_axis": np.array([2]),
        "last_axis_of_two": np.array([1]),
        "middle_axis": np.array([1]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in tables.items())
    return model
