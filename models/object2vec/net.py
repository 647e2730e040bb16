"""Two encoders that take the mean of their tokens' vectors, and a net that compares the two: trained by torch, written
down as a graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

DIMENSIONS, HIDDEN = 32, 32
#: Small: with the usual spread of one, products of two vectors drown what they have to learn.
SPREAD = 0.05
RATE, DECAY, DROPPED, BATCH = 3e-3, 1.0, 0.2, 512
_OPSET, _IR = 17, 8
#: How two vectors are compared: both, their product and their distance, side by side (Object2Vec's "comparator").
_GRAPH = """<ir_version: {ir}, opset_import: ["" : {opset}]>
pairs (int64[rows, tokens0] in0, int64[rows, tokens1] in1)
    => (float[rows, 1] scores, float[rows, {dimensions}] embeddings0, float[rows, {dimensions}] embeddings1) {{
{encoders}
    product = Mul (embeddings0, embeddings1)
    difference = Sub (embeddings0, embeddings1)
    distance = Abs (difference)
    compared = Concat <axis = 1> (embeddings0, embeddings1, product, distance)
    sums = Gemm <transB = 1> (compared, weights, biases)
    hidden = Relu (sums)
    scores = Gemm <transB = 1> (hidden, last, mean)
}}"""
_ENCODER = """    there{side} = GreaterOrEqual (in{side}, zero)
    token{side} = Max (in{side}, zero)
    vectors{side} = Gather (table{side}, token{side})
    mask{side} = Cast <to = 1> (there{side})
    marks{side} = Unsqueeze (mask{side}, end)
    kept{side} = Mul (vectors{side}, marks{side})
    total{side} = ReduceSum <keepdims = 0> (kept{side}, middle)
    tokens{side} = ReduceSum <keepdims = 1> (mask{side}, middle)
    count{side} = Max (tokens{side}, one)
    embeddings{side} = Div (total{side}, count{side})"""


@dataclass(frozen=True, slots=True)
class Net:
    """``tables``: float32 [tokens, dimensions] of each side; ``layers``: weights and biases of what compares."""

    tables: tuple[torch.Tensor, ...]
    layers: tuple[torch.Tensor, ...]

    @classmethod
    def random(cls, vocabularies: tuple[int, ...], mean: float, seed: int) -> Net:
        """Before training: it answers about ``mean``."""
        import torch

        dice = torch.Generator().manual_seed(seed)

        def drawn(*shape: int, spread: float) -> torch.Tensor:
            return (torch.randn(*shape, generator=dice) * spread).requires_grad_()

        wide = 4 * DIMENSIONS
        tables = tuple(drawn(size, DIMENSIONS, spread=SPREAD) for size in vocabularies)
        weights = drawn(HIDDEN, wide, spread=wide**-0.5), torch.zeros(HIDDEN, requires_grad=True)
        last = drawn(1, HIDDEN, spread=HIDDEN**-0.5), torch.tensor([mean], requires_grad=True)
        return cls(tables, (*weights, *last))

    @property
    def dimensions(self) -> int:
        """Of an embedding."""
        return int(self.tables[0].shape[1])

    def encoded(self, side: int, tokens: torch.Tensor) -> torch.Tensor:
        """The means [rows, dimensions] of tokens [rows, any], those below zero left out."""
        there = (tokens >= 0).float().unsqueeze(-1)
        vectors = self.tables[side][tokens.clamp(min=0)] * there
        return vectors.sum(1) / there.sum(1).clamp(min=1.0)

    def compared(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The scores [rows, 1] of encoded pairs."""
        import torch

        weights, biases, last, mean = self.layers
        together = torch.cat((one, other, one * other, (one - other).abs()), dim=1)
        return torch.relu(together @ weights.T + biases) @ last.T + mean

    def scores(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
        """Of pairs of token lists [rows, any], [rows, 1]."""
        import torch

        with torch.no_grad():
            sides = (self.encoded(side, torch.from_numpy(tokens)) for side, tokens in enumerate((first, second)))
            return np.asarray(self.compared(*sides).numpy())

    def embeddings(self, side: int, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Of token lists [rows, any] of one side, [rows, dimensions]."""
        import torch

        with torch.no_grad():
            return np.asarray(self.encoded(side, torch.from_numpy(tokens)).numpy())


def learn(
    net: Net,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    truth: NDArray[np.float64],
    epochs: int,
    seed: int,
) -> Iterator[int]:
    """Fit ``net`` in place to pairs and the scores they should have; yields the number of each epoch once it is done.
    Vectors decay, so that those of few ratings say little; parts of them are dropped, so that none relies on one."""
    import torch

    dice = torch.Generator().manual_seed(seed)
    sides, wanted = (torch.from_numpy(first), torch.from_numpy(second)), torch.from_numpy(truth).float()
    steps = epochs * -(-len(wanted) // BATCH)
    groups: list[dict[str, Any]] = [
        {"params": net.tables, "weight_decay": DECAY},
        {"params": net.layers, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(wanted), generator=dice).split(BATCH):
            encoded = [net.encoded(side, tokens[rows]) for side, tokens in enumerate(sides)]
            kept = [part * (torch.rand(part.shape, generator=dice) >= DROPPED) / (1 - DROPPED) for part in encoded]
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(net.compared(kept[0], kept[1])[:, 0], wanted[rows]).backward()
            optimiser.step()
            rate.step()
        yield epoch


def graph(net: Net, name: str) -> ModelProto:
    """What the net does, for lists of any length that end in -1."""
    from onnx import numpy_helper, parser

    encoders = "\n".join(_ENCODER.format(side=side) for side in (0, 1))
    text = _GRAPH.format(ir=_IR, opset=_OPSET, dimensions=net.dimensions, encoders=encoders)
    model = parser.parse_model(text)
    model.graph.name = name
    names = ("table0", "table1", "weights", "biases", "last", "mean")
    constants: dict[str, NDArray[Any]] = {
        **{key: part.detach().numpy() for key, part in zip(names, (*net.tables, *net.layers), strict=True)},
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.float32),
        "middle": np.array([1], np.int64),
        "end": np.array([2], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    return model
