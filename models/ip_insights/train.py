"""Whose network an address is of: vectors of owners, a net over an address's bits, as IP Insights answers."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED, Floats
from models.ip_insights import pairs
from models.ip_insights.pairs import Pairs
from models.packaging import onnx_bytes
from models.recipes import Tell
from models.samples import CSV, JSON, LINES

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

VECTORS = 2048
SIZE = 32
HIDDEN = 256
BATCH = 256
PASSES = 18
RATE = 6e-3
AIM = 0.96
SAMPLE_ROWS = 20
NOBODY = "nobody in particular"


class Net(NamedTuple):
    """``entities``: ``[VECTORS, SIZE]``; ``addresses``: from 32 bits to ``SIZE`` numbers."""

    entities: nn.Embedding
    addresses: nn.Sequential


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train both sides, write them as ``model.onnx``, tell an owner's addresses from others'. ``effort``: share of the
    passes over the pairs."""
    tell(0.02, "reading the table of networks")
    trained, held = pairs.split()
    net = _trained(trained, max(1, round(effort * PASSES)), tell)
    (into / "model.onnx").write_bytes(onnx_bytes(_graph(net, into.name)))
    declared = {"Algorithm": "ipinsights", "Model": "model.onnx", "NumEntityVectors": VECTORS}
    (into / "algorithm.json").write_text(json.dumps(declared) + "\n")

    tell(0.95, "judging held-out pairs")
    swapped = held.swapped()
    return Card(
        name=into.name,
        title="IP Insights: whose network is it?",
        artifact=into.name,
        framework="onnx",
        data=Source(
            "networks of the internet and who announces them, June 2024",
            "geoip2fast 1.2.2, which includes GeoLite2 data created by MaxMind, available from https://www.maxmind.com",
            "the package MIT; the table GeoLite2's own licence (attribution)",
            len(trained),
            len(held),
            "pairs",
        ),
        score=Score(
            "AUC of held-out pairs against the same addresses with other owners",
            auc(_products(net, held), _products(net, swapped)),
            "how many of the owner's networks were seen in the address's /8",
            auc(*(_seen(trained, part) for part in (held, swapped))),
            aim=AIM if effort >= 1 else None,
        ),
        inputs="an owner's name and an IPv4 address",
        outputs="`dot_product`, above 0 where they go together; verbose: both vectors",
        limits=(
            f"{pairs.OWNERS} owners of many networks stand in for people: real logs of who logs in from where are no "
            "public data. Held-out networks are new, but often neighbours of known ones.",
            "Counts of an owner's networks under five lengths of prefix together come to about 0.955: the net's lead "
            "over a good table is small.",
            f"A name is hashed to one of {VECTORS} vectors: two names may share one, and an unknown name has a vector "
            "that says nothing about it.",
            "IPv4 only. Made of one month's table: who trusts it today is wrong about many networks.",
        ),
        samples=_samples(net, held.rows()[:SAMPLE_ROWS]),
        training=f"{PASSES} passes with Adam; each pair beside the other addresses of its batch of {BATCH}, which are "
        "to be told apart; the lower half of an address is disturbed now and then.",
        extra={"held.csv": _csv(held.rows()), "swapped.csv": _csv(swapped.rows())},
    )


def auc(real: NDArray[np.floating], swapped: NDArray[np.floating]) -> float:
    """How often a real pair scores above a swapped one, half of the draws counted: 1 is perfect, 0.5 is guessing."""
    ordered = np.sort(swapped)
    below, upto = (np.searchsorted(ordered, real, side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(swapped))


def _trained(part: Pairs, passes: int, tell: Tell) -> Net:
    """Real pairs against the batch's other addresses beside the same owner, each a yes or no by the logistic loss."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    layers = torch.nn
    net = Net(
        layers.Embedding(VECTORS, SIZE),
        layers.Sequential(
            layers.Linear(32, HIDDEN),
            layers.ReLU(),
            layers.Linear(HIDDEN, HIDDEN),
            layers.ReLU(),
            layers.Linear(HIDDEN, SIZE),
        ),
    )
    layers.init.normal_(net.entities.weight, 0, 0.05)
    bits, owners = torch.from_numpy(bits_of(part.address)), torch.from_numpy(part.owner)
    buckets = torch.from_numpy(buckets_of(part.names))[owners]
    optimiser = torch.optim.Adam([*net.entities.parameters(), *net.addresses.parameters()], RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=passes * -(-len(part) // BATCH))
    lower = torch.arange(32) >= 16
    for done in range(passes):
        tell(0.05 + 0.9 * done / passes, f"pass {done + 1} of {passes}")
        for chosen in torch.randperm(len(part)).split(BATCH):
            flipped = (torch.rand(len(chosen), 32) < 0.1) & lower
            shown = torch.where(flipped, -bits[chosen], bits[chosen])
            optimiser.zero_grad()
            _loss(net.entities(buckets[chosen]) @ net.addresses(shown).T, owners[chosen]).backward()
            optimiser.step()
            schedule.step()
    net.addresses.eval()
    return net


def _loss(products: Tensor, owners: Tensor) -> Tensor:
    """``products``: every owner of the batch beside every address of it; the diagonal is real."""
    import torch

    softplus = torch.nn.functional.softplus
    others = owners[:, None] != owners[None]
    return softplus(-products.diagonal()).mean() + 5 * softplus(products[others]).mean()


def buckets_of(names: Sequence[str]) -> NDArray[np.int64]:
    """The vector of each name, as the server finds it."""
    return np.array([zlib.crc32(name.encode()) % VECTORS for name in names], np.int64)


def bits_of(addresses: NDArray[np.int64]) -> Floats:
    """The highest bit first, 1 where it is set, else -1."""
    return ((addresses[:, None] >> np.arange(31, -1, -1) & 1) * 2 - 1).astype(np.float32)


def _products(net: Net, part: Pairs) -> Floats:
    """The products of pairs, by torch."""
    return _vectors(net, buckets_of(part.names)[part.owner], part.address)[0]


def _vectors(net: Net, buckets: NDArray[np.int64], addresses: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Of each pair the product, the entity's vector and the address's, by torch."""
    import torch

    with torch.no_grad():
        entities = net.entities(torch.from_numpy(buckets))
        found = net.addresses(torch.from_numpy(bits_of(addresses)))
        return (entities * found).sum(1).numpy(), entities.numpy(), found.numpy()


def _seen(trained: Pairs, part: Pairs) -> Floats:
    """How many networks of a pair's owner were seen in its /8."""
    seen = Counter(zip(trained.owner.tolist(), (trained.address >> 24).tolist(), strict=True))
    asked = zip(part.owner.tolist(), (part.address >> 24).tolist(), strict=True)
    return np.array([seen[pair] for pair in asked], np.float32)


def _samples(net: Net, rows: list[tuple[str, str]]) -> tuple[Sample, ...]:
    """Each request type, both vectors, and a name that nobody has."""
    answers = _answers(net, [*rows, (NOBODY, rows[0][1])])
    instances = [json_body({"features": row}) for row in rows]
    short = [{"dot_product": answer["dot_product"]} for answer in answers]
    one, verbose = json_body({"instances": [{"features": rows[0]}]}), "application/json; verbose=True"

    def sample(name: str, suffix: str, kind: str, body: bytes, expected: Any, accept: str = JSON) -> Sample:
        return Sample(name, suffix, kind, body, expected, 1e-4, accept)

    return (
        sample("request", ".json", JSON, one, {"predictions": short[:1]}),
        sample("batch", ".csv", CSV, _csv(rows), {"predictions": short[:-1]}),
        sample("lines", ".jsonl", LINES, b"".join(instances[:3]), short[:3], LINES),
        sample("verbose", ".json", JSON, one, {"predictions": answers[:1]}, verbose),
        sample("unknown", ".csv", CSV, _csv([(NOBODY, rows[0][1])]), {"predictions": short[-1:]}),
    )


def _answers(net: Net, rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
    addresses = np.array([int(IPv4Address(address)) for _, address in rows], np.int64)
    found = _vectors(net, buckets_of([name for name, _ in rows]), addresses)
    fields = ("dot_product", "entity_embedding", "ip_embedding")
    return [dict(zip(fields, row, strict=True)) for row in zip(*found, strict=True)]


def _csv(rows: list[tuple[str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _graph(net: Net, name: str) -> ModelProto:
    """Three products of matrices from an address's bits to its vector, and a product with the entity's."""
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, NDArray[Any]] = {
        "entities": net.entities.weight.detach().numpy(),
        "last": np.array([-1], np.int64),
    }
    for number, layer in enumerate((net.addresses[0], net.addresses[2], net.addresses[4]), 1):
        constants |= {f"w{number}": layer.weight.detach().numpy(), f"b{number}": layer.bias.detach().numpy()}
    node, tensor = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Gather", ["entities", "entity"], ["entity_embedding"]),
        node("Gemm", ["bits", "w1", "b1"], ["sums1"], transB=1),
        node("Relu", ["sums1"], ["hidden1"]),
        node("Gemm", ["hidden1", "w2", "b2"], ["sums2"], transB=1),
        node("Relu", ["sums2"], ["hidden2"]),
        node("Gemm", ["hidden2", "w3", "b3"], ["ip_embedding"], transB=1),
        node("Mul", ["entity_embedding", "ip_embedding"], ["products"]),
        node("ReduceSum", ["products", "last"], ["dot_product"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [tensor("entity", TensorProto.INT64, ["rows"]), tensor("bits", TensorProto.FLOAT, ["rows", 32])],
        [
            tensor("dot_product", TensorProto.FLOAT, ["rows"]),
            tensor("entity_embedding", TensorProto.FLOAT, ["rows", SIZE]),
            tensor("ip_embedding", TensorProto.FLOAT, ["rows", SIZE]),
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
