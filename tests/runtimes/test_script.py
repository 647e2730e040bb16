"""Script models: SageMaker's script contract, function by function."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from serving.errors import BadInput, LoadFailed, ModelError, NotAcceptable, PredictionFailed, UnsupportedContentType
from serving.runtimes import registry
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel, ScriptReply
from serving.runtimes.formats import recognise
from tests.runtimes.trained import Case

Write = Callable[..., Path]

DOUBLE = """
    class Doubler:
        def predict(self, rows):
            return rows * 2
    def model_fn(model_dir):
        return Doubler()
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A model folder with ``code/inference.py`` and, by keyword, more modules beside it."""

    def write(script: str, folder: str = "model", **modules: str) -> Path:
        code = tmp_path / folder / "code"
        code.mkdir(parents=True)
        for name, text in {"inference": script, **modules}.items():
            (code / f"{name}.py").write_text(dedent(text))
        return tmp_path / folder

    return write


def load(path: Path, **environment: str) -> ScriptModel:
    """The script model of a folder, loaded with consent."""
    model = registry.load(recognise(path), LoadSettings(allow_code=True, environment=environment))
    assert isinstance(model, ScriptModel)
    return model


def ask(
    model: ScriptModel, body: bytes, content_type: str = "application/json", accept: str = "", **more: str
) -> ScriptReply:
    """One call."""
    return model.transform(ScriptCall(body, content_type, accept, **more))


def test_the_four_functions_are_called_in_order(write: Write) -> None:
    """Each gets what the one before returned; the model folder is the artifact's root."""
    model = load(
        write("""
        import os
        def model_fn(model_dir): return os.listdir(model_dir)
        def input_fn(body, content_type): return [body, content_type]
        def predict_fn(data, model): return [*data, model]
        def output_fn(prediction, accept): return repr([*prediction, accept]).encode(), "text/plain"
        """)
    )
    reply = ask(model, b'{"a": 1}', accept="text/plain")
    assert ['{"a": 1}', "application/json", ["code"], "text/plain"] == eval(reply.body)
    assert "text/plain" == reply.content_type


def test_transform_fn_takes_the_whole_call(write: Write) -> None:
    """Model, body, content type, accept."""
    model = load(
        write("""
        def model_fn(model_dir): return "model"
        def transform_fn(model, body, content_type, accept): return repr((model, body, content_type, accept))
        """)
    )
    reply = ask(model, b"\x00\xff", "application/octet-stream", "text/plain")
    assert ("model", b"\x00\xff", "application/octet-stream", "text/plain") == eval(reply.body)
    assert "text/plain" == reply.content_type


@pytest.mark.parametrize("content_type", ["text/csv", "text/csv; charset=utf-8", "application/json"])
def test_json_and_csv_arrive_as_text(write: Write, content_type: str) -> None:
    """And what is not UTF-8 is the caller's error."""
    model = load(write("def transform_fn(model, body, content_type, accept): return type(body).__name__"))
    assert b"str" == ask(model, b"1,2", content_type).body
    with pytest.raises(BadInput):
        ask(model, b"\xff\xfe", content_type)


def npy(rows: Any) -> bytes:
    """Rows as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(rows))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"[[1, 2], [3, 4]]", "application/json"),
        (b"1,2\n3,4\n", "text/csv"),
        (npy([[1.0, 2.0], [3.0, 4.0]]), "application/x-npy"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/x-npy"])
def test_the_defaults_decode_and_encode(write: Write, body: bytes, content_type: str, accept: str) -> None:
    """A script with a model_fn alone reads and writes JSON, CSV and npy."""
    reply = ask(load(write(DOUBLE)), body, content_type, accept)
    read = {
        "application/json": json.loads,
        "text/csv": lambda text: np.loadtxt(text.decode().splitlines(), delimiter=","),
        "application/x-npy": lambda raw: np.load(io.BytesIO(raw)),
    }
    np.testing.assert_array_equal([[2, 4], [6, 8]], read[accept](reply.body))
    assert accept == reply.content_type


def test_one_csv_row_is_a_matrix_of_one_row(write: Write) -> None:
    """So that ``predict`` of a framework takes it."""
    assert [[2.0, 4.0]] == json.loads(ask(load(write(DOUBLE)), b"1,2", "text/csv").body)


def test_nan_is_null_in_json(write: Write) -> None:
    """Every reply is valid JSON."""
    script = """
        def model_fn(model_dir): return None
        def predict_fn(data, model): return {"score": float("nan"), "scores": data / 0 * 0}
    """
    with np.errstate(all="ignore"):
        assert b'{"score":null,"scores":[null]}' == ask(load(write(script)), b"[1.0]").body


def test_the_default_accept_comes_from_the_models_environment(write: Write) -> None:
    """SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT counts where Accept is absent or anything."""
    model = load(write(DOUBLE), SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv")
    for accept in ("", "*/*"):
        assert "text/csv" == ask(model, b"[[1]]", accept=accept).content_type
    assert "application/json" == ask(model, b"[[1]]", accept="application/json").content_type


def test_unknown_types_are_refused_in_the_toolkits_words(write: Write) -> None:
    """415 for what cannot be read, 406 for what cannot be written."""
    model = load(write(DOUBLE))
    with pytest.raises(UnsupportedContentType, match=r"^Content type image/png is not supported by this framework\.$"):
        ask(model, b"png", "image/png")
    with pytest.raises(NotAcceptable):
        ask(model, b"[[1]]", accept="image/png")


@pytest.mark.parametrize("body", [b"[1, 2", b"", b"[[1], [1, 2]]", b"[" * 100_000])
def test_a_malformed_body_is_bad_input(write: Write, body: bytes) -> None:
    """What the default decoder cannot read is the caller's error."""
    with pytest.raises(BadInput):
        ask(load(write(DOUBLE)), body)


def test_each_function_may_take_the_context(write: Write) -> None:
    """Headers in, headers out, the model's own environment and folder."""
    model = load(
        write("""
        def model_fn(model_dir, context):
            assert context.model_dir == model_dir == context.system_properties["model_dir"]
            return context.environment["COLOUR"]
        def input_fn(body, content_type, context): return context.get_request_header("x-amzn-sagemaker-session-id")
        def predict_fn(data, model, context): return [data, model, context.get_request_header(0, "Content-Type")]
        def output_fn(prediction, accept, context):
            context.set_response_header("X-Amzn-SageMaker-Custom-Attributes", "seen")
            context.set_response_header(0, "x-amzn-sagemaker-closed-session-id", "s1")
            context.set_response_content_type(context.get_request_id(), "text/x-mine")
            return repr([*prediction, context.request_id])
        """),
        COLOUR="blue",
    )
    reply = ask(model, b"{}", session_id="s1", request_id="r1")
    assert ["s1", "blue", "application/json", "r1"] == eval(reply.body)
    assert "text/x-mine" == reply.content_type
    expected = {"X-Amzn-SageMaker-Custom-Attributes": "seen", "X-Amzn-SageMaker-Closed-Session-Id": "s1"}
    assert expected == dict(reply.headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [("Set-Cookie", "a=b"), ("X-Amzn-SageMaker-Custom-Attributes", "a\r\nb: c"), ("Content-Type", "é")],
)
def test_a_script_cannot_smuggle_headers(write: Write, name: str, value: str) -> None:
    """Only the contract's headers, only visible ASCII."""
    model = load(
        write(f"""
        def transform_fn(model, body, content_type, accept, context):
            context.set_response_header({name!r}, {value!r})
            return b""
        """)
    )
    with pytest.raises(PredictionFailed, match="ValueError"):
        ask(model, b"{}")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("def input_fn(body): ...", "TypeError: input_fn takes 1 arguments; it must take 2, or 3 with the context"),
        ("def model_fn(): ...", "TypeError: model_fn takes 0 arguments"),
        ("def transform_fn(a, b, c, d, e, f): ...", "TypeError: transform_fn takes 6 arguments"),
        ("predict_fn = 3", "TypeError: predict_fn is no function"),
        (
            "def transform_fn(a, b, c, d): ...\ndef input_fn(a, b): ...",
            "cannot use transform_fn together with input_fn",
        ),
        ("x = 1", "no model_fn, and no model file"),
        ("1 / 0", "importing 'inference.py' raised ZeroDivisionError: division by zero"),
        ("def model_fn(:", "importing 'inference.py' raised SyntaxError"),
        ("import sys; sys.exit(3)", "importing 'inference.py' raised SystemExit"),
        ("import no_such_module", "needs the Python module 'no_such_module', which is not installed"),
        ("def model_fn(model_dir): open(model_dir + '/weights')", "model_fn raised FileNotFoundError"),
        (
            "def model_fn(d): return 1\ndef model_warmup_fn(d, m): raise KeyError('w')",
            "model_warmup_fn raised KeyError",
        ),
        ("def pre_model_fn(d): raise OSError('no network')", "pre_model_fn raised OSError: no network"),
    ],
)
def test_a_script_that_cannot_work_fails_to_load(write: Write, tmp_path: Path, script: str, said: str) -> None:
    """In one sentence that names the function, and no folder of the host."""
    path = write(script)
    with pytest.raises(LoadFailed) as caught:
        load(path)
    assert said in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hooks_run_before_and_after_model_fn(write: Write) -> None:
    """pre_model_fn, model_fn, model_warmup_fn; the last one sees the model."""
    model = load(
        write("""
        seen = []
        def pre_model_fn(model_dir): seen.append("pre")
        def model_fn(model_dir): seen.append("model"); return seen
        def model_warmup_fn(model_dir, model): model.append("warm")
        def transform_fn(model, body, content_type, accept): return ",".join(model)
        """)
    )
    assert b"pre,model,warm" == ask(model, b"{}").body


@pytest.mark.parametrize(
    ("raising", "kind", "status"),
    [
        ("class E(Exception):\n    status_code = 422\nraise E('odd rows')", ModelError, 422),
        ("class E(Exception):\n    status_code = 200\nraise E('odd rows')", PredictionFailed, 500),
        ("raise KeyError('odd rows')", PredictionFailed, 500),
        ("import sys\nsys.exit('odd rows')", PredictionFailed, 500),
        ("raise MemoryError('odd rows')", ModelError, 507),
    ],
)
def test_an_exception_becomes_the_models_error(write: Write, raising: str, kind: type[ModelError], status: int) -> None:
    """With the status it carries, if it is one of an error; without a trace."""
    body = raising.replace("\n", "\n    ")
    model = load(write(f"def transform_fn(model, body, content_type, accept):\n    {body}\n"))
    with pytest.raises(kind) as caught:
        ask(model, b"{}")
    assert status == caught.value.original_status
    assert "Traceback" not in str(caught.value)
    if status != 507:
        assert "odd rows" in str(caught.value)


def test_a_status_set_on_the_context_is_the_answers(write: Write) -> None:
    """As in the toolkit: a body and a failure status."""
    model = load(
        write("""
        def transform_fn(model, body, content_type, accept, context):
            context.set_response_status(code=418, phrase="teapot")
            return "short and stout"
        """)
    )
    with pytest.raises(ModelError, match="short and stout") as caught:
        ask(model, b"{}")
    assert 418 == caught.value.original_status


def test_a_generator_is_a_streamed_answer(write: Write) -> None:
    """Pieces come as they are made; a failure in the middle is ours to report."""
    model = load(
        write("""
        def transform_fn(model, body, content_type, accept):
            def pieces():
                yield "a"
                yield b"b"
                if body == "fail":
                    raise RuntimeError("broke")
            return pieces(), "text/plain"
        """)
    )
    reply = ask(model, b"{}")
    assert reply.chunks is not None
    assert ("text/plain", [b"a", b"b"]) == (reply.content_type, list(reply.chunks))
    chunks = ask(model, b"fail").chunks
    assert chunks is not None
    assert b"a" == next(chunks)
    with pytest.raises(PredictionFailed, match="RuntimeError: broke"):
        list(chunks)


def test_sagemaker_program_names_the_script(write: Write) -> None:
    """And nothing outside code/."""
    path = write("1 / 0", serve="def transform_fn(model, body, content_type, accept): return 'served'")
    assert b"served" == ask(load(path, SAGEMAKER_PROGRAM="serve.py"), b"{}").body
    for name in ("../inference.py", "absent.py", "serve", "/etc/passwd"):
        with pytest.raises(LoadFailed, match="SAGEMAKER_PROGRAM"):
            load(path, SAGEMAKER_PROGRAM=name)


def test_without_model_fn_the_model_beside_the_code_is_loaded(write: Write, trained: Callable[[str], Case]) -> None:
    """The framework's own default, for decoding and predicting too."""
    case = trained("xgboost_binary")
    path = write("def output_fn(prediction, accept): return ','.join(str(score) for score in prediction)")
    (path / "xgboost-model").write_bytes(case.path.read_bytes())
    model = load(path)
    rows = "\n".join(",".join("" if np.isnan(cell) else repr(float(cell)) for cell in row) for row in case.rows[:3])
    answer = [float(score) for score in ask(model, rows.encode(), "text/csv").body.split(b",")]
    np.testing.assert_allclose(answer, np.asarray(case.expected)[:3], rtol=1e-6)
    model.close()


def test_torch_modules_have_a_default_predict(write: Write) -> None:
    """A model_fn that returns a network needs nothing else."""
    model = load(
        write("""
        import torch
        def model_fn(model_dir):
            torch.manual_seed(0)
            return torch.nn.Linear(2, 1).eval()
        """)
    )
    assert (2, 1) == np.shape(json.loads(ask(model, b"[[1, 2], [3, 4]]").body))


# --- modules of several models ---------------------------------------------------------------------------------------

LATE = """
    import helper
    def model_fn(model_dir): return helper.NAME
    def transform_fn(model, body, content_type, accept):
        from helper import NAME
        import late
        from package.inner import DEEP
        return f"{model} {NAME} {late.NAME} {late.again()} {DEEP}"
"""


def test_two_models_do_not_share_modules_of_one_name(write: Write) -> None:
    """Not at load, and not when a function imports late."""
    models = {}
    for name in ("one", "two"):
        again = f"NAME = '{name}-late'\ndef again():\n    import helper\n    return helper.NAME\n"
        path = write(LATE, name, helper=f"NAME = '{name}'", late=again)
        (path / "code" / "package").mkdir()
        (path / "code" / "package" / "__init__.py").write_text("")
        (path / "code" / "package" / "inner.py").write_text(f"from .deep import DEEP\nDEEP = DEEP + '-{name}'\n")
        (path / "code" / "package" / "deep.py").write_text("DEEP = 'deep'")
        models[name] = load(path)
    for _ in range(2):
        for name, model in models.items():
            assert f"{name} {name} {name}-late {name} deep-{name}" == ask(model, b"{}").body.decode()
    for module in ("helper", "late", "inference", "package"):
        assert module not in sys.modules


def test_a_late_import_does_not_wait_for_another_models_load(write: Write) -> None:
    """A warm model answers while a cold one is still in its model_fn."""
    warm = load(
        write(
            LATE.replace("from package.inner import DEEP", "DEEP = 1"),
            "warm",
            helper="NAME='w'",
            late="NAME='l'\ndef again(): return 1",
        )
    )
    expected = ask(warm, b"{}").body
    (go, let_go), (inside, tell_inside) = os.pipe(), os.pipe()
    cold = f"import os\ndef model_fn(d): os.write({tell_inside}, b'x'); return os.read({go}, 1)\n"
    loader = threading.Thread(target=load, args=(write(f"{cold}def predict_fn(d, m): return m", "cold"),))
    loader.start()
    try:
        assert b"x" == os.read(inside, 1)
        assert expected == ask(warm, b"{}").body
        assert loader.is_alive()
    finally:
        os.write(let_go, b"x")
        loader.join()
        for pipe in (go, let_go, inside, tell_inside):
            os.close(pipe)


def test_model_fn_may_import_on_threads_of_its_own(write: Write) -> None:
    """Loading in parallel must not wait for itself."""
    script = """
        from concurrent.futures import ThreadPoolExecutor
        def late():
            import helper
            return helper.NAME
        def model_fn(model_dir):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(late).result()
        def transform_fn(model, body, content_type, accept): return model
    """
    assert b"here" == ask(load(write(script, helper="NAME = 'here'")), b"{}").body


def test_a_pickle_finds_the_scripts_own_classes(write: Write) -> None:
    """Objects pickled beside the script name its modules."""
    path = write(
        """
        import pickle
        from shapes import Net
        class Here:
            pass
        def model_fn(model_dir):
            assert type(pickle.loads(b"cinference\\nHere\\n)\\x81.")) is Here
            return pickle.loads(b"cshapes\\nNet\\n)\\x81.")
        def transform_fn(model, body, content_type, accept): return type(model).__name__
        """,
        shapes="class Net: pass",
    )
    assert b"Net" == ask(load(path), b"{}").body


def test_loading_leaves_the_process_as_it_was(write: Write) -> None:
    """Import path, finders and the artifact's folder; also when the script fails."""
    before = (list(sys.path), list(sys.meta_path), set(sys.modules))
    path = write("import helper\ndef transform_fn(m, b, c, a): return b''", helper="X = 1")
    load(path).close()
    broken = write("import helper\n1 / 0", "broken", helper="X = 2")
    with pytest.raises(LoadFailed):
        load(broken)
    assert before == (list(sys.path), list(sys.meta_path), set(sys.modules))
    assert {"inference.py", "helper.py"} == {file.name for file in (path / "code").iterdir()}
