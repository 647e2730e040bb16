"""What every runtime promises, over a real model of every format."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.errors import BadInput, CodeNotAllowed, LoadFailed
from serving.runtimes import registry, trees_to_onnx
from serving.runtimes.base import LoadSettings, TensorModel
from serving.runtimes.formats import EXECUTES_CODE, check_allowed, recognise
from tests.runtimes.trained import FEATURES, MAKERS, Case, booster, data

Trained = Callable[[str], Case]
ALLOWED = LoadSettings(allow_code=True)


def load(case: Case) -> TensorModel:
    """The case's model, loaded as a worker loads it."""
    model = registry.load(recognise(case.path), ALLOWED)
    assert isinstance(model, TensorModel)
    return model


def assert_answers(case: Case, answer: object, rows: slice = slice(None)) -> None:
    """The framework's own numbers, to float32's last digits."""
    expected = case.expected if isinstance(case.expected, dict) else {"": case.expected}
    found = answer if isinstance(answer, dict) else {"": answer}
    assert set(expected) == set(found)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values[rows], rtol=2e-5, atol=1e-6)


@pytest.fixture(params=sorted(MAKERS))
def case(request: pytest.FixtureRequest, trained: Trained) -> Case:
    """Each member of the family."""
    return trained(request.param)


@pytest.fixture
def model(case: Case) -> Iterator[TensorModel]:
    """Each member, loaded; closed afterwards."""
    loaded = load(case)
    yield loaded
    loaded.close()


def test_an_artifact_is_recognised_by_its_content(case: Case) -> None:
    """Format, whether it is code, and its size are known before anything is loaded."""
    artifact = recognise(case.path)
    assert (case.format, case.executes_code) == (artifact.format, artifact.executes_code)
    assert artifact.file.stat().st_size <= artifact.bytes


def test_a_model_answers_as_its_framework_does(case: Case, model: TensorModel) -> None:
    """Missing values included, where the framework knows them."""
    assert_answers(case, model.predict(case.rows))


def test_a_row_alone_is_answered_as_among_others(case: Case, model: TensorModel) -> None:
    """Rows are independent: the batcher may put any together."""
    for index in (0, 17):
        rows = slice(index, index + 1)
        assert_answers(case, model.predict(case.rows[rows]), rows)


def test_improving_a_model_changes_none_of_its_answers(case: Case, model: TensorModel) -> None:
    """Whatever engine is found, the numbers stay, for few rows and for many."""
    model.optimise()
    assert_answers(case, model.predict(case.rows))
    assert_answers(case, model.predict(case.rows[:3]), slice(3))


def test_more_threads_change_no_answer(case: Case, model: TensorModel) -> None:
    """Threads may change while a model is loaded."""
    model.set_threads(2)
    assert_answers(case, model.predict(case.rows))
    model.set_threads(1)


def test_memory_that_cannot_be_written_to_is_read(case: Case, model: TensorModel) -> None:
    """Arrays that lie over a request's bytes are read-only."""
    rows = case.rows.copy()
    rows.flags.writeable = False
    assert_answers(case, model.predict(rows))


def test_arrays_by_column_are_read_by_row(case: Case, model: TensorModel) -> None:
    """A column-major array holds the same rows."""
    assert_answers(case, model.predict(np.asfortranarray(case.rows)))


@pytest.mark.parametrize("columns", [FEATURES - 1, FEATURES + 1])
def test_another_number_of_features_is_bad_input(model: TensorModel, columns: int) -> None:
    """Too few or too many; never read past the end of a row."""
    with pytest.raises(BadInput):
        model.predict(np.zeros((2, columns), np.float32))


def test_a_third_dimension_is_bad_input(case: Case, model: TensorModel) -> None:
    """Rows of matrices are not rows of features."""
    if case.format == "torchscript":
        assert (2, 3, 2) == model.predict(np.zeros((2, 3, FEATURES), np.float32)).shape  # its linear layer takes them
        return
    with pytest.raises(BadInput):
        model.predict(np.zeros((2, 3, FEATURES), np.float32))


def test_text_is_bad_input_to_a_model_of_numbers(model: TensorModel) -> None:
    """A library never sees a pointer to something else."""
    with pytest.raises(BadInput):
        model.predict(np.full((2, FEATURES), "cat"))


def test_a_model_says_what_it_reads(case: Case, model: TensorModel) -> None:
    """The spec's columns are the features it was trained on, its rows are free."""
    assert FEATURES == model.spec.columns
    assert model.spec.tensors[0].shape[0] is None
    assert model.batchable
    assert model.engine


def test_closing_twice_is_harmless(case: Case) -> None:
    """Native memory is freed once."""
    loaded = load(case)
    loaded.close()
    loaded.close()


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_code_needs_consent_and_data_does_not(name: str, trained: Trained) -> None:
    """The refusal names the file, the format and the setting; loading around the check is refused too."""
    artifact = recognise(trained(name).path)
    assert artifact.executes_code == (artifact.format in EXECUTES_CODE)
    if not artifact.executes_code:
        check_allowed(artifact, allow_code=False)
        registry.load(artifact, LoadSettings()).close()
        return
    for refused in (lambda: check_allowed(artifact, False), lambda: registry.load(artifact, LoadSettings())):
        with pytest.raises(CodeNotAllowed) as caught:
            refused()
        for telling in (artifact.file.name, artifact.format, "SERVING_ALLOW_CODE", "--allow-code"):
            assert telling in str(caught.value)
        assert str(artifact.root) not in str(caught.value)


# Loads each file in a process of its own (native loaders may crash on damage) and prints what became of it.
LOAD_EACH = """
import json, os, sys
from pathlib import Path
from serving.errors import ServingError
from serving.runtimes import registry, trees_to_onnx
from serving.runtimes.base import LoadSettings
from serving.runtimes.formats import recognise

registry.preload(filter(None, sys.argv[1].split(",")))
for file in map(Path, sys.argv[2:]):
    sys.stdout.flush()
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        if status:
            print(json.dumps([file.parent.name, "died", ""]))
        continue
    try:
        registry.load(recognise(file), LoadSettings(allow_code=True))
        said = ["loaded", ""]
    except ServingError as error:
        said = [type(error).__name__, str(error)]
    except BaseException as error:
        said = ["escaped", repr(error)]
    os.write(1, (json.dumps([file.parent.name, *said]) + "\\n").encode())
    os._exit(0)
"""


def outcomes(files: list[Path], frameworks: frozenset[str]) -> dict[str, tuple[str, str]]:
    """What became of loading each file: ``loaded``, ``died``, or an error's class and text, by its folder's name."""
    command = [sys.executable, "-c", LOAD_EACH, ",".join(frameworks), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110)
    lines = [line for line in done.stdout.splitlines() if line.startswith('["')]  # native loaders print there too
    return {name: (kind, text) for name, kind, text in map(json.loads, lines)}


DAMAGED = [name for name in sorted(MAKERS) if not name.startswith("mlflow")]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_fails_to_load_in_one_sentence(name: str, trained: Trained, tmp_path: Path) -> None:
    """Empty, cut and foreign files are LoadFailed; flipped bits load, fail or kill their process, but raise nothing
    else. No text shows a folder of the host."""
    artifact = recognise(trained(name).path)
    whole = artifact.file.read_bytes()
    dice = np.random.default_rng(3)
    contents = {"empty": b"", "half": whole[: len(whole) // 2], "cut": whole[:-40], "text": b"hello, model\n" * 40}
    for index in range(4):
        flipped = bytearray(whole)
        for position in dice.integers(0, len(whole), 6):
            flipped[position] ^= 1 << dice.integers(0, 8)
        contents[f"flipped{index}"] = bytes(flipped)
    files = []
    for kind, content in contents.items():
        (tmp_path / kind).mkdir()
        files.append(tmp_path / kind / artifact.file.name)
        files[-1].write_bytes(content)
    found = outcomes(files, artifact.frameworks)
    assert set(contents) == set(found)
    for kind in ("empty", "half", "text"):
        assert found[kind][0] == "LoadFailed", found[kind]
    for kind, (outcome, text) in found.items():
        assert outcome in ("LoadFailed", "OutOfMemory", "loaded", "died"), (kind, outcome, text)
        assert str(tmp_path) not in text
        assert "\n" not in text
        assert len(text) < 600


def test_a_missing_framework_is_named_with_its_extra(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence is a command that helps."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(LoadFailed, match=r"needs torch, .*pip install 'serving\[torch\]'"):
        registry.load(recognise(trained("torchscript").path), ALLOWED)


def test_an_unknown_format_is_refused(trained: Trained) -> None:
    """An artifact from a newer version of ourselves, say."""
    from dataclasses import replace

    with pytest.raises(LoadFailed, match="no runtime loads the format 'gguf'"):
        registry.load(replace(recognise(trained("xgboost_binary").path), format="gguf"), ALLOWED)


def test_every_format_has_a_runtime_that_can_be_imported() -> None:
    """The table names no function that is not there."""
    import importlib

    for name in registry.RUNTIMES.values():
        module, _, function = name.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_preloading_says_what_is_there() -> None:
    """A framework that is not installed is the loading model's affair, not the forkserver's."""
    assert ("json",) == registry.preload(["json", "no_such_framework"])


def test_a_fresh_server_process_imports_no_framework() -> None:
    """Recognising artifacts and knowing the runtimes costs no framework import."""
    code = (
        "import sys, serving.workers.artifacts, serving.runtimes.registry\n"
        "heavy = 'xgboost lightgbm torch sklearn onnxruntime onnx pandas scipy joblib skops mlflow'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_loading_trees_imports_neither_their_package_nor_its_friends(trained: Trained) -> None:
    """The C libraries are opened by themselves: no xgboost, lightgbm, scipy, scikit-learn or pandas in the worker."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from serving.runtimes import registry\nfrom serving.runtimes.base import LoadSettings\n"
        "from serving.runtimes.formats import recognise\n"
        "for path in sys.argv[1:]: registry.load(recognise(Path(path)), LoadSettings())\n"
        "print([name for name in 'xgboost lightgbm scipy sklearn pandas'.split() if name in sys.modules])"
    )
    paths = [str(trained(name).path) for name in ("xgboost_binary", "lightgbm_binary")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_a_folder_around_a_model_is_looked_into(trained: Trained, tmp_path: Path) -> None:
    """Archives are often packed around one folder, model stores number their versions."""
    for version in ("2", "10"):
        (tmp_path / "model" / version).mkdir(parents=True)
    shutil.copy(trained("xgboost_binary").path, tmp_path / "model" / "10")
    assert tmp_path / "model" / "10" / "model.ubj" == recognise(tmp_path).file


# Loads, improves and closes a model many times; prints how much the process has grown since the fifth time.
LOAD_OFTEN = """
import ctypes, sys
from pathlib import Path
import numpy as np
from serving.runtimes import registry, trees_to_onnx
from serving.runtimes.base import LoadSettings
from serving.runtimes.formats import recognise

def resident():
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

artifact = recognise(Path(sys.argv[1]))
for turn in range(35):
    model = registry.load(artifact, LoadSettings())
    model.optimise()
    model.predict(np.zeros((3, model.spec.columns), model.spec.tensors[0].dtype))
    model.close()
    del model
    if turn == 4:
        start = resident()
print(resident() - start)
"""


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "onnx"])
def test_closing_gives_the_memory_back(kind: str, tmp_path: Path) -> None:
    """Thirty loads of a model leave less behind than six of them would hold."""
    rows, labels = data()
    path = tmp_path / {"xgboost": "model.ubj", "lightgbm": "model.txt", "onnx": "model.onnx"}[kind]
    if kind == "lightgbm":
        import lightgbm

        settings = {"num_threads": 1, "verbosity": -1, "min_data_in_leaf": 1, "num_leaves": 64}
        lightgbm.train(settings, lightgbm.Dataset(rows, labels), 200).save_model(path)
    else:
        trained = booster("reg:squarederror", rounds=400, max_depth=8, min_child_weight=0)
        trained.save_model(tmp_path / "model.ubj")
        if kind == "onnx":
            converted = trees_to_onnx.convert(bytes(trained.save_raw("json")))
            assert converted is not None
            path.write_bytes(converted.model)
    command = [sys.executable, "-c", LOAD_OFTEN, str(path)]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 6 * path.stat().st_size
