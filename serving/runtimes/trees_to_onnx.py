"""An XGBoost tree ensemble as an ONNX graph: for few rows ONNX Runtime walks trees several times faster.

Own converter, about a page: the booster's JSON (XGBoost's model schema, ``doc/model.schema``) in, ``ModelProto`` bytes
out. It says None to whatever it does not know to be equal: categorical splits, DART weights, several targets in a leaf,
objectives outside the table. The caller still compares answers before it trusts the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from serving.runtimes import onnx_bytes

INPUT = "features"
OUTPUT = "scores"
#: Above this many nodes the conversion costs more memory and time than few-row calls can win back.
MAX_NODES = 1_000_000


def _identity(base: np.float32) -> np.float32:
    return base


def _logit(base: np.float32) -> np.float32:
    """In float32 and in XGBoost's own form: one bit off here is one bit off in every margin."""
    return np.float32(-np.log(np.float32(1.0) / base - np.float32(1.0)))


#: Objective -> (transform of the margin, the inverse that takes ``base_score`` into margin space).
#: XGBoost ``src/objective/*.cc``: ``PredTransform`` and ``ProbToMargin`` of each objective.
OBJECTIVES: dict[str, tuple[str, Callable[[np.float32], np.float32]]] = {
    "reg:squarederror": ("identity", _identity),
    "reg:squaredlogerror": ("identity", _identity),
    "reg:pseudohubererror": ("identity", _identity),
    "reg:absoluteerror": ("identity", _identity),
    "reg:quantileerror": ("identity", _identity),
    "reg:logistic": ("sigmoid", _logit),
    "binary:logistic": ("sigmoid", _logit),
    "binary:logitraw": ("identity", _identity),
    "multi:softprob": ("softmax", _identity),
    "count:poisson": ("exp", np.log),
    "reg:gamma": ("exp", np.log),
    "reg:tweedie": ("exp", np.log),
    "rank:pairwise": ("identity", _identity),
    "rank:ndcg": ("identity", _identity),
    "rank:map": ("identity", _identity),
}


@dataclass(frozen=True, slots=True)
class Converted:
    """An ONNX model (``features`` float32 [rows, columns] -> ``scores`` float32 [rows, outputs]) and the splits it
    was made from, for probing: ``split_columns`` int64 [n], ``split_values`` float32 [n]."""

    model: bytes
    columns: int
    outputs: int
    split_columns: np.ndarray
    split_values: np.ndarray


@dataclass(frozen=True, slots=True)
class Forest:
    """All nodes of all trees, one array entry a node; the leaves listed apart. Node ids count within their tree."""

    tree: np.ndarray
    node: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    leaf: np.ndarray
    group: np.ndarray


def convert(booster_json: bytes) -> Converted | None:
    """The ONNX form of a booster saved as JSON, or None where equality is not assured.

    Raises KeyError, TypeError or ValueError on JSON that is not an XGBoost model.
    """
    read = read_forest(booster_json)
    if read is None:
        return None
    forest, transform, columns, groups = read
    splits = ~forest.leaf
    return Converted(
        _model(forest, groups, columns, transform), columns, groups, forest.feature[splits], forest.value[splits]
    )


def read_forest(booster_json: bytes) -> tuple[Forest, str, int, int] | None:
    """The nodes of a booster saved as JSON, what becomes of their sum (identity, sigmoid, softmax, exp), and how many
    columns and outputs it has; None for what this module does not know. Raises as ``convert``."""
    learner = orjson.loads(booster_json)["learner"]
    objective = OBJECTIVES.get(learner["objective"]["name"])
    parameters = learner["learner_model_param"]
    booster = learner["gradient_booster"]
    if objective is None or booster["name"] != "gbtree" or int(parameters.get("num_target", "1")) > 1:
        return None
    transform, to_margin = objective
    groups = max(1, int(parameters["num_class"]))
    columns = int(parameters["num_feature"])
    forest = _forest(booster["model"], _base_margins(parameters["base_score"], groups, to_margin))
    return None if forest is None else (forest, transform, columns, groups)


def _base_margins(text: str, groups: int, to_margin: Callable[[np.float32], np.float32]) -> np.ndarray:
    """``base_score`` as margins, one per group. XGBoost 3 writes ``"[4.9E-1]"``, older ones ``"5E-1"``."""
    scores = [to_margin(np.float32(part)) for part in text.strip("[]").split(",")]
    return np.resize(np.array(scores, np.float32), groups)


def _forest(model: Mapping[str, Any], base: np.ndarray) -> Forest | None:
    """The base margins go in as trees of one leaf, ahead of the others: XGBoost adds in that order, and float sums keep
    their last digit only in the same order."""
    trees, groups = model["trees"], model["tree_info"]
    if sum(len(tree["left_children"]) for tree in trees) > MAX_NODES or not trees:
        return None
    parts = [_lone_leaf(number, margin) for number, margin in enumerate(base)]
    for number, (tree, group) in enumerate(zip(trees, groups, strict=True), start=len(base)):
        if tree.get("categories_nodes") or any(tree.get("split_type", ())):
            return None
        if int(tree["tree_param"].get("size_leaf_vector", "1")) > 1:
            return None
        parts.append(_tree(tree, number, group))
    return Forest(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _lone_leaf(group: int, value: float) -> tuple[np.ndarray, ...]:
    zero = np.zeros(1, np.int64)
    return zero + group, zero, zero, np.array([value], np.float32), zero, zero, zero, np.ones(1, bool), zero + group


def _tree(tree: Mapping[str, Any], number: int, group: int) -> tuple[np.ndarray, ...]:
    """One tree's columns of ``Forest``. Nodes that pruning cut off stay in XGBoost's arrays: keep the reachable."""
    left, right = np.array(tree["left_children"], np.int64), np.array(tree["right_children"], np.int64)
    reached = [0]
    for index in reached:  # grows while it is walked: breadth first
        if left[index] >= 0:
            reached += [int(left[index]), int(right[index])]
        if len(reached) > len(left):
            raise ValueError("the tree has a cycle")
    keep = np.array(sorted(reached))
    number_of = np.zeros(len(left), np.int64)
    number_of[keep] = np.arange(len(keep))
    leaf = left[keep] < 0
    return (
        np.full(len(keep), number),
        np.arange(len(keep)),
        np.where(leaf, 0, np.array(tree["split_indices"], np.int64)[keep]),
        np.array(tree["split_conditions"], np.float32)[keep],
        np.where(leaf, 0, number_of[left[keep]]),
        np.where(leaf, 0, number_of[right[keep]]),
        np.array(tree["default_left"], np.int64)[keep] * ~leaf,
        leaf,
        np.full(len(keep), group),
    )


def _model(forest: Forest, groups: int, columns: int, transform: str) -> bytes:
    leaf = forest.leaf
    ensemble = onnx_bytes.node(
        "TreeEnsembleRegressor",
        [INPUT],
        [OUTPUT if transform == "identity" else "margins"],
        "ai.onnx.ml",
        {
            "n_targets": groups,
            "aggregate_function": "SUM",
            "post_transform": "NONE",
            "nodes_treeids": forest.tree,
            "nodes_nodeids": forest.node,
            "nodes_featureids": forest.feature,
            "nodes_modes": ["LEAF" if end else "BRANCH_LT" for end in leaf.tolist()],
            "nodes_values": np.where(leaf, np.float32(0), forest.value),
            "nodes_truenodeids": forest.left,
            "nodes_falsenodeids": forest.right,
            "nodes_missing_value_tracks_true": forest.missing_left,
            "target_treeids": forest.tree[leaf],
            "target_nodeids": forest.node[leaf],
            "target_ids": forest.group[leaf],
            "target_weights": forest.value[leaf],
        },
    )
    nodes, constants = _transform(transform)
    return onnx_bytes.model([ensemble, *nodes], constants, (INPUT, columns), (OUTPUT, groups))


def _transform(name: str) -> tuple[list[bytes], list[bytes]]:
    """Nodes from ``margins`` to ``scores``. Not the ensemble's own post-transforms nor ``Sigmoid``: ONNX
    Runtime computes those as ``1 - v`` or by a clamped rational, and small probabilities lose their digits."""
    if name == "exp":
        return [onnx_bytes.node("Exp", ["margins"], [OUTPUT])], []
    if name == "softmax":
        return [onnx_bytes.node("Softmax", ["margins"], [OUTPUT], attributes={"axis": 1})], []
    if name == "sigmoid":
        steps = [
            onnx_bytes.node("Neg", ["margins"], ["negative"]),
            onnx_bytes.node("Exp", ["negative"], ["odds"]),
            onnx_bytes.node("Add", ["odds", "one"], ["whole"]),
            onnx_bytes.node("Reciprocal", ["whole"], [OUTPUT]),
        ]
        return steps, [onnx_bytes.tensor("one", [1.0])]
    return [], []
