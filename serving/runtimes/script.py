"""Script models: ``code/inference.py`` as SageMaker's framework containers run it.

====================  ==================================  =========================================================
function              arguments                           where it is missing
====================  ==================================  =========================================================
``pre_model_fn``      model_dir                           nothing
``model_fn``          model_dir                           the one model file beside ``code/``, by its runtime
``model_warmup_fn``   model_dir, model                    nothing
``transform_fn``      model, body, content_type, accept   the next three, one after the other
``input_fn``          body, content_type                  decode by type (JSON, CSV, npy, npz)
``predict_fn``        data, model                         the framework's own
``output_fn``         prediction, accept                  encode in the first acceptable type (JSON, CSV, npy)
====================  ==================================  =========================================================

Each may take one more, last argument: the context. ``transform_fn`` beside any of the three is an error. Bodies of JSON
and CSV arrive as text, others as bytes. An exception with a ``status_code`` from 400 to 599 chooses its status.

An answer that is an iterator (``transform_fn``, ``output_fn``, or ``predict_fn`` where there is no ``output_fn``, may
be a generator) is streamed: each piece, bytes or text, goes out when it is made, if the caller asked for a stream, and
all of them joined otherwise. The caller may read slowly: between two pieces of one answer the model answers other
calls. A caller who leaves closes the generator (``GeneratorExit``).

``requirements.txt`` is not installed: what a server's environment holds is its operator's decision.
"""

from __future__ import annotations

import gc
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from serving.codecs.media import parse_media_type
from serving.errors import BadInput, LoadFailed, ModelError, ServingError
from serving.runtimes import formats, registry, script_defaults
from serving.runtimes.base import Artifact, LoadSettings, ScriptCall, ScriptModel, ScriptReply, TensorModel
from serving.runtimes.failures import said
from serving.runtimes.script_chunks import ScriptChunks, as_bytes, translated
from serving.runtimes.script_context import ScriptContext
from serving.runtimes.script_imports import ScriptImports

#: Function -> how many arguments it takes without the context.
FUNCTIONS = {
    "pre_model_fn": 1,
    "model_fn": 1,
    "model_warmup_fn": 2,
    "transform_fn": 4,
    "input_fn": 2,
    "predict_fn": 2,
    "output_fn": 2,
}
_CHAIN = ("input_fn", "predict_fn", "output_fn")
_DEFAULT_ACCEPT = "application/json"

log = logging.getLogger(__name__)


class _Function(NamedTuple):
    call: Callable[..., Any]
    takes_context: bool

    def __call__(self, *arguments: Any, context: ScriptContext) -> Any:
        return self.call(*arguments, context) if self.takes_context else self.call(*arguments)


class UserScript(ScriptModel):
    """A loaded script and the model it made."""

    def __init__(self, root: Path, settings: LoadSettings, imports: ScriptImports, functions: Mapping[str, _Function]):
        """``start`` makes the model."""
        self._root = root
        self._settings = settings
        self._imports = imports
        self._functions = dict(functions)
        self._model: Any = None
        self._default = settings.environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or _DEFAULT_ACCEPT

    def start(self) -> None:
        """Run ``pre_model_fn``, ``model_fn`` and ``model_warmup_fn``. Raises LoadFailed naming the one that failed."""
        with self._imports.visible():  # pickles that model_fn opens name the script's own modules
            self._hook("pre_model_fn", str(self._root))
            if "model_fn" in self._functions:
                self._model = self._hook("model_fn", str(self._root))
            else:
                self._model = self._native()
            self._hook("model_warmup_fn", str(self._root), self._model)

    def transform(self, call: ScriptCall) -> ScriptReply:
        """Answer one call. Raises ModelError with the status that the script's exception carries, else 500."""
        context = ScriptContext(self._root, self._settings.environment, call)
        try:
            answer = self._answer(call, context)
            return self._reply(answer, call.accept, context)
        except ServingError:
            raise
        except (Exception, SystemExit) as error:
            raise translated(error) from error

    def set_threads(self, threads: int) -> None:
        """Passed on where the model is one of our own runtimes."""
        if isinstance(self._model, TensorModel):
            self._model.set_threads(threads)

    def close(self) -> None:
        """Drop the model and the script's modules."""
        if isinstance(self._model, TensorModel):
            self._model.close()
        self._model = None
        self._functions.clear()
        self._imports.close()
        gc.collect()

    # -- loading -------------------------------------------------------------------------------------------------------

    def _hook(self, name: str, *arguments: Any) -> Any:
        function = self._functions.get(name)
        if function is None:
            return None
        try:
            return function(*arguments, context=ScriptContext(self._root, self._settings.environment))
        except (ServingError, ModuleNotFoundError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            log.info("%s of %s failed", name, self._root, exc_info=True)
            raise LoadFailed(f"{name} raised {type(error).__name__}: {said(error)}") from error

    def _native(self) -> Any:
        """``model_fn``'s default: the framework's own, by the model file beside the code."""
        artifact = formats.native(self._root)
        if artifact is None:
            if "transform_fn" in self._functions or "predict_fn" in self._functions:
                return None
            raise LoadFailed("the script has no model_fn, and no model file lies beside its code folder")
        return registry.load(artifact, self._settings)

    # -- one call ------------------------------------------------------------------------------------------------------

    def _answer(self, call: ScriptCall, context: ScriptContext) -> Any:
        functions, body = self._functions, _body(call)
        if "transform_fn" in functions:
            return functions["transform_fn"](self._model, body, call.content_type, call.accept, context=context)
        if "input_fn" in functions:
            data = functions["input_fn"](body, call.content_type, context=context)
        else:
            data = script_defaults.decode(body, call.content_type, self._model)
        if "predict_fn" in functions:
            prediction = functions["predict_fn"](data, self._model, context=context)
        else:
            prediction = script_defaults.predict(data, self._model)
        if "output_fn" in functions:
            return functions["output_fn"](prediction, call.accept, context=context)
        if isinstance(prediction, Iterator):
            return prediction
        return script_defaults.encode(prediction, self._accept(call.accept), self._default)

    def _reply(self, answer: Any, accept: str, context: ScriptContext) -> ScriptReply:
        named, usual = "", _concrete(accept) or self._default
        if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], str):
            answer, named = answer
        content_type = named or context.response_content_type or usual
        if isinstance(answer, Iterator):
            chunks = ScriptChunks(answer, context, named, usual)
            return ScriptReply(b"", content_type, context.response_headers, chunks)
        body = as_bytes(answer)
        if body is None:
            body, content_type = script_defaults.encode(answer, content_type, self._default)
        if context.response_status >= 400:
            raise ModelError(body[:2048].decode("utf-8", "replace"), context.response_status)
        return ScriptReply(body, content_type, context.response_headers)

    def _accept(self, accept: str) -> str:
        return self._default if accept.strip() in ("", "*/*") else accept


def load(artifact: Artifact, settings: LoadSettings) -> ScriptModel:
    """Import the script, check its functions, make its model. Raises LoadFailed, in a sentence that names the function
    at fault, ModuleNotFoundError for a module that is not installed."""
    program = _program(artifact.root, settings.environment)
    imports = ScriptImports(program.parent)
    try:
        functions = _functions(_imported(imports, program))
        script = UserScript(artifact.root, settings, imports, functions)
        script.start()
    except BaseException:
        imports.close()
        raise
    return script


def _program(root: Path, environment: Mapping[str, str]) -> Path:
    """The file to run: ``SAGEMAKER_PROGRAM`` in ``code/``, else ``inference.py``, else the only Python file there."""
    code = root / "code" if (root / "code").is_dir() else root
    name = environment.get("SAGEMAKER_PROGRAM", "")
    if name:
        if Path(name).name != name or not name.endswith(".py"):
            raise LoadFailed("SAGEMAKER_PROGRAM must be the name of a Python file in code/")
        if not (code / name).is_file():
            raise LoadFailed(f"SAGEMAKER_PROGRAM names {name!r}, which is not in code/")
        return (code / name).resolve()
    found = [code / "inference.py"] if (code / "inference.py").is_file() else sorted(code.glob("*.py"))
    if len(found) != 1:
        raise LoadFailed("code/ has no inference.py and several other Python files: set SAGEMAKER_PROGRAM to one")
    return found[0].resolve()


def _imported(imports: ScriptImports, program: Path) -> ModuleType:
    try:
        return imports.load(program)
    except (ModuleNotFoundError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        log.info("importing %s failed", program, exc_info=True)
        raise LoadFailed(f"importing {program.name!r} raised {type(error).__name__}: {said(error)}") from error


def _functions(module: ModuleType) -> dict[str, _Function]:
    found = {}
    for name, count in FUNCTIONS.items():
        function = getattr(module, name, None)
        if function is None:
            continue
        given = len(inspect.signature(function).parameters) if callable(function) else -1
        if given not in (count, count + 1):
            takes = f"{name} takes {given} arguments" if given >= 0 else f"{name} is no function"
            raise LoadFailed(f"TypeError: {takes}; it must take {count}, or {count + 1} with the context")
        found[name] = _Function(function, given == count + 1)
    both = [name for name in _CHAIN if name in found]
    if "transform_fn" in found and both:
        raise LoadFailed(f"ValueError: cannot use transform_fn together with {', '.join(both)}")
    return found


def _body(call: ScriptCall) -> bytes | str:
    """Text for JSON and CSV, bytes for the rest."""
    if _concrete(call.content_type) not in script_defaults.TEXT_TYPES:
        return call.body
    try:
        return call.body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput("the body is not UTF-8 text") from None


def _concrete(header: str) -> str:
    """The first media type of a header, without parameters; empty when there is none or it is a range."""
    media_type = parse_media_type(header.partition(",")[0])[0] if header.strip() else ""
    return "" if "*" in media_type else media_type
