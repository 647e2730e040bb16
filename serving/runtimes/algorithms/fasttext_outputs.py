"""How fastText turns a hidden vector into the probabilities of labels (``loss.cc``): one way for each loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from serving.errors import LoadFailed

#: A hidden vector float32 [dimensions] -> probabilities [labels].
Outputs = Callable[[np.ndarray], np.ndarray]

_HIERARCHICAL, _NEGATIVE, _SOFTMAX, _ONE_VERSUS_ALL = 1, 2, 3, 4
#: The library looks the logistic function up in a table of 512 steps from -8 to 8.
_STEPS, _WIDEST = 512, 8.0
_MOST_SEEN = 10**15


def of(loss: int, matrix: np.ndarray, counts: list[int]) -> Outputs:
    """The way of a loss. ``matrix``: float32 [labels, dimensions]; ``counts``: how often each label was seen, which
    makes the tree of a hierarchical softmax. Raises LoadFailed."""
    if loss == _SOFTMAX:
        return lambda hidden: _softmax(matrix @ hidden)
    if loss in (_NEGATIVE, _ONE_VERSUS_ALL):
        table = _logistic((np.arange(_STEPS + 1) * 2 * _WIDEST) / _STEPS - _WIDEST)
        return lambda hidden: _looked_up(matrix @ hidden, table)
    if loss == _HIERARCHICAL:
        steps = _tree(counts)
        return lambda hidden: _descended(matrix, hidden, steps)
    raise LoadFailed(f"the fastText model has a loss of the unknown number {loss}")


def _softmax(scores: np.ndarray) -> np.ndarray:
    risen = np.exp(scores - scores.max())
    return np.asarray(risen / risen.sum())


def _logistic(scores: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-scores)))


def _looked_up(scores: np.ndarray, table: np.ndarray) -> np.ndarray:
    steps = (np.clip(scores, -_WIDEST, _WIDEST) + _WIDEST) * (_STEPS / _WIDEST / 2)
    inside = np.where(np.isfinite(steps), steps, 0).astype(np.int64)
    return np.where(scores < -_WIDEST, 0.0, np.where(scores > _WIDEST, 1.0, table[inside]))


class _Level(NamedTuple):
    """The inner nodes of one depth of the tree, and their children."""

    nodes: np.ndarray
    left: np.ndarray
    right: np.ndarray


def _tree(counts: list[int]) -> list[_Level]:
    """Huffman's tree over the labels, as levels from the root down. Node ``i`` is a label below ``len(counts)``, above
    it the inner node of the row ``i - len(counts)`` of the matrix. Raises LoadFailed."""
    labels = len(counts)
    if min(counts) < 0 or sum(counts) >= _MOST_SEEN:
        raise LoadFailed("the fastText model says of its labels how often they were seen, and it cannot be true")
    seen = [*counts, *[_MOST_SEEN] * (labels - 1)]
    left, right = [0] * (2 * labels - 1), [0] * (2 * labels - 1)
    leaf, node = labels - 1, labels
    for made in range(labels, 2 * labels - 1):
        pair = []
        for _ in range(2):
            if leaf >= 0 and seen[leaf] < seen[node]:
                pair.append(leaf)
                leaf -= 1
            else:
                pair.append(node)
                node += 1
        left[made], right[made] = pair
        seen[made] = seen[pair[0]] + seen[pair[1]]
    levels, nodes = [], [2 * labels - 2]
    while nodes := [at for at in nodes if at >= labels]:
        level = _Level(*(np.array(part) for part in (nodes, [left[at] for at in nodes], [right[at] for at in nodes])))
        levels.append(level)
        nodes = [*level.left.tolist(), *level.right.tolist()]
    return levels


def _descended(matrix: np.ndarray, hidden: np.ndarray, levels: list[_Level]) -> np.ndarray:
    """The probability of each leaf: the product of its turns on the way down."""
    labels = len(matrix)
    turns = _logistic(matrix[: labels - 1] @ hidden)
    chances = np.ones(2 * labels - 1)
    for nodes, left, right in levels:
        turn = turns[nodes - labels]
        chances[left] = chances[nodes] * (1.0 - turn)
        chances[right] = chances[nodes] * turn
    return chances[:labels]
