"""The algorithms of images: the body is one JPEG or PNG, the answer classes, boxes or a mask.

======================  ==================================  ======================================================
algorithm               the model's output                  answers
======================  ==================================  ======================================================
image-classification    ``[1, classes]`` probabilities      ``[0.1, 0.9]``; lines ``{"prediction": [0.1, 0.9]}``
object-detection        ``[1, boxes, 6]``, each box class,  ``{"prediction": [[class, score, xmin, ...]]}``;
                        score, xmin, ymin, xmax, ymax       ``annotation=1``: boxes in pixels of the image sent
semantic-segmentation   ``[1, classes, height, width]``     a PNG of class ids; RecordIO with all probabilities
======================  ==================================  ======================================================

Settings: those of ``images.py``; ``Output``, the output's name where the model has several. Detection besides:
``ScoreThreshold`` (boxes of less are left out, 0.01 unless said), ``NmsThreshold`` (of two boxes of a class that
overlap by more of their union, the better stays; 0.45 unless said, as SageMaker's ``nms_threshold``),
``ForceSuppress`` (true: of whatever classes) and ``MostBoxes`` (200). A class below 0 marks a box as none, as in SSD's
output.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from serving.codecs import recordio
from serving.errors import BadInput, LoadFailed, PredictionFailed, ServingError
from serving.runtimes.algorithms import bodies, images, inner
from serving.runtimes.algorithms.images import Picture, Reader
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel, ScriptReply, TensorModel
from serving.runtimes.declaration import NAME, Declaration

JPEG, PNG, ANY = "image/jpeg", "image/png", "application/x-image"
RECORDIO, PROTOBUF = "application/x-recordio-protobuf", "application/x-protobuf"
#: A request without Content-Type: the content says what it is.
_UNSAID = "application/octet-stream"
_PHOTOS = (JPEG, PNG, ANY, _UNSAID)
#: Probabilities of one answer: classes x height x width float32.
_MOST_VALUES = 2**24
_BOX = 6


@dataclass(frozen=True, slots=True)
class Choice:
    """Which boxes are answered: of at least this score; overlapping better ones by at most this part, of their class or
    ``of_all``; so many."""

    score_least: float
    overlap_most: float
    of_all: bool
    boxes_most: int


class ImageModel(ScriptModel):
    """A net of images in an algorithm's dress. ``reads``: request types; ``offers``: answer types, default first."""

    reads: Sequence[str] = _PHOTOS
    offers: Sequence[str] = (bodies.JSON, bodies.LINES)

    def __init__(self, reader: Reader, model: TensorModel, output: str) -> None:
        """Raises LoadFailed for a model that cannot read the images, or answers in another shape: it is tried once."""
        self._reader, self._model, self._output = reader, model, output
        self.engine = model.engine
        blank = reader.blank()
        try:
            tried = self._run(blank)
            if tried.dtype.kind not in "fiu":
                raise LoadFailed("the model answers with something else than numbers")
            self._check(tried, blank)
        except LoadFailed:
            raise
        except ServingError as error:
            raise LoadFailed(f"the model does not fit the ImageShape of {NAME}: {error.message}") from error

    def transform(self, call: ScriptCall) -> ScriptReply:
        """Answer one image. Raises BadInput, UnsupportedContentType, NotAcceptable."""
        bodies.media_type(call.content_type, self.reads)
        accept, params = bodies.accepted(call.accept, self.offers[0], self.offers)
        picture = self._reader.read(call.body)
        return ScriptReply(self._answer(self._run(picture), picture, accept, params), accept)

    def set_threads(self, threads: int) -> None:
        """The model's own."""
        self._model.set_threads(threads)

    def close(self) -> None:
        """Drop the model."""
        self._model.close()

    def _run(self, picture: Picture) -> np.ndarray:
        outputs = self._model.predict(self._reader.tensor(picture, self._model.spec.tensors[0].dtype))
        if not isinstance(outputs, dict):
            return outputs
        if self._output not in outputs:
            raise LoadFailed(f"{NAME}: Output must name one of the model's outputs: {', '.join(sorted(outputs))}")
        return outputs[self._output]

    @abstractmethod
    def _check(self, output: np.ndarray, picture: Picture) -> None:
        """Raises LoadFailed for an output of another shape than the algorithm answers with."""

    @abstractmethod
    def _answer(self, output: np.ndarray, picture: Picture, accept: str, params: Mapping[str, str]) -> bytes:
        """The answer's body."""


class Classification(ImageModel):
    """``[1, classes]``: a probability for each class."""

    def _check(self, output: np.ndarray, picture: Picture) -> None:
        if output.ndim != 2 or len(output) != 1:
            raise LoadFailed(f"the model answers {list(output.shape)}, where [1, classes] is expected")

    def _answer(self, output: np.ndarray, picture: Picture, accept: str, params: Mapping[str, str]) -> bytes:
        row = np.ascontiguousarray(output[0], np.float32)
        if not np.isfinite(row).all():
            raise PredictionFailed("the model answered with values that are no numbers")
        if accept == bodies.LINES:
            return orjson.dumps({"prediction": row}, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


class Detection(ImageModel):
    """``[1, boxes, 6]``: what is where."""

    def __init__(self, reader: Reader, model: TensorModel, output: str, choice: Choice) -> None:
        self._choice = choice
        super().__init__(reader, model, output)

    def _check(self, output: np.ndarray, picture: Picture) -> None:
        if output.ndim != 3 or len(output) != 1 or output.shape[2] != _BOX:
            raise LoadFailed(f"the model answers {list(output.shape)}, where [1, boxes, {_BOX}] is expected")

    def _answer(self, output: np.ndarray, picture: Picture, accept: str, params: Mapping[str, str]) -> bytes:
        boxes = best_boxes(output[0], self._choice)
        if params.get("annotation") == "1":
            answer: dict[str, object] = annotated(boxes, picture, self._reader.channels)
        else:
            answer = {"prediction": boxes}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY) + (b"\n" if accept == bodies.LINES else b"")


class Segmentation(ImageModel):
    """``[1, classes, height, width]``: a probability of each class for each pixel."""

    reads = (JPEG, _UNSAID)
    offers = (PNG, RECORDIO, PROTOBUF)

    def _check(self, output: np.ndarray, picture: Picture) -> None:
        size = list(self._reader.tensor(picture).shape)
        height, width = size[2:] if self._reader.rows_first else size[1:3]
        if output.ndim != 4 or len(output) != 1 or list(output.shape[2:]) != [height, width]:
            raise LoadFailed(
                f"the model answers {list(output.shape)}, where [1, classes, {height}, {width}] is expected"
            )
        if not 1 <= output.shape[1] <= 256:
            raise LoadFailed(f"a mask has room for 256 classes, the model has {output.shape[1]}")

    def _answer(self, output: np.ndarray, picture: Picture, accept: str, params: Mapping[str, str]) -> bytes:
        high, wide = picture.pixels.shape[:2]  # what lies beyond was filled up
        chances = output[0, :, :high, :wide]
        if accept == PNG:
            return _png(_stretched(chances.argmax(axis=0).astype(np.uint8), picture))
        if len(chances) * picture.height * picture.width > _MOST_VALUES:
            raise BadInput(f"the image is too large for its {len(chances)} classes' probabilities: ask for {PNG}")
        target = _stretched(chances, picture)
        shape = np.array([1, *target.shape], np.int32)
        return recordio.encode_record({"target": target.ravel(), "shape": shape})


def best_boxes(boxes: np.ndarray, choice: Choice) -> np.ndarray:
    """Those of ``boxes`` ``[n, 6]`` (class, score, xmin, ymin, xmax, ymax) that are answered, the best first: cut to
    0..1, of enough score, and none that overlaps a better one of its class (greedy non-maximum suppression)."""
    boxes = boxes[np.isfinite(boxes).all(axis=1)].astype(np.float32)
    boxes[:, 2:] = boxes[:, 2:].clip(0, 1)
    fit = (boxes[:, 0] >= 0) & (boxes[:, 1] >= choice.score_least)
    boxes = boxes[fit & (boxes[:, 4] > boxes[:, 2]) & (boxes[:, 5] > boxes[:, 3])]
    left = boxes[np.argsort(-boxes[:, 1], kind="stable")]
    kept: list[np.ndarray] = []
    while len(left) and len(kept) < choice.boxes_most:
        best, left = left[0], left[1:]
        kept.append(best)
        beside = overlap(best[2:], left[:, 2:]) <= choice.overlap_most
        left = left[beside if choice.of_all else beside | (left[:, 0] != best[0])]
    return np.array(kept, np.float32).reshape(-1, _BOX)


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that ``box`` ``[4]`` shares with each of ``others`` ``[n, 4]``, as a part of the two together."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(axis=1)
    together = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return np.asarray(shared / together)


def annotated(boxes: np.ndarray, picture: Picture, depth: int) -> dict[str, object]:
    """``application/json;annotation=1``: the boxes in whole pixels of the image that was sent, as Ground Truth has
    them."""
    size = np.array([picture.width, picture.height] * 2)
    corners = np.rint(boxes[:, 2:] * size).astype(int).tolist()
    return {
        "image_size": [{"width": picture.width, "height": picture.height, "depth": depth}],
        "annotations": [
            {
                "class_id": int(box[0]),
                "score": float(str(box[1])),
                "left": left,
                "top": top,
                "width": right - left,
                "height": bottom - top,
            }
            for box, (left, top, right, bottom) in zip(boxes, corners, strict=True)
        ],
    }


def load_classification(declared: Declaration, settings: LoadSettings) -> ImageModel:
    """``image-classification``. Raises LoadFailed."""
    return Classification(*_parts(declared, settings))


def load_detection(declared: Declaration, settings: LoadSettings) -> ImageModel:
    """``object-detection``. Raises LoadFailed."""
    choice = Choice(
        declared.number("ScoreThreshold", 0.01),
        declared.number("NmsThreshold", 0.45),
        declared.flag("ForceSuppress"),
        declared.whole("MostBoxes", 200, most=10_000),
    )
    return Detection(*_parts(declared, settings), choice)


def load_segmentation(declared: Declaration, settings: LoadSettings) -> ImageModel:
    """``semantic-segmentation``. Raises LoadFailed."""
    return Segmentation(*_parts(declared, settings))


def _parts(declared: Declaration, settings: LoadSettings) -> tuple[Reader, TensorModel, str]:
    """Reader, model and output's name. Raises LoadFailed for a model that reads no images."""
    reader = images.reader(declared)
    model = inner.model(declared, settings)
    tensors = model.spec.tensors
    if len(tensors) != 1 or len(tensors[0].shape) != 4 or tensors[0].dtype not in ("float32", "uint8"):
        raise LoadFailed("the model must read one array of four axes, float32 or uint8: it reads no images")
    return reader, model, declared.text("Output", "")


def _stretched(values: np.ndarray, picture: Picture) -> np.ndarray:
    """``values`` ``[..., height, width]`` in the size of the image that was sent: the nearest pixel's."""
    high, wide = values.shape[-2:]
    if (high, wide) == (picture.height, picture.width):
        return values
    rows = np.arange(picture.height) * high // picture.height
    columns = np.arange(picture.width) * wide // picture.width
    return np.asarray(values[..., rows[:, None], columns])


def _png(mask: np.ndarray) -> bytes:
    """A PNG of one channel, uint8."""
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(mask).save(packed, format="png", compress_level=1)
    return packed.getvalue()
