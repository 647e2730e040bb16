"""What is this file? Told by content alone: nothing of it is executed, no framework is imported.

==============  =============================================================  ============
format          recognised by                                                  code
==============  =============================================================  ============
``onnx``        a protobuf whose top-level fields are ``ModelProto``'s
``xgboost``     ``{"learner"`` (JSON) or ``{L`` + ``learner`` (UBJSON)
``lightgbm``    text beginning with a line ``tree``
``fasttext``    fastText's magic number: BlazingText's ``model.bin``
``vectors``     text: a line of two numbers, then a word and as many numbers
``skops``       zip with ``schema.json`` (data and an allow-list of types)
``pickle``      pickle protocol 2-5, plain or as joblib compresses it          yes
``torchscript`` zip with ``constants.pkl`` and ``code/``                        yes
``pt2``         zip with ``archive_format`` or a serialized exported program    yes
``script``      a folder with Python files in ``code/``, or an inference.py     yes
``algorithm``   a folder with ``algorithm.json`` (``declaration.py``)           as its model
==============  =============================================================  ============

Which formats are code was measured, not assumed: a crafted ``.pt2`` runs commands when torch loads it, and TorchScript
is a program by design.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from serving.errors import CodeNotAllowed, LoadFailed
from serving.runtimes import declaration, mlflow
from serving.runtimes.base import Artifact

EXECUTES_CODE = frozenset({"script", "pickle", "torchscript", "pt2"})

_HEAD = 4096
_IMPORTS_READ = 1 << 20
_MAX_FILES = 10_000
_MAX_ZIP_MEMBERS = 100_000
#: What a script or pickle may name that is worth importing before the workers are forked.
_KNOWN = ("sklearn", "joblib", "torch", "onnxruntime", "xgboost", "lightgbm", "skops", "pandas", "scipy")
_FRAMEWORKS = {
    "onnx": ("onnxruntime",),
    "xgboost": ("onnxruntime",),  # the library is opened by itself; few-row calls may go through ONNX Runtime
    "skops": ("skops", "sklearn"),
    "pickle": ("joblib",),
    "torchscript": ("torch",),
    "pt2": ("torch",),
}
#: ModelProto: field number -> protobuf wire type (onnx-ml.proto; 0 varint, 2 length-delimited).
_MODEL_PROTO = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH = 7
_LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
_ZLIB = (b"\x1f\x8b", b"x\x01", b"x^", b"x\x9c", b"x\xda")
_COMPRESSED = (*_ZLIB, b"BZh", b"\xfd7zXZ\x00", b"]\x00\x00", b"\x04\x22\x4d\x18")
_NUMBER = re.compile(rb"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_PREFERRED = ("xgboost-model", "model", "vectors.bin", "vectors.txt")
_FASTTEXT = (793712314).to_bytes(4, "little")


class _Refused(LoadFailed):
    """Known, and known not to be servable as it is; the message says what to do instead."""


def recognise(path: Path) -> Artifact:
    """The artifact at ``path``: a file, a model folder, SageMaker's layout with ``code/``, or an MLflow model.

    Raises LoadFailed, in a sentence that names the file but not its folder, when it is none that can be served.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return _folder(path)
        if stat.S_ISREG(status.st_mode):
            return _file(path, path.parent, status.st_size)
    except _Refused as refusal:  # the subclass stays in this file: errors cross processes by their class's name
        raise LoadFailed(refusal.message) from None
    except OSError as error:
        raise LoadFailed(f"the artifact {path.name!r} cannot be read: {error.strerror}") from error
    raise LoadFailed(f"the artifact {path.name!r} is neither a file nor a folder")


def check_allowed(artifact: Artifact, allow_code: bool) -> None:
    """Raises CodeNotAllowed, naming file, format and setting, when loading would execute code without consent."""
    if artifact.executes_code and not allow_code:
        file, kind = _code(artifact)
        raise CodeNotAllowed(
            f"the model file {file!r} is of the format {kind!r}, which executes code when it is loaded; "
            "set SERVING_ALLOW_CODE=true or start with --allow-code to load it"
        )


def _code(artifact: Artifact) -> tuple[str, str]:
    """Which file of an artifact is code, and its format: in a declared one, any that lies beside the declaration."""
    if artifact.format == "script":
        return _script_name(artifact.root), artifact.format
    if artifact.format == "algorithm":
        beside = next((one for one in _models(artifact.root) if one.executes_code), artifact)
        return beside.file.name, beside.format
    return artifact.file.name, artifact.format


# --- folders --------------------------------------------------------------------------------------------------------


def native(root: Path) -> Artifact | None:
    """The one model file of a folder, its scripts left aside; None when there is none.

    Raises LoadFailed when there are several, or only ones that cannot be served as they are.
    """
    found: dict[str, Artifact] = {}
    refusals: list[LoadFailed] = []
    for file in _candidates(root):
        try:
            found[file.name] = _file(file, root, file.stat().st_size)
        except _Refused as refusal:
            refusals.append(refusal)
        except LoadFailed:
            continue  # a model card, a sample, external tensors: not what is loaded
    if not found and refusals:
        raise refusals[0]
    for stem in _PREFERRED:
        named = [name for name in found if name == stem or Path(name).stem == stem]
        if len(named) == 1:
            return found[named[0]]
    if len(found) > 1:
        several = ", ".join(sorted(found))
        raise LoadFailed(f"the folder {root.name!r} holds several models ({several}): name one of them")
    return next(iter(found.values()), None)


def _folder(path: Path, depth: int = 0) -> Artifact:
    size = _folder_bytes(path)
    if _script_name(path):
        return Artifact("script", path, path, size, True, _script_frameworks(path))
    if (path / "MLmodel").is_file():
        file = mlflow.model_file(path)
        return _file(file, path, size)
    if (path / declaration.NAME).is_file():
        return _declared(path, size)
    only = native(path)
    if only is not None:
        return Artifact(only.format, path, only.file, size, only.executes_code, only.frameworks)
    inner = _inner(path)
    if inner is not None and depth < 3:
        return _folder(inner, depth + 1)
    raise LoadFailed(
        f"the folder {path.name!r} holds no model that is recognised: expected ONNX, XGBoost, LightGBM, BlazingText, "
        "scikit-learn (joblib or skops), TorchScript, .pt2, an MLflow model or code/inference.py"
    )


def _declared(path: Path, size: int) -> Artifact:
    """A folder with ``algorithm.json``: it needs what the models beside it need, and is code if one of them is."""
    found = list(_models(path))
    frameworks = frozenset().union(*(one.frameworks for one in found))
    code = any(one.executes_code for one in found)
    return Artifact("algorithm", path, path / declaration.NAME, size, code, frameworks, _algorithm(path))


def _models(path: Path) -> Iterator[Artifact]:
    """Each file directly in the folder that is a model."""
    for file in _candidates(path):
        try:
            yield _file(file, path, file.stat().st_size)
        except LoadFailed:
            continue  # words, vectors, the declaration itself


def _algorithm(path: Path) -> str:
    """The algorithm that a folder declares; empty where its declaration cannot be read, which its load will say."""
    try:
        declared = declaration.read(path)
    except LoadFailed:
        return ""
    return declared.algorithm if declared else ""


def _script_name(root: Path) -> str:
    """``code/inference.py`` of a script folder, or the first other Python file in ``code/``; empty if there is none."""
    for name in ("code/inference.py", "inference.py"):
        if (root / name).is_file():
            return name
    code = root / "code"
    files = sorted(file.name for file in code.glob("*.py")) if code.is_dir() else []
    return f"code/{files[0]}" if files else ""


def _candidates(root: Path) -> list[Path]:
    """Visible regular files directly in the folder; links only where they stay inside it."""
    inside = root.resolve()
    files = [entry for entry in sorted(root.iterdir()) if not entry.name.startswith(".") and entry.is_file()]
    return [file for file in files[:_MAX_FILES] if file.resolve().is_relative_to(inside)]


def _inner(root: Path) -> Path | None:
    """The folder an archive was packed around, or the highest of numbered version folders."""
    folders = [entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink() and entry.name[0] != "."]
    if len(folders) == 1:
        return folders[0]
    if folders and all(folder.name.isdecimal() for folder in folders):
        return max(folders, key=lambda folder: int(folder.name))
    return None


def _folder_bytes(root: Path) -> int:
    total = 0
    for number, entry in enumerate(root.rglob("*")):
        if number > _MAX_FILES:
            raise LoadFailed(f"the folder {root.name!r} holds more than {_MAX_FILES} files: name one model in it")
        found = entry.lstat()
        total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def _script_frameworks(root: Path) -> frozenset[str]:
    texts = [root / "inference.py", *sorted((root / "code").glob("*.py"))]
    named = {name for text in texts if text.is_file() for name in _imported(text)}
    return _installed(name for name in _KNOWN if name in named)


def _imported(text: Path) -> set[str]:
    """Top-level modules that a Python file imports by name; by its text, not by running or parsing it."""
    with text.open("rb") as file:
        read = file.read(_IMPORTS_READ)
    return {name.decode() for name in re.findall(rb"^[ \t]*(?:import|from)[ \t]+(\w+)", read, re.MULTILINE)}


# --- files ----------------------------------------------------------------------------------------------------------


def _file(path: Path, root: Path, size: int) -> Artifact:
    with path.open("rb") as file:
        found = _format(path, file)
        named: tuple[str, ...] = _FRAMEWORKS.get(found, ())
        if found == "pickle":
            file.seek(0)
            text = file.read(_IMPORTS_READ)
            named += tuple(name for name in _KNOWN if name.encode() in text)
    return Artifact(found, root, path, size, found in EXECUTES_CODE, _installed(named))


def _installed(names: Iterator[str] | tuple[str, ...]) -> frozenset[str]:
    return frozenset(name for name in names if _is_installed(name))


@cache
def _is_installed(name: str) -> bool:
    return find_spec(name) is not None


def _format(path: Path, file: BinaryIO) -> str:
    name, head = path.name, file.read(_HEAD)
    if not head:
        raise _Refused(f"the model file {name!r} is empty")
    if head.startswith(b"PK\x03\x04"):
        return _zip_format(path)
    if head.startswith(_LEGACY_TORCH):
        raise _weights_only(name, "PyTorch weights")
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if re.match(rb"\s*\{\s*\"(learner|version)\"", head) and b'"learner"' in head:
        return "xgboost"
    if head.startswith(b"{L") and b"learner" in head[:64]:
        return "xgboost"
    if re.match(rb"tree\r?\n", head):
        return "lightgbm"
    if head.startswith(_FASTTEXT):
        return "fasttext"
    if _is_vectors(head):
        return "vectors"
    _refuse_known(name, head)
    if _is_model_proto(file, path.stat().st_size):
        return "onnx"
    if head.startswith(_COMPRESSED):
        return _compressed_format(name, head)
    if path.suffix == ".onnx":
        raise _Refused(f"the model file {name!r} is not a whole ONNX model: it is damaged or cut short")
    raise LoadFailed(f"the model file {name!r} is of no format that is recognised")


def _zip_format(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:_MAX_ZIP_MEMBERS]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError) as error:  # zipfile's own ways
        raise _Refused(f"the model file {path.name!r} is a damaged zip archive") from error
    inner = {name.partition("/")[2] for name in names}
    if "schema.json" in names:
        return "skops"
    if "archive_format" in inner or "serialized_exported_program.json" in names or "models/model.json" in inner:
        return "pt2"
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "data.pkl" in inner:
        raise _weights_only(path.name, "PyTorch weights")
    raise LoadFailed(f"the model file {path.name!r} is a zip archive, but of no model format that is recognised")


def _compressed_format(name: str, head: bytes) -> str:
    """joblib's compressed pickles; where zlib reads them, their first bytes tell them from archives and text."""
    if head.startswith(_ZLIB):
        try:
            inner = zlib.decompressobj(47).decompress(head, 512)
        except zlib.error as error:
            raise LoadFailed(f"the model file {name!r} is damaged") from error
        if inner[257:262] == b"ustar":
            raise _Refused(
                f"the artifact {name!r} is an archive: serve it under a name like model.tar.gz, or unpack it"
            )
        if not inner.startswith(b"\x80"):
            raise LoadFailed(f"the model file {name!r} is of no format that is recognised")
    return "pickle"


def _refuse_known(name: str, head: bytes) -> None:
    """Formats we know and do not serve as they are: say what to do."""
    if head.startswith((b"binf", b"bs64")) or re.search(rb"\x00(gbtree|gblinear|dart)", head[:512]):
        raise _Refused(
            f"the model file {name!r} is in XGBoost's old binary format, which XGBoost no longer reads: load it with "
            "an XGBoost before 3.0 and save it again as model.ubj or model.json"
        )
    if re.match(rb"[\s\S]{3,4}\x00{4,5}\{\s*\"", head[:32]):
        raise _weights_only(name, "safetensors")
    if head.startswith(b"\x89HDF"):
        raise _Refused(f"the model file {name!r} is HDF5 (Keras): export it to ONNX, or add code/inference.py")
    if head.startswith(b"\x93NUMPY"):
        raise LoadFailed(f"the model file {name!r} is a numpy array: data, not a model")


def _weights_only(name: str, what: str) -> _Refused:
    return _Refused(
        f"the model file {name!r} holds {what} without the code that uses them: add code/inference.py with a model_fn, "
        "or export the model to ONNX"
    )


def _is_vectors(head: bytes) -> bool:
    """Whether text begins as a table of words' vectors: how many, of how many numbers, then a word and those."""
    sizes = re.match(rb"([1-9]\d*) ([1-9]\d*)[ \r]*\n", head)
    if sizes is None:
        return False
    line, end, _ = head[sizes.end() :].partition(b"\n")
    numbers = [number for number in line.rstrip().split(b" ")[1:] if number]
    if not end:  # the line goes on after what was read, perhaps within a number
        return len(numbers) > 1 and all(map(_NUMBER.fullmatch, numbers[:-1]))
    return int(sizes[2]) == len(numbers) and all(map(_NUMBER.fullmatch, numbers))


def _is_model_proto(file: BinaryIO, size: int) -> bool:
    """Whether the whole file is a sequence of ModelProto's fields, a graph among them. Reads only the field heads."""
    position, has_graph = 0, False
    while position < size:
        file.seek(position)
        head = file.read(20)  # two varints of at most 10 bytes
        key, key_end = _varint(head, 0)
        value, value_end = _varint(head, key_end)
        number, wire = key >> 3, key & 7
        if not key_end or value_end <= key_end or _MODEL_PROTO.get(number) != wire:
            return False
        has_graph |= number == _GRAPH
        position += value_end + (value if wire == 2 else 0)
    return position == size and has_graph


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Value of the varint at ``start`` and where it ends; an end of 0 means there is none."""
    value = 0
    for index in range(start, min(start + 10, len(data))):
        value |= (data[index] & 0x7F) << 7 * (index - start)
        if data[index] < 0x80:
            return value, index + 1
    return 0, 0
