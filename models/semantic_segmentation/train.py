"""A small U-Net that tells coins from the table, answered as SageMaker's Semantic Segmentation answers: with a mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models import pictures
from models.cards import Card, Sample, Score, Source
from models.convolutions import Graph
from models.data import SEED
from models.packaging import onnx_bytes
from models.pictures import Pixels
from models.recipes import Tell

if TYPE_CHECKING:
    from torch import Tensor

    from models.semantic_segmentation.net import UNet

STEPS = 120
AIM = 0.95
#: Columns of the photograph: what lies right of them is never trained on.
TRAINED_ON = 256
_CROP, _BATCH = 96, 8
Mask = NDArray[np.bool_]


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train on pieces of the photograph's left part, judge on its right. ``effort``: share of the steps."""
    import torch

    from models.semantic_segmentation.net import HALVINGS, UNet

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    photograph, coins = labelled()
    net = UNet()
    _fit(net, photograph[:, :TRAINED_ON], coins[:, :TRAINED_ON], max(1, round(effort * STEPS)), tell)

    graph = Graph()
    chances = graph.add("Softmax", net.onnx(graph, "image"), axis=1)
    model = graph.model(
        into.name, ("images", 1, "height", "width"), chances, "chances", ("images", 2, "height", "width")
    )
    (into / "model.onnx").write_bytes(onnx_bytes(model))
    declared = {"Algorithm": "semantic-segmentation", "ImageShape": [1, 0, 0], "Multiple": 2**HALVINGS}
    (into / "algorithm.json").write_text(json.dumps(declared) + "\n")

    unseen, true = photograph[:, TRAINED_ON:], coins[:, TRAINED_ON:]
    found = overlap(_masks(net, unseen) == 1, true)
    beaten = overlap(unseen > _otsu(photograph[:, :TRAINED_ON]), true)
    return Card(
        name=into.name,
        title="Semantic Segmentation: coins, pixel by pixel",
        artifact=into.name,
        framework="onnx",
        data=Source(
            "Greek coins from Pompeii, one photograph of 384 x 303",
            "skimage.data.coins; Brooklyn Museum collection",
            "no known copyright restrictions; scikit-image is distributed under BSD-3-Clause",
            TRAINED_ON,
            unseen.shape[1],
            "columns of pixels",
            classes=("table", "coin"),
        ),
        score=Score("IoU of coins", found, "one threshold (Otsu)", beaten, aim=AIM if effort >= 1 else None),
        inputs="one JPEG of any size; it is read grey, above a million pixels scaled down",
        outputs="a PNG of the same size: 0 table, 1 coin; as RecordIO both classes' probabilities",
        limits=(
            "The masks to learn from and to judge by are computed (a watershed over the photograph's edges), not drawn "
            "by people: the figure says how well the net repeats that, from the pixels alone.",
            "One photograph: other coins under another light are another task.",
        ),
        samples=_samples(net, unseen, photograph),
        training=f"A U-Net of {HALVINGS} halvings; {STEPS} batches of {_BATCH} pieces, turned, brightened, darkened.",
        extra={"photograph.jpg": pictures.jpeg(photograph), "coins.png": pictures.png(coins.astype(np.uint8))},
    )


def labelled() -> tuple[Pixels, Mask]:
    """The photograph, uint8 ``[303, 384]``, and where its coins are: a watershed from what is certain, dark table and
    bright coin, over the edges between (scikit-image's gallery, "Comparing edge-based and region-based segmentation").
    """
    from scipy.ndimage import binary_fill_holes
    from skimage import data, filters, morphology, segmentation

    photograph = np.asarray(data.coins())  # type: ignore[no-untyped-call]
    certain = np.zeros(photograph.shape, np.int32)
    certain[photograph < 30], certain[photograph > 150] = 1, 2
    edges = filters.sobel(photograph)  # type: ignore[no-untyped-call]
    found = binary_fill_holes(segmentation.watershed(edges, certain) == 2)  # type: ignore[no-untyped-call]
    return photograph, np.asarray(morphology.remove_small_objects(found, max_size=63))


def _otsu(photograph: Pixels) -> float:
    """The grey that tells bright from dark best (Otsu 1979)."""
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(photograph))  # type: ignore[no-untyped-call]


def overlap(found: Mask, true: Mask) -> float:
    """What both call coin, as a part of what either does."""
    return float((found & true).sum() / (found | true).sum())


def _fit(net: UNet, photograph: Pixels, coins: Mask, steps: int, tell: Tell) -> None:
    import torch

    dice = np.random.default_rng(SEED)
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=max(steps, 2))
    for step in range(steps):
        if step % 4 == 0:
            tell(0.05 + 0.9 * step / steps, f"step {step} of {steps}")
        pieces, true = zip(*(_piece(photograph, coins, dice) for _ in range(_BATCH)), strict=True)
        optimiser.zero_grad()
        said = net(torch.from_numpy(np.stack(pieces)[:, None]))
        torch.nn.functional.cross_entropy(said, torch.from_numpy(np.stack(true))).backward()
        optimiser.step()
        rates.step()
    net.eval()


def _piece(photograph: Pixels, coins: Mask, dice: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A square piece, turned and mirrored at random, in another light."""
    top, left = (int(dice.integers(size - _CROP + 1)) for size in photograph.shape)
    piece, true = (part[top : top + _CROP, left : left + _CROP] for part in (photograph, coins))
    turns, mirrored = int(dice.integers(4)), bool(dice.integers(2))
    piece, true = (np.rot90(part[:, ::-1] if mirrored else part, turns) for part in (piece, true))
    light = piece.astype(np.float32) / 255 * dice.uniform(0.8, 1.25) + dice.uniform(-0.1, 0.1)
    return light.clip(0, 1).astype(np.float32), true.astype(np.int64)


def _masks(net: UNet, pixels: Pixels) -> Pixels:
    """The class of each pixel. The edges are filled up as the server does it, and cut again."""
    import torch

    from models.semantic_segmentation.net import HALVINGS

    high, wide = pixels.shape
    filled = np.pad(pixels, [(0, -side % 2**HALVINGS) for side in (high, wide)], mode="edge")
    image: Tensor = torch.from_numpy(filled[None, None]).float() / 255
    with torch.no_grad():
        found: Pixels = net(image)[0].argmax(dim=0).numpy().astype(np.uint8)
    return found[:high, :wide]


def _samples(net: UNet, unseen: Pixels, whole: Pixels) -> tuple[Sample, ...]:
    """``request``: the part that was never seen; ``batch``: the whole photograph."""
    bodies = {"request": pictures.jpeg(unseen), "batch": pictures.jpeg(whole)}
    return tuple(
        Sample(name, ".jpg", "image/jpeg", body, pictures.png(_masks(net, pictures.read(body))), 1e-3, "image/png")
        for name, body in bodies.items()
    )
