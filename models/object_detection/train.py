"""A small detector of digits in scenes, answered as SageMaker's Object Detection (SSD) answers: with boxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models import pictures
from models.cards import Card, Sample, Score, Source
from models.data import SEED, Floats
from models.object_detection import baseline, scenes
from models.object_detection.scenes import SIDE, Scene, overlap
from models.packaging import onnx_bytes
from models.recipes import Tell

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 1200
JUDGED = 300
AIM = 0.8
SCORE, OVERLAP, HIT = 0.75, 0.45, 0.5
_BATCH = 16


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train on scenes drawn as they are needed, judge on scenes of other digits and other pictures. ``effort``: share
    of the steps."""
    import torch

    from models.object_detection import net

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    trained, judged = scenes.painters()
    detector = net.detector()
    steps = max(1, round(effort * STEPS))
    _fit(detector, trained, steps, tell)

    (into / "model.onnx").write_bytes(onnx_bytes(net.onnx(detector, into.name)))
    declared = {
        "Algorithm": "object-detection",
        "ImageShape": [3, SIDE, SIDE],
        "ScoreThreshold": SCORE,
        "NmsThreshold": OVERLAP,
        "ForceSuppress": True,
    }
    (into / "algorithm.json").write_text(json.dumps(declared) + "\n")
    dice = np.random.default_rng(SEED)
    unseen = [judged.scene(dice) for _ in range(JUDGED)]
    precision, recall = judge([_found(detector, scene.pixels) for scene in unseen], unseen)
    guess = baseline.Finder(trained)
    beaten = judge([guess.boxes(scene.pixels) for scene in unseen], unseen)
    return Card(
        name=into.name,
        title="Object Detection: digits in scenes",
        artifact=into.name,
        framework="onnx",
        data=Source(
            "Composed scenes of 96 x 96: digits of MNIST painted onto photographs of scikit-image",
            f"{pictures.MNIST_SOURCE}; skimage.data: {', '.join(scenes.TRAINED_ON + scenes.JUDGED_ON)}",
            f"{pictures.MNIST_LICENCE}; photographs: CC0, public domain, no known restrictions (scikit-image)",
            steps * _BATCH,
            JUDGED,
            "scenes",
            classes=tuple("0123456789"),
        ),
        score=Score(
            "the lesser of precision and recall",
            min(precision, recall),
            "patches that stand out, nearest mean digit",
            min(beaten),
            aim=AIM if effort >= 1 else None,
        ),
        inputs="one JPEG or PNG; it is read in colour and scaled to 96 x 96",
        outputs="boxes [class, score, xmin, ymin, xmax, ymax], the best first, coordinates from 0 to 1; or in pixels",
        limits=(
            "The scenes are composed and their boxes computed: no package with boxes drawn by people was found. Digits "
            "on real paper or signs were never seen.",
            f"Boxes count as right with the right digit and an overlap (IoU) of {HIT}; those below a score of {SCORE} "
            "are not answered.",
            "Digits smaller than 22 or larger than 40 of the 96 pixels are missed.",
        ),
        samples=_samples(detector, [scene for scene in unseen if len(scene.classes) > 1][:3]),
        training=f"Six convolutions and a grid of 12 x 12 answers, {steps} batches of {_BATCH} scenes.",
        facts={"precision": round(precision, 3), "recall": round(recall, 3)},
        extra=_shown(unseen),
    )


def judge(found: Sequence[Floats], true: Sequence[Scene]) -> tuple[float, float]:
    """Precision and recall of ``found``, for each scene boxes ``[n, 6]``, the best first. A box hits the digit of its
    class that it overlaps enough and that no better box has hit."""
    hits = 0
    for boxes, scene in zip(found, true, strict=True):
        left = list(range(len(scene.classes)))
        for box in boxes:
            for one in left:
                if scene.classes[one] == box[0] and overlap(box[2:], scene.boxes[one] / SIDE) >= HIT:
                    left.remove(one)
                    hits += 1
                    break
    answered, there = sum(map(len, found)), sum(len(scene.classes) for scene in true)
    return hits / max(1, answered), hits / there


def _fit(detector: Any, painter: scenes.Painter, steps: int, tell: Tell) -> None:
    import torch

    from models.object_detection import net

    dice = np.random.default_rng(SEED + 1)
    optimiser = torch.optim.AdamW(detector.parameters(), weight_decay=1e-2)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=max(steps, 2))
    for step in range(steps):
        if step % 20 == 0:
            tell(0.05 + 0.85 * step / steps, f"step {step} of {steps}")
        drawn = [painter.scene(dice) for _ in range(_BATCH)]
        optimiser.zero_grad()
        net.loss(detector(_read([scene.pixels for scene in drawn])), *net.targets(drawn)).backward()
        optimiser.step()
        rates.step()
    detector.eval()


def _read(images: Sequence[pictures.Pixels]) -> Tensor:
    """As the server hands them to the model: ``[n, 3, 96, 96]``, 0 to 1."""
    import torch

    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def _found(detector: Any, image: pictures.Pixels) -> Floats:
    """The boxes that are answered for an image, the best first."""
    import torch

    from models.object_detection import net

    with torch.no_grad():
        (boxes,) = net.boxes(detector(_read([image]))).numpy()
    kept: list[Floats] = []
    for box in sorted(boxes[boxes[:, 1] >= SCORE], key=lambda box: -box[1]):
        box[2:] = box[2:].clip(0, 1)
        if all(overlap(box[2:], other[2:]) <= OVERLAP for other in kept):
            kept.append(box)
    return np.array(kept, np.float32).reshape(-1, 6)


def _samples(detector: Any, shown: Sequence[Scene]) -> tuple[Sample, ...]:
    """An image is a request. ``batch`` is answered with a line, as the records of a batch job are; ``annotation`` with
    boxes in pixels."""
    json_, lines = "application/json", "application/jsonlines"
    bodies = pictures.png(shown[0].pixels), pictures.jpeg(shown[1].pixels), pictures.jpeg(shown[2].pixels)
    first, second, third = (_found(detector, pictures.read(body)) for body in bodies)
    return (
        Sample("request", ".png", "image/png", bodies[0], {"prediction": first.tolist()}, 1e-3, json_),
        Sample("batch", ".jpg", "image/jpeg", bodies[1], [{"prediction": second.tolist()}], 1e-3, lines),
        Sample(
            "annotation", ".jpg", "application/x-image", bodies[2], _annotation(third), 1e-3, f"{json_};annotation=1"
        ),
    )


def _annotation(boxes: Floats) -> dict[str, Any]:
    found = []
    for digit, score, *corners in boxes.tolist():
        left, top, right, bottom = (round(corner * SIDE) for corner in corners)
        sides = {"left": left, "top": top, "width": right - left, "height": bottom - top}
        found.append({"class_id": int(digit), "score": score, **sides})
    return {"image_size": [{"width": SIDE, "height": SIDE, "depth": 3}], "annotations": found}


def _shown(unseen: Sequence[Scene]) -> dict[str, bytes]:
    """For the picture: the first scenes, and what is in them."""
    told = [{"boxes": scene.boxes.tolist(), "classes": scene.classes.tolist()} for scene in unseen[:12]]
    strip = np.concatenate([scene.pixels for scene in unseen[:12]], axis=1)
    return {"shown.png": pictures.png(strip), "shown.json": json.dumps(told).encode()}
