"""One convolution net, trained once with torch and written twice: as ONNX, and as weights with a script."""

from __future__ import annotations

import functools
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import baselines, data
from models.cards import Card, Sample, json_body, npy_body
from models.data import SEED, DataSet, Floats
from models.packaging import onnx_bytes, onnx_run

if TYPE_CHECKING:
    from models.scripts.digits_convnet.inference import DigitsNet

EPOCHS = 20
SAMPLE_ROWS = 20
SCRIPT = Path(__file__).parent / "scripts" / "digits_convnet" / "inference.py"


def digits_convnet_onnx(into: Path) -> Card:
    """The net as ONNX with a free batch axis and the softmax inside."""
    table = data.digits()
    model = onnx_bytes(_exported(_trained(), _images(table.train_x[:2])))
    (into / "model.onnx").write_bytes(model)
    answers = onnx_run(model, {"image": _images(table.held_x)})["probabilities"]
    return _card(into.name, table, answers, framework="onnx", output="`probabilities`, float32 [N, 10]")


def digits_convnet_script(into: Path) -> Card:
    """The same weights as a state dict, with ``code/inference.py`` that knows the net."""
    import torch

    from models.scripts.digits_convnet import inference

    table = data.digits()
    torch.save(_trained().state_dict(), into / "model.pth")
    (into / "code").mkdir()
    shutil.copyfile(SCRIPT, into / "code" / "inference.py")
    answers = inference.predict_fn(_images(table.held_x), inference.model_fn(str(into)))
    return _card(into.name, table, answers, framework="script", output="an array [N, 10] of probabilities")


def _images(rows: Floats) -> Floats:
    return rows.reshape(-1, 1, 8, 8)


@functools.cache
def _trained() -> DigitsNet:
    """The net after ``EPOCHS`` passes on one thread: sums on several threads would differ in their last bits."""
    import torch

    from models.scripts.digits_convnet.inference import DigitsNet

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    table = data.digits()
    images = torch.from_numpy(_images(table.train_x))
    labels = torch.from_numpy(table.train_y).long()
    net = DigitsNet()
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimiser.step()
    net.eval()
    return net


def _exported(net: DigitsNet, example: Floats) -> Any:
    """The net with a softmax as an ONNX ``ModelProto``."""
    import torch

    # A clone: the exported program would keep the whole array behind a slice.
    example_input = torch.from_numpy(example).clone()
    with _quiet_exporter():
        program = torch.onnx.export(
            torch.nn.Sequential(net, torch.nn.Softmax(dim=1)).eval(),
            (example_input,),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    return program.model_proto


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns about its own internals and about a torchvision nobody asked for."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def _card(name: str, table: DataSet, answers: NDArray[np.float32], *, framework: str, output: str) -> Card:
    images = _images(table.held_x[:SAMPLE_ROWS])
    return Card(
        name=name,
        title=f"Handwritten digits (convolution net, {framework})",
        artifact=name,
        framework=framework,
        executes_code=framework == "script",
        data=table,
        score=baselines.against_centroids(answers.argmax(axis=1), table),
        inputs="`image`, float32 [N, 1, 8, 8]: ink from 0 to 16, rows from the top",
        outputs=output,
        limits=("Centred, upright digits of 43 writers scaled to 8 x 8: other images need the same preparation.",),
        samples=(
            Sample("request", ".json", "application/json", json_body(images[:1]), {"probabilities": answers[:1]}),
            Sample("batch", ".npy", "application/x-npy", npy_body(images), {"probabilities": answers[:SAMPLE_ROWS]}),
        ),
        training=f"Two convolutions, two dense layers, {EPOCHS} passes with Adam.",
    )
