"""Twenty topics of the Spam Assassin mails, found by a variational autoencoder, as SageMaker's NTM answers.

Miao, Yu and Blunsom 2016, "Neural Variational Inference for Text Processing"; that the encoder's outputs are normalised
over the batch, without which most topics stay empty, is Srivastava and Sutton 2017, "Autoencoding Variational Inference
for Topic Models".
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import samples, topics
from models.cards import Card
from models.data import SEED, Floats
from models.packaging import onnx_bytes, onnx_run
from models.recipes import Tell

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

PASSES = 40
HIDDEN = 100
BATCH = 100
RATE = 5e-3
AIM = 560.0


class Trained(NamedTuple):
    """``encoder``: from log(1 + counts) to what ``softmax`` makes a mixture of; ``chances``: ``[topics, words]``."""

    encoder: nn.Sequential
    chances: Floats


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train the net, write its encoder as ``model.onnx``, foretell the second half of mails nobody saw. ``effort``:
    share of the passes over the mails."""
    tell(0.02, "reading mails")
    data = topics.counts()
    net = _trained(data.train, max(1, round(effort * PASSES)), tell)
    onnx = onnx_bytes(_graph(net.encoder, into.name))
    (into / "model.onnx").write_bytes(onnx)
    (into / "vocab.txt").write_text("\n".join(data.vocabulary) + "\n")
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "ntm", "Model": "model.onnx"}) + "\n")

    tell(0.95, "judging held-out mails")
    read, unread = topics.halves(data.held)
    score = topics.score(onnx_run(onnx, {"counts": read})["topic_weights"] @ net.chances, unread, data.train)
    rows = topics.shown(data)
    answers = [{"topic_weights": row} for row in _weights(net.encoder, rows)]
    return Card(
        name=into.name,
        title="Neural Topic Model: topics of mails",
        artifact=into.name,
        framework="onnx",
        data=topics.source(data),
        score=dataclasses.replace(score, aim=AIM if effort >= 1 else None),
        inputs=f"how often each of the {len(data.vocabulary)} words of `vocab.txt` is in a mail",
        outputs=f"`topic_weights`, the part of each of the {topics.TOPICS} topics; their sum is 1",
        limits=(
            *topics.LIMITS,
            "Foretells unseen words less well than LDA on the same mails, which reads each mail in a hundred steps; "
            "the net reads it in one.",
        ),
        samples=topics.samples_of(rows, answers, (samples.CSV, samples.JSON, samples.LINES, samples.RECORDIO)),
        training=f"Two hidden layers of {HIDDEN}, {PASSES} passes with Adam; half of each mail's words are shown, all "
        "are foretold.",
        extra=topics.extra(data, net.chances),
    )


def _trained(rows: Floats, passes: int, tell: Tell) -> Trained:
    """The encoder reads half of a mail's words, drawn anew each time; the topics must give back all of them."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    layers = torch.nn
    encoder = layers.Sequential(
        layers.Linear(rows.shape[1], HIDDEN),
        layers.ReLU(),
        layers.Dropout(0.2),
        layers.Linear(HIDDEN, HIDDEN),
        layers.ReLU(),
        layers.Linear(HIDDEN, 2 * topics.TOPICS),
        layers.BatchNorm1d(2 * topics.TOPICS, affine=False),
    )
    common = torch.from_numpy(np.log(topics.unigram(rows)))
    beta = torch.randn(topics.TOPICS, rows.shape[1]).mul_(0.1).requires_grad_()
    bias = common.clone().requires_grad_()
    optimiser = torch.optim.Adam([*encoder.parameters(), beta, bias], lr=RATE)
    mails = torch.from_numpy(rows)
    for done in range(passes):
        tell(0.2 + 0.75 * done / passes, f"pass {done + 1} of {passes}")
        pull = min(1.0, (done + 1) / (0.3 * passes))  # towards the prior: little at first
        for chosen in torch.randperm(len(mails)).split(BATCH):
            batch = mails[chosen]
            shown = torch.binomial(batch, torch.full_like(batch, 0.5))
            optimiser.zero_grad()
            _loss(encoder(torch.log1p(shown)), batch, torch.softmax(beta + bias, 1), pull).backward()
            optimiser.step()
    encoder.eval()
    chances: Floats = torch.softmax(beta + bias, 1).detach().numpy()
    return Trained(encoder, chances)


def _loss(encoded: Tensor, counts: Tensor, chances: Tensor, pull: float) -> Tensor:
    """Minus the evidence's lower bound of a mail: how unlikely its words are, and how far its mixture is from the
    prior, a standard normal before the softmax."""
    import torch

    mean, spread = encoded.chunk(2, dim=1)
    drawn = torch.softmax(mean + torch.randn_like(mean) * torch.exp(spread / 2), 1)
    unlikely = -(counts * torch.log(drawn @ chances + 1e-9)).sum(1)
    far = 0.5 * (torch.exp(spread) + mean**2 - 1 - spread).sum(1)
    return (unlikely + pull * far).mean()


def _weights(encoder: nn.Sequential, rows: Floats) -> Floats:
    """The mixture of each mail, with the encoder's means, by torch."""
    import torch

    with torch.no_grad():
        found: Floats = torch.softmax(encoder(torch.log1p(torch.from_numpy(rows)))[:, : topics.TOPICS], 1).numpy()
    return found


def _graph(encoder: nn.Sequential, name: str) -> ModelProto:
    """``softmax(mean(log(1 + counts)))``: three products of matrices, the batch's normalisation a part of the last."""
    from onnx import TensorProto, helper, numpy_helper

    first, second, last, norm = (encoder[at] for at in (0, 3, 5, 6))
    scale = (1 / np.sqrt(norm.running_var.numpy() + norm.eps))[: topics.TOPICS]
    weights, bias = (part.detach().numpy()[: topics.TOPICS] for part in (last.weight, last.bias))
    constants: dict[str, NDArray[Any]] = {
        "one": np.array(1, np.float32),
        "w1": first.weight.detach().numpy(),
        "b1": first.bias.detach().numpy(),
        "w2": second.weight.detach().numpy(),
        "b2": second.bias.detach().numpy(),
        "w3": weights * scale[:, None],
        "b3": (bias - norm.running_mean.numpy()[: topics.TOPICS]) * scale,
    }
    node, tensor = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Add", ["counts", "one"], ["more"]),
        node("Log", ["more"], ["logs"]),
        node("Gemm", ["logs", "w1", "b1"], ["sums1"], transB=1),
        node("Relu", ["sums1"], ["hidden1"]),
        node("Gemm", ["hidden1", "w2", "b2"], ["sums2"], transB=1),
        node("Relu", ["sums2"], ["hidden2"]),
        node("Gemm", ["hidden2", "w3", "b3"], ["means"], transB=1),
        node("Softmax", ["means"], ["topic_weights"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [tensor("counts", TensorProto.FLOAT, ["rows", first.in_features])],
        [tensor("topic_weights", TensorProto.FLOAT, ["rows", topics.TOPICS])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
