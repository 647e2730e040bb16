"""Recognising artifacts: what is refused, and with what advice."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import LoadFailed
from serving.runtimes.formats import recognise
from tests.runtimes.trained import Case, net

Trained = Callable[[str], Case]


def refusal(path: Path) -> str:
    """The text with which an artifact is refused, free of its folder."""
    with pytest.raises(LoadFailed) as caught:
        recognise(path)
    assert LoadFailed is type(caught.value)  # errors cross processes by their class's name
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


def written(path: Path, content: bytes) -> Path:
    """``path`` with that content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("xgboost-model", b"binf" + bytes(200), "save it again as model.ubj"),
        ("old.model", bytes(136) + struct.pack("<Q", 6) + b"gbtree" + bytes(60), "save it again as model.ubj"),
        ("model.safetensors", struct.pack("<Q", 60) + b'{"w":{"dtype":"F32"}}' + bytes(40), "code/inference.py"),
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "export it to ONNX"),
        ("weights.npy", b"\x93NUMPY\x01\x00" + bytes(100), "data, not a model"),
        ("model.onnx", b"\x08\x08\x12\x00garbage", "not a whole ONNX model"),
        ("model.pkl", b"", "is empty"),
        ("notes.txt", b"just some notes", "of no format that is recognised"),
        ("model.json", b'{"weights": [1, 2]}', "of no format that is recognised"),
        ("model.pt", b"PK\x03\x04 but no zip", "damaged zip"),
        ("model.joblib", b"x\x9c not zlib at all", "damaged"),
    ],
)
def test_what_cannot_be_served_is_refused_with_advice(tmp_path: Path, name: str, content: bytes, advice: str) -> None:
    """The sentence names the file and says what to do."""
    text = refusal(written(tmp_path / name, content))
    assert name in text
    assert advice in text


def test_weights_without_code_are_refused_with_advice(tmp_path: Path) -> None:
    """A state dict, in PyTorch's zip and in its old pickle form: tensors that no code uses."""
    import torch

    for old in (False, True):
        torch.save(net().state_dict(), tmp_path / "model.pth", _use_new_zipfile_serialization=not old)
        assert "add code/inference.py with a model_fn" in refusal(tmp_path / "model.pth")
        assert "add code/inference.py with a model_fn" in refusal(tmp_path)


def test_a_zip_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """Not every zip is torch's."""
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "of no model format" in refusal(tmp_path / "model.zip")


def test_special_files_are_refused_without_being_opened(tmp_path: Path) -> None:
    """Opening a pipe would hang."""
    os.mkfifo(tmp_path / "model.onnx")
    assert "neither a file nor a folder" in refusal(tmp_path / "model.onnx")


def test_an_absent_artifact_is_refused(tmp_path: Path) -> None:
    """It may have been removed since it was located."""
    assert "cannot be read" in refusal(tmp_path / "model.onnx")


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    """Also when it only holds a model card."""
    (tmp_path / "card.json").write_text("{}")
    assert "expected ONNX" in refusal(tmp_path)


def test_two_models_in_a_folder_are_ambiguous_unless_one_is_called_model(trained: Trained, tmp_path: Path) -> None:
    """No guessing between equals."""
    content = trained("xgboost_binary").path.read_bytes()
    written(tmp_path / "a.ubj", content)
    written(tmp_path / "b.ubj", content)
    assert "a.ubj, b.ubj" in refusal(tmp_path)
    written(tmp_path / "model.ubj", content)
    assert tmp_path / "model.ubj" == recognise(tmp_path).file


def test_a_link_out_of_the_folder_is_not_followed(trained: Trained, tmp_path: Path) -> None:
    """An artifact reads nothing outside itself."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.ubj").symlink_to(trained("xgboost_binary").path)
    assert "holds no model" in refusal(tmp_path / "folder")


def test_indented_xgboost_json_is_recognised(trained: Trained, tmp_path: Path) -> None:
    """Somebody looked at it in an editor and saved it."""
    described = json.loads(trained("xgboost_regression").path.read_bytes())
    assert "xgboost" == recognise(written(tmp_path / "m.json", json.dumps(described, indent=2).encode())).format


def test_code_beside_a_model_makes_it_a_script(trained: Trained, tmp_path: Path) -> None:
    """SageMaker's layout: the script decides what happens to the data file."""
    written(tmp_path / "model.ubj", trained("xgboost_binary").path.read_bytes())
    written(tmp_path / "code" / "inference.py", b"import torch\nfrom sklearn import svm\n")
    artifact = recognise(tmp_path)
    assert ("script", True, tmp_path) == (artifact.format, artifact.executes_code, artifact.file)
    assert {"torch", "sklearn"} == artifact.frameworks


def test_recognising_executes_nothing(tmp_path: Path) -> None:
    """A hostile pickle and a hostile script are told apart by their bytes alone."""

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    assert "pickle" == recognise(written(tmp_path / "a" / "model.pkl", pickle.dumps(Bomb()))).format
    written(tmp_path / "b" / "code" / "inference.py", f"import os; os.mkdir({str(tmp_path / 'exploded')!r})".encode())
    assert "script" == recognise(tmp_path / "b").format
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flavors: {onnx: {data: ../model.ubj}}", "outside its own folder"),
        ("flavors: {onnx: {data: /etc/passwd}}", "outside its own folder"),
        ("flavors: {onnx: {data: link.ubj}}", "outside its own folder"),
        ("flavors: {onnx: {data: absent.onnx}}", "'absent.onnx', which is not in its folder"),
        ("flavors: {python_function: {loader_module: os}}", "it has python_function"),
        ("flavors: {xgboost: {model_class: x}}", "does not say in which file"),
        ("flavors: [1, 2]", "names no flavors"),
        ("!!python/object/apply:os.system [exit 1]", "not a YAML file that can be read"),
        ("[" * 5000, "not a YAML file that can be read"),
        ("a: {", "not a YAML file that can be read"),
    ],
)
def test_hostile_mlmodel_files_are_refused(trained: Trained, tmp_path: Path, text: str, said: str) -> None:
    """MLmodel is data, and names files of its own folder only."""
    written(tmp_path / "model.ubj", trained("xgboost_binary").path.read_bytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.ubj").symlink_to(tmp_path / "model.ubj")
    (tmp_path / "folder" / "MLmodel").write_text(text)
    assert said in refusal(tmp_path / "folder")


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"PK\x03\x04", b"\x80\x04", b"{L", b"\x08\x08", b"\x1f\x8b", b"tree\n"]),
)
def test_no_bytes_make_recognition_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, magic: bytes
) -> None:
    """Recognised or LoadFailed, whatever the content."""
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    path.write_bytes(magic + tail)
    try:
        assert recognise(path).bytes == len(magic + tail)
    except LoadFailed as error:
        assert "any-bytes" in str(error)


def test_numpy_archives_are_no_models(tmp_path: Path) -> None:
    """An npz is a zip too."""
    buffer = io.BytesIO()
    np.savez(buffer, rows=np.zeros(3))
    assert "of no model format" in refusal(written(tmp_path / "data.npz", buffer.getvalue()))


def test_whole_torch_modules_are_refused_like_weights(tmp_path: Path) -> None:
    """A pickled module needs its class's code, so it too is a script's business."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(net(), tmp_path / "model.pt")
    assert "model_fn" in refusal(tmp_path / "model.pt")
