"""How much of each topic is in a row of counts, as an ONNX graph: scikit-learn's inference in a fixed number of steps.

Blei, Ng and Jordan 2003, "Latent Dirichlet Allocation", section 5.2; in scikit-learn ``_update_doc_distribution``. One
step, for the counts ``n`` of a row, its topics' weights ``gamma`` and the topics' words ``beta``::

    theta = exp(digamma(gamma))
    gamma = prior + theta * (n / (theta @ beta) @ beta.T)

The usual ``digamma(sum(gamma))`` is left out: it is one factor for the whole row, and falls out of the quotient. ONNX
has no digamma: six steps up by its recurrence, where its asymptotic series is exact enough (Abramowitz and Stegun,
6.3.5 and 6.3.18): ``digamma(x) = log(y) - 1/2y - 1/12y^2 + 1/120y^4 - 1/x - ... - 1/(x+5)``, ``y = x + 6``. Steps are
turns of a ``Loop``: a row never asks how far its neighbours are, so its answer does not depend on them. The columns of
words that are in no row are left out, most of them; the first always stays, so that something is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

_UP = 6
#: What scikit-learn adds where it divides: a word that no topic knows.
_LEAST = float(np.finfo(float).eps)


def of(words: NDArray[np.floating], prior: float, steps: int, name: str) -> ModelProto:
    """``words``: ``[topics, vocabulary]``, e to the expected log of each word's chance. Counts in, ``topic_mixture``
    out, each row's sum 1; a row without words is answered with the prior, all topics alike."""
    from onnx import TensorProto, helper, numpy_helper

    topics, vocabulary = words.shape
    node, tensor = helper.make_node, helper.make_tensor_value_info
    constants: dict[str, NDArray[Any]] = {
        "words": words.astype(np.float32),
        "first": np.eye(1, vocabulary, dtype=np.float32)[0],
        "rows_axis": np.array([0], np.int64),
        "prior": np.array(prior, np.float32),
        "least": np.array(_LEAST, np.float32),
        "ups": np.arange(_UP, dtype=np.float32),
        "up": np.array(_UP, np.float32),
        "half": np.array(1 / 2, np.float32),
        "twelfth": np.array(1 / 12, np.float32),
        "later": np.array(1 / 120, np.float32),
        "last": np.array([-1], np.int64),
        "none": np.array(0, np.float32),
        "ones": np.ones(topics, np.float32),
        "steps": np.array(steps, np.int64),
    }
    nodes = [
        node("ReduceSum", ["counts", "rows_axis"], ["anywhere"], keepdims=0),
        node("Add", ["anywhere", "first"], ["one_at_least"]),
        node("NonZero", ["one_at_least"], ["found_at"]),
        node("Reshape", ["found_at", "last"], ["present"]),
        node("Gather", ["words", "present"], ["beta"], axis=1),
        node("Transpose", ["beta"], ["beta_turned"], perm=[1, 0]),
        node("Gather", ["counts", "present"], ["n"], axis=1),
        node("ReduceSum", ["counts", "last"], ["length"], keepdims=1),
        node("Mul", ["length", "none"], ["zero"]),
        node("Add", ["zero", "ones"], ["begin"]),
        node("Loop", ["steps", "", "begin"], ["found"], body=_step(topics)),
        node("ReduceSum", ["found", "last"], ["whole"], keepdims=1),
        node("Div", ["found", "whole"], ["topic_mixture"]),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [tensor("counts", TensorProto.FLOAT, ["rows", vocabulary])],
        [tensor("topic_mixture", TensorProto.FLOAT, ["rows", topics])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _step(topics: int) -> GraphProto:
    """One step of the inference, the loop's body: ``gamma`` in, the next one out. The chances of topics are e to the
    digamma of gamma, by its recurrence and then its series."""
    from onnx import TensorProto, helper

    node, tensor = helper.make_node, helper.make_tensor_value_info
    step = [
        node("Unsqueeze", ["gamma", "last"], ["wide"]),
        node("Add", ["wide", "ups"], ["above"]),
        node("Reciprocal", ["above"], ["parts"]),
        node("ReduceSum", ["parts", "last"], ["recurrence"], keepdims=0),
        node("Add", ["gamma", "up"], ["y"]),
        node("Reciprocal", ["y"], ["r"]),
        node("Mul", ["r", "r"], ["r2"]),
        node("Mul", ["r2", "later"], ["term4"]),
        node("Sub", ["twelfth", "term4"], ["bracket"]),
        node("Mul", ["bracket", "r2"], ["terms"]),
        node("Mul", ["r", "half"], ["term1"]),
        node("Add", ["terms", "term1"], ["series"]),
        node("Add", ["series", "recurrence"], ["taken_off"]),
        node("Neg", ["taken_off"], ["power"]),
        node("Exp", ["power"], ["factor"]),
        node("Mul", ["y", "factor"], ["theta"]),
        node("MatMul", ["theta", "beta"], ["chance"]),
        node("Add", ["chance", "least"], ["possible"]),
        node("Div", ["n", "possible"], ["quotient"]),
        node("MatMul", ["quotient", "beta_turned"], ["gathered"]),
        node("Mul", ["theta", "gathered"], ["expected"]),
        node("Add", ["expected", "prior"], ["gamma_next"]),
        node("Identity", ["going"], ["going_on"]),
    ]
    return helper.make_graph(
        step,
        "step",
        [
            tensor("turn", TensorProto.INT64, []),
            tensor("going", TensorProto.BOOL, []),
            tensor("gamma", TensorProto.FLOAT, ["rows", topics]),
        ],
        [
            tensor("going_on", TensorProto.BOOL, []),
            tensor("gamma_next", TensorProto.FLOAT, ["rows", topics]),
        ],
    )
