"""A convolution net for handwritten digits, sent as PNG and answered as SageMaker's Image Classification answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import pictures
from models.baselines import accuracy
from models.cards import Card, Sample, Score, Source
from models.convolutions import Graph
from models.data import SEED
from models.packaging import onnx_bytes
from models.pictures import Pixels
from models.recipes import Tell

if TYPE_CHECKING:
    from torch import Tensor, nn

EPOCHS = 4
HELD = 1000
AIM = 0.955
SIDE = 28
_BATCH = 64
_SHOWN = 24


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train on four fifths of the digits, judge on the rest. ``effort``: share of the passes."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tell(0.05, "reading the digits")
    digits, labels = pictures.digits()
    order = np.random.default_rng(SEED).permutation(len(digits))
    held, trained = order[:HELD], order[HELD:]
    net = _net()
    steps = max(1, round(effort * EPOCHS * len(trained) / _BATCH))
    _fit(net, _read(digits[trained]), torch.from_numpy(labels[trained]), steps, tell)

    (into / "model.onnx").write_bytes(_onnx(net, into.name))
    shape = {"ImageShape": [1, SIDE, SIDE]}
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "image-classification", **shape}) + "\n")
    right = accuracy(_chances(net, digits[held]).argmax(axis=1), labels[held])
    beaten = _nearest_mean(digits, labels, trained, held)
    return Card(
        name=into.name,
        title="Image Classification: handwritten digits",
        artifact=into.name,
        framework="onnx",
        data=Source(
            pictures.MNIST,
            pictures.MNIST_SOURCE,
            pictures.MNIST_LICENCE,
            len(trained),
            HELD,
            "digits",
            classes=tuple("0123456789"),
        ),
        score=Score("accuracy", right, "nearest mean image", beaten, aim=AIM if effort >= 1 else None),
        inputs="one PNG or JPEG; it is read grey and scaled to 28 x 28",
        outputs="the probability of each digit, 0 to 9",
        limits=(
            "White ink on black, centred, one digit: a photograph of a page needs the same preparation first.",
            "Ten classes and no other: a letter is answered as the digit that it resembles.",
        ),
        samples=_samples(net, digits[held]),
        training=f"Three convolutions and one dense layer, {EPOCHS} passes, digits moved by up to a pixel.",
        extra=_shown(digits[held], labels[held]),
    )


def _net() -> nn.Sequential:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 5, 2, 2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 3, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(48 * 7 * 7, 10),
    )


def _read(digits: Pixels) -> Tensor:
    """As the server hands them to the model: ``[n, 1, 28, 28]``, 0 to 1."""
    import torch

    return torch.from_numpy(digits[:, None]).float() / 255


def _fit(net: nn.Sequential, images: Tensor, labels: Tensor, steps: int, tell: Tell) -> None:
    """AdamW under one cycle of the learning rate; each batch is moved by a pixel in some direction, or not."""
    import torch

    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=max(steps, 2))
    for step in range(steps):
        if step % 16 == 0:
            tell(0.1 + 0.85 * step / steps, f"step {step} of {steps}")
        chosen = torch.randint(len(images), (_BATCH,))
        moved = torch.roll(images[chosen], torch.randint(-1, 2, (2,)).tolist(), (2, 3))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(moved), labels[chosen]).backward()
        optimiser.step()
        rates.step()
    net.eval()


def _chances(net: nn.Sequential, digits: Pixels) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        found: NDArray[np.float32] = net(_read(digits)).softmax(dim=1).numpy()
    return found


def _onnx(net: nn.Sequential, name: str) -> bytes:
    graph = Graph()
    chances = graph.add("Softmax", graph.sequential("image", net), axis=1)
    return onnx_bytes(graph.model(name, ["images", 1, SIDE, SIDE], chances, "chances", ["images", 10]))


def _nearest_mean(digits: Pixels, labels: NDArray[np.int64], trained: NDArray[Any], held: NDArray[Any]) -> float:
    """The accuracy of "the digit whose mean image is nearest"."""
    rows = digits.reshape(len(digits), -1).astype(np.float32)
    means = np.stack([rows[trained][labels[trained] == digit].mean(axis=0) for digit in range(10)])
    distances = ((rows[held][:, None] - means) ** 2).sum(axis=2)
    return accuracy(distances.argmin(axis=1), labels[held])


def _samples(net: nn.Sequential, digits: Pixels) -> tuple[Sample, ...]:
    """An image is a request. ``batch`` is answered with a line, as the records of a batch job are."""
    json_, lines = "application/json", "application/jsonlines"
    bodies = pictures.png(digits[0]), pictures.jpeg(digits[1]), pictures.jpeg(digits[2])
    first, second, third = (_chances(net, pictures.read(body)[None])[0].tolist() for body in bodies)
    return (
        Sample("request", ".png", "image/png", bodies[0], first, 1e-4, json_),
        Sample("batch", ".jpg", "image/jpeg", bodies[1], [{"prediction": second}], 1e-4, lines),
        Sample("by-content", ".jpg", "application/x-image", bodies[2], third, 1e-4, json_),
    )


def _shown(digits: Pixels, labels: NDArray[np.int64]) -> dict[str, bytes]:
    """For the picture: a few held-out digits, side by side, and what they are."""
    strip = np.concatenate(list(digits[:_SHOWN]), axis=1)
    return {"shown.png": pictures.png(strip), "shown.json": json.dumps(labels[:_SHOWN].tolist()).encode()}
