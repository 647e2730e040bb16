"""Classes, boxes and masks of images, with nets small enough to see what they must answer."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from serving.codecs.recordio import read_records
from serving.errors import BadInput, LoadFailed, ModelError, NotAcceptable, PredictionFailed, UnsupportedContentType
from serving.runtimes import registry
from serving.runtimes.algorithms.vision import Choice, best_boxes
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel, ScriptReply
from serving.runtimes.formats import recognise
from tests.cloud import client
from tests.server import Server, serve

JPEG, PNG, ANY = "image/jpeg", "image/png", "application/x-image"
JSON, LINES, ANNOTATION = "application/json", "application/jsonlines", "application/json;annotation=1"
RECORDIO, PROTOBUF = "application/x-recordio-protobuf", "application/x-protobuf"
FLOAT = 1

#: class, score, xmin, ymin, xmax, ymax: in no order; one twice, one of little score, one that is none, one no number.
BOXES = [
    [1, 0.6, 0.5, 0.25, 1.5, 0.75],
    [0, 0.9, 0.1, 0.1, 0.3, 0.5],
    [0, 0.8, 0.1, 0.1, 0.3, 0.45],
    [2, 0.001, 0.1, 0.6, 0.2, 0.7],
    [-1, 0.99, 0.6, 0.6, 0.7, 0.7],
    [1, float("nan"), 0.6, 0.6, 0.7, 0.7],
]
ANSWERED = [[0, 0.9, 0.1, 0.1, 0.3, 0.5], [1, 0.6, 0.5, 0.25, 1, 0.75]]


def graph(folder: Path, nodes: list[Any], output: tuple[str, list[Any]], weights: Any = (), side: Any = 4) -> Path:
    """``model.onnx``: ``image`` ``[n, 3, side, side]`` -> ``output``."""
    from onnx import helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    image = helper.make_tensor_value_info("image", FLOAT, ["n", 3, side, side if side == 4 else "w"])
    answered = helper.make_tensor_value_info(output[0], FLOAT, output[1])
    constants = [numpy_helper.from_array(value, name) for name, value in weights]
    body = helper.make_graph(nodes, "g", [image], [answered], constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def declare(folder: Path, algorithm: str, **settings: Any) -> Path:
    """``algorithm.json``."""
    (folder / "algorithm.json").write_text(json.dumps({"Algorithm": algorithm, **settings}))
    return folder


def means(folder: Path, **settings: Any) -> Path:
    """A classifier of red, green and blue: the mean of each is its "probability"."""
    from onnx import helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["chances"]),
    ]
    graph(folder, nodes, ("chances", ["n", 3]))
    return declare(folder, "image-classification", **{"ImageShape": [3, 4, 4], **settings})


def boxes(folder: Path, **settings: Any) -> Path:
    """A detector that sees ``BOXES`` in every image."""
    from onnx import helper

    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "row"], ["rows"]),
        helper.make_node("Add", ["rows", "seen"], ["boxes"]),
    ]
    weights = [
        ("zero", np.zeros((), np.float32)),
        ("row", np.array([-1, 1, 1])),
        ("seen", np.array([BOXES], np.float32)),
    ]
    graph(folder, nodes, ("boxes", ["n", len(BOXES), 6]), weights)
    return declare(folder, "object-detection", **{"ImageShape": [3, 4, 4], **settings})


def brightest(folder: Path, **settings: Any) -> Path:
    """A segmenter whose classes are the colours: 0 where red is strongest, 1 green, 2 blue. Any size that is even."""
    from onnx import helper

    graph(folder, [helper.make_node("Identity", ["image"], ["chances"])], ("chances", ["n", 3, "h", "w"]), side="h")
    return declare(folder, "semantic-segmentation", **{"ImageShape": [3, 0, 0], "Multiple": 2, **settings})


def loaded(folder: Path) -> ScriptModel:
    """The folder's model."""
    model = registry.load(recognise(folder), LoadSettings())
    assert isinstance(model, ScriptModel)
    return model


def picture(width: int = 4, height: int = 4, kind: str = "png") -> bytes:
    """Green, its upper half red; as JPEG each colour on blocks of its own."""
    pixels = np.full((height, width, 3), (0, 204, 51), np.uint8)
    pixels[: height // 2] = (153, 0, 0)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, format=kind, **({"quality": 100, "subsampling": 0} if kind == "jpeg" else {}))
    return body.getvalue()


def asked(model: ScriptModel, body: bytes, content_type: str = ANY, accept: str = "") -> ScriptReply:
    """Its answer."""
    return model.transform(ScriptCall(body, content_type, accept))


# --- classification ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each."""
    root = tmp_path_factory.mktemp("vision")
    for name, maker in (("means", means), ("boxes", boxes), ("brightest", brightest)):
        maker(root / name)
    return root


@pytest.mark.parametrize("content_type", [JPEG, PNG, ANY, "application/octet-stream", "IMAGE/PNG; q=1"])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_image_is_answered_with_its_classes_chances(made: Path, content_type: str, kind: str) -> None:
    """Whatever the header calls it, its content says what it is; of another size it is scaled."""
    reply = asked(loaded(made / "means"), picture(64, 64, kind), content_type)
    assert JSON == reply.content_type
    np.testing.assert_allclose([0.3, 0.4, 0.1], json.loads(reply.body), atol=0.02)


def test_a_line_has_the_classes_under_prediction(made: Path) -> None:
    """As batch jobs collect them."""
    reply = asked(loaded(made / "means"), picture(), PNG, LINES)
    assert (LINES, b"\n") == (reply.content_type, reply.body[-1:])
    (prediction,) = json.loads(reply.body).values()
    np.testing.assert_allclose([0.3, 0.4, 0.1], prediction, rtol=1e-6)


@pytest.mark.parametrize("name", ["means", "boxes", "brightest"])
def test_other_types_are_refused_with_those_that_are_not(made: Path, name: str) -> None:
    """Of the request and of the answer."""
    model = loaded(made / name)
    with pytest.raises(UnsupportedContentType, match="'text/csv'; it reads image/jpeg"):
        asked(model, b"1,2", "text/csv")
    with pytest.raises(NotAcceptable, match="'text/csv'; this model answers in"):
        asked(model, picture(), JPEG, "text/csv")
    with pytest.raises(BadInput, match="JPEG or PNG is expected"):
        asked(model, b"no image", JPEG)


def test_masks_are_asked_for_by_jpeg_alone(made: Path) -> None:
    """The one type that is documented for it."""
    with pytest.raises(UnsupportedContentType, match="'image/png'"):
        asked(loaded(made / "brightest"), picture(), PNG)


def test_a_net_that_answers_no_numbers_has_failed(tmp_path: Path) -> None:
    """Its answer would be no JSON: here the logarithm of no blue at all."""
    from onnx import helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Log", ["flat"], ["chances"]),
    ]
    graph(tmp_path, nodes, ("chances", ["n", 3]))
    model = loaded(declare(tmp_path, "image-classification", ImageShape=[3, 4, 4], Mean=[0, 0, 51]))
    with pytest.raises(PredictionFailed, match="no numbers"):
        asked(model, picture(), PNG)


# --- detection ---------------------------------------------------------------------------------------------------


def test_boxes_are_the_best_first_cut_to_the_image_and_one_a_thing(made: Path) -> None:
    """Class, score and corners from 0 to 1."""
    reply = asked(loaded(made / "boxes"), picture(), PNG)
    (found,) = json.loads(reply.body).values()
    np.testing.assert_allclose(ANSWERED, found, rtol=1e-6)


def test_annotations_are_in_pixels_of_the_image_that_was_sent(made: Path) -> None:
    """Not of the size that the model reads."""
    reply = asked(loaded(made / "boxes"), picture(500, 400), ANY, ANNOTATION)
    assert JSON == reply.content_type
    assert {
        "image_size": [{"width": 500, "height": 400, "depth": 3}],
        "annotations": [
            {"class_id": 0, "score": 0.9, "left": 50, "top": 40, "width": 100, "height": 160},
            {"class_id": 1, "score": 0.6, "left": 250, "top": 100, "width": 250, "height": 200},
        ],
    } == json.loads(reply.body)


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        ({"ScoreThreshold": 0.0}, [0.9, 0.6, 0.001]),
        ({"ScoreThreshold": 0.7}, [0.9]),
        ({"ScoreThreshold": 1.0}, []),
        ({"NmsThreshold": 0.9}, [0.9, 0.8, 0.6]),
        ({"MostBoxes": 1}, [0.9]),
    ],
)
def test_which_boxes_are_answered_is_declared(tmp_path: Path, settings: dict[str, Any], scores: list[float]) -> None:
    """No box at all is an answer too."""
    (found,) = json.loads(asked(loaded(boxes(tmp_path, **settings)), picture(), PNG).body).values()
    np.testing.assert_allclose(scores, [box[1] for box in found], rtol=1e-6)


def suppressed(rows: list[list[float]], overlap_most: float, of_all: bool) -> list[list[float]]:
    """Greedy suppression as the books have it."""
    kept: list[list[float]] = []
    for row in sorted(rows, key=lambda row: -row[1]):
        rivals = [one for one in kept if of_all or one[0] == row[0]]
        if all(union_part(row[2:], one[2:]) <= overlap_most for one in rivals):
            kept.append(row)
    return kept


def union_part(one: list[float], other: list[float]) -> float:
    """Intersection over union."""
    wide, high = (max(0.0, min(one[at + 2], other[at + 2]) - max(one[at], other[at])) for at in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return wide * high / (areas[0] + areas[1] - wide * high)


@given(st.integers(0, 25), st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 0.7]), st.booleans())
def test_suppression_is_the_greedy_one(count: int, seed: int, overlap_most: float, of_all: bool) -> None:
    """Against the plain loop, with scores that are all different and corners in quarters."""
    dice = np.random.default_rng(seed)
    corners = np.sort(dice.integers(0, 9, (count, 2, 2)), axis=1) / 8
    corners[:, 1] += 1 / 8
    rows = np.column_stack([dice.integers(0, 2, count), dice.permutation(count) / 32 + 0.1, corners.reshape(count, 4)])
    rows[:, 2:] = rows[:, 2:].clip(0, 1)
    rows = rows[(rows[:, 4] > rows[:, 2]) & (rows[:, 5] > rows[:, 3])].astype(np.float32)
    found = best_boxes(rows, Choice(0.0, overlap_most, of_all, 100))
    np.testing.assert_array_equal(np.array(suppressed(rows.tolist(), overlap_most, of_all)).reshape(-1, 6), found)


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(6)), elements=st.floats(width=32)), st.booleans())
def test_whatever_numbers_a_model_says_boxes_lie_in_the_image(rows: np.ndarray, of_all: bool) -> None:
    """A net may answer infinities."""
    found = best_boxes(rows, Choice(0.01, 0.45, of_all, 5))
    assert len(found) <= 5
    assert np.isfinite(found).all()
    assert ((found[:, 2:] >= 0) & (found[:, 2:] <= 1)).all()
    assert (found[:, 4] > found[:, 2]).all()
    assert (np.diff(found[:, 1]) <= 0).all()


# --- segmentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(16, 16), (15, 16), (1, 2), (33, 50)])
def test_a_mask_is_a_grey_png_of_the_images_size(made: Path, width: int, height: int) -> None:
    """Red above is class 0, green below class 1, whatever had to be filled up."""
    reply = asked(loaded(made / "brightest"), picture(width, height), JPEG)
    mask = Image.open(io.BytesIO(reply.body))
    expected = np.ones((height, width), np.uint8)
    expected[: height // 2] = 0
    assert (PNG, "PNG", "L") == (reply.content_type, mask.format, mask.mode)
    np.testing.assert_array_equal(expected, np.asarray(mask))


@pytest.mark.parametrize("accept", [RECORDIO, PROTOBUF])
def test_all_probabilities_are_one_record(made: Path, accept: str) -> None:
    """``target`` flat, ``shape`` beside it: images, classes, height, width."""
    reply = asked(loaded(made / "brightest"), picture(5, 6), JPEG, accept)
    (record,) = read_records(reply.body)
    assert (accept, {"target", "shape"}) == (reply.content_type, set(record))
    assert ([1, 3, 6, 5], "int32") == (record["shape"].tolist(), record["shape"].dtype.name)
    chances = record["target"].reshape(record["shape"])
    np.testing.assert_allclose([0.6, 0, 0], chances[0, :, 0, 0], atol=0.01)
    np.testing.assert_allclose([0, 0.8, 0.2], chances[0, :, 5, 4], atol=0.01)


@pytest.mark.parametrize("settings", [{"MostPixels": 4096}, {"ImageShape": [3, 64, 64], "Multiple": 1}])
def test_a_mask_of_an_image_that_was_scaled_has_the_images_size(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The nearest pixel's class; as RecordIO the same."""
    model = loaded(brightest(tmp_path, **settings))
    mask = np.asarray(Image.open(io.BytesIO(asked(model, picture(300, 200), JPEG).body)))
    assert (200, 300) == mask.shape
    assert ({0}, {1}) == (set(mask[:98].flat), set(mask[102:].flat))
    (record,) = read_records(asked(model, picture(300, 200), JPEG, RECORDIO).body)
    np.testing.assert_array_equal(mask, record["target"].reshape(record["shape"])[0].argmax(axis=0))


def test_probabilities_of_an_image_too_large_for_them_are_refused(made: Path) -> None:
    """With what can be had instead."""
    with pytest.raises(BadInput, match="too large for its 3 classes' probabilities: ask for image/png"):
        asked(loaded(made / "brightest"), picture(4000, 1500), JPEG, RECORDIO)


@pytest.fixture(scope="module")
def models(made: Path) -> list[ScriptModel]:
    """One of each."""
    return [loaded(folder) for folder in sorted(made.iterdir())]


@given(
    start=st.sampled_from([picture(), picture(40, 30, "jpeg"), b""]),
    cut=st.integers(0, 800),
    rest=st.binary(max_size=40),
    accept=st.sampled_from(["", JSON, LINES, ANNOTATION, PNG, RECORDIO, "text/plain", "application/json;annotation=x"]),
)
def test_whatever_is_sent_is_answered_or_refused(
    models: list[ScriptModel], start: bytes, cut: int, rest: bytes, accept: str
) -> None:
    """Never a failure of the model's."""
    for model in models:
        try:
            assert asked(model, start[:cut] + rest, JPEG, accept).body
        except ModelError as error:
            assert error.original_status in (400, 406)


# --- loading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maker", "algorithm", "words"),
    [
        (means, "object-detection", r"answers \[1, 3\], where \[1, boxes, 6\] is expected"),
        (means, "semantic-segmentation", r"where \[1, classes, 4, 4\] is expected"),
        (boxes, "image-classification", r"answers \[1, 6, 6\], where \[1, classes\] is expected"),
    ],
)
def test_a_model_of_another_kind_is_refused_when_it_is_loaded(
    tmp_path: Path, maker: Any, algorithm: str, words: str
) -> None:
    """It is tried once."""
    declare(maker(tmp_path), algorithm, ImageShape=[3, 4, 4])
    with pytest.raises(LoadFailed, match=words):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ImageShape": [1, 4, 4]}, "does not fit the ImageShape.*the model reads"),
        ({"ImageShape": [3, 5, 4]}, "does not fit the ImageShape"),
        ({"Layout": "NHWC", "ImageShape": [3, 4, 5]}, "does not fit the ImageShape"),
        ({"Model": "other.onnx"}, "is no file beside it"),
    ],
)
def test_a_declaration_that_does_not_fit_the_model_is_refused(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    """When it is loaded, not at the first request."""
    with pytest.raises(LoadFailed, match=words):
        loaded(means(tmp_path, **settings))


def test_a_model_of_rows_reads_no_images(tmp_path: Path) -> None:
    """Two axes are none of an image."""
    from onnx import helper

    rows = [helper.make_tensor_value_info(name, FLOAT, ["n", 3]) for name in ("x", "y")]
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", rows[:1], rows[1:])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(LoadFailed, match="it reads no images"):
        loaded(declare(tmp_path, "image-classification", ImageShape=[3, 4, 4]))


def test_without_pillow_the_extra_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the model is loaded."""
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LoadFailed, match=r"needs PIL, which is not installed: pip install 'serving\[images\]'"):
        loaded(made / "means")


# --- behind an endpoint ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The three as members of one multi-model endpoint."""
    with serve(tmp_path_factory.mktemp("served"), str(made)) as started:
        yield started


def test_boto3_hears_classes_boxes_and_masks(server: Server) -> None:
    """Each in the algorithm's own types."""
    runtime = client(server, "sagemaker-runtime")

    def ask(name: str, content_type: str, accept: str) -> tuple[str, bytes]:
        reply = runtime.invoke_endpoint(
            EndpointName="default", TargetModel=name, Body=picture(500, 400), ContentType=content_type, Accept=accept
        )
        return reply["ContentType"], reply["Body"].read()

    kind, classes = ask("means", PNG, LINES)
    assert (LINES, {"prediction"}) == (kind, set(json.loads(classes)))
    assert 2 == len(json.loads(ask("boxes", ANY, ANNOTATION)[1])["annotations"])
    kind, mask = ask("brightest", JPEG, PNG)
    assert (PNG, (500, 400)) == (kind, Image.open(io.BytesIO(mask)).size)


def test_boto3_hears_what_is_wrong_with_an_image(server: Server) -> None:
    """A ModelError with the container's own 400."""
    runtime = client(server, "sagemaker-runtime")
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="default", TargetModel="boxes", Body=picture()[:50], ContentType=PNG)
    answer = caught.value.response
    assert ("ModelError", 400) == (answer["Error"]["Code"], answer["OriginalStatusCode"])
    assert "the PNG image is damaged" in answer["OriginalMessage"]
