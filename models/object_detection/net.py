"""A small detector without anchors: every cell of a 12 x 12 grid says what it lies in, and how far that reaches.

After FCOS (Tian, Shen, Chen and He, ICCV 2019), with one grid, and a softmax over the digits and "nothing".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.convolutions import Graph
from models.object_detection.scenes import SIDE, Scene

if TYPE_CHECKING:
    from onnx import ModelProto

DIGITS = 10
STRIDE = 8
GRID = SIDE // STRIDE
CELLS = GRID * GRID
#: A cell speaks for a digit when its middle lies in the inner part of the box.
_INNER = 0.3
_NOTHING = DIGITS
_UNSURE = -1


def detector() -> nn.Sequential:
    """``[n, 3, 96, 96]`` -> ``[n, 15, 12, 12]``: eleven classes, then the ways left, up, right and down, in cells."""

    def block(seen: int, width: int, size: int = 3, stride: int = 1, dilation: int = 1) -> Sequence[nn.Module]:
        padding = size // 2 * dilation
        return (
            nn.Conv2d(seen, width, size, stride, padding, dilation),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )

    return nn.Sequential(
        *block(3, 16, 5, 2),
        *block(16, 32, 3, 2),
        *block(32, 64, 3, 2),
        *block(64, 64),
        *block(64, 64, dilation=2),
        *block(64, 64),
        nn.Conv2d(64, DIGITS + 1 + 4, 1),
    )


def targets(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """What each cell should say: the class ``[n, 12, 12]`` (10 nothing, -1 unsure) and the ways ``[n, 4, 12, 12]``."""
    classes = np.full((len(scenes), GRID, GRID), _NOTHING, np.int64)
    ways = np.zeros((len(scenes), 4, GRID, GRID), np.float32)
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) * STRIDE
    for number, scene in enumerate(scenes):
        for box, digit in zip(scene.boxes, scene.classes, strict=True):
            left, top, right, bottom = box
            ways_out = middle - left, (middle - top)[:, None], right - middle, (bottom - middle)[:, None]
            sides = np.stack(np.broadcast_arrays(*ways_out))
            inside = (sides > 0).all(axis=0)
            across, down = (sides[at : at + 3 : 2].min(axis=0) for at in (0, 1))
            depth = np.minimum(across / (right - left), down / (bottom - top))
            inner = inside & ((depth > _INNER) | (depth == depth[inside].max(initial=0)))
            classes[number][inside & (classes[number] == _NOTHING)] = _UNSURE
            classes[number][inner] = digit
            ways[number][:, inner] = sides[:, inner] / STRIDE
    return torch.from_numpy(classes), torch.from_numpy(ways)


def loss(said: Tensor, classes: Tensor, ways: Tensor) -> Tensor:
    """Cross entropy of the classes, "nothing" counting less, and for cells inside a digit 1 - IoU of its box."""
    each = nn.functional.cross_entropy(said[:, : DIGITS + 1], classes, ignore_index=_UNSURE, reduction="none")
    inside = (classes >= 0) & (classes < _NOTHING)
    what = each[inside].mean() + 2 * each[classes == _NOTHING].mean()
    found = nn.functional.softplus(said[:, DIGITS + 1 :]).permute(0, 2, 3, 1)[inside]
    true = ways.permute(0, 2, 3, 1)[inside]
    shared = (torch.minimum(found, true)[:, :2] + torch.minimum(found, true)[:, 2:]).prod(dim=1)
    areas = [(one[:, :2] + one[:, 2:]).prod(dim=1) for one in (found, true)]
    return what + (1 - shared / (areas[0] + areas[1] - shared)).mean()


def boxes(said: Tensor) -> Tensor:
    """``[n, 144, 6]``: each cell's class, score, xmin, ymin, xmax, ymax, from 0 to 1."""
    score, digit = said[:, : DIGITS + 1].softmax(dim=1)[:, :DIGITS].max(dim=1)
    ways = nn.functional.softplus(said[:, DIGITS + 1 :])
    middle = (torch.arange(GRID) + 0.5) / GRID
    x, y = middle.view(1, 1, GRID), middle.view(1, GRID, 1)
    left, top, right, bottom = (ways / GRID).unbind(dim=1)
    parts = [digit.float(), score, x - left, y - top, x + right, y + bottom]
    return torch.stack(parts, dim=-1).flatten(1, 2)


def onnx(detector: nn.Sequential, name: str) -> ModelProto:
    """The detector and ``boxes`` once more, as a graph: ``image`` -> ``boxes``."""
    graph = Graph()
    said = graph.sequential("image", detector)

    def part(values: str, first: int, end: int) -> str:
        return graph.add("Slice", values, graph.whole(first), graph.whole(end), graph.whole(1))

    chances = part(graph.add("Softmax", part(said, 0, DIGITS + 1), axis=1), 0, DIGITS)
    digit = graph.add("Cast", graph.add("ArgMax", chances, axis=1, keepdims=1), to=1)
    score = graph.add("ReduceMax", chances, axes=[1], keepdims=1)
    ways = graph.add("Softplus", part(said, DIGITS + 1, DIGITS + 5))
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    x, y = np.broadcast_to(middle, (GRID, GRID)), np.broadcast_to(middle[:, None], (GRID, GRID))
    reach = graph.add("Mul", ways, graph.constant(np.array(1 / GRID, np.float32)))
    signs = np.array([-1, -1, 1, 1], np.float32).reshape(1, 4, 1, 1)
    corners = graph.add(
        "Add", graph.add("Mul", reach, graph.constant(signs)), graph.constant(np.stack([x, y, x, y])[None])
    )
    cells = graph.add("Transpose", graph.add("Concat", digit, score, corners, axis=1), perm=[0, 2, 3, 1])
    flat = graph.add("Reshape", cells, graph.whole(0, CELLS, 6))
    return graph.model(name, ("images", 3, SIDE, SIDE), flat, "boxes", ("images", CELLS, 6))
